"""The registry on a real embedded store: moves, rollback, history, refusals, and two that move at once."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from mlflow import MlflowClient

from theracast_data.errors import RegistryError
from theracast_training import registry
from theracast_training.gates import GateReport, GateRow

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
MakeModel = Callable[..., str]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = f"sqlite:///{tmp_path_factory.mktemp('registry') / 'mlflow.db'}"
    MlflowClient(tracking_uri=uri).search_registered_models()
    return uri


@pytest.fixture
def make_model(store: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> MakeModel:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    base = re.sub(r"\W+", "-", request.node.name)

    def make(versions: int = 3, suffix: str = "") -> str:
        client = MlflowClient(tracking_uri=store)
        client.create_registered_model(base + suffix)
        for number in range(versions):
            client.create_model_version(base + suffix, f"/models/{number}")
        return base + suffix

    return make


def promote(name: str, version: int, *, override: str = "tried in the clinic", minutes: int = 0) -> registry.Move:
    return registry.set_alias(
        name, version, "champion", override=override, actor="ada", now=NOW + timedelta(minutes=minutes)
    )


def report(name: str, version: int, *, passed: bool = True, champion: int | None = None) -> GateReport:
    row = GateRow("auc_lower", "lower bound >= 0.6", "0.580 (0.520 to 0.640)", passed, "")
    return GateReport(f"models:/{name}/{version}", f"models:/{name}/{champion}" if champion else None, (row,))


def test_every_move_is_on_record_with_who_when_why_and_what_the_gates_said(make_model: MakeModel) -> None:
    name = make_model()
    registry.set_alias(name, 1, "challenger", actor="train", now=NOW, why="trained")
    promote(name, 1, minutes=1)
    registry.set_alias(
        name, "2", "champion", gate_report=report(name, 2, champion=1), actor="bob", now=NOW + timedelta(minutes=2)
    )

    moves = registry.history(name)

    assert [(m.number, m.when, m.who, m.alias, m.from_version, m.to_version, m.overridden) for m in moves] == [
        (1, "2026-11-21T09:30:00Z", "train", "challenger", None, 1, False),
        (2, "2026-11-21T09:31:00Z", "ada", "champion", None, 1, True),
        (3, "2026-11-21T09:32:00Z", "bob", "champion", 1, 2, False),
    ]
    assert moves[1].why == "tried in the clinic"
    assert moves[2].gates is not None
    assert moves[2].gates["passed"] is True
    assert "champion: version 1 -> version 2  bob" in moves[2].to_text()


def test_the_record_is_kept_in_the_registry_itself(make_model: MakeModel, store: str) -> None:
    name = make_model()
    promote(name, 2)
    tags = MlflowClient(tracking_uri=store).get_registered_model(name).tags
    (key,) = tags
    assert re.fullmatch(r"theracast\.move\.000001\.[0-9a-f]{8}", key)
    assert '"to_version": 2' in tags[key]


def test_rollback_goes_back_one_move_at_a_time_and_removes_the_alias_in_the_end(make_model: MakeModel) -> None:
    name = make_model()
    for version in (1, 2, 3):
        promote(name, version)

    undone = [registry.rollback(name, actor="bob", now=NOW) for _ in range(3)]

    assert [(move.from_version, move.to_version, move.undoes) for move in undone] == [
        (3, 2, 3),
        (2, 1, 2),
        (1, None, 1),
    ]
    assert len(registry.history(name)) == 6
    with pytest.raises(RegistryError, match="no move of champion left to undo"):
        registry.rollback(name, actor="bob", now=NOW)


def test_a_promotion_after_a_rollback_is_what_the_next_rollback_undoes(make_model: MakeModel) -> None:
    name = make_model()
    promote(name, 1)
    promote(name, 2)
    registry.rollback(name, actor="bob", now=NOW)
    promote(name, 3)
    assert registry.rollback(name, actor="bob", now=NOW).to_version == 1
    assert registry.rollback(name, actor="bob", now=NOW).to_version is None


def test_rollback_leaves_other_aliases_alone_and_names_them(make_model: MakeModel) -> None:
    name = make_model()
    registry.set_alias(name, 1, "challenger", actor="train", now=NOW)
    with pytest.raises(RegistryError, match=r"no move of champion left to undo\. Moves are on record for: challenger"):
        registry.rollback(name, actor="bob", now=NOW)
    promote(name, 1)
    registry.set_alias(name, 2, "challenger", actor="train", now=NOW)
    assert registry.rollback(name, actor="bob", now=NOW).alias == "champion"
    assert registry.show(f"{name}@challenger").version == 2


def test_champion_needs_gates_or_a_reason(make_model: MakeModel) -> None:
    name = make_model()
    with pytest.raises(RegistryError, match="without its gates being looked at"):
        registry.set_alias(name, 1, "champion", actor="ada", now=NOW)
    with pytest.raises(RegistryError, match="--override needs a reason"):
        promote(name, 1, override="  ")
    with pytest.raises(RegistryError, match=r"(?s)does not become champion:.*0\.580 \(0\.520 to 0\.640\).*--override"):
        registry.set_alias(name, 1, "champion", gate_report=report(name, 1, passed=False), actor="ada", now=NOW)
    assert registry.history(name) == ()


def test_an_override_is_marked_only_when_something_was_overridden(make_model: MakeModel) -> None:
    name = make_model()
    failed = registry.set_alias(
        name, 1, "champion", gate_report=report(name, 1, passed=False), override="a pilot", actor="ada", now=NOW
    )
    passed = registry.set_alias(
        name, 2, "champion", gate_report=report(name, 2, champion=1), override="a pilot", actor="ada", now=NOW
    )
    assert failed.overridden
    assert failed.gates is not None
    assert failed.gates["rows"][0]["passed"] is False
    assert not passed.overridden


def test_gates_looked_at_against_another_champion_do_not_count(make_model: MakeModel) -> None:
    name = make_model()
    seen = report(name, 3)
    promote(name, 1)
    with pytest.raises(RegistryError, match=f"would now follow models:/{name}/1. Try again"):
        registry.set_alias(name, 3, "champion", gate_report=seen, actor="ada", now=NOW)
    with pytest.raises(RegistryError, match="gates were looked at for"):
        registry.set_alias(name, 2, "champion", gate_report=report(name, 3, champion=1), actor="ada", now=NOW)


def test_unknown_names_versions_and_aliases_are_answered_with_what_there_is(make_model: MakeModel) -> None:
    name = make_model()
    with pytest.raises(RegistryError, match=f"Did you mean '{name}'"):
        registry.show(name[:-1])
    with pytest.raises(RegistryError, match="Known versions: 1, 2, 3"):
        registry.show(f"models:/{name}/9")
    with pytest.raises(RegistryError, match="Known versions: 1, 2, 3"):
        promote(name, 4)
    registry.set_alias(name, 1, "challenger", actor="ada", now=NOW)
    with pytest.raises(RegistryError, match="Did you mean 'challenger'"):
        registry.show(f"{name}@chalenger")
    with pytest.raises(RegistryError, match="'three' is no version"):
        registry.show(f"models:/{name}/three")
    with pytest.raises(RegistryError, match="names no model"):
        registry.show("models:/@champion")
    with pytest.raises(RegistryError, match="cannot be an alias"):
        registry.set_alias(name, 1, "v2", actor="ada", now=NOW)
    with pytest.raises(RegistryError, match="is version 1 already"):
        registry.set_alias(name, 1, "challenger", actor="ada", now=NOW)


def test_a_bare_name_means_its_champion_then_its_challenger_then_the_newest(make_model: MakeModel) -> None:
    name = make_model()
    assert registry.show(name).version == 3
    registry.set_alias(name, 2, "challenger", actor="ada", now=NOW)
    assert registry.show(name).version == 2
    promote(name, 1)
    found = registry.show(name)
    assert (found.version, found.aliases, found.uri) == (1, ("champion",), f"models:/{name}/1")
    assert found.to_json()["source"] == "/models/0"


def test_the_list_shows_versions_aliases_and_moves(make_model: MakeModel) -> None:
    name = make_model()
    promote(name, 2)
    (model,) = [one for one in registry.list_models() if one.name == name]
    assert [version.version for version in model.versions] == [3, 2, 1]
    assert model.aliases == {"champion": 2}
    assert model.to_json()["moves"][0]["to_version"] == 2
    assert model.drift == ()


def test_a_move_made_without_theracast_is_seen_and_noted(
    make_model: MakeModel, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = make_model()
    promote(name, 1)
    MlflowClient(tracking_uri=store).set_registered_model_alias(name, "champion", "3")
    (model,) = [one for one in registry.list_models() if one.name == name]
    assert "champion stands at version 3, although move 1 left it at version 1" in model.drift[0]

    monkeypatch.setattr(registry, "_SETTLE_SECONDS", 0.2)
    move = promote(name, 2)
    assert (move.from_version, move.to_version) == (3, 2)
    assert move.note is not None
    assert "moved without Theracast" in move.note


def test_a_record_changed_by_hand_is_named(make_model: MakeModel, store: str) -> None:
    name = make_model()
    promote(name, 1)
    client = MlflowClient(tracking_uri=store)
    (key,) = client.get_registered_model(name).tags
    client.set_registered_model_tag(name, key, "oops")
    with pytest.raises(RegistryError, match=f"{re.escape(key)} is no record of a move"):
        registry.history(name)


def test_a_version_deleted_meanwhile_cannot_come_back(make_model: MakeModel, store: str) -> None:
    name = make_model()
    promote(name, 1)
    promote(name, 2)
    MlflowClient(tracking_uri=store).delete_model_version(name, "1")
    with pytest.raises(RegistryError, match="has no version 1"):
        registry.rollback(name, actor="bob", now=NOW)
    assert registry.show(f"{name}@champion").version == 2


def test_two_moves_at_once_never_overwrite_a_record(make_model: MakeModel) -> None:
    name = make_model(versions=5)
    start = threading.Barrier(4)
    outcomes: list[registry.Move | RegistryError] = []

    def move(version: int) -> None:
        start.wait()
        try:
            outcomes.append(promote(name, version, override=f"by thread {version}"))
        except RegistryError as refused:
            outcomes.append(refused)

    threads = [threading.Thread(target=move, args=(version,)) for version in (2, 3, 4, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    made = [outcome for outcome in outcomes if isinstance(outcome, registry.Move)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, RegistryError)]
    moves = registry.history(name)
    assert len(outcomes) == 4
    assert {move.number: move.why for move in made} == {move.number: move.why for move in moves}
    assert made
    assert all("try again" in str(one).lower() for one in refused)
    assert registry.show(f"{name}@champion").version == moves[-1].to_version
    for before, after in pairwise(moves):
        assert after.from_version == before.to_version


def test_a_claim_of_another_on_the_same_number_is_withdrawn_from(
    make_model: MakeModel, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = make_model()
    client = MlflowClient(tracking_uri=store)
    rival = "theracast.move.000001.00000000"
    real = MlflowClient.set_registered_model_tag

    def slowly(self: MlflowClient, model: str, key: str, value: str) -> None:
        """Write as MLflow does, after somebody else claimed the same number (and gives it up a second later)."""
        monkeypatch.setattr(MlflowClient, "set_registered_model_tag", real)
        real(self, model, rival, value)
        real(self, model, key, value)
        withdrawal.start()

    def withdraw() -> None:
        time.sleep(0.3)
        client.delete_registered_model_tag(name, rival)

    withdrawal = threading.Thread(target=withdraw)
    monkeypatch.setattr(registry, "_SETTLE_SECONDS", 1.0)
    monkeypatch.setattr(MlflowClient, "set_registered_model_tag", slowly)
    move = promote(name, 1)
    withdrawal.join()
    assert [one.to_version for one in registry.history(name)] == [1]
    assert registry.history(name)[0].number == move.number


def test_no_store_yet_is_an_empty_list_and_a_way_to_mend_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("THERACAST_HOME", str(tmp_path))
    assert registry.list_models() == []
    with pytest.raises(RegistryError, match="`theracast train STUDY` makes one"):
        registry.history("icb")
    assert list(tmp_path.iterdir()) == []


def test_a_moment_without_time_zone_is_refused(make_model: MakeModel) -> None:
    name = make_model()
    with pytest.raises(ValueError, match="no time zone"):
        registry.set_alias(name, 1, "challenger", actor="ada", now=datetime(2026, 11, 21))  # noqa: DTZ001
