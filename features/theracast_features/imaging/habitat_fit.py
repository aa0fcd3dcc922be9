"""Habitats of a folder of images, fitted on the patients who develop a model."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from theracast_data.dicom.manifest import scan_folder
from theracast_data.errors import ImageError, StudyError, TheracastError
from theracast_features.imaging.extraction import read_image
from theracast_features.imaging.habitat_maps import maps_of_region
from theracast_features.imaging.habitats import Habitats, HabitatSection, fit_habitats
from theracast_features.imaging.section import ImageMeasures
from theracast_features.imaging.tasks import ImageTask, image_tasks

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FittedFolder:
    """Habitats that were fitted on the images of a folder.

    Attributes:
        habitats: what was learnt.
        others: patients with such an image who do not develop the model; nothing of them was read.
        faults: development images that could not be read, and why.
        notes: what was done to the images that were, with how often.
    """

    habitats: Habitats
    others: int
    faults: tuple[str, ...]
    notes: Counter[str]


def fit_image_habitats(
    folder: Path, name: str, measures: ImageMeasures, *, patients: Collection[str], rng: np.random.Generator
) -> FittedFolder:
    """Return the habitats of one image of each of these patients, the earliest that can be read.

    Raises:
        StudyError: the kind of image has no `habitats`.
        ImageError: there is no such folder, or too few patients have an image with its maps.
    """
    section = measures.habitats
    if section is None:
        raise StudyError(f"features.images.{name}: no `habitats`. Say there which maps, and how many habitats.")
    rows = scan_folder(folder).rows
    tasks, faults = image_tasks([row for row in rows if row.subject_id in patients], {name: measures})
    of_patient: dict[str, list[ImageTask]] = {}
    for task in sorted(tasks, key=_age):
        of_patient.setdefault(task.row.subject_id, []).append(task)
    voxels: list[NDArray[np.float64]] = []
    notes: Counter[str] = Counter()
    for own in of_patient.values():
        for task in own:
            try:
                maps = maps_of_region(task, *read_image(task))
            except (TheracastError, ValueError, OSError) as error:
                faults.append(f"{task.place}: {error}")
                logger.warning("%s", faults[-1])
                continue
            voxels.append(_drawn(maps.voxels(tuple(section.maps)), section.voxels_per_patient, rng))
            notes.update(maps.notes)
            break
    others = image_tasks([row for row in rows if row.subject_id not in patients], {name: measures})[0]
    away = len({task.row.subject_id for task in others})
    if len(voxels) < 2:
        raise ImageError(
            f"{folder}: habitats are fitted on at least 2 development patients, and {len(voxels)} could be read ({away} others "
            f"do not develop the model). {' '.join(faults)}".strip()
        )
    rules = HabitatSection(**{key: getattr(section, key) for key in HabitatSection.model_fields})
    return FittedFolder(fit_habitats(voxels, tuple(section.maps), rng=rng, section=rules), away, tuple(faults), notes)


def _drawn(voxels: NDArray[np.float64], most: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return no more voxels with all maps than take part, so that one patient's images are held at a time."""
    known = voxels[np.isfinite(voxels).all(axis=1)]
    return known if len(known) <= most else known[rng.choice(len(known), most, replace=False)]


def _age(task: ImageTask) -> tuple[str, int, str]:
    return task.row.subject_id, task.row.timepoint or 0, task.row.series_uid
