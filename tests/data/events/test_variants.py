"""Variant tables as events: MAF, VCF from VEP and SnpEff, and the real blood variants of OAK."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from theracast_data.errors import SchemaError
from theracast_data.events.codes import code_faults
from theracast_data.events.readers.variant_terms import effect_of, short_protein
from theracast_data.events.readers.variants import VariantsOptions, read_variants, variant_frames
from theracast_data.events.report import IngestReport
from theracast_data.events.schema import EVENT_SCHEMA

MAF = """#version 2.4
Hugo_Symbol\tVariant_Classification\tTumor_Sample_Barcode\tHGVSc\tHGVSp_Short\tTranscript_ID\tt_ref_count\tt_alt_count\tFILTER
TP53\tMissense_Mutation\tS1\tc.524G>A\tp.R175H\tENST1\t60\t20\tPASS
TP53\tSilent\tS1\tc.108G>A\tp.P36=\tENST1\t90\t10\tPASS
KRAS\tMissense_Mutation\tS2\tc.35G>T\tp.G12V\tENST2\t\t\tPASS
EGFR\tIn_Frame_Del\tS2\tc.2236_2250del\tp.E746_A750del\tENST3\t0\t0\tPASS
Unknown\tIGR\tS2\t\t\t\t10\t10\tPASS
BRAF\tMissense_Mutation\tS2\tc.1799T>A\tp.V600E\tENST4\t50\t50\tweak_evidence
BRCA2\tFrame_Shift_Del
NF1\tStrange_Change\tS9\t\t\t\t1\t1\t
"""
SHEET = """sample,patient,specimen,reported,qc
S1,P1,2024-03-01,2024-03-15T10:00,pass
S2,P2,2024-03-02,,pass
S3,P3,2024-03-03,2024-03-20,pass
S4,P4,2024-03-03,2024-03-20,fail
S5,P5,someday,,pass
"""
SAMPLES = {"path": "samples.csv", "sample": "sample", "subject": "patient", "time": "specimen",
           "available_time": "reported", "include": {"qc": ["pass"]}}  # fmt: skip


def read(path: Path, **more: Any) -> tuple[pa.Table, IngestReport]:
    options = VariantsOptions.model_validate({"path": path.name, **more})
    report = IngestReport(path.stem)
    tables = list(read_variants(path, options=options, report=report, batch_rows=3))
    assert all(table.schema == EVENT_SCHEMA for table in tables)
    assert report.written == sum(table.num_rows for table in tables)
    return pa.concat_tables(tables), report


def facts(table: pa.Table) -> list[tuple[Any, ...]]:
    names = ("subject_id", "code", "numeric_value", "text_value")
    return sorted(zip(*(table[name].to_pylist() for name in names), strict=True), key=str)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_maf_with_its_sample_sheet(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / ("variants.maf.gz" if zipped else "variants.maf")
    path.write_bytes(gzip.compress(MAF.encode()) if zipped else MAF.encode())
    (tmp_path / "samples.csv").write_text(SHEET)
    table, report = read(path, format="maf", assay="panel", samples=SAMPLES)
    assert facts(table) == sorted(
        [
            ("P1", "VARIANT//TP53//missense", 0.25, "ENST1:c.524G>A"),
            ("P1", "HGNC//TP53", 0.25, "p.R175H"),
            ("P1", "VARIANT//TP53//synonymous", 0.1, "ENST1:c.108G>A"),  # silent: the gene is not altered
            ("P2", "VARIANT//KRAS//missense", None, "ENST2:c.35G>T"),
            ("P2", "HGNC//KRAS", None, "p.G12V"),
            ("P2", "VARIANT//EGFR//inframe", None, "ENST3:c.2236_2250del"),
            ("P2", "HGNC//EGFR", None, "p.E746_A750del"),
            ("P1", "ASSAY//panel", 2.0, None),
            ("P2", "ASSAY//panel", 2.0, None),
            ("P3", "ASSAY//panel", 0.0, None),  # tested, nothing found; P4 was not tested
        ],
        key=str,
    )
    assert report.refused == {
        ("HGNC//EGFR", "the allele fraction is not from 0 to 1; left empty"): 1,
        ("(variant)", "no gene"): 1,
        ("(variant)", "FILTER is not PASS"): 1,
        ("(line)", "the line has more or fewer cells than the header"): 1,
        ("HGNC//NF1", "the effect is not known here; kept as `other`"): 1,
        ("(sample)", "the sample is not in the sample sheet"): 1,
        ("(sample)", "no date, or one that was not understood"): 1,
    }
    assert report.first["(variant)", "no gene"] == f"{path.name} line 7"
    assert report.read == 8
    tests = {row["subject_id"]: row for row in table.filter(pc.starts_with(table["code"], "ASSAY")).to_pylist()}
    assert str(tests["P1"]["available_time"]) == "2024-03-15 10:00:00"
    assert str(tests["P2"]["available_time"]) == "2024-03-02 23:59:59.999999"
    assert str(tests["P3"]["available_time"]) == "2024-03-20 23:59:59.999999"
    assert code_faults(table["code"].to_pylist()) == {}


def test_without_sheet_samples_are_patients_and_those_met(tmp_path: Path) -> None:
    path = tmp_path / "variants.maf"
    path.write_text(MAF)
    table, _ = read(path, format="maf", pass_only=False)
    assert {(row[0], row[1], row[2]) for row in facts(table) if row[1].startswith("ASSAY")} == {
        ("S1", "ASSAY//sequencing", 2), ("S2", "ASSAY//sequencing", 3), ("S9", "ASSAY//sequencing", 1)
    }  # fmt: skip
    assert ("S2", "HGNC//BRAF", 0.5, "p.V600E") in facts(table)
    assert table["time"].null_count == len(table)
    with pytest.raises(SchemaError, match="no column Tumor_Barcode"):
        read(path, format="maf", sample="Tumor_Barcode")


def test_lines_that_are_no_text_are_counted_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "variants.maf"
    lines = MAF.encode().splitlines(keepends=True)
    huge = b"TP53\tMissense_Mutation\tS1\t" + b"A" * 200_000 + b"\tp.R175H\tENST1\t60\t20\tPASS\n"
    path.write_bytes(b"".join([*lines[:2], huge, lines[2].replace(b"S1", b"S\xff"), b"\n", lines[2]]))
    table, report = read(path, format="maf")
    assert len(table) == 3
    assert report.first == {
        ("(line)", "the line cannot be cut into cells"): "variants.maf line 3",
        ("(line)", "the line is not valid utf-8"): "variants.maf line 4",
    }


VCF = """##fileformat=VCFv4.2
##contig=<ID=chr17>
##FILTER=<ID=weak,Description="weak evidence">
##INFO=<ID={key},Number=.,Type=String,Description="{description}">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
##FORMAT=<ID=AD,Number=R,Type=Integer,Description="Depths">
##FORMAT=<ID=AF,Number=A,Type=Float,Description="Fractions">
#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tS1\tS2
"""
VEP = VCF.format(key="CSQ", description="From VEP. Format: Allele|Consequence|SYMBOL|HGVSc|HGVSp") + "\n".join(
    "\t".join(cells)
    for cells in [
        ("chr17", "7675088", ".", "C", "T", ".", "PASS",
         "CSQ=T|downstream_gene_variant|WRAP53||,T|missense_variant&splice_region_variant|TP53|NM_1:c.524G>A|NP_1:p.Arg175His",
         "GT:AD", "0/1:60,20", "0/0:80,0"),
        ("chr17", "7675100", ".", "C", "T,CAA", ".", "PASS",
         "CSQ=T|stop_gained|TP53|c.1C>T|p.Gln10Ter,AA|frameshift_variant|TP53||",
         "GT:AD:AF", "1/2:50,30,20:0.3,0.2", "./.:.:."),
        ("chr17", "oops", ".", "C", "T", ".", "PASS", ".", "GT", "0/1", "0/0"),
        ("chr17", "7675200", ".", "C", "T", ".", "weak", ".", "GT:AD", "0/1:5,5", "0/0:9,0"),
        ("chr17", "7675300", ".", "C", "T", ".", "PASS", "CSQ=T|synonymous_variant|TP53||p.Ala5%3D", "AF", "0.4", "0"),
        ("chr17", "7675400", ".", "C", "T", ".", ".", ".", "GT:AD", "0/1:5,5", "0/0:9,0"),
        ("chr17", "7675500", ".", "C", "<DEL>", ".", ".", ".", "GT", "0/1", "0/0"),
    ]
) + "\n"  # fmt: skip


def test_a_vcf_of_vep(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pysam", reason="VCF needs pysam")
    path = tmp_path / "calls.vcf"
    path.write_text(VEP)
    table, report = read(path, format="vcf")
    assert facts(table) == sorted(
        [
            ("S1", "VARIANT//TP53//missense", 0.25, "NM_1:c.524G>A"),
            ("S1", "HGNC//TP53", 0.25, "p.R175H"),
            ("S1", "VARIANT//TP53//nonsense", 0.3, "c.1C>T"),
            ("S1", "HGNC//TP53", 0.3, "p.Q10*"),
            ("S1", "VARIANT//TP53//frameshift", 0.2, None),
            ("S1", "HGNC//TP53", 0.2, None),
            ("S1", "VARIANT//TP53//synonymous", 0.4, "p.A5="),
            ("S1", "ASSAY//sequencing", 4.0, None),
            ("S2", "ASSAY//sequencing", 0.0, None),
        ],
        key=str,
    )
    assert report.refused == {
        ("(line)", "the line is no record of a VCF"): 1,
        ("(variant)", "FILTER is not PASS"): 1,
        ("(variant)", "no gene"): 1,
        ("(variant)", "a symbolic allele"): 1,
    }
    assert report.first["(line)", "the line is no record of a VCF"] == "calls.vcf record 3"
    assert "oops" not in "".join(capfd.readouterr())


def test_a_vcf_of_snpeff(tmp_path: Path) -> None:
    pytest.importorskip("pysam", reason="VCF needs pysam")
    path = tmp_path / "calls.vcf"
    annotation = (
        "ANN=T|missense_variant|MODERATE|BRAF|ENSG1|transcript|NM_2|protein_coding|1/1|c.1799T>A|p.Val600Glu|||||"
    )
    line = ("chr17", "5", ".", "C", "T", ".", "PASS", annotation, "GT:AD", "0/1:1,3", "0/0:4,0")
    path.write_text(VCF.format(key="ANN", description="Functional annotations") + "\t".join(line) + "\n")
    table, report = read(path, format="vcf", assay="wes")
    assert ("S1", "HGNC//BRAF", 0.75, "p.V600E") in facts(table)
    assert not report.refused


def test_files_that_are_no_such_thing(tmp_path: Path) -> None:
    pytest.importorskip("pysam", reason="VCF needs pysam")
    path = tmp_path / "calls.vcf"
    path.write_text(VCF.format(key="DP", description="no genes"))
    with pytest.raises(SchemaError, match="Annotate it with VEP"):
        read(path, format="vcf")
    path.write_text("a,b\n1,2\n")
    with pytest.raises(SchemaError, match="not a VCF"):
        read(path, format="vcf")
    path.write_text("")
    with pytest.raises(SchemaError, match="empty"):
        read(path, format="maf")


@pytest.mark.parametrize(
    ("written", "effect"),
    [("Splice_Site", "splice"), ("stop_gained&frameshift_variant", "nonsense"), ("5'UTR", "noncoding"),
     ("missense_variant&splice_region_variant", "missense"), ("novel", "other"), ("nonsense", "nonsense")],
)  # fmt: skip
def test_effects_in_one_word(written: str, effect: str) -> None:
    assert effect_of(written) == effect


def test_changes_of_the_protein_in_letters() -> None:
    assert short_protein("ENSP00000288602.6:p.Val600Glu") == "p.V600E"
    assert short_protein("p.Glu746_Ala750del") == "p.E746_A750del"
    assert short_protein("p.Arg97ProfsTer23") == "p.R97Pfs*23"
    assert short_protein(".") is None


def test_the_blood_variants_of_oak(shared_cohorts: Path) -> None:
    path = shared_cohorts / "oak" / "blood_variants.csv"
    table, report = read(
        path,
        format="oak",
        assay="btmb",
        samples={"path": "clinical.csv", "sample": "PtID", "include": {"BEP": ["Y"]}},
    )
    with path.open() as file:
        raw = list(csv.DictReader(file))
    with (path.parent / "clinical.csv").open() as file:
        burden = {row["PtID"]: int(row["btmb"]) for row in csv.DictReader(file) if row["BEP"] == "Y"}
    mine = [row for row in raw if row["PtID"] in burden]
    variants, tests = variant_frames(table, assay="btmb")
    assert set(tests["subject_id"]) == burden.keys()
    assert Counter(zip(variants["subject_id"], variants["gene"], variants["effect"], strict=True)) == Counter(
        (row["PtID"], row["gene_name"], row["effect"]) for row in mine
    )
    assert variants["allele_fraction"].sum() == pytest.approx(sum(float(row["af"]) for row in mine))
    assert variants["known_driver"].sum() == sum(row["omitted_driver_mutation"] == "yes" for row in mine)
    # The publication's own burden of each patient: variants at 0.5 % or more of the reads, drivers left out.
    counted = variants[(variants["allele_fraction"] >= 0.005) & (variants["known_driver"] == 0)]
    assert Counter(counted["subject_id"]) == {patient: count for patient, count in burden.items() if count}
    altered = pc.sum(pc.equal(table["code"], "HGNC//TP53")).as_py()
    assert altered == sum(row["gene_name"] == "TP53" and row["effect"] != "synonymous" for row in mine)
    assert report.read == len(raw)
    assert sum(report.refused.values()) == len(raw) - len(mine)
