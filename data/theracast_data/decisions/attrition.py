"""How many decisions each rule left out, counted site by site and added up over shards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from theracast_data.cohort import AttritionStep


class AttritionCounter:
    """Decisions that are still in, and the steps that led there."""

    def __init__(self, sites: npt.NDArray[np.object_]) -> None:
        self._sites, self._names = sites, sorted(set(sites.tolist()))
        self.kept = np.ones(len(sites), dtype=np.bool_)
        self.steps: list[AttritionStep] = []

    def keep(self, passes: npt.NDArray[np.bool_], reason: str) -> None:
        """Leave out what does not pass. Every site gets its step, so that the steps of shards can be added up."""
        after = self.kept & passes
        for site in self._names:
            here = self._sites == site
            left = int((after & here).sum())
            self.steps.append(AttritionStep(site, reason, int((self.kept & here).sum()) - left, left))
        self.kept = after


def merge_attrition(shards: Iterable[Sequence[AttritionStep]]) -> tuple[AttritionStep, ...]:
    """Return the steps of all shards as one table: counts added up by rule and site, rules in their order."""
    totals: dict[tuple[str, str], list[int]] = {}
    for steps in shards:
        for step in steps:
            total = totals.setdefault((step.reason, step.site), [0, 0])
            total[0] += step.dropped
            total[1] += step.left
    order = {reason: number for number, reason in enumerate(dict.fromkeys(reason for reason, _ in totals))}
    merged = sorted(totals.items(), key=lambda item: (order[item[0][0]], item[0][1]))
    return tuple(AttritionStep(site, reason, dropped, left) for (reason, site), (dropped, left) in merged)
