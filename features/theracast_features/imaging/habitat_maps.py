"""The maps of a region: series of the same study, brought onto the grid of the image that carries the region.

Only the box around the region is resampled; see `on_grid`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from theracast_data.dicom.manifest import ImageRow
from theracast_data.dicom.pet import suv_volume
from theracast_data.dicom.series import load_series
from theracast_data.errors import ImageError
from theracast_data.volume import Region, Volume
from theracast_features.imaging.grid import RESAMPLED, Box, box_of, check_lies_over, on_grid
from theracast_features.imaging.habitat_section import HabitatMap
from theracast_features.imaging.habitats import habitat_fractions, habitat_map
from theracast_features.imaging.perturb import Perturbation, perturb
from theracast_features.imaging.registration import RigidRegistration, register_rigid
from theracast_features.imaging.section import ImageMeasures
from theracast_features.imaging.tasks import ImageTask

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
_SEED = 7
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
    box = box_of(region.mask, margin)
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
    itself = moving.series_uid == volume.series_uid and moving.series_uid is not None
    if asked.registration == "rigid" and not itself:
        found = register_rigid(
            _whole(volume), volume.affine, _whole(moving), moving.affine, seed=_SEED, fixed_mask=region.mask
        )
        if not found.usable:
            raise ImageError(f"the rigid registration is refused: {'; '.join(found.refusals)}. Leave the image out.")
        notes = (*notes, _quality(found))
    else:
        check_lies_over(moving, volume, "Say `registration: rigid` for it, or take a series of the same session.")
    answer, resampled = on_grid(moving, volume, box, matrix=None if found is None else found.matrix)
    return answer, (*notes, RESAMPLED) if resampled and found is None else notes


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


def _scaled(values: Floats, mask: Mask, name: str) -> Floats:
    inside = values[mask & np.isfinite(values)]
    spread = float(inside.std()) if len(inside) else 0.0
    if not spread > 0:
        raise ImageError(f"map {name} does not vary in the region, so `scale: region` says nothing. Use another map.")
    return np.asarray((values - inside.mean()) / spread)
