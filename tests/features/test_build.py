"""The laws of the feature table, and what static, derived and indicator features are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_data.cohort import Cohort
from theracast_data.errors import CohortError, StudyError
from theracast_data.sources import ColumnSpec, OneHotSpec
from theracast_features.build import build_features, resolve_section
from theracast_features.section import FeatureSection
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_features.wide import write_features

COLUMNS: dict[str, ColumnSpec | OneHotSpec] = {
    "age": ColumnSpec(unit="a"),
    "albumin": ColumnSpec(modality="lab", code="LOINC:1751-7", unit="g/dL", cap=(2, 5)),
    "neutrophils": ColumnSpec(modality="lab", unit="10*9/L"),
    "lymphocytes": ColumnSpec(modality="lab", unit="10*6/L", cap=2000, transform="log1p"),
    "tmb": ColumnSpec(modality="genomic", unit="{mutations}/Mb", label="Tumour mutational burden"),
    "msi": ColumnSpec(modality="genomic", levels={"MSS": 0, "MSI-H": 1}),
    "systemic_therapy_history": ColumnSpec(kind="boolean"),
    "cancer_type": OneHotSpec(name="cancer_type", columns={"C1": "NSCLC", "C2": "Melanoma", "C3": "Melanoma"}),
    "ancestry": ColumnSpec(role="covariate", levels=("a", "b")),
}
NLR = {"kind": "ratio", "name": "nlr", "numerator": "neutrophils", "denominator": "lymphocytes", "cap": 25}
EVERYTHING = FeatureSection.model_validate(
    {"derived": [NLR, {"kind": "score", "score": "loris"}], "missing_indicators": ["albumin", "tmb", "cancer_type"]}
)


def cohort_of(rows: list[dict[str, Any]]) -> Cohort:
    """Return a cohort with these values; what a row does not say is missing."""
    count = len(rows)
    values = pd.DataFrame(
        {
            name: pd.Series(
                [row.get(name) for row in rows], dtype="str" if name in {"cancer_type", "ancestry"} else float
            )
            for name in COLUMNS
        }
    )
    decisions = pd.DataFrame(
        {
            "subject_id": pd.Series([str(number) for number in range(count)], dtype="str"),
            "site": pd.Series(["A"] * count, dtype="str"),
            "index_time": pd.Series([pd.NaT] * count, dtype="datetime64[us]"),
            "treatment": pd.Series(["x"] * count, dtype="str"),
            "calendar": np.full(count, np.nan),
        }
    )
    return Cohort(decisions, values, pd.DataFrame(index=decisions.index), COLUMNS)


def _number(low: float, high: float) -> st.SearchStrategy[float | None]:
    return st.none() | st.floats(low, high, allow_nan=False)


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "age": _number(18, 100),
            "albumin": _number(0.5, 7),
            "neutrophils": _number(0, 40),
            "lymphocytes": _number(0, 9000),
            "tmb": _number(0, 500),
            "msi": st.sampled_from([None, 0.0, 1.0]),
            "systemic_therapy_history": st.sampled_from([None, 0.0, 1.0]),
            "cancer_type": st.sampled_from([None, "NSCLC", "Melanoma", "Unheard of"]),
            "ancestry": st.sampled_from([None, "a", "b"]),
        }
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, data=st.data())
def test_permuting_decisions_permutes_rows_and_nothing_else(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    """Decisions in another order give the same rows in that order."""
    order = data.draw(st.permutations(range(len(rows))))
    cohort = cohort_of(rows)
    moved, whole = build_features(cohort.take(order), EVERYTHING), build_features(cohort, EVERYTHING).take(order)
    pd.testing.assert_frame_equal(moved.frame, whole.frame, check_exact=True)
    pd.testing.assert_frame_equal(moved.decisions, whole.decisions)
    assert moved.catalogue == whole.catalogue


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, others=ROWS, data=st.data())
def test_a_row_is_the_same_alone_and_among_others(
    rows: list[dict[str, Any]], others: list[dict[str, Any]], data: st.DataObject
) -> None:
    """What the other decisions are, or whether there are any, does not change a feature."""
    row = data.draw(st.integers(0, len(rows) - 1))
    alone = build_features(cohort_of([rows[row]]), EVERYTHING).frame
    among = build_features(cohort_of([*others, *rows]), EVERYTHING).take([len(others) + row]).frame
    pd.testing.assert_frame_equal(alone, among, check_exact=True)


@settings(max_examples=40, deadline=None)
@given(rows=ROWS)
def test_types_and_missing_values(rows: list[dict[str, Any]]) -> None:
    """Categories are str, all else float64; a value is missing exactly where the cohort's is; indicators never are."""
    cohort = cohort_of(rows)
    before = cohort.values.copy()
    table = build_features(cohort, EVERYTHING)
    for spec in table.catalogue:
        column = table.frame[spec.name]
        assert column.dtype == ("str" if spec.kind == "categorical" else np.float64)
        if spec.role == "value":
            assert column.isna().equals(cohort.values[spec.columns[0]].isna())
        if spec.role == "indicator":
            assert column.equals(cohort.values[spec.columns[0]].isna().astype(float))
    pd.testing.assert_frame_equal(cohort.values, before)


def test_the_catalogue_says_what_each_column_means() -> None:
    """Names, labels, units, codes, levels, roles; the covariate is not there."""
    table = build_features(cohort_of([{}, {"age": 50}]), EVERYTHING)
    specs = {spec.name: spec for spec in table.catalogue}
    assert list(specs) == [
        "clin.age",
        "lab.albumin",
        "lab.neutrophils",
        "lab.lymphocytes",
        "gen.tmb",
        "gen.msi",
        "clin.systemic_therapy_history",
        "clin.cancer_type",
        "lab.nlr",
        "clin.loris",
        "lab.albumin.missing",
        "gen.tmb.missing",
        "clin.cancer_type.missing",
    ]
    assert specs["lab.albumin"] == FeatureSpec(
        "lab.albumin", "lab", "numeric", "Albumin", ("albumin",), unit="g/dL", code="LOINC:1751-7"
    )
    assert specs["gen.tmb"].label == "Tumour mutational burden"
    assert specs["gen.msi"].label == "MSI"
    assert specs["gen.msi"].kind == "boolean"
    assert specs["clin.systemic_therapy_history"].label == "Systemic therapy history"
    assert specs["clin.cancer_type"].levels == ("NSCLC", "Melanoma")
    assert specs["lab.nlr"].role == "derived"
    assert specs["clin.loris"].source is not None
    assert specs["gen.tmb.missing"].label == "Tumour mutational burden not measured"


def test_values_are_clipped_to_the_caps_and_ratios_are_not_made_from_clipped_ones() -> None:
    """Caps of both sides; the ratio uses what was measured, in one unit, and has its own cap."""
    rows = [
        {"albumin": 1.0, "neutrophils": 6.0, "lymphocytes": 3000.0},
        {"albumin": 9.0, "neutrophils": 30.0, "lymphocytes": 100.0},
        {"albumin": None, "neutrophils": 6.0, "lymphocytes": 0.0},
        {"neutrophils": 6.0},
    ]
    frame = build_features(cohort_of(rows), EVERYTHING).frame
    np.testing.assert_array_equal(frame["lab.albumin"], [2.0, 5.0, np.nan, np.nan])
    np.testing.assert_array_equal(frame["lab.lymphocytes"], [2000.0, 100.0, 0.0, np.nan])
    np.testing.assert_allclose(frame["lab.nlr"], [2.0, 25.0, np.nan, np.nan])


def test_a_score_may_use_a_ratio_that_stands_before_it() -> None:
    """LORIS from neutrophils and lymphocytes, against the formula written out."""
    row = {
        "age": 60.0,
        "albumin": 4.0,
        "neutrophils": 6.0,
        "lymphocytes": 2000.0,
        "tmb": 10.0,
        "systemic_therapy_history": 1.0,
        "cancer_type": "NSCLC",
    }
    expected = 0.371 - 0.8775 + 0.5382 * 4 - 0.033 * 3 + 0.0049 * 60 + 0.0008 - 2.0886
    frame = build_features(cohort_of([row, row | {"neutrophils": None}]), EVERYTHING).frame
    assert frame["clin.loris"][0] == pytest.approx(expected)
    assert np.isnan(frame["clin.loris"][1])


def test_include_and_exclude() -> None:
    """Only what is asked for, in the study's order; what is left out can still be part of a ratio."""
    section = FeatureSection.model_validate(
        {
            "include": ["tmb", "age", "neutrophils"],
            "exclude": ["neutrophils"],
            "derived": [NLR],
            "missing_indicators": "none",
        }
    )
    assert list(build_features(cohort_of([{}]), section).frame) == ["clin.age", "gen.tmb", "lab.nlr"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"include": ["albumen"]}, r"features.include.*did you mean 'albumin'\?"),
        ({"include": ["ancestry"]}, "covariate, which no model may see"),
        ({"exclude": ["agee"]}, r"features.exclude.*did you mean 'age'\?"),
        ({"derived": [NLR | {"numerator": "neutrophil"}]}, r"nlr: .*did you mean 'neutrophils'\?"),
        ({"derived": [NLR | {"denominator": "ancestry"}]}, "covariate"),
        ({"derived": [NLR | {"denominator": "cancer_type"}]}, "is not a number"),
        ({"derived": [NLR | {"denominator": "albumin"}]}, "If the ratio is meant to have a unit"),
        ({"derived": [NLR | {"name": "albumin"}]}, "lab.albumin would be made twice"),
        ({"derived": [{"kind": "score", "score": "lorris"}]}, r"did you mean 'loris'\?"),
        ({"derived": [{"kind": "score", "score": "loris"}]}, "no column 'nlr'"),
        ({"missing_indicators": ["tbm"]}, r"features.missing_indicators.*did you mean 'tmb'\?"),
        ({"missing_indicators": "auto"}, "Call resolve_section"),
    ],
)
def test_faults_of_the_section_say_how_to_mend_them(section: dict[str, Any], message: str) -> None:
    """Each names the place in the study file and the nearest name."""
    cohort = cohort_of([{}, {"neutrophils": 1.0, "lymphocytes": 1.0, "cancer_type": "NSCLC"}])
    with pytest.raises((StudyError, ValueError), match=message):
        build_features(cohort, FeatureSection.model_validate({"missing_indicators": "none"} | section))


def test_auto_takes_what_is_missing_in_2_to_98_percent_of_development() -> None:
    """At both ends the limit itself counts; columns that are left out do not."""
    missing = {"age": 0, "albumin": 1, "neutrophils": 2, "lymphocytes": 98, "tmb": 99, "msi": 50, "cancer_type": 50}
    rows = [
        {name: ("NSCLC" if name == "cancer_type" else 1.0) for name, count in missing.items() if row >= count}
        for row in range(100)
    ]
    section = FeatureSection(exclude=("msi",))
    resolved = resolve_section(section, cohort_of(rows))
    assert resolved.missing_indicators == ("neutrophils", "lymphocytes", "cancer_type")
    assert resolve_section(resolved, cohort_of(rows[:1])) == resolved
    with pytest.raises(CohortError, match=r"validation\.development"):
        resolve_section(section, cohort_of([]))


def test_the_table_and_its_catalogue_come_back_from_the_files(tmp_path: Path) -> None:
    """Parquet with the keys first, the catalogue beside it."""
    import json

    cohort = cohort_of([{"age": 50.0, "cancer_type": "NSCLC"}, {"tmb": 3.0}])
    table = build_features(cohort, EVERYTHING)
    write_features(cohort, EVERYTHING, path=tmp_path / "out" / "features.parquet")
    stored = pd.read_parquet(tmp_path / "out" / "features.parquet")
    assert list(stored)[:3] == ["subject_id", "index_time", "site"]
    records = json.loads((tmp_path / "out" / "features.catalogue.json").read_text(encoding="utf-8"))
    catalogue = tuple(FeatureSpec.from_json(record) for record in records)
    assert catalogue == table.catalogue
    again = FeatureTable(stored[[spec.name for spec in catalogue]], catalogue, table.decisions)
    pd.testing.assert_frame_equal(again.frame, table.frame, check_dtype=False)


@pytest.mark.parametrize("names", [("cancer_type",), ("age",), ()])
def test_tables_of_one_kind_or_of_nothing(names: tuple[str, ...], tmp_path: Path) -> None:
    """Only categories, only numbers, or no feature at all."""
    section = FeatureSection(include=names, missing_indicators="none")
    frame = build_features(cohort_of([{"age": 5.0}, {"cancer_type": "NSCLC"}]), section).frame
    assert frame.shape == (2, len(names))
    cohort = cohort_of([{"age": 5.0}, {"cancer_type": "NSCLC"}])
    report = write_features(cohort, section, path=tmp_path / "features.parquet")
    assert (report.rows, report.columns) == (2, len(names))


def test_a_cohort_without_decisions_gives_a_table_without_rows() -> None:
    """All columns are there."""
    assert build_features(cohort_of([]), EVERYTHING).frame.shape == (0, 13)


def test_an_interaction_is_the_column_in_one_category_and_nothing_in_the_others() -> None:
    told = {"kind": "interaction", "name": "in_melanoma", "category": "cancer_type", "level": "Melanoma"}
    section = FeatureSection.model_validate(
        {
            "missing_indicators": "none",
            "derived": [
                told | {"column": "tmb", "centre": 10},
                told | {"name": "counted", "column": "lymphocytes", "centre": 900, "label": "L"},
                told | {"name": "unstable", "column": "msi"},
            ],
        }
    )
    rows = [
        {"cancer_type": "Melanoma", "tmb": 16.0, "lymphocytes": 3000.0, "msi": 1.0},
        {"cancer_type": "NSCLC", "tmb": 16.0, "lymphocytes": 3000.0, "msi": 1.0},
        {"cancer_type": "NSCLC"},
        {"cancer_type": "Melanoma"},
        {"tmb": 16.0, "lymphocytes": 3000.0, "msi": 1.0},
    ]
    table = build_features(cohort_of(rows), section)
    found = table.frame[["treat.in_melanoma", "treat.counted", "treat.unstable"]].to_numpy()
    nan = np.nan
    # Of lymphocytes the log1p, as linear models see them, and their cap is not applied.
    expected = [[6, np.log(3001 / 901), 1], [0, 0, 0], [0, 0, 0], [nan, nan, nan], [nan, nan, nan]]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    labels = {spec.name: spec.label for spec in table.catalogue}
    assert labels["treat.in_melanoma"] == "Tumour mutational burden, under Melanoma"
    assert labels["treat.counted"] == "L"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": "Renal"}, "Its levels in the study are: Melanoma, NSCLC"),
        ({"category": "age"}, "Its levels in the study are: none"),
        ({"column": "cancer_type"}, "give a numeric column"),
        ({"column": "ancestry"}, "covariate"),
        ({"column": "tbm"}, "tmb"),
    ],
)
def test_an_interaction_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    told = {"kind": "interaction", "name": "x", "column": "tmb", "category": "cancer_type", "level": "Melanoma"}
    cohort = cohort_of([{"cancer_type": "NSCLC", "tmb": 1.0}])
    with pytest.raises(StudyError, match=message):
        build_features(
            cohort, FeatureSection.model_validate({"missing_indicators": "none", "derived": [told | change]})
        )
