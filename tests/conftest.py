"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

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
