"""The command line of features/README.md: `spark-submit` on two local cores gives the features that DuckDB gives."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

import theracast
from theracast.main import main
from theracast_data.events.ingest import ingest, read_spec
from theracast_data.events.store import EventStore
from theracast_data.synthetic import export, generate

MAIN = Path(theracast.__file__).with_name("__main__.py")


@pytest.fixture
def submit() -> str:
    """The program, of the installation that runs the tests; skipped where it or Java are absent."""
    pytest.importorskip("pyspark", reason="pyspark is not installed (extra theracast[spark])")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("Spark needs Java 17, which is not installed")
    found = shutil.which("spark-submit", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    assert found is not None, "pyspark brings spark-submit"
    return found


def documented(repository: Path) -> list[str]:
    """The words of the command in features/README.md."""
    text = (repository / "features" / "README.md").read_text(encoding="utf-8")
    command = re.search(r"^spark-submit (?:.*\\\n)*.*$", text, re.MULTILINE)
    assert command is not None
    return shlex.split(command[0].replace("\\\n", " "))


def test_the_documented_command_gives_the_cells_of_duckdb(
    submit: str, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THERACAST_DATA", str(tmp_path))
    export(generate(tmp_path, patients=60), tmp_path / "export")
    store = EventStore.create(tmp_path / "store", shards=1)
    spec = read_spec(repository / "studies" / "ingest" / "demo.yaml")
    ingest(spec, base=tmp_path, store=store, now=datetime(2026, 1, 1, tzinfo=UTC))
    study = shutil.copy(repository / "studies" / "demo.yaml", tmp_path / "study.yaml")
    assert main(["features", str(study), "--out", str(tmp_path / "duckdb.parquet"), "--no-cache"]) == 0
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    untouched = scratch.stat().st_mtime_ns
    changed = {
        "spark-submit": submit,
        "spark://HOST:7077": "local[2]",
        "spark.theracast.scratch=/shared/scratch": f"spark.theracast.scratch={scratch}",
        "spark.sql.shuffle.partitions=64": "spark.sql.shuffle.partitions=2",
        "8g": "1g",
        "$MAIN": str(MAIN),
        "study.yaml": str(study),
        "/shared/features.parquet": str(tmp_path / "spark.parquet"),
    }
    command = documented(repository)
    assert set(changed) <= set(command)
    own = os.environ | {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    quiet = ["--conf", "spark.ui.enabled=false"]
    words = [changed.get(word, word) for word in command]
    done = subprocess.run([words[0], *quiet, *words[1:]], env=own, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "SparkContext" in done.stderr, "it ran on Spark"
    ours, theirs = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("duckdb", "spark"))
    pd.testing.assert_frame_equal(ours, theirs, check_exact=False, rtol=1e-12)
    assert len(ours) == 60
    assert scratch.stat().st_mtime_ns > untouched, "files were exchanged there"
    assert not list(scratch.iterdir()), "and are gone"
