"""From image series and their regions to measurements as events: many images, one at a time in each process."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from datetime import datetime, time
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from theracast_data.dicom.header import dicom_files
from theracast_data.dicom.manifest import ImageRow, scan_folder
from theracast_data.dicom.pet import suv_volume
from theracast_data.dicom.regions import read_region
from theracast_data.errors import ImageError, StudyError, TheracastError
from theracast_data.events.manifest import file_sha256
from theracast_data.events.store import EventStore, SourceRecord
from theracast_data.volume import Batch, Region, Volume
from theracast_features.imaging.habitat_maps import maps_of_region, measure_habitats, perturbed_habitats
from theracast_features.imaging.measure import Spacing, measure
from theracast_features.imaging.overlays import (
    image_series,
    measure_overlays,
    overlays_of_region,
    perturbed_overlays,
)
from theracast_features.imaging.patch import cut_patch, encode_patch
from theracast_features.imaging.perturb import draw_perturbations
from theracast_features.imaging.section import SERIES, ImageMeasures, measure_code
from theracast_features.imaging.stability import Case, FeatureStability, feature_stability, measure_perturbed
from theracast_features.imaging.tasks import ImageTask, Measured, image_tasks

logger = logging.getLogger(__name__)

AIR_HU = -1000.0

_MARGIN = 10  # voxels into which a perturbed region can grow


@dataclass
class ExtractionReport:
    """What became of the images of a folder: how many were measured, were in the store already, or could not be measured."""

    measured: int = 0
    known: int = 0
    events: int = 0
    faults: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON."""
        return asdict(self) | {"notes": dict(self.notes)}

    def to_text(self) -> str:
        """Return the report as lines to read."""
        lines = [
            f"{self.measured} images measured, {self.events} events; {self.known} images were in the store already"
        ]
        lines += [f"  not measured: {fault}" for fault in self.faults]
        return "\n".join(lines + [f"  {count} x {note}" for note, count in self.notes.most_common()])


def extract_images(
    folder: Path,
    images: Mapping[str, ImageMeasures],
    *,
    store: EventStore,
    now: datetime,
    jobs: int = 1,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ExtractionReport:
    """Measure the images under a folder and add the measurements to a store, all of them or none.

    An image that the store holds, measured in the same way, is passed over; so more images of a study are added by doing
    it again. One that cannot be measured is told in the report and does not stop the others. Regions that were drawn anew
    are not looked for: measure them into a new store.

    Raises:
        ImageError: there is no such folder.
        StudyError: habitats are asked for and not fitted.
        ArtifactError: another process writes to the store.
    """
    for name, measures in images.items():
        _check_fitted(name, measures)
    manifest = scan_folder(folder)
    tasks, faults = image_tasks(manifest.rows, images)
    report = ExtractionReport(faults=[*manifest.faults, *faults])
    there = _measured_already(store, images)
    waiting = [task for task in tasks if (task.row.subject_id, task.series_code) not in there]
    report.known = len(tasks) - len(waiting)

    def batches() -> Iterator[pa.Table]:
        for found in measure_images(waiting, jobs=jobs, cache=cache, progress=progress):
            if found.fault:
                report.faults.append(f"{found.task.place}: {found.fault}")
                continue
            events = found.events()
            report.measured += 1
            report.events += events.num_rows
            report.notes.update(found.notes)
            yield events

    found = batches()
    first = next(found, None)  # where nothing could be measured, nothing is written
    if first is not None:
        content = "\n".join(sorted(f"{task.name} {task.measures.digest} {task.row.series_uid}" for task in waiting))
        digest = hashlib.sha256(content.encode()).hexdigest()
        store.append(SourceRecord(name=folder.name, kind="images", sha256=digest, time=now), chain([first], found))
        store.compact()
    return report


def stability_of_images(
    folder: Path, name: str, measures: ImageMeasures, *, patients: int, rng: np.random.Generator
) -> tuple[FeatureStability, ...]:
    """Return how well each measurement agrees with itself when image and region are changed a little.

    One image a patient, the earliest that can be read, of patients in the order of their identifiers.

    Raises:
        ImageError: there is no such folder, or no two patients have an image that can be measured.
        StudyError: habitats are asked for and not fitted.
    """
    _check_fitted(name, measures)
    tasks, faults = image_tasks(scan_folder(folder).rows, {name: measures})
    of_patient: dict[str, list[ImageTask]] = {}
    for task in sorted(tasks, key=lambda one: (one.row.subject_id, one.row.timepoint or 0, one.row.series_uid)):
        of_patient.setdefault(task.row.subject_id, []).append(task)
    read: set[str] = set()
    perturbations = draw_perturbations(rng)
    others: dict[tuple[str, str], dict[str, float]] = {}

    def cases() -> Iterator[Case]:
        for subject, own in of_patient.items():
            for task in own if len(read) < patients else ():
                try:
                    volume, region = read_image(task)
                    more: list[dict[str, dict[str, float]]] = []
                    if measures.habitats is not None:
                        maps = maps_of_region(task, volume, region, margin=_MARGIN)
                        more.append(perturbed_habitats(maps, measures, perturbations))
                    if measures.has_overlays:
                        overlays = overlays_of_region(task, volume, region, margin=_MARGIN)
                        more.append(perturbed_overlays(overlays, measures, perturbations))
                    for one in (name for part in more[:1] for name in part):
                        others[subject, one] = {key: value for part in more for key, value in part[one].items()}
                except (TheracastError, ValueError, OSError) as error:
                    faults.append(f"{task.place}: {error}")
                    logger.warning("%s", faults[-1])
                    continue
                read.add(subject)
                yield subject, volume.values, region.mask, volume.spacing_mm
                break

    def numbers(image: NDArray[np.float64], mask: NDArray[np.bool_], spacing_mm: Spacing) -> dict[str, float]:
        try:
            return measure(image, mask, spacing_mm=spacing_mm, measures=measures)
        except (TheracastError, ValueError):  # a region that a perturbation has made too small has no measurement
            return {}

    found = cases()
    first = next(found, None)
    if first is not None:
        measured = measure_perturbed(chain([first], found), numbers, perturbations)
    if len(read) < 2:
        raise ImageError(
            f"{folder}: stability compares patients, and {len(read)} of them could be measured. {' '.join(faults)}".strip()
        )
    if others:
        measured = pd.concat([measured, pd.DataFrame(others, dtype=np.float64).T.reindex(measured.index)], axis=1)
    return feature_stability(measured)


def measure_images(
    tasks: Sequence[ImageTask],
    *,
    jobs: int = 1,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Measured]:
    """Yield what was measured in each image, as it is done; a fault of one does not stop the others.

    Args:
        jobs: processes; each holds one image.
        cache: folder in which measurements are found again by the content of series, regions and settings.
        progress: called with images done and images in all.
    """
    for done, found in enumerate(_measured(tasks, jobs=jobs, cache=cache), start=1):
        if found.fault:
            logger.warning("%s: %s", found.task.place, found.fault)
        if progress is not None:
            progress(done, len(tasks))
        yield found


def measure_image(task: ImageTask, cache: Path | None = None) -> Measured:
    """Return what is measured in one image; a fault of the data is part of the answer."""
    try:
        kept = None if cache is None else cache / f"{_key(task)}.json"
        if kept is not None and (known := _kept(task, kept)) is not None:
            return known
        found = _measure(task)
        if kept is not None:
            _keep(found, kept)
        return found
    except (TheracastError, ValueError, OSError) as error:
        return Measured(task, {}, fault=str(error))


def read_image(task: ImageTask) -> tuple[Volume, Region]:
    """Return the image of a task (SUV for PET with `uptake`) and the region that is measured in it.

    Raises:
        ImageError: the series or a region cannot be read, or several regions fit and `several` refuses them.
    """
    series = image_series(task)
    options = task.measures.uptake
    volume = series.volume if options is None else suv_volume(series, kind=options.suv)
    if volume.modality == "CT" and volume.padded_voxels:
        volume = volume.filled(AIR_HU)  # beyond the field of view, where filters near the skin may reach
    if len(task.regions) > 1 and task.measures.several == "refuse":
        names = ", ".join(sorted({name for _, _, name in task.regions}))
        files = len({path for path, _, _ in task.regions})
        where = f" in {files} files" if files > 1 else ""
        raise ImageError(
            f"{len(task.regions)} regions fit ({names}){where}. Name one in `regions`, or say `several: union` or `largest`."
        )
    resample = task.measures.region_off_grid == "resample"
    off_grid: dict[str, dict[str, Any]] = {
        "RTSTRUCT": {"off_grid": "resample" if resample else "refuse"},
        "SEG": {"resample": resample},
    }
    regions = [read_region(path, name, volume, **off_grid[kind]) for path, kind, name in task.regions]
    if len(regions) == 1:
        return volume, regions[0]
    if task.measures.several == "largest":
        return volume, max(regions, key=lambda region: (region.volume_ml, region.name))
    mask = np.logical_or.reduce([region.mask for region in regions])
    notes = tuple(note for region in regions for note in region.notes)
    lost = max(region.share_outside for region in regions)
    return volume, Region("union", mask, volume.affine, regions[0].made_from, share_outside=lost, notes=notes)


def _measured_already(store: EventStore, images: Mapping[str, ImageMeasures]) -> set[tuple[str, str]]:
    """Return patient and series of what the store holds, measured by these settings."""
    prefixes = tuple(measure_code(name, measures, SERIES) for name, measures in images.items())
    found: set[tuple[str, str]] = set()
    for shard in range(store.shard_count):
        events = store.read_shard(shard, columns=["subject_id", "code"])
        for code in pc.unique(events["code"]).to_pylist():
            if code.startswith(prefixes):
                own = events.filter(pc.equal(events["code"], code))
                found |= {(subject, code) for subject in pc.unique(own["subject_id"]).to_pylist()}
    return found


def _measured(tasks: Sequence[ImageTask], *, jobs: int, cache: Path | None) -> Iterator[Measured]:
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
    if jobs < 2 or len(tasks) < 2:
        yield from (measure_image(task, cache) for task in tasks)
        return
    waiting = iter(tasks)
    running: set[Future[Measured]] = set()
    # Spawned, not forked: the readers' libraries hold threads. Few tasks are under way, so memory stays bounded.
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for task in waiting:
            running.add(pool.submit(measure_image, task, cache))
            if len(running) >= 2 * jobs:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)


def _measure(task: ImageTask) -> Measured:
    volume, region = read_image(task)
    values = measure(volume.values, region.mask, spacing_mm=volume.spacing_mm, measures=task.measures)
    taken, date_only = volume.acquired, False
    if taken is None and task.row.study_date is not None:
        taken = datetime.combine(task.row.study_date, task.row.study_time or time())
        date_only = task.row.study_time is None
    if taken is None:
        raise ImageError("neither the series nor the study says when it was made. Complete StudyDate (0008,0020).")
    notes: tuple[str, ...] = ()
    known: dict[str, datetime] = {}
    if task.measures.has_overlays:
        overlays = overlays_of_region(task, volume, region)
        for part, measured in measure_overlays(overlays, task.measures).items():
            values |= measured
            if part in overlays.known:
                known |= dict.fromkeys(measured, overlays.known[part])
        notes = overlays.notes
    if task.measures.fitted_habitats is not None:
        maps = maps_of_region(task, volume, region)
        values |= measure_habitats(maps, task.measures)
        notes = (*notes, *maps.notes)
    picture = ""
    if (patch := task.measures.patch) is not None:
        picture = encode_patch(cut_patch(volume.values, region.mask, spacing_mm=volume.spacing_mm, patch=patch))
    lost = (f"{region.share_outside:.1%} of the region lay outside the image",) if region.share_outside > 0 else ()
    told = (*volume.notes, *region.notes, *lost, *notes)
    return Measured(task, values, taken, date_only, _scanner(volume.batch), picture, notes=told, known=known)


def _check_fitted(name: str, measures: ImageMeasures) -> None:
    try:
        _ = measures.fitted_habitats
    except StudyError as error:
        raise StudyError(f"features.images.{name}: {error}") from error


def _scanner(batch: Batch) -> str:
    """Return the name of the scanner and its reconstruction; "" where neither maker nor model is known."""
    if batch.manufacturer is None and batch.model is None:
        return ""
    thickness = None if batch.slice_thickness_mm is None else f"{round(batch.slice_thickness_mm, 2):g} mm"
    return " | ".join(part or "not said" for part in (batch.manufacturer, batch.model, batch.kernel, thickness))


def _key(task: ImageTask) -> str:
    """Return what changes with the content of series and regions, the settings, and how they are measured."""
    whole = hashlib.sha256(f"{task.measures.digest}\n{task.row.series_uid}\n".encode())
    for one in [*_files(task.row), *(Path(region) for region, _, _ in task.regions)]:
        whole.update(file_sha256(one).encode())
    for name, row in [*task.maps, *(("phase", row) for row in task.phases)]:
        whole.update(f"{name} {row.series_uid}\n".encode())
        for one in _files(row):
            whole.update(file_sha256(one).encode())
    for dose in task.row.dose_paths if task.measures.dose is not None else ():
        whole.update(f"dose {file_sha256(Path(dose))}\n".encode())
    whole.update("\n".join(name for _, _, name in task.regions).encode())
    return whole.hexdigest()


def _files(row: ImageRow) -> list[Path]:
    path = Path(row.path)
    return sorted(dicom_files(path)) if path.is_dir() else [path]


def _keep(found: Measured, path: Path) -> None:
    record = {key: value for key, value in asdict(found).items() if key not in ("task", "taken")}
    record["values"] = {name: value if math.isfinite(value) else None for name, value in found.values.items()}
    record["known"] = {name: moment.isoformat() for name, moment in found.known.items()}
    record["taken"] = None if found.taken is None else found.taken.isoformat()
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(record, allow_nan=False), encoding="utf-8")
    draft.replace(path)


def _kept(task: ImageTask, path: Path) -> Measured | None:
    """Return what a file of the cache holds; None where there is none, or one that was damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return _from_json(task, record)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        logger.warning("%s: a damaged file of the cache is written anew", path)
        return None


def _from_json(task: ImageTask, record: dict[str, Any]) -> Measured:
    return Measured(
        task,
        {name: math.nan if value is None else float(value) for name, value in record["values"].items()},
        datetime.fromisoformat(record["taken"]) if record["taken"] else None,
        bool(record["date_only"]),
        str(record["scanner"]),
        str(record.get("picture", "")),
        notes=tuple(record["notes"]),
        known={name: datetime.fromisoformat(moment) for name, moment in record.get("known", {}).items()},
    )
