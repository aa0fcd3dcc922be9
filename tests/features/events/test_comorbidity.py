"""The Charlson index against its publications and by hand."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_data.errors import StudyError
from theracast_features.events.comorbidity import (
    CHARLSON_CODES,
    CHARLSON_WEIGHTS,
    charlson,
    charlson_diseases,
)

INDEX = pd.Timestamp("2024-06-01")
CODES = [
    "ICD10CM//I21.4",
    "ICD-10//E11.9",
    "ICD10//E112",
    "ICD10//C34.1",
    "ICD10//C78.0",
    "ICD10//K70.3",
    "LOINC//718-7",
]


def _events(*rows: tuple[str, str, str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["subject_id", "time", "code"])
    return frame.assign(time=pd.to_datetime(frame["time"]))


def _decisions(*subjects: str) -> pd.DataFrame:
    return pd.DataFrame({"subject_id": list(subjects), "index_time": INDEX})


# Quan 2011 states that the updated index runs from 0 to 24; the original from 0 to 29 with its rules of severity.
@pytest.mark.parametrize(("weights", "largest"), [("1987", 29), ("2011", 24)])
def test_largest_score_is_the_published_one(weights: str, largest: int) -> None:
    """Every disease at once, the graver form in place of the milder."""
    milder = {"mild_liver", "diabetes", "cancer"}
    assert sum(points for name, points in CHARLSON_WEIGHTS[weights].items() if name not in milder) == largest
    everything = _events(*[("a", "2020-01-01", f"ICD10//{prefixes[0]}") for prefixes in CHARLSON_CODES.values()])
    assert charlson(everything, _decisions("a"), weights=weights)["score"].tolist() == [largest]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "diseases"),
    [
        ("ICD10CM//I21.4", ("myocardial_infarction",)),
        ("ICD-10//i252", ("myocardial_infarction",)),
        ("DIAGNOSIS//ICD10CM//E11.65", ("diabetes",)),
        ("ICD10//E11.2", ("diabetes_complicated",)),
        ("ICD10//C44.9", ()),  # skin cancer other than melanoma does not count
        ("ICD10//C80", ("metastatic",)),
        ("ICD10//I25.1", ()),
        ("ICD10PCS//I21", ()),
        ("ICD9CM//410", ()),
        ("SNOMED//22298006", ()),
    ],
)
def test_codes(code: str, diseases: tuple[str, ...]) -> None:
    """Points, case and the system's spelling do not matter; other systems give nothing."""
    assert charlson_diseases(code) == diseases


def test_by_hand() -> None:
    """Infarct 1, complicated diabetes 2 (not 1 more for the plain one), metastasis 6 (not 2 more for the cancer)."""
    events = _events(*[("a", "2023-01-01", code) for code in CODES[:5]], ("a", "2024-06-02", "ICD10//B20"))
    found = charlson(events, _decisions("a", "b"))
    assert found["score"].tolist()[0] == 9
    assert found["aids"].tolist()[0] == 0
    assert found.iloc[1].isna().all()  # no diagnosis seen is not health
    assert charlson(events, _decisions("a"), exclude=("cancer", "metastatic"))["score"].tolist() == [3]
    assert charlson(events, _decisions("a"), lookback_days=365)["score"].isna().all()
    with pytest.raises(StudyError, match="did you mean 'metastatic'"):
        charlson(events, _decisions("a"), exclude=("metastasis",))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(-400, 400), st.sampled_from(CODES)), max_size=12))
def test_the_future_and_the_order_change_nothing(rows: list[tuple[str, int, str]]) -> None:
    """Only rows up to the index count, in any order; a loop over the code lists gives the same score."""
    frame = pd.DataFrame(rows, columns=["subject_id", "day", "code"])
    frame = frame.assign(time=INDEX + pd.to_timedelta(frame["day"], unit="D")).astype({"time": "datetime64[us]"})
    past = frame[frame["day"] <= 0]
    found = charlson(frame, _decisions("a", "b"))
    pd.testing.assert_frame_equal(found, charlson(past[::-1], _decisions("a", "b")))
    for place, subject in enumerate("ab"):
        mine = {
            disease
            for _, row in past[past["subject_id"] == subject].iterrows()
            for disease in charlson_diseases(row["code"])
        }
        if "diabetes_complicated" in mine:
            mine.discard("diabetes")
        if "metastatic" in mine:
            mine.discard("cancer")
        if mine:
            assert found["score"].iloc[place] == sum(CHARLSON_WEIGHTS["1987"][name] for name in mine)
