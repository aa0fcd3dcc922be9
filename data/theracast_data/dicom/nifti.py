"""NIfTI files to volumes. NIfTI counts to the right and front (RAS); here all is LPS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from theracast_data.errors import ImageError
from theracast_data.volume import Volume, check_axes, same_grid

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
LARGEST_EXACT = 2**24


def read_nifti(
    path: str | Path,
    *,
    modality: str | None = None,
    unit: str | None = None,
    subject_id: str | None = None,
    time_point: int | None = None,
) -> Volume:
    """Return the volume of a NIfTI file (.nii, .nii.gz).

    Args:
        path: the file.
        modality, unit, subject_id: what NIfTI cannot tell.
        time_point: the volume, from 0, of a file that holds several.

    Raises:
        ImageError: no NIfTI file, damaged, without orientation, with two that contradict, sheared, or of several volumes.
    """
    place = str(path)
    try:
        image: Any = nib.load(place)
        stored = np.asanyarray(image.dataobj)
    except FileNotFoundError as error:
        raise ImageError(f"{place}: there is no such file. Correct the path.") from error
    except Exception as error:  # nibabel, gzip and numpy fail in ways of their own
        raise ImageError(
            f"{place}: the file is no NIfTI image, or is damaged or truncated ({type(error).__name__}). Export it again."
        ) from error
    if not isinstance(image, nib.Nifti1Image):  # Nifti2Image is one too
        raise ImageError(f"{place}: this is no NIfTI image. Convert it to .nii.gz.")
    affine = RAS_TO_LPS @ _affine(image, place)
    check_axes(affine, place)
    values = real_values(_one_volume(stored, time_point, place), place)
    return Volume(np.ascontiguousarray(values.transpose(2, 1, 0)), affine, modality, unit, subject_id=subject_id)


def real_values(stored: npt.NDArray[Any], place: str) -> npt.NDArray[Any]:
    """Return values as float32 where that holds them exactly, else float64."""
    if stored.dtype.kind not in "iufb":
        raise ImageError(f"{place}: the values are of type {stored.dtype}, not real numbers. Convert the image.")
    if stored.dtype.kind == "f":
        if np.isinf(stored).any():
            raise ImageError(f"{place}: values are infinite. Export the image again.")
        return stored.astype(np.float32 if stored.dtype.itemsize <= 4 else np.float64)
    small = stored.size == 0 or max(abs(int(stored.min())), abs(int(stored.max()))) <= LARGEST_EXACT
    return stored.astype(np.float32 if small else np.float64)


def _affine(image: Any, place: str) -> npt.NDArray[np.float64]:
    """Return the affine in RAS mm; sform and qform must not contradict."""
    try:
        units = str(image.header.get_xyzt_units()[0])
        sform, s_code = image.get_sform(coded=True)
        qform, q_code = image.get_qform(coded=True)
    except Exception as error:  # codes that nibabel does not know, quaternions that are none
        raise ImageError(
            f"{place}: the header tells an orientation that cannot be read. Export the image again."
        ) from error
    if units not in ("mm", "unknown"):
        raise ImageError(f"{place}: lengths are in {units}, not mm. Convert the image.")
    if not s_code and not q_code:
        raise ImageError(
            f"{place}: the file tells no orientation (sform_code and qform_code are 0). Convert the image again, from DICOM."
        )
    if s_code and q_code and not same_grid(sform, qform, tuple(image.shape[2::-1])):
        raise ImageError(
            f"{place}: sform and qform contradict each other. Convert the image again, or delete the wrong one."
        )
    chosen = sform if s_code else qform
    return np.asarray(chosen, dtype=np.float64)


def _one_volume(stored: npt.NDArray[Any], time_point: int | None, place: str) -> npt.NDArray[Any]:
    if stored.ndim < 3 or stored.size == 0:
        raise ImageError(f"{place}: the image has {stored.ndim} dimensions, not 3. Name the file of a volume.")
    while stored.ndim > 4 and stored.shape[-1] == 1:
        stored = stored[..., 0]
    if stored.ndim == 4 and stored.shape[3] == 1 and time_point is None:
        return stored[..., 0]
    if stored.ndim == 3:
        if time_point not in (None, 0):
            raise ImageError(f"{place}: time_point is {time_point}, but the file holds one volume.")
        return stored
    if stored.ndim > 4 or time_point is None or not 0 <= time_point < stored.shape[3]:
        count = int(np.prod(stored.shape[3:]))
        raise ImageError(f"{place}: the file holds {count} volumes. Choose one with time_point, from 0 to {count - 1}.")
    return stored[..., time_point]
