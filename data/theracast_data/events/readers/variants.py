"""Variant tables as events: MAF, annotated VCF, and the blood variants of OAK.

What a variant becomes:

- `VARIANT//GENE//effect`, one for each variant; `VARIANT//GENE//effect//driver` where the source calls it a driver.
  `numeric_value` is the allele fraction (0 to 1), `text_value` the change of the transcript (NM_000546:c.524G>A).
- `HGNC//GENE`, the gene is altered: beside it for variants that change the protein or a splice site, with the change of
  the protein (p.R175H) as text, as FHIR sources give it. Synonymous and non-coding variants have none.
- `ASSAY//name` for each sample that was tested, with the number of its variants: that nothing was found differs from not
  tested. Samples without any variant are known from the sample sheet, or from the header of a VCF.

Sources: GDC MAF format; supplementary tables of Gandara DR et al. Nat Med 2018;24:1441-1448 (OAK).
"""

from __future__ import annotations

import csv
import gzip
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import Field, model_validator

from theracast_data.errors import SchemaError
from theracast_data.events.readers.chunks import read_chunks
from theracast_data.events.readers.times import end_of_day, parse_times
from theracast_data.events.readers.variant_terms import SILENT, Variant, effect_of, gene_fault, short_protein
from theracast_data.events.readers.vcf import vcf_samples, vcf_variants
from theracast_data.events.report import IngestReport
from theracast_data.events.schema import EVENT_SCHEMA
from theracast_data.paths import resolve_path
from theracast_data.section import Section
from theracast_data.spelling import listed, nearest, parse_number


class SampleSheet(Section):
    """Which samples were tested, of whom, and when: also those in which no variant was found."""

    path: str = Field(description="CSV or Parquet file with one row per sample.")
    sample: str = Field(description="Column of the sample, as the variant table or the VCF names it.")
    subject: str | None = Field(None, description="Column of the patient; by default the sample's name.")
    time: str | None = Field(None, description="Column with the date of the specimen (ISO 8601).")
    available_time: str | None = Field(None, description="Column with the date of the report (ISO 8601).")
    include: dict[str, tuple[str, ...]] = Field(
        {}, description="Only rows whose cell is one of these were tested: {column: [cells]}, e.g. {qc: [pass]}."
    )
    delimiter: str = Field(",", min_length=1, max_length=1, description="Field separator of a CSV file.")

    @model_validator(mode="after")
    def _check(self) -> SampleSheet:
        if self.available_time is not None and self.time is None:
            raise ValueError("a report has a specimen: write `time` too")
        return self


class VariantsOptions(Section):
    """A table of variants.

    Without dates the variants hold at all times; give them where sequencing may have been repeated or came late.
    """

    kind: Literal["variants"] = "variants"
    name: str | None = Field(None, description="Name of the source; by default the file's stem.")
    path: str = Field(description="File (also .gz); ${VARIABLE} is taken from the environment.")
    format: Literal["maf", "vcf", "oak"] = Field(description="MAF, VCF with ANN or CSQ, or the OAK blood variants.")
    assay: str = Field("sequencing", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$", description="Name of the test or panel.")
    sample: str | None = Field(None, description="Column of the sample, where it is not the usual one (MAF, OAK).")
    samples: SampleSheet | None = Field(None, description="The tested samples; by default those met in the file.")
    pass_only: bool = Field(True, description="Whether variants that fail a FILTER are left out (VCF; MAF too).")


def read_variants(
    path: Path, *, options: VariantsOptions, report: IngestReport, base: Path | None = None, batch_rows: int = 200_000
) -> Iterator[pa.Table]:
    """Return the variants and the tested samples of a file as events; see the head of this module.

    Args:
        base: what the relative path of the sample sheet counts from; by default the folder of the file.

    Raises:
        SchemaError: a file is missing, is not of its format, or a VCF is not annotated with genes.
    """
    if not path.is_file():
        raise SchemaError(f"{path}: there is no such file. Correct the `path` of the source.")
    sheet = _sample_sheet(options.samples, base=path.parent if base is None else base, report=report)
    samples: dict[str, _Sample] = {} if sheet is None else sheet
    found: Counter[str] = Counter()
    if options.format == "vcf":
        header = vcf_samples(path)
        samples = samples if sheet is not None else {name: _Sample(name) for name in header}
        variants = vcf_variants(path, pass_only=options.pass_only, report=report)
    else:
        variants = _table_variants(path, options, report)
    rows: list[tuple[Any, ...]] = []
    for variant, position in variants:
        sample = samples.get(variant.sample)
        if sample is None and sheet is not None:
            report.refuse("(sample)", "the sample is not in the sample sheet", position=position)
            continue
        sample = samples.setdefault(variant.sample, _Sample(variant.sample))
        found[variant.sample] += 1
        rows += _variant_rows(variant, sample)
        if len(rows) >= batch_rows:
            yield _table(rows, report)
            rows = []
    rows += [sample.row(f"ASSAY//{options.assay}", float(found[name]), None, "1") for name, sample in samples.items()]
    if rows:
        yield _table(rows, report)


def variant_frames(events: pa.Table, *, assay: str | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return variants and tests as tables, from events as `read_variants` gives them.

    Args:
        assay: only tests of this name; by default all.

    Returns:
        subject_id, time, available_time, gene, effect, allele_fraction, variant, known_driver (0 or 1), one row a variant;
        and subject_id, time, available_time, assay, one row a tested sample.
    """
    frame = events.to_pandas()
    heads = ["subject_id", "time", "available_time"]
    parts = frame["code"].str.split("//", expand=True).reindex(columns=range(4))
    mine = (parts[0] == "VARIANT").to_numpy(dtype=bool)
    own = parts[mine]
    variants = frame.loc[mine, heads].assign(
        gene=own[1],
        effect=own[2],
        allele_fraction=frame.loc[mine, "numeric_value"],
        variant=frame.loc[mine, "text_value"],
        known_driver=(own[3] == "driver").astype(np.float64),
    )
    tested = (parts[0] == "ASSAY") & (True if assay is None else parts[1] == assay)
    tests = frame.loc[tested, heads].assign(assay=parts.loc[tested, 1])
    return variants.reset_index(drop=True), tests.reset_index(drop=True)


@dataclass(frozen=True)
class _Sample:
    """A tested sample: of whom, when taken, when reported."""

    subject: str
    time: Any = None
    available: Any = None

    def row(self, code: str, number: float, text: str | None, unit: str) -> tuple[Any, ...]:
        """Return an event of the sample."""
        return self.subject, self.time, code, None if math.isnan(number) else number, text, unit, self.available


def _variant_rows(variant: Variant, sample: _Sample) -> list[tuple[Any, ...]]:
    code = f"VARIANT//{variant.gene}//{variant.effect}{'//driver' if variant.driver else ''}"
    rows = [sample.row(code, variant.fraction, variant.transcript or variant.protein, "1")]
    if variant.effect not in SILENT:
        text = variant.protein or variant.transcript
        rows.append(sample.row(f"HGNC//{variant.gene}", variant.fraction, text, "1"))
    return rows


def _table(rows: list[tuple[Any, ...]], report: IngestReport) -> pa.Table:
    report.written += len(rows)
    columns = [
        pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), EVENT_SCHEMA, strict=True)
    ]
    return pa.table(columns, schema=EVENT_SCHEMA)


def _sample_sheet(sheet: SampleSheet | None, *, base: Path, report: IngestReport) -> dict[str, _Sample] | None:
    if sheet is None:
        return None
    path = resolve_path(sheet.path, base=base)
    named = [sheet.sample, sheet.subject, sheet.time, sheet.available_time, *sheet.include]
    wanted = list(dict.fromkeys(name for name in named if name is not None))
    own = IngestReport(path.name)
    samples: dict[str, _Sample] = {}
    for chunk in read_chunks(path, wanted, report=own, batch_rows=50_000, delimiter=sheet.delimiter):
        count = chunk.table.num_rows
        tested = np.ones(count, dtype=bool)
        for column, cells in sheet.include.items():
            tested &= chunk.table[column].to_pandas().str.strip().isin(cells).to_numpy(dtype=bool)
        names = chunk.table[sheet.sample].to_pylist()
        subjects = chunk.table[sheet.subject or sheet.sample].to_pylist()
        nothing = np.full(count, np.datetime64("NaT", "us"))
        time, dated = parse_times(chunk.table[sheet.time]) if sheet.time else (nothing, np.zeros(count, bool))
        said, whole = parse_times(chunk.table[sheet.available_time]) if sheet.available_time else (nothing, dated)
        known = np.where(
            np.isnat(said), np.where(dated, end_of_day(time), nothing), np.where(whole, end_of_day(said), said)
        )
        for row, (name, subject) in enumerate(zip(names, subjects, strict=True)):
            at = chunk.position(row)
            if not tested[row]:
                continue
            if not name or not subject:
                own.refuse("(sample)", "no sample or no patient", position=at)
            elif sheet.time and np.isnat(time[row]):
                own.refuse("(sample)", "no date, or one that was not understood", position=at)
            elif name.strip() in samples:
                own.refuse("(sample)", "the sample was named before", position=at)
            else:
                moments = [None if np.isnat(one) else one for one in (time[row], known[row])]
                samples[name.strip()] = _Sample(subject.strip(), *moments)
    for (code, reason), times in own.refused.items():
        report.refuse(code, reason, position=own.first[code, reason], count=times)
    return samples


@dataclass(frozen=True)
class _TableFormat:
    """The columns of a variant table; the optional ones may be missing from the file."""

    delimiter: str
    sample: str
    gene: str
    effect: str
    protein: str
    coding: str
    transcript: str
    fraction: tuple[str, ...]
    alt: str = ""
    ref: str = ""
    filter: str = ""
    driver: Callable[[dict[str, str]], bool] = lambda row: False


_FORMATS = {
    "maf": _TableFormat(
        "\t", "Tumor_Sample_Barcode", "Hugo_Symbol", "Variant_Classification", "HGVSp_Short", "HGVSc", "Transcript_ID",
        ("t_AF", "tumor_f", "t_var_freq"), "t_alt_count", "t_ref_count", "FILTER",
    ),
    "oak": _TableFormat(
        ",", "PtID", "gene_name", "effect", "protein_syntax", "cds_syntax", "transcript_name", ("af",),
        driver=lambda row: row.get("omitted_driver_mutation") == "yes",
    ),
}  # fmt: skip


def _table_variants(path: Path, options: VariantsOptions, report: IngestReport) -> Iterator[tuple[Variant, str]]:
    form = _FORMATS[options.format]
    sample_column = options.sample or form.sample
    for row, position in _rows(path, (sample_column, form.gene, form.effect), form.delimiter, report):
        report.read += 1
        sample, gene = row[sample_column].strip(), row[form.gene].strip()
        fault = "no sample" if not sample else gene_fault(gene)
        if options.pass_only and not fault and row.get(form.filter, "") not in ("", ".", "PASS"):
            fault = "FILTER is not PASS"
        if fault:
            report.refuse("(variant)", fault, position=position)
            continue
        effect = effect_of(row[form.effect])
        if effect == "other":
            report.refuse(f"HGNC//{gene}", "the effect is not known here; kept as `other`", position=position)
        fraction = _table_fraction(row, form)
        if fraction is None:
            report.refuse(f"HGNC//{gene}", "the allele fraction is not from 0 to 1; left empty", position=position)
        coding = _cell(row, form.coding)
        transcript = ":".join(part for part in (_cell(row, form.transcript), coding) if part) if coding else None
        if coding and ":" in coding:
            transcript = coding
        protein = short_protein(_cell(row, form.protein))
        known = math.nan if fraction is None else fraction
        yield Variant(sample, gene, effect, protein, transcript, known, form.driver(row)), position


def _cell(row: dict[str, str], name: str) -> str | None:
    text = row.get(name, "").strip()
    return None if text in ("", ".", "NA") else text


def _table_fraction(row: dict[str, str], form: _TableFormat) -> float | None:
    """Return the allele fraction, NaN where the table holds none, None where it holds nonsense."""
    counts = [_cell(row, name) for name in (form.alt, form.ref) if name]
    if len(counts) == 2 and all(counts):
        alt, ref = (parse_number(str(count)) for count in counts)
        if alt is None or ref is None or min(alt, ref) < 0 or alt + ref == 0:
            return None
        return alt / (alt + ref)
    written = next((cell for name in form.fraction if (cell := _cell(row, name))), None)
    fraction = math.nan if written is None else parse_number(written)
    return None if fraction is None or not (0 <= fraction <= 1 or math.isnan(fraction)) else fraction


def _rows(
    path: Path, needed: Sequence[str], delimiter: str, report: IngestReport
) -> Iterator[tuple[dict[str, str], str]]:
    """Return the rows of a text table by column, with their places; lines before the header that begin with # are skipped."""
    opened = gzip.open if path.suffix == ".gz" else open
    header: list[str] | None = None
    with opened(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(
            file, delimiter=delimiter, quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
        )
        for cells in _lines(reader):
            if header is None:
                if cells and not cells[0].startswith("#"):
                    header = cells
                    _check_header(path, header, needed)
                continue
            position = f"{path.name} line {reader.line_num}"
            fault = _line_fault(cells, header)
            if fault:
                report.read += 1
                report.refuse("(line)", fault, position=position)
            if fault or not cells:
                continue
            yield dict(zip(header, cells, strict=True)), position
    if header is None:
        raise SchemaError(f"{path}: the file is empty. Export it again.")


def _lines(reader: Any) -> Iterator[list[str] | None]:
    """Return the cells of each line, None for a line that cannot be cut into cells."""
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield None


def _line_fault(cells: list[str] | None, header: list[str]) -> str | None:
    if cells is None:
        return "the line cannot be cut into cells"
    if cells and len(cells) != len(header):
        return "the line has more or fewer cells than the header"
    # What is no UTF-8 was read as this sign.
    return "the line is not valid utf-8" if "\ufffd" in "".join(cells) else None


def _check_header(path: Path, header: list[str], needed: Sequence[str]) -> None:
    lacking = [name for name in needed if name not in header]
    if lacking:
        near = nearest(lacking[0], header)
        hint = f"Did you mean {near!r}?" if near else f"It has {listed(header)}."
        raise SchemaError(f"{path}: there is no column {listed(lacking)}. {hint}")
