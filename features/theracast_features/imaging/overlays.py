"""What lies over a region beside its image: the dose of radiotherapy, and the phases of a dynamic series.

Both are brought onto the grid of the image by their places in the patient: the frame of reference must be shared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from theracast_data.dicom.dose import dose_made, dose_on_grid, dose_volume, read_dose, whole_plan_dose
from theracast_data.dicom.phases import Phase, load_phase, phases_in_series, phases_of_series
from theracast_data.dicom.series import Series, load_series
from theracast_data.errors import ImageError, TheracastError
from theracast_data.volume import Region, Volume, same_grid
from theracast_features.imaging.grid import RESAMPLED, Box, box_of, check_lies_over, on_grid
from theracast_features.imaging.overlay_measure import measure_dose, measure_enhancement
from theracast_features.imaging.overlay_section import DynamicContrast, PhaseChoice, PlannedDose
from theracast_features.imaging.perturb import Perturbation, perturb
from theracast_features.imaging.section import ImageMeasures
from theracast_features.imaging.tasks import ImageTask

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
DOSE = "dose"
LATE_DOSE_DAYS = 60


@dataclass(frozen=True)
class Overlays:
    """What lies over a region.

    Attributes:
        values: `dose` (Gy) and the phases `pre`, `early`, `late`, each (n_slices, n_rows, n_columns) in the box around the
            region, NaN where it shows nothing.
        mask: same shape.
        spacing_mm: (z, y, x).
        known: of the dose and of the phases (`enhancement`), when they could be known.
        notes: how they were brought onto the grid.
    """

    values: Mapping[str, Floats]
    mask: Mask
    spacing_mm: tuple[float, float, float]
    known: Mapping[str, datetime]
    notes: tuple[str, ...]


def image_series(task: ImageTask) -> Series:
    """Return the series of a task; of a dynamic one that holds all phases, the early phase.

    Raises:
        ImageError: it cannot be read, or has not the phases that are asked for.
    """
    asked = task.measures.enhancement
    if asked is None or asked.series:
        return load_series(Path(task.row.path), series_uid=task.row.series_uid)
    return load_phase(_chosen(_phases(task), asked)[1])


def overlays_of_region(task: ImageTask, volume: Volume, region: Region, *, margin: int = 0) -> Overlays:
    """Return what lies over the region of an image, as far as the study asks for it.

    Args:
        margin: voxels around the region that are held as well.

    Raises:
        ImageError: the dose or a phase is missing, ambiguous, of another frame of reference, or cannot be read.
    """
    if not region.mask.any():
        raise ImageError("the region is empty. Leave it out, or draw it.")
    box = box_of(region.mask, margin)
    values: dict[str, Floats] = {}
    known: dict[str, datetime] = {}
    notes: list[str] = []
    if task.measures.dose is not None:
        dose, made, told = _planned_dose(task, task.measures.dose, volume.acquired)
        needed = np.ones_like(region.mask[box]) if margin else region.mask[box]
        values[DOSE] = dose_on_grid(dose, volume, needed=needed, origin=(box[0].start, box[1].start, box[2].start))
        known |= {} if made is None else {DOSE: made}
        notes += told
    if task.measures.enhancement is not None:
        signals, ended, told = _signals(task, task.measures.enhancement, volume, box)
        values |= signals
        known |= {} if ended is None else {"enhancement": ended}
        notes += told
    return Overlays(values, region.mask[box], volume.spacing_mm, known, tuple(notes))


def measure_overlays(overlays: Overlays, measures: ImageMeasures) -> dict[str, dict[str, float]]:
    """Return what is measured of the dose and of the enhancement, each by name.

    Raises:
        ImageError, ValueError: the region lies beyond the dose grid or the phases, or is empty.
    """
    found: dict[str, dict[str, float]] = {}
    mask, values = overlays.mask, overlays.values
    if measures.dose is not None:
        voxel_ml = float(np.prod(overlays.spacing_mm)) / 1000.0
        doses = values[DOSE][mask]
        histogram = dose_volume(doses, voxel_ml=voxel_ml, outside=measures.dose.outside, place="the region")
        found[DOSE] = measure_dose(histogram, measures.dose)
    if measures.enhancement is not None:
        lost = float(np.mean([np.isnan(values[name][mask]).mean() for name in ("pre", "early", "late")]))
        if lost > 0:
            raise ImageError(
                f"{lost:.1%} of the region lies beyond the phases of the dynamic series. Draw it within them, or fetch all."
            )
        found["enhancement"] = measure_enhancement(
            values["pre"],
            values["early"],
            values["late"],
            mask,
            spacing_mm=overlays.spacing_mm,
            asked=measures.enhancement,
        )
    return found


def perturbed_overlays(
    overlays: Overlays, measures: ImageMeasures, perturbations: Sequence[Perturbation]
) -> dict[str, dict[str, float]]:
    """Return all measurements under each perturbation, by its name; nothing where the region is gone or has left the dose.

    The region changes and all moves alike; each phase has a noise of its own, a computed dose has none.

    Args:
        overlays: with a margin into which the region can grow.
    """
    found: dict[str, dict[str, float]] = {}
    for one in perturbations:
        values: dict[str, Floats] = {}
        mask = overlays.mask
        for number, (name, image) in enumerate(overlays.values.items()):
            noisy = 0.0 if name == DOSE else one.noise_levels
            own = replace(one, noise_levels=noisy, seed=one.seed + number if noisy else one.seed)
            values[name], mask = perturb(image, overlays.mask, overlays.spacing_mm, own)
        found[one.name] = {}
        try:
            measured = measure_overlays(replace(overlays, values=values, mask=mask), measures) if mask.any() else {}
        except (TheracastError, ValueError):
            continue
        found[one.name] = {name: value for part in measured.values() for name, value in part.items()}
    return found


def _planned_dose(
    task: ImageTask, asked: PlannedDose, acquired: datetime | None
) -> tuple[Volume, datetime | None, list[str]]:
    """Return the dose over an image, when it was known (None: with the image), and notes."""
    path = whole_plan_dose(task.row.dose_paths, summations=asked.summation)
    dose = read_dose(path)
    notes = list(dose.notes)
    if asked.known == "scan":
        return dose, None, notes
    made = dose_made(path)
    if made is None:
        raise ImageError(
            f"{path}: the RTDOSE does not say when it was made, so from when it was known is open. Say `dose.known: scan` if "
            "it may count with the image."
        )
    known, day_only = made
    if day_only:
        known = known.replace(hour=23, minute=59, second=59, microsecond=999999)
    if acquired is not None and known - acquired > timedelta(days=LATE_DOSE_DAYS):
        notes.append(
            f"the dose was made more than {LATE_DOSE_DAYS} days after the image, and is known from then on; where files were "
            "written anew, say `dose.known: scan`"
        )
    return dose, known, notes


def _signals(
    task: ImageTask, asked: DynamicContrast, volume: Volume, box: Box
) -> tuple[dict[str, Floats], datetime | None, list[str]]:
    """Return the three phases in the box, when the last of them began, and notes."""
    phases = _phases(task)
    chosen = _chosen(phases, asked)
    numbers = [phases.index(one) + 1 for one in chosen]
    notes = [f"phases {numbers[0]}, {numbers[1]} and {numbers[2]} of {len(phases)} were compared"]
    if chosen[0].told_by == "ContentTime":
        notes.append("phases were told apart by ContentTime (0008,0033), when their pixels were made")
    volumes = [load_phase(phase).volume for phase in chosen]
    found: dict[str, Floats] = {}
    for name, one in zip(("pre", "early", "late"), volumes, strict=True):
        check_lies_over(one, volume, "Take phases of the session in which the region was drawn.")
        if one.shape != volumes[0].shape or not same_grid(one.affine, volumes[0].affine, one.shape):
            raise ImageError(
                f"the {name} phase lies on another grid than the one before contrast, so voxels cannot be compared. Take phases "
                "of one acquisition."
            )
        found[name], resampled = on_grid(one, volume, box)
    if resampled:
        notes.append(f"phases were {RESAMPLED}")
    return found, max((one.acquired for one in volumes if one.acquired), default=None), notes


def _phases(task: ImageTask) -> tuple[Phase, ...]:
    if not task.phases:
        return phases_in_series(task.row.path, series_uid=task.row.series_uid)
    return phases_of_series([(Path(row.path), row.series_uid, row.acquired) for row in task.phases])


def _chosen(phases: Sequence[Phase], asked: DynamicContrast) -> tuple[Phase, Phase, Phase]:
    """Return the phases before contrast, early and late after it.

    Raises:
        ImageError: one is not there, or they are not three in this order.
    """
    places = [_place_of(phases, one, asked) for one in (asked.pre, asked.early, asked.late)]
    if not places[0] < places[1] < places[2]:
        shown = ", ".join(str(place + 1) for place in places)
        raise ImageError(
            f"the phases before contrast, early and late are {shown} of {len(phases)}: they are three in this order. Correct "
            "`enhancement.pre`, `early` and `late`."
        )
    return phases[places[0]], phases[places[1]], phases[places[2]]


def _place_of(phases: Sequence[Phase], asked: PhaseChoice, options: DynamicContrast) -> int:
    if asked == "last":
        return len(phases) - 1
    if isinstance(asked, int):
        if asked > len(phases):
            raise ImageError(
                f"phase {asked} is asked for and there are {len(phases)}. Fetch it, or correct `enhancement`."
            )
        return asked - 1
    wanted, start = float(asked.removesuffix("s")), phases[options.pre - 1].begins_s
    after = [None if one.begins_s is None or start is None else one.begins_s - start for one in phases]
    told = [one for one in after if one is not None]
    if len(told) < len(phases):
        raise ImageError(
            f"the phase {asked} after contrast is asked for, and the phases do not tell their times. Ask for it by its number."
        )
    place = int(np.argmin(np.abs(np.array(told) - wanted)))
    if abs(told[place] - wanted) > options.within_s:
        shown = ", ".join(f"{one:.0f}" for one in told)
        raise ImageError(
            f"no phase begins within {options.within_s:g} s of {asked} after the one before contrast; they begin at {shown} s. "
            "Correct `enhancement`, or allow more with `within_s`."
        )
    return place
