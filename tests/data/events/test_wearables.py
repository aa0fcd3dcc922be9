"""Wearables: the days that were worn, against a slow count over the minutes."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from theracast_data.events.readers.wearables import WearablesOptions, read_wearables
from theracast_data.events.report import IngestReport
from theracast_data.events.schema import EVENT_SCHEMA

START = datetime.fromisoformat("2024-05-30T00:00:00")
MINUTES: dict[str, Any] = {
    "path": "watch.csv",
    "subject": "id",
    "time": "minute",
    "steps": "steps",
    "heart_rate": "bpm",
    "sleep": "state",
    "asleep": ("light", "deep"),
}


def read(folder: Path, text: str, options: dict[str, Any], **others: Any) -> tuple[dict[Any, float], IngestReport]:
    """Return (patient, day, code) to value, and the report."""
    path = folder / "watch.csv"
    path.write_text(text)
    report = IngestReport("watch")
    tables = list(read_wearables(path, options=WearablesOptions(**options), report=report, **others))
    assert all(table.schema == EVENT_SCHEMA for table in tables)
    rows = [row for table in tables for row in table.to_pylist()]
    assert report.written == len(rows)
    for row in rows:
        assert row["available_time"] == row["time"] + timedelta(days=1, microseconds=-1)
    found = {(row["subject_id"], row["time"], row["code"]): row["numeric_value"] for row in rows}
    assert len(found) == len(rows)
    return found, report


def test_minutes_become_the_days_that_were_worn(tmp_path: Path) -> None:
    rng = random.Random(3)
    days: dict[Any, list[tuple[int, int, str]]] = defaultdict(list)
    lines = []
    for patient, wear in (("a", 0.9), ("b", 0.45), ("c", 0.2)):
        for minute in range(3 * 1440):
            if rng.random() < wear:
                day = START + timedelta(days=minute // 1440)
                values = (rng.randrange(120), rng.randrange(50, 160), rng.choice(["awake", "light", "deep"]))
                days[patient, day].append(values)
                lines.append(",".join([patient, str(START + timedelta(minutes=minute)), *map(str, values)]))
    lines += rng.sample(lines, 50)  # exported twice
    rng.shuffle(lines)
    found, report = read(tmp_path, "id,minute,steps,bpm,state\n" + "\n".join(lines), MINUTES, batch_rows=1000)

    expected = {}
    for (patient, day), minutes in days.items():
        if len(minutes) >= 600:
            expected |= {
                (patient, day, "wearable//steps"): sum(steps for steps, _, _ in minutes),
                (patient, day, "wearable//heart_rate_mean"): sum(rate for _, rate, _ in minutes) / len(minutes),
                (patient, day, "wearable//heart_rate_min"): min(rate for _, rate, _ in minutes),
                (patient, day, "wearable//sleep_minutes"): sum(state != "awake" for _, _, state in minutes),
                (patient, day, "wearable//wear_minutes"): len(minutes),
            }
    assert found == pytest.approx(expected)
    short = sum(len(minutes) < 600 for minutes in days.values())
    assert 3 <= short < 9
    assert report.refused == {
        ("(row)", "the minute is there twice"): 50,
        ("(day)", "the day was worn less than 600 minutes"): short,
    }
    assert report.read == len(lines)


def test_cells_that_are_not_understood(tmp_path: Path) -> None:
    text = "id,minute,steps,bpm,state\na,2024-05-30 08:00,10,300000,\na,2024-05-30 08:01,many,60,deep\n"
    text += ",2024-05-30 08:02,1,1,\na,soon,1,60,\na,2024-05-30 08:03,5\na,2024-05-30 08:04,-7,70,\n"
    found, report = read(tmp_path, text, MINUTES | {"minimum_wear_minutes": 0})
    assert found == {
        ("a", START, "wearable//steps"): 10,
        ("a", START, "wearable//heart_rate_mean"): 65,
        ("a", START, "wearable//heart_rate_min"): 60,
        ("a", START, "wearable//sleep_minutes"): 1,
        ("a", START, "wearable//wear_minutes"): 2,
    }
    assert report.first == {
        ("(line)", "the line has fewer cells than the header"): "watch.csv line 6",
        ("(row)", "no patient"): "watch.csv line 4",
        ("(row)", "minute is no moment"): "watch.csv line 5",
        ("steps", "the cell is no number"): "watch.csv line 3",
        ("steps", "the number is not in 0 to 1000000"): "watch.csv line 7",
        ("heart_rate", "the number is not in 20 to 300"): "watch.csv line 2",
    }


def test_intervals_and_a_wear_column(tmp_path: Path) -> None:
    options = {"path": "w", "subject": "id", "time": "t", "steps": "n", "worn": "on", "interval_minutes": 15}
    text = "id,t,n,on\n" + "".join(f"a,2024-05-30T{hour:02d}:15,100,{int(hour > 10)}\n" for hour in range(24))
    found, _ = read(tmp_path, text, options | {"minimum_wear_minutes": 195})
    assert found == {("a", START, "wearable//steps"): 2400, ("a", START, "wearable//wear_minutes"): 13 * 15}
    found, report = read(tmp_path, text, options | {"minimum_wear_minutes": 196})
    assert (found, sum(report.refused.values())) == ({}, 1)


def test_days(tmp_path: Path) -> None:
    options = {"path": "w", "resolution": "daily", "subject": "id", "time": "day", "steps": "n", "sleep": "s"}
    text = "id,day,n,s,on\na,2024-05-30,8000,420,1300\na,2024-05-31,3,,20\nb,2024-05-30,,400,\n"
    found, report = read(tmp_path, text, options | {"worn": "on"})
    assert found == {
        ("a", START, "wearable//steps"): 8000,
        ("a", START, "wearable//sleep_minutes"): 420,
        ("a", START, "wearable//wear_minutes"): 1300,
    }
    assert report.refused == {("(day)", "the day was worn less than 600 minutes"): 2}
    found, report = read(tmp_path, text, options | {"minimum_wear_minutes": 0})
    assert sorted(found.values()) == [3, 400, 420, 8000]
    assert report.refused == {}


def test_options_that_contradict() -> None:
    for change, message in [
        ({"steps": None, "heart_rate": None, "sleep": None}, "at least one of the columns"),
        ({"heart_rate_min": "low"}, "remove it, or say resolution: daily"),
        ({"resolution": "daily"}, "name the column `worn`"),
    ]:
        with pytest.raises(ValidationError, match=message):
            WearablesOptions(**(MINUTES | change))
