"""Which images of a folder a study measures, and what was measured in one, as events."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
import pyarrow as pa

from theracast_data.dicom.manifest import ImageRow
from theracast_data.events.readers.times import end_of_day
from theracast_data.events.schema import EVENT_SCHEMA, empty_events
from theracast_features.imaging.measure import meanings
from theracast_features.imaging.section import PATCH, SCANNER, SERIES, ImageMeasures, fits, measure_code


@dataclass(frozen=True)
class ImageTask:
    """One image that is to be measured: the series, and the regions in it that fit.

    Attributes:
        name: of the kind of image in `features.images`.
        regions: file, kind (RTSTRUCT or SEG) and name of each region.
        maps: name and series of each map of `habitats`.
        phases: series that are a phase each of `enhancement`; none where one series holds them all.
    """

    name: str
    measures: ImageMeasures
    row: ImageRow
    regions: tuple[tuple[str, str, str], ...]
    maps: tuple[tuple[str, ImageRow], ...] = ()
    phases: tuple[ImageRow, ...] = ()

    @property
    def series_code(self) -> str:
        """The code of the event that says which series was measured."""
        return measure_code(self.name, self.measures, f"{SERIES}//{self.row.series_uid}")

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
        scanner: manufacturer, model, kernel, slice thickness; "" where the image names no scanner.
        picture: of the region, as `encode_patch` writes it; "" where none is asked for.
        fault: why the image was not measured; "" if it was.
        notes: what was done on the way, e.g. that a region was resampled.
        known: measurement to when it was known, where that may be later than the image: a dose, a late phase.
    """

    task: ImageTask
    values: Mapping[str, float]
    taken: datetime | None = None
    date_only: bool = False
    scanner: str = ""
    picture: str = ""
    fault: str = ""
    notes: tuple[str, ...] = ()
    known: Mapping[str, datetime] = field(default_factory=dict)

    def events(self) -> pa.Table:
        """Return a measurement an event, and as text: with what the image was made, the picture, and of which series."""
        if self.fault or self.taken is None:
            return empty_events()
        meant = meanings(self.task.measures)
        told = {name: value for name, value in self.values.items() if math.isfinite(value)}
        texts = {SCANNER: self.scanner or None} | ({PATCH: self.picture} if self.picture else {})
        codes = [measure_code(self.task.name, self.task.measures, name) for name in (*texts, *told)]
        codes.append(self.task.series_code)
        count = len(codes)
        moment = np.datetime64(self.taken.replace(tzinfo=None), "us")
        available = end_of_day(np.array([moment]))[0].astype(datetime) if self.date_only else None
        later = [self._known_later(name, available) for name in told]
        columns = {
            "subject_id": [self.task.row.subject_id] * count,
            "time": [moment.astype(datetime)] * count,
            "code": codes,
            "numeric_value": [*[None] * len(texts), *told.values(), None],
            "text_value": [*texts.values(), *[None] * (len(told) + 1)],
            "unit": [*[None] * len(texts), *(meant[name].unit for name in told), None],
            "available_time": [*[available] * len(texts), *later, available],
        }
        return pa.table(columns, schema=EVENT_SCHEMA)

    def _known_later(self, name: str, available: datetime | None) -> datetime | None:
        """Return when a measurement was known; None for the time of the image."""
        known = self.known.get(name)
        if known is None or self.taken is None:
            return available
        known = known.replace(tzinfo=None)
        return known if known > (available or self.taken.replace(tzinfo=None)) else available


def image_tasks(rows: Sequence[ImageRow], images: Mapping[str, ImageMeasures]) -> tuple[list[ImageTask], list[str]]:
    """Return the images of a manifest that a study measures, and what is in the way of others.

    An image whose regions do not fit is nobody's fault and passed over; one whose series cannot be read, that lacks a map of
    its `habitats`, its `dose` or the series of its `enhancement`, or several of one kind in one study, are told.
    """
    tasks: list[ImageTask] = []
    faults: list[str] = []
    studies: dict[tuple[str, str], dict[str, ImageRow]] = {}
    for row in rows:
        studies.setdefault((row.subject_id, row.study_uid), {})[row.series_uid] = row
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
        if not of_study:
            there = sorted({region for same in found.values() for row in same for region in row.region_names})
            faults.append(
                f"{name}: no {measures.modality} series has a region that fits {', '.join(measures.regions)} "
                f"({len(found)} series fit; their regions: {', '.join(there[:12]) or 'none'}). Correct `series` or `regions` "
                f"in features.images.{name}."
            )
        for (subject, study), several in of_study.items():
            if len(several) > 1:
                faults.append(
                    f"{name}: patient {subject} has {len(several)} series in one study that fit, so which is meant is open. "
                    f"Narrow `series` in features.images.{name}."
                )
            elif several[0].row.faults and not measures.phases_in_one_series:  # several volumes are a fault, else
                faults.append(f"{several[0].place}: {'; '.join(several[0].row.faults)}")
            elif measures.dose is not None and not several[0].row.dose_paths:
                faults.append(
                    f"{several[0].place}: no RTDOSE of the patient lies in the image's frame of reference. Fetch the dose of its "
                    f"plan, or narrow `series` in features.images.{name} to the images that were planned on."
                )
            else:
                own = studies[subject, study].values()
                tasks += _with_maps(_with_phases(several[0], own), own, faults)
    return tasks, faults


def _with_phases(task: ImageTask, own: Collection[ImageRow]) -> ImageTask:
    """Return the image with those series of its study that are the phases of its `enhancement`, where they are series."""
    asked = task.measures.enhancement
    if asked is None or not asked.series:
        return task
    fit = tuple(row for row in own if row.modality == "MR" and fits(row.description or "", asked.series))
    return replace(task, phases=fit)


def _with_maps(task: ImageTask, own: Collection[ImageRow], faults: list[str]) -> list[ImageTask]:
    """Return the image with those series of its study that are the maps; none, and in `faults` why, where maps or phases
    are missing, or which are meant is open."""
    section, asked_phases = task.measures.habitats, task.measures.enhancement
    image, maps, told = task.row, [], []
    if asked_phases is not None and asked_phases.series and len(task.phases) < 3:
        told.append(
            f"{len(task.phases)} MR series of the study fit {', '.join(asked_phases.series)}, and three phases are needed. Fetch "
            f"them, or correct `series` in features.images.{task.name}.enhancement."
        )
    told += [f"phase, series {row.series_uid}: {'; '.join(row.faults)}" for row in task.phases if row.faults]
    for name, asked in section.maps.items() if section is not None else ():
        fit = [row for row in own if row.modality == asked.modality and fits(row.description or "", asked.series)]
        fit = [row for row in fit if row.series_uid == image.series_uid] or fit
        place = f"features.images.{task.name}.habitats.maps.{name}"
        if not fit:
            told.append(
                f"map {name}: the study has no {asked.modality} series that fits {', '.join(asked.series)}. Fetch it, or "
                f"correct `series` in {place}."
            )
        elif len(fit) > 1:
            told.append(
                f"map {name}: {len(fit)} series of the study fit, so which is meant is open. Narrow `series` in {place}."
            )
        elif fit[0].faults:
            told.append(f"map {name}, series {fit[0].series_uid}: {'; '.join(fit[0].faults)}")
        maps += [(name, row) for row in fit]
    faults += [f"{task.place}: {one}" for one in told]
    return [] if told else [replace(task, maps=tuple(maps))]
