"""Fixtures for tests of imaging."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_imaging(repository: Path) -> Path:
    """The folder with the real images; without it the test is skipped."""
    data = Path(os.environ.get("THERACAST_DATA", repository.parent / "shared" / "cohorts"))
    folder = Path(os.environ.get("THERACAST_IMAGING", data.parent / "imaging"))
    if not (folder / "ibsi_reference_values").is_dir():
        pytest.skip(
            "the real images are not here; set THERACAST_IMAGING to the folder that holds sts/, dicom_seg/, ..."
        )
    return folder
