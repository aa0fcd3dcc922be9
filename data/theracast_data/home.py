"""Where Theracast keeps its state: `THERACAST_HOME`, by default `.theracast` in the working directory."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """Return the state folder (not created)."""
    return Path(os.environ.get("THERACAST_HOME") or ".theracast").resolve()


def feature_cache() -> Path:
    """Return the folder of feature tables in parts; it may be deleted at any time."""
    return home() / "features"


def tracking_uri() -> str:
    """Return MLflow's store: `MLFLOW_TRACKING_URI`, else the SQLite file in the state folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def artifact_root() -> Path:
    """Return the folder of the embedded store's artefacts."""
    return home() / "artifacts"


def prepare_mlflow() -> None:
    """Set MLflow's environment, before it is imported, to what a hospital expects; what is set already stays.

    No telemetry, no progress bars, no lines of its own on stdout, and artefacts always through the tracking server (its
    short cut hands out addresses inside the object store, which nobody outside that network can reach).
    """
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "false",
        "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "false",
    }.items():
        os.environ.setdefault(name, value)
