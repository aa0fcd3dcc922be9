"""A series of DICOM files to one volume, or an error that names what is wrong with it.

Readers in wide use accept series with slices missing, doubled or out of line, and return a volume of the wrong length without a
word. Here the slices must make one regular grid, agree in all that the values depend on, and be whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset

from theracast_data.dicom.faults import Faults
from theracast_data.dicom.header import HeaderError, View, dicom_files, open_dicom
from theracast_data.dicom.pixels import Pixels, exact_dtype, scaled
from theracast_data.dicom.slices import Slice, pet_units, read_slices
from theracast_data.dicom.stack import Grid, arrange, check_alike, check_slopes
from theracast_data.errors import ImageError
from theracast_data.volume import Batch, FloatArray, Volume, check_axes

UNITS = {"BQML": "Bq/mL", "GML": "g/mL", "CNTS": "counts"}

Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Series:
    """A volume with the slices that it was made of, in its order, for readers of what else their headers tell."""

    volume: Volume
    slices: tuple[Slice, ...]


def read_series(
    paths: Paths,
    *,
    series_uid: str | None = None,
    select: Mapping[str, str | float] | None = None,
    spacing_tolerance: float = 0.01,
    single_slice: bool = False,
    partial: bool = False,
) -> Volume:
    """Return the volume of a series of CT, MR or PET images.

    Args:
        paths: a folder, one (multi-frame) file, or the files.
        series_uid: the series to read where there are several.
        select: values that images must have, by DICOM keyword, where a series holds several time points, echoes, energies or
            stacks, e.g. `{"TemporalPositionIndex": 1}`.
        spacing_tolerance: how far a slice may lie from its even place, as a share of the spacing.
        single_slice: accept one slice as a volume.
        partial: accept fewer slices than NumberOfSlices (0054,0081) of PET or SpacingBetweenSlices (0018,0088) tells, as after
            cropping or thinning.

    Raises:
        ImageError: anything that keeps the files from being one whole volume; all faults of a kind, with the files.
    """
    return load_series(
        paths,
        series_uid=series_uid,
        select=select,
        spacing_tolerance=spacing_tolerance,
        single_slice=single_slice,
        partial=partial,
    ).volume


def load_series(
    paths: Paths,
    *,
    series_uid: str | None = None,
    select: Mapping[str, str | float] | None = None,
    spacing_tolerance: float = 0.01,
    single_slice: bool = False,
    partial: bool = False,
) -> Series:
    """Return the volume of a series and its slices; see `read_series`."""
    place, datasets = _open_all(paths, series_uid)
    faults = Faults(place)
    slices = read_slices(datasets, faults, select)
    faults.stop()
    check_alike(slices, faults)
    check_slopes(slices, faults)
    _check_same_images(slices, faults)
    faults.stop()
    grid = arrange(slices, faults, spacing_tolerance=spacing_tolerance, single_slice=single_slice, partial=partial)
    if not partial:
        _check_number(slices, faults)
    faults.stop()
    assert grid is not None
    check_axes(grid.affine, place)
    return Series(_volume(grid, faults), grid.slices)


def check_headers(datasets: Sequence[tuple[Path, FileDataset]], faults: Faults) -> None:
    """Note what keeps the files of one series from being one volume, as far as their headers tell."""
    slices = read_slices(datasets, faults)
    if faults or not slices:
        return
    check_alike(slices, faults)
    check_slopes(slices, faults)
    _check_same_images(slices, faults)
    if not faults:
        arrange(slices, faults, spacing_tolerance=0.01, single_slice=False)
        _check_number(slices, faults)


def group_series(paths: Paths) -> dict[str, list[Path]]:
    """Return the files of each series, by SeriesInstanceUID, from their headers.

    Raises:
        ImageError: a file is no DICOM file or names no series.
    """
    place, files = _files(paths)
    faults, groups = Faults(place), dict[str, list[Path]]()
    for path in files:
        try:
            uid = View((open_dicom(path, pixels=False),), path.name).need_text("SeriesInstanceUID")
        except HeaderError as fault:
            faults.add(fault.what, f"{fault.remedy}.", fault.place)
        except ImageError as error:
            faults.add(*_split(error, path), path.name)
        else:
            groups.setdefault(uid, []).append(path)
    faults.stop()
    return groups


def _open_all(paths: Paths, series_uid: str | None) -> tuple[str, list[tuple[Path, FileDataset]]]:
    """Return the place for messages and the data sets of the one series."""
    place, files = _files(paths)
    if series_uid is not None:
        groups = group_series(files)
        if series_uid not in groups:
            raise ImageError(f"{place}: no file is of the series {series_uid}. {_series_here(groups)}")
        files = groups[series_uid]
    faults, datasets = Faults(place), list[tuple[Path, FileDataset]]()
    for path in files:
        try:
            datasets.append((path, open_dicom(path)))
        except ImageError as error:
            faults.add(*_split(error, path), path.name)
    if series_uid is None:
        groups = {}
        for path, dataset in datasets:
            try:
                groups.setdefault(View((dataset,), path.name).text("SeriesInstanceUID") or "(no series)", []).append(
                    path
                )
            except HeaderError as fault:
                faults.add(fault.what, f"{fault.remedy}.", fault.place)
        if len(groups) > 1:
            smallest = min(groups.values(), key=len)
            faults.add(
                f"{len(groups)} series are mixed where one is asked for",
                f"{_series_here(groups)}",
                [path.name for path in smallest],
            )
    faults.stop()
    return place, datasets


def _files(paths: Paths) -> tuple[str, list[Path]]:
    """Return the place for messages, and the files."""
    if isinstance(paths, str | Path):
        path = Path(paths)
        files = [path] if path.is_file() else dicom_files(path)
        place = str(path)
    else:
        files = [Path(path) for path in paths]
        place = str(files[0].parent) if files else "(no files)"
        if len(set(files)) < len(files):
            raise ImageError(f"{place}: the same file is named twice. Name each file once.")
    if not files:
        raise ImageError(f"{place}: there are no files. Correct the path.")
    return place, files


def _split(error: ImageError, path: Path) -> tuple[str, str]:
    """Return what is wrong and the remedy from the message of one file, so that equal faults of files are told once."""
    text = str(error).removeprefix(f"{path}: ")
    what, _, remedy = text.partition(". ")
    return what.removesuffix("."), remedy or "Look at the file."


def _series_here(groups: Mapping[str, Sequence[Path]]) -> str:
    shown = ", ".join(f"{uid} ({len(files)} files)" for uid, files in list(groups.items())[:5])
    return f"Name one with series_uid; here are: {shown}{', ...' if len(groups) > 5 else ''}."


def _check_same_images(slices: Sequence[Slice], faults: Faults) -> None:
    """Note localisers, and images that are there twice under one identifier."""
    seen: dict[tuple[str, int], str] = {}
    for one in slices:
        if "LOCALIZER" in f"{one.traits['ImageType']} {one.traits['FrameType']}":
            faults.add(
                "localiser images (ImageType (0008,0008)) are no slices of a volume",
                "Take them out of the folder, or choose the others with select={'ImageType': ...}.",
                one.place,
            )
        uid = one.view.text("SOPInstanceUID")
        if uid is None:
            faults.add("SOPInstanceUID (0008,0018) is missing", "Export the series again.", one.place)
            continue
        if (uid, one.frame) in seen:
            faults.add(
                "duplicated slices: the same image (SOPInstanceUID (0008,0018)) is there twice",
                "Remove the copy.",
                f"{seen[uid, one.frame]} and {one.place}",
            )
        seen[uid, one.frame] = one.place


def _check_number(slices: Sequence[Slice], faults: Faults) -> None:
    """Note a number of slices other than PET tells."""
    try:
        told = slices[0].view.integer("NumberOfSlices")
    except HeaderError as fault:
        faults.add(fault.what, f"{fault.remedy}.", fault.place)
        return
    if told is not None and slices[0].traits["Modality"] == "PT" and len(slices) < told:
        faults.add(
            f"missing slices: NumberOfSlices (0054,0081) tells {told}, here are {len(slices)}",
            "Fetch the others, or accept a part of the series with partial=True.",
        )


def _volume(grid: Grid, faults: Faults) -> Volume:
    first = grid.slices[0]
    values, lossy = _values(grid, faults)
    view = first.view
    return Volume(
        values=values,
        affine=grid.affine,
        modality=view.text("Modality"),
        unit=_unit(view),
        frame_of_reference=view.text("FrameOfReferenceUID"),
        series_uid=view.text("SeriesInstanceUID"),
        acquired=first_acquired([one.view for one in grid.slices]),
        subject_id=view.text("PatientID"),
        batch=Batch(
            view.text("Manufacturer"),
            view.text("ManufacturerModelName"),
            view.text("ConvolutionKernel") or view.text("ReconstructionMethod"),
            view.number("SliceThickness"),
        ),
        notes=("the pixels were compressed with loss",) if lossy else (),
    )


def _values(grid: Grid, faults: Faults) -> tuple[FloatArray, bool]:
    """Return the values of the slices in their order, and whether they were compressed with loss."""
    first = grid.slices[0]
    frames = {one.path: one.view.integer("NumberOfFrames") or 1 for one in grid.slices}
    single = len(frames) == len(grid.slices)
    opened: dict[Path, Pixels] = {}
    lossy = False
    values: FloatArray | None = None
    for number, one in enumerate(grid.slices):
        try:
            if one.path not in opened:
                if single:
                    opened.clear()
                opened[one.path] = Pixels(one.dataset, one.path.name, frames=frames[one.path], path=one.path)
            pixels = opened[one.path]
            stored = pixels.frame(one.frame)
            if values is None:  # only now: sizes in a damaged header may ask for more memory than there is
                values = np.empty((len(grid.slices), first.rows, first.columns), dtype=exact_dtype(grid.slices))
            scaled(stored, one, values[number])
            lossy = lossy or pixels.lossy
        except HeaderError as fault:
            faults.add(fault.what, f"{fault.remedy}.", fault.place)
    faults.stop()
    assert values is not None
    return values, lossy


def _unit(view: View) -> str | None:
    """Return the unit of the values. CT without RescaleType is in HU by the standard (PS3.3, C.8.2.1)."""
    modality, kind = view.text("Modality"), view.text("RescaleType")
    if modality == "PT":
        units = pet_units(view)
        return UNITS.get(units, units)
    if modality == "CT":
        return kind or "HU" if kind != "US" else None
    return None if kind in (None, "US") else kind


def first_acquired(views: Iterable[View]) -> datetime | None:
    """Return the earliest start of acquisition; of the series, then of the study where the images tell none.

    ContentDate is not used: in de-identified data it is often the day of the export.
    """
    found = list(views)
    for names in (("AcquisitionDate", "AcquisitionTime"), ("SeriesDate", "SeriesTime"), ("StudyDate", "StudyTime")):
        if names[0] == "AcquisitionDate":
            exact = [when for view in found if (when := as_datetime(view.text("AcquisitionDateTime")))]
            exact += [when for view in found if (when := as_datetime(view.text("FrameAcquisitionDateTime")))]
            if exact:
                return min(exact)
        times = [when for view in found if (when := date_and_time(view, *names))]
        if times:
            return min(times)
    return None


def date_and_time(view: View, date_keyword: str, time_keyword: str) -> datetime | None:
    """Return a date with its time; None where one of them is missing or no date."""
    day, clock = view.text(date_keyword), view.text(time_keyword)
    return None if day is None or clock is None else as_datetime(day.replace(".", "") + clock.replace(":", ""))


def as_datetime(text: str | None) -> datetime | None:
    """Return a DICOM date-time `YYYYMMDDHHMMSS.FFFFFF&ZZXX` as local time, the offset left out; None if it is none."""
    if text is None:
        return None
    plain = text.strip()
    for sign in "+-":
        plain = plain.split(sign)[0]
    whole, _, fraction = plain.partition(".")
    if not whole.isdigit() or not 8 <= len(whole) <= 14 or (fraction and not fraction.isdigit()):
        return None
    try:
        when = datetime.strptime(whole.ljust(14, "0"), "%Y%m%d%H%M%S")  # noqa: DTZ007
    except ValueError:
        return None
    return when + timedelta(seconds=float(f"0.{fraction or 0}"))
