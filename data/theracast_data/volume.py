"""An image and a region of it, on one regular grid in patient coordinates.

Arrays are (n_slices, n_rows, n_columns) = (z, y, x). Coordinates are those of DICOM: LPS, in mm (x grows to the patient's left,
y to the back, z to the head).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from theracast_data.errors import ImageError

FloatArray = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]

FARTHEST_MM = 1e6
"""A kilometre: beyond it, no scanner puts anything; the number is damaged."""


@dataclass(frozen=True)
class Batch:
    """What the image was made with: the usual suspects when features differ between scanners."""

    manufacturer: str | None = None
    model: str | None = None
    kernel: str | None = None
    slice_thickness_mm: float | None = None


@dataclass(frozen=True)
class Volume:
    """A three-dimensional image.

    Attributes:
        values: (n_slices, n_rows, n_columns), float32 where that holds every value exactly, else float64. NaN is padding:
            the scanner measured nothing there.
        affine: (4, 4), maps (column, row, slice, 1) to LPS mm. Its axes are at right angles.
        modality: as in DICOM, e.g. `CT`, `PT`, `MR`; None where the file does not say, as in NIfTI.
        unit: `HU`, `Bq/mL`, `g/mL`, `Gy`, another that the file names, or None for arbitrary units.
        frame_of_reference: UID of the patient coordinate system; images that share it lie over each other.
        series_uid: UID of the series.
        acquired: when the acquisition began, local time; None where the file does not say.
        subject_id: identifier of the patient.
        batch: scanner and reconstruction.
        notes: what a reader of results should know, e.g. lossy compression.
    """

    values: FloatArray
    affine: npt.NDArray[np.float64]
    modality: str | None = None
    unit: str | None = None
    frame_of_reference: str | None = None
    series_uid: str | None = None
    acquired: datetime | None = None
    subject_id: str | None = None
    batch: Batch = field(default_factory=Batch)
    notes: tuple[str, ...] = ()

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels, (z, y, x)."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n_slices, n_rows, n_columns)."""
        slices, rows, columns = self.values.shape
        return slices, rows, columns

    @property
    def padded_voxels(self) -> int:
        """How many voxels are padding (NaN)."""
        return int(np.count_nonzero(np.isnan(self.values)))

    def filled(self, value: float) -> Volume:
        """Return the image with `value` in place of padding, e.g. -1000 HU, for filters that cannot pass over a gap."""
        values = np.where(np.isnan(self.values), self.values.dtype.type(value), self.values)
        return replace(self, values=values, notes=(*self.notes, f"padding was filled with {value:g}"))


@dataclass(frozen=True)
class Region:
    """A part of an image, such as a tumour.

    Attributes:
        name: as in the source, e.g. `GTV_Mass`.
        mask: (n_slices, n_rows, n_columns), on the grid of the image that it was made for.
        affine: (4, 4) of that image.
        made_from: `rtstruct`, `seg`, `nifti` or `nrrd`.
        share_outside: share of the region (0 to 1) that lay outside the image and is lost.
        notes: what was done to it, e.g. that it was resampled.
    """

    name: str
    mask: BoolArray
    affine: npt.NDArray[np.float64]
    made_from: str
    share_outside: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in mL."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def volume_ml(self) -> float:
        """Volume of the region in mL: its voxels, counted."""
        return float(np.count_nonzero(self.mask)) * self.voxel_ml


def same_grid(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    """Return whether two affines put every voxel of a (z, y, x) shape at the same place, to a hundredth of a voxel."""
    slices, rows, columns = shape
    corners = np.array([[x, y, z, 1.0] for x in (0, columns - 1) for y in (0, rows - 1) for z in (0, slices - 1)])
    apart = np.abs((corners @ (first - second).T)[:, :3]).max()
    return bool(apart <= 0.01 * np.linalg.norm(first[:3, :3], axis=0).min())


def check_axes(affine: npt.NDArray[np.float64], place: str) -> None:
    """Check that an affine is finite and that its axes are at right angles.

    Raises:
        ImageError: a grid that is sheared, flat or not finite.
    """
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or np.abs(affine).max() > FARTHEST_MM:
        raise ImageError(f"{place}: the affine is no 4 x 4 matrix of lengths in mm. Export the image again.")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if (lengths <= 0).any():
        raise ImageError(f"{place}: a voxel has no extent along an axis of the affine. Export the image again.")
    axes = affine[:3, :3] / lengths
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3:
        raise ImageError(
            f"{place}: the grid is sheared (its axes are not at right angles), as after a gantry tilt. "
            "Resample the image to a rectangular grid first."
        )
