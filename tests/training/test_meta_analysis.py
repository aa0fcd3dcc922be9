"""Random effects against metafor's published example and statsmodels, REML against a fine grid, and coverage."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from scipy.stats import t

from theracast_training.evaluation import evaluate_binary
from theracast_training.meta_analysis import meta_analysis, random_effects
from theracast_training.study_figures import draw_sites

# Thirteen trials of the BCG vaccine: Colditz et al., JAMA 1994;271:698-702, as `dat.bcg` of metafor: TB positive and
# negative, vaccinated and not.
BCG = np.array(
    [
        (4, 119, 11, 128),
        (6, 300, 29, 274),
        (3, 228, 11, 209),
        (62, 13536, 248, 12619),
        (33, 5036, 47, 5761),
        (180, 1361, 372, 1079),
        (8, 2537, 10, 619),
        (505, 87886, 499, 87892),
        (29, 7470, 45, 7232),
        (17, 1699, 65, 1600),
        (186, 50448, 141, 27197),
        (5, 2493, 3, 2338),
        (27, 16886, 29, 17825),
    ],
    dtype=float,
)


def bcg_effects() -> tuple[np.ndarray, np.ndarray]:
    """Return log relative risks and their variances."""
    a, b, c, d = BCG.T
    return np.log(a / (a + b) / (c / (c + d))), 1 / a - 1 / (a + b) + 1 / c - 1 / (c + d)


def test_gives_the_published_output_of_metafor() -> None:
    # metafor's README: rma(yi, vi, data=dat, test="knha"), to the digits that it prints.
    found = random_effects(*bcg_effects())
    assert round(found["tau2"], 4) == 0.3132
    assert round(found["tau"], 4) == 0.5597
    assert round(100 * found["i2"], 2) == 92.22
    assert round(found["q"], 3) == 152.233
    assert round(found["value"], 4) == -0.7145
    assert round(found["standard_error"], 4) == 0.1808
    assert (round(found["low"], 4), round(found["high"], 4)) == (-1.1084, -0.3206)
    # Its prediction interval there (0.14 to 1.76) has k - 1 degrees of freedom, ours k - 2 as Debray et al. recommend.
    spread = found["prediction_high"] - found["value"]
    theirs = np.exp(found["value"] + np.array([-1, 1]) * spread * t.ppf(0.975, 12) / t.ppf(0.975, 11))
    assert theirs.round(2).tolist() == [0.14, 1.76]


def test_agrees_with_statsmodels() -> None:
    meta = pytest.importorskip("statsmodels.stats.meta_analysis", reason="statsmodels is not installed")
    rng = np.random.default_rng(0)
    compared = 0
    for _ in range(40):
        k = int(rng.integers(3, 15))
        variance = rng.uniform(0.01, 0.3, k)
        estimate = rng.normal(0.4, rng.uniform(0, 0.8), k) + rng.normal(0, np.sqrt(variance))
        ours = random_effects(estimate, variance, method="dl", at_least_normal=False)
        if ours["q"] <= k - 1:  # statsmodels goes on with a negative variance
            assert ours["tau2"] == 0
            continue
        compared += 1
        theirs = meta.combine_effects(estimate, variance, method_re="dl", use_t=True)
        assert ours["q"] == pytest.approx(theirs.q, abs=1e-9)
        assert ours["tau2"] == pytest.approx(theirs.tau2, abs=1e-9)
        assert ours["value"] == pytest.approx(theirs.mean_effect_re, abs=1e-9)
        assert ours["standard_error"] == pytest.approx(theirs.sd_eff_w_re_hksj, abs=1e-9)
        half = t.ppf(0.975, k - 1) * theirs.sd_eff_w_re_hksj
        assert (ours["low"], ours["high"]) == pytest.approx(theirs.mean_effect_re + np.array([-half, half]), abs=1e-9)
    assert compared > 20


def _restricted(y: np.ndarray, v: np.ndarray, tau2: float) -> float:
    """Return minus twice the restricted log-likelihood, written with matrices."""
    V = np.diag(v + tau2)
    X = np.ones((len(y), 1))
    P = np.linalg.inv(V) - np.linalg.inv(V) @ X @ np.linalg.inv(X.T @ np.linalg.inv(V) @ X) @ X.T @ np.linalg.inv(V)
    return float(np.linalg.slogdet(V)[1] + np.linalg.slogdet(X.T @ np.linalg.inv(V) @ X)[1] + y @ P @ y)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 100_000), st.integers(2, 9))
def test_reml_is_the_largest_restricted_likelihood(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    v = rng.uniform(0.005, 0.5, k)
    y = rng.normal(0, rng.uniform(0, 1), k) + rng.normal(0, np.sqrt(v))
    found = random_effects(y, v)["tau2"]
    grid = np.r_[0.0, np.geomspace(1e-4, 20, 120)]
    best = grid[np.argmin([_restricted(y, v, one) for one in grid])]
    fine = minimize_scalar(lambda one: _restricted(y, v, one), bounds=(best / 2, best * 2 + 1e-4), method="bounded")
    assert _restricted(y, v, found) <= min(_restricted(y, v, best), fine.fun) + 1e-6


def test_intervals_hold_the_mean_and_new_sites_as_often_as_they_say() -> None:
    rng = np.random.default_rng(7)
    mean_held, new_held, times = 0, 0, 600
    for _ in range(times):
        variance = rng.uniform(0.01, 0.1, 8)
        found = random_effects(rng.normal(1.0, 0.3, 8) + rng.normal(0, np.sqrt(variance)), variance)
        mean_held += found["low"] <= 1.0 <= found["high"]
        new_held += found["prediction_low"] <= rng.normal(1.0, 0.3) <= found["prediction_high"]
    assert 0.93 <= mean_held / times <= 0.985
    assert 0.88 <= new_held / times <= 0.985  # known to be short with few sites: Partlett & Riley, Stat Med 2017;36:301


def test_sites_are_taken_together_on_the_scale_of_the_metric() -> None:
    rng = np.random.default_rng(3)
    evaluations = {}
    for number, shift in enumerate((0.0, 0.3, -0.4, 0.1, -0.1)):
        truth = rng.normal(-0.5, 1.0, 300)
        evaluations[f"site {number}"] = evaluate_binary(
            (rng.random(300) < expit(truth + shift)).astype(float), expit(truth), bootstrap=200
        )
    result = meta_analysis(evaluations)
    json.dumps(result, allow_nan=False)
    pooled = result["auc"]
    low, high = (np.array([one[f"auc_{end}"] for one in evaluations.values()]) for end in ("low", "high"))
    error = (logit(high) - logit(low)) / (2 * 1.959963984540054)
    found = random_effects(logit([one["auc"] for one in evaluations.values()]), error**2)
    assert pooled["value"] == pytest.approx(expit(found["value"]))
    assert pooled["prediction_low"] == pytest.approx(expit(found["prediction_low"]))
    assert pooled["prediction_low"] <= pooled["low"] < pooled["value"] < pooled["high"] <= pooled["prediction_high"]
    assert sum(one["share"] for one in pooled["sites"]) == pytest.approx(1)
    assert result["calibration_intercept"]["tau2"] > 0
    assert result["observed_expected"]["scale"] == "log"
    axes = draw_sites(pooled, Figure().subplots(), measure="auc")
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    assert labels == [*evaluations, "All sites", "A new site"]


def test_sites_without_a_figure_do_not_count_and_are_told() -> None:
    good = {"auc": 0.7, "auc_low": 0.6, "auc_high": 0.78, "n": 90}
    sites = {
        "A": good,
        "B": {"auc": None, "auc_low": None, "auc_high": None},
        "C": {"auc": 0.8, "auc_low": None, "auc_high": None},
        "D": {"auc": 1.0, "auc_low": 0.9, "auc_high": 1.0},
    }
    alone = meta_analysis(sites, measures=["auc"])["auc"]
    assert alone["value"] is None
    assert alone["k"] == 1
    assert [note.split(":")[0] for note in alone["notes"]] == [
        "B",
        "C",
        "D",
        "1 of 4 sites have an estimate with an interval",
    ]
    two = meta_analysis(sites | {"E": good | {"auc": 0.72}}, measures=["auc"])["auc"]
    assert two["value"] is not None
    assert two["prediction_low"] is None
    assert any("no prediction interval" in note for note in two["notes"])
    draw_sites(two, Figure().subplots(), measure="auc")
    draw_sites(alone, Figure().subplots(), measure="auc")
    with pytest.raises(ValueError, match="no scale is known for 'ici'"):
        meta_analysis(sites, measures=["ici"])
    with pytest.raises(ValueError, match="variance above 0"):
        random_effects([0.1, 0.2], [0.1, 0.0])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 8))
def test_order_and_shift_of_the_estimates_do_not_matter(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    y, v, order = rng.normal(size=k), rng.uniform(0.01, 1, k), rng.permutation(k)
    plain, shuffled, shifted = (random_effects(y, v), random_effects(y[order], v[order]), random_effects(y + 3, v))
    assert shuffled["value"] == pytest.approx(plain["value"], abs=1e-7)
    assert shifted["value"] == pytest.approx(plain["value"] + 3, abs=1e-7)
    assert shifted["tau2"] == pytest.approx(plain["tau2"], abs=1e-6)
