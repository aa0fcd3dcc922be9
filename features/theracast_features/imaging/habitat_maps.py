"""The maps of a region: series of the same study, brought onto the grid of the image that carries the region.

Only the box around the region is resampled. A map that is finer than that grid is smoothed first, to the width of the grid's
voxels, so that a voxel stands for all of its volume.

Source of the smoothing: Cardoso MJ et al. MICCAI 2015, LNCS 9350:81-88 (point spread of a change of scale).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from theracast_data.dicom.manifest import ImageRow
from theracast_data.dicom.pet import suv_volume
from theracast_data.dicom.series import load_series
from theracast_data.errors import ImageError
from theracast_data.volume import Region, Volume, same_grid
from theracast_features.imaging.habitat_section import HabitatMap
from theracast_features.imaging.habitats import habitat_fractions, habitat_map
from theracast_features.imaging.perturb import Perturbation, perturb
from theracast_features.imaging.registration import RigidRegistration, register_rigid, resample
from theracast_features.imaging.section import ImageMeasures
from theracast_features.imaging.tasks import ImageTask

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Box = tuple[slice, slice, slice]
_SEED = 7
_FWHM = 2.0 * np.sqrt(2.0 * np.log(2.0))  # of a Gaussian, in standard deviations
_NAMES = {"entropy_bits": "entropy", "spatial_entropy_bits": "spatial_entropy", "contact_different": "mixing"}


@dataclass(frozen=True)
class RegionMaps:
    """What the maps show of a region.

    Attributes:
        values: name to (n_slices, n_rows, n_columns) in the box around the region, NaN where a map shows nothing.
        mask: same shape.
        spacing_mm: (z, y, x).
        notes: how maps were brought onto the grid, with the quality of a registration.
    """

    values: Mapping[str, Floats]
    mask: Mask
    spacing_mm: tuple[float, float, float]
    notes: tuple[str, ...]

    def voxels(self, names: tuple[str, ...]) -> Floats:
        """Return (n_voxels, n_maps) of the region, the maps in this order."""
        return np.stack([self.values[name][self.mask] for name in names], axis=1)


def maps_of_region(task: ImageTask, volume: Volume, region: Region, *, margin: int = 0) -> RegionMaps:
    """Return the maps of the region of an image.

    Args:
        margin: voxels around the region that are held as well.

    Raises:
        ImageError: a map cannot be read or brought onto the grid, or leaves more of the region open than `covered` allows.
    """
    section = task.measures.habitats
    if section is None:
        raise ValueError(f"{task.name}: no `habitats`, so no maps")
    if not region.mask.any():
        raise ImageError("the region is empty. Leave it out, or draw it.")
    box = _box(region.mask, margin)
    mask = region.mask[box]
    values: dict[str, Floats] = {}
    notes: list[str] = []
    for name, row in task.maps:
        asked = section.maps[name]
        try:
            values[name], told = _on_grid(_read(row, asked), volume, region, box, asked)
        except (ImageError, ValueError) as error:
            raise ImageError(f"map {name}, series {row.series_uid}: {error}") from error
        if asked.scale == "region":
            values[name] = _scaled(values[name], mask, name)
        notes += [f"map {name}: {note}" for note in told]
    known = {name: float(np.isfinite(one[mask]).mean()) for name, one in values.items()}
    every = float(np.isfinite(np.stack([one[mask] for one in values.values()])).all(axis=0).mean())
    if every < section.covered:
        parts = ", ".join(f"{name} {part:.0%}" for name, part in known.items())
        raise ImageError(
            f"only {every:.0%} of the region has a number in every map ({parts}), less than `covered` asks for "
            f"({section.covered:.0%}). Take maps that show all of it, or lower `covered`."
        )
    return RegionMaps(values, mask, volume.spacing_mm, tuple(notes))


def measure_habitats(maps: RegionMaps, measures: ImageMeasures) -> dict[str, float]:
    """Return the measurements of the habitats of a region by name; a mean is NaN where the habitat does not occur.

    Raises:
        StudyError: habitats are not fitted.
    """
    fitted = measures.fitted_habitats
    if fitted is None:
        return {}
    habitats = fitted.habitats
    labels = habitat_map(habitats, [maps.values[name] for name in habitats.maps], maps.mask)
    inside, voxels = labels[maps.mask], maps.voxels(habitats.maps)
    found: dict[str, float] = {}
    for key, value in habitat_fractions(labels, maps.mask, maps.spacing_mm, count=habitats.count).items():
        kind, _, which = key.partition(".")
        if kind in ("fraction", "volume_ml"):
            found[f"habitat_{which}_{'ml' if kind == 'volume_ml' else kind}"] = value
        else:
            found[f"habitat_{_NAMES.get(kind, kind)}{'_' if which else ''}{which}"] = value
    for number in range(1, habitats.count + 1):
        own = voxels[inside == number]
        means = own.mean(axis=0) if len(own) else np.full(len(habitats.maps), np.nan)
        found |= {f"habitat_{number}_mean_{name}": float(one) for name, one in zip(habitats.maps, means, strict=True)}
    return found


def perturbed_habitats(
    maps: RegionMaps, measures: ImageMeasures, perturbations: Sequence[Perturbation]
) -> dict[str, dict[str, float]]:
    """Return `measure_habitats` under each perturbation, by its name; nothing where the region is gone.

    The region changes and the maps move alike, and each map has a noise of its own.

    Args:
        maps: with a margin into which the region can grow.
    """
    section = measures.habitats
    found: dict[str, dict[str, float]] = {}
    for one in perturbations:
        values: dict[str, Floats] = {}
        mask = maps.mask
        for number, (name, image) in enumerate(maps.values.items()):
            own = replace(one, seed=one.seed + number) if one.noise_levels else one
            values[name], mask = perturb(image, maps.mask, maps.spacing_mm, own)
        found[one.name] = {}
        if mask.any() and section is not None:
            for name in [name for name, asked in section.maps.items() if asked.scale == "region"]:
                values[name] = _scaled(values[name], mask, name)
            found[one.name] = measure_habitats(RegionMaps(values, mask, maps.spacing_mm, ()), measures)
    return found


def _read(row: ImageRow, asked: HabitatMap) -> Volume:
    series = load_series(Path(row.path), series_uid=row.series_uid)
    return series.volume if asked.suv is None else suv_volume(series, kind=asked.suv)


def _on_grid(
    moving: Volume, volume: Volume, region: Region, box: Box, asked: HabitatMap
) -> tuple[Floats, tuple[str, ...]]:
    """Return the map in the box of the image's grid, and what was done."""
    found: RigidRegistration | None = None
    notes = moving.notes
    if moving.series_uid == volume.series_uid and moving.series_uid is not None:
        pass  # the image itself lies where it lies
    elif asked.registration == "rigid":
        found = register_rigid(
            _whole(volume), volume.affine, _whole(moving), moving.affine, seed=_SEED, fixed_mask=region.mask
        )
        if not found.usable:
            raise ImageError(f"the rigid registration is refused: {'; '.join(found.refusals)}. Leave the image out.")
        notes = (*notes, _quality(found))
    elif moving.frame_of_reference is None or moving.frame_of_reference != volume.frame_of_reference:
        raise ImageError(
            "it does not share the frame of reference of the image with the region, so nothing says where it lies. Say "
            "`registration: rigid` for it, or take a series of the same session."
        )
    if found is None and moving.shape == volume.shape and same_grid(moving.affine, volume.affine, volume.shape):
        return np.asarray(moving.values[box], dtype=np.float64), notes
    affine = volume.affine.copy()
    affine[:3, 3] = (volume.affine @ [box[2].start, box[1].start, box[0].start, 1.0])[:3]
    matrix = None if found is None else found.matrix
    shape = region.mask[box].shape
    answer = resample(_smoothed(moving, volume), moving.affine, (shape[0], shape[1], shape[2]), affine, matrix=matrix)
    return answer, notes if found is not None else (*notes, "resampled to the grid of the image")


def _quality(found: RigidRegistration) -> str:
    back = (
        "" if np.isnan(found.inconsistency_mm) else f", there and back again ends {found.inconsistency_mm:.1f} mm away"
    )
    return (
        f"registered: the region moves by {found.displacement_mean_mm:.1f} mm, turned by {found.turn_degrees:.1f} degrees, "
        f"mutual information {found.information_before:.2f} to {found.information_after:.2f} nats{back}"
    )


def _whole(volume: Volume) -> NDArray[np.floating]:
    """Return the values with the lowest in place of padding, which the search cannot pass over."""
    if not volume.padded_voxels:
        return volume.values
    return volume.filled(float(np.nanmin(volume.values))).values


def _smoothed(moving: Volume, volume: Volume) -> NDArray[np.floating]:
    """Return the map as wide as the voxels of the grid along each axis of its own on which it is finer."""
    own = np.array(moving.spacing_mm)
    towards = np.abs(
        (moving.affine[:3, :3] / own[::-1]).T @ (volume.affine[:3, :3] / np.array(volume.spacing_mm)[::-1])
    )
    grid = np.array(volume.spacing_mm)[::-1][towards.argmax(axis=1)][::-1]  # of the axis that runs along each own one
    wider = np.sqrt(np.clip(grid**2 - own**2, 0.0, None))
    wider[grid < 1.05 * own] = 0.0
    if not wider.any():
        return moving.values
    smooth: Floats = gaussian_filter(moving.values.astype(np.float64), wider / _FWHM / own, mode="nearest")
    return smooth


def _scaled(values: Floats, mask: Mask, name: str) -> Floats:
    inside = values[mask & np.isfinite(values)]
    spread = float(inside.std()) if len(inside) else 0.0
    if not spread > 0:
        raise ImageError(f"map {name} does not vary in the region, so `scale: region` says nothing. Use another map.")
    return np.asarray((values - inside.mean()) / spread)


def _box(mask: Mask, margin: int) -> Box:
    ranges = [np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    z, y, x = (slice(max(int(one[0]) - margin, 0), int(one[-1]) + margin + 1) for one in ranges)
    return z, y, x
