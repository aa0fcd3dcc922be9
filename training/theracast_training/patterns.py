"""How well a model does for each pattern of missing modalities, on decisions that it has not seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theracast_features.specs import FeatureTable
from theracast_models.presence import modalities_of, pattern_name, pattern_of, without
from theracast_training.evaluation import FEW, compare_paired, evaluate_binary
from theracast_training.resampling import Floats

Rows = NDArray[np.intp]
Answer = Callable[[FeatureTable], Floats]
"""From a table to probabilities; NaN where there is no answer."""

SHOWN = ("n", "events", "prevalence", "mean_probability")
MEASURES = ("auc", "brier", "scaled_brier", "calibration_intercept", "calibration_slope", "ici")
"""What of an evaluation is kept of a pattern, each with its interval."""
MOST_PATTERNS = 24


@dataclass(frozen=True)
class HeldOut:
    """A fitted model and decisions that it has not seen: an outer fold, or an external site.

    Attributes:
        answer: of the model.
        rows: (k,) positions in the table.
    """

    answer: Answer
    rows: Rows


def patterns_to_judge(table: FeatureTable, y: Floats, *, least: int = FEW) -> list[str]:
    """Return the patterns whose performance is to be known, the fullest first.

    All modalities; all but each one; and each pattern that is found in at least `least` decisions with a known outcome; of
    many the most frequent.
    """
    names = table.modalities
    planned = [pattern_name(names)]
    planned += [pattern_name([one for one in names if one != gone]) for gone in names] if len(names) > 1 else []
    found = Counter(one for one, known in zip(pattern_of(table), np.isfinite(y), strict=True) if known)
    frequent = [one for one, count in found.most_common() if count >= least and one not in planned]
    chosen = planned + frequent[: max(0, MOST_PATTERNS - len(planned))]
    return sorted(chosen, key=lambda one: (-len(modalities_of(one)), chosen.index(one)))


def answers_by_pattern(held_out: HeldOut, table: FeatureTable, patterns: Sequence[str]) -> dict[str, Floats]:
    """Return per pattern (n,) probabilities of the decisions that have all its modalities, all others taken from them.

    NaN for a decision that lacks one of the modalities, or that the model does not judge. Key `""`: every decision as it is.
    Plain data, so that a worker can hand them back; `pooled` joins those of several folds.
    """
    judged = table.take(held_out.rows)
    own = [set(modalities_of(one)) for one in pattern_of(judged)]
    answers = {"": _placed(held_out.answer(judged), held_out.rows, len(table))}
    for pattern in patterns:
        kept = set(modalities_of(pattern))
        having = np.flatnonzero([kept <= one for one in own])
        gone = [one for one in table.modalities if one not in kept]
        found = held_out.answer(without(judged.take(having), gone)) if len(having) else np.zeros(0)
        answers[pattern] = _placed(found, held_out.rows[having], len(table))
    return answers


def pooled(parts: Sequence[Mapping[str, Floats]]) -> dict[str, Floats]:
    """Return the answers of all folds by pattern, the mean where repeats judged a decision more than once."""
    found = {}
    for pattern in parts[0] if parts else ():
        stacked = np.array([part[pattern] for part in parts])
        count = np.isfinite(stacked).sum(axis=0)
        total = np.where(np.isfinite(stacked), stacked, 0.0).sum(axis=0)
        found[pattern] = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return found


def pattern_records(
    answers: Mapping[str, Floats],
    table: FeatureTable,
    y: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    group: ArrayLike | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    enough: int = FEW,
) -> dict[str, dict[str, Any]]:
    """Return the performance for each pattern as plain JSON, as the artefact holds it and `standing` reads it.

    Where at least `enough` decisions with the event and as many without are found with just this pattern, they are judged
    as they are (`how`: found). Otherwise every decision that has all modalities of the pattern is, with the others taken
    away (`how`: taken_away): that is what the model loses by the missing values, not how patients who are not measured
    differ. `auc_lost` compares with the same decisions as they were.

    Args:
        answers: as `pooled` gives them.
        y: (n,) 0/1, NaN where not known.
        weight, group, bootstrap, seed: as in `evaluate_binary`.
    """
    outcome = np.asarray(y, dtype=np.float64)
    mass = np.ones(len(outcome)) if weight is None else np.asarray(weight, dtype=np.float64)
    patients = np.arange(len(outcome)) if group is None else np.asarray(group)
    own = np.array(pattern_of(table), dtype=object)
    known = np.isfinite(outcome) & (mass > 0)
    records = {}
    for pattern, probability in answers.items():
        if not pattern:
            continue
        judged = known & np.isfinite(probability)
        found = judged & (own == pattern)
        events = int(outcome[found].sum())
        as_found = min(events, int(found.sum()) - events) >= enough
        rows = np.flatnonzero(found if as_found else judged)
        more: dict[str, Any] = {"weight": mass[rows], "group": patients[rows], "bootstrap": bootstrap, "seed": seed}
        record: dict[str, Any] = {
            "modalities": list(modalities_of(pattern)),
            "absent": [one for one in table.modalities if one not in modalities_of(pattern)],
            "how": "found" if as_found else "taken_away",
            "found": int(found.sum()),
        }
        record |= _kept(evaluate_binary(outcome[rows], probability[rows], thresholds=(), **more))
        if not as_found and record["auc"] is not None:
            record["auc_lost"] = _lost(outcome[rows], answers[""][rows], probability[rows], more)
        records[pattern] = record
    return records


def validate_patterns(
    held_out: Sequence[HeldOut], table: FeatureTable, y: Floats, *, least: int = FEW, **more: Any
) -> dict[str, dict[str, Any]]:
    """Return `pattern_records` of the patterns of a table, judged by models that have not seen the decisions."""
    patterns = patterns_to_judge(table, y, least=least)
    answers = pooled([answers_by_pattern(one, table, patterns) for one in held_out])
    return pattern_records(answers, table, y, **more)


def _placed(answers: Floats, rows: Rows, count: int) -> Floats:
    placed = np.full(count, np.nan)
    placed[rows] = answers
    return placed


def _kept(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: evaluation[name] for name in SHOWN}
    for name in MEASURES:
        kept |= {key: evaluation[key] for key in (name, f"{name}_low", f"{name}_high")}
    return kept | {"notes": evaluation["notes"]}


def _lost(y: Floats, before: Floats, after: Floats, more: Mapping[str, Any]) -> dict[str, Any]:
    compared = compare_paired(y, before, after, **more)
    return {"difference": compared["auc_difference"], "low": compared["low"], "high": compared["high"]}
