"""Growth rate, regression-growth model and course against worked values, known truth and the five trials."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from theracast_data.errors import SchemaError
from theracast_features.events import growth

INDEX = pd.Timestamp("2024-06-01")


def _sums(*rows: tuple[float, float], subject: str = "a") -> pd.DataFrame:
    days = pd.to_timedelta([row[0] for row in rows], unit="D")
    return pd.DataFrame({"subject_id": subject, "time": INDEX + days, "value": [row[1] for row in rows]})


def _decision(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"subject_id": ["a"], "index_time": [INDEX], **columns}, index=["d"])


def test_growth_rate_worked() -> None:
    """100 to 120 mm in two months: 1.2^(3/2) - 1 = 31.45 % a month. Twice the volume in one month is 100 %."""
    month = 365.25 / 12
    assert float(growth.tumour_growth_rate(100, 120, 2 * month)) == pytest.approx(100 * (1.2**1.5 - 1))
    assert float(growth.tumour_growth_rate(100, 120, 2 * month)) == pytest.approx(31.45, abs=0.005)
    assert float(growth.tumour_growth_rate(10, 10 * 2 ** (1 / 3), month)) == pytest.approx(100.0)
    assert np.isnan(growth.tumour_growth_rate([0, 10, 10, np.nan], [10, 0, 12, 10], [30, 30, 0, 30])).all()


@given(st.floats(1, 500), st.floats(1, 500), st.floats(1, 1000), st.floats(0.01, 100))
def test_growth_rate_knows_no_unit_of_length_and_compounds(
    first: float, later: float, days: float, scale: float
) -> None:
    """Millimetres or inches give one rate; so do the same growth over twice the time, squared."""
    rate = float(growth.tumour_growth_rate(first, later, days))
    assert float(growth.tumour_growth_rate(scale * first, scale * later, days)) == pytest.approx(
        rate, rel=1e-6, abs=1e-9
    )
    twice = float(growth.tumour_growth_rate(first, later * later / first, 2 * days))
    assert twice == pytest.approx(rate, rel=1e-6, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.floats(2e-4, 8e-3), st.floats(1e-3, 3e-2))
def test_regression_growth_recovers_known_rates(rate: float, decay: float) -> None:
    """Nine measurements every six weeks without noise give both rates back."""
    days = 42.0 * np.arange(1, 10)
    size = np.exp(-decay * days) + np.exp(rate * days) - 1
    found = growth.fit_regression_growth(days, size)
    assert (found.growth, found.decay) == (pytest.approx(rate, rel=1e-3), pytest.approx(decay, rel=1e-3))
    assert found.rmse < 1e-5
    np.testing.assert_allclose(growth.regression_growth(days, growth=rate, decay=decay), size)


def test_regression_growth_ends_at_the_simpler_models() -> None:
    """Pure decay has g = 0, pure growth d = 0; one measurement is too few; extremes give finite rates."""
    days = 42.0 * np.arange(1, 8)
    shrinking = growth.fit_regression_growth(days, np.exp(-0.01 * days))
    assert (shrinking.growth, shrinking.decay) == (0.0, pytest.approx(0.01, rel=1e-3))
    growing = growth.fit_regression_growth(days, np.exp(0.004 * days))
    assert (growing.growth, growing.decay) == (pytest.approx(0.004, rel=1e-3), 0.0)
    assert np.isnan(growth.fit_regression_growth([42], [0.5]).growth)
    extreme = growth.fit_regression_growth([1, 5000], [20.0, 0.0])
    assert np.isfinite([extreme.growth, extreme.decay, extreme.rmse]).all()


@pytest.mark.parametrize("seed", range(60))
def test_regression_growth_is_no_worse_than_a_grid_or_a_general_solver(seed: int) -> None:
    """On courses of the model with 15 % noise, where several minima are possible: a grid of rates, and SciPy from its best."""
    draw = np.random.default_rng(seed)
    days = np.sort(draw.choice(np.arange(20, 900, 20), draw.integers(2, 12), replace=False)).astype(float)
    truth = {"growth": 10 ** draw.uniform(-4, -2.2), "decay": 10 ** draw.uniform(-4, -1.5)}
    size = growth.regression_growth(days, **truth) * np.exp(draw.normal(0, 0.15, len(days)))
    found = growth.fit_regression_growth(days, size)

    def residuals(rates: np.ndarray) -> np.ndarray:
        return growth.regression_growth(days, growth=rates[0], decay=rates[1]) - size

    rates = [(g, d) for g in (0.0, *np.geomspace(1e-5, 0.05, 20)) for d in (0.0, *np.geomspace(1e-5, 0.19, 20))]
    start = min(rates, key=lambda pair: float((residuals(np.array(pair)) ** 2).sum()))
    inside = np.clip(start, 1e-7, 0.19)
    best = least_squares(residuals, inside, bounds=(0, (50 / days.max(), growth.MAX_RATE)), x_scale=(1e-3, 1e-2))
    assert found.rmse <= np.sqrt(2 * best.cost / len(days)) + 1e-4
    assert np.sqrt(np.mean(residuals(np.array([found.growth, found.decay])) ** 2)) == pytest.approx(
        found.rmse, abs=1e-5
    )


def test_course_by_the_thresholds_of_recist() -> None:
    """Nadir 60 at day 84; 72 is +20 % and +12 mm: progression; 12 from 10 mm is +20 % but only 2 mm: none."""
    found = growth.course([0, 42, 84, 126], [100, 70, 60, 72])
    assert (found.nadir_mm, found.progressed, found.days_to_progression) == (60.0, 1.0, 126.0)
    assert (found.change_percent, found.best_change_percent) == (pytest.approx(-28), pytest.approx(-40))
    assert found.from_nadir_percent == pytest.approx(20)
    assert growth.course([0, 42], [10, 12]).progressed == 0.0
    assert growth.course([0, 42], [100, 119.9]).progressed == 0.0
    assert growth.course([0, 42, 84], [30, 0, 6]).days_to_progression == 84.0
    assert growth.course([0, 42, 84], [30, 0, 0]).from_nadir_percent == 0.0
    assert np.isnan(growth.course([0, 42, 84], [30, 0, 6]).from_nadir_percent)
    assert np.isnan(growth.course([0], [30]).progressed)
    assert growth.course([], []).points == 0


def _slow_progression(sums: list[float]) -> int | None:
    """The first place that is 20 % and 5 mm above the smallest before it, by a plain loop."""
    for place in range(1, len(sums)):
        low = min(sums[:place])
        if sums[place] - low >= 5 and 100 * sums[place] >= 120 * low:
            return place
    return None


@given(st.lists(st.integers(0, 120), min_size=2, max_size=10))
def test_course_equals_a_loop(sums: list[float]) -> None:
    """Progression, nadir and best change."""
    found = growth.course(np.arange(len(sums)), sums)
    place = _slow_progression(sums)
    assert found.days_to_progression == pytest.approx(np.nan if place is None else place, nan_ok=True)
    assert found.nadir_mm == min(sums)
    if sums[0] > 0:
        assert found.best_change_percent == pytest.approx(100 * (min(sums[1:]) / sums[0] - 1))


def test_features_from_the_start_of_treatment() -> None:
    """Baseline is the last sum before treatment; the growth rate is that of the last interval."""
    sums = _sums((-200, 20.0), (-110, 40.0), (-60, 30.0), (-1, 27.0), (1, 99.0))
    start = pd.to_datetime([INDEX - pd.Timedelta(days=100)])
    found = growth.growth_features(sums, _decision(start=start), since="start").loc["d"]
    assert (found["points"], found["baseline_mm"], found["last_mm"]) == (3, 40.0, 27.0)
    assert found["change_percent"] == pytest.approx(-32.5)
    assert found["tgr_percent_per_month"] == pytest.approx(float(growth.tumour_growth_rate(30, 27, 59)))
    assert found["decay_per_day"] > 0
    plain = growth.growth_features(sums, _decision(), fit=False).loc["d"]
    assert (plain["points"], plain["baseline_mm"], np.isnan(plain["decay_per_day"])) == (4, 20.0, True)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-300, 0), st.floats(1, 200)), max_size=6),
    st.lists(st.tuples(st.integers(1, 300), st.floats(1, 200)), max_size=4),
)
def test_the_future_and_the_order_change_nothing(
    past: list[tuple[float, float]], future: list[tuple[float, float]]
) -> None:
    """Rows after the index and permutations; the model's fit included."""
    alone = growth.growth_features(_sums(*past), _decision())
    more = pd.concat([_sums(*future), _sums(*past)[::-1], _sums(*past, subject="b")])
    pd.testing.assert_frame_equal(growth.growth_features(more, _decision()), alone, rtol=1e-9)


def test_reader_says_what_it_did_not_understand(tmp_path: Path) -> None:
    """Each reason with its count and the first line; TOO SMALL counts 5 mm; two studies' patients stay apart."""
    file = tmp_path / "diameters.csv"
    file.write_text(
        "Patient_Anonmyized,Treatment_Day,TargetLesionLongDiam_mm,study\n"
        "1,-2.0,33,S1\n1,40.0,TOO SMALL TO MEASURE,S1\n1,80.0,NOT EVALUABLE,S1\n1,,20,S1\n1,120.0,,S1\n"
        "1,160.0,-3,S1\n1,200.0,10,S1\n1,200.0,10,S1\n1,240.0,10,S1\n1,240.0,20,S1\n1,-2.0,50,S2\n"
    )
    tidy, report = growth.read_diameters(file)
    assert tidy["subject_id"].tolist() == ["S1//1"] * 4 + ["S2//1"]
    assert tidy["value"].tolist() == [33, 5, 10, 15, 50]
    assert tidy["too_small"].tolist() == [False, True, False, False, False]
    assert {reason: count for (_, reason), count in report.refused.items()} == {
        "not evaluable": 1,
        "no day, or one that is not a number": 1,
        "no diameter": 1,
        "not a diameter": 1,
        "said twice": 1,
        "two values on one day, mean taken": 1,
    }
    assert (report.read, report.written) == (11, 5)
    assert report.first["TargetLesionLongDiam_mm", "not evaluable"] == "diameters.csv line 4"
    with pytest.raises(SchemaError, match="column study is missing"):
        growth.read_diameters(_without_study(tmp_path))


def _without_study(folder: Path) -> Path:
    file = folder / "without.csv"
    file.write_text("Patient_Anonmyized,Treatment_Day,TargetLesionLongDiam_mm\n1,-2.0,33\n")
    return file


def test_five_trials(shared_cohorts: Path) -> None:
    """All 8,560 rows are accounted for, 1,472 patients; the course of a sample is that of the plain loop."""
    tidy, report = growth.read_diameters(shared_cohorts / "oak" / "lesion_diameters_five_trials.csv")
    refused = {reason: count for (_, reason), count in report.refused.items()}
    assert report.read == 8560
    assert report.written == report.read - report.refused.total()
    assert (refused["not evaluable"], refused["no diameter"]) == (62, 7)
    assert tidy["too_small"].sum() == 54
    sample = tidy["subject_id"].drop_duplicates()[::15]
    part = tidy[tidy["subject_id"].isin(sample)]
    origin = pd.Timestamp("2020-01-01")
    decisions = pd.DataFrame({"subject_id": sample, "index_time": origin + pd.Timedelta(days=180), "start": origin})
    found = growth.growth_features(growth.diameter_events(part, origin=origin), decisions, since="start")
    for row, subject in zip(found.itertuples(), sample, strict=True):
        mine = part[(part["subject_id"] == subject) & (part["day"] <= 180)]
        first = max(int((mine["day"] <= 0).sum()) - 1, 0)
        sums, days = mine["value"].tolist()[first:], mine["day"].tolist()[first:]
        place = _slow_progression(sums)
        expected = np.nan if place is None else days[place] - days[0]
        assert row.days_to_progression == pytest.approx(expected, nan_ok=True)
        assert row.points == len(sums)
    fitted = found.dropna(subset=["growth_per_day"])
    assert len(fitted) > 40
    assert (fitted[["growth_per_day", "decay_per_day"]] >= 0).all(axis=None)
