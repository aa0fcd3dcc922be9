"""Published trials, patient by patient: the figures of the publications come out again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from theracast_data.errors import StudyError
from theracast_training.effects.compare import compare_treatments
from theracast_training.effects.validate import NONE
from theracast_training.study import read_study

pytestmark = pytest.mark.slow
FEW = ("treatment.repeats=2", "treatment.learners=[dr]")


@pytest.fixture
def compared(repository: Path, shared_cohorts: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Compares the treatments of a study of the repository over the real patients."""
    monkeypatch.setenv("THERACAST_DATA", str(shared_cohorts))

    def run(name: str, *overrides: str) -> dict[str, Any]:
        path = repository / "studies" / f"{name}.yaml"
        return compare_treatments(read_study(path, overrides=overrides), base=path.parent).to_json()

    return run


def test_oak(compared: Any) -> None:
    """Rittmeyer et al., Lancet 2017;389:255-265: OS 0.73 (0.62 to 0.87), stratified as randomised; TC3 or IC3 0.41 (0.27 to 0.64).

    Blood TMB of 16 or more: 0.62, the figure that these data give (Gandara et al., Nat Med 2018;24:1441-1448: 0.64).
    """
    one = compared("oak", *FEW)["comparisons"][0]
    found = one["hazard"]["unstratified"]
    assert found["hazard_ratio"] == pytest.approx(0.73, abs=0.005)
    assert found["hazard_ratio_low"] == pytest.approx(0.62, abs=0.005)
    assert found["hazard_ratio_high"] == pytest.approx(0.87, abs=0.015)
    assert one["hazard"]["stratified"]["hazard_ratio"] == pytest.approx(0.73, abs=0.015)
    subgroups = {row["name"]: row for row in one["subgroups"]}
    assert subgroups["blood TMB of 16 or more"]["hazard"]["hazard_ratio"] == pytest.approx(0.62, abs=0.005)
    high = subgroups["PD-L1 TC3 or IC3"]["hazard"]
    assert [high[key] for key in ("hazard_ratio", "hazard_ratio_low", "hazard_ratio_high")] == pytest.approx(
        [0.41, 0.27, 0.64], abs=0.006
    )
    assert one["adjusted"]["low"] > 0
    assert one["adjusted"]["error"] < one["unadjusted"]["error"]


@pytest.mark.parametrize(("etype", "reduced", "alone"), [(1, 0.40, 0.02), (2, 0.33, 0.06)])
def test_colon(compared: Any, etype: int, reduced: float, alone: float) -> None:
    """Moertel et al., Ann Intern Med 1995;122:321-326: with fluorouracil recurrence -40 %, death -33 %; alone -2 %, -6 %.

    The publication adjusts for prognostic factors; these ratios are not adjusted.
    """
    found = compared("colon", f"sources.0.include.etype=[{etype}]", *FEW)
    by_arm = {one["arm"]: one for one in found["comparisons"]}
    both, single = by_arm["levamisole_fluorouracil"], by_arm["levamisole"]
    assert 1 - both["hazard"]["unstratified"]["hazard_ratio"] == pytest.approx(reduced, abs=0.03)
    assert 1 - single["hazard"]["unstratified"]["hazard_ratio"] == pytest.approx(alone, abs=0.04)
    assert both["adjusted"]["low"] > 0
    assert single["adjusted"]["low"] < 0 < single["adjusted"]["high"]
    assert single["verdict"] == NONE
    assert [arm["n"] for arm in found["arms"]] == [315, 310, 304]


def test_actg_175(compared: Any) -> None:
    """Hammer et al., N Engl J Med 1996;335:1081-1090: 0.50, 0.54 and 0.61 against zidovudine, in 2,467 patients.

    The file has 2,139 of them, so the ratios differ a little.
    """
    found = compared("actg175", *FEW)
    ratios = [one["hazard"]["unstratified"]["hazard_ratio"] for one in found["comparisons"]]
    assert [one["arm"] for one in found["comparisons"]] == [
        "zidovudine_didanosine", "zidovudine_zalcitabine", "didanosine"
    ]  # fmt: skip
    assert ratios == pytest.approx([0.50, 0.54, 0.61], abs=0.025)
    assert all(one["adjusted"]["low"] > 0 for one in found["comparisons"])
    assert all(one["adjusted"]["error"] < one["unadjusted"]["error"] for one in found["comparisons"])


def test_patients_with_and_without_blockade_are_no_trial(compared: Any) -> None:
    """Two cohorts of one centre that can be told apart: prior therapy 14 % against 74 %, propensity AUC 0.88."""
    found = compared("icb_or_not")
    assert found["kind"] == "prognosis"
    judged = found["overlaps"][0]
    assert judged["auc"] == pytest.approx(0.88, abs=0.02)
    assert judged["balance"][0]["feature"] == "clin.systemic_therapy_history"
    assert judged["outside"] > 0.25
    assert judged["effective_control"] < 0.25 * judged["n_control"]
    with pytest.raises(StudyError, match="Chance does not do that"):
        compared("icb_or_not", "treatment.assignment=randomised")
