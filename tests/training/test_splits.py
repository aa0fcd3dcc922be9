"""Folds: every test decision once, no patient on both sides, forward in time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_data.errors import CohortError
from theracast_models.folds import patient_numbers
from theracast_training.resampling import resample_counts
from theracast_training.splits import make_folds


def _decisions(subjects: list[int], *, sites: int = 1, years: np.ndarray | None = None) -> pd.DataFrame:
    n = len(subjects)
    return pd.DataFrame(
        {
            "subject_id": [str(subject) for subject in subjects],
            "site": [f"site{subject % sites}" for subject in subjects],
            "index_time": pd.Series(pd.NaT, index=range(n), dtype="datetime64[us]"),
            "calendar": years if years is not None else np.full(n, np.nan),
        }
    )


@settings(max_examples=40, deadline=None)
@given(
    subjects=st.permutations([*range(60), *range(40), *range(20)]),
    folds=st.integers(2, 5),
    seed=st.integers(0, 1000),
)
def test_no_patient_is_on_both_sides_and_every_decision_is_tested_once(
    subjects: list[int], folds: int, seed: int
) -> None:
    y = np.arange(len(subjects)) % 2.0
    decisions = _decisions(list(subjects))
    splits = make_folds(decisions, y, by="subject", folds=folds, seed=seed)
    tested = np.concatenate([test for _, test in splits])
    assert sorted(tested) == list(range(len(subjects)))
    for train, test in splits:
        assert not set(decisions["subject_id"].iloc[train]) & set(decisions["subject_id"].iloc[test])


def test_folds_are_stratified_and_seeded() -> None:
    y = (np.arange(300) % 10 == 0).astype(float)
    decisions = _decisions(list(range(300)))
    splits = make_folds(decisions, y, by="subject", folds=5, seed=3)
    assert {int(y[test].sum()) for _, test in splits} == {6}
    again = make_folds(decisions, y, by="subject", folds=5, seed=3)
    other = make_folds(decisions, y, by="subject", folds=5, seed=4)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(splits, again, strict=True))
    assert not all(np.array_equal(a[1], b[1]) for a, b in zip(splits, other, strict=True))


def test_site_folds_leave_whole_sites_out() -> None:
    y = np.arange(120) % 2.0
    decisions = _decisions(list(range(120)), sites=3)
    splits = make_folds(decisions, y, by="site", folds=5, seed=0)
    assert len(splits) == 3
    for train, test in splits:
        assert not set(decisions["site"].iloc[train]) & set(decisions["site"].iloc[test])


def test_site_folds_share_out_rare_events() -> None:
    decisions = _decisions(list(range(120)), sites=12)
    y = np.isin(decisions["site"], ["site0", "site3", "site6"]).astype(float)
    assert all(y[test].any() for _, test in make_folds(decisions, y, by="site", folds=3, seed=0))


def test_time_folds_only_look_back() -> None:
    rng = np.random.default_rng(0)
    years = rng.uniform(2015, 2020, 200)
    y = rng.integers(0, 2, 200).astype(float)
    splits = make_folds(_decisions(list(range(200)), years=years), y, by="time", folds=4, seed=0)
    assert len(splits) == 4
    for train, test in splits:
        assert years[train].max() < years[test].min()


def test_time_folds_keep_one_year_together() -> None:
    years = np.repeat([2015.0, 2016.0, 2017.0], 40)
    y = np.arange(120) % 2.0
    for train, test in make_folds(_decisions(list(range(120)), years=years), y, by="time", folds=4, seed=0):
        assert not set(years[train]) & set(years[test])


@pytest.mark.parametrize(
    ("by", "mend"),
    [("site", "Use by: subject"), ("time", "`index_time` or `calendar`")],
)
def test_impossible_splits_say_how_to_mend_the_study(by: str, mend: str) -> None:
    with pytest.raises(CohortError, match=mend):
        make_folds(_decisions(list(range(50))), np.arange(50) % 2.0, by=by, folds=3, seed=0)  # type: ignore[arg-type]


def test_too_few_events_for_the_folds() -> None:
    y = np.zeros(50)
    y[:3] = 1
    with pytest.raises(CohortError, match="there are 3"):
        make_folds(_decisions(list(range(50))), y, by="subject", folds=5, seed=0)


@pytest.mark.parametrize("by", ["subject", "site", "time"])
def test_a_patient_who_moved_is_one_patient_where_events_know_him_by_his_id(by: str) -> None:
    """Several decisions a patient, as with landmarks, some of them at another hospital."""
    rng = np.random.default_rng(0)
    subjects = np.repeat(np.arange(80), 3)
    decisions = _decisions(subjects.tolist(), years=2000 + rng.random(240) * 10)
    decisions["site"] = rng.choice(["A", "B", "C"], 240, p=[0.6, 0.2, 0.2])
    decisions["event_key"] = decisions["subject_id"]
    for train, test in make_folds(decisions, rng.integers(0, 2, 240).astype(float), by=by, folds=3, seed=1):  # type: ignore[arg-type]
        assert not set(subjects[train]) & set(subjects[test])


def test_resampling_draws_a_patient_with_all_decisions() -> None:
    decisions = _decisions([0, 0, 0, 1, 1, 2])
    decisions["site"] = ["A", "B", "A", "A", "A", "B"]
    decisions["event_key"] = decisions["subject_id"]
    for counts in resample_counts(6, resamples=50, seed=1, group=patient_numbers(decisions)):
        assert (counts[:, [0, 0, 3]] == counts[:, [1, 2, 4]]).all()
