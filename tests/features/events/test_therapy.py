"""Lines of therapy by hand, and what must hold of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from theracast_features.events.therapy import TherapySection, therapy_features, therapy_lines

INDEX = pd.Timestamp("2024-06-01")
SECTION = TherapySection(
    drugs={
        "cisplatin": ("ATC//L01XA01",),
        "carboplatin": ("ATC//L01XA02",),
        "pemetrexed": ("ATC//L01BA04",),
        "nivolumab": ("ATC//L01FF01", "RxNorm//159787*"),
    },
    classes={"platinum": ("cisplatin", "carboplatin"), "checkpoint_inhibitor": ("nivolumab",)},
    substitutes=(("cisplatin", "carboplatin"),),
    responses={
        "CR": ("RECIST//CR",),
        "PR": ("LOINC//88040-1=PR",),
        "SD": ("LOINC//88040-1=SD",),
        "PD": ("RECIST//PD",),
    },
)
CIS, CARBO, PEM, NIVO = "ATC//L01XA01", "ATC//L01XA02", "ATC//L01BA04", "RxNorm//1597876"


def _events(*rows: tuple[int, str] | tuple[int, str, str], subject: str = "a") -> pd.DataFrame:
    return pd.DataFrame(
        {
            "subject_id": subject,
            "time": INDEX + pd.to_timedelta([row[0] for row in rows], unit="D"),
            "code": pd.Series([row[1] for row in rows], dtype="str"),
            "text_value": pd.Series([row[2] if len(row) > 2 else None for row in rows], dtype="str"),
        }
    )


def _decision(index_time: pd.Timestamp = INDEX) -> pd.DataFrame:
    return pd.DataFrame({"subject_id": ["a"], "index_time": [index_time]}, index=["d"])


# Days relative to the index; lines as the rules say, worked by hand.
@pytest.mark.parametrize(
    ("doses", "lines"),
    [
        ([(-300, CIS), (-300, PEM), (-279, CIS), (-279, PEM)], ["cisplatin+pemetrexed"]),
        ([(-300, CIS), (-272, PEM)], ["cisplatin+pemetrexed"]),  # 28 days: still the combination
        ([(-300, CIS), (-271, PEM)], ["cisplatin", "pemetrexed"]),  # 29 days: a new line
        ([(-300, CIS), (-300, PEM), (-200, PEM)], ["cisplatin+pemetrexed"]),  # maintenance with fewer drugs
        ([(-300, CIS), (-240, CARBO)], ["carboplatin+cisplatin"]),  # a substitute
        ([(-300, CIS), (-180, CIS)], ["cisplatin"]),  # a pause of 120 days
        ([(-300, CIS), (-179, CIS)], ["cisplatin", "cisplatin"]),  # of 121 days
        ([(-300, CIS), (-200, NIVO), (-190, PEM)], ["cisplatin", "nivolumab+pemetrexed"]),
        ([(-300, "ATC//A04AA01")], []),  # a drug against nausea is no therapy
    ],
)
def test_lines(doses: list[tuple[int, str]], lines: list[str]) -> None:
    """The drugs of each line."""
    found = therapy_lines(_events(*doses), SECTION)
    assert found["drugs"].tolist() == lines
    assert found["line"].tolist() == list(range(1, len(lines) + 1))


def test_history_of_a_decision() -> None:
    """Two lines before; the dose at the index is the decision; response by line, the best of each."""
    events = _events(
        (-400, CIS),
        (-400, PEM),
        (-358, CIS),
        (-350, "RECIST//PD"),
        (-340, "LOINC//88040-1", "PR"),
        (-100, NIVO),
        (-100, "RECIST//CR"),  # on the day the second line begins: still of the first
        (-60, "LOINC//88040-1", "SD"),
        (-30, "RECIST//PD"),
        (-20, NIVO),
        (0, PEM),
        (0, "RECIST//CR"),
        (10, "RECIST//CR"),
    )
    found = therapy_features(events, _decision(), SECTION).loc["d"].to_dict()
    assert found == pytest.approx(
        {
            "prior_lines": 2,
            "prior_drugs": 3,
            "days_since_last": 20,
            "days_since_first": 400,
            "last_line_days": 80,
            "platinum.before": 1,
            "platinum.last_line": 0,
            "checkpoint_inhibitor.before": 1,
            "checkpoint_inhibitor.last_line": 1,
            "best_response": 4,
            "best_response.last_line": 2,
        }
    )


def test_a_patient_never_treated() -> None:
    """No line and no class; what needs a line is missing."""
    found = therapy_features(_events((5, CIS)), _decision(), SECTION).loc["d"]
    assert (found["prior_lines"], found["prior_drugs"], found["platinum.before"]) == (0, 0, 0)
    assert found[["days_since_last", "last_line_days", "platinum.last_line", "best_response"]].isna().all()


def test_the_section_refuses_what_it_does_not_know() -> None:
    """A class of an unknown drug, and a code without a system."""
    with pytest.raises(ValidationError, match="olaparib in `classes`"):
        TherapySection(drugs={"cisplatin": (CIS,)}, classes={"parp": ("olaparib",)})
    with pytest.raises(ValidationError, match="SYSTEM//CODE"):
        TherapySection(drugs={"cisplatin": ("L01XA01",)})


def _slow_lines(doses: list[tuple[int, str]]) -> list[tuple[int, int, set[str]]]:
    """Start, end and drugs of each line by the rules read aloud."""
    lines: list[tuple[int, int, set[str]]] = []
    platinum = {"cisplatin", "carboplatin"}
    for day, drug in sorted(doses):
        if lines:
            start, end, drugs = lines[-1]
            old_drug = drug in drugs or (drug in platinum and bool(drugs & platinum))
            if day - end <= 120 and (old_drug or day - start <= 28):
                lines[-1] = (start, day, drugs | {drug})
                continue
        lines.append((day, day, {drug}))
    return lines


NAMES = {CIS: "cisplatin", CARBO: "carboplatin", PEM: "pemetrexed", NIVO: "nivolumab"}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(-500, 60), st.sampled_from(list(NAMES))), max_size=14), st.integers(0, 3))
def test_lines_equal_the_loop_and_the_future_changes_nothing(doses: list[tuple[int, str]], seed: int) -> None:
    """As of the decision: rows from the index on, unknown ones, other patients and the order play no part."""
    past = [dose for dose in doses if dose[0] < 0]
    expected = _slow_lines([(day, NAMES[code]) for day, code in past])
    events = pd.concat([_events(*doses), _events(*doses, subject="b")]).assign(available_time=pd.NaT)
    late = _events((-1, NIVO)).assign(available_time=INDEX + pd.Timedelta(hours=1))
    everything = pd.concat([events, late]).sample(frac=1, random_state=np.random.RandomState(seed))
    found = therapy_features(everything, _decision(), SECTION).loc["d"]
    assert found["prior_lines"] == len(expected)
    if expected:
        start, end, drugs = expected[-1]
        assert found["days_since_last"] == -end
        assert found["last_line_days"] == end - start
        assert found["checkpoint_inhibitor.last_line"] == ("nivolumab" in drugs)
    alone = therapy_features(_events(*past), _decision(), SECTION)
    pd.testing.assert_frame_equal(therapy_features(everything, _decision(), SECTION), alone)
