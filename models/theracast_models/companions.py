"""What stands beside an answer: the set of outcomes that is meant, whether the patient is unusual, what became of like ones.

All of it is learned once from the development decisions and kept as aggregates; see `conformal.py`, `novelty.py` and
`neighbours.py` for what each promises, and `standing.py` for the performance by pattern of missing modalities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.conformal import (
    BinarySets,
    Conformal,
    EventTimes,
    Intervals,
    OrdinalSets,
    conformal_from_json,
)
from theracast_models.links import HazardLink, Link, OrdinalLink, level_probabilities
from theracast_models.logodds import Floats
from theracast_models.neighbours import Alike, Neighbours
from theracast_models.novelty import WHOLE, Novelty, Unusual, unusual_sentence
from theracast_models.presence import modalities_of, pattern_of
from theracast_models.standing import FloorSection, standing

COVERAGE = 0.9
SENTENCES_OF_SETS = {
    (True, False): ("no",),
    (False, True): ("yes",),
    (True, True): ("no", "yes"),
    (False, False): (),
}


@dataclass(frozen=True)
class Companions:
    """What was learned of the development decisions of one endpoint.

    Attributes:
        conformal: thresholds of prediction sets; None where too few patients or no out-of-fold answers.
        novelty: what is usual; None for further endpoints, which share the features of the first.
        neighbours: groups of like decisions; None where too few patients.
        floor: below which validated performance the model gives no answer.
    """

    conformal: Conformal | None = None
    novelty: Novelty | None = None
    neighbours: Neighbours | None = None
    floor: FloorSection | None = None

    def records(
        self,
        table: FeatureTable,
        *,
        link: Link,
        linear: Floats,
        estimates: Floats,
        phi: Floats,
        levels: Sequence[str],
        validated: Mapping[str, Mapping[str, Any]],
    ) -> list[dict[str, Any]]:
        """Return per decision what is said beside its answer, as plain JSON; what cannot be said is left out.

        Args:
            link, linear, estimates: the calibration, (n,) calibrated scores, and (n, K) answers.
            phi: (n, p) contributions on the calibrated scale.
            levels: names of ordered levels.
            validated: performance by pattern of modalities.
        """
        told: list[dict[str, Any]] = [{} for _ in range(len(table))]
        for row, found in enumerate(self._sets(table, link, linear, estimates, levels)):
            told[row]["prediction_set"] = found
        if self.novelty is not None:
            for row, unusual in enumerate(self.novelty.of(table)):
                told[row]["rarely_seen"] = _rarity(unusual, table.catalogue)
        if self.neighbours is not None:
            for row, own in enumerate(phi):
                told[row]["similar"] = _similar(self.neighbours.like(own), self.neighbours, levels)
        if validated:
            patterns = pattern_of(table)
            by_pattern = {one: standing(one, validated, floor=self.floor) for one in set(patterns)}
            for row, pattern in enumerate(patterns):
                stands = by_pattern[pattern]
                told[row]["validated"] = {
                    "pattern": list(modalities_of(pattern)),
                    "absent": [one for one in table.modalities if one not in modalities_of(pattern)],
                    "exact": stands.exact,
                    "sentence": stands.says,
                } | {key: stands.record[key] for key in ("n", "events", "auc", "auc_low", "auc_high") if stands.record}
                if stands.abstains is not None:
                    told[row]["abstained"] = stands.abstains
        return told

    def _sets(
        self, table: FeatureTable, link: Link, linear: Floats, estimates: Floats, levels: Sequence[str]
    ) -> list[dict[str, Any]]:
        sets = self.conformal
        if sets is None or not len(table):
            return []
        sites = [str(site) or None for site in table.decisions["site"]]
        about = [{"coverage": COVERAGE, "basis": sets.thresholds.basis(site)} for site in sites]
        if isinstance(sets, BinarySets):
            inside = sets.sets(estimates[:, 0], coverage=COVERAGE, groups=sites)
            return [
                {"set": list(SENTENCES_OF_SETS[no, yes])} | one for (no, yes), one in zip(inside, about, strict=True)
            ]
        if isinstance(sets, OrdinalSets):
            assert isinstance(link, OrdinalLink)
            inside = sets.sets(level_probabilities(estimates, main=link.main), coverage=COVERAGE, groups=sites)
            named = [[level for level, there in zip(levels, row, strict=True) if there] for row in inside]
            return [{"set": names} | one for names, one in zip(named, about, strict=True)]
        if isinstance(sets, Intervals):
            ends = sets.sets(estimates[:, 0], coverage=COVERAGE, groups=sites)
            return [
                {"low": _finite(low), "high": _finite(high)} | one for (low, high), one in zip(ends, about, strict=True)
            ]
        assert isinstance(sets, EventTimes)
        assert isinstance(link, HazardLink)
        days = sets.sets(link.by(np.array(sets.horizons), linear), coverage=COVERAGE, groups=sites)
        return [{"not_before_day": float(day)} | one for day, one in zip(days, about, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """Return all parts as plain JSON values."""
        parts = {"conformal": self.conformal, "novelty": self.novelty, "neighbours": self.neighbours}
        record = {name: None if part is None else part.to_json() for name, part in parts.items()}
        return record | {"floor": None if self.floor is None else self.floor.model_dump(mode="json")}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Companions:
        """Return what `to_json` wrote."""
        return cls(
            None if record["conformal"] is None else conformal_from_json(record["conformal"]),
            None if record["novelty"] is None else Novelty.from_json(record["novelty"]),
            None if record["neighbours"] is None else Neighbours.from_json(record["neighbours"]),
            None if record["floor"] is None else FloorSection.model_validate(record["floor"]),
        )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _rarity(found: Unusual, catalogue: Sequence[FeatureSpec]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "rare": found.rare,
        "percentile": 100 * found.beyond,
        "modalities": {name: 100 * beyond for name, beyond in found.parts.items() if name != WHOLE},
    }
    if found.rare:
        told["because"] = [reason.name for reason in found.reasons]
        told["sentence"] = unusual_sentence(found, catalogue)
    return told


def _similar(alike: Alike, near: Neighbours, levels: Sequence[str]) -> dict[str, Any]:
    told: dict[str, Any] = {"n": alike.decisions, "patients": alike.patients, "far": alike.far}
    if alike.kind == "time_to_event":
        curve = {"days": list(near.horizons), "event_free": list(alike.estimate), "at_risk": list(alike.at_risk)}
        return told | {"curve": curve | {"low": list(alike.low), "high": list(alike.high)}}
    if alike.kind == "ordinal":
        return told | {"levels": dict(zip(levels, alike.estimate, strict=True))}
    name = "mean" if alike.kind == "continuous" else "rate"
    spread = {} if alike.spread is None else {"spread": alike.spread}
    return told | {name: alike.estimate[0], "low": alike.low[0], "high": alike.high[0]} | spread
