"""Response by RECIST 1.1 from measured lesions: targets, sums, categories and one row per time point.

Lesions come as a tidy table, one row per lesion and time point:

| column | meaning |
| --- | --- |
| `subject_id`, `lesion` | whose lesion |
| `time` | date, or number of days |
| `kind` | `target`, `non_target` or `new` |
| `nodal` | whether it is a lymph node (optional; none is, without the column) |
| `organ` | needed to choose targets, and for new lesions under iRECIST (optional) |
| `diameter_mm` | longest diameter; of a node the short axis; missing where `status` says all |
| `status` | see `STATUSES`; missing means measured (target) or present |

Source: Eisenhauer EA et al. New response evaluation criteria in solid tumours: revised RECIST guideline (version 1.1).
Eur J Cancer 2009;45:228-247; Schwartz LH et al. RECIST 1.1: update and clarification. Eur J Cancer 2016;62:132-137.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from theracast_data.errors import SchemaError
from theracast_data.section import Section

Target = Literal["CR", "PR", "SD", "PD", "NE"]
NonTarget = Literal["CR", "NonCR/NonPD", "PD", "NE"]
Overall = Literal["CR", "PR", "SD", "NonCR/NonPD", "PD", "NE"]
KINDS = ("target", "non_target", "new")

STATUSES: dict[str, tuple[str, ...]] = {
    "measured": ("", "MEASURED", "PRESENT", "NC", "NCLA", "NO CHANGE"),
    "too small": ("TOO SMALL TO MEASURE", "TOO SMALL", "BML"),
    "absent": ("ABSENT", "DISAPPEARED", "RESOLVED", "CR"),
    "not evaluable": ("NOT EVALUABLE", "NOT ASSESSED", "NOT DONE", "NE"),
    "increased": ("INCREASED", "FURTHER INCREASE", "INC", "INCLA"),
    "progressed": ("UNEQUIVOCAL PROGRESSION", "PROGRESSION", "PD", "UNE"),
    "equivocal": ("EQUIVOCAL",),
}
"""Meaning of `status` to the words that say it, in any case of letters.

`increased` is an increase since the last assessment that is no unequivocal progression by itself (it confirms one under
iRECIST); `progressed` holds for non-target lesions; `equivocal` for new lesions: one that is later present counts from its
first row (section 4.3.5 of Eisenhauer 2009).
"""
_MEANING = {word: meaning for meaning, words in STATUSES.items() for word in words}


class RecistRules(Section):
    """Thresholds of RECIST 1.1; the defaults are the publication's."""

    max_targets: int = Field(5, ge=1, description="Target lesions of one patient at most.")
    max_per_organ: int = Field(2, ge=1, description="Target lesions of one organ at most.")
    measurable_mm: float = Field(10.0, gt=0, description="Least longest diameter (mm) of a measurable lesion.")
    measurable_node_mm: float = Field(15.0, gt=0, description="Least short axis (mm) of a measurable lymph node.")
    normal_node_mm: float = Field(10.0, gt=0, description="A lymph node with a shorter short axis (mm) is normal.")
    too_small_mm: float = Field(5.0, ge=0, description="What `too small to measure` counts (mm).")
    partial_percent: float = Field(30.0, gt=0, lt=100, description="Decrease from baseline (%) of a partial response.")
    progression_percent: float = Field(20.0, gt=0, description="Increase from nadir (%) of progression.")
    progression_mm: float = Field(5.0, ge=0, description="Increase from nadir (mm) that progression needs as well.")
    hold_partial: bool = Field(
        False, description="Whether a partial response stays one until progression, though the sum has risen a little."
    )


@dataclass
class Lesion:
    """One lesion over the time points of its patient.

    Attributes:
        diameter_mm: (n_times,) mm; 0 where absent, NaN where not measured.
        status: (n_times,) key of `STATUSES`; None where there is no row.
    """

    name: str
    kind: str
    nodal: bool
    organ: str
    diameter_mm: NDArray[np.float64]
    status: list[str | None]


@dataclass
class Patient:
    """The lesions of one patient from the baseline on.

    Attributes:
        times: as given; `days`: (n_times,) d since the baseline, ascending from 0.
    """

    subject_id: str
    times: list[Any]
    days: NDArray[np.float64]
    targets: list[Lesion] = field(default_factory=list)
    non_targets: list[Lesion] = field(default_factory=list)
    new: list[Lesion] = field(default_factory=list)


def select_targets(baseline: pd.DataFrame, *, rules: RecistRules | None = None) -> list[str]:
    """Return the names of the target lesions of one patient, largest first.

    The largest measurable lesions are taken, at most two of an organ and five in all; of equally large ones the first by
    name. All lymph nodes are one organ (section 3.1.1 of Eisenhauer 2009; 4.1.2 for size as the rule of choice).

    Args:
        baseline: lesion, organ, diameter_mm, optionally nodal: one row per lesion.
    """
    limits = rules or RecistRules()
    _require(baseline, ("lesion", "organ", "diameter_mm"))
    nodal = _nodal(baseline)
    size = pd.to_numeric(baseline["diameter_mm"], errors="coerce")
    measurable = size >= np.where(nodal, limits.measurable_node_mm, limits.measurable_mm)
    organ = np.where(nodal, "lymph node", baseline["organ"].astype(str).str.strip().str.lower())
    ordered = sorted(
        (-float(mm), str(name), str(place))
        for mm, name, place, fits in zip(size, baseline["lesion"], organ, measurable, strict=True)
        if fits
    )
    taken: dict[str, str] = {}
    for _, name, place in ordered:
        if len(taken) < limits.max_targets and list(taken.values()).count(place) < limits.max_per_organ:
            taken[name] = place
    return list(taken)


def target_category(
    diameters_mm: Sequence[float] | NDArray[np.float64],
    nodal: Sequence[bool] | NDArray[np.bool_],
    *,
    baseline_mm: float,
    nadir_mm: float,
    rules: RecistRules | None = None,
) -> Target:
    """Return the response of the target lesions at one time point.

    A lesion that was not assessed makes the response not evaluable, unless those that were assessed are enough for
    progression by themselves (section 4.3.2 of Eisenhauer 2009).

    Args:
        diameters_mm: (n_targets,) mm, 0 where a lesion is gone, NaN where it was not assessed.
        nodal: (n_targets,) whether each is a lymph node; nodes below 10 mm are normal.
        baseline_mm: sum at baseline.
        nadir_mm: smallest sum before this time point, that of the baseline included.
    """
    limits = rules or RecistRules()
    size, nodes = np.asarray(diameters_mm, dtype=np.float64), np.asarray(nodal, dtype=bool)
    if not len(size):
        return "NE"
    total = float(np.nansum(size))
    rise = total - nadir_mm
    # The tolerance keeps 20 % and 30 % of decimal numbers 20 % and 30 %.
    needed = max(limits.progression_mm, limits.progression_percent / 100 * nadir_mm)
    if total > 0 and rise >= needed - 1e-9:
        return "PD"
    if np.isnan(size).any():
        return "NE"
    if (np.where(nodes, size < limits.normal_node_mm, size == 0)).all():
        return "CR"
    if total <= (1 - limits.partial_percent / 100) * baseline_mm + 1e-9:
        return "PR"
    return "SD"


def non_target_category(
    lesions: Sequence[Lesion], place: int, *, complete: bool = False, rules: RecistRules | None = None
) -> NonTarget | None:
    """Return the response of the non-target lesions at time point number `place`; None where there are none.

    Args:
        complete: whether there was a complete response before: a lesion other than a node that is back is progression.
    """
    limits = rules or RecistRules()
    if not lesions:
        return None
    if complete and any(not one.nodal and is_there(one, place) for one in lesions):
        return "PD"
    states = [_non_target_state(lesion, place, limits) for lesion in lesions]
    for answer in ("PD", "NE", "NonCR/NonPD"):
        if answer in states:
            return answer
    return "CR"


def overall_response(target: Target | None, non_target: NonTarget | None, *, new: bool) -> Overall:
    """Return the response of the patient at one time point.

    Args:
        target, non_target: None where the patient had no such lesion at baseline.
        new: whether there is an unequivocal new lesion.

    Source: Eisenhauer 2009, table 1 (with target lesions) and table 2 (without).
    """
    if new or target == "PD" or non_target == "PD":
        return "PD"
    if target is None:
        return non_target or "NE"
    if target == "CR" and non_target in ("NonCR/NonPD", "NE"):
        return "PR"
    return target


TIME_POINT_COLUMNS = (
    "subject_id",
    "time",
    "days",
    "baseline",
    "targets",
    "targets_assessed",
    "sum_mm",
    "baseline_mm",
    "nadir_mm",
    "change_mm",
    "change_percent",
    "from_nadir_mm",
    "from_nadir_percent",
    "target",
    "non_target",
    "new",
    "overall",
)


_WORDS = ("target", "non_target", "overall")


def time_points(
    lesions: pd.DataFrame,
    *,
    rules: RecistRules | None = None,
    starts: pd.Series | None = None,
) -> pd.DataFrame:
    """Return one row per patient and time point from the baseline on, with `TIME_POINT_COLUMNS`.

    `sum_mm` is missing where a target lesion was not assessed, `nadir_mm` is the smallest sum before the time point. The
    baseline's row has no response. After a complete response of the patient, a lesion other than a node that is
    seen again is progression, however small (footnote of table 3 of Eisenhauer 2009).

    Args:
        lesions: as the module says, in any order. Rows of a patient before the baseline are not used.
        starts: start of treatment by subject_id: the baseline is the last time point at or before it. Of patients that are
            not in it, the first time point is the baseline.

    Raises:
        SchemaError: a column is missing, a word of `status` or `kind` is unknown, a diameter is negative, a lesion stands
            twice at one time, a target or non-target lesion is not recorded at baseline, or a patient has no time point at
            or before the start.
    """
    limits = rules or RecistRules()
    rows = [row for patient in patients(lesions, rules=limits, starts=starts) for row in _course(patient, limits)]
    return pd.DataFrame(rows, columns=list(TIME_POINT_COLUMNS)).astype(dict.fromkeys(_WORDS, "str"))


def patients(
    lesions: pd.DataFrame, *, rules: RecistRules | None = None, starts: pd.Series | None = None
) -> Iterator[Patient]:
    """Yield every patient with the lesions from the baseline on, in the order of the identifiers. Raises as `time_points`."""
    limits = rules or RecistRules()
    tidy = _checked(lesions, limits)
    known = {} if starts is None else starts.dropna().to_dict()
    unmeasured: list[str] = []
    late: list[str] = []
    found = []
    for subject, rows in tidy.groupby("subject_id", sort=True):
        patient = _patient(str(subject), rows, known.get(subject))
        unmeasured += [f"{subject}/{one.name}" for one in patient.targets if np.isnan(one.diameter_mm[0])]
        unmeasured += [f"{subject}/{one.name}" for one in patient.non_targets if one.status[0] is None]
        late += [str(subject)] if subject in known and patient.times[0] > known[subject] else []
        found.append(patient)
    told = []
    if unmeasured:
        told.append(
            f"{len(unmeasured)} target or non-target lesions are not recorded at baseline (first: {unmeasured[0]}), so "
            "nothing can be compared with it: call them new, or give the record"
        )
    if late:
        told.append(
            f"{len(late)} patients have no time point at or before their start (first: {late[0]}): leave them out, or "
            "correct the start"
        )
    if told:
        raise SchemaError(f"lesions: {'; '.join(told)}.")
    yield from found


def _course(patient: Patient, rules: RecistRules) -> Iterator[tuple[object, ...]]:
    """Yield the rows of `time_points` of one patient."""
    size = sizes(patient.targets, len(patient.days))
    nodes = np.array([one.nodal for one in patient.targets], dtype=bool)
    sums = size.sum(axis=0) if len(size) else np.full(len(patient.days), np.nan)
    first_new = [first_seen(one) for one in patient.new]
    nadir, complete, partial = float(sums[0]), False, False
    for place, days in enumerate(patient.days):
        total = float(sums[place])
        if place == 0:
            answers: tuple[object, ...] = (None, None, False, None)
        else:
            target = category_at(size[:, place], nodes, float(sums[0]), nadir, complete=complete, rules=rules)
            if rules.hold_partial and partial and target == "SD":
                target = "PR"
            non_target = non_target_category(patient.non_targets, place, complete=complete, rules=rules)
            new = any(
                seen is not None and seen <= place and (seen == place or is_there(one, place))
                for one, seen in zip(patient.new, first_new, strict=True)
            )
            overall = overall_response(target, non_target, new=new)
            complete, partial = complete or overall == "CR", partial or target == "PR"
            answers = (target, non_target, new, overall)
        yield (
            patient.subject_id,
            patient.times[place],
            float(days),
            place == 0,
            len(size),
            int(np.isfinite(size[:, place]).sum()),
            total,
            float(sums[0]),
            nadir,
            total - float(sums[0]),
            _percent(total, float(sums[0])),
            total - nadir,
            _percent(total, nadir),
            *answers,
        )
        nadir = float(np.fmin(nadir, total))


def category_at(
    size: NDArray[np.float64],
    nodes: NDArray[np.bool_],
    baseline_mm: float,
    nadir_mm: float,
    *,
    complete: bool,
    rules: RecistRules,
) -> Target | None:
    """Return the target category, with progression for what comes back after a complete response; None without targets."""
    if not len(size):
        return None
    if complete and (size[~nodes] > 0).any():
        return "PD"
    return target_category(size, nodes, baseline_mm=baseline_mm, nadir_mm=nadir_mm, rules=rules)


def sizes(lesions: Sequence[Lesion], n_times: int) -> NDArray[np.float64]:
    """Return (n_lesions, n_times) mm."""
    return np.array([one.diameter_mm for one in lesions], dtype=np.float64).reshape(len(lesions), n_times)


def _percent(value: float, reference: float) -> float:
    return 100.0 * (value / reference - 1.0) if reference > 0 else np.nan


def _non_target_state(lesion: Lesion, place: int, rules: RecistRules) -> NonTarget:
    status, size = lesion.status[place], lesion.diameter_mm[place]
    if status == "progressed":
        return "PD"
    if status is None or status == "not evaluable":
        return "NE"
    if status == "absent" or size == 0 or (lesion.nodal and size < rules.normal_node_mm):
        return "CR"
    return "NonCR/NonPD"


def is_there(lesion: Lesion, place: int) -> bool:
    return (
        lesion.status[place] in ("measured", "too small", "increased", "progressed") and lesion.diameter_mm[place] != 0
    )


def first_seen(lesion: Lesion) -> int | None:
    """Return the first time point of a new lesion that is unequivocally there at some time point; None if it never is."""
    if not any(is_there(lesion, place) for place in range(len(lesion.status))):
        return None
    return next(place for place, status in enumerate(lesion.status) if status == "equivocal" or is_there(lesion, place))


def _patient(subject: str, rows: pd.DataFrame, start: object) -> Patient:
    times = sorted(rows["time"].unique())
    before = [time for time in times if start is not None and time <= start]
    baseline = before[-1] if before else times[0]
    times = [time for time in times if time >= baseline]
    places = {time: place for place, time in enumerate(times)}
    elapsed = [time - baseline for time in times]
    days = [gap / pd.Timedelta(days=1) if isinstance(gap, pd.Timedelta) else float(gap) for gap in elapsed]
    patient = Patient(subject, list(times), np.array(days, dtype=np.float64))
    groups = {"target": patient.targets, "non_target": patient.non_targets, "new": patient.new}
    known: dict[str, Lesion] = {}
    columns = zip(
        rows["lesion"], rows["kind"], rows["nodal"], rows["organ"], rows["time"], rows["mm"], rows["state"], strict=True
    )
    for name, kind, nodal, organ, time, size, state in columns:
        if time not in places:
            continue
        if name not in known:
            nothing = np.full(len(times), np.nan)
            known[name] = Lesion(str(name), str(kind), bool(nodal), str(organ), nothing, [None] * len(times))
            groups[str(kind)].append(known[name])
        known[name].diameter_mm[places[time]] = size
        known[name].status[places[time]] = state
    for group in groups.values():
        group.sort(key=lambda one: one.name)
    return patient


def _checked(lesions: pd.DataFrame, rules: RecistRules) -> pd.DataFrame:
    """Return the lesions with `mm` and `state`, sorted; all faults in one error."""
    _require(lesions, ("subject_id", "time", "lesion", "kind", "diameter_mm"))
    words = lesions["status"] if "status" in lesions else pd.Series("", index=lesions.index)
    state = words.fillna("").astype(str).str.strip().str.upper().map(_MEANING)
    kind = lesions["kind"].astype(str).str.strip().str.lower().str.replace("-", "_").str.replace(" ", "_")
    size = pd.to_numeric(lesions["diameter_mm"], errors="coerce").astype("float64")
    lost = size.isna() & lesions["diameter_mm"].notna()
    tidy = pd.DataFrame(
        {
            "subject_id": lesions["subject_id"],
            "time": lesions["time"],
            "lesion": lesions["lesion"].astype(str),
            "kind": kind,
            "nodal": _nodal(lesions),
            "organ": lesions["organ"].fillna("").astype(str) if "organ" in lesions else "",
            "state": state,
            "mm": size,
        }
    )
    kinds = tidy.groupby(["subject_id", "lesion"])["kind"].transform("nunique")
    faults = {
        "have no time": tidy["time"].isna(),
        f"have a kind other than {', '.join(KINDS)}": ~kind.isin(KINDS),
        f"have an unknown status (known: {', '.join(word.lower() for word in _MEANING if word)})": state.isna(),
        "have a diameter that is no number of mm from 0 up": lost | (size < 0) | np.isinf(size),
        "say the same lesion and time twice": tidy.duplicated(["subject_id", "time", "lesion"]),
        "are of a lesion that has another kind elsewhere": kinds > 1,
    }
    told = [
        f"{int(wrong.sum())} rows {what} (first: row {int(wrong.to_numpy(dtype=bool).argmax())})"
        for what, wrong in faults.items()
        if wrong.any()
    ]
    if told:
        raise SchemaError(f"lesions: {'; '.join(told)}. Correct them in the source.")
    counted = size.mask(state == "too small", rules.too_small_mm).mask(state == "absent", 0.0)
    tidy["mm"] = counted.mask(state.isin(["not evaluable", "equivocal"]))
    # A target without number and without word was not assessed.
    unsaid = (kind == "target") & tidy["mm"].isna()
    tidy["state"] = tidy["state"].mask(unsaid, "not evaluable")
    return tidy.sort_values(["subject_id", "time", "lesion"], kind="stable")


def _nodal(lesions: pd.DataFrame) -> NDArray[np.bool_]:
    if "nodal" not in lesions:
        return np.zeros(len(lesions), dtype=bool)
    return lesions["nodal"].fillna(False).astype(bool).to_numpy()


def _require(lesions: pd.DataFrame, names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in lesions]
    if missing:
        raise SchemaError(f"lesions: the column {', '.join(missing)} is missing. See the table in the module's text.")
