"""What the audit finds, and does not find, in the public cohorts and in the synthetic one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import TypeAdapter

from theracast_data.audit import AuditReport, audit
from theracast_data.audit.section import Acceptance
from theracast_data.cohort import Cohort
from theracast_data.endpoints import Endpoint
from theracast_data.sources import Inputs
from theracast_data.synthetic import generate
from theracast_data.table import read_cohort

ENDPOINTS: TypeAdapter[list[Endpoint]] = TypeAdapter(list[Endpoint])


def audited(study: Path, *, accepting: bool = True) -> AuditReport:
    """Return the audit of a study file, with or without what it accepts."""
    cohort, endpoints, content = read(study)
    roles = content.get("validation", {})
    accept: Sequence[Acceptance] = [Acceptance(**one) for one in content.get("accept", [])] if accepting else []
    return audit(
        cohort,
        development=roles.get("development", []),
        external=roles.get("external", []),
        endpoints=endpoints,
        accept=accept,
    )


def read(study: Path) -> tuple[Cohort, list[Endpoint], dict[str, dict[str, list[str]]]]:
    content = yaml.safe_load(study.read_text(encoding="utf-8"))
    endpoints = ENDPOINTS.validate_python(content["endpoints"])
    inputs = Inputs.model_validate({"sources": content["sources"]})
    return read_cohort(inputs, endpoints, base=study.parent, strict=False), endpoints, content


@pytest.fixture
def studies(repository: Path, shared_cohorts: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THERACAST_DATA", str(shared_cohorts))
    return repository / "studies"


def found(report: AuditReport) -> set[tuple[str, str | None, str | None]]:
    return {(one.check, one.site, one.column) for one in report.findings}


def test_icb_constants_and_calendar_are_found(studies: Path) -> None:
    report = audited(studies / "icb_full.yaml", accepting=False)
    assert {
        ("constant-at-site", "Kato_panCancer", "albumin"),
        ("constant-at-site", "Kato_panCancer", "nlr"),
        ("missing-by-calendar", "Chowell_train", "pdl1_tps"),
        ("missing-by-calendar", "MSK1", "pdl1_tps"),
        ("missing-by-site", "Shim_NSCLC", "pdl1_tps"),
        ("coarser-at-site", "MSK1", "age"),
        ("absent-column", "MSK1", "bmi"),
        ("absent-column", "Kato_panCancer", "fcna"),
    } <= found(report)
    constants = {one.column: one.message for one in report.findings if one.check == "constant-at-site"}
    assert "35 known values are 3.8" in constants["albumin"]
    assert "35 known values are 6.2" in constants["nlr"]


@pytest.mark.parametrize("name", ["icb", "icb_full", "transneo", "ispy2_baseline", "oak"])
def test_public_cohorts_raise_no_false_error(name: str, studies: Path) -> None:
    report = audited(studies / f"{name}.yaml", accepting=False)
    assert not report.open_errors
    unfounded = ("unit-shift", "same-patient-at-two-sites", "same-patient-twice", "duplicate-row", "leaking-column")
    assert not [one for one in report.findings if one.check in unfounded]
    if name in ("transneo", "ispy2_baseline"):
        assert not report.of_severity("warning")


@pytest.mark.parametrize(
    ("column", "site", "factor"),
    [("albumin", "MSK1", 10.0), ("tmb", "Chowell_test", 2.0), ("nlr", "MSK1", 0.5), ("age", "Shim_NSCLC", 12.0)],
)
def test_factors_planted_in_real_patients_are_found(column: str, site: str, factor: float, studies: Path) -> None:
    cohort, endpoints, content = read(studies / "icb.yaml")
    values = cohort.values.copy()
    values.loc[cohort.decisions["site"] == site, column] *= factor
    planted = Cohort(cohort.decisions, values, cohort.endpoints, cohort.columns)
    report = audit(
        planted, endpoints=endpoints, development=["Chowell_train"], external=content["validation"]["external"]
    )
    assert ("unit-shift", site, column) in found(report)


def test_real_patients_copied_to_another_site_are_found(studies: Path) -> None:
    cohort, endpoints, content = read(studies / "icb.yaml")
    rng = np.random.default_rng(8)
    train = np.flatnonzero(cohort.decisions["site"] == "Chowell_train")
    copies = rng.choice(train, 6, replace=False)
    both = cohort.take(np.concatenate([np.arange(len(cohort)), copies]))
    decisions, values = both.decisions.copy(), both.values.copy()
    last = decisions.index[-6:]
    decisions.loc[last, "site"] = "MSK1"
    values.loc[last, "nlr"] = np.round(values.loc[last, "nlr"] * 1.03, 2)
    planted = Cohort(decisions, values, both.endpoints, both.columns)
    report = audit(
        planted, endpoints=endpoints, development=["Chowell_train"], external=content["validation"]["external"]
    )
    linked = [one for one in report.open_errors if one.check == "same-patient-at-two-sites"]
    assert [(one.site, one.count) for one in linked] == [("MSK1", 6)]


@pytest.mark.parametrize("seed", [1, 2])
def test_synthetic_cohort_is_clean(
    seed: int, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(tmp_path, seed=seed)
    monkeypatch.setenv("THERACAST_DATA", str(tmp_path))
    report = audited(repository / "studies" / "demo_table.yaml")
    assert not report.of_severity("error")
    assert not report.of_severity("warning")
