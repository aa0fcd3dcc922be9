"""The stability of the measurements of one kind of image, as a JSON file that a study names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from theracast_data.errors import StudyError
from theracast_features.imaging.section import ImageMeasures
from theracast_features.imaging.stability import FeatureStability


def stability_text(name: str, measures: ImageMeasures, found: Sequence[FeatureStability]) -> str:
    """Return the content of the file; `read_stability` reads it."""
    record = {"images": name, "settings": measures.digest, "features": [one.to_json() for one in found]}
    return json.dumps(record, indent=1, allow_nan=False) + "\n"


def read_stability(path: Path, measures: ImageMeasures) -> dict[str, float]:
    """Return measurement to intraclass correlation; without those for which there was none.

    Raises:
        StudyError: there is no such file, it is another one, or the measurements were made with other settings.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        settings = str(record["settings"])
        found = {str(one["feature"]): one["icc"] for one in record["features"]}
        correlations = {name: float(icc) for name, icc in found.items() if icc is not None}
    except OSError as error:
        raise StudyError(
            f"{path}: the file cannot be read ({error.strerror}). Correct the path, or write it with "
            "`theracast images stability`."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError(
            f"{path}: this is not what `theracast images stability` writes. Name its file, or write it again."
        ) from error
    if settings != measures.digest:
        raise StudyError(
            f"{path}: measured with other settings ({settings}; those of the study are {measures.digest}). Run "
            "`theracast images stability` again."
        )
    return correlations
