"""The synthetic cohort: its truth can be found in its files, and the files are what a hospital would have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.optimize import brentq
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from theracast_data.audit import audit
from theracast_data.cohort import Cohort
from theracast_data.errors import CohortError
from theracast_data.synthetic import Truth, generate
from theracast_data.synthetic.truth import DEVELOPMENT, EXTERNAL, SITES, expected_auc
from theracast_data.table import read_cohort
from theracast_training.study import Study


@pytest.fixture(scope="module")
def study(repository: Path) -> Study:
    """The demo study."""
    return Study.model_validate(
        yaml.safe_load((repository / "studies" / "demo_table.yaml").read_text(encoding="utf-8"))
    )


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """The cohort of the demo."""
    return generate(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """Enough patients to see every coefficient."""
    return generate(tmp_path_factory.mktemp("large"), patients=5000, seed=11)


def read(truth: Truth, study: Study, repository: Path, *, strict: bool = True) -> Cohort:
    """Return the cohort as the demo study reads it from the truth's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THERACAST_DATA", str(truth.folder))
        return read_cohort(study.inputs, study.endpoints, base=repository / "studies", strict=strict)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """Every file, the workbook too; another seed gives other patients."""
    first, again, other = (
        generate(tmp_path / name, patients=90, seed=seed) for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    names = sorted(path.name for path in first.folder.iterdir())
    assert names == [
        "clinic.xlsx",
        "genomics.csv",
        "imaging.csv",
        "labs.csv",
        "questionnaires.csv",
        "wearables.parquet",
    ]
    for name in names:
        assert (first.folder / name).read_bytes() == (again.folder / name).read_bytes(), name
        assert (first.folder / name).read_bytes() != (other.folder / name).read_bytes(), name


def test_the_files_are_read_to_the_values_that_were_drawn(truth: Truth, study: Study, repository: Path) -> None:
    """Every value of every column of every source, units and missing codes resolved, joined to the right patient."""
    cohort = read(truth, study, repository)
    assert cohort.decisions["subject_id"].tolist() == truth.decisions["subject_id"].tolist()
    assert cohort.decisions["site"].tolist() == truth.decisions["site"].tolist()
    assert (cohort.decisions["index_time"].to_numpy() == truth.decisions["index_time"].to_numpy()).all()
    assert cohort.decisions["treatment"].tolist() == truth.decisions["treatment"].tolist()
    assert set(cohort.values) == set(truth.values)
    for name in truth.values:
        pd.testing.assert_series_equal(cohort.values[name], truth.values[name], check_dtype=False, rtol=1e-12, obj=name)
    pd.testing.assert_series_equal(cohort.endpoints["response"], truth.outcomes["response"])
    np.testing.assert_array_equal(cohort.endpoints["os.event"], truth.outcomes["os_event"])
    np.testing.assert_allclose(cohort.endpoints["pfs.time"], truth.outcomes["pfs_months"] * 30.4375)
    assert {note.kind for note in cohort.notes} == {"converted-unit"}


def test_missing_blocks(truth: Truth) -> None:
    """Whole modalities are absent, at one site for everybody; single values are missing; the rest is complete."""
    values, site = truth.values, truth.decisions["site"]
    assert values.loc[site == "Lakeside", ["daily_steps", "resting_heart_rate"]].isna().all(axis=None)
    share = values["tmb"].isna().groupby(site).mean()
    assert share.between(0.08, 0.3).all()
    assert (values["tmb"].isna() == values["driver_mutation"].isna()).all()
    assert values["pdl1_tps"].isna().mean() > values["tmb"].isna().mean() + 0.1
    assert values[["age", "sex", "cancer_type", "neutrophils"]].notna().all(axis=None)
    assert (values.isna() | (values == truth.complete)).all(axis=None)


def test_outcomes_agree_with_each_other(large: Truth) -> None:
    """Nobody progresses after death; responders live longer; a third responds; some are not evaluable."""
    outcomes = large.outcomes
    assert (outcomes["pfs_months"] <= outcomes["os_months"]).all()
    assert (outcomes["pfs_months"] > 0).all()
    assert (outcomes["pfs_event"] >= outcomes["os_event"]).all()
    lost = outcomes["pfs_event"] == 0
    assert (outcomes["pfs_months"][lost] == outcomes["os_months"][lost]).all()
    assert (outcomes["response"].isna() == (outcomes["recist"] == "NE")).all()
    assert 0.02 < outcomes["response"].isna().mean() < 0.06
    assert 0.30 < outcomes["response"].mean() < 0.40
    survival = outcomes.groupby("response")["os_months"].median()
    assert survival[1.0] > 1.4 * survival[0.0]
    # Response is not survival past a horizon in disguise.
    assert max(((outcomes["pfs_months"] > cut) == (outcomes["response"] == 1)).mean() for cut in range(2, 24)) < 0.85


def test_a_logistic_regression_finds_the_drivers(large: Truth) -> None:
    """Signs, sizes and order of the drivers, nothing for the noise, and the shift of the third site."""
    known = large.outcomes["response"].notna().to_numpy()
    complete, site = large.complete, large.decisions["site"]
    drivers = {driver.name: driver.standardised(complete) for driver in large.drivers}
    drivers |= {driver.name: driver.standardised(large.latent) for driver in large.image_drivers}
    noise = {
        name: (complete[name] - complete[name].mean()) / complete[name].std()
        for name in large.noise
        if pd.api.types.is_numeric_dtype(complete[name])
    }
    types = {name: (complete["cancer_type"] == name).astype(float) for name in complete["cancer_type"].unique()[1:]}
    design = pd.DataFrame({**drivers, **noise, **types, "shift": (site == "Lakeside").astype(float)})
    fit = LogisticRegression(C=np.inf, max_iter=500).fit(design[known], large.outcomes["response"][known])
    found = pd.Series(fit.coef_[0], index=design.columns)
    true = pd.Series({driver.name: driver.coefficient for driver in (*large.drivers, *large.image_drivers)})
    np.testing.assert_allclose(found[true.index], true, atol=0.13)
    assert found[list(noise)].abs().max() < true.abs().min()
    assert found[true.index].abs().idxmax() == true.abs().idxmax()
    assert found["shift"] == pytest.approx(large.shift["Lakeside"], abs=0.25)


def test_the_calibration_shift_is_detectable_among_the_patients_of_the_demo(truth: Truth) -> None:
    """Right at the development sites; too hopeful at the third by more than three standard errors."""
    unshifted = truth.log_odds - truth.decisions["site"].map(truth.shift).to_numpy()
    for site in SITES:
        here = (truth.decisions["site"] == site).to_numpy() & truth.outcomes["response"].notna().to_numpy()
        response, log_odds = truth.outcomes["response"].to_numpy()[here], unshifted[here]

        def excess(intercept: float, response: np.ndarray = response, log_odds: np.ndarray = log_odds) -> float:
            return float((response - 1 / (1 + np.exp(-(log_odds + intercept)))).sum())

        intercept = brentq(excess, -4, 4)
        probability = 1 / (1 + np.exp(-(log_odds + intercept)))
        error = 1 / np.sqrt((probability * (1 - probability)).sum())
        assert abs(intercept - truth.shift[site]) < 2.5 * error
        assert (intercept < -3 * error) == (site == "Lakeside")


def test_the_best_possible_auc_is_the_mean_over_responses_drawn_again(truth: Truth) -> None:
    """Against a simulation with the true probabilities."""
    rng = np.random.default_rng(0)
    probability = 1 / (1 + np.exp(-truth.log_odds[(truth.decisions["site"] == "Lakeside").to_numpy()]))
    drawn = [roc_auc_score(rng.uniform(size=len(probability)) < probability, probability) for _ in range(400)]
    assert truth.bayes_auc["Lakeside"] == pytest.approx(np.mean(drawn), abs=0.005)
    assert expected_auc(np.array([0.0, 1.0])) == 1
    assert 0.75 < truth.bayes_auc["development"] < 0.88


def test_what_the_tables_do_not_tell(large: Truth) -> None:
    """The latent is in no table and goes along with nothing in one; without it the best possible AUC is lower by as much as
    when it is averaged out over many draws."""
    assert not set(large.latent) & {*large.complete, *large.decisions}
    numbers = large.complete.select_dtypes("number")
    assert numbers.corrwith(large.latent["heterogeneity"]).abs().max() < 4 / np.sqrt(len(numbers))
    [driver] = large.image_drivers
    without = large.log_odds - driver.coefficient * driver.standardised(large.latent)
    drawn = np.random.default_rng(1).standard_normal((len(without), 4000))
    mean = (1 / (1 + np.exp(-(without[:, None] + driver.coefficient * drawn)))).mean(axis=1)
    for name, auc in large.bayes_auc_tables.items():
        here = large.decisions["site"].isin(DEVELOPMENT if name == "development" else [name]).to_numpy()
        assert auc == pytest.approx(expected_auc(mean[here]), abs=0.001)
        assert auc < large.bayes_auc[name] - 0.03


def test_the_study_names_what_the_generator_makes(truth: Truth, study: Study) -> None:
    """Every column of the files is in the study; the sites are those of the generator."""
    assert set(study.inputs.meanings) == set(truth.values)
    assert study.validation.development == DEVELOPMENT
    assert study.validation.external == EXTERNAL
    of_truth = {column for driver in truth.drivers for column in driver.columns}
    of_truth |= {*truth.level_effects, *truth.noise, *truth.proxies}
    assert of_truth == set(truth.values)


def test_the_clean_cohort_passes_the_audit(truth: Truth, study: Study, repository: Path) -> None:
    """No error: what the generator makes has no fault to find."""
    report = audit(
        read(truth, study, repository), development=DEVELOPMENT, external=EXTERNAL, endpoints=study.endpoints
    )
    assert [finding for finding in report.findings if finding.severity == "error"] == []


def test_planted_faults_are_found(tmp_path: Path, study: Study, repository: Path) -> None:
    """Each by the audit's name for it, at its site."""
    truth = generate(tmp_path, faults=True)
    cohort = read(truth, study, repository, strict=False)
    report = audit(cohort, development=DEVELOPMENT, external=EXTERNAL, endpoints=study.endpoints)
    found = {(finding.check, finding.column) for finding in report.findings}
    checks = {finding.check for finding in report.findings}
    for fault in truth.faults:
        assert fault.check in checks, fault
        assert fault.column is None or (fault.check, fault.column) in found, fault


def test_too_few_patients_is_an_error(tmp_path: Path) -> None:
    """Three sites need some patients each."""
    with pytest.raises(CohortError, match="ask for at least 60"):
        generate(tmp_path, patients=20)
