"""Clean cohorts raise no error and no warning, and the audit of a large one is quick."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from theracast_data.audit import audit
from theracast_data.cohort import Cohort
from theracast_data.endpoints import Endpoint
from theracast_data.sources import ColumnSpec


@pytest.mark.parametrize("seed", range(50, 72))
def test_clean_cohort_raises_no_error_and_no_warning(
    seed: int, clean: Callable[[int], Cohort], endpoints: list[Endpoint]
) -> None:
    report = audit(clean(seed), development=["North", "South"], external=["East"], endpoints=endpoints)
    assert not report.of_severity("error")
    assert not report.of_severity("warning")


@pytest.mark.parametrize("seed", range(4))
def test_few_coarse_columns_give_no_linkage_and_no_duplicates(
    seed: int, clean: Callable[[int], Cohort], endpoints: list[Endpoint]
) -> None:
    names = ["age", "sex", "ecog", "stage", "histology", "prior_therapy"]
    whole = clean(seed)
    coarse = replace(
        whole,
        values=whole.values[names],
        columns={name: whole.columns[name] for name in names},
        endpoints=whole.endpoints[["response"]],
        decisions=whole.decisions.assign(calendar=np.floor(whole.decisions["calendar"])),
    )
    report = audit(coarse, development=["North", "South"], external=["East"], endpoints=endpoints[:1])
    assert {finding.check for finding in report.findings} <= {"small-sample", "outcome-prevalence", "rare-level"}


def test_columns_that_depend_on_each_other_do_not_fake_a_match(
    clean: Callable[[int], Cohort], endpoints: list[Endpoint]
) -> None:
    whole = clean(5)
    derived = {f"height_{power}": np.round(whole.values["height"] ** (1 + power / 10)) for power in range(1, 9)}
    values = whole.values[["age", "sex", "height", "ecog"]].assign(**derived)
    columns = {name: whole.columns.get(name, ColumnSpec()) for name in values}
    report = audit(
        replace(whole, values=values, columns=columns, endpoints=whole.endpoints[["response"]]),
        development=["North", "South"],
        external=["East"],
        endpoints=endpoints[:1],
    )
    assert not [one for one in report.findings if one.check in ("same-patient-at-two-sites", "same-patient-twice")]


def test_one_site_alone_is_audited(clean: Callable[[int], Cohort], endpoints: list[Endpoint]) -> None:
    report = audit(clean(1).at(["North"]), development=[], external=[], endpoints=endpoints)
    assert report.development == ("North",)
    assert not report.of_severity("error")


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_hardly_any_decision_is_no_crash(rows: int, clean: Callable[[int], Cohort], endpoints: list[Endpoint]) -> None:
    report = audit(clean(1).take(range(rows)), development=["North"], external=["East"], endpoints=endpoints)
    assert sum(report.decisions.values()) == rows
    assert report.to_text()


def test_two_thousand_decisions_of_a_hundred_columns_take_less_than_three_seconds(endpoints: list[Endpoint]) -> None:
    rng = np.random.default_rng(0)
    n = 2000
    values = pd.DataFrame({f"x{number}": np.round(rng.lognormal(1, 0.5, n), 2) for number in range(70)})
    for number in range(30):
        values[f"c{number}"] = rng.choice(["a", "b", "c"], n)
    columns = {name: ColumnSpec(kind="categorical" if name.startswith("c") else "numeric") for name in values}
    decisions = pd.DataFrame(
        {
            "subject_id": [str(row) for row in range(n)],
            "site": np.repeat(["North", "South", "East", "West"], n // 4),
            "index_time": pd.NaT,
            "treatment": "",
            "calendar": np.round(rng.uniform(2015, 2020, n), 2),
        }
    )
    outcome = pd.DataFrame({"response": (rng.random(n) < 0.3).astype(float)})
    cohort = Cohort(decisions=decisions, values=values, endpoints=outcome, columns=columns)
    start = time.process_time()
    report = audit(cohort, development=["North", "South"], external=["East", "West"], endpoints=endpoints[:1])
    assert time.process_time() - start < 3.0
    assert not report.of_severity("error") + report.of_severity("warning")
