"""From image series and their regions to measurements as events: many images, one at a time in each process."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from datetime import datetime, time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from theracast_data.dicom.header import dicom_files
from theracast_data.dicom.manifest import ImageRow
from theracast_data.dicom.pet import suv_volume
from theracast_data.dicom.regions import read_region
from theracast_data.dicom.series import load_series
from theracast_data.errors import ImageError, TheracastError
from theracast_data.events.manifest import file_sha256
from theracast_data.events.readers.times import end_of_day
from theracast_data.events.schema import EVENT_SCHEMA, empty_events
from theracast_data.volume import Region, Volume
from theracast_features.imaging.measure import meanings, measure
from theracast_features.imaging.section import SCANNER, ImageMeasures, fits, measure_code

logger = logging.getLogger(__name__)

FORMAT = 1
"""Raise it where the same image gives other measurements than before: what caches hold is then measured anew."""


@dataclass(frozen=True)
class ImageTask:
    """One image that is to be measured: the series, and the regions in it that fit.

    Attributes:
        name: of the kind of image in `features.images`.
        regions: file, kind (RTSTRUCT or SEG) and name of each region.
    """

    name: str
    measures: ImageMeasures
    row: ImageRow
    regions: tuple[tuple[str, str, str], ...]

    @property
    def place(self) -> str:
        """What to call the image in a message."""
        return f"{self.name}: patient {self.row.subject_id}, series {self.row.series_uid}"


@dataclass(frozen=True)
class Measured:
    """What was measured in one image, or why nothing was.

    Attributes:
        values: measurement to number, NaN where it is not defined for the region.
        taken: when the image was made; date_only: whether only the day is known.
        scanner: manufacturer, model, kernel, slice thickness.
        fault: why the image was not measured; "" if it was.
        notes: what was done on the way, e.g. that a region was resampled.
    """

    task: ImageTask
    values: Mapping[str, float]
    taken: datetime | None = None
    date_only: bool = False
    scanner: str = ""
    fault: str = ""
    notes: tuple[str, ...] = ()

    def events(self) -> pa.Table:
        """Return a measurement an event, and one more that says, as text, with what the image was made."""
        if self.fault or self.taken is None:
            return empty_events()
        known = meanings(self.task.measures)
        told = {name: value for name, value in self.values.items() if math.isfinite(value)}
        codes = [measure_code(self.task.name, self.task.measures, name) for name in (SCANNER, *told)]
        count = len(codes)
        moment = np.datetime64(self.taken.replace(tzinfo=None), "us")
        available = end_of_day(np.array([moment]))[0] if self.date_only else None
        columns = {
            "subject_id": [self.task.row.subject_id] * count,
            "time": [moment.astype(datetime)] * count,
            "code": codes,
            "numeric_value": [None, *told.values()],
            "text_value": [self.scanner, *[None] * len(told)],
            "unit": [None, *(known[name].unit for name in told)],
            "available_time": [None if available is None else available.astype(datetime)] * count,
        }
        return pa.table(columns, schema=EVENT_SCHEMA)


def image_tasks(rows: Sequence[ImageRow], images: Mapping[str, ImageMeasures]) -> tuple[list[ImageTask], list[str]]:
    """Return the images of a manifest that a study measures, and what is in the way of others.

    An image whose regions do not fit is nobody's fault and passed over; one whose series cannot be read, or several of one
    kind in one study, are told.
    """
    tasks: list[ImageTask] = []
    faults: list[str] = []
    for name, measures in images.items():
        found: dict[str, list[ImageRow]] = {}
        for row in rows:
            if row.modality == measures.modality and fits(row.description or "", measures.series):
                found.setdefault(row.series_uid, []).append(row)
        of_study: dict[tuple[str, str], list[ImageTask]] = {}
        for same in found.values():
            regions = tuple(
                (row.region_path, row.region_kind, region)
                for row in same
                for region in row.region_names
                if row.region_path and row.region_kind and fits(region, measures.regions)
            )
            if regions:
                task = ImageTask(name, measures, same[0], regions)
                of_study.setdefault((same[0].subject_id, same[0].study_uid), []).append(task)
        for (subject, _), several in of_study.items():
            if len(several) > 1:
                faults.append(
                    f"{name}: patient {subject} has {len(several)} series in one study that fit, so which is meant is open. "
                    f"Narrow `series` in features.images.{name}."
                )
            elif several[0].row.faults:
                faults.append(f"{several[0].place}: {'; '.join(several[0].row.faults)}")
            else:
                tasks += several
    return tasks, faults


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
    done = 0
    for found in _measured(tasks, jobs=jobs, cache=cache):
        done += 1
        if found.fault:
            logger.warning("%s: %s", found.task.place, found.fault)
        if progress is not None:
            progress(done, len(tasks))
        yield found


def measure_image(task: ImageTask, cache: Path | None = None) -> Measured:
    """Return what is measured in one image; a fault of the data is part of the answer."""
    try:
        kept = None if cache is None else cache / f"{_key(task)}.json"
        if kept is not None and kept.is_file():
            return _from_json(task, json.loads(kept.read_text(encoding="utf-8")))
        found = _measure(task)
        if kept is not None:
            _keep(found, kept)
        return found
    except (TheracastError, ValueError) as error:
        return Measured(task, {}, fault=str(error))


def read_image(task: ImageTask) -> tuple[Volume, Region]:
    """Return the image of a task (SUV for PET with `uptake`) and the region that is measured in it.

    Raises:
        ImageError: the series or a region cannot be read, or several regions fit and `several` refuses them.
    """
    series = load_series(Path(task.row.path), series_uid=task.row.series_uid)
    options = task.measures.uptake
    volume = series.volume if options is None else suv_volume(series, kind=options.suv)
    if len(task.regions) > 1 and task.measures.several == "refuse":
        names = ", ".join(sorted({name for _, _, name in task.regions}))
        raise ImageError(
            f"{len(task.regions)} regions fit ({names}). Name one in `regions`, or say `several: union` or `largest`."
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
    return volume, Region("union", mask, volume.affine, regions[0].made_from, notes=notes)


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
    batch = volume.batch
    thickness = None if batch.slice_thickness_mm is None else f"{batch.slice_thickness_mm:g} mm"
    parts = (batch.manufacturer, batch.model, batch.kernel, thickness)
    scanner = " | ".join(part or "not said" for part in parts)
    lost = (f"{region.share_outside:.1%} of the region lay outside the image",) if region.share_outside > 0 else ()
    return Measured(task, values, taken, date_only, scanner, notes=(*volume.notes, *region.notes, *lost))


def _key(task: ImageTask) -> str:
    """Return what changes with the content of series and regions, the settings, and how they are measured."""
    path = Path(task.row.path)
    files = dicom_files(path) if path.is_dir() else [path]
    whole = hashlib.sha256(f"{FORMAT}\n{task.measures.digest}\n{task.row.series_uid}\n".encode())
    for one in [*sorted(files), *(Path(region) for region, _, _ in task.regions)]:
        whole.update(file_sha256(one).encode())
    whole.update("\n".join(name for _, _, name in task.regions).encode())
    return whole.hexdigest()


def _keep(found: Measured, path: Path) -> None:
    record = {key: value for key, value in asdict(found).items() if key not in ("task", "taken")}
    record["values"] = {name: value if math.isfinite(value) else None for name, value in found.values.items()}
    record["taken"] = None if found.taken is None else found.taken.isoformat()
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(record, allow_nan=False), encoding="utf-8")
    draft.replace(path)


def _from_json(task: ImageTask, record: dict[str, object]) -> Measured:
    values = record["values"]
    assert isinstance(values, dict)
    taken, notes = record["taken"], record["notes"]
    return Measured(
        task,
        {name: math.nan if value is None else float(value) for name, value in values.items()},
        datetime.fromisoformat(str(taken)) if taken else None,
        bool(record["date_only"]),
        str(record["scanner"]),
        notes=tuple(notes) if isinstance(notes, list) else (),
    )
