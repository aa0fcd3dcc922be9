"""LORIS against its publication, and the rules for units, levels and missing inputs of any published score."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from theracast_data.errors import StudyError
from theracast_data.units import UnitError
from theracast_features.scores import loris, published_score, table_values, unit_factor
from theracast_features.specs import FeatureSpec, FeatureTable

NAMES = {
    "TMB": "tmb",
    "Systemic_therapy_history": "systemic_therapy_history",
    "Albumin": "albumin",
    "NLR": "nlr",
    "Age": "age",
    "CancerType": "cancer_type",
}


@pytest.fixture
def patients() -> pd.DataFrame:
    """Three invented patients; the last lies beyond every cap."""
    return pd.DataFrame(
        {
            "tmb": [10.0, 2.5, 200.0],
            "systemic_therapy_history": [0.0, 1.0, 1.0],
            "albumin": [4.0, 3.1, 2.2],
            "nlr": [3.0, 6.5, 90.0],
            "age": [60.0, 71.0, 101.0],
            "cancer_type": pd.Series(["Melanoma", "NSCLC", "Head & Neck"], dtype="str"),
        }
    )


# Chang et al. 2024, applied to the published cohorts; Shim without the 8 patients who lack albumin and NLR.
@pytest.mark.parametrize(
    ("sheet", "published", "computable"),
    [
        ("Chowell_train", 0.741, 964),
        ("Chowell_test", 0.754, 515),
        ("MSK1", 0.699, 453),
        ("Kato_panCancer", 0.793, 35),
        ("Shim_NSCLC", 0.589, 190),
    ],
)
def test_loris_reproduces_the_published_ranking(
    shared_cohorts: Path, sheet: str, published: float, computable: int
) -> None:
    """The AUC of each cohort, to three decimals."""
    raw = pd.read_excel(shared_cohorts / "icb" / "icb_cohorts.xlsx", sheet_name=sheet)
    log_odds = loris.log_odds(raw.rename(columns=NAMES))
    known = ~np.isnan(log_odds)
    assert known.sum() == computable
    assert round(roc_auc_score(raw["Response"][known], log_odds[known]), 3) == published


def test_loris_is_the_closed_form(patients: pd.DataFrame) -> None:
    """Written out by hand for each patient."""
    expected = [
        0.0371 * 10 - 0 + 0.5382 * 4.0 - 0.033 * 3 + 0.0049 * 60 - 0.0086 - 2.0886,
        0.0371 * 2.5 - 0.8775 + 0.5382 * 3.1 - 0.033 * 6.5 + 0.0049 * 71 + 0.0008 - 2.0886,
        0.0371 * 50 - 0.8775 + 0.5382 * 2.2 - 0.033 * 25 + 0.0049 * 85 + 0.0678 - 2.0886,
    ]
    np.testing.assert_allclose(loris.log_odds(patients), expected, atol=1e-12)


def test_the_typical_patient_is_the_one_of_the_authors_fit() -> None:
    """The authors' own intercept on standardised inputs, -0.13163, is the log-odds of their average patient."""
    assert loris.intercept + sum(loris.typical.values()) == pytest.approx(-0.13163, abs=0.005)


def test_contributions_add_up(patients: pd.DataFrame) -> None:
    """Intercept and terms give the score."""
    terms = loris.contributions(patients)
    assert list(terms) == list(loris.inputs)
    np.testing.assert_allclose(loris.intercept + terms.sum(axis=1), loris.log_odds(patients), atol=1e-12)


def test_units_are_converted(patients: pd.DataFrame) -> None:
    """Albumin in g/L gives the same score, and annotations in braces say nothing."""
    in_grams_per_litre = patients.assign(albumin=patients["albumin"] * 10)
    units = {"albumin": "g/L", "tmb": "{mut}/Mb", "age": "a", "nlr": None}
    np.testing.assert_allclose(loris.log_odds(in_grams_per_litre, units=units), loris.log_odds(patients), atol=1e-12)
    assert unit_factor("{ratio}", None, quantity="nlr") == 1


def test_a_unit_of_another_kind_is_an_error(patients: pd.DataFrame) -> None:
    """Molar albumin needs a molar mass, which nobody gave."""
    with pytest.raises(UnitError, match="albumin"):
        loris.log_odds(patients, units={"albumin": "mmol/L"})


@pytest.mark.parametrize("spelling", ["Head&Neck", "head and neck", "HEAD_NECK", " Head & Neck "])
def test_level_spelling_does_not_matter(patients: pd.DataFrame, spelling: str) -> None:
    """Case, spaces, `&` and `and`."""
    spelt = patients.assign(cancer_type=pd.Series(["Melanoma", "NSCLC", spelling], dtype="str"))
    np.testing.assert_array_equal(loris.log_odds(spelt), loris.log_odds(patients))


def test_a_missing_input_is_not_computable_but_can_be_completed(patients: pd.DataFrame) -> None:
    """NaN in the score; the typical patient's term, and a mark, in the completed terms."""
    holes = patients.copy()
    holes.loc[0, "albumin"] = np.nan
    holes.loc[1, "cancer_type"] = "Thymoma"
    assert np.isnan(loris.log_odds(holes)).tolist() == [True, True, False]
    terms, filled = loris.completed(holes)
    assert terms.notna().all(axis=None)
    assert filled.stack()[lambda mark: mark].index.tolist() == [(0, "albumin"), (1, "cancer_type")]
    assert terms.loc[0, "albumin"] == loris.typical["albumin"]


def test_a_column_that_is_wholly_missing_is_accepted(patients: pd.DataFrame) -> None:
    """A site without the diagnosis gives an empty float column."""
    assert np.isnan(loris.log_odds(patients.assign(cancer_type=np.nan, albumin=np.nan))).all()


def test_inputs_can_be_mapped(patients: pd.DataFrame) -> None:
    """A study with other names says which is which."""
    renamed = patients.rename(columns={"albumin": "alb", "cancer_type": "diagnosis"})
    mapping = {"albumin": "alb", "cancer_type": "diagnosis"}
    np.testing.assert_array_equal(loris.log_odds(renamed, inputs=mapping), loris.log_odds(patients))
    assert loris.lacking(renamed.columns) == ["albumin", "cancer_type"]


def test_errors_say_all_that_is_wrong(patients: pd.DataFrame) -> None:
    """A missing column, an unknown input and a column of another kind, in one message with the nearest names."""
    wrong = patients.rename(columns={"albumin": "albumine"}).assign(age=pd.Series(["a", "b", "c"], dtype="str"))
    with pytest.raises(StudyError) as caught:
        loris.log_odds(wrong, inputs={"tbm": "tmb"})
    message = str(caught.value)
    assert "did you mean 'tmb'?" in message
    assert "did you mean 'albumine'?" in message
    assert "'age' as numeric" in message
    assert "map them with `inputs`" in message


def test_an_unknown_score_names_the_nearest() -> None:
    """`lorris` is LORIS."""
    with pytest.raises(StudyError, match="did you mean 'loris'"):
        published_score("lorris")


def test_every_score_names_its_source() -> None:
    """A DOI, so that a reader can look it up."""
    assert "doi:10." in loris.source


def test_table_values_are_found_by_bare_name() -> None:
    """Values and ratios of a feature table, without indicators."""
    catalogue = (
        FeatureSpec("lab.albumin", "lab", "numeric", "Albumin", ("albumin",), unit="g/L"),
        FeatureSpec("lab.nlr", "lab", "numeric", "NLR", ("neutrophils", "lymphocytes"), role="derived"),
        FeatureSpec("lab.albumin.missing", "lab", "boolean", "Albumin not measured", ("albumin",), role="indicator"),
    )
    frame = pd.DataFrame({"lab.albumin": [40.0], "lab.nlr": [3.0], "lab.albumin.missing": [0.0]})
    values, units = table_values(FeatureTable(frame, catalogue, pd.DataFrame({"subject_id": ["1"]})))
    assert values.to_dict("list") == {"albumin": [40.0], "nlr": [3.0]}
    assert units == {"albumin": "g/L", "nlr": None}
