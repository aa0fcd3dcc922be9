"""The phases of a dynamic series: which images of it make one volume each, in the order in which they were taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from theracast_data.dicom.faults import Faults
from theracast_data.dicom.header import View, dicom_files, open_dicom, tag_name
from theracast_data.dicom.series import Series, as_datetime, date_and_time, load_series
from theracast_data.dicom.slices import Slice, read_slices
from theracast_data.errors import ImageError

TELLING = (
    "TemporalPositionIndex",
    "TemporalPositionIdentifier",
    "TriggerTime",
    "AcquisitionNumber",
    "AcquisitionDateTime",
    "AcquisitionTime",
    "ContentTime",
)
"""What may tell phases apart, the surest first. ContentTime is when the pixels were made, so it comes last."""

_EPOCH = datetime(1900, 1, 1)  # noqa: DTZ001 local, as in DICOM


@dataclass(frozen=True)
class Phase:
    """One volume of a dynamic series.

    Attributes:
        files: that hold it.
        told_by: the element that tells it from the others; "" for a series of its own.
        begins_s: when it began, in seconds on a clock that the phases share; None where nothing tells.
        select: for `load_series`, where a file holds several phases.
        series_uid: of the phase, where its files may lie among those of other series.
    """

    files: tuple[Path, ...]
    told_by: str
    begins_s: float | None
    select: Mapping[str, float] = field(default_factory=dict)
    series_uid: str | None = None


def load_phase(phase: Phase) -> Series:
    """Return the volume of a phase, with the checks of any series."""
    return load_series(phase.files, series_uid=phase.series_uid, select=phase.select or None)


def phases_in_series(path: str | Path, *, series_uid: str) -> tuple[Phase, ...]:
    """Return the phases of one series, as it is in files of one frame or in enhanced ones, the earliest first.

    Phases are told apart by the first element of `TELLING` that parts the images into volumes of the same positions.

    Raises:
        ImageError: there is one volume only, nothing parts the images into whole volumes, or numbers and times of the phases
            disagree in their order.
    """
    path = Path(path)
    slices = _slices_of(path, series_uid)
    places = [tuple(round(part, 2) for part in one.position) for one in slices]
    if len(set(places)) == len(places):
        raise ImageError(
            f"{path}: the series holds one volume, no phases. Name the series that are the phases in `enhancement.series`."
        )
    for keyword in TELLING:
        values = [one.view.text(keyword) for one in slices]
        if (numbers := _parting(values, places)) is not None:
            return _phases(slices, keyword, numbers, path)
    raise ImageError(
        f"{path}: {len(slices)} images lie at {len(set(places))} positions, and none of {', '.join(map(tag_name, TELLING))} "
        "parts them into whole volumes. Fetch the images that are missing, or make each phase a series of its own."
    )


def phases_of_series(series: Sequence[tuple[Path, str, datetime | None]]) -> tuple[Phase, ...]:
    """Return phases that are a series each, the earliest first.

    Args:
        series: file or folder, SeriesInstanceUID, and when the acquisition began.

    Raises:
        ImageError: the times do not tell their order.
    """
    phases = [Phase(_files(path), "", _seconds(began), series_uid=uid) for path, uid, began in series]
    if None in (times := [one.begins_s for one in phases]) or len(set(times)) < len(times):
        raise ImageError(
            f"{len(phases)} series are phases, and their times of acquisition ({tag_name('AcquisitionTime')}) do not tell their "
            "order: two are the same, or one is missing. Narrow `enhancement.series`, or export them with their times."
        )
    return tuple(sorted(phases, key=lambda one: one.begins_s or 0.0))


def _files(path: Path) -> tuple[Path, ...]:
    return tuple(dicom_files(path)) if path.is_dir() else (path,)


def _slices_of(path: Path, series_uid: str) -> list[Slice]:
    opened = [(one, open_dicom(one, pixels=False)) for one in _files(path)]
    own = [(one, data) for one, data in opened if View((data,), one.name).text("SeriesInstanceUID") == series_uid]
    faults = Faults(path)
    slices = read_slices(own, faults)
    faults.stop()
    if not slices:
        raise ImageError(f"{path}: no file is of the series {series_uid}. Correct the path.")
    return slices


def _parting(values: Sequence[str | None], places: Sequence[tuple[float, ...]]) -> list[float] | None:
    """Return the value of each image as a number if they part the images into volumes of the same places, each once."""
    try:
        numbers = [float(value.replace(":", "")) for value in values if value is not None]
    except ValueError:
        return None
    if len(numbers) < len(values):
        return None
    volumes: dict[float, list[tuple[float, ...]]] = {}
    for number, place in zip(numbers, places, strict=True):
        volumes.setdefault(number, []).append(place)
    whole = set(places)
    parted = len(volumes) > 1 and all(len(own) == len(whole) and set(own) == whole for own in volumes.values())
    return numbers if parted else None


def _phases(slices: Sequence[Slice], keyword: str, numbers: Sequence[float], path: Path) -> tuple[Phase, ...]:
    of_phase: dict[float, list[Slice]] = {}
    for number, one in zip(numbers, slices, strict=True):
        of_phase.setdefault(number, []).append(one)
    ordered = [of_phase[number] for number in sorted(of_phase)]
    begins = _begins(ordered)
    if None not in begins and begins != sorted(begins, key=lambda one: one or 0.0):
        raise ImageError(
            f"{path}: the phases by {tag_name(keyword)} do not follow each other in the times of their acquisition. Export the "
            "series again, or make each phase a series of its own."
        )
    files = [tuple(dict.fromkeys(one.path for one in own)) for own in ordered]
    if sum(map(len, files)) == len({file for own in files for file in own}):
        return tuple(Phase(own, keyword, begun) for own, begun in zip(files, begins, strict=True))
    if keyword != "TemporalPositionIndex":
        raise ImageError(
            f"{path}: several phases lie in one file, and only {tag_name(keyword)} tells them apart. Export it with "
            f"{tag_name('TemporalPositionIndex')}, or make each phase a series of its own."
        )
    return tuple(
        Phase(own, keyword, begun, {keyword: number})
        for number, own, begun in zip(sorted(of_phase), files, begins, strict=True)
    )


def _begins(phases: Sequence[Sequence[Slice]]) -> list[float | None]:
    """Return when each phase began, by the first kind of time that tells all of them apart."""
    for clock in (_acquired, _offset, _triggered, _content):
        times = [[clock(one.view) for one in own] for own in phases]
        found = [min((time for time in own if time is not None), default=None) for own in times]
        if None not in found and len(set(found)) == len(found):
            return list(found)
    return [None] * len(phases)


def _acquired(view: View) -> float | None:
    exact = as_datetime(view.text("FrameAcquisitionDateTime")) or as_datetime(view.text("AcquisitionDateTime"))
    return _seconds(exact or date_and_time(view, "AcquisitionDate", "AcquisitionTime"))


def _offset(view: View) -> float | None:
    return view.number("TemporalPositionTimeOffset")


def _triggered(view: View) -> float | None:
    told = view.number("TriggerTime")
    return None if told is None else told / 1000.0


def _content(view: View) -> float | None:
    return _seconds(date_and_time(view, "ContentDate", "ContentTime"))


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else (moment - _EPOCH).total_seconds()
