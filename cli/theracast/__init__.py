"""Theracast: how likely is a response to this treatment, why, how sure, compared with whom.

>>> import theracast as tc
>>> model = tc.load_model("models:/icb-response@champion")    # doctest: +SKIP
>>> answer = model.predict(raw_rows)                          # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "read_study": "theracast_training.study",
    "read_cohort": "theracast_data.table",
    "audit": "theracast_data.audit",
    "build_features": "theracast_features.build",
    "train": "theracast_training.train",
    "load_model": "theracast_serving.load",
    "board_sheet": "theracast_serving.sheet",
    "verify": "theracast_serving.verify",
}

__all__ = [  # noqa: PLE0604  (names are loaded when they are first used)
    "__version__",
    *_PUBLIC,
]

if TYPE_CHECKING:
    from theracast_data.audit import audit as audit
    from theracast_data.table import read_cohort as read_cohort
    from theracast_features.build import build_features as build_features
    from theracast_serving.load import load_model as load_model
    from theracast_serving.sheet import board_sheet as board_sheet
    from theracast_serving.verify import verify as verify
    from theracast_training.study import read_study as read_study
    from theracast_training.train import train as train


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'theracast' has no attribute {name!r}; it offers {', '.join(_PUBLIC)}")
    return getattr(import_module(_PUBLIC[name]), name)
