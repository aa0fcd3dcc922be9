"""A region of any format on the grid of an image: RTSTRUCT, DICOM SEG, NIfTI or NRRD."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from theracast_data.dicom.nifti import read_nifti
from theracast_data.dicom.nrrd_file import load_nrrd
from theracast_data.dicom.placement import place_mask, placed_region
from theracast_data.dicom.rtstruct import read_rtstruct
from theracast_data.dicom.segmentation import read_segmentation
from theracast_data.errors import ImageError
from theracast_data.volume import Region, Volume

SHOWN = 10


def region_format(path: str | Path) -> str:
    """Return `nifti`, `nrrd` or `dicom`, by the ending of the name."""
    name = Path(path).name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return "nifti"
    return "nrrd" if name.endswith((".nrrd", ".nhdr")) else "dicom"


def read_mask(
    path: str | Path,
    volume: Volume,
    *,
    name: str | None = None,
    label: int | None = None,
    resample: bool = False,
) -> Region:
    """Return a mask of a NIfTI or NRRD file as a region of the image.

    Args:
        path: the file.
        volume: the image; the mask is matched to it by its affine.
        name: of the region; by default that of the segment (3D Slicer), else of the file.
        label: value of the region where the file holds several.
        resample: allow another grid than that of the image (nearest voxel).

    Raises:
        ImageError: values that are no labels, several labels and none chosen, another grid, outside of the image.
    """
    made_from = region_format(path)
    place = str(path)
    header: dict[str, Any] = {}
    if made_from == "nrrd":
        mask, header = load_nrrd(path)
    else:
        mask = read_nifti(path)
    values = mask.values
    if np.isnan(values).any() or (values != np.round(values)).any():
        raise ImageError(f"{place}: the values are no whole numbers, so that this is no mask. Name the mask.")
    there = [int(one) for one in np.unique(values) if one != 0]
    if label is None and len(there) > 1:
        shown = ", ".join(map(str, there[:SHOWN]))
        raise ImageError(f"{place}: the mask holds {len(there)} labels ({shown}). Choose one with label.")
    if label is not None and label not in there:
        raise ImageError(
            f"{place}: no voxel has the label {label}; there are {', '.join(map(str, there[:SHOWN])) or 'none'}."
        )
    chosen = label if label is not None else (there[0] if there else 1)
    placed, share, notes = place_mask(values == chosen, mask.affine, volume, resample=resample, place=place)
    title = name or _slicer_name(header, chosen) or Path(path).name.split(".")[0]
    return placed_region(title, placed, volume, made_from, share_outside=share, notes=notes, place=place)


def read_region(path: str | Path, name: str, volume: Volume, **options: Any) -> Region:
    """Return a region by its name, whatever the format of the file; `options` are those of the format's reader.

    Raises:
        ImageError: see `read_rtstruct`, `read_segmentation` and `read_mask`.
    """
    if region_format(path) != "dicom":
        return read_mask(path, volume, name=name, **options)
    if dicom_kind(path) == "SEG":
        return read_segmentation(path, name, volume, **options)
    return read_rtstruct(path, name, volume, **options)


def dicom_kind(path: str | Path) -> str | None:
    """Return the Modality (0008,0060) of a DICOM file."""
    from theracast_data.dicom.header import View, open_dicom

    return View((open_dicom(Path(path), pixels=False),), str(path)).text("Modality")


def _slicer_name(header: dict[str, Any], label: int) -> str | None:
    """Return the name that 3D Slicer gave a label in a .seg.nrrd file."""
    for key, value in header.items():
        if key.startswith("Segment") and key.endswith("_LabelValue") and str(value) == str(label):
            return header.get(key.replace("_LabelValue", "_Name"))
    return None
