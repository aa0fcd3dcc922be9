"""What travels beside the answers of a model, learned from the development decisions and from answers out of fold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from theracast_data.endpoint_values import event_within
from theracast_models.companions import Companions
from theracast_models.conformal import BinarySets, Conformal, EventTimes, Intervals, OrdinalSets
from theracast_models.fitting import CalibratedModel, out_of_fold
from theracast_models.links import HazardLink, answers, level_probabilities
from theracast_models.neighbours import Neighbours, Outcomes
from theracast_models.novelty import FEWEST, Novelty
from theracast_models.reference import SMALLEST_CELL
from theracast_training.comparisons import Judged
from theracast_training.develop import Judgement, TaskResult, curve_days
from theracast_training.prepare import Prepared
from theracast_training.target import Floats, Target

CURVE_STEPS = 8
"""Days at which the course of like patients is told."""


def learn_companions(
    prepared: Prepared, fitted: CalibratedModel, final: TaskResult, judged: Judged | None, *, first: bool
) -> Companions:
    """Return what stands beside the answers for one endpoint.

    Args:
        fitted: the final model.
        final: the task that chose it, whose inner folds give answers out of fold where there is no nested validation.
        judged: the answers of nested cross-validation.
        first: of the endpoint that leads; what is usual is learned for it only, since all share the features.
    """
    table, target = prepared.table.take(prepared.learn), prepared.target.take(prepared.learn)
    patients, weight = prepared.patients(prepared.learn), known_weight(target)
    _, phi = fitted.explain(table)
    novelty = neighbours = None
    if first and len(np.unique(patients[weight > 0])) >= FEWEST:
        novelty = Novelty.learn(table, phi, patients=patients, weight=weight, seed=prepared.study.search.seed)
    if fitted.rival is not None:  # sets and like patients are told of an event that nothing forestalls
        return Companions(None, novelty, None, prepared.study.floor)
    outcomes = _outcomes(target)
    counted = np.isfinite(outcomes.values).all(axis=1)
    if len(np.unique(patients[counted])) >= SMALLEST_CELL * 2:
        names = [spec.name for spec in table.catalogue]
        neighbours = Neighbours.learn(phi, outcomes, names=names, patients=patients)
    honest = judged if judged is not None else _inner(prepared, fitted, final)
    return Companions(_conformal(prepared, honest), novelty, neighbours, prepared.study.floor)


def known_weight(target: Target) -> Floats:
    """Return (n,) 1 where the decision teaches something, else 0."""
    weight = np.zeros(len(target.y))
    weight[target.known] = 1.0
    return weight


def _inner(prepared: Prepared, fitted: CalibratedModel, final: TaskResult) -> Judged:
    """Return answers out of the inner folds: the recipe was chosen on these decisions, the coefficients were not."""
    table, target = prepared.table.take(prepared.learn), prepared.target.take(prepared.learn)
    scores = out_of_fold(final.choice.recipe, table, target.outcome(), final.folds, seed=prepared.study.search.seed)
    kept = np.flatnonzero(np.isfinite(scores))
    link, linear = fitted.calibration, fitted.calibration.apply(scores[kept])
    curve = link.by(curve_days(link.horizons), linear) if isinstance(link, HazardLink) else None
    return Judged.of(prepared.learn[kept], Judgement(answers(link, linear), linear, curve))


def _conformal(prepared: Prepared, judged: Judged) -> Conformal:
    target = prepared.target.take(judged.rows)
    sites = [str(site) for site in prepared.cohort.decisions["site"].iloc[judged.rows]]
    patients = prepared.patients(judged.rows)
    assert judged.answers is not None
    if target.kind == "ordinal":
        assert target.values is not None
        levels = level_probabilities(judged.answers, main=target.main_level - 1)
        return OrdinalSets.learn(levels, target.values, source="out_of_fold", patients=patients, groups=sites)
    if target.kind == "continuous":
        assert target.values is not None
        return Intervals.learn(judged.probability, target.values, source="out_of_fold", patients=patients, groups=sites)
    if target.kind == "time_to_event":
        return _event_times(target, judged, sites, patients)
    return BinarySets.learn(
        judged.probability,
        target.y,
        source="out_of_fold",
        weight=target.weight(),
        patients=patients,
        groups=sites,
        by_outcome=True,
    )


def _event_times(target: Target, judged: Judged, sites: list[str], patients: np.ndarray) -> EventTimes:
    assert judged.curve is not None
    last = max(target.horizons)
    by_then = replace(target, y=event_within(*target.followed, last), horizons=(last,))
    return EventTimes.learn(
        judged.curve,
        *target.followed,
        horizons=curve_days(target.horizons).tolist(),
        source="out_of_fold",
        weight=by_then.weight(),
        patients=patients,
        groups=sites,
    )


def _outcomes(target: Target) -> Outcomes:
    if target.kind == "time_to_event":
        days = np.linspace(0, max(target.horizons), CURVE_STEPS + 1)[1:].tolist()
        return Outcomes.survival(*target.followed, horizons=days)
    if target.kind == "binary":
        return Outcomes.binary(target.y)
    assert target.values is not None
    if target.kind == "ordinal":
        return Outcomes.ordinal(target.values, levels=target.levels)
    return Outcomes.continuous(target.values)
