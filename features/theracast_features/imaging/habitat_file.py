"""The habitats of one kind of image, fitted, as a JSON file that a study names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from theracast_data.errors import StudyError
from theracast_features.imaging.habitats import Habitats
from theracast_features.imaging.section import ImageMeasures


def fitted_text(
    name: str, measures: ImageMeasures, habitats: Habitats, *, study: str, seed: int, others: int, faults: int
) -> str:
    """Return the content of the file; `read_fitted` reads it. It holds nothing of a single patient.

    Args:
        others: patients with such an image who do not develop the model.
        faults: development images that could not be read.
    """
    record = {
        "study": study,
        "images": name,
        "seed": seed,
        "patients": {"fitted": habitats.patients, "not_development": others, "faults": faults},
        "levels": [dict(zip(habitats.maps, one, strict=True)) for one in habitats.levels.tolist()],
        "fitted": habitats.to_json() | {"settings": measures.habitats_digest},
    }
    return json.dumps(record, indent=1, allow_nan=False) + "\n"


def read_fitted(path: Path, measures: ImageMeasures) -> dict[str, Any]:
    """Return what a file says was learnt, as `habitats.fitted` takes it.

    Raises:
        StudyError: there is no such file, it is another one, or the habitats were fitted by other settings.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["fitted"]
        settings, maps = str(found["settings"]), tuple(found["maps"])
    except OSError as error:
        raise StudyError(
            f"{path}: the file cannot be read ({error.strerror}). Correct the path, or write it with `theracast images habitats`."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError(
            f"{path}: this is not what `theracast images habitats` writes. Name its file, or write it again."
        ) from error
    wanted = tuple(measures.habitats.maps) if measures.habitats is not None else ()
    if settings != measures.habitats_digest or maps != wanted:
        raise StudyError(
            f"{path}: fitted for the maps {', '.join(maps)} by the settings {settings}; those of the study are "
            f"{', '.join(wanted)} by {measures.habitats_digest}. Run `theracast images habitats` again."
        )
    return dict(found)
