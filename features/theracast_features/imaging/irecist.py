"""Response under immunotherapy by iRECIST: progression counts only when a later assessment confirms it.

Lesions are those of `theracast_features.imaging.recist`; new lesions may carry a diameter and an organ, so that the
largest measurable ones are followed by their sum and the others by words (`increased`, `unequivocal progression`).

What the publication leaves open is decided so:

- Increases are counted from the assessment that first called the progression, and add up (working group's answer at
  recist.eortc.org: 4 mm and then 2 mm confirm).
- Confirmation needs at least 4 weeks since progression was first called, and at most 8 since it was last seen. A later
  assessment leaves it unconfirmed and the count goes on, unless the rules say otherwise.
- New lesions that stay as they are keep the progression unconfirmed, unless the sum of the target lesions has fallen since
  (scenarios B and F of the publication's figure).

Source: Seymour L et al. iRECIST: guidelines for response criteria for use in trials testing immunotherapeutics. Lancet Oncol
2017;18:e143-e152 (table 2 and figure).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from theracast_features.imaging.best_response import Immune
from theracast_features.imaging.recist import (
    Lesion,
    NonTarget,
    Patient,
    RecistRules,
    Target,
    category_at,
    first_seen,
    is_there,
    non_target_category,
    overall_response,
    patients,
    sizes,
)


class IrecistRules(RecistRules):
    """Thresholds of iRECIST; the defaults are the publication's."""

    confirm_from_days: float = Field(28.0, ge=0, description="Least time (d) from progression first called.")
    confirm_to_days: float | None = Field(
        56.0, gt=0, description="Longest time (d) since progression was last seen; null for no limit."
    )
    confirm_mm: float = Field(5.0, gt=0, description="Further increase of a sum (mm) that confirms progression.")


IMMUNE_COLUMNS = ("subject_id", "time", "days", "target", "non_target", "new", "new_sum_mm", "confirmed_by", "overall")


_WORDS = ("target", "non_target", "confirmed_by", "overall")


def immune_time_points(
    lesions: pd.DataFrame, *, rules: IrecistRules | None = None, starts: pd.Series | None = None
) -> pd.DataFrame:
    """Return one row per patient and time point after the baseline, with `IMMUNE_COLUMNS`.

    `target` and `non_target` are by RECIST 1.1, `new` says whether a lesion is seen for the first time, `confirmed_by` why
    progression is confirmed. After confirmation every time point is iCPD.

    Args and raises: as `time_points`.
    """
    limits = rules or IrecistRules()
    rows = [row for one in patients(lesions, rules=limits, starts=starts) for row in _course(one, limits)]
    return pd.DataFrame(rows, columns=list(IMMUNE_COLUMNS)).astype(dict.fromkeys(_WORDS, "str"))


@dataclass
class _Unconfirmed:
    """A progression that waits for confirmation.

    Attributes:
        first, last: d since baseline at which it was first called and last seen.
        sum_mm: sum of targets when first called; new_mm: sum of the measured new lesions then.
        target, non_target, new: which of them have progressed so far.
    """

    first: float
    last: float
    sum_mm: float
    new_mm: float
    target: bool = False
    non_target: bool = False
    new: bool = False


@dataclass
class _Seen:
    """What is seen of one patient at one time point."""

    place: int
    days: float
    target: Target | None
    non_target: NonTarget | None
    non_target_increased: bool
    sum_mm: float
    new_mm: float
    new_nadir_mm: float
    first_seen: bool
    new_there: bool
    new_increased: bool
    new_progressed: bool

    @property
    def progressed(self) -> bool:
        """Whether any part has progressed by the rules of RECIST 1.1, new lesions by their own nadir."""
        return self.target == "PD" or self.non_target == "PD" or self.first_seen or self.new_progressed


@dataclass
class _NewLesions:
    """The new lesions of a patient: which are followed by their sum, and the smallest sum so far."""

    lesions: list[Lesion]
    starts: list[int | None]
    measured: list[int] = field(default_factory=list)
    nadir_mm: float = 0.0

    def choose(self, place: int, rules: RecistRules) -> None:
        """Add the measurable lesions first seen at `place`, largest first, as far as there is room."""
        here = [i for i, start in enumerate(self.starts) if start == place]
        for i in sorted(here, key=lambda i: -np.nan_to_num(self.lesions[i].diameter_mm[place])):
            lesion = self.lesions[i]
            organ = _organ(lesion)
            least = rules.measurable_node_mm if lesion.nodal else rules.measurable_mm
            same = sum(_organ(self.lesions[j]) == organ for j in self.measured)
            fits = len(self.measured) < rules.max_targets and (organ == "" or same < rules.max_per_organ)
            if fits and lesion.diameter_mm[place] >= least:
                self.measured.append(i)
                self.nadir_mm += float(lesion.diameter_mm[place])

    def sum_mm(self, place: int) -> float:
        """Return the sum of the measured ones; NaN where one was not assessed."""
        return float(sum(self.lesions[i].diameter_mm[place] for i in self.measured))

    def known(self, place: int) -> list[int]:
        """Return those first seen before `place`."""
        return [i for i, start in enumerate(self.starts) if start is not None and start < place]


def _organ(lesion: Lesion) -> str:
    return "lymph node" if lesion.nodal else lesion.organ.strip().lower()


def _course(patient: Patient, rules: IrecistRules) -> Iterator[tuple[object, ...]]:
    """Yield the rows of `immune_time_points` of one patient."""
    size = sizes(patient.targets, len(patient.days))
    nodes = np.array([one.nodal for one in patient.targets], dtype=bool)
    new = _NewLesions(patient.new, [first_seen(one) for one in patient.new])
    nadir = float(size[:, 0].sum()) if len(size) else np.nan
    waiting: _Unconfirmed | None = None
    complete, ended = False, False
    for place in range(1, len(patient.days)):
        seen = _look(patient, place, size, nodes, nadir_mm=nadir, new=new, complete=complete, rules=rules)
        reason = _confirmation(seen, waiting, rules) if waiting else None
        ended = ended or reason is not None
        if ended:
            answer: Immune = "iCPD"
        elif waiting and _still(seen, waiting):
            answer = _unresolved(seen)
        elif seen.progressed:
            answer = "iUPD"
        else:
            waiting, answer = None, _response(seen)
        if answer == "iUPD":
            waiting = _noted(seen, waiting)
        complete = complete or answer == "iCR"
        yield (
            patient.subject_id,
            patient.times[place],
            seen.days,
            seen.target,
            seen.non_target,
            seen.first_seen,
            seen.new_mm if new.measured else np.nan,
            reason,
            answer,
        )
        nadir = float(np.fmin(nadir, seen.sum_mm))
        new.nadir_mm = float(np.fmin(new.nadir_mm, seen.new_mm))


def _look(
    patient: Patient,
    place: int,
    size: NDArray[np.float64],
    nodes: NDArray[np.bool_],
    *,
    nadir_mm: float,
    new: _NewLesions,
    complete: bool,
    rules: IrecistRules,
) -> _Seen:
    baseline = float(size[:, 0].sum()) if len(size) else np.nan
    known = new.known(place)
    before_mm, before_nadir = new.sum_mm(place), new.nadir_mm
    needed = max(rules.progression_mm, rules.progression_percent / 100 * before_nadir)
    grown = bool(new.measured) and before_mm - before_nadir >= needed - 1e-9
    others = [patient.new[i] for i in known if i not in new.measured]
    new.choose(place, rules)
    return _Seen(
        place=place,
        days=float(patient.days[place]),
        target=category_at(size[:, place], nodes, baseline, nadir_mm, complete=complete, rules=rules),
        non_target=non_target_category(patient.non_targets, place, complete=complete, rules=rules),
        non_target_increased=any(one.status[place] == "increased" for one in patient.non_targets),
        sum_mm=float(size[:, place].sum()) if len(size) else np.nan,
        new_mm=new.sum_mm(place),
        new_nadir_mm=new.nadir_mm,
        first_seen=any(start == place for start in new.starts),
        new_there=any(is_there(one, place) for one in patient.new),
        new_increased=any(one.status[place] in ("increased", "progressed") for one in others),
        new_progressed=grown or any(one.status[place] == "progressed" for one in others),
    )


def _confirmation(seen: _Seen, waiting: _Unconfirmed, rules: IrecistRules) -> str | None:
    """Return what confirms the progression at this time point; None where nothing does."""
    late = rules.confirm_to_days is not None and seen.days - waiting.last > rules.confirm_to_days
    if late or seen.days - waiting.first < rules.confirm_from_days:
        return None
    further = rules.confirm_mm - 1e-9
    if seen.first_seen:
        return "further new lesion" if waiting.new else "new lesion"
    if waiting.new and (seen.new_mm - waiting.new_mm >= further or seen.new_increased):
        return "increase of new lesions"
    if waiting.target and seen.target in ("PD", "NE") and seen.sum_mm - waiting.sum_mm >= further:
        return "increase of target lesions"
    if seen.target == "PD" and not waiting.target:
        return "progression of target lesions"
    if waiting.non_target and seen.non_target_increased:
        return "increase of non-target lesions"
    if seen.non_target == "PD" and not waiting.non_target:
        return "progression of non-target lesions"
    return None


def _still(seen: _Seen, waiting: _Unconfirmed) -> bool:
    """Return whether the progression that waits is still seen, or cannot be told to have gone."""
    if seen.progressed or seen.target == "NE" or (waiting.non_target and seen.non_target == "NE"):
        return True
    shrunk = seen.sum_mm < waiting.sum_mm - 1e-9
    return waiting.new and seen.new_there and not shrunk


def _unresolved(seen: _Seen) -> Immune:
    """Return iUPD where progression is seen, NE where the lesions that would tell were not assessed."""
    told = seen.progressed or seen.new_there
    return "iUPD" if told else "NE"


def _response(seen: _Seen) -> Immune:
    """Return the response where nothing has progressed; new lesions that are still there allow no complete one."""
    answer = overall_response(seen.target, seen.non_target, new=False)
    if answer == "CR" and seen.new_there:
        answer = "PR" if seen.target else "NonCR/NonPD"
    immune: dict[str, Immune] = {
        "CR": "iCR",
        "PR": "iPR",
        "SD": "iSD",
        "NonCR/NonPD": "NoniCR/NoniUPD",
        "NE": "NE",
    }
    return immune[answer]


def _noted(seen: _Seen, waiting: _Unconfirmed | None) -> _Unconfirmed:
    """Return the progression with what has been seen now."""
    noted = waiting or _Unconfirmed(seen.days, seen.days, seen.sum_mm, seen.new_mm)
    if seen.first_seen and not noted.new:
        noted.new_mm = seen.new_mm
    if np.isnan(noted.sum_mm):
        noted.sum_mm = seen.sum_mm
    noted.last = seen.days
    noted.target = noted.target or seen.target == "PD"
    noted.non_target = noted.non_target or seen.non_target == "PD"
    noted.new = noted.new or seen.first_seen or seen.new_progressed
    return noted
