"""Raw rows with the images of their patients: measured as the model measures, by the same code as in training."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa

from theracast_data.dicom.manifest import scan_folder
from theracast_data.errors import SchemaError
from theracast_data.events.access import EVENTS_COLUMN, cells_of_events, listed_events
from theracast_data.spelling import Headers
from theracast_features.imaging.extraction import measure_images
from theracast_features.imaging.tasks import image_tasks
from theracast_models.response_model import ResponseModel


def with_images(
    frame: pd.DataFrame, model: ResponseModel, folder: Path, *, jobs: int = 1, cache: Path | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows with what was measured in their patients' images among their `events`, and what could not be.

    Images of patients who have no row are passed over. What a decision may see of them is settled as for all events.

    Args:
        frame: (n, ...) raw cells, with patient ids.
        folder: of DICOM files, as for `theracast images extract`.
        jobs: processes.
        cache: folder of measurements, as for `measure_images`.

    Raises:
        SchemaError: the model measures no images, or the rows do not say whose they are.
        ImageError: there is no such folder.
    """
    measures = {name: one.measures for name, one in model.section.images.items()}
    if not measures:
        raise SchemaError("this model measures no images; score without --images.")
    subject = Headers([str(name) for name in frame.columns]).find(model.inputs.tables[0].subject, "subject_id")
    if subject is None:
        raise SchemaError(
            f"the rows have no column {model.inputs.tables[0].subject!r} with patient ids, so images cannot be joined to them. "
            "Add it."
        )
    patients = frame[subject.header].astype("str").str.strip()
    manifest = scan_folder(folder)
    rows = [row for row in manifest.rows if row.subject_id in set(patients)]
    tasks, faults = image_tasks(rows, measures)
    parts: list[pa.Table] = []
    for found in measure_images(tasks, jobs=jobs, cache=cache):
        if found.fault:
            faults.append(f"{found.task.place}: {found.fault}")
        else:
            parts.append(found.events())
    own = cells_of_events(pa.concat_tables(parts)) if parts else {}
    cells = frame[EVENTS_COLUMN] if EVENTS_COLUMN in frame else pd.Series([None] * len(frame), index=frame.index)
    joined = [_joined(cell, own.get(patient, [])) for patient, cell in zip(patients, cells, strict=True)]
    return frame.assign(**{EVENTS_COLUMN: pd.Series(joined, index=frame.index, dtype=object)}), [
        *manifest.faults,
        *faults,
    ]


def _joined(cell: object, measured: list[dict[str, object]]) -> object:
    listed = listed_events(cell)
    return cell if listed is None else [*listed, *measured]  # what is no list of events is told when it is scored
