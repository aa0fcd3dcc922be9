"""What a training asks of its own figures: enough patients, optimism, more patients, other sites, groups, time, leaks."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from theracast_data.errors import CohortError
from theracast_features.specs import FeatureTable
from theracast_models.families import Recipe
from theracast_training.comparisons import Judged, evaluate_target
from theracast_training.develop import Task
from theracast_training.development import Developed, final_task
from theracast_training.fairness import fairness
from theracast_training.leading import known_outcome, leading_fit, leading_measures, no_information
from theracast_training.leak_detector import concentration, permuted_outcomes, procedure_run, screen_features
from theracast_training.learning_curve import learning_curve
from theracast_training.meta_analysis import meta_analysis
from theracast_training.optimism import optimism
from theracast_training.prepare import Prepared
from theracast_training.refits import Floats, Rows
from theracast_training.sample_size import sample_size_of_study
from theracast_training.study import StatisticsSection
from theracast_training.subgroups import subgroup_labels
from theracast_training.target import Target
from theracast_training.temporal import by_period
from theracast_training.workers import call_in_workers

logger = logging.getLogger(__name__)

FRACTIONS = (0.25, 0.5, 0.75, 1.0)
"""Parts of the learning curve: one fewer than by default, for the sake of time."""
RESAMPLES = 300
"""Resamples behind the figures of sites, groups and periods of development decisions."""
LEAST_N, LEAST_EVENTS = 50, 10
"""Decisions, and those of the rarer outcome, that a development site needs to be shown by itself."""
PERMUTED_TRIALS = 3


def sample_size(prepared: Prepared) -> dict[str, Any]:
    """Return how many decisions the endpoint would need, before anything is tuned; a shortage is told in the log.

    The answer is that of `sample_size_of_study`.
    """
    target = prepared.target.take(prepared.learn)
    anticipated = prepared.study.sample_size if prepared.endpoint == prepared.study.endpoint else None
    found = sample_size_of_study(
        prepared.table.take(prepared.learn),
        kind=target.kind,
        y=target.told,
        time=target.time,
        event=target.event,
        horizon=target.horizon_days,
        anticipated=anticipated,
    )
    warning = (found["achieved"] or {}).get("warning")
    if warning:
        logger.warning("%s: %s", prepared.endpoint.name, warning)
    return found


def study_statistics(
    prepared: Prepared, developed: Developed, evaluations: Mapping[str, Any], *, jobs: int
) -> dict[str, Any]:
    """Return what is asked of the figures of the primary endpoint, as plain JSON; None for what could not be asked.

    `optimism`, `learning_curve`, `sites` (with `over`: `external`, `left out` or `development`), `fairness` (by place: `cv`,
    `external`), `periods`, `leaks` (`screen`, `concentration`, `permuted`).

    Args:
        prepared, developed: the data, and what tuning and fitting gave.
        evaluations: performance at the external sites, as the model keeps it.
        jobs: worker processes.
    """
    wanted = prepared.study.report.statistics
    refits = _refits(prepared, developed, wanted)
    found = dict(zip((one.what for one in refits), call_in_workers(run_refit, refits, jobs=jobs), strict=True))
    return {
        "optimism": found.get("optimism"),
        "learning_curve": found.get("learning_curve"),
        "sites": _sites(prepared, developed, evaluations.get("external") or {}),
        "fairness": _fairness(prepared, developed),
        "periods": _periods(prepared, developed),
        "leaks": leaks(prepared, developed) | {"permuted": found.get("permuted")},
    }


def leaks(prepared: Prepared, developed: Developed) -> dict[str, Any]:
    """Return `screen` (what single features tell) and `concentration` (whether the model rests on one)."""
    table = prepared.table.take(prepared.learn)
    y, mass = known_outcome(prepared.target.take(prepared.learn))
    known = np.flatnonzero(mass > 0)
    _, phi = developed.fitted.explain(table)
    screen = screen_features(table.take(known), y[known], seed=prepared.study.search.seed)
    if prepared.target.kind == "continuous":
        screen["suspects"] = [row | {"sentence": _of_a_number(row)} for row in screen["suspects"]]
    found: dict[str, Any] = {
        "screen": screen,
        "concentration": concentration(phi, table.catalogue),
        "permuted": None,
    }
    for row in (*found["screen"]["suspects"], found["concentration"]):
        if row["sentence"]:
            logger.warning("%s: %s", prepared.endpoint.name, row["sentence"])
    return found


def _of_a_number(row: Mapping[str, Any]) -> str:
    """Return what is told of a feature that says nearly everything of a number."""
    return (
        f"{row['label']} ({row['feature']}) alone all but tells whether the outcome lies above its median: ask whether it was "
        "known at the decision, or follows from the outcome."
    )


@dataclass(frozen=True)
class Refits:
    """A question that is answered by fitting again and again, as plain data that can be sent to a worker process."""

    what: str
    recipe: Recipe
    table: FeatureTable
    target: Target
    patients: Rows
    times: int
    seed: int
    task: Task | None = None


def run_refit(asked: Refits) -> dict[str, Any] | None:
    """Return the answer to a question, None where so few patients give none."""
    try:
        return _ASKED[asked.what](asked)
    except CohortError as error:
        logger.warning("%s: %s", asked.what, error)
        return None


def _optimism(asked: Refits) -> dict[str, Any]:
    n = len(asked.patients)
    found = optimism(
        leading_fit(asked.recipe, asked.table, asked.target, seed=asked.seed),
        np.arange(n, dtype=np.float64),
        patients=asked.patients,
        measures=leading_measures(asked.target),
        no_information=no_information(asked.target),
        resamples=asked.times,
        interval_resamples=RESAMPLES,
        seed=asked.seed,
    )
    return found | {"events": int(known_outcome(asked.target)[0].sum())}


def _learning_curve(asked: Refits) -> dict[str, Any]:
    y, mass = known_outcome(asked.target)
    return learning_curve(
        leading_fit(asked.recipe, asked.table, asked.target, seed=asked.seed),
        y,
        patients=asked.patients,
        weight=mass,
        fractions=FRACTIONS,
        repeats=asked.times,
        seed=asked.seed,
    )


def _permuted(asked: Refits) -> dict[str, Any]:
    assert asked.task is not None
    with tempfile.TemporaryDirectory() as scratch:
        return permuted_outcomes(
            procedure_run(asked.task, scratch=Path(scratch), trials=PERMUTED_TRIALS, families=("elasticnet",)),
            asked.target.y,
            patients=asked.patients,
            times=asked.times,
            seed=asked.seed,
        )


_ASKED = {"optimism": _optimism, "learning_curve": _learning_curve, "permuted": _permuted}


def _refits(prepared: Prepared, developed: Developed, wanted: StatisticsSection) -> list[Refits]:
    """Return the questions that the study asks and its kind of endpoint allows, the longest first."""
    target = prepared.target.take(prepared.learn)
    times = {"optimism": wanted.optimism}
    if target.kind != "continuous":
        times["learning_curve"] = wanted.learning_curve
    whole = target.kind in ("binary", "ordinal") and not np.isnan(target.y).any()
    if whole and prepared.study.validation.scheme.outer >= 2:
        times["permuted"] = wanted.permutations
    return [
        Refits(
            what=what,
            recipe=developed.final.choice.recipe,
            table=prepared.table.take(prepared.learn),
            target=target,
            patients=prepared.patients(prepared.learn),
            times=count,
            seed=prepared.study.search.seed,
            task=final_task(prepared) if what == "permuted" else None,
        )
        for what, count in times.items()
        if count
    ]


def site_figures(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of one site that are taken together over sites; the C-index of a time to an event among them."""
    names = ("auc", "calibration_slope", "calibration_intercept", "observed_expected")
    keys = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    found = {"n": record.get("n")} | {key: record.get(key) for key in keys}
    for part, name in (("survival", "c_harrell"), ("ordinal", "c_ordinal")):
        if record.get(part):
            found |= {f"c_index{end}": record[part].get(f"{name}{end}") for end in ("", "_low", "_high")}
            found |= {
                f"calibration_slope{end}": record[part].get(f"calibration_slope{end}") for end in ("", "_low", "_high")
            }
    return found


def _sites(prepared: Prepared, developed: Developed, external: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the figures of external sites taken together; of development sites where there are fewer than two of those."""
    kind, over = prepared.target.kind, "external"
    records = {site: record for site, record in external.items() if record}
    if len(records) < 2:
        over = "left out" if prepared.study.validation.scheme.by == "site" else "development"
        records = _development_sites(prepared, developed)
    if kind == "continuous" or len(records) < 2:
        return None
    named = ("c_index", "auc") if kind in ("time_to_event", "ordinal") else ("auc",)
    measures = (*named, "calibration_slope", "calibration_intercept", "observed_expected")
    figures = {site: site_figures(record) for site, record in records.items()}
    return {"over": over, "measures": meta_analysis(figures, measures=measures)}


def _development_sites(prepared: Prepared, developed: Developed) -> dict[str, dict[str, Any]]:
    judged = developed.own.get("cv")
    if judged is None or len(prepared.sites) < 2 or prepared.target.kind == "continuous":
        return {}
    site = prepared.cohort.decisions["site"].to_numpy()[judged.rows]
    return {
        name: _evaluated(judged.take(site == name), prepared)
        for name in prepared.sites
        if _enough(prepared, judged.rows[site == name])
    }


def _enough(prepared: Prepared, rows: Rows) -> bool:
    y = prepared.target.y[rows]
    known = y[~np.isnan(y)]
    return len(known) >= LEAST_N and min(known.sum(), len(known) - known.sum()) >= LEAST_EVENTS


def _evaluated(judged: Judged, prepared: Prepared) -> dict[str, Any]:
    return evaluate_target(
        prepared.target.take(judged.rows),
        judged,
        thresholds=(),
        group=prepared.patients(judged.rows),
        bootstrap=min(prepared.study.report.bootstrap, RESAMPLES),
        seed=prepared.study.search.seed,
    )


def _places(prepared: Prepared, developed: Developed) -> dict[str, Judged]:
    """Return the answers of nested cross-validation and of all external sites together."""
    found = {"cv": developed.own["cv"]} if "cv" in developed.own else {}
    outside = [judged for site, judged in developed.own.items() if site != "cv"]
    if outside:
        rows = np.concatenate([one.rows for one in outside])
        found["external"] = Judged(rows, np.concatenate([one.probability for one in outside]))
    return found


def _fairness(prepared: Prepared, developed: Developed) -> dict[str, Any] | None:
    section = prepared.study.fairness
    if section is None or prepared.target.kind == "continuous":
        return None
    labels = subgroup_labels(prepared.cohort, section)
    found = {}
    for place, judged in _places(prepared, developed).items():
        target = prepared.target.take(judged.rows)
        found[place] = fairness(
            target.y,
            judged.probability,
            {column: own[judged.rows] for column, own in labels.items()},
            weight=target.weight(),
            thresholds=prepared.study.report.thresholds,
            minimum_n=section.minimum_n,
            minimum_events=section.minimum_events,
            bootstrap=min(prepared.study.report.bootstrap, RESAMPLES),
            seed=prepared.study.search.seed,
            group=prepared.patients(judged.rows),
        )
    return found


def _periods(prepared: Prepared, developed: Developed) -> dict[str, Any] | None:
    """Return performance by calendar period in cross-validation, else at external sites; None without a calendar."""
    if prepared.target.kind == "continuous":
        return None
    calendar: Floats = prepared.cohort.decisions["calendar"].to_numpy(dtype=np.float64)
    for place, judged in _places(prepared, developed).items():
        when = calendar[judged.rows]
        if np.isfinite(when).sum() < 2 * LEAST_N or np.nanmax(when) - np.nanmin(when) < 1:
            continue
        target = prepared.target.take(judged.rows)
        found = by_period(
            target.y,
            judged.probability,
            when,
            weight=target.weight(),
            thresholds=(),
            bootstrap=min(prepared.study.report.bootstrap, RESAMPLES),
            seed=prepared.study.search.seed,
            group=prepared.patients(judged.rows),
        )
        return found | {"place": place}
    return None
