"""Loading by folder, URI, alias and name, and what is said when it cannot be done."""

from __future__ import annotations

import logging
import shutil
import socket
from pathlib import Path

import pandas as pd
import pytest

from theracast_data.errors import ArtifactError, RegistryError
from theracast_models.response_model import ResponseModel
from theracast_serving.load import load_model
from theracast_serving.score import score_frame


def test_a_folder_answers_as_the_model_that_was_saved(
    model: ResponseModel, model_folder: Path, raw: pd.DataFrame
) -> None:
    loaded = load_model(model_folder)
    assert loaded.identity == model.identity
    assert score_frame(loaded, raw).to_json() == score_frame(model, raw).to_json()
    assert load_model(str(model_folder)).identity == model.identity


@pytest.mark.parametrize("reference", ["models:/demo/2", "models:/demo@champion", "demo"])
def test_a_registered_version_answers_under_its_uri(
    registry: Path, model: ResponseModel, raw: pd.DataFrame, reference: str
) -> None:
    loaded = load_model(reference)
    assert loaded.identity == "models:/demo/2"
    assert loaded.card["registry"] == {"name": "demo", "version": "2", "aliases_when_loaded": ["champion"]}
    found, expected = score_frame(loaded, raw), score_frame(model, raw)
    assert found.model == "models:/demo/2"
    assert found.rows() == expected.rows()


def test_a_folder_without_a_model_does_not_hide_the_registry_s_model_of_that_name(
    registry: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "audit.html").write_text("a page", encoding="utf-8")
    assert load_model("demo").identity == "models:/demo/2"
    shutil.rmtree(tmp_path / "demo")
    shutil.copytree(model_folder, tmp_path / "demo")
    assert load_model("demo").identity.startswith("sha256:")


def test_without_a_champion_the_challenger_answers_and_a_warning_says_so(
    registry: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{registry / 'mlflow.db'}"
    client = MlflowClient(uri, uri)
    client.delete_registered_model_alias("demo", "champion")
    try:
        with caplog.at_level(logging.WARNING):
            assert load_model("demo").identity == "models:/demo/1"
        assert "no champion yet; its challenger, version 1" in caplog.text
    finally:
        client.set_registered_model_alias("demo", "champion", "2")


def test_without_any_alias_the_newest_version_answers_and_a_warning_says_so(
    registry: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert load_model("fresh").identity == "models:/fresh/1"
    assert "neither champion nor challenger" in caplog.text


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("demmo", "Did you mean demo?"),
        ("zzz", "It holds: alien, demo, fresh"),
        ("models:/demmo/1", "Did you mean demo?"),
        ("models:/demo/7", "the registry holds: 1, 2"),
        ("models:/demo@prod", r"its aliases: challenger \(version 1\), champion \(version 2\)"),
        ("models:/demo", "Write models:/NAME@ALIAS"),
        ("models:/alien/1", "Name a version that `theracast train` registered"),
    ],
)
def test_a_reference_that_means_nothing_is_explained(registry: Path, reference: str, message: str) -> None:
    with pytest.raises((RegistryError, ArtifactError), match=message):
        load_model(reference)


def test_a_missing_folder_is_not_looked_up_in_the_registry(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no such folder"):
        load_model(tmp_path / "gone")
    with pytest.raises(ArtifactError, match="there is no such folder"):
        load_model("./gone")


def test_a_file_is_no_model(tmp_path: Path) -> None:
    file = tmp_path / "model.json"
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(ArtifactError, match="Name the model's folder"):
        load_model(file)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        load_model(tmp_path)


def test_a_changed_byte_is_refused(model_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(model_folder, copy)
    file = copy / "reference.json"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactError):
        load_model(copy)


def test_an_mlflow_folder_that_points_outside_itself_is_refused(tmp_path: Path, model_folder: Path) -> None:
    (tmp_path / "MLmodel").write_text(
        f"flavors:\n  python_function:\n    artifacts:\n      response_model:\n        path: {model_folder}\n",
        encoding="utf-8",
    )
    with pytest.raises(ArtifactError, match="not inside the model"):
        load_model(tmp_path)


def test_without_a_registry_the_message_says_where_it_was_sought_and_none_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("THERACAST_HOME", str(tmp_path / "state"))
    with pytest.raises(RegistryError, match="Train a model first, or set THERACAST_HOME"):
        load_model("demo")
    assert not (tmp_path / "state").exists()


def test_an_unreachable_server_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with pytest.raises(RegistryError, match=f"127.0.0.1:{port} does not answer"):
        load_model("demo")


def test_files_that_are_gone_from_the_store_are_told(
    registry_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("THERACAST_HOME", str(registry_home))
    artifacts = registry_home / "artifacts"
    artifacts.rename(tmp_path / "elsewhere")
    try:
        with pytest.raises(RegistryError, match="Check that the artefact store is there"):
            load_model("models:/demo/2")
    finally:
        (tmp_path / "elsewhere").rename(artifacts)
