"""What a model is held against: published scores, models that see one modality alone, and those that see all but it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theracast_data.decisions.section import LANDMARK
from theracast_features.scores import published_score, table_values
from theracast_features.specs import FeatureTable
from theracast_models.fitting import Recipe, fit_calibrated
from theracast_models.links import HazardLink, answers, fit_link, level_probabilities
from theracast_models.published import Published
from theracast_training.continuous_evaluation import evaluate_continuous
from theracast_training.develop import Judgement, TaskResult, curve_days
from theracast_training.evaluation import compare_paired, evaluate_binary
from theracast_training.ordinal_evaluation import evaluate_ordinal
from theracast_training.prepare import Prepared
from theracast_training.splits import Folds
from theracast_training.study import BaselineSection
from theracast_training.survival_evaluation import compare_survival, evaluate_survival
from theracast_training.target import LEAST_FOLLOWED, Target

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Judged:
    """Answers for the decisions of one site (or, as `cv`, of nested cross-validation).

    Attributes:
        rows: positions of the decisions.
        probability: (n,) the leading answer.
        linear: (n,) the score behind it, where it is known; ranks times to an event.
        answers: (n, K) all answers; the leading one first.
        curve: (n, days) of times to an event; see `Judgement`.
    """

    rows: Rows
    probability: Floats
    linear: Floats | None = None
    answers: Floats | None = None
    curve: Floats | None = None

    @classmethod
    def of(cls, rows: Rows, judgement: Judgement) -> Judged:
        """Return the answers of a model for these decisions."""
        return cls(rows, judgement.answers[:, 0], judgement.linear, judgement.answers, judgement.curve)

    def take(self, kept: NDArray[Any]) -> Judged:
        """Return the answers for some of the decisions, by position or mask."""
        parts = (None if one is None else one[kept] for one in (self.linear, self.answers, self.curve))
        return Judged(self.rows[kept], self.probability[kept], *parts)

    def where(self, known: NDArray[np.bool_]) -> Judged:
        """Return the same with NaN for all decisions but these."""

        def masked(values: Floats | None) -> Any:
            return None if values is None else np.where(known.reshape(-1, *[1] * (values.ndim - 1)), values, np.nan)

        parts = (masked(one) for one in (self.linear, self.answers, self.curve))
        return Judged(self.rows, masked(self.probability), *parts)


@dataclass(frozen=True)
class Rival:
    """Something that the model is compared with.

    Attributes:
        name: of the score or the modality.
        kind: `baseline`, `modality` (that one alone) or `without` (all but that one).
        calibrated: False for a score whose publication claims no probabilities.
        judged: site to its probabilities; NaN where it cannot be computed.
    """

    name: str
    kind: str
    calibrated: bool
    judged: Mapping[str, Judged] = field(default_factory=dict)


def baseline_rival(baseline: BaselineSection, prepared: Prepared, folds: Folds, *, seed: int) -> Rival:
    """Return a published score, calibrated on the development decisions, at every site (development included).

    Where an input is missing the score cannot be computed, and the decision counts as without score.
    """
    score = published_score(baseline.score)
    places = {**_development_places(prepared), **prepared.external}
    if prepared.target.kind == "time_to_event":
        answer = _score_of_time(baseline, prepared)
    else:
        answer = _score_of_outcome(baseline, prepared, folds, seed=seed)

    def judge(rows: Rows) -> Judged:
        table = prepared.table.take(rows)
        values, units = table_values(table)
        known = np.isfinite(score.log_odds(values, inputs=baseline.inputs, units=units))
        return Judged.of(rows, answer(table)).where(known)

    return Rival(score.name, "baseline", calibrated=True, judged={site: judge(rows) for site, rows in places.items()})


def _score_of_outcome(
    baseline: BaselineSection, prepared: Prepared, folds: Folds, *, seed: int
) -> Callable[[FeatureTable], Judgement]:
    target = prepared.target.take(prepared.learn)
    fitted = fit_calibrated(
        Recipe("published", {"score": baseline.score, "inputs": baseline.inputs}),
        prepared.table.take(prepared.learn),
        target.y,
        folds=folds,
        weight=target.weight(),
        replicates=0,
        seed=seed,
    )
    return lambda table: Judgement.by(fitted, table)


def _score_of_time(baseline: BaselineSection, prepared: Prepared) -> Callable[[FeatureTable], Judgement]:
    """Return the score as a log-hazard. It was made for another question: the development decisions say which way it ranks."""
    model = Published(baseline.score, baseline.inputs)
    target = prepared.target.take(prepared.learn)
    outcome, raw = target.outcome(), model.log_odds(prepared.table.take(prepared.learn))
    rises_with_hazard = float(outcome.slopes(np.zeros(len(raw)))[0] @ raw) < 0
    turn = 1.0 if rises_with_hazard else -1.0
    link = fit_link(turn * raw, outcome, target.asked)
    assert isinstance(link, HazardLink)

    def judge(table: FeatureTable) -> Judgement:
        linear = link.apply(turn * model.log_odds(table))
        return Judgement(answers(link, linear), linear, link.by(curve_days(link.horizons), linear))

    return judge


def _development_places(prepared: Prepared) -> dict[str, Rows]:
    site = prepared.cohort.decisions["site"].to_numpy()[prepared.learn]
    return {name: prepared.learn[site == name] for name in prepared.sites if (site == name).any()}


def part_rival(
    result: TaskResult, table: FeatureTable, prepared: Prepared, *, name: str, kind: str, nested: Judged | None
) -> Rival:
    """Return the model of a part of the features, tuned and calibrated on the development decisions, at external sites."""
    learn = table.take(prepared.learn)
    target = prepared.target.take(prepared.learn)
    fitted = fit_calibrated(
        result.choice.recipe,
        learn,
        target.outcome(),
        folds=result.folds,
        replicates=0,
        seed=prepared.study.search.seed,
        asked=target.asked,
    )
    judged = {site: Judged.of(rows, Judgement.by(fitted, table.take(rows))) for site, rows in prepared.external.items()}
    if nested is not None:
        judged["cv"] = nested
    return Rival(name, kind, calibrated=True, judged=judged)


def evaluate_rival(rival: Rival, prepared: Prepared) -> dict[str, dict[str, Any]]:
    """Return the performance of a rival at each of its sites."""
    return {site: evaluate_judged(judged, prepared) for site, judged in rival.judged.items()}


def evaluate_judged(judged: Judged, prepared: Prepared) -> dict[str, Any]:
    """Return the performance of answers on known decisions, with the study's thresholds and bootstrap."""
    report = prepared.study.report
    return evaluate_target(
        prepared.target.take(judged.rows),
        judged,
        thresholds=report.thresholds,
        group=prepared.patients(judged.rows),
        bootstrap=report.bootstrap,
        seed=prepared.study.search.seed,
    )


def evaluate_target(
    target: Target,
    judged: Judged,
    *,
    reference: Target | None = None,
    thresholds: Sequence[float],
    group: Rows,
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """Return the performance of answers against what happened, by the kind of endpoint.

    Times to an event and ordered levels are judged by their leading answer as yes or no is (censored decisions by the
    inverse probability of censoring), and beside that as what they are.
    """
    figures: dict[str, Any] = {}
    if target.kind != "continuous":
        figures = evaluate_binary(
            target.y,
            judged.probability,
            weight=target.weight(reference),
            thresholds=thresholds,
            group=group,
            bootstrap=bootstrap,
            seed=seed,
        )
    if target.kind == "time_to_event":
        figures |= {
            "survival": _survival_figures(target, judged, reference, group=group, bootstrap=bootstrap, seed=seed)
        }
    again: dict[str, Any] = {"bootstrap": bootstrap, "seed": seed, "group": group}
    if target.kind == "ordinal":
        assert judged.answers is not None
        assert target.values is not None
        levels = level_probabilities(judged.answers, main=target.main_level - 1)
        figures |= {"ordinal": evaluate_ordinal(target.values, levels, score=judged.linear, **again)}
    if target.kind == "continuous":
        assert target.values is not None
        figures = evaluate_continuous(target.values, judged.probability, **again)
    return figures


def _survival_figures(
    target: Target, judged: Judged, reference: Target | None, *, group: Rows, bootstrap: int, seed: int
) -> dict[str, Any]:
    assert judged.linear is not None
    horizons, probability = by_rising_horizon(target, judged)
    grid, until = _followed_grid(target, judged)
    figures = evaluate_survival(
        *target.followed,
        judged.linear,
        horizons=horizons,
        probability=probability,
        reference=None if reference is None else reference.followed,
        group=group,
        survival_grid=grid,
        bootstrap=bootstrap,
        seed=seed,
    )
    return figures | ({} if until is None else {"ibs_until": until})


def by_rising_horizon(target: Target, judged: Judged) -> tuple[list[float], Floats]:
    """Return the horizons, the nearest first, and (n, K) the answers by them."""
    assert judged.answers is not None
    rising = np.argsort(target.horizons)
    return np.array(target.horizons)[rising].tolist(), judged.answers[:, rising]


def _followed_grid(target: Target, judged: Judged) -> tuple[tuple[Floats, Floats] | None, float | None]:
    """Return the days up to which ten decisions were followed with the probabilities by then, and the last of these days."""
    if judged.curve is None or target.time is None:
        return None, None
    days, followed = curve_days(target.horizons), np.sort(target.time)[::-1]
    kept = days <= followed[min(LEAST_FOLLOWED, len(followed)) - 1]
    if kept.sum() < 2:
        return None, None
    return (days[kept], judged.curve[:, kept]), float(days[kept][-1])


def evaluate_by_day(own: Mapping[str, Judged], prepared: Prepared) -> dict[str, dict[str, Any]]:
    """Return the performance at each day of decision, by site (or `cv`); nothing where a study asks once.

    A day on which one outcome is missing at a site is left out there.
    """
    if LANDMARK not in prepared.cohort.values:
        return {}
    days = prepared.cohort.values[LANDMARK].to_numpy()
    found: dict[str, dict[str, Any]] = {}
    for site, judged in own.items():
        at = days[judged.rows]
        for day in np.unique(at[np.isfinite(at)]):
            part = judged.take(at == day)
            if len(np.unique(prepared.target.y[part.rows])) == 2:
                found.setdefault(site, {})[f"{day:g}"] = evaluate_judged(part, prepared)
    return found


def compare_with(rivals: Sequence[Rival], own: Mapping[str, Judged], prepared: Prepared) -> list[dict[str, Any]]:
    """Return one paired comparison per rival and site at which both have answered."""
    records = []
    for rival in rivals if prepared.target.kind != "continuous" else ():
        for site, mine in own.items():
            if site not in rival.judged:
                continue
            theirs = rival.judged[site]
            if not np.array_equal(theirs.rows, mine.rows):
                raise ValueError(f"{rival.name} at {site} was not judged on the same decisions")
            target = prepared.target.take(mine.rows)
            found = compare_paired(
                target.y,
                mine.probability,
                theirs.probability,
                weight=target.weight(),
                group=prepared.patients(mine.rows),
                bootstrap=prepared.study.report.bootstrap,
                seed=prepared.study.search.seed,
            )
            if target.kind == "time_to_event":
                found |= {"survival": _compare_times(target, mine, theirs, prepared)}
            records.append(
                {"against": rival.name, "kind": rival.kind, "site": site, "calibrated": rival.calibrated} | found
            )
    return records


def _compare_times(target: Target, mine: Judged, theirs: Judged, prepared: Prepared) -> dict[str, Any]:
    """Return the paired difference of the C-indices of the same decisions."""
    assert mine.linear is not None
    assert theirs.linear is not None
    return compare_survival(
        *target.followed,
        mine.linear,
        theirs.linear,
        tau=max(target.horizons),
        group=prepared.patients(mine.rows),
        bootstrap=prepared.study.report.bootstrap,
        seed=prepared.study.search.seed,
    )
