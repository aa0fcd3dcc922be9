"""The study files in `studies/`, read over the real cohorts."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from theracast_data.cohort import Cohort
from theracast_data.table import cohort_from_frame, read_cohort, read_file
from theracast_training.study import Study, read_study

# Calibration terms of the pan-cancer LORIS (Chang et al., Nature Cancer 2024).
BY_CANCER = {
    "Bladder": -0.3323, "Breast": -0.3323, "Colorectal": -0.102, "Endometrial": -0.0079, "Esophageal": 0.55,
    "Gastric": 0.2306, "Head & Neck": 0.0678, "Hepatobiliary": -0.1189, "Melanoma": -0.0086, "Mesothelioma": 0.1255,
    "NSCLC": 0.0008, "Ovarian": -0.052, "Pancreatic": -1.1169, "Renal": 0.5451, "Sarcoma": 0.0542, "SCLC": -0.0033,
}  # fmt: skip
CohortOf = Callable[[str], tuple[Study, Cohort]]
AUC = {"Chowell_train": 0.741, "Chowell_test": 0.754, "MSK1": 0.699, "Kato_panCancer": 0.793, "Shim_NSCLC": 0.589}


@pytest.fixture(scope="module")
def cohort_of(shared_cohorts: Path, repository: Path) -> Iterator[CohortOf]:
    """Reads a study of the repository over the real cohorts, each once."""

    @functools.cache
    def read(name: str) -> tuple[Study, Cohort]:
        path = repository / "studies" / f"{name}.yaml"
        study = read_study(path)
        return study, read_cohort(study.inputs, study.endpoints, base=path.parent)

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("THERACAST_DATA", str(shared_cohorts))
        yield read


def test_icb_gives_the_published_figures_of_loris(cohort_of: CohortOf, shared_cohorts: Path) -> None:
    study, cohort = cohort_of("icb")
    assert dict(cohort.decisions["site"].value_counts()) == {
        "Chowell_train": 964, "Chowell_test": 515, "MSK1": 453, "Kato_panCancer": 35, "Shim_NSCLC": 198
    }  # fmt: skip
    assert (cohort.notes, cohort.attrition, cohort.absent) == ((), (), {})
    v = cohort.values
    assert set(v["cancer_type"]) == set(BY_CANCER)
    score = (
        0.0371 * v["tmb"].clip(upper=50) - 0.8775 * v["systemic_therapy_history"] + 0.5382 * v["albumin"]
        - 0.033 * v["nlr"].clip(upper=25) + 0.0049 * v["age"].clip(upper=85) + v["cancer_type"].map(BY_CANCER) - 2.0886
    )  # fmt: skip
    known = score.notna()
    assert (~known).groupby(cohort.decisions["site"]).sum().loc[lambda count: count > 0].to_dict() == {"Shim_NSCLC": 8}
    for site, published in AUC.items():
        rows = known & (cohort.decisions["site"] == site)
        auc = roc_auc_score(cohort.endpoints.loc[rows, "response"], score[rows])
        assert round(float(auc), 3) == published, site
    raw = read_file(shared_cohorts / "icb" / "icb_cohorts.xlsx", sheet="MSK1")
    scored = cohort_from_frame(raw, study.inputs, endpoints=study.endpoints, site="MSK1")
    pd.testing.assert_frame_equal(scored.values, cohort.at(["MSK1"]).values)
    pd.testing.assert_frame_equal(scored.endpoints, cohort.at(["MSK1"]).endpoints)
    by_text = raw.drop(
        columns=[header for header in raw.columns if header.startswith("CancerType") and header[10:].isdigit()]
    )
    pd.testing.assert_series_equal(
        cohort_from_frame(by_text, study.inputs).values["cancer_type"], scored.values["cancer_type"]
    )


def test_icb_full_has_every_column_of_the_development_sheet(cohort_of: CohortOf) -> None:
    _, cohort = cohort_of("icb_full")
    development = cohort.at(["Chowell_train"])
    assert "Chowell_train" not in cohort.absent
    assert {"bmi", "haemoglobin", "hed", "stage_iv"} <= set(cohort.absent["MSK1"])
    assert development.values["pdl1_tps"].isna().sum() == 747
    assert set(development.decisions["calendar"]) == {2015.0, 2016.0, 2017.0}
    breast = cohort.values["cancer_type"].isin(["Ovarian", "Endometrial"])
    assert set(cohort.values.loc[breast, "sex"]) == {"female"}, "the sheet's 1 is male"


def test_transneo_has_every_column_of_the_feature_groups(cohort_of: CohortOf, shared_cohorts: Path) -> None:
    study, cohort = cohort_of("transneo")
    groups = json.loads((shared_cohorts / "transneo" / "feature_groups.json").read_text())
    wanted = {header for group, headers in groups.items() if group != "other" for header in headers}
    assert set(study.sources[0].columns) == wanted
    assert len(cohort) == 147
    assert cohort.endpoints["pcr"].sum() == 38
    assert ((cohort.endpoints["rcb"] == 3) == (cohort.endpoints["pcr"] == 1)).all()
    assert not cohort.values.isna().any().any()


def test_ispy2_joins_the_first_mri_alone(cohort_of: CohortOf) -> None:
    study, cohort = cohort_of("ispy2_baseline")
    assert len(cohort) == 681
    assert cohort.notes == ()
    imaging = [name for name, spec in cohort.columns.items() if spec.modality == "imaging"]
    assert cohort.values[imaging].notna().sum().unique().tolist() == [263]
    raw = [header for source in study.sources for header in source.columns]
    assert not [
        header for header in raw if "pch" in header or header.endswith(("_T1", "_T2", "_T3", "V20", "V30", "V40"))
    ]
    assert set(cohort.values["menopausal_status"].dropna()) == {
        "premenopausal", "perimenopausal", "postmenopausal", "not applicable, below 50", "not applicable, above 50"
    }  # fmt: skip


def test_oak_gives_the_trial_s_own_response_rates(cohort_of: CohortOf, shared_cohorts: Path) -> None:
    _, cohort = cohort_of("oak")
    rate = cohort.endpoints["response"].groupby(cohort.decisions["treatment"]).mean().round(3).to_dict()
    assert rate == {"MPDL3280A": 0.136, "Docetaxel": 0.134}, "14 % and 13 % of all randomised, as published"
    assert cohort.values["blood_tmb"].notna().sum() == 642
    raw = pd.read_csv(shared_cohorts / "oak" / "clinical.csv")
    np.testing.assert_array_equal(cohort.endpoints["os.event"], 1 - raw["OS.CNSR"])
    np.testing.assert_allclose(cohort.endpoints["os.time"], raw["OS"] * 30.4375)
    assert cohort.values["pdl1_tc3_ic3"].isna().sum() == 9


@pytest.mark.parametrize("name", ["icb", "icb_full", "transneo", "ispy2_baseline", "oak"])
def test_no_value_lies_outside_its_plausible_range_but_known_ones(cohort_of: CohortOf, name: str) -> None:
    _, cohort = cohort_of(name)
    outside = {}
    for column, spec in cohort.columns.items():
        limits = getattr(spec, "plausible", None)
        if limits is not None:
            values = cohort.values[column].dropna()
            outside[column] = int(((values < limits[0]) | (values > limits[1])).sum())
    assert {column: count for column, count in outside.items() if count} == {}
