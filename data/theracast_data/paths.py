"""From the paths of a study file to files: environment variables and what a relative path is relative to."""

from __future__ import annotations

import os
import re
from pathlib import Path

from theracast_data.errors import StudyError

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def resolve_path(raw: str, *, base: Path) -> Path:
    """Return the file that a study means by `raw`.

    `${VARIABLE}` is taken from the environment. What then is still relative counts from the working directory if `raw`
    began with a variable, else from `base`, the folder of the study file.

    Raises:
        StudyError: a variable is not set.
    """
    unset = sorted({name for name in _VARIABLE.findall(raw) if not os.environ.get(name)})
    if unset:
        name = unset[0]
        raise StudyError(
            f"{raw}: the environment variable {' and '.join(unset)} is not set. "
            f"Set it to the folder that holds the data, e.g. `export {name}=/path/to/data`, or write the path out."
        )
    path = Path(_VARIABLE.sub(lambda found: os.environ[found.group(1)], raw)).expanduser()
    return path if path.is_absolute() or raw.startswith("${") else base / path
