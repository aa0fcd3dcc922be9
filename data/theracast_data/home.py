"""Where Theracast keeps its state: `THERACAST_HOME`, by default `.theracast` in the working directory."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """Return the state folder (not created)."""
    return Path(os.environ.get("THERACAST_HOME") or ".theracast").resolve()


def tracking_uri() -> str:
    """Return MLflow's store: `MLFLOW_TRACKING_URI`, else the SQLite file in the state folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def artifact_root() -> Path:
    """Return the folder of the embedded store's artefacts."""
    return home() / "artifacts"
