"""What images a folder of DICOM holds: one row an image series and region source, from headers alone, with what is wrong.

Folders are gone through one by one, and only the headers of one are held at a time. A fault of a series or a file is listed and
does not stop the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pydicom.uid as uids
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydicom.dataset import FileDataset

from theracast_data.dicom import rtstruct, segmentation
from theracast_data.dicom.faults import Faults
from theracast_data.dicom.header import PASSED_OVER, HeaderError, View, open_dicom, uid_name
from theracast_data.dicom.pixels import NATIVE, transfer_syntax
from theracast_data.dicom.series import as_datetime, check_headers, first_acquired
from theracast_data.dicom.slices import IMAGES
from theracast_data.errors import ImageError

REGIONS = {uids.RTStructureSetStorage: "RTSTRUCT", uids.SegmentationStorage: "SEG", segmentation.LABELMAP: "SEG"}
Link = Literal["series", "frame of reference"]


class ImageRow(BaseModel):
    """One image series with one source of regions, or with none. A series with several sources has several rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    subject_id: str = Field(min_length=1, description="PatientID (0010,0020)")
    study_uid: str = Field(description="StudyInstanceUID (0020,000D)")
    study_date: date | None = Field(description="StudyDate (0008,0020)")
    study_time: time | None = Field(description="StudyTime (0008,0030)")
    timepoint: int | None = Field(
        ge=0, description="0 for the subject's first study date, 1 for the next, ...; None without a date"
    )
    acquired: datetime | None = Field(description="start of the acquisition, local time")
    modality: str = Field(description="CT, MR or PT")
    description: str | None = Field(description="SeriesDescription (0008,103E)")
    series_uid: str = Field(min_length=1, description="SeriesInstanceUID (0020,000E)")
    frame_of_reference: str | None = Field(description="FrameOfReferenceUID (0020,0052)")
    n_files: int = Field(ge=1, description="files of the series")
    path: str = Field(description="the folder of the series, or its file if it is one")
    region_path: str | None = Field(default=None, description="the RTSTRUCT or SEG file")
    region_kind: Literal["RTSTRUCT", "SEG"] | None = Field(default=None, description="its kind")
    region_link: Link | None = Field(
        default=None, description="how it names the image: by series, or only by its frame of reference"
    )
    region_names: tuple[str, ...] = Field(default=(), description="names of the regions in it")
    dose_paths: tuple[str, ...] = Field(
        default=(), description="RTDOSE files of the patient in the image's frame of reference"
    )
    warnings: tuple[str, ...] = Field(
        default=(), description="what is odd but does not keep the series from being read"
    )
    faults: tuple[str, ...] = Field(
        default=(), description="why the series cannot be read as one volume; none if it can"
    )


SCHEMA = pa.schema(
    [
        ("subject_id", pa.string()),
        ("study_uid", pa.string()),
        ("study_date", pa.date32()),
        ("study_time", pa.time64("us")),
        ("timepoint", pa.int64()),
        ("acquired", pa.timestamp("us")),
        ("modality", pa.string()),
        ("description", pa.string()),
        ("series_uid", pa.string()),
        ("frame_of_reference", pa.string()),
        ("n_files", pa.int64()),
        ("path", pa.string()),
        ("region_path", pa.string()),
        ("region_kind", pa.string()),
        ("region_link", pa.string()),
        ("region_names", pa.list_(pa.string())),
        ("dose_paths", pa.list_(pa.string())),
        ("warnings", pa.list_(pa.string())),
        ("faults", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True)
class ImageManifest:
    """The image series of a folder.

    Attributes:
        rows: by subject, study date and series.
        faults: files that are no DICOM, series without identifiers, regions whose image is not here.
        other: how many DICOM files are of other kinds (reports, plans, doses), by the name of the kind.
    """

    rows: tuple[ImageRow, ...]
    faults: tuple[str, ...]
    other: dict[str, int]

    def frame(self) -> pd.DataFrame:
        """Return the rows as a table."""
        table: pd.DataFrame = self._table().to_pandas()
        return table

    def write(self, path: str | Path) -> None:
        """Write the rows as Parquet."""
        pq.write_table(self._table(), path)

    def _table(self) -> pa.Table:
        return pa.Table.from_pylist([row.model_dump() for row in self.rows], schema=SCHEMA)


@dataclass(frozen=True)
class _SeriesFound:
    row: ImageRow
    files: tuple[Path, ...]


@dataclass(frozen=True)
class _RegionsFound:
    path: Path
    kind: Literal["RTSTRUCT", "SEG"]
    subject_id: str | None
    series: frozenset[str]
    frames: frozenset[str]
    names: tuple[str, ...]


def scan_folder(folder: str | Path) -> ImageManifest:
    """Return the image series under a folder, with the regions that name them.

    Raises:
        ImageError: there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ImageError(f"{root}: there is no such folder. Correct the path.")
    series: dict[str, _SeriesFound] = {}
    regions: list[_RegionsFound] = []
    doses: dict[tuple[str | None, str | None], list[str]] = {}
    faults: list[str] = []
    other: dict[str, int] = {}
    for files in _folders(root):
        images: dict[str, list[tuple[Path, FileDataset]]] = {}
        for path in files:
            try:
                dataset = open_dicom(path, pixels=False)
                view = View((dataset,), str(path))
                kind = view.need_text("SOPClassUID")
                if kind in IMAGES:
                    images.setdefault(view.need_text("SeriesInstanceUID"), []).append((path, dataset))
                elif kind in REGIONS:
                    regions.append(_regions_of(view, path))
                else:
                    if kind == uids.RTDoseStorage:
                        doses.setdefault((view.text("PatientID"), view.text("FrameOfReferenceUID")), []).append(
                            str(path)
                        )
                    name = uid_name(kind)
                    other[name] = other.get(name, 0) + 1
            except ImageError as error:
                faults.append(str(error))
        for uid, datasets in images.items():
            try:
                found = _series_of(datasets)
            except ImageError as error:
                faults.append(f"series {uid}: {error}")
                continue
            series[uid] = _merged(series[uid], found) if uid in series else found
    rows, loose = _linked([_with_doses(one.row, doses) for one in series.values()], regions)
    return ImageManifest(tuple(_with_timepoints(rows)), (*faults, *loose), other)


def read_image_manifest(path: str | Path) -> list[ImageRow]:
    """Return the rows of a manifest file.

    Raises:
        ImageError: no Parquet file, or rows that are not those of a manifest.
    """
    try:
        table = pq.read_table(path)
        return [ImageRow.model_validate(row) for row in table.to_pylist()]
    except FileNotFoundError as error:
        raise ImageError(f"{path}: there is no such file. Correct the path.") from error
    except ValidationError as error:
        places = sorted({".".join(map(str, fault["loc"])) for fault in error.errors()})
        raise ImageError(
            f"{path}: a row is not that of an image manifest ({', '.join(places)}). Write it again with scan_folder."
        ) from error
    except (OSError, pa.ArrowInvalid) as error:
        raise ImageError(
            f"{path}: this is no Parquet file, or it is damaged. Write it again with scan_folder."
        ) from error


def _folders(root: Path) -> Iterator[list[Path]]:
    """Yield the files of each folder, in the order of names."""
    for folder, below, names in os.walk(root):
        below.sort()
        files = [Path(folder, name) for name in sorted(names) if name not in PASSED_OVER and not name.startswith("._")]
        if files:
            yield files


def _series_of(datasets: list[tuple[Path, FileDataset]]) -> _SeriesFound:
    """Return the row of a series whose headers are those given."""
    path, dataset = datasets[0]
    view = View((dataset,), str(path))
    day = as_datetime(view.text("StudyDate"))
    clock = view.text("StudyTime")
    at = as_datetime(f"20000101{clock.replace(':', '')}") if clock else None
    views = [View((one,), str(place)) for place, one in datasets]
    acquired = first_acquired(views)
    row = ImageRow(
        subject_id=view.need_text("PatientID"),
        study_uid=view.need_text("StudyInstanceUID"),
        study_date=day.date() if day else None,
        study_time=at.time() if at else None,
        timepoint=None,
        acquired=acquired,
        modality=view.need_text("Modality"),
        description=view.text("SeriesDescription"),
        series_uid=view.need_text("SeriesInstanceUID"),
        frame_of_reference=view.text("FrameOfReferenceUID"),
        n_files=len(datasets),
        path=str(path if len(datasets) == 1 else path.parent),
        warnings=_warnings(day, acquired),
        faults=tuple(_faults(datasets)),
    )
    return _SeriesFound(row, tuple(place for place, _ in datasets))


def _warnings(study: datetime | None, acquired: datetime | None) -> tuple[str, ...]:
    """Return what is odd about the dates of a series."""
    if study is None or acquired is None:
        return ()
    days = (acquired.date() - study.date()).days
    if abs(days) <= 1:
        return ()
    side = "after" if days > 0 else "before"
    return (
        f"the series was acquired {abs(days)} days {side} its study date (StudyDate (0008,0020)), by which timepoints go",
    )


def _faults(datasets: list[tuple[Path, FileDataset]]) -> list[str]:
    """Return why headers make no volume, and which files are too short for their pixels."""
    faults = Faults(datasets[0][0].parent)
    check_headers(datasets, faults)
    for path, dataset in datasets:
        view = View((dataset,), path.name)
        try:
            sizes = [view.need_integer(keyword) for keyword in ("Rows", "Columns", "BitsAllocated")]
            frames = view.integer("NumberOfFrames") or 1
            syntax = transfer_syntax(dataset, path.name)
        except HeaderError:
            continue  # told already
        needed = sizes[0] * sizes[1] * sizes[2] // 8 * frames
        if syntax in NATIVE and syntax != uids.DeflatedExplicitVRLittleEndian and path.stat().st_size < needed + 132:
            faults.add("the file is too short for its pixels: it is truncated", "Transfer it again.", path.name)
    return faults.lines()


def _merged(first: _SeriesFound, second: _SeriesFound) -> _SeriesFound:
    """Return a series that lies in two folders as one."""
    files = (*first.files, *second.files)
    fault = "the series lies in several folders. Put its files into one."
    row = first.row.model_copy(
        update={
            "n_files": len(files),
            "path": os.path.commonpath([str(path.parent) for path in files]),
            "faults": (*(one for one in (*first.row.faults, *second.row.faults) if one != fault), fault),
        }
    )
    return replace(first, row=row, files=files)


def _regions_of(view: View, path: Path) -> _RegionsFound:
    if view.text("SOPClassUID") == uids.RTStructureSetStorage:
        names = rtstruct.names_in(view)
        series, frames = rtstruct.referenced_series(view), rtstruct.referenced_frames(view)
        return _RegionsFound(path, "RTSTRUCT", view.text("PatientID"), frozenset(series), frozenset(frames), names)
    names = tuple(segmentation.segments_in(view).values())
    frame = view.text("FrameOfReferenceUID")
    return _RegionsFound(
        path,
        "SEG",
        view.text("PatientID"),
        frozenset(segmentation.referenced_series(view)),
        frozenset({frame} if frame else ()),
        names,
    )


def _with_doses(row: ImageRow, doses: Mapping[tuple[str | None, str | None], list[str]]) -> ImageRow:
    """Return the row with the doses that lie over its image; one without a frame of reference lies nowhere."""
    own = doses.get((row.subject_id, row.frame_of_reference), []) if row.frame_of_reference else []
    return row.model_copy(update={"dose_paths": tuple(own)})


def _linked(rows: list[ImageRow], regions: list[_RegionsFound]) -> tuple[list[ImageRow], list[str]]:
    """Return the rows with their region sources, and the sources whose image is not here."""
    linked: dict[str, list[ImageRow]] = {row.series_uid: [] for row in rows}
    loose: list[str] = []
    for region in regions:
        own = [row for row in rows if row.series_uid in region.series]
        link: Link = "series"
        if not region.series:
            own = [
                row for row in rows if row.frame_of_reference in region.frames and row.subject_id == region.subject_id
            ]
            link = "frame of reference"
        if not own:
            named = f"the series {', '.join(sorted(region.series))}" if region.series else "no series"
            loose.append(f"{region.path}: the {region.kind} names {named}, and its image is not here. Fetch the image.")
        for row in own:
            if row.subject_id != region.subject_id:
                loose.append(
                    f"{region.path}: the {region.kind} is of another PatientID than its image. Correct one of them."
                )
                continue
            source = {
                "region_path": str(region.path),
                "region_kind": region.kind,
                "region_link": link,
                "region_names": region.names,
            }
            linked[row.series_uid].append(row.model_copy(update=source))
    return [one for row in rows for one in linked[row.series_uid] or [row]], loose


def _with_timepoints(rows: list[ImageRow]) -> list[ImageRow]:
    """Return the rows in order, with each subject's study dates numbered from 0."""
    days: dict[str, set[date]] = {}
    for row in rows:
        if row.study_date is not None:
            days.setdefault(row.subject_id, set()).add(row.study_date)
    numbers = {subject: {day: number for number, day in enumerate(sorted(found))} for subject, found in days.items()}
    numbered = [
        row.model_copy(update={"timepoint": numbers[row.subject_id][row.study_date]})
        if row.study_date is not None
        else row
        for row in rows
    ]
    return sorted(
        numbered,
        key=lambda row: (
            row.subject_id,
            row.study_date or date.max,
            row.modality,
            row.series_uid,
            row.region_path or "",
        ),
    )
