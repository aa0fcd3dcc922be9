"""KELIM: the model against a solver, the estimate against a grid and simulated truth, and which values it uses."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from scipy.integrate import solve_ivp

from theracast_data.events.concepts import Concept
from theracast_data.events.schema import EVENT_SCHEMA
from theracast_features.events.kelim import (
    KelimBuilder,
    KelimPopulation,
    KelimSection,
    fit_kelim,
    marker_course,
    prior,
)

Floats = NDArray[np.float64]
DOSES = np.array([0.0, 21.0, 42.0, 63.0, 84.0])
SPREADS = {"kelim": 0.5, "kprod": 1.0, "beta": 0.3, "rate": 0.3, "a50": 0.3, "start": 1.2}
MEDIANS = {"kelim": 0.06, "kprod": 10.0, "beta": 0.005, "rate": 0.05, "a50": 0.3, "start": 300.0}


def population(residual: float = 0.15, **spreads: float) -> KelimPopulation:
    """Invented parameters, of the size that the model's quantities have."""
    own = {name: {"median": MEDIANS[name], "sd_log": (spreads or SPREADS).get(name, 0.0)} for name in MEDIANS}
    return KelimPopulation.model_validate({"source": "invented for tests", "residual_sd_log": residual, **own})


@pytest.mark.parametrize("parameters", [(0.06, 10.0, 0.005, 0.05, 0.3, 300.0), (0.9, 400.0, 0.03, 0.2, 2.0, 20.0)])
def test_the_model_is_its_differential_equation(parameters: tuple[float, ...]) -> None:
    """Dose by dose with a high-order solver, also where elimination is fast and production outgrows it."""
    days = np.array([0.0, 12.5, 21.0, 42.5, 63.0, 100.0])
    kelim, kprod, beta, rate, a50, start = parameters

    def change(t: float, c: Floats, given: Floats) -> Floats:
        amount = np.exp(-rate * (t - given)).sum()
        return np.asarray(kprod * np.exp(beta * t) / (1 + amount / a50) - kelim * c)

    level = {0.0: start}
    for begin, end in pairwise(np.unique(np.concatenate([days, DOSES]))):
        given = DOSES[begin >= DOSES]
        solved = solve_ivp(change, (begin, end), [level[begin]], method="DOP853", rtol=1e-12, atol=1e-12, args=(given,))
        level[end] = float(solved.y[0, -1])
    assert marker_course(days, DOSES, parameters) == pytest.approx([level[day] for day in days], rel=1e-8)


def test_the_estimate_is_the_best_point_of_a_grid() -> None:
    """The posterior of two parameters on 121 x 121 points over three standard deviations, integrated by trapezoids."""
    own = population(kelim=0.5, kprod=1.0)
    days, values = np.array([0.0, 20.0, 41.0, 65.0]), np.array([300.0, 190.0, 70.0, 64.0])
    scores = np.linspace(-3, 3, 121)
    kelim, kprod = 0.06 * np.exp(0.5 * scores)[:, None], 10.0 * np.exp(scores)[None, :]
    grid = np.linspace(0, 65, 6501)
    amount = sum(np.where(grid >= dose, np.exp(-0.05 * (grid - dose)), 0.0) for dose in DOSES)
    made = np.exp(0.005 * grid) / (1 + amount / 0.3)
    cost = (scores**2)[:, None] + (scores**2)[None, :]
    for day, value in zip(days, values, strict=True):
        until = grid <= day + 1e-9
        left = np.exp(-kelim * (day - grid[until]))  # (121, m)
        produced = np.trapezoid(left * made[until], grid[until], axis=1)[:, None] * kprod
        level = 300.0 * np.exp(-kelim * day) + produced
        cost = cost + (np.log(level / value) / 0.15) ** 2
    best = np.unravel_index(cost.argmin(), cost.shape)
    found = fit_kelim(days, values, DOSES, own)
    assert found.cost <= 0.5 * cost.min() + 1e-4
    assert found.cost == pytest.approx(0.5 * cost.min(), rel=0.02)
    assert np.log(found.kelim / 0.06) / 0.5 == pytest.approx(scores[best[0]], abs=0.05)


def test_simulated_truth_is_recovered() -> None:
    """From five values a patient better than the population's median tells, without bias; from many, closely."""
    rng = np.random.default_rng(0)
    own = population()
    medians, spreads = prior(own)
    days = DOSES
    truth, found = [], []
    for _ in range(150):
        patient = np.exp(medians + spreads * rng.normal(size=6))
        values = marker_course(days, DOSES, patient) * np.exp(0.15 * rng.normal(size=len(days)))
        truth.append(np.log(patient[0]))
        found.append(np.log(fit_kelim(days, values, DOSES, own).kelim))
    error = np.array(found) - np.array(truth)
    assert abs(error.mean()) < 0.08
    assert np.sqrt((error**2).mean()) < 0.7 * float(spreads[0])
    assert np.corrcoef(truth, found)[0, 1] > 0.7
    many = np.linspace(0, 100, 60)
    exact = population(residual=0.005)
    for kelim in (0.03, 0.06, 0.12):
        patient = np.array([kelim, 15.0, 0.006, 0.05, 0.3, 500.0])
        assert fit_kelim(many, marker_course(many, DOSES, patient), DOSES, exact).kelim == pytest.approx(
            kelim, rel=0.05
        )


def test_without_variance_the_patient_is_the_population_and_order_means_nothing() -> None:
    days, values = np.array([0.0, 21.0, 42.0]), np.array([300.0, 100.0, 20.0])
    assert fit_kelim(days, values, DOSES, population(start=0.0)).kelim == pytest.approx(0.06)
    own = population()
    assert fit_kelim(days[::-1], values[::-1], DOSES, own).kelim == pytest.approx(
        fit_kelim(days, values, DOSES, own).kelim, rel=1e-6
    )


INDEX = pd.Timestamp("2024-06-01T12:00")
CONCEPTS = {
    "ca125": Concept(codes=("LOINC//83082-3",), unit="k[arb'U]/L", assume_unit="k[arb'U]/L", label="CA-125"),
    "chemotherapy": Concept(codes=("RxNorm//40048",), modality="treatment"),
}


def _features(values: list[tuple[str, float]], doses: list[str], **options: Any) -> pd.Series:
    rows = [(time, "LOINC//83082-3", value) for time, value in values] + [
        (time, "RxNorm//40048", None) for time in doses
    ]
    columns: dict[str, list[Any]] = {
        "subject_id": ["a"] * len(rows),
        "time": [pd.Timestamp(time).to_pydatetime() for time, _, _ in rows],
        "code": [code for _, code, _ in rows],
        "numeric_value": [value for _, _, value in rows],
    }
    nothing = {name: [None] * len(rows) for name in EVENT_SCHEMA.names if name not in columns}
    events = pa.table(columns | nothing, schema=None).select(EVENT_SCHEMA.names).cast(EVENT_SCHEMA)
    section = KelimSection.model_validate(
        {"concept": "ca125", "chemotherapy": {"concept": "chemotherapy", "pause_days": 60}, "population": population()}
        | options
    )
    decisions = pd.DataFrame({"subject_id": ["a"], "index_time": [INDEX]})
    return KelimBuilder(section, CONCEPTS).build(events, decisions).iloc[0]


CYCLES = ["2024-02-01T10:00", "2024-02-22T10:00", "2024-03-14T10:00"]
VALUES = [("2024-02-01T08:00", 800.0), ("2024-02-22T08:00", 300.0), ("2024-03-14T08:00", 60.0)]


def test_the_values_of_the_first_hundred_days_are_used() -> None:
    """The morning of the first dose belongs to them; day 101, earlier days, zeros and the future do not."""
    found = _features(
        [
            *VALUES,
            ("2024-01-25T08:00", 900.0),
            ("2024-05-12T10:00", 500.0),
            ("2024-03-15T08:00", 0.0),
            ("2024-06-02", 1.0),
        ],
        CYCLES,
    )
    assert found["lab.ca125.kelim_points"] == 3
    days = np.array([0.0, 21 - 2 / 24, 42 - 2 / 24])
    expected = fit_kelim(days, [800.0, 300.0, 60.0], [0.0, 21.0, 42.0], population()).kelim
    assert found["lab.ca125.kelim"] == pytest.approx(expected, rel=1e-9)
    assert expected > 0.06
    assert list(found.index) == ["lab.ca125.kelim", "lab.ca125.kelim_points"]


def test_fewer_than_three_values_are_missing_and_days_before_may_be_let_in() -> None:
    two = VALUES[1:]
    assert np.isnan(_features(two, CYCLES)["lab.ca125.kelim"])
    early = [*two, ("2024-01-20T08:00", 850.0), ("2024-01-25T08:00", 900.0)]
    assert np.isnan(_features(early, CYCLES)["lab.ca125.kelim"])
    let_in = _features(early, CYCLES, days_before=14)
    assert let_in["lab.ca125.kelim_points"] == 3
    days = [0.0, 21 - 2 / 24, 42 - 2 / 24]
    expected = fit_kelim(days, [900.0, 300.0, 60.0], [0.0, 21.0, 42.0], population()).kelim
    assert let_in["lab.ca125.kelim"] == pytest.approx(expected, rel=1e-9)
    assert _features(VALUES, [])["lab.ca125.kelim_points"] == 0


def test_the_last_course_counts_and_the_standardised_scale_is_the_study_s() -> None:
    former = ["2023-01-01T10:00", "2023-01-22T10:00"]
    plain = _features(VALUES, CYCLES)
    found = _features([*VALUES, ("2023-01-10", 99.0)], [*former, *CYCLES], standard=0.05)
    assert found["lab.ca125.kelim"] == plain["lab.ca125.kelim"]
    assert found["lab.ca125.kelim_standardised"] == pytest.approx(plain["lab.ca125.kelim"] / 0.05)
    assert found["lab.ca125.kelim_favourable"] == 1
    slow = [(time, 800.0 - number) for number, (time, _) in enumerate(VALUES)]
    assert _features(slow, CYCLES, standard=0.05)["lab.ca125.kelim_favourable"] == 0
    assert np.isnan(_features(VALUES[:2], CYCLES, standard=0.05)["lab.ca125.kelim_favourable"])
