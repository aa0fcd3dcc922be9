"""Figures of time to event, ordered and continuous outcomes: what is drawn is what was computed and given."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from theracast_training import figures, outcome_figures, survival_figures
from theracast_training import survival_metrics as measures
from theracast_training.continuous_evaluation import evaluate_continuous
from theracast_training.observed import aalen_johansen, kaplan_meier
from theracast_training.ordinal_evaluation import evaluate_ordinal
from theracast_training.survival_curves import risk_group_of, survival_curves, time_axis

Floats = NDArray[np.float64]
HORIZONS = (180.0, 365.0)
GRID = np.arange(30.0, 600.0, 30.0)


def _cohort(n: int, seed: int = 0, *, competing: bool = False) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    risk = rng.normal(size=n)
    came, lost = rng.exponential(600 * np.exp(-risk)), rng.uniform(60, 1200, n)
    other = rng.exponential(500, n) if competing else np.full(n, np.inf)
    time = np.minimum(np.minimum(came, other), lost)

    def probability(when: Any) -> Floats:
        return 1 - np.exp(-np.outer(np.exp(risk), np.asarray(when)) / 600)

    return {
        "time": np.ceil(time),
        "event": np.where(time == lost, 0, np.where(came < other, 1, 2)),
        "risk": risk,
        "horizons": HORIZONS,
        "probability": probability(HORIZONS),
        "survival_grid": (GRID, probability(GRID)),
    }


@pytest.fixture(scope="module", params=[False, True], ids=["one event", "competing"])
def drawn(request: pytest.FixtureRequest) -> tuple[dict[str, Any], dict[str, Any]]:
    one = _cohort(240, seed=2, competing=request.param)
    return one, survival_curves(**one, bootstrap=60, seed=1)


@pytest.fixture
def ax() -> Axes:
    return Figure().subplots()


def test_curves_are_plain_json_and_those_of_each_third(drawn: tuple[dict[str, Any], dict[str, Any]]) -> None:
    one, found = drawn
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    place = risk_group_of(one["risk"], groups=3, cuts=None)
    competing = (one["event"] == 2).any()
    assert [curve["n"] for curve in found["risk_groups"]] == [80, 80, 80]
    for group, curve in enumerate(found["risk_groups"]):
        time, event = one["time"][place == group], one["event"][place == group]
        expected = aalen_johansen(time, event) if competing else kaplan_meier(time, event)
        assert curve["value"] == pytest.approx(expected.at(curve["time"]), abs=1e-5)
        counts = [int((time >= day).sum()) for day in found["at_risk"]["time"]]
        assert found["at_risk"]["counts"][group] == counts


def test_auc_over_time_is_the_metric_on_each_day_within_its_band(
    drawn: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    one, found = drawn
    followed = measures.Followed.over(one["time"], one["event"])
    ones = np.ones((1, len(one["time"])))
    seen = measures.seen_each(followed, ones)
    for day, value in zip(found["auc"]["time"], found["auc"]["auc"], strict=True):
        p = one["survival_grid"][1][followed.order, list(GRID).index(day)]
        expected = measures.horizon_auc_each(followed, p, ones, seen, horizon=day)[0]
        assert value == pytest.approx(expected, abs=1e-5)
    for low, value, high in zip(found["auc"]["low"], found["auc"]["auc"], found["auc"]["high"], strict=True):
        assert low <= value <= high


def test_smooth_line_lies_within_its_band_and_near_the_line_of_a_true_model() -> None:
    found = survival_curves(**_cohort(3000, seed=3), bootstrap=30)
    for curve in found["calibration"]:
        line = curve["smooth"]
        assert np.abs(np.subtract(line["observed"], line["p"])).max() < 0.06
        assert (np.asarray(line["low"]) <= line["observed"]).all()
        assert (np.asarray(line["high"]) >= line["observed"]).all()
        assert sum(curve["histogram"]["events"]) + sum(curve["histogram"]["others"]) == 3000


def test_mean_predicted_incidence_stands_beside_the_observed() -> None:
    one = _cohort(200, seed=4, competing=True)
    found = survival_curves(**one, bootstrap=0)["incidence"]
    within = HORIZONS[-1] >= GRID
    assert found["predicted"]["time"] == GRID[within].tolist()
    assert found["predicted"]["value"] == pytest.approx(one["survival_grid"][1][:, within].mean(axis=0), abs=1e-5)
    expected = aalen_johansen(one["time"], one["event"]).at(found["observed"]["time"])
    assert found["observed"]["value"] == pytest.approx(expected, abs=1e-5)


def test_cuts_of_other_decisions_part_the_risks() -> None:
    assert risk_group_of(np.array([0.1, 0.5, 0.9, 0.5]), groups=3, cuts=[0.5, 2.0]).tolist() == [0, 1, 1, 1]
    found = survival_curves(**_cohort(60), cuts=[-9.0, 0.0], bootstrap=0)
    assert [curve["n"] > 0 for curve in found["risk_groups"]] == [False, True, True]
    survival_figures.risk_group_curves(found, Figure().subplots())


@pytest.mark.parametrize(("end", "unit", "ticks"), [(730, "Months", 8), (100, "Days", 8), (4000, "Months", 6)])
def test_ticks_are_few_and_round(end: float, unit: str, ticks: int) -> None:
    axis = time_axis(end)
    assert axis["unit"] == unit
    assert len(axis["ticks"]) <= ticks + 1
    shown = np.asarray(axis["ticks"]) / axis["days_per_unit"]
    assert shown == pytest.approx(np.round(shown))
    assert axis["ticks"][-1] <= end


def test_risk_groups_are_drawn_over_the_numbers_at_risk(drawn: tuple[dict[str, Any], dict[str, Any]]) -> None:
    _, found = drawn
    above, below = Figure().subplots(2, 1)
    assert survival_figures.risk_group_curves(found, above, table=below, event="progression") is above
    assert "rogression" in above.get_ylabel()
    lines = [line for line in above.lines if "risk (n=80)" in str(line.get_label())]
    assert len(lines) == len({line.get_color() for line in lines}) == 3
    for line, curve in zip(lines, found["risk_groups"], strict=True):
        assert np.asarray(line.get_xdata()) == pytest.approx(np.asarray(curve["time"]) / found["axis"]["days_per_unit"])
        assert np.asarray(line.get_ydata(), dtype=float) == pytest.approx(
            np.array(curve["value"], dtype=float), nan_ok=True
        )
    written = [text.get_text() for text in below.texts]
    assert written == [str(count) for counts in found["at_risk"]["counts"] for count in counts]
    assert below.get_xlim() == above.get_xlim()


def test_other_figures_draw_what_was_given(drawn: tuple[dict[str, Any], dict[str, Any]]) -> None:
    _, found = drawn
    upper, lower = Figure().subplots(2, 1)
    curve = found["calibration"][1]
    survival_figures.calibration_at_horizon(curve, upper, colour="#123456", title="12 months", counts=lower)
    assert sum(line.get_marker() == "o" for line in upper.lines) == len(curve["groups"])
    axes = Figure().subplots(1, 2)
    survival_figures.auc_over_time(found, axes[0], colour="#123456")
    assert list(axes[0].lines[-1].get_ydata()) == found["auc"]["auc"]
    survival_figures.observed_and_predicted_incidence(found, axes[1], colour="#123456")
    assert {str(line.get_label()) for line in axes[1].lines} == {"observed", "mean predicted"}


@pytest.mark.parametrize("n", [1, 4, 25])
def test_few_decisions_still_draw(n: int, ax: Axes) -> None:
    for event in (0, 1, 2):
        one = _cohort(n, seed=5)
        found = survival_curves(**one | {"event": np.full(n, event)}, bootstrap=10)
        svg = figures.svg(
            lambda figure, found=found: _draw_all(found, figure),  # type: ignore[misc]
            width=6,
            height=4,
            title="few",
        )
        assert svg.startswith("<svg")
    assert survival_curves(**_cohort(0), bootstrap=10)["risk_groups"] is None


def _draw_all(found: dict[str, Any], figure: Figure) -> None:
    axes = figure.subplots(2, 3)
    survival_figures.risk_group_curves(found, axes[0, 0], table=axes[1, 0])
    survival_figures.calibration_at_horizon(
        found["calibration"][0], axes[0, 1], colour="#123456", title="", counts=axes[1, 1]
    )
    survival_figures.auc_over_time(found, axes[0, 2], colour="#123456")
    survival_figures.observed_and_predicted_incidence(found, axes[1, 2], colour="#123456")


def test_levels_are_drawn_with_their_counts(ax: Axes) -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 90)
    level = np.array([rng.choice(3, p=row) for row in p])
    found = evaluate_ordinal(level, p, bootstrap=0)
    outcome_figures.confusion(found, ax, labels=["PD", "SD", "PR"])
    assert [int(text.get_text()) for text in ax.texts] == np.asarray(found["confusion"]).ravel().tolist()
    other = Figure().subplots()
    outcome_figures.level_calibration(found, other, labels=["PD", "SD", "PR"], colour="#123456")
    expected = [line.get_ydata()[0] for line in other.lines if line.get_marker() == "D" and len(line.get_ydata())]
    assert expected == [row["predicted"] for row in found["levels"]]


def test_observed_and_estimates_are_drawn_with_the_line_of_calibration(ax: Axes) -> None:
    rng = np.random.default_rng(1)
    estimate = rng.normal(50, 10, 80)
    y = 0.7 * estimate + rng.normal(0, 5, 80)
    y[3] = np.nan
    found = evaluate_continuous(y, estimate, bootstrap=0)
    outcome_figures.observed_against_estimate(y, estimate, found, ax, colour="#123456", unit="mm")
    dots = [len(one.get_offsets()) for one in ax.collections if isinstance(one, PathCollection)]
    assert dots == [79]
    line = ax.lines[1]
    rise = np.diff(np.asarray(line.get_ydata())) / np.diff(np.asarray(line.get_xdata()))
    assert rise[0] == pytest.approx(found["calibration_slope"])
    assert "mm" in ax.get_xlabel()
