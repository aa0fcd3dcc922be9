"""What an answer means to a doctor, by the kind of its endpoint: chances of patients, of an event in time, numbers."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from theracast_data.endpoints import event_label
from theracast_features.specs import FeatureTable
from theracast_models.head import Head
from theracast_models.links import HazardLink, NumberLink, incidence
from theracast_models.prediction import Answer
from theracast_serving.clinical_text import (
    hundredth,
    number_text,
    of_hundred,
    outcome_verb,
    percent_text,
    points_text,
    range_of_hundred,
    unit_text,
)

NORMAL_95 = 1.959964


@dataclass(frozen=True)
class Headings:
    """How the part on reasons is headed: what a bar to either side means, and in what its size is told."""

    title: str
    against: str
    towards: str
    size: str
    scale: str
    explained: str


@dataclass(frozen=True)
class Told:
    """The answer of one patient for one endpoint, with its words.

    Attributes:
        head: the endpoint and its model.
        answer: of all patients.
        row: position of the patient.
        features: what was scored, of all patients.
    """

    head: Head
    answer: Answer
    row: int
    features: FeatureTable

    @property
    def estimate(self) -> float:
        """The leading answer."""
        return float(self.answer.estimates[self.row, 0])

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval."""
        return float(self.answer.low[self.row, 0]), float(self.answer.high[self.row, 0])

    @property
    def is_number(self) -> bool:
        """Whether the answer is a number, not a chance."""
        return self.answer.kind == "continuous"

    @property
    def unit(self) -> str:
        """Unit of a number."""
        return unit_text(self.answer.unit)

    @property
    def event(self) -> str:
        """What happens at the end of a time, in words."""
        return event_label(self.head.endpoint)

    @property
    def linear(self) -> float:
        """The score behind all answers of this patient, without the offset of the leading one."""
        offset = float(self.head.calibrated.calibration.offsets[0])
        return float(self.answer.base[self.row]) - offset + float(self.answer.contributions.iloc[self.row].sum())

    @property
    def competes(self) -> bool:
        """Whether another event may come first."""
        return self.answer.competing is not None

    @cached_property
    def against(self) -> NDArray[np.float64]:
        """(2,) the score of the competing event of this patient and of the average one."""
        rival = self.head.calibrated.rival
        assert rival is not None
        return np.array([float(rival.log_odds(self.features.take(np.array([self.row])))[0]), 0.0])

    def chances_by(self, days: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (2, m) chances of the event by each of m days: of this patient and of the average one.

        The average patient has the mean log-hazard of the development patients, which the calibration puts at 0.
        """
        return self._by(days, np.array([self.linear, 0.0]), self.against if self.competes else None)

    def _by(
        self, days: NDArray[np.float64], linear: NDArray[np.float64], against: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        link, rival = self.head.calibrated.calibration, self.head.calibrated.rival
        assert isinstance(link, HazardLink)
        if rival is None or against is None:
            return link.by(days, linear)
        assert isinstance(rival.calibration, HazardLink)
        return incidence(link, rival.calibration, linear, against, days)[0]

    def _chance(self, linear: float) -> float:
        """Return the leading answer for another score of this patient."""
        link = self.head.calibrated.calibration
        if self.competes and isinstance(link, HazardLink):
            leading = np.array(link.horizons[:1])
            return float(self._by(leading, np.array([linear]), self.against[:1])[0, 0])
        return float(link.inverse(link.offsets[:1] + linear)[0])

    def said(self, place: int = 0) -> str:
        """Return one answer with its unit, e.g. `62 of 100`, `−12 mm`."""
        return self.amount(float(self.answer.estimates[self.row, place]))

    def said_range(self, place: int = 0) -> str:
        """Return the interval of one answer, without a unit."""
        return self.between(float(self.answer.low[self.row, place]), float(self.answer.high[self.row, place]))

    def amount(self, value: float) -> str:
        """Return a chance or a number in words."""
        if self.is_number:
            return f"{self.number(value)} {self.unit}".strip()
        return f"{of_hundred(value)} of 100"

    def number(self, value: float) -> str:
        """Return a number without its unit, to the digits that matter beside the scatter of single patients."""
        spread = float(getattr(self.head.calibrated.calibration, "spread", 0.0)) or abs(value) or 1.0
        return number_text(round(value, 1 - math.floor(math.log10(spread))))

    def said_short(self, value: float) -> str:
        """Return a chance in per cent, or a number without its unit."""
        return self.number(value) if self.is_number else percent_text(value)

    def between(self, low: float, high: float) -> str:
        """Return two chances or numbers as a range."""
        return f"{self.number(low)} to {self.number(high)}" if self.is_number else range_of_hundred(low, high)

    def start(self) -> str:
        """Return the answer before any feature speaks."""
        offset = float(self.head.calibrated.calibration.offsets[0])
        return self.amount(self._chance(float(self.answer.base[self.row]) - offset))

    def effect(self, phi: float) -> float:
        """Return by how much the leading answer would differ without a contribution, sign turned: in points, or its unit."""
        if self.is_number:
            return phi
        if self.competes:
            return 100 * (self.estimate - self._chance(self.linear - phi))
        link = self.head.calibrated.calibration
        full = float(link.scale_of(np.array([self.estimate]))[0])
        without = float(link.inverse(np.array([full - phi]))[0])
        return 100 * (self.estimate - without)

    def effect_text(self, phi: float) -> str:
        """Return that effect with its sign."""
        if not self.is_number:
            return points_text(self.effect(phi))
        text = self.number(phi)
        return "±0" if text == "0" else text if text.startswith("−") else f"+{text}"

    def verb(self, place: int = 0) -> str:
        """Return what the patients do of whom the chance is told: `respond`, `die within 12 months`, `reach PR or better`."""
        name = self.answer.asked[place].name
        if self.answer.kind == "time_to_event":
            return f"{_verb(self.event)} within {name}"
        return f"reach {name}" if self.answer.kind == "ordinal" else outcome_verb(self.answer.label)

    def past(self) -> str:
        """Return what some patients did: `responded`, `died`, `had grade 3 toxicity`."""
        if self.answer.kind == "time_to_event":
            return "died" if self.event == "death" else f"had {self.event}"
        if self.answer.kind == "ordinal":
            return f"reached {self.answer.asked[0].name}"
        return "responded" if outcome_verb(self.answer.label) == "respond" else f"had {self.answer.label}"

    def forestalled(self) -> str | None:
        """Return how many patients have the competing event first."""
        if self.answer.competing is None:
            return None
        chance = float(self.answer.competing[self.row, 0])
        return f"In {self.amount(chance)} another event comes first within {self.answer.asked[0].name}."

    @property
    def spared(self) -> str:
        """How those are who had no event: `alive`, `without progression or death`."""
        return "alive" if self.event == "death" else f"without {self.event}"

    def single_patients(self) -> str | None:
        """Return where single patients lie around an expected number."""
        link = self.head.calibrated.calibration
        if not isinstance(link, NumberLink):
            return None
        reach = NORMAL_95 * link.spread
        text = self.between(self.estimate - reach, self.estimate + reach)
        return f"Single patients scatter around it: about 95 of 100 lie within {text} {self.unit}".strip() + "."

    def headings(self) -> Headings:
        """Return how the reasons are headed."""
        points = (
            "by how many percentage points this patient’s chance would differ if that entry alone were silent; they do "
            "not add up"
        )
        if self.answer.kind == "binary":
            return Headings(
                "What speaks for and against", "against", "for", "points", "on the log-odds scale", f"Points: {points}"
            )
        if self.is_number:
            title = "What raises and lowers the number"
            return Headings(
                title, "lowers", "raises", self.unit or "amount", "", "The sizes of all entries add up to the number"
            )
        scale = "log-odds" if self.answer.kind == "ordinal" else "log-hazard"
        title = f"What raises and lowers the chance {self.of_what()}"
        return Headings(title, "lowers", "raises", "points", f"on the {scale} scale", f"Points: {points}")

    @property
    def label_of_answer(self) -> str:
        """What is told, within a sentence: `the chance of death within 12 months`, `the expected number`."""
        if self.is_number:
            return "the expected number"
        return f"the chance {self.of_what()}" if self.answer.kind != "binary" else "the chance"

    def of_what(self) -> str:
        """Return of what the chance is told: `of death within 12 months`, `of PR or better`."""
        name = self.answer.asked[0].name
        if self.answer.kind == "time_to_event":
            return f"of {self.event} within {name}"
        return f"of {name}"


def strongest(phi: NDArray[np.float64], most: int) -> list[int]:
    """Return the positions of the largest contributions but zeros, the largest first."""
    return [int(place) for place in np.argsort(-np.abs(phi), kind="stable")[:most] if phi[place] != 0]


def days_text(days: float) -> str:
    """Return a length of time as a doctor says it: days up to two weeks, weeks up to three months, then months."""
    for most, length, word in ((14, 1, "day"), (91, 7, "week"), (np.inf, 30.4375, "month")):
        if days <= most:
            number = number_text(round(days / length, 1))
            return f"{number} {word}" if number == "1" else f"{number} {word}s"
    raise AssertionError


def share_text(share: float) -> str:
    """Return a share in whole per cent."""
    return f"{hundredth(share)} %"


def _verb(event: str) -> str:
    return "die" if re.fullmatch(r"death|died", event, re.IGNORECASE) else f"have {event}"
