"""Words about variants: effects and changes of the protein, as MAF, SnpEff, VEP and OAK write them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

# Effects, worst first (order of Ensembl's consequences), each with the words of MAF, SnpEff and VEP, and of OAK.
_EFFECTS: dict[str, str] = {
    "splice": "splice_site splice_acceptor_variant splice_donor_variant",
    "nonsense": "nonsense_mutation stop_gained",
    "frameshift": "frame_shift_del frame_shift_ins frameshift_variant",
    "stop_lost": "nonstop_mutation stop_lost",
    "start_lost": "translation_start_site start_lost",
    "inframe": "in_frame_del in_frame_ins inframe_deletion inframe_insertion conservative_inframe_deletion "
    "conservative_inframe_insertion disruptive_inframe_deletion disruptive_inframe_insertion protein_altering_variant",
    "missense": "missense_mutation missense_variant",
    "splice_region": "splice_region_variant splice_donor_5th_base_variant splice_polypyrimidine_tract_variant "
    "splice_donor_region_variant",
    "synonymous": "silent synonymous_variant stop_retained_variant start_retained_variant",
    "noncoding": "intron igr rna lincrna 3'utr 5'utr 3'flank 5'flank targeted_region intron_variant intergenic_region "
    "intergenic_variant upstream_gene_variant downstream_gene_variant 5_prime_utr_variant 3_prime_utr_variant "
    "non_coding_transcript_exon_variant non_coding_transcript_variant",
}
EFFECTS = (*_EFFECTS, "other")
SILENT = frozenset({"splice_region", "synonymous", "noncoding"})
"""Effects that leave the protein, as far as is known, as it is; without event `HGNC//GENE`."""
_EFFECT_OF = {word: effect for effect, words in _EFFECTS.items() for word in (effect, *words.split())}
_GENE = re.compile(r"[A-Za-z][A-Za-z0-9@._-]*")
_NOT_A_GENE = frozenset({"unknown", "na", "none", "."})


class Variant(NamedTuple):
    """One variant in one sample; the allele fraction is NaN where it is not known."""

    sample: str
    gene: str
    effect: str
    protein: str | None
    transcript: str | None
    fraction: float
    driver: bool = False


@lru_cache(maxsize=4096)
def effect_of(written: str) -> str:
    """Return the effect in one word, the worst of several: `Missense_Mutation` and `missense_variant` give missense."""
    words = re.split(r"[&,]", written.strip().casefold())
    return min((_EFFECT_OF.get(word.strip(), "other") for word in words), key=EFFECTS.index)


@lru_cache(maxsize=65536)
def short_protein(change: str | None) -> str | None:
    """Return a change of the protein in letters: `ENSP1:p.Val600Glu` gives p.V600E; None for none."""
    if not change or change in (".", "NA"):
        return None
    text = change.rsplit(":", 1)[-1].replace("%3D", "=")
    return re.sub("|".join(_LETTERS), lambda found: _LETTERS[found[0]], text)


_LETTERS = {
    "Ala": "A", "Arg": "R", "Asn": "N", "Asp": "D", "Cys": "C", "Gln": "Q", "Glu": "E", "Gly": "G", "His": "H", "Ile": "I",
    "Leu": "L", "Lys": "K", "Met": "M", "Phe": "F", "Pro": "P", "Ser": "S", "Thr": "T", "Trp": "W", "Tyr": "Y", "Val": "V",
    "Sec": "U", "Ter": "*",
}  # fmt: skip


def gene_fault(gene: str) -> str | None:
    """Return why a name is no gene, or None."""
    if not gene or gene.casefold() in _NOT_A_GENE:
        return "no gene"
    return None if _GENE.fullmatch(gene) else "the gene is no HGNC symbol"
