"""Variants of VCF files that are annotated with genes: ANN (SnpEff) or CSQ (Ensembl VEP).

Parsed by pysam (MIT), which is needed for VCF alone.
Sources: VCF 4.x; Variant annotations in VCF format 1.0 (ANN); Ensembl VEP (CSQ).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from theracast_data.errors import SchemaError
from theracast_data.events.readers.variant_terms import EFFECTS, Variant, effect_of, gene_fault, short_protein
from theracast_data.events.report import IngestReport

# After so many unreadable records without one that is read, the rest of a VCF is damaged.
_PATIENCE = 1000


def vcf_samples(path: Path) -> list[str]:
    """Return the samples that a VCF names.

    Raises:
        SchemaError: it names none, or is no VCF.
    """
    with _open_vcf(path) as file:
        samples = list(file.header.samples)
    if not samples:
        raise SchemaError(f"{path}: the VCF names no sample. Export it with its FORMAT and sample columns.")
    return samples


def vcf_variants(path: Path, *, pass_only: bool, report: IngestReport) -> Iterator[tuple[Variant, str]]:
    """Return the variants of a VCF, one for each allele and sample that has it, with their places.

    Of several annotations of an allele the worst counts. What is no record, has no gene or fails a filter is counted.

    Raises:
        SchemaError: the file is no VCF, is damaged, or is not annotated with genes.
    """
    with _open_vcf(path) as file:
        annotations = _annotations_of(path, file.header)
        for record, position in _records(path, file, report):
            report.read += 1
            passed = all(name == "PASS" for name in record.filter)
            fault = "no alternate allele" if not record.alts else None
            fault = fault or ("FILTER is not PASS" if pass_only and not passed else None)
            if fault:
                report.refuse("(variant)", fault, position=position)
                continue
            for number, alt in enumerate(record.alts, start=1):
                found = annotations(record, number, alt)
                fault = "a symbolic allele" if alt[0] in "<*" else gene_fault(found.gene if found else "")
                if fault:
                    report.refuse("(variant)", fault, position=position)
                    continue
                assert found is not None
                for name, call in record.samples.items():
                    fraction = _call_fraction(call, number)
                    if fraction is not None:
                        yield Variant(name, found.gene, found.effect, found.protein, found.coding, fraction), position


def _pysam() -> Any:
    try:
        import pysam
    except ImportError as error:
        raise SchemaError("VCF files need the library pysam. Install it: pip install pysam") from error
    return pysam


def _open_vcf(path: Path) -> Any:
    pysam = _pysam()
    # htslib writes lines of the file to stderr, which ends in logs; what is wrong is counted in the report.
    before = pysam.set_verbosity(0)
    try:
        return pysam.VariantFile(str(path))
    except (OSError, ValueError) as error:
        raise SchemaError(f"{path}: this is not a VCF file, or its header is damaged. Export it again.") from error
    finally:
        pysam.set_verbosity(before)


def _records(path: Path, file: Any, report: IngestReport) -> Iterator[tuple[Any, str]]:
    """Return the records that can be read, with their number; the others are counted."""
    pysam, number, failed = _pysam(), 0, 0
    while True:
        number += 1
        position = f"{path.name} record {number}"
        before = pysam.set_verbosity(0)
        try:
            record = next(file)
        except StopIteration:
            return
        except (OSError, ValueError) as error:
            failed += 1
            report.read += 1
            report.refuse("(line)", "the line is no record of a VCF", position=position)
            if failed >= _PATIENCE:
                raise SchemaError(
                    f"{path}: the file is damaged from record {number - failed + 1}. Export it again."
                ) from error
            continue
        finally:
            pysam.set_verbosity(before)
        failed = 0
        yield record, position


class _Annotation(NamedTuple):
    gene: str
    effect: str
    protein: str | None
    coding: str | None


def _annotations_of(path: Path, header: Any) -> Callable[[Any, int, str], _Annotation | None]:
    """Return what finds the worst annotation of an allele: of record, number of the allele (from 1) and allele."""
    if "ANN" in header.info:
        key, names = "ANN", ["Allele", "Consequence", "", "SYMBOL", "", "", "", "", "", "HGVSc", "HGVSp"]
    elif "CSQ" in header.info:
        key = "CSQ"
        names = str(header.info["CSQ"].description).rpartition("Format:")[2].strip(" \"'").split("|")
    else:
        names, key = [], ""
    if not {"Consequence", "SYMBOL"} <= set(names):
        raise SchemaError(
            f"{path}: the VCF names no genes. Annotate it with VEP (--symbol, CSQ) or SnpEff (ANN) first."
        )

    def annotation(record: Any, number: int, alt: str) -> _Annotation | None:
        written = record.info.get(key, ())
        entries = [
            dict(zip(names, entry.split("|"), strict=False))
            for entry in ([written] if isinstance(written, str) else written)
        ]
        if len(record.alts) > 1:
            # VEP leaves out the base that insertions and deletions share with the reference.
            own = {alt, alt[1:] or "-"} if len(alt) != len(record.ref) else {alt}
            entries = [
                entry for entry in entries
                if (entry["ALLELE_NUM"] == str(number) if entry.get("ALLELE_NUM") else entry.get("Allele") in own)
            ]  # fmt: skip
        named = [entry for entry in entries if entry.get("SYMBOL")]
        if not named:
            return None
        worst = min(named, key=lambda entry: EFFECTS.index(effect_of(entry["Consequence"])))
        protein, coding = short_protein(worst.get("HGVSp")), worst.get("HGVSc") or None
        return _Annotation(worst["SYMBOL"], effect_of(worst["Consequence"]), protein, coding)

    return annotation


def _call_fraction(call: Any, number: int) -> float | None:
    """Return the fraction of an allele in a sample, NaN where it is not known, None where the sample does not have it."""
    alleles = call.get("GT")
    typed = alleles is not None and any(allele is not None for allele in alleles)
    if typed and number not in alleles:
        return None
    given, depths = (_listed(call.get(name)) for name in ("AF", "AD"))
    fraction = math.nan
    if len(given) >= number and given[number - 1] is not None:
        fraction = float(given[number - 1])
    elif len(depths) > number and None not in depths:
        fraction = depths[number] / sum(depths) if sum(depths) else math.nan
    if not 0 <= fraction <= 1:
        fraction = math.nan
    return None if not typed and not fraction > 0 else float(f"{fraction:.7g}")


def _listed(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    return value if isinstance(value, tuple) else (value,)
