"""Every gate on evidence that passes and evidence that does not; the policy file and the built-in policy agree."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from theracast_data.errors import StudyError
from theracast_training.gates import (
    Evidence,
    GatePolicy,
    GateReport,
    evaluate_gates,
    merge_policy,
    pooled,
    read_policy,
)
from theracast_training.study import GateSection

POLICY = GatePolicy()


def site(*, n: int = 500, events: int = 150, auc: float = 0.75, half: float = 0.04, **changes: Any) -> dict[str, Any]:
    figures = {"auc": (auc, half), "calibration_slope": (1.0, 0.2), "calibration_intercept": (0.0, 0.2)}
    figures |= {name: value for name, value in changes.items() if name in figures}
    found: dict[str, Any] = {"n": n, "events": events}
    for name, (value, width) in figures.items():
        found |= {name: value, f"{name}_low": value - width, f"{name}_high": value + width}
    return found


def evidence(**changes: Any) -> Evidence:
    good = Evidence("models:/icb/2", {"external": {"MSK1": site()}}, open_audit_errors=(), verified=True)
    return replace(good, **changes)


def outcome(report: GateReport, gate: str) -> tuple[bool, str, str]:
    (row,) = [row for row in report.rows if row.gate == gate]
    return row.passed, row.found, row.reason


def scored(seed: int = 3, n: int = 800, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outcomes, the probabilities they were drawn from, and a copy of these worsened by `noise`."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-0.8, 1.2, n)
    y = (rng.random(n) < 1 / (1 + np.exp(-truth))).astype(float)
    return y, 1 / (1 + np.exp(-truth)), 1 / (1 + np.exp(-truth - rng.normal(0, noise or 1e-9, n)))


def test_a_sound_first_version_passes_every_gate() -> None:
    report = evaluate_gates(POLICY, evidence=evidence(), champion=None)
    assert report.passed
    assert [row.gate for row in report.rows] == [
        "minimum_n",
        "minimum_events",
        "auc_lower",
        "calibration_slope",
        "calibration_intercept",
        "beats",
        "audit",
        "verify",
    ]
    assert report.champion is None
    assert outcome(report, "beats")[1] == "no champion yet"


@pytest.mark.parametrize(
    ("gate", "changes", "says"),
    [
        ("minimum_n", {"evaluations": {"external": {"Kato": site(n=35, events=15)}}}, "more patients"),
        ("minimum_events", {"evaluations": {"external": {"Kato": site(n=400, events=12)}}}, "rarer outcome"),
        ("minimum_events", {"evaluations": {"external": {"Kato": site(n=400, events=390)}}}, "rarer outcome"),
        ("auc_lower", {"evaluations": {"external": {"Shim": site(auc=0.62)}}}, "weaker than asked"),
        ("auc_lower", {"evaluations": {"external": {"Shim": {"n": 500, "events": 150, "auc": None}}}}, "no site could"),
        ("auc_lower", {"evaluations": {}}, "no evaluation is on record"),
        ("calibration_slope", {"evaluations": {"cv": site(calibration_slope=(0.5, 0.1))}}, "too extreme"),
        ("calibration_slope", {"evaluations": {"cv": site(calibration_slope=(1.9, 0.1))}}, "too timid"),
        ("calibration_intercept", {"evaluations": {"cv": site(calibration_intercept=(-0.9, 0.1))}}, "too high"),
        ("calibration_intercept", {"evaluations": {"cv": site(calibration_intercept=(0.9, 0.1))}}, "too low"),
        ("audit", {"open_audit_errors": ("leaking-column", "unit-shift")}, "mend the data"),
        ("audit", {"open_audit_errors": None}, "theracast check"),
        ("verify", {"verified": False, "verify_reason": "REST differs by 1e-3"}, "REST differs"),
        ("verify", {"verified": None}, "theracast verify models:/icb/2"),
    ],
)
def test_a_gate_that_is_not_met_says_what_was_found_and_what_to_do(
    gate: str, changes: dict[str, Any], says: str
) -> None:
    report = evaluate_gates(POLICY, evidence=evidence(**changes), champion=None)
    passed, _, reason = outcome(report, gate)
    assert not passed
    assert not report.passed
    assert says in reason


def test_external_sites_judge_when_there_are_any_and_nested_cross_validation_otherwise() -> None:
    both = {"cv": site(auc=0.95), "external": {"MSK1": site(auc=0.70)}}
    assert outcome(evaluate_gates(POLICY, evidence=evidence(evaluations=both), champion=None), "auc_lower")[
        1
    ].startswith("0.700")
    nested = {"cv": site(auc=0.95), "external": {}}
    report = evaluate_gates(POLICY, evidence=evidence(evaluations=nested), champion=None)
    assert outcome(report, "auc_lower")[1].startswith("0.950")
    assert "nested cross-validation" in outcome(report, "minimum_n")[2]


def test_a_site_that_could_not_estimate_is_left_out_and_named() -> None:
    sites = {"MSK1": site(), "Kato": {"n": 35, "events": 0, "auc": None, "calibration_slope": None}}
    report = evaluate_gates(POLICY, evidence=evidence(evaluations={"external": sites}), champion=None)
    assert outcome(report, "auc_lower") == (True, "0.750 (0.710 to 0.790)", "not estimable at Kato, left out.")


def test_the_site_that_is_furthest_off_is_named() -> None:
    sites = {"A": site(auc=0.63), "B": site(auc=0.55), "C": site(auc=0.60)}
    report = evaluate_gates(POLICY, evidence=evidence(evaluations={"external": sites}), champion=None)
    assert "furthest at B: 0.55" in outcome(report, "auc_lower")[2]


def test_pooling_weighs_sites_by_their_information() -> None:
    """Against the textbook formula, written out with the logit and its standard error per site."""
    sites = {"large": site(auc=0.75, half=0.03), "small": site(auc=0.60, half=0.12)}
    found = pooled(sites, "auc")
    assert found is not None
    logit = {
        name: [math.log(v / (1 - v)) for v in (s["auc"], s["auc_low"], s["auc_high"])] for name, s in sites.items()
    }
    variance = {name: ((high - low) / 2 / 1.959964) ** 2 for name, (_, low, high) in logit.items()}
    centre = sum(logit[name][0] / variance[name] for name in sites) / sum(1 / one for one in variance.values())
    error = math.sqrt(1 / sum(1 / one for one in variance.values()))
    expected = [1 / (1 + math.exp(-x)) for x in (centre, centre - 1.959964 * error, centre + 1.959964 * error)]
    assert found == pytest.approx(expected, abs=1e-12)
    assert 0.73 < found[0] < 0.75


@given(st.lists(st.tuples(st.floats(0.3, 0.9), st.floats(0.005, 0.09)), min_size=1, max_size=6))
def test_a_pooled_value_lies_between_the_sites_and_is_no_less_certain_than_the_best(
    sites: list[tuple[float, float]],
) -> None:
    parts = {str(number): site(auc=auc, half=half) for number, (auc, half) in enumerate(sites)}
    found = pooled(parts, "auc")
    assert found is not None
    value, low, high = found
    values = [auc for auc, _ in sites]
    assert min(values) - 1e-9 <= value <= max(values) + 1e-9
    assert low <= value <= high
    other = pooled(dict(reversed(parts.items())), "auc")
    assert other == pytest.approx(found, abs=1e-12)


def test_an_equally_good_challenger_passes_and_a_worse_one_does_not() -> None:
    y, good, bad = scored(noise=1.5)
    champion = evidence(model="models:/icb/1", y=y, p=good, patients="800 patients of MSK1")
    same = evaluate_gates(POLICY, evidence=evidence(y=y, p=good), champion=champion)
    worse = evaluate_gates(POLICY, evidence=evidence(y=y, p=bad, patients="800 patients of MSK1"), champion=champion)
    better = evaluate_gates(
        POLICY, evidence=evidence(y=y, p=good), champion=evidence(model="models:/icb/1", y=y, p=bad)
    )
    assert outcome(same, "beats")[:2] == (True, "+0.000 (+0.000 to +0.000)")
    passed, found, reason = outcome(worse, "beats")
    assert not passed
    assert found.startswith("-0.")
    assert reason == "is worse, against models:/icb/1 on 800 patients of MSK1."
    assert outcome(better, "beats")[0]
    assert worse.champion == "models:/icb/1"


def test_a_lucky_lead_on_few_patients_is_no_proof() -> None:
    """Point estimates of equal models lead half of the time; the interval says how little that means."""
    y, good, noisy = scored(seed=5, n=60, noise=1.0)
    report = evaluate_gates(
        POLICY, evidence=evidence(y=y, p=noisy), champion=evidence(model="models:/icb/1", y=y, p=good)
    )
    passed, _, reason = outcome(report, "beats")
    assert not passed
    assert "may be worse by more than that" in reason or "is worse" in reason


def test_the_same_ranking_with_wrong_probabilities_does_not_pass() -> None:
    y, good, _ = scored()
    report = evaluate_gates(
        POLICY, evidence=evidence(y=y, p=good**0.4), champion=evidence(model="models:/icb/1", y=y, p=good)
    )
    passed, found, reason = outcome(report, "beats")
    assert (passed, found) == (False, "+0.000 (+0.000 to +0.000)")
    assert "worse Brier score" in reason


def test_without_the_same_patients_there_is_no_comparison() -> None:
    y, good, bad = scored(noise=1.0)
    report = evaluate_gates(POLICY, evidence=evidence(), champion=evidence(model="models:/icb/1", y=y, p=good))
    assert outcome(report, "beats")[:2] == (False, "not compared")
    with pytest.raises(ValueError, match="not on the same patients"):
        evaluate_gates(POLICY, evidence=evidence(y=1 - y, p=bad), champion=evidence(model="models:/icb/1", y=y, p=good))


def test_the_champion_itself_needs_no_comparison_and_beats_none_asks_for_none() -> None:
    y, good, _ = scored()
    itself = evidence(y=y, p=good)
    assert evaluate_gates(POLICY, evidence=itself, champion=itself).champion is None
    free = merge_policy(POLICY, GateSection(beats="none"))
    report = evaluate_gates(free, evidence=evidence(), champion=evidence(model="models:/icb/1"))
    assert "beats" not in [row.gate for row in report.rows]


def test_the_report_is_readable_and_plain_json() -> None:
    report = evaluate_gates(POLICY, evidence=evidence(verified=False), champion=None)
    lines = report.to_text().splitlines()
    assert lines[0].split() == ["gate", "required", "found"]
    assert any(line.startswith("NO  verify") for line in lines)
    assert any(line.startswith("ok  auc_lower") and "0.750 (0.710 to 0.790)" in line for line in lines)
    content = report.to_json()
    assert content["passed"] is False
    assert {"gate", "required", "found", "passed", "reason"} == set(content["rows"][0])


def test_the_policy_file_and_the_built_in_policy_agree(repository: Path) -> None:
    file = repository / "mlflow" / "gates.yaml"
    assert read_policy(file) == GatePolicy()
    assert set(yaml.safe_load(file.read_text())) == set(GatePolicy.model_fields)


def test_the_study_decides_what_it_names_and_the_policy_the_rest() -> None:
    merged = merge_policy(POLICY, GateSection(auc_lower=0.65, calibration_slope=(0.8, 1.25), minimum_events=100))
    assert (merged.auc_lower, merged.calibration_slope, merged.minimum_events) == (0.65, (0.8, 1.25), 100)
    assert (merged.minimum_n, merged.margin, merged.beats) == (POLICY.minimum_n, POLICY.margin, "champion")


def test_a_range_the_wrong_way_round_in_a_study_is_refused() -> None:
    with pytest.raises(StudyError, match="from low to high"):
        merge_policy(POLICY, GateSection(calibration_slope=(1.25, 0.8)))


def test_every_gate_of_a_study_exists_in_the_policy() -> None:
    assert set(GateSection.model_fields) <= set(GatePolicy.model_fields)


def test_where_the_policy_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_policy() == GatePolicy()
    (tmp_path / "mlflow").mkdir()
    (tmp_path / "mlflow" / "gates.yaml").write_text("auc_lower: 0.7\n")
    assert read_policy().auc_lower == 0.7
    (tmp_path / "own.yaml").write_text("minimum_n: 400\n")
    assert read_policy(tmp_path / "own.yaml").minimum_n == 400


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("auc_lowr: 0.7", "Did you mean 'auc_lower'"),
        ("auc_lower: 7", "auc_lower: input should be less than or equal to 1"),
        ("- auc_lower", "`gate: value` lines"),
        ("a: [", "cannot be read as YAML"),
        ("calibration_slope: [1.4, 0.7]", "from low to high"),
    ],
)
def test_a_policy_that_cannot_be_used_says_why(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "gates.yaml"
    file.write_text(text)
    with pytest.raises(StudyError, match=r"these gates|cannot be read|a gates file") as found:
        read_policy(file)
    assert says in str(found.value)


def test_a_missing_policy_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="there is no such file"):
        read_policy(tmp_path / "gates.yaml")


def numbers(*, r2: float = 0.4, half: float = 0.1) -> dict[str, Any]:
    figures = {"r2": (r2, half), "calibration_slope": (1.0, 0.2), "calibration_intercept": (40.0, 5.0)}
    found: dict[str, Any] = {"n": 400}
    for name, (value, width) in figures.items():
        found |= {name: value, f"{name}_low": value - width, f"{name}_high": value + width}
    return found


def test_a_number_has_no_auc_and_says_what_to_ask_instead() -> None:
    report = evaluate_gates(POLICY, evidence=evidence(evaluations={"external": {"MSK1": numbers()}}), champion=None)
    passed, found, reason = outcome(report, "auc_lower")
    assert (passed, found) == (False, "not estimable")
    assert "r2_lower" in reason
    assert outcome(report, "minimum_events")[0]
    assert "calibration_intercept" not in {row.gate for row in report.rows}
    asked = merge_policy(POLICY, GateSection(r2_lower=0.25))
    assert evaluate_gates(asked, evidence=evidence(evaluations={"cv": numbers()}), champion=None).passed
    weak = evaluate_gates(asked, evidence=evidence(evaluations={"cv": numbers(r2=0.3)}), champion=None)
    assert not outcome(weak, "r2_lower")[0]


def test_a_number_is_compared_with_the_champion_by_its_r2() -> None:
    rng = np.random.default_rng(5)
    truth = rng.normal(50, 10, 600)
    y = truth + rng.normal(0, 8, 600)
    own = evidence(evaluations={"external": {"MSK1": numbers()}}, y=y, p=truth)
    worse = evaluate_gates(POLICY, evidence=own, champion=replace(own, model="models:/icb/1", p=truth))
    assert outcome(worse, "beats")[0]
    report = evaluate_gates(
        POLICY, evidence=replace(own, p=truth + rng.normal(0, 8, 600)), champion=replace(own, model="models:/icb/1")
    )
    assert not outcome(report, "beats")[0]
    assert "loses less than 0.02 R2" in {row.required for row in report.rows}


def test_a_time_to_an_event_is_judged_by_its_leading_horizon() -> None:
    timed = site() | {"survival": {"n": 600, "events": 400, "c_harrell": 0.7}}
    report = evaluate_gates(POLICY, evidence=evidence(evaluations={"external": {"MSK1": timed}}), champion=None)
    assert report.passed
    assert outcome(report, "auc_lower")[1].startswith("0.750")
