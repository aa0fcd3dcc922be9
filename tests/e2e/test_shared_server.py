"""The shared server of mlflow/compose.yaml, started for real: its command, settings, users, and our registry on it."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from theracast_data.errors import RegistryError
from theracast_training import registry

pytestmark = pytest.mark.slow

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)


@dataclass(frozen=True)
class Server:
    uri: str
    password: str
    artifacts: Path


def filled(text: str, values: Mapping[str, str]) -> str:
    """Compose's own substitution: `${NAME:?message}` must be there, `${NAME:-default}` may be."""

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        return values[name] if kind == ":?" else values.get(name, rest)

    return re.sub(r"\$\{(\w+)(:\?|:-)([^}]*)\}", value, text)


Started = Callable[..., contextlib.AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def server(
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
    postgres: Started,
    running: Started,
    free_port: Callable[[], int],
) -> Iterator[Server]:
    """The server of mlflow/compose.yaml: same command, same settings; only places and the artefact store differ."""
    folder = tmp_path_factory.mktemp("server")
    names = ["POSTGRES_PASSWORD", "MLFLOW_ADMIN_PASSWORD", "MLFLOW_SECRET_KEY", "S3_SECRET_KEY"]
    values = {name: secrets.token_hex(16) for name in names}
    compose = yaml.safe_load((repository / "mlflow" / "compose.yaml").read_text())
    service = compose["services"]["mlflow"]
    with postgres("mlflow", password=values["POSTGRES_PASSWORD"]) as database:
        connection = database.connect()
        connection.autocommit = True
        connection.cursor().execute("create database mlflow")
        connection.close()
        place = f"@127.0.0.1:{database.port}/"
        settings = dict(
            line.split("=", 1)
            for file in service["env_file"]
            for line in (repository / "mlflow" / file).read_text().splitlines()
            if line and not line.startswith("#")
        )
        settings |= {
            name: filled(text, values).replace("@database:5432/", place)
            for name, text in service["environment"].items()
        }
        users = folder / "auth.ini"
        users.write_text(filled(compose["configs"]["auth"]["content"], values).replace("@database:5432/", place))
        settings |= {
            "MLFLOW_AUTH_CONFIG_PATH": str(users),
            "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
            "MLFLOW_HOST": "127.0.0.1",
            "MLFLOW_PORT": str(free_port()),
        }
        own = {name: text for name, text in os.environ.items() if not name.startswith(("MLFLOW_", "AWS_"))}
        own["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{own.get('PATH', '')}"
        uri, log = f"http://127.0.0.1:{settings['MLFLOW_PORT']}", folder / "log"
        with running(service["command"], log=log, env={**own, **settings}, cwd=folder) as process:
            wait_until_healthy(uri, process, log)
            yield Server(uri, values["MLFLOW_ADMIN_PASSWORD"], folder / "artifacts")


def wait_until_healthy(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the server of compose.yaml did not start:\n{log.read_text()[-3000:]}")


@pytest.fixture
def signed_in(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", server.password)
    return server


def published(server: Server, name: str, folder: Path, *, versions: int = 1) -> tuple[MlflowClient, str]:
    """A run with a metric and an artefact, registered under `name`; client and run id."""
    client = MlflowClient(tracking_uri=server.uri)
    run = client.create_run(client.create_experiment(name))
    client.log_metric(run.info.run_id, "auc", 0.75)
    (folder / "card.md").write_text(f"# {name}")
    client.log_artifact(run.info.run_id, str(folder / "card.md"), "model")
    client.set_terminated(run.info.run_id)
    client.create_registered_model(name)
    for _ in range(versions):
        client.create_model_version(name, f"{run.info.artifact_uri}/model", run.info.run_id)
    return client, run.info.run_id


def test_run_model_alias_and_history_on_the_shared_server(signed_in: Server, tmp_path: Path) -> None:
    client, run_id = published(signed_in, "icb", tmp_path, versions=2)

    registry.set_alias("icb", 1, "champion", override="first", actor="ada", now=NOW)
    registry.set_alias("icb", 2, "champion", override="better", actor="ada", now=NOW)
    undone = registry.rollback("icb", actor="bob", now=NOW)

    moves = registry.history("icb")
    assert [(move.number, move.who, move.from_version, move.to_version) for move in moves] == [
        (1, "ada", None, 1),
        (2, "ada", 1, 2),
        (3, "bob", 2, 1),
    ]
    assert undone.undoes == 2
    assert registry.show("icb@champion").version == 1
    assert client.get_metric_history(run_id, "auc")[0].value == 0.75
    assert [path.read_text() for path in signed_in.artifacts.rglob("card.md")] == ["# icb"]
    downloaded = client.download_artifacts(run_id, "model/card.md", str(tmp_path))
    assert Path(downloaded).read_text() == "# icb"


def test_colleagues_who_move_at_once_overwrite_no_record(signed_in: Server, tmp_path: Path) -> None:
    published(signed_in, "ispy2", tmp_path, versions=4)
    start = threading.Barrier(4)

    def move(version: int) -> registry.Move | RegistryError:
        start.wait()
        try:
            return registry.set_alias("ispy2", version, "champion", override=f"{version}", actor="ada", now=NOW)
        except RegistryError as refused:
            return refused

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(move, (1, 2, 3, 4)))

    moves = registry.history("ispy2")
    made = [outcome for outcome in outcomes if isinstance(outcome, registry.Move)]
    assert sorted(made, key=lambda one: one.number) == list(moves)
    assert registry.show("ispy2@champion").version == moves[-1].to_version
    assert [move.from_version for move in moves] == [None, *(move.to_version for move in moves[:-1])]


@pytest.mark.filterwarnings("ignore:starlette.middleware.wsgi is deprecated")  # MLflow's client of users imports it
def test_who_may_read_may_not_move_until_given_the_permission(
    signed_in: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.server import get_app_client

    published(signed_in, "oak", tmp_path)
    users = get_app_client("basic-auth", tracking_uri=signed_in.uri)
    users.create_user("reader", "long-enough-secret")

    def sign_in(name: str, password: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)

    sign_in("reader", "long-enough-secret")
    assert registry.show("oak").version == 1
    with pytest.raises(RegistryError, match="may not do that"):
        registry.set_alias("oak", 1, "pilot", actor="reader", now=NOW)
    assert registry.history("oak") == ()

    sign_in("admin", signed_in.password)
    users.grant_user_permission("reader", "registered_model", "oak", "EDIT")
    sign_in("reader", "long-enough-secret")
    assert registry.set_alias("oak", 1, "pilot", actor="reader", now=NOW).number == 1


def test_a_wrong_password_is_refused(signed_in: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong")
    with pytest.raises(RegistryError, match="MLFLOW_TRACKING_PASSWORD"):
        registry.list_models()


def test_nobody_reads_without_a_password(server: Server) -> None:
    with pytest.raises(urllib.error.HTTPError) as found:
        urllib.request.urlopen(f"{server.uri}/api/2.0/mlflow/registered-models/search", timeout=5)
    assert found.value.code == 401
    found.value.close()


def test_compose_has_no_default_password_and_one_quiet_worker(repository: Path) -> None:
    text = (repository / "mlflow" / "compose.yaml").read_text()
    for line in text.splitlines():
        if "PASSWORD" in line or "SECRET" in line:
            assert ":-" not in line
    settings = (repository / "mlflow" / "server.env").read_text().splitlines()
    assert {"MLFLOW_WORKERS=1", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "MLFLOW_DISABLE_TELEMETRY=true"} <= set(
        settings
    )
