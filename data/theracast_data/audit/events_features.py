"""Checks of features made from events: do they need the future, name the patient, or stand for the hospital?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from theracast_data.audit.chance import auc, average_ranks, rates_p
from theracast_data.audit.context import Booleans, Floats
from theracast_data.audit.events_times import SHOWN
from theracast_data.audit.findings import Finding, figure, listing, percent, plural
from theracast_data.decisions.windows import SameDay, event_arrays, subject_positions
from theracast_data.errors import CohortError

Compute = Callable[[pa.Table, pd.DataFrame], pd.DataFrame]
LEAST = 30
"""Fewer known values are not judged."""
NEAR_UNIQUE = 0.95
ORDERED = 0.95
PERFECT = 0.98
CHANCE = 0.01


def check_future_rows(
    events: pa.Table, decisions: pd.DataFrame, compute: Compute, *, same_day: SameDay = "hidden"
) -> list[Finding]:
    """Return an error for each feature that changes when the events not yet known at the decision are taken away.

    Args:
        events: events with the columns of `EVENT_SCHEMA`; further columns are handed on.
        decisions: `subject_id` and `index_time`, and whatever `compute` needs.
        compute: events and decisions to features, one row for each decision in the given order.
        same_day: whether what carries a date without clock time is known on that day.

    Raises:
        CohortError: `compute` returns another number of rows, or other columns, than it was asked for.
    """
    changed: dict[str, list[int]] = {}
    for rows, visible in _stages(events, decisions, same_day):
        asked = decisions.iloc[rows].reset_index(drop=True)
        whole, cut = (compute(table, asked.copy()) for table in (events, events.filter(pa.array(visible))))
        if len(whole) != len(asked) or len(cut) != len(asked) or list(whole.columns) != list(cut.columns):
            raise CohortError(
                f"the features of {len(asked)} decisions have {len(whole)} and {len(cut)} rows, or other columns when "
                "events are missing. `compute` must return one row for each decision and the same columns always."
            )
        for place, name in enumerate(whole.columns):
            differs = _differs(whole.iloc[:, place], cut.iloc[:, place])
            changed.setdefault(str(name), []).extend(rows[differs].tolist())
    return [
        Finding(
            check="needs-the-future",
            severity="error",
            site=None,
            column=name,
            message=f"The feature changes in {plural(len(rows), 'decision')} of {len(decisions):,} "
            f"({percent(len(rows) / len(decisions))}) when only the events known at the decision are there.",
            why="When a patient is scored, the later events do not exist: the model would be trained on one thing and "
            "used on another, and its validation is too good.",
            remedy="Filter by `time <= index_time` and `available_time <= index_time` inside the builder of this feature; "
            "a date without clock time counts as known at the end of its day.",
            count=len(rows),
            subjects=tuple(decisions["subject_id"].iloc[sorted(rows)[:SHOWN]].astype(str)),
        )
        for name, rows in changed.items()
        if rows
    ]


def check_identifiers(features: pd.DataFrame, decisions: pd.DataFrame) -> list[Finding]:
    """Return an error for each feature that names the patient: a text or running number, or the order of enrolment.

    Args:
        features: (n, ...) in the order of `decisions`.
        decisions: `subject_id` and `index_time`.
    """
    first = ~decisions.duplicated("subject_id").to_numpy()
    orders: dict[str, Floats] = {
        "the order of the index times": average_ranks(decisions["index_time"].to_numpy().astype(np.int64)),
        "the order of the identifiers": np.unique(decisions["subject_id"].astype(str), return_inverse=True)[1].astype(
            np.float64
        ),
    }
    findings = []
    for name in features.columns:
        column = features[name]
        known = first & column.notna().to_numpy()
        count = int(known.sum())
        distinct = int(column[known].nunique())
        if count < LEAST or distinct < NEAR_UNIQUE * count:
            continue
        reason = _identifying(column[known], {words: order[known] for words, order in orders.items()})
        if reason is None:
            continue
        findings.append(
            Finding(
                check="identifier-as-feature",
                severity="error",
                site=None,
                column=str(name),
                message=f"{distinct:,} distinct values in {plural(count, 'patient')}, and {reason}.",
                why="A model can learn single patients, or the time at which they came, from it; nothing of that holds "
                "for the next patient.",
                remedy=f"Leave it out: `features: {{exclude: [{name}]}}`, or `role: covariate`.",
                count=count,
            )
        )
    return findings


def check_site_proxy(features: pd.DataFrame, decisions: pd.DataFrame, label: npt.ArrayLike) -> list[Finding]:
    """Return a warning for each feature that gives the site away, where the outcome differs between the sites.

    Args:
        features: (n, ...) in the order of `decisions`.
        decisions: `site`.
        label: (n,) outcome as 0/1, NaN where not known.
    """
    outcome = np.asarray(label, dtype=np.float64)
    sites = decisions["site"].to_numpy(dtype=object)
    known = np.isfinite(outcome)
    names = [str(site) for site in pd.unique(sites) if (sites == site).sum() >= LEAST // 3]
    totals = np.array([(known & (sites == site)).sum() for site in names], dtype=np.float64)
    if len(names) < 2 or (totals == 0).any():
        return []
    counts = np.array([outcome[known & (sites == site)].sum() for site in names])
    if rates_p(counts, totals) >= CHANCE:
        return []
    rates = [f"{site} {percent(count / total)}" for site, count, total in zip(names, counts, totals, strict=True)]
    findings = []
    for name in features.columns:
        best = max(
            ((site, words, area) for site in names for words, area in _telling(features[name], sites == site)),
            key=lambda one: one[2],
            default=None,
        )
        if best is None or best[2] < PERFECT:
            continue
        findings.append(
            Finding(
                check="site-proxy",
                severity="warning",
                site=best[0],
                column=str(name),
                message=f"{best[1]} tells this site from the others with an AUC of {figure(best[2])}, and the outcome "
                f"differs between the sites: {listing(rates)}.",
                why="The model can learn the hospital in place of the disease; at another hospital that knowledge is "
                "wrong.",
                remedy="Leave the feature out, or harmonise it (units, assay, coding) between the sites; judge the model "
                "by validation that leaves whole sites out.",
                count=int((sites == best[0]).sum()),
            )
        )
    return findings


def _stages(
    events: pa.Table, decisions: pd.DataFrame, same_day: SameDay
) -> Iterator[tuple[npt.NDArray[np.intp], Booleans]]:
    """Yield decisions, at most one of each patient, and the rows of events that were known at them."""
    arrays = event_arrays(events, same_day=same_day, assume_dates=False)
    subject = subject_positions(arrays, decisions["subject_id"].to_numpy())
    index = decisions["index_time"].to_numpy().astype("datetime64[us]").astype(np.int64)
    number = decisions.groupby("subject_id", sort=False).cumcount().to_numpy()
    for stage in range(int(number.max()) + 1 if len(number) else 0):
        rows = np.flatnonzero(number == stage)
        moment = np.full(len(arrays.subjects) + 1, np.iinfo(np.int64).max)  # the others keep their events
        moment[subject[rows]] = index[rows]
        visible = np.empty(len(arrays), dtype=np.bool_)
        limit = moment[arrays.subject]
        visible[arrays.row] = (arrays.time <= limit) & (arrays.known <= limit)
        yield rows, visible


def _differs(left: pd.Series, right: pd.Series) -> Booleans:
    """Return where two columns differ; missing equals missing, and the last bits of a sum do not count."""
    if pd.api.types.is_numeric_dtype(left) and pd.api.types.is_numeric_dtype(right):
        one, other = (side.to_numpy(dtype=np.float64, na_value=np.nan) for side in (left, right))
        return np.asarray(~np.isclose(one, other, rtol=1e-9, atol=1e-12, equal_nan=True), dtype=np.bool_)
    absent = left.isna().to_numpy() & right.isna().to_numpy()
    same = left.astype(object).to_numpy() == right.astype(object).to_numpy()
    return np.asarray(~absent & ~same, dtype=np.bool_)


def _identifying(column: pd.Series, orders: dict[str, Floats]) -> str | None:
    """Return what makes a near-unique column an identifier, None where it may be a measurement."""
    if not pd.api.types.is_numeric_dtype(column):
        return "they are texts"
    values = column.to_numpy(dtype=np.float64)
    for words, order in orders.items():
        if len(np.unique(order)) < 2:
            continue
        agreement = float(np.corrcoef(average_ranks(values), average_ranks(order))[0, 1])
        if abs(agreement) >= ORDERED:
            return f"they follow {words} (rank correlation {figure(agreement)})"
    if (values == np.round(values)).all() and np.ptp(values) + 1 <= 1.1 * len(values):
        return "they are running numbers"
    return None


def _telling(column: pd.Series, here: Booleans) -> Iterator[tuple[str, float]]:
    """Yield how well the column, its missingness or one of its levels tells a site: words and AUC in either direction."""
    absent = column.isna().to_numpy()
    if absent.any() and not absent.all():
        yield "Whether it is missing", _either(absent.astype(np.float64), here)
    known = ~absent
    if known.sum() < LEAST or not 0 < here[known].sum() < known.sum():
        return
    if pd.api.types.is_numeric_dtype(column):
        yield "The value", _either(column.to_numpy(dtype=np.float64, na_value=np.nan)[known], here[known])
        return
    levels, place = np.unique(column[known].astype(str), return_inverse=True)
    if len(levels) <= known.sum() / 5:
        share = np.bincount(place, weights=here[known]) / np.bincount(place)
        yield "The level", _either(share[place], here[known])


def _either(score: Floats, here: Booleans) -> float:
    area = auc(score, here)
    return 0.0 if np.isnan(area) else max(area, 1.0 - area)
