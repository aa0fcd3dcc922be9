"""The text of the last event of a code that each decision may see: a scanner, a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from theracast_data.cohort import Cohort
from theracast_features.events.builder import asked_decisions, shards_of
from theracast_features.events.visible import dated, visible_events


def last_texts(cohort: Cohort, code: str) -> NDArray[Any]:
    """Return (n,) str, None where no event of the code may be seen or the last one has no text."""
    asked = asked_decisions(cohort)
    found = np.full(len(cohort), None, dtype=object)
    for shard in shards_of(cohort):
        own = shard.filter(pc.equal(shard["code"], code))
        if own.num_rows:
            last = dated(visible_events(own.to_pandas(), asked)).drop_duplicates("decision", keep="last")
            texts = last["text_value"].astype(object).where(last["text_value"].notna(), None)
            found[last["decision"].to_numpy(dtype=np.intp)] = texts.to_numpy(dtype=object)
    return found
