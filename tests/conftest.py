"""Fixtures for all tests."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_cohorts(repository: Path) -> Path:
    """The folder with the real cohorts; without it the test is skipped."""
    folder = Path(os.environ.get("THERACAST_DATA", repository.parent / "shared" / "cohorts"))
    if not (folder / "icb").is_dir():
        pytest.skip("the real cohorts are not here; set THERACAST_DATA to the folder that holds icb/, oak/, ...")
    return folder


@contextlib.contextmanager
def _running(command: list[str], *, log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in a process group of its own; the whole group is gone afterwards, whatever happens."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, **options
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _postgres_folder() -> Path:
    """The newest folder with PostgreSQL's server programs, or a skip."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda one: -float(one.parent.name))
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")


def _as_postgres() -> list[str]:
    """The words before a command that PostgreSQL accepts: it refuses to run as root."""
    if os.geteuid() != 0:
        return []
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("PostgreSQL does not run as root and there is no user `postgres` here")
    if not shutil.which("setpriv"):
        pytest.skip("PostgreSQL does not run as root and there is no `setpriv` here")
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL that runs on this machine."""

    port: int
    user: str
    password: str | None
    log: Path

    def connect(self) -> Any:
        """Return a connection, as soon as there is one to be had."""
        pg8000 = pytest.importorskip("pg8000.dbapi", reason="pip install 'theracast[server]'")
        for _ in range(100):
            try:
                return pg8000.connect(self.user, "127.0.0.1", "postgres", self.port, self.password)
            except (pg8000.Error, OSError):
                time.sleep(0.2)
        pytest.fail(f"PostgreSQL did not start:\n{self.log.read_text()[-3000:]}")


@contextlib.contextmanager
def _postgres(user: str, *, password: str | None = None) -> Iterator[Postgres]:
    """Run a PostgreSQL with one user; without password it trusts everybody."""
    programs, prefix, port = _postgres_folder(), _as_postgres(), _free_port()
    # Not tmp_path: the user `postgres` cannot enter it, and the socket's path must stay short.
    folder = Path(tempfile.mkdtemp(prefix="theracast-pg-", dir="/tmp"))
    try:
        secret = folder / "password"
        secret.write_text(password or "")
        if prefix:
            for one in (folder, secret):
                shutil.chown(one, "postgres")
        options = ["-A", "trust"] if password is None else ["-A", "scram-sha-256", "--pwfile", str(secret)]
        initdb = [*prefix, str(programs / "initdb"), "-D", str(folder / "db"), "-U", user, *options]
        encoded = ["-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run([*initdb, *encoded], check=True, capture_output=True, cwd="/")
        command = [*prefix, str(programs / "postgres"), "-D", str(folder / "db"), "-p", str(port), "-k", str(folder)]
        with _running([*command, "-h", "127.0.0.1", "-F"], log=folder / "log", cwd="/"):
            yield Postgres(port, user, password, folder / "log")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Callable[..., contextlib.AbstractContextManager[Any]]:
    """A real PostgreSQL: `with postgres("reader") as database:`, then `database.connect()` and `database.port`."""
    return _postgres


@pytest.fixture(scope="session")
def running() -> Callable[..., contextlib.AbstractContextManager[Any]]:
    """A server process that is gone afterwards: `with running(command, log=path) as process:`."""
    return _running


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A function that gives a port on which nothing listens."""
    return _free_port
