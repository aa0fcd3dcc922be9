"""What a report says of one endpoint, whatever its kind: the words for it, its figures, and the figure that leads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from theracast_data.endpoints import EndpointKind, level_names
from theracast_models.head import Head


@dataclass(frozen=True)
class Terms:
    """The words for an endpoint.

    Attributes:
        kind: of the endpoint.
        label: what the tumour board reads, e.g. `overall survival`.
        leading: the leading answer as it reads after `probability of`, e.g. `an event (overall survival) by 12 months`.
        horizons: days to words, e.g. `12 months`, rising.
        levels: ordered levels, worst first.
        unit: of a number.
    """

    kind: EndpointKind = "binary"
    label: str = ""
    leading: str = ""
    horizons: Mapping[float, str] = field(default_factory=dict)
    levels: Sequence[str] = ()
    unit: str | None = None

    @classmethod
    def of(cls, head: Head) -> Terms:
        """Return the words for an endpoint of a model."""
        kind, label, first = head.kind, head.label, head.asked[0].name
        leading = {
            "time_to_event": f"an event ({label}) by {first}",
            "ordinal": f"{label} {first}",
        }.get(kind, label)
        horizons = {float(one.horizon): one.name for one in head.asked if one.horizon is not None}
        unit = getattr(head.endpoint, "unit", None) if kind == "continuous" else None
        return cls(kind, label, leading, dict(sorted(horizons.items())), level_names(head.endpoint), unit)

    @property
    def first_horizon(self) -> str:
        """The leading horizon in words, empty where there is none."""
        return self.leading.rpartition(" by ")[2] if self.kind == "time_to_event" else ""


@dataclass(frozen=True)
class Headline:
    """The figure that leads for a kind of endpoint.

    Attributes:
        name: key of the metric, beside `_low` and `_high`.
        part: key of the record that holds it, None for the record itself.
        label: as printed.
        chance: its value where nothing is known.
        wide: width of an interval that leaves the figure known only roughly.
        meaning: what it says, for a caption.
    """

    name: str
    part: str | None
    label: str
    chance: float
    wide: float
    meaning: str

    def of(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the part of a site's record that holds the figure; empty where there is none."""
        return (record.get(self.part) or {}) if self.part else record


HEADLINES: Mapping[EndpointKind, Headline] = {
    "binary": Headline(
        "auc", None, "AUC", 0.5, 0.15, "Chance that a patient with the outcome is ranked above one without (AUC)."
    ),
    "time_to_event": Headline(
        "c_harrell",
        "survival",
        "C-index",
        0.5,
        0.15,
        "Chance that of two patients the one who has the event first is ranked as at higher risk (Harrell's C).",
    ),
    "ordinal": Headline(
        "c_ordinal",
        "ordinal",
        "ordinal C-index",
        0.5,
        0.15,
        "Chance that of two patients with different levels the one with the better is ranked higher (ordinal C).",
    ),
    "continuous": Headline(
        "r2",
        None,
        "R2",
        0.0,
        0.3,
        "Share of the outcome's variance that the estimates explain (R2); below 0 worse than the mean.",
    ),
}


@dataclass(frozen=True)
class EndpointContent:
    """What a report says of one endpoint, as plain JSON values.

    Attributes:
        name: of the endpoint in the study.
        terms: the words for it.
        family, choice: what was chosen, and why.
        performance: site (or `cv`) to its record, as `evaluate_target` gives it.
        curves: site (or `cv`) to what `site_curves` gives for the kind.
        statistics: what was asked of its figures; see `study_statistics`.
    """

    name: str
    terms: Terms
    family: str
    choice: str
    performance: Mapping[str, Mapping[str, Any]]
    curves: Mapping[str, Mapping[str, Any]]
    statistics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def headline(self) -> Headline:
        """The figure that leads."""
        return HEADLINES[self.terms.kind]


def decisions_of(record: Mapping[str, Any]) -> int:
    """Return how many decisions stand behind a site's figures: of a time to event all that were followed."""
    return int((record.get("survival") or record)["n"])
