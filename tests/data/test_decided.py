"""Decisions that follow from events: the same cohort from a store as from the rows' own events, and never from the future."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from theracast_data.cohort import Cohort
from theracast_data.endpoints import Endpoint, endpoint_from_json
from theracast_data.errors import CohortError, SchemaError
from theracast_data.events.schema import EVENT_SCHEMA
from theracast_data.events.store import EventStore, SourceRecord
from theracast_data.sources import Inputs
from theracast_data.table import cohort_from_frame, read_cohort

CONCEPTS = {
    "albumin": {"codes": ["LOINC//1751-7"], "unit": "g/dL", "assume_unit": "g/dL", "plausible": [1, 7]},
    "ecog": {"codes": ["LOINC//89247-1"], "modality": "clinical"},
}
DECISIONS: dict[str, Any] = {
    "trigger": {"codes": ["RX//a", "RX//b"], "treatment": {"RX//a": "drug A", "RX//b": "drug B"}},
    "include": [{"name": "albumin on record", "concept": "albumin", "window": "(-90d, 0d]"}],
    "exclude": [{"name": "ECOG above 3", "concept": "ecog", "window": "(-inf, 0d]", "value": {"above": 3}}],
    "landmarks": {"days": [0, 42], "ends": [{"codes": ["MEDS_DEATH"]}]},
    "site": {"codes": ["Organization//*"], "take": "code"},
    "attributes": {
        "age": {"codes": ["MEDS_BIRTH"], "take": "years_since", "label": "Age", "plausible": [18, 100]},
        "sex": {"codes": ["Gender//*"], "take": "code", "levels": {"F": "female", "M": "male"}},
        "stage": {"codes": ["STAGE"], "levels": {"3": "III", "4": "IV"}, "missing": "unstaged"},
        "msi": {"codes": ["MSI"], "levels": {"low": 0, "high": 1}, "modality": "genomic"},
        "albumin_now": {"concept": "albumin", "take": "number", "modality": "lab"},
        "weight": {"codes": ["W"], "take": "number", "unit": "kg", "assume_unit": "kg", "role": "covariate"},
    },
}
ENDPOINTS: tuple[Endpoint, ...] = tuple(
    endpoint_from_json(one)
    for one in (
        {"name": "death", "kind": "first_event", "events": [{"codes": ["MEDS_DEATH"]}], "horizon": "180d"},
        {
            "name": "response",
            "kind": "best_response",
            "categories": {"R=PR": "PR", "R=PD": "PD", "R": "NE"},
            "positive": ["PR"],
            "window": "(0d, 120d]",
        },
    )
)

Rows = list[tuple[Any, ...]]


def hospital(seed: int, patients: int = 40) -> Rows:
    """Events (patient, time, code, number, text, unit, available) with gaps, other units, corrections and bad values."""
    rng = np.random.default_rng(seed)
    rows: Rows = []
    for number in range(patients):
        name = f"p{number}"
        start = pd.Timestamp("2022-01-03 09:30") + pd.Timedelta(days=int(rng.integers(0, 400)))

        def day(days: float, start: pd.Timestamp = start) -> pd.Timestamp:
            return start + pd.Timedelta(days=days)

        rows.append((name, day(-int(rng.integers(9000, 30000))).normalize(), "MEDS_BIRTH", None, None, None, None))
        rows.append((name, None, f"Organization//{'AB'[number % 2]}", None, None, None, None))
        if rng.random() < 0.9:
            rows.append((name, None, f"Gender//{rng.choice(['F', 'M', 'X'], p=[0.5, 0.45, 0.05])}", *[None] * 4))
        for code in ["RX//a"] + (["RX//b"] if rng.random() < 0.3 else []):
            rows += [(name, day(21 * cycle), code, None, None, None, None) for cycle in range(3)]
        for days in (-40.0, -9.5, -1.0, 0.0, 20.0, 42.0, 90.0):
            if rng.random() < 0.7:
                grams = rng.random() < 0.3
                value = (
                    round(float(rng.normal(3.6, 0.4)), 1) * (10 if grams else 1) * (100 if rng.random() < 0.05 else 1)
                )
                late = day(days + 2) if rng.random() < 0.3 else None
                rows.append(
                    (
                        name,
                        day(days),
                        "LOINC//1751-7",
                        value,
                        None,
                        "g/L" if grams else rng.choice(["g/dL", ""]) or None,
                        late,
                    )
                )
            if rng.random() < 0.4:
                rows.append((name, day(days).normalize(), "LOINC//89247-1", float(rng.integers(0, 5)), *[None] * 3))
            if rng.random() < 0.4:
                rows.append((name, day(days), "STAGE", None, str(rng.choice(["3", "4", "4", "x"])), None, None))
            if rng.random() < 0.3:
                rows.append((name, day(days), "MSI", None, str(rng.choice(["low", "high"])), None, None))
            if rng.random() < 0.5:
                pounds = rng.random() < 0.5
                rows.append(
                    (name, day(days), "W", 150.0 if pounds else 70.0, None, "[lb_av]" if pounds else None, None)
                )
        rows.append((name, day(60), "R", None, str(rng.choice(["PR", "PD", "SD"])), None, None))
        if rng.random() < 0.5:
            rows.append((name, day(int(rng.integers(30, 300))).normalize(), "MEDS_DEATH", *[None] * 4))
        elif rng.random() < 0.8:
            rows.append((name, day(int(rng.integers(100, 500))), "VISIT", *[None] * 4))
    return rows


def events_of(rows: Rows) -> pa.Table:
    columns = {name: [row[place] for row in rows] for place, name in enumerate(EVENT_SCHEMA.names)}
    for name in ("time", "available_time"):
        columns[name] = [None if one is None else one.to_pydatetime() for one in columns[name]]
    return pa.table(columns, schema=EVENT_SCHEMA)


def store_of(rows: Rows, folder: Path, *, shards: int = 3) -> Path:
    EventStore.create(folder, shards=shards).append(SourceRecord(name="made", kind="test"), [events_of(rows)])
    return folder


def inputs_of(**changes: Any) -> Inputs:
    parts = {"events": {"store": "store", "concepts": CONCEPTS}, "decisions": DECISIONS}
    return Inputs.model_validate(parts | changes)


def asked_rows(cohort: Cohort, rows: Rows) -> pd.DataFrame:
    """Return the decisions as rows to be scored, each with all events of its patient, the future too."""
    own: dict[str, list[dict[str, Any]]] = {}
    for patient, *cells in rows:
        event = dict(zip(EVENT_SCHEMA.names[1:], cells, strict=True))
        own.setdefault(patient, []).append(
            {key: str(one) if "time" in key and one is not None else one for key, one in event.items()}
        )
    asked = cohort.decisions
    return pd.DataFrame(
        {
            "subject_id": asked["subject_id"],
            "index_time": asked["index_time"].astype(str),
            "events": [own[patient] for patient in asked["subject_id"]],
        }
    )


def from_store(
    rows: Rows, folder: Path, *, shards: int = 3, endpoints: Sequence[Endpoint] = ENDPOINTS, **changes: Any
) -> Cohort:
    store_of(rows, folder / "store", shards=shards)
    return read_cohort(inputs_of(**changes), endpoints, base=folder)


def same(left: Cohort, right: Cohort) -> None:
    for name in ("values", "endpoints"):
        pd.testing.assert_frame_equal(getattr(left, name), getattr(right, name))
    pd.testing.assert_frame_equal(left.decisions.drop(columns="event_key"), right.decisions.drop(columns="event_key"))


@pytest.mark.parametrize("same_day", ["hidden", "visible"])
def test_scoring_sees_what_training_saw(tmp_path: Path, same_day: str) -> None:
    rows = hospital(1)
    changes = {"decisions": DECISIONS | {"same_day": same_day}}
    cohort = from_store(rows, tmp_path, **changes)
    assert len(cohort) >= 40
    assert cohort.values.notna().any().all()
    scored = cohort_from_frame(asked_rows(cohort, rows), inputs_of(**changes), endpoints=ENDPOINTS)
    same(cohort, scored)
    assert not [
        note
        for note in scored.notes
        if note.kind in ("outside-inclusion", "no-longer-at-risk", "asked-late", "asked-before-trigger")
    ]


def test_the_order_and_the_result_do_not_hang_on_the_shards(tmp_path: Path) -> None:
    rows = hospital(2)
    (tmp_path / "one").mkdir(), (tmp_path / "many").mkdir()
    one = from_store(rows, tmp_path / "one", shards=1)
    many = from_store(rows[::-1], tmp_path / "many", shards=64)
    same(one, many)
    assert one.attrition == many.attrition
    assert one.notes == many.notes


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10_000), future=st.integers(0, 10_000))
def test_events_after_the_decision_change_no_attribute_and_nothing_that_is_asked(seed: int, future: int) -> None:
    rows = hospital(seed, patients=6)
    rng = np.random.default_rng(future)
    asked = pd.Timestamp("2022-09-01 10:00")
    past = [row for row in rows if row[1] is None or row[1] <= asked]
    moved = [
        (name, asked + pd.Timedelta(hours=float(rng.uniform(0.01, 9000))), code, *rest[:-1], None)
        for name, _, code, *rest in hospital(future, patients=6)
    ]
    late = [
        (name, time, code, number, text, unit, asked + pd.Timedelta(days=1))
        for name, time, code, number, text, unit, _ in hospital(future, patients=6)
        if code not in ("RX//a", "RX//b")
    ]

    def ask(events: Rows) -> Cohort:
        frame = pd.DataFrame({"subject_id": [f"p{number}" for number in range(6)], "index_time": str(asked)})
        own = {name: [row for row in events if row[0] == name] for name in frame["subject_id"]}
        frame["events"] = [
            [{"code": c, "time": None if t is None else str(t), "numeric_value": v, "text_value": x, "unit": u,
              "available_time": None if a is None else str(a)} for _, t, c, v, x, u, a in own[name]]
            for name in frame["subject_id"]
        ]  # fmt: skip
        return cohort_from_frame(frame, inputs_of())

    before, after = ask(past), ask([*past, *moved, *late])
    same(before, after)
    assert before.notes == after.notes


def test_the_attributes_are_those_of_a_slow_and_obvious_loop(tmp_path: Path) -> None:
    rows = hospital(3)
    cohort = from_store(rows, tmp_path)
    for place, decision in cohort.decisions.iterrows():
        asked, own = decision["index_time"], [row for row in rows if row[0] == decision["subject_id"]]

        def last(code: str, asked: pd.Timestamp = asked, own: Rows = own) -> list[tuple[Any, ...]]:
            seen = []
            for row in own:
                known = row[1] if row[6] is None else max(row[1], row[6])
                if row[6] is None and row[1] is not None and row[1] == row[1].normalize():
                    known = row[1] + pd.Timedelta(days=1)  # a date alone is known when the day is over
                if row[2].startswith(code) and (row[1] is None or known <= asked):
                    seen.append(row)
            return sorted(seen, key=lambda row: (row[1] is not None, row[1]))

        values = cohort.values.iloc[place]
        born = next(row[1] for row in own if row[2] == "MEDS_BIRTH")
        assert values["age"] == pytest.approx((asked - born) / pd.Timedelta(days=365.25))
        stages = [row[4] for row in last("STAGE")]
        assert values["stage"] == ({"3": "III", "4": "IV"}.get(stages[-1], stages[-1]) if stages else "unstaged")
        grams = [row[3] * (0.1 if row[5] == "g/L" else 1) for row in last("LOINC//1751-7")]
        possible = [value for value in grams if 1 <= value <= 7]
        assert values["albumin_now"] == pytest.approx(possible[-1]) if possible else np.isnan(values["albumin_now"])
        weights = [row[3] * (0.45359237 if row[5] == "[lb_av]" else 1) for row in last("W")]
        assert values["weight"] == pytest.approx(weights[-1]) if weights else np.isnan(values["weight"])
        msi = [float(row[4] == "high") for row in last("MSI")]
        assert values["msi"] == msi[-1] if msi else np.isnan(values["msi"])
    assert set(cohort.values["landmark"]) == {0.0, 42.0}
    assert cohort.columns["age"].unit == "a"  # type: ignore[union-attr]
    assert cohort.columns["albumin_now"].unit == "g/dL"  # type: ignore[union-attr]
    assert cohort.columns["msi"].resolved_kind == "boolean"  # type: ignore[union-attr]
    assert cohort.columns["weight"].role == "covariate"


def test_a_cell_of_the_row_is_used_in_place_of_its_events(tmp_path: Path) -> None:
    rows = hospital(4)
    cohort = from_store(rows, tmp_path)
    asked = asked_rows(cohort, rows).head(3).assign(
        age=["61", None, 70], Sex=["M", "female", None], landmark=[7, None, None], site=["North", None, None],
        treatment=[None, "drug Z", None], msi=["high", 0, None],
    )  # fmt: skip
    scored = cohort_from_frame(asked, inputs_of())
    known = cohort.take([0, 1, 2])
    assert scored.values["age"].tolist() == [61, known.values["age"][1], 70]
    assert scored.values["sex"].tolist()[:2] == ["male", "female"]
    assert scored.values["landmark"].tolist() == [7, *known.values["landmark"][1:]]
    assert scored.decisions["site"].tolist() == ["North", *known.decisions["site"][1:]]
    assert scored.decisions["treatment"].tolist() == [
        known.decisions["treatment"][0],
        "drug Z",
        known.decisions["treatment"][2],
    ]
    assert scored.values["msi"][0] == 1.0


def _event(time: str | None, code: str, number: float | None = None, unit: str | None = None) -> dict[str, Any]:
    return {"time": time, "code": code, "numeric_value": number, "unit": unit}


ALBUMIN = _event("2024-02-20", "LOINC//1751-7", 3.5, "g/dL")


@pytest.mark.parametrize(
    ("events", "index_time", "kinds", "landmark"),
    [
        ([ALBUMIN, _event("2024-03-01 09:00", "RX//a")], "2024-03-01 09:00", [], 0),
        ([ALBUMIN, _event("2024-03-01 09:00", "RX//a")], "2024-04-12 08:00", [], 41),
        ([ALBUMIN, _event("2024-03-01 09:00", "RX//a")], "2024-04-13 09:00", ["asked-late"], 43),
        ([ALBUMIN], "2024-03-01 09:00", ["asked-before-trigger"], 0),
        ([ALBUMIN], None, ["asked-before-trigger"], 0),
        ([_event("2024-03-01 09:00", "RX//a")], "2024-03-01 09:00", ["outside-inclusion"], 0),
        ([ALBUMIN, _event("2024-02-25", "LOINC//89247-1", 4), _event("2024-03-01 09:00", "RX//a")], None,
         ["outside-inclusion"], 0),
        ([ALBUMIN, _event("2024-03-01 09:00", "RX//a"), _event("2024-03-09", "MEDS_DEATH")], "2024-04-10",
         ["no-longer-at-risk"], 39),
    ],
)  # fmt: skip
def test_what_the_study_would_not_have_asked_is_said(
    events: list[dict[str, Any]], index_time: str | None, kinds: list[str], landmark: float
) -> None:
    frame = pd.DataFrame({"subject_id": ["one"], "index_time": [index_time], "events": [events]})
    scored = cohort_from_frame(frame, inputs_of())
    assert [note.kind for note in scored.notes] == kinds
    assert scored.values["landmark"].tolist() == [landmark]
    begun = any(event["code"] == "RX//a" for event in events)
    assert scored.decisions["treatment"].tolist() == (["drug A"] if begun else [np.nan]) or not begun


def test_a_moment_that_cannot_be_read_is_said() -> None:
    frame = pd.DataFrame({"subject_id": ["one"], "index_time": ["01/03/2024"], "events": [[ALBUMIN]]})
    notes = {note.kind: note for note in cohort_from_frame(frame, inputs_of()).notes}
    assert notes["asked-now"].rows == (0,)
    assert "asked as of the latest fact" in notes["asked-now"].message


def test_a_row_without_events_is_missing_everywhere_and_nothing_breaks() -> None:
    scored = cohort_from_frame(pd.DataFrame({"subject_id": ["one"], "age": [50]}), inputs_of())
    assert scored.values["age"].tolist() == [50.0]
    assert scored.values["stage"].tolist() == ["unstaged"]
    assert scored.values.drop(columns=["age", "stage"]).isna().all(axis=None)
    assert scored.decisions["index_time"].isna().all()


def test_tables_are_joined_to_the_decisions(tmp_path: Path) -> None:
    rows = hospital(5)
    table = pd.DataFrame(
        {
            "id": ["p1", "p2", "nobody"],
            "where": ["B", "A", "A"],
            "PD-L1": [50, 1, 3],
            "os": [1, 2, 3],
            "died": [1, 0, 0],
        }
    )
    table.to_csv(tmp_path / "extra.csv", index=False)
    source = {"path": "extra.csv", "subject": "id", "site": "where", "columns": {"PD-L1": {"unit": "%"}}}
    survival = endpoint_from_json({"name": "os", "kind": "time_to_event", "time": "os", "event": "died"})
    cohort = from_store(rows, tmp_path, endpoints=[*ENDPOINTS, survival], sources=[source])
    expected = cohort.decisions["subject_id"].map({"p1": 50.0, "p2": 1.0})
    np.testing.assert_array_equal(cohort.values["pd_l1"], expected)
    assert np.isfinite(cohort.endpoints["os.time"]).sum() == np.isfinite(expected).sum()
    assert "1 patients are not among the decisions" in " ".join(note.message for note in cohort.notes)
    assert list(cohort.columns)[-1] == "pd_l1"
    one = asked_rows(cohort, rows).head(1).assign(**{"PD-L1": 7})
    assert cohort_from_frame(one, inputs_of(sources=[source])).values["pd_l1"].tolist() == [7.0]


def test_endpoints_from_events_of_decisions_from_a_table(tmp_path: Path) -> None:
    rows = hospital(6)
    asked = from_store(rows, tmp_path)
    table = asked.decisions[["subject_id", "index_time", "treatment"]]
    table = pd.concat([table, pd.DataFrame({"subject_id": ["stranger"], "index_time": [pd.Timestamp("2022-01-01")]})])
    table.to_csv(tmp_path / "asked.csv", index=False)
    source = {"path": "asked.csv", "subject": "subject_id", "index_time": "index_time", "treatment": "treatment"}
    cohort = read_cohort(inputs_of(sources=[source], decisions=None), ENDPOINTS, base=tmp_path)
    pd.testing.assert_frame_equal(cohort.endpoints.iloc[:-1], asked.endpoints)
    assert cohort.endpoints.iloc[-1].isna().all()


@pytest.mark.parametrize("key", ["index_time", "treatment", "calendar"])
def test_a_joined_table_cannot_say_when_or_what_is_asked(key: str) -> None:
    with pytest.raises(ValueError, match=f"source t.csv: remove {key}; `decisions` say when"):
        inputs_of(sources=[{"path": "t.csv", "subject": "id", key: "column"}])


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        ({"take": "number", "levels": {"1": "one"}}, "take: number gives a number; remove `levels`"),
        ({"take": "text", "unit": "kg"}, "`unit`, `assume_unit` and `cap` belong to numbers"),
        ({"take": "years_since", "unit": "a"}, "take: years_since counts years"),
        ({"kind": "boolean"}, "kind: boolean needs `levels` that map what is found to 0 and 1"),
        ({"kind": "numeric"}, "kind: numeric needs take: number or years_since"),
        ({"levels": {"a": 0, "b": 1}, "missing": "unknown"}, "a boolean attribute has no word for not known"),
    ],
)
def test_an_attribute_that_cannot_be_a_column_is_refused(attribute: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        inputs_of(decisions=DECISIONS | {"attributes": {"one": {"codes": ["X"], **attribute}}})


def test_names_and_places_are_checked() -> None:
    with pytest.raises(ValueError, match="the decisions have columns of the name landmark already"):
        inputs_of(decisions=DECISIONS | {"attributes": {"landmark": {"codes": ["X"]}}})
    with pytest.raises(ValueError, match=r"'age' is used in sources decisions\.attributes and 0"):
        inputs_of(sources=[{"path": "t.csv", "subject": "id", "columns": {"Age": {}}}])
    with pytest.raises(ValueError, match="the study needs an `events` section"):
        inputs_of(events=None)
    with pytest.raises(ValueError, match="`sources` needs at least 1 item"):
        inputs_of(decisions=None)
    with pytest.raises(ValueError, match="a site is a name"):
        inputs_of(decisions=DECISIONS | {"site": {"codes": ["X"], "take": "number"}})


def test_nobody_left_says_which_rule_left_them_out(tmp_path: Path) -> None:
    rule = {"name": "never measured", "codes": ["NEVER//1"], "window": "(-inf, 0d]"}
    with pytest.raises(CohortError, match=r"no decision is left .*never measured: 0 left"):
        from_store(hospital(7), tmp_path, decisions=DECISIONS | {"include": [rule]})


def test_a_level_that_the_study_does_not_name_is_noted(tmp_path: Path) -> None:
    cohort = from_store(hospital(8), tmp_path)
    noted = {note.column: note for note in cohort.notes if note.kind == "unknown-level"}
    assert set(cohort.values["stage"].iloc[list(noted["stage"].rows)]) == {"x"}
    assert "'x'" not in noted["stage"].message


def test_a_repeated_header_is_refused_as_for_tables() -> None:
    frame = pd.DataFrame([["one", 50, 60]], columns=["subject_id", "age", "age"])
    with pytest.raises(SchemaError, match="stand more than once"):
        cohort_from_frame(frame, inputs_of())
