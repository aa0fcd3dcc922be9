"""Which patients two versions are compared on: those on whom both were judged, and no others."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from theracast_data.errors import RegistryError
from theracast_training import promotion
from theracast_training.registry import Version


def _version(number: int) -> Version:
    return Version("m", number, (), "2026-01-01T00:00:00Z", f"run{number}", None, None)


def _store(home: Path, number: int, rows: list[tuple[str, str, float, float]]) -> None:
    frame = pd.DataFrame(rows, columns=["decision", "place", "y", "p"])
    folder = home / "predictions"
    folder.mkdir(exist_ok=True)
    frame.assign(patient=frame["decision"], weight=1.0).to_parquet(folder / f"run{number}.parquet")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THERACAST_HOME", str(tmp_path))
    return tmp_path


def test_external_patients_of_both_are_compared_and_nested_ones_left_aside(home: Path) -> None:
    _store(home, 1, [("a", "North", 1, 0.6), ("b", "North", 0, 0.2), ("c", "cv", 1, 0.5)])
    _store(home, 2, [("b", "North", 0, 0.3), ("a", "North", 1, 0.7), ("d", "South", 1, 0.9), ("c", "cv", 1, 0.5)])
    shared = promotion.same_decisions(_version(2), _version(1))
    assert shared is not None
    found = shared.set_index("decision")
    assert set(found.index) == {"a", "b"}
    assert found.loc["a", ["p", "p_champion"]].tolist() == [0.7, 0.6]


def test_nested_predictions_serve_where_no_site_is_external(home: Path) -> None:
    _store(home, 1, [("c", "cv", 1, 0.5), ("e", "cv", 0, 0.1)])
    _store(home, 2, [("c", "cv", 1, 0.6), ("e", "cv", 0, 0.2)])
    shared = promotion.same_decisions(_version(2), _version(1))
    assert shared is not None
    assert len(shared) == 2


def test_patients_that_one_learned_from_are_not_shared(home: Path) -> None:
    _store(home, 1, [("a", "cv", 1, 0.6)])
    _store(home, 2, [("a", "North", 1, 0.7)])
    assert promotion.same_decisions(_version(2), _version(1)) is None


def test_a_version_trained_elsewhere_cannot_be_compared(home: Path) -> None:
    _store(home, 2, [("a", "North", 1, 0.7)])
    assert promotion.same_decisions(_version(2), _version(1)) is None


def test_changed_outcomes_are_refused_with_the_way_out(home: Path) -> None:
    _store(home, 1, [("a", "North", 0, 0.6)])
    _store(home, 2, [("a", "North", 1, 0.7)])
    with pytest.raises(RegistryError, match="1 of 1 decisions have another outcome now"):
        promotion.same_decisions(_version(2), _version(1))
