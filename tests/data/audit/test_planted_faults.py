"""Every kind of fault, planted in a clean cohort, is found by the right check at the right place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from theracast_data.audit import AuditReport, audit
from theracast_data.cohort import Cohort, ReadingNote
from theracast_data.endpoints import Endpoint

Fault = Callable[[Cohort, np.random.Generator], Cohort]
RANK = {"note": 0, "warning": 1, "error": 2}


def audited(cohort: Cohort, endpoints: list[Endpoint]) -> AuditReport:
    return audit(cohort, development=["North", "South"], external=["East"], endpoints=endpoints)


def at_site(cohort: Cohort, site: str) -> np.ndarray:
    return np.flatnonzero(cohort.decisions["site"] == site)


def with_column(cohort: Cohort, name: str, change: Callable[[np.ndarray], Any], *, site: str | None = None) -> Cohort:
    values = cohort.values.copy()
    rows = np.arange(len(values)) if site is None else at_site(cohort, site)
    column = values[name].to_numpy(copy=True)
    column[rows] = change(column[rows])
    values[name] = pd.Series(column, dtype=values[name].dtype)
    return replace(cohort, values=values)


def with_endpoint(cohort: Cohort, changes: dict[str, Callable[[pd.DataFrame], Any]], *, site: str | None) -> Cohort:
    outcome = cohort.endpoints.copy()
    rows = np.arange(len(outcome)) if site is None else at_site(cohort, site)
    before = outcome.iloc[rows]
    for name, change in changes.items():
        outcome.loc[outcome.index[rows], name] = np.asarray(change(before), dtype=float)
    return replace(cohort, endpoints=outcome)


def scaled(name: str, site: str, factor: float, digits: int = 2) -> Fault:
    return lambda cohort, rng: with_column(cohort, name, lambda x: np.round(x * factor, digits), site=site)


def spiked(name: str, site: str, value: float, share: float) -> Fault:
    def plant(cohort: Cohort, rng: np.random.Generator) -> Cohort:
        def replaced(column: np.ndarray) -> np.ndarray:
            return np.where(rng.permutation(len(column)) < round(share * len(column)), value, column)

        return with_column(cohort, name, replaced, site=site)

    return plant


def blanked(name: str, share: Callable[[Cohort], np.ndarray]) -> Fault:
    def plant(cohort: Cohort, rng: np.random.Generator) -> Cohort:
        chance = share(cohort)
        return with_column(cohort, name, lambda x: np.where(rng.random(len(x)) < chance, np.nan, x))

    return plant


def added(cohort: Cohort, copies: pd.Index, *, site: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Cohort:
    n = len(cohort)
    decisions = cohort.decisions.loc[copies].assign(site=site, subject_id=[f"copy-{row}" for row in range(len(copies))])
    return replace(
        cohort,
        decisions=pd.concat([cohort.decisions, decisions]).reset_index(drop=True),
        values=pd.concat([cohort.values, change(cohort.values.loc[copies].copy())]).reset_index(drop=True),
        endpoints=pd.concat([cohort.endpoints, cohort.endpoints.loc[copies]]).reset_index(drop=True).iloc[: n + 999],
    )


def same_patients(cohort: Cohort, rng: np.random.Generator) -> Cohort:
    copies = pd.Index(rng.choice(at_site(cohort, "North"), 8, replace=False))

    def remeasured(values: pd.DataFrame) -> pd.DataFrame:
        values["nlr"] = np.round(values["nlr"] * np.exp(rng.normal(0, 0.05, len(values))), 2)
        values["weight"] = np.round(values["weight"] + rng.normal(0, 1.0, len(values)), 1)
        values["pdl1"] = np.nan
        return values

    return added(cohort, copies, site="East", change=remeasured)


def repeated_rows(cohort: Cohort, rng: np.random.Generator) -> Cohort:
    copies = pd.Index(rng.choice(at_site(cohort, "South"), 4, replace=False))
    return added(cohort, copies, site="South", change=lambda values: values)


def leaking(cohort: Cohort, rng: np.random.Generator) -> Cohort:
    noise = rng.normal(0, 0.22, len(cohort))
    return with_column(cohort, "signature", lambda x: cohort.endpoints["response"].to_numpy() + noise)


def leaking_category(cohort: Cohort, rng: np.random.Generator) -> Cohort:
    response = cohort.endpoints["response"].to_numpy()
    flipped = rng.random(len(cohort)) < 0.01
    return with_column(cohort, "histology", lambda x: np.where((response == 1) ^ flipped, "adeno", "squamous"))


def renamed(cohort: Cohort, rng: np.random.Generator) -> Cohort:
    columns = {("best_response" if name == "pdl1" else name): spec for name, spec in cohort.columns.items()}
    return replace(cohort, columns=columns, values=cohort.values.rename(columns={"pdl1": "best_response"}))


def dropped_at_site(cohort: Cohort, rng: np.random.Generator) -> Cohort:
    blank = with_column(cohort, "glucose", lambda x: np.full(len(x), np.nan), site="East")
    return replace(blank, absent={"East": frozenset({"glucose"})})


def unread(cohort: Cohort, rng: np.random.Generator) -> Cohort:
    rows = tuple(int(row) for row in at_site(cohort, "South")[:70])
    note = ReadingNote("unreadable-value", "crp", "South", rows, "70 cells of CRP are no numbers")
    blank = with_column(cohort, "crp", lambda x: np.where(np.arange(len(x)) < 70, np.nan, x), site="South")
    return replace(blank, notes=(note,))


def calendar_share(cohort: Cohort) -> np.ndarray:
    years = cohort.decisions["calendar"].to_numpy()
    return np.where(at_site_mask(cohort, "South"), np.where(years < 2017, 0.6, 0.15), 0.0)


def at_site_mask(cohort: Cohort, site: str) -> np.ndarray:
    return (cohort.decisions["site"] == site).to_numpy()


MONTH = 30.4375
OUTCOME = "outcome-contradiction"
MATRIX: dict[str, tuple[Fault, str, str | None, str | None, str]] = {
    # fault: (plant, check, site, column, least severity)
    "albumin in g/L": (scaled("albumin", "East", 10, 0), "unit-shift", "East", "albumin", "error"),
    "haemoglobin in mmol/L": (scaled("haemoglobin", "South", 0.6206, 1), "unit-shift", "South", "haemoglobin", "error"),
    "creatinine in umol/L": (scaled("creatinine", "North", 88.42, 0), "unit-shift", "North", "creatinine", "error"),
    "glucose in mmol/L": (scaled("glucose", "East", 1 / 18.016, 1), "unit-shift", "East", "glucose", "error"),
    "crp in mg/dL": (scaled("crp", "East", 0.1, 2), "unit-shift", "East", "crp", "warning"),
    "height in inches": (scaled("height", "East", 1 / 2.54, 1), "unit-shift", "East", "height", "error"),
    "weight in pounds": (scaled("weight", "South", 2.2046, 1), "unit-shift", "South", "weight", "error"),
    "diameters in cm": (scaled("sum_of_diameters", "East", 0.1, 1), "unit-shift", "East", "sum_of_diameters", "error"),
    "nlr doubled": (scaled("nlr", "East", 2.0), "unit-shift", "East", "nlr", "warning"),
    "tmb halved": (scaled("tmb", "South", 0.5), "unit-shift", "South", "tmb", "warning"),
    "days for months in a column": (
        scaled("diagnosis_months", "East", MONTH, 0), "unit-shift", "East", "diagnosis_months", "error"),
    "temperature in Fahrenheit": (
        lambda c, r: with_column(c, "temperature", lambda x: np.round(x * 1.8 + 32, 1), site="East"),
        "unit-shift", "East", "temperature", "error"),
    "log against raw": (
        lambda c, r: with_column(c, "nlr", lambda x: np.round(np.log(x), 3), site="East"),
        "unit-shift", "East", "nlr", "error"),
    "log1p of a column with zeros": (
        lambda c, r: with_column(c, "tmb", lambda x: np.round(np.log2(1 + x), 3), site="South"),
        "unit-shift", "South", "tmb", "error"),
    "constant": (
        lambda c, r: with_column(c, "albumin", lambda x: np.full(len(x), 3.8), site="East"),
        "constant-at-site", "East", "albumin", "warning"),
    "imputed by the median": (spiked("nlr", "East", 4.06, 0.2), "repeated-value", "East", "nlr", "warning"),
    "imputed, values of few digits": (
        spiked("haemoglobin", "South", 12.4, 0.25), "repeated-value", "South", "haemoglobin", "warning"),
    "999 for not known": (
        spiked("creatinine", "South", 999.0, 0.02), "sentinel-value", "South", "creatinine", "warning"),
    "-1 for not known": (spiked("age", "East", -1.0, 0.02), "sentinel-value", "East", "age", "warning"),
    "-99 for not known": (spiked("signature", "East", -99.0, 0.02), "sentinel-value", "East", "signature", "warning"),
    "0 where impossible": (spiked("weight", "North", 0.0, 0.03), "sentinel-value", "North", "weight", "warning"),
    "9 for an unknown grade": (spiked("ecog", "East", 9.0, 0.04), "sentinel-value", "East", "ecog", "warning"),
    "impossible values": (spiked("pdl1", "South", 340.0, 0.02), "implausible-range", "South", "pdl1", "warning"),
    "unseen level": (
        lambda c, r: with_column(
            c, "histology", lambda x: np.where(r.random(len(x)) < 0.1, "sarcomatoid", x), site="East"),
        "unseen-level", "East", "histology", "warning"),
    "absent column": (dropped_at_site, "absent-column", "East", "glucose", "warning"),
    "missing at one site": (
        blanked("age", lambda c: 0.5 * at_site_mask(c, "East")), "missing-by-site", "East", "age", "warning"),
    "missing by calendar": (blanked("ecog", calendar_share), "missing-by-calendar", "South", "ecog", "warning"),
    "missing by outcome": (
        blanked("height", lambda c: np.where(c.endpoints["response"] == 1, 0.08, 0.3)),
        "missing-by-outcome", None, "height", "warning"),
    "missing where death came early": (
        blanked("height", lambda c: np.where(c.endpoints["os.time"] < 240, 0.5, 0.08)),
        "missing-by-outcome", None, "height", "warning"),
    "mostly missing": (
        blanked("glucose", lambda c: np.full(len(c), 0.94)), "high-missingness", None, "glucose", "warning"),
    "days read as months": (
        lambda c, r: with_endpoint(c, {"os.time": lambda e: e["os.time"] * MONTH}, site="East"),
        "time-unit", "East", "os", "error"),
    "months read as days": (
        lambda c, r: with_endpoint(c, {"pfs.time": lambda e: e["pfs.time"] / MONTH}, site="South"),
        "time-unit", "South", "pfs", "error"),
    "days read as months everywhere": (
        lambda c, r: with_endpoint(c, {"os.time": lambda e: e["os.time"] * MONTH}, site=None),
        "time-unit", "North", "os", "error"),
    "progression after death": (
        lambda c, r: with_endpoint(
            c, {"pfs.time": lambda e: np.where(r.random(len(e)) < 0.1, e["os.time"] + 60, e["pfs.time"])}, site="East"),
        OUTCOME, "East", "pfs", "error"),
    "death not counted as progression": (
        lambda c, r: with_endpoint(c, {
            "pfs.time": lambda e: np.where(e["os.event"] == 1, e["os.time"], e["pfs.time"]),
            "pfs.event": lambda e: np.where(e["os.event"] == 1, 0, e["pfs.event"])}, site="South"),
        OUTCOME, "South", "pfs", "error"),
    "negative times": (
        lambda c, r: with_endpoint(
            c, {"os.time": lambda e: np.where(r.random(len(e)) < 0.03, -5, e["os.time"])}, site="North"),
        OUTCOME, "North", "os", "error"),
    "event flag of 2": (
        lambda c, r: with_endpoint(
            c, {"os.event": lambda e: np.where(r.random(len(e)) < 0.05, 2, e["os.event"])}, site="East"),
        OUTCOME, "East", "os", "error"),
    "responders who progress at once": (
        lambda c, r: with_endpoint(c, {
            "pfs.time": lambda e: np.where((e["response"] == 1) & (r.random(len(e)) < 0.2), 3, e["pfs.time"]),
            "pfs.event": lambda e: np.where(e["response"] == 1, 1, e["pfs.event"])}, site="East"),
        OUTCOME, "East", "response", "warning"),
    "response coded the other way round": (
        lambda c, r: with_endpoint(c, {"response": lambda e: 1 - e["response"]}, site="East"),
        OUTCOME, "East", "response", "error"),
    "event and censoring reversed": (
        lambda c, r: with_endpoint(c, {"pfs.event": lambda e: 1 - e["pfs.event"]}, site="East"),
        OUTCOME, "East", "pfs", "warning"),
    "response is survival past a horizon": (
        lambda c, r: with_endpoint(c, {"response": lambda e: (e["pfs.time"] > 6 * MONTH).astype(float)}, site="East"),
        "label-is-survival", "East", "response", "error"),
    "response is survival, everywhere": (
        lambda c, r: with_endpoint(c, {"response": lambda e: (e["os.time"] > 12 * MONTH).astype(float)}, site=None),
        "label-is-survival", "South", "response", "error"),
    "outcome in a number": (leaking, "leaking-column", None, "signature", "error"),
    "outcome in a category": (leaking_category, "leaking-column", None, "histology", "error"),
    "outcome in the missingness": (
        blanked("height", lambda c: np.where(c.endpoints["response"] == 1, 0.01, 0.99)),
        "leaking-column", None, "height", "error"),
    "a telling name": (renamed, "leaking-column", None, "best_response", "warning"),
    "repeated rows": (repeated_rows, "duplicate-row", "South", None, "warning"),
    "the same patients, measured again": (same_patients, "same-patient-at-two-sites", "East", None, "error"),
    "unreadable values in bulk": (unread, "unreadable-value", "South", "crp", "error"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MATRIX)
def test_planted_fault_is_found_and_nothing_else_is_blamed(
    kind: str, clean: Callable[[int], Cohort], endpoints: list[Endpoint]
) -> None:
    plant, check, site, column, least = MATRIX[kind]
    seed = list(MATRIX).index(kind) % 7
    report = audited(plant(clean(seed), np.random.default_rng(seed + 100)), endpoints)

    found = [one for one in report.findings if (one.check, one.site, one.column) == (check, site, column)]
    assert found, [(one.check, one.site, one.column) for one in report.findings if one.severity != "note"]
    assert RANK[found[0].severity] >= RANK[least], found[0]
    assert found[0].why
    assert found[0].remedy

    outcome = {"pfs", "os", "response"}
    related = outcome if column in outcome else {column}
    assert not [one for one in report.open_errors if one.column not in related]
    if site is not None and "everywhere" not in kind:
        assert not [one for one in report.open_errors if one.site not in (site, None)]


def test_matrix_covers_the_named_checks() -> None:
    assert len(MATRIX) >= 40
    assert {check for _, check, *_ in MATRIX.values()} >= {
        "constant-at-site",
        "repeated-value",
        "sentinel-value",
        "unit-shift",
        "time-unit",
        "implausible-range",
        "unseen-level",
        "absent-column",
        "missing-by-site",
        "missing-by-calendar",
        "missing-by-outcome",
        "high-missingness",
        "outcome-contradiction",
        "label-is-survival",
        "leaking-column",
        "duplicate-row",
        "same-patient-at-two-sites",
        "unreadable-value",
    }


def test_a_flag_of_2_is_no_fault_where_the_endpoint_names_competing_events(
    clean: Callable[[int], Cohort], endpoints: list[Endpoint]
) -> None:
    rng = np.random.default_rng(0)
    cohort = with_endpoint(
        clean(1), {"pfs.event": lambda e: np.where(rng.random(len(e)) < 0.1, 2, e["pfs.event"])}, site=None
    )
    named = [one.model_copy(update={"competing": (2,)}) if one.name == "pfs" else one for one in endpoints]
    told = [one for one in audited(cohort, endpoints).open_errors if one.column == "pfs"]
    assert "other than 0 and 1" in told[0].message
    assert not audited(cohort, named).open_errors
