"""Gene-level features of sequencing: mutated genes and pathways, allele fractions, mutational burden.

Variants are rows with subject_id, time, gene, allele_fraction (0 to 1) and effect (missense, nonsense, synonymous, splice,
...), optionally available_time and known_driver (1 where the mutation is a known or likely driver, or may be). Which
patients were sequenced stands in rows of `tests`, for a sample without variants is a finding, and no sample is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import Field, model_validator

from theracast_data.errors import StudyError
from theracast_data.events.readers.variants import variant_frames
from theracast_data.events.report import IngestReport
from theracast_data.section import Section
from theracast_data.sources import Kind
from theracast_features.events.builder import coded_events, column_of, named_columns
from theracast_features.events.visible import by_decision, require_columns, visible_events
from theracast_features.naming import label_from_name
from theracast_features.specs import FeatureSpec, feature_name

SILENT = ("synonymous", "silent")


class BurdenRule(Section):
    """Which variants the tumour mutational burden counts, and over how many megabases.

    The defaults are those of the blood assay of OAK: coding bases changed at 0.5 % or more of the reads, synonymous ones
    too, known and likely drivers not. Source: Gandara DR et al. Nat Med 2018;24:1441-1448.
    """

    panel_megabases: float = Field(1.1, gt=0, description="Coding region that was sequenced, Mb.")
    synonymous: bool = Field(True, description="Whether synonymous variants count.")
    drivers: bool = Field(False, description="Whether known and likely driver mutations count.")
    min_allele_fraction: float = Field(
        0.005, ge=0, le=1, description="Smaller allele fractions do not count; unknown ones do."
    )

    @property
    def source(self) -> str | None:
        """The publication, where the rule is its own."""
        return "Gandara DR et al. Nat Med 2018;24:1441-1448" if self == BurdenRule() else None


class GeneSection(Section):
    """What sequencing becomes. Features are called `gen.NAME.KRAS.mutated`, `gen.NAME.tmb`, ...

    Events are those of the `variants` reader: `VARIANT//GENE//effect`, and `ASSAY//name` for each sample tested.
    """

    name: str = Field("sequencing", pattern=r"^[a-z][a-z0-9_]*$", description="Name in the features, e.g. blood.")
    assay: str | None = Field(
        None, description="Name of the test, as `assay` of the ingested source; by default any test counts."
    )
    panels: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Test to the symbols of the genes it covers; one not named here covers all."
    )
    genes: tuple[str, ...] = Field((), description="HGNC symbols.")
    pathways: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Name of a pathway to the symbols of its genes."
    )
    allele_fractions: bool = Field(True, description="Whether a gene's largest allele fraction becomes a feature too.")
    synonymous: bool = Field(False, description="Whether a synonymous variant makes a gene mutated.")
    max_somatic_allele_fraction: float = Field(
        1.0, gt=0, le=1, description="Allele fractions above are left out of MSAF, as likely germline. OAK: 0.2."
    )
    burden: BurdenRule = Field(
        default_factory=BurdenRule, description="What the tumour mutational burden counts, and over how much."
    )

    @model_validator(mode="after")
    def _check_names(self) -> GeneSection:
        both = [name for name in self.pathways if name in self.genes]
        if both:
            raise ValueError(f"{', '.join(both)} is a gene and a pathway; give the pathway another name")
        return self


@dataclass(frozen=True)
class GeneBuilder:
    """The `features.genes` of a study; see `EventBuilder`."""

    section: GeneSection

    @cached_property
    def _meanings(self) -> dict[str, FeatureSpec]:
        section, meanings = self.section, {}
        for gene in dict.fromkeys(section.genes):
            meanings[f"{gene}.mutated"] = self._spec(f"{gene}.mutated", f"{gene} mutated", (gene,), kind="boolean")
            if section.allele_fractions:
                meanings[f"{gene}.max_af"] = self._spec(
                    f"{gene}.max_af", f"{gene}, largest allele fraction", (gene,), unit="1"
                )
        for pathway, genes in section.pathways.items():
            label = f"{label_from_name(pathway)} pathway mutated"
            meanings[f"{pathway}.mutated"] = self._spec(f"{pathway}.mutated", label, genes, kind="boolean")
        every, burden = ("variants",), self.section.burden.source
        return meanings | {
            "variants": self._spec("variants", "Variants", every),
            "tmb_count": self._spec("tmb_count", "Variants in the tumour mutational burden", every, source=burden),
            "tmb": self._spec("tmb", "Tumour mutational burden", every, unit="{mutations}/Mb", source=burden),
            "msaf": self._spec("msaf", "Largest somatic allele fraction", every, unit="1"),
        }

    def _spec(
        self,
        column: str,
        label: str,
        genes: tuple[str, ...],
        *,
        unit: str | None = None,
        kind: Kind = "numeric",
        source: str | None = None,
    ) -> FeatureSpec:
        where = "" if self.section.name == "sequencing" else f" ({label_from_name(self.section.name).lower()})"
        return FeatureSpec(
            name=feature_name("genomic", self.section.name, column),
            modality="genomic",
            kind=kind,
            label=label + where,
            columns=genes,
            unit=unit,
            role="derived",
            source=source,
        )

    @property
    def catalogue(self) -> tuple[FeatureSpec, ...]:
        """The meaning of each column."""
        return tuple(self._meanings.values())

    def build(self, events: pa.Table, decisions: pd.DataFrame) -> pd.DataFrame:
        """Return what the sequencing known at each decision shows."""
        variants, tests = self._frames(events)
        return named_columns(gene_features(variants, tests, decisions, self.section), self._meanings)

    def steps(self, name: str) -> tuple[str, ...]:
        """Return which variants and tests are looked at, and what counts."""
        column = column_of(name, self._meanings)
        section, rule = self.section, self.section.burden
        steps = [
            "variants: events VARIANT//GENE//effect; a variant that is named twice counts once",
            f"tested: events ASSAY//{section.assay or '...'}; without one everything is missing",
            "seen: those up to the decision that were available by then, and those without a time",
        ]
        if column.startswith("tmb"):
            left_out = [
                word
                for word, counts in (("synonymous ones", rule.synonymous), ("known and likely drivers", rule.drivers))
                if not counts
            ]
            without = f", without {' and '.join(left_out)}" if left_out else ""
            steps.append(
                f"counted: allele fraction from {rule.min_allele_fraction:g}{without}; {rule.panel_megabases:g} Mb"
            )
        elif column == "msaf":
            steps.append(f"the largest allele fraction up to {section.max_somatic_allele_fraction:g}")
        else:
            genes = self._meanings[column].columns
            named = "" if column == "variants" else f" of {', '.join(genes)}"
            steps.append(f"counted: variants{named}{'' if section.synonymous else ' that are not synonymous'}")
        return tuple(steps)

    def rows(self, name: str, events: pa.Table, decisions: pd.DataFrame) -> pd.DataFrame:
        """Return the tests, and the variants that count for the feature."""
        column = column_of(name, self._meanings)
        variants, tests = self._frames(events)
        seen, tested = _once(visible_events(variants, decisions)), visible_events(tests, decisions)
        if column.startswith("tmb"):
            seen = seen[burden_counts(seen, self.section.burden)]
        elif column == "msaf":
            seen = seen[seen["allele_fraction"] <= self.section.max_somatic_allele_fraction]
        else:
            seen = _changing(seen, self.section)
            if column != "variants":
                seen = seen[seen["gene"].isin(self._meanings[column].columns)]
        return pd.concat([tested.drop(columns="panel"), seen]).sort_values(["decision", "time"], kind="stable")

    def _frames(self, events: pa.Table) -> tuple[pd.DataFrame, pd.DataFrame]:
        own = coded_events(events, lambda code: code.startswith(("VARIANT//", "ASSAY//")))
        variants, tests = variant_frames(own, assay=self.section.assay)
        panels = [self.section.panels.get(assay) for assay in tests["assay"]]
        return variants, tests.assign(panel=pd.Series(panels, index=tests.index, dtype=object))


def gene_features(
    variants: pd.DataFrame, tests: pd.DataFrame, decisions: pd.DataFrame, section: GeneSection
) -> pd.DataFrame:
    """Return one row a decision: what the sequencing known by then shows; all missing where there was none.

    Columns: `GENE.mutated` (1, 0; missing where no test covered the gene), `GENE.max_af` (0 to 1; missing unless mutated),
    `PATHWAY.mutated` (1 where one gene is; 0 only where all were tested), `variants` (number), `tmb_count`, `tmb` (1/Mb),
    `msaf` (largest somatic allele fraction; missing without variants).

    A variant that was reported twice, in two samples, counts once, with its largest allele fraction, if the column
    `variant` (or `cds`) names it.

    Args:
        variants: as in the head of this module.
        tests: subject_id, time, optionally available_time and `panel`: genes tested (a collection), missing for all.

    Raises:
        SchemaError: a column is missing.
        StudyError: allele fractions above 1, which are percentages.
    """
    require_columns(variants, ("gene", "allele_fraction", "effect"), what="variants")
    if (variants["allele_fraction"] > 1).any():
        raise StudyError(
            "variants: allele fractions above 1. Give fractions of the reads from 0 to 1, not percentages."
        )
    seen = _once(visible_events(variants, decisions))
    tested = visible_events(tests, decisions)
    sequenced = pd.Index(tested["decision"].unique())
    changing = _changing(seen, section)
    covered = _covered(tested, sequenced)
    names = dict.fromkeys([*section.genes, *(gene for genes in section.pathways.values() for gene in genes)])
    largest, found = _by_gene(changing, list(names), sequenced)
    mutated = pd.DataFrame({gene: _mutated(found[gene], covered, gene) for gene in names}, index=sequenced)
    columns: dict[str, pd.Series] = {}
    for gene in section.genes:
        columns[f"{gene}.mutated"] = mutated[gene]
        columns[f"{gene}.max_af"] = largest[gene]
    for pathway, genes in section.pathways.items():
        # The maximum passes over missing values: one mutated gene is enough, but "none" needs all of them tested.
        group = mutated[list(genes)]
        columns[f"{pathway}.mutated"] = group.max(axis=1).where((group == 1).any(axis=1) | group.notna().all(axis=1))
    counted = seen[burden_counts(seen, section.burden)]
    somatic = seen[seen["allele_fraction"] <= section.max_somatic_allele_fraction]
    counts = counted.groupby("decision").size().reindex(sequenced, fill_value=0).astype(np.float64)
    columns["variants"] = changing.groupby("decision").size().reindex(sequenced, fill_value=0).astype(np.float64)
    columns["tmb_count"] = counts
    columns["tmb"] = counts / section.burden.panel_megabases
    columns["msaf"] = somatic.groupby("decision")["allele_fraction"].max().reindex(sequenced)
    return by_decision(pd.DataFrame(columns, index=sequenced), decisions)


def burden_counts(variants: pd.DataFrame, rule: BurdenRule) -> pd.Series:
    """Return (n,) whether each variant counts towards the burden.

    Raises:
        SchemaError: the rule leaves drivers out, but no column says which they are.
    """
    counts = ~(variants["allele_fraction"] < rule.min_allele_fraction)
    if not rule.synonymous:
        counts &= ~variants["effect"].isin(SILENT)
    if not rule.drivers:
        require_columns(variants, ("known_driver",), what="variants")
        counts &= variants["known_driver"] != 1
    return counts


def read_blood_variants(path: Path) -> tuple[pd.DataFrame, IngestReport]:
    """Return the variants of the OAK blood file (CSV, one row a variant), without times, and what was not understood.

    Returns:
        subject_id, gene, allele_fraction (0 to 1), effect, variant (transcript and coding change), known_driver (1 where
        the publication left it out of the burden).

    Source: Gandara DR et al. Nat Med 2018;24:1441-1448 (supplementary tables).
    """
    raw = pd.read_csv(path, dtype=str, keep_default_na=False)
    wanted = ("PtID", "gene_name", "af", "effect", "transcript_name", "cds_syntax", "omitted_driver_mutation")
    require_columns(raw, wanted, what=path.name)
    report = IngestReport(source=path.name, read=len(raw))
    fraction = pd.to_numeric(raw["af"], errors="coerce")
    driver = raw["omitted_driver_mutation"].map({"yes": 1.0, "no": 0.0})
    kept = np.ones(len(raw), dtype=bool)
    for reason, wrong in {
        "no patient or gene": (raw["PtID"] == "") | (raw["gene_name"] == ""),
        "allele fraction is not a number from 0 to 1": ~fraction.between(0, 1),
        "omitted_driver_mutation is neither yes nor no": driver.isna(),
    }.items():
        rows = wrong.to_numpy(dtype=bool) & kept
        if rows.any():
            line = int(rows.argmax()) + 2
            report.refuse("variant", reason, position=f"{path.name} line {line}", count=int(rows.sum()))
        kept &= ~rows
    tidy = pd.DataFrame(
        {
            "subject_id": raw["PtID"],
            "gene": raw["gene_name"],
            "allele_fraction": fraction,
            "effect": raw["effect"],
            "variant": raw["transcript_name"] + ":" + raw["cds_syntax"],
            "known_driver": driver,
        }
    )[kept].reset_index(drop=True)
    report.written = len(tidy)
    return tidy, report


def _once(seen: pd.DataFrame) -> pd.DataFrame:
    """Return the visible variants, each named one once a decision with its largest allele fraction."""
    if "variant" not in seen:
        return seen
    named = seen["variant"].notna()
    keys = ["decision", "gene", "variant"]
    best = seen[named].sort_values("allele_fraction", ascending=False, kind="stable").drop_duplicates(keys)
    return pd.concat([best, seen[~named]]).sort_index()


def _covered(tested: pd.DataFrame, sequenced: pd.Index) -> pd.Series:
    """Return for each sequenced decision the genes tested so far; None for all genes."""
    if "panel" not in tested:
        return pd.Series(dict.fromkeys(sequenced), index=sequenced, dtype=object)
    panels: dict[int, set[str] | None] = {}
    for decision, panel in zip(tested["decision"], tested["panel"], strict=True):
        everything = not isinstance(panel, list | tuple | set | frozenset | np.ndarray)
        known = panels.get(decision, set())
        panels[decision] = None if everything or known is None else known | set(panel)
    return pd.Series(panels, index=sequenced, dtype=object)


def _changing(seen: pd.DataFrame, section: GeneSection) -> pd.DataFrame:
    """Return the variants that make a gene mutated."""
    return seen if section.synonymous else seen[~seen["effect"].isin(SILENT)]


def _by_gene(changing: pd.DataFrame, genes: list[str], sequenced: pd.Index) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (sequenced, genes) the largest allele fraction, NaN where none is known, and whether there is a variant."""
    mine = changing[changing["gene"].isin(genes)].groupby(["decision", "gene"])["allele_fraction"]
    largest = mine.max().unstack("gene").reindex(index=sequenced, columns=genes).astype(np.float64)
    return largest, mine.size().unstack("gene").reindex(index=sequenced, columns=genes).notna()


def _mutated(found: pd.Series, covered: pd.Series, gene: str) -> pd.Series:
    """Return 1 where the gene is mutated, 0 where it was tested and is not, NaN where no test covered it."""
    looked_at = covered.map(lambda genes: genes is None or gene in genes).astype(bool)
    return found.astype(np.float64).where(found | looked_at)
