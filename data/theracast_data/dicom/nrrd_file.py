"""NRRD files to volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nrrd  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt

from theracast_data.dicom.nifti import real_values
from theracast_data.errors import ImageError
from theracast_data.volume import Volume, check_axes

SPACES = {
    "left-posterior-superior": (1.0, 1.0, 1.0),
    "lps": (1.0, 1.0, 1.0),
    "right-anterior-superior": (-1.0, -1.0, 1.0),
    "ras": (-1.0, -1.0, 1.0),
    "left-anterior-superior": (1.0, -1.0, 1.0),
    "las": (1.0, -1.0, 1.0),
}
"""Spaces that NRRD names, as signs of their axes in LPS. Source: NRRD format definition, section 5."""


def read_nrrd(
    path: str | Path, *, modality: str | None = None, unit: str | None = None, subject_id: str | None = None
) -> Volume:
    """Return the volume of an NRRD file.

    Args:
        path: the file.
        modality, unit, subject_id: what NRRD does not tell.

    Raises:
        ImageError: no NRRD file, damaged, not three-dimensional, without space or origin, or sheared.
    """
    return load_nrrd(path, modality=modality, unit=unit, subject_id=subject_id)[0]


def load_nrrd(
    path: str | Path, *, modality: str | None = None, unit: str | None = None, subject_id: str | None = None
) -> tuple[Volume, dict[str, Any]]:
    """Return the volume of an NRRD file and its header; see `read_nrrd`."""
    place = str(path)
    try:
        stored, header = nrrd.read(place)
    except FileNotFoundError as error:
        raise ImageError(f"{place}: there is no such file. Correct the path.") from error
    except Exception as error:  # pynrrd, gzip and numpy fail in ways of their own
        raise ImageError(
            f"{place}: the file is no NRRD image, or is damaged or truncated ({type(error).__name__}). Export it again."
        ) from error
    if stored.ndim != 3 or stored.size == 0:
        raise ImageError(f"{place}: the image has {stored.ndim} dimensions, not 3. Export one volume.")
    affine = _affine(header, place)
    check_axes(affine, place)
    values = real_values(np.asarray(stored), place)
    return Volume(
        np.ascontiguousarray(values.transpose(2, 1, 0)), affine, modality, unit, subject_id=subject_id
    ), header


def _affine(header: dict[str, Any], place: str) -> npt.NDArray[np.float64]:
    space = str(header.get("space", "")).lower()
    if space not in SPACES:
        raise ImageError(
            f"{place}: the header names {'the space ' + repr(space) if space else 'no space'}; a patient space is needed "
            f"({', '.join(name for name in SPACES if '-' in name)}). Export the image again with its orientation."
        )
    if any("mm" not in str(one) for one in np.atleast_1d(header.get("space units", ["mm"]))):
        raise ImageError(f"{place}: lengths are not in mm. Convert the image.")
    directions, origin = header.get("space directions"), header.get("space origin")
    try:
        axes, start = np.array(directions, dtype=np.float64), np.array(origin, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ImageError(
            f"{place}: 'space directions' or 'space origin' is not numbers. Export the image again."
        ) from error
    if axes.shape != (3, 3) or start.shape != (3,):
        raise ImageError(f"{place}: 'space directions' or 'space origin' is missing. Export the image again.")
    affine = np.eye(4)
    affine[:3, :3] = axes.T
    affine[:3, 3] = start
    return np.asarray(np.diag([*SPACES[space], 1.0]) @ affine)
