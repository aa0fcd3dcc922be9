"""The comparison of a study's treatments: effects where the study allows them, else prognosis under each treatment."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from theracast_data.errors import CohortError, StudyError
from theracast_training.effects import average, overlap, prognosis, validate
from theracast_training.effects.cohort import Arms, read_arms, require_section
from theracast_training.effects.learners import CrossFit, cross_fit
from theracast_training.effects.section import TreatmentSection
from theracast_training.effects.text import plain_arm
from theracast_training.study import Study

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]
NOT_AN_EFFECT = (
    "The patients of these arms were not assigned by chance, and the study does not say why the features would control what "
    "decided the treatment. What follows is the prognosis under each treatment of patients like those who were given it. "
    "The difference of two of these numbers is not the effect of a treatment."
)
METRICS = {"autoc": "AUTOC", "qini": "Qini"}
LEAST_OVERLAP = 20
"""Patients of each arm within the limits of overlap, without whom no effect is estimated."""
PROPENSITY_REPEATS = 3
PROGNOSIS_REPEATS = 5


@dataclass(frozen=True)
class Comparison:
    """What was found: plain JSON content, and one row for each patient."""

    content: dict[str, Any]
    individual: pd.DataFrame

    def to_json(self) -> dict[str, Any]:
        """Return the content with None for what is not a number."""
        plain: dict[str, Any] = _plain(self.content)
        return plain


def compare_treatments(study: Study, *, base: Path, cache: Path | None = None) -> Comparison:
    """Return what the study's data say of its treatments.

    For randomised arms, and for others where the study justifies it, average and individual effects with their
    validation; else the prognosis under each treatment with its overlap, and no effect.

    Args:
        study: a study with a `treatment` section.
        base: folder from which relative paths of the study count.
        cache: folder for the features of events in parts; None: nothing is kept.

    Raises:
        StudyError: the section does not fit the data, or calls arms randomised that were not.
        CohortError: too few patients in an arm, or within the limits of overlap.
    """
    section = require_section(study)
    data = read_arms(study, base=base, cache=cache)
    content: dict[str, Any] = {
        "study": study.study,
        "question": study.question,
        "kind": "effects" if section.allows_effects else "prognosis",
        "endpoint": data.outcome.name,
        "label": data.outcome.label,
        "scale": data.outcome.scale,
        "horizon_days": data.outcome.horizon,
        "better": data.outcome.better,
        "assignment": section.assignment,
        "justification": section.justification,
        "control": section.control,
        "left_out": dict(data.left_out),
        "features": [{"name": spec.name, "label": spec.label} for spec in data.table.catalogue],
        "design": section.model_dump(
            mode="json", include={"learners", "metric", "base", "folds", "repeats", "groups", "seed"}
        ),
        "arms": [
            {"arm": arm} | average.arm_summary(data.outcome.take(np.flatnonzero(data.arm == arm)))
            for arm in section.arms
        ],
    }
    individual = data.table.decisions[["site", "subject_id"]].reset_index(drop=True).assign(arm=data.arm)
    if section.allows_effects:
        content["comparisons"] = []
        for arm in section.arms:
            if arm != section.control:
                found, columns = _effects(data, arm, section)
                content["comparisons"].append(found)
                individual = individual.join(columns)
        content["notes"] = _effect_notes(content, section)
    else:
        found, columns = _prognoses(data, section)
        content |= found
        individual = individual.join(columns)
    return Comparison(content, individual)


def _effects(data: Arms, arm: str, section: TreatmentSection) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return the comparison of one arm with the control, and its columns of the table of patients."""
    logger.info("%s against %s", arm, section.control)
    rows = np.flatnonzero((data.arm == arm) | (data.arm == section.control))
    pair = data.take(rows)
    treated = (pair.arm == arm).astype(np.float64)
    share = _known_share(treated, arm, section)
    propensity = overlap.propensities(
        pair.table, treated, folds=section.folds, repeats=PROPENSITY_REPEATS, seed=section.seed
    )
    judged = overlap.overlap_summary(pair.table, treated, propensity)
    outside = 0
    if share is None:
        low, high = overlap.LIMITS
        inside = np.flatnonzero((propensity >= low) & (propensity <= high))
        outside = len(rows) - len(inside)
        pair, treated, rows = pair.take(inside), treated[inside], rows[inside]
        _require_overlap(treated, arm, section)
    else:
        _require_chance(treated, propensity, arm, section)
    splits = [
        cross_fit(
            pair.table,
            treated,
            pair.outcome,
            learners=section.learners,
            share=share,
            base=section.base,
            folds=section.folds,
            seed=section.seed + 1000 * number,
        )
        for number in range(section.repeats)
    ]
    sign = pair.outcome.sign
    learners = {name: _validation(splits, name, section, sign) for name in section.learners}
    primary = learners[section.learners[0]]
    adjusted = _signed(validate.average_effect([validate.mean_estimate(one.scores) for one in splits]), sign)
    found = {
        "arm": arm,
        "control": section.control,
        "n_treated": int(treated.sum()),
        "n_control": int((1 - treated).sum()),
        "outside_overlap": outside,
        "share_treated": share,
        "unadjusted": average.unadjusted_difference(pair.outcome, treated),
        "adjusted": adjusted,
        "hazard": average.hazards(pair, treated, section),
        "subgroups": average.subgroups(pair, treated, section),
        "overlap": judged,
        "primary": section.learners[0],
        "learners": learners,
        "verdict": primary["verdict"],
    }
    return found, _individual(splits, rows, section, found, sign)


def _validation(splits: list[CrossFit], name: Any, section: TreatmentSection, sign: float) -> dict[str, Any]:
    """Return what is known of one learner; AUTOC, Qini and gains are in benefit, all else on the outcome's own scale."""
    metrics = validate.rank_metrics(splits, name, seed=section.seed)
    policy = validate.policy_value(splits, name)
    groups = validate.group_effects(splits, name, groups=section.groups)
    return metrics | {
        "calibration_slope": validate.calibration(splits, name),
        "groups": [_signed(one, sign) | {"predicted": sign * one["predicted"]} for one in groups],
        "policy": policy | {"value": _signed(policy["value"], sign)},
        "toc": validate.toc_curve(splits, name),
        "verdict": validate.verdict(metrics, metric=section.metric),
    }


def _individual(
    splits: list[CrossFit], rows: NDArray[np.intp], section: TreatmentSection, found: dict[str, Any], sign: float
) -> pd.DataFrame:
    """Return for each patient the outcome expected under either arm and the effect.

    The patient's own effect only where the ranking beats chance; everybody else's best estimate is the average.
    """
    arm = found["arm"]
    own = found["verdict"] == validate.BEATS
    name = section.learners[0]
    effect = sign * np.mean([one.effects[name] for one in splits], axis=0)
    columns = {
        f"{arm}: expected under {section.control}": sign * np.mean([one.control for one in splits], axis=0),
        f"{arm}: expected under {arm}": sign * np.mean([one.treated for one in splits], axis=0),
        f"{arm}: effect": effect if own else np.full(len(rows), found["adjusted"]["value"]),
        f"{arm}: effect is": np.full(len(rows), "individual" if own else "average", dtype=object),
    }
    return pd.DataFrame(columns, index=rows)


def _prognoses(data: Arms, section: TreatmentSection) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return the prognosis under each arm, and how far the arms hold comparable patients."""
    columns, shown = {}, []
    compared = np.ones(len(data.arm), dtype=bool)
    overlaps = []
    for arm in section.arms:
        if arm == section.control:
            continue
        rows = np.flatnonzero((data.arm == arm) | (data.arm == section.control))
        pair, treated = data.table.take(rows), (data.arm[rows] == arm).astype(np.float64)
        propensity = overlap.propensities(
            pair, treated, folds=section.folds, repeats=PROPENSITY_REPEATS, seed=section.seed
        )
        overlaps.append({"arm": arm, "control": section.control} | overlap.overlap_summary(pair, treated, propensity))
        low, high = overlap.LIMITS
        compared[rows[(propensity < low) | (propensity > high)]] = False
    for arm in section.arms:
        member = data.arm == arm
        expected = prognosis.arm_prognosis(
            data.table,
            member,
            data.outcome,
            base=section.base,
            folds=section.folds,
            repeats=PROGNOSIS_REPEATS,
            seed=section.seed,
        )
        own = data.outcome.take(np.flatnonzero(member))
        told = member | compared
        columns[f"expected under {arm}"] = np.where(told, expected, np.nan)
        shown.append(
            {
                "arm": arm,
                "discrimination": prognosis.discrimination(expected[member], own, seed=section.seed),
                "own_patients": prognosis.quantiles(expected[member]),
                "comparable_patients": prognosis.quantiles(expected[compared]) if compared.any() else None,
            }
        )
    columns["within overlap"] = compared
    content = {
        "warning": NOT_AN_EFFECT,
        "overlaps": overlaps,
        "prognoses": shown,
        "comparable": int(compared.sum()),
        "notes": _prognosis_notes(overlaps, compared),
    }
    return content, pd.DataFrame(columns)


def _known_share(treated: Floats, arm: str, section: TreatmentSection) -> float | None:
    """Return the probability of the treatment among the two arms under randomisation; None where it must be learnt."""
    if section.assignment != "randomised":
        return None
    if section.probability:
        return section.probability[arm] / (section.probability[arm] + section.probability[section.control])
    return float(treated.mean())


def _require_chance(treated: Floats, propensity: Floats, arm: str, section: TreatmentSection) -> None:
    """Raise StudyError where the features tell the arms apart as no randomisation lets them."""
    value, low, _ = overlap.auc_interval(treated, propensity, level=0.999)
    if low > overlap.NOT_BY_CHANCE:
        raise StudyError(
            f"treatment.assignment: the study calls {arm!r} and {section.control!r} randomised, but what is known before "
            f"treatment tells them apart with an AUC of {value:.2f}. Chance does not do that: either a feature was recorded after "
            "the assignment (remove it), or the arms were not randomised (say `assignment: observational`)."
        )
    if section.probability:
        expected = section.probability[arm] / (section.probability[arm] + section.probability[section.control])
        error = math.sqrt(expected * (1 - expected) / len(treated))
        if abs(float(treated.mean()) - expected) > 5 * error:
            raise StudyError(
                f"treatment.probability: by the study {expected:.0%} of {arm!r} and {section.control!r} together are in "
                f"{arm!r}; {treated.mean():.0%} are. Correct the shares, or look for patients who were left out."
            )


def _require_overlap(treated: Floats, arm: str, section: TreatmentSection) -> None:
    count = int(min(treated.sum(), (1 - treated).sum()))
    if count < LEAST_OVERLAP:
        raise CohortError(
            f"treatment: within the limits of overlap (probability of {arm!r} from {overlap.LIMITS[0]:g} to "
            f"{overlap.LIMITS[1]:g}) there are {count} patients of one arm, and at least {LEAST_OVERLAP} are needed. These data "
            "cannot compare the treatments. Remove `justification`: the prognosis under each treatment is then shown."
        )


def _effect_notes(content: dict[str, Any], section: TreatmentSection) -> list[str]:
    notes = []
    count, control = len(content["comparisons"]), plain_arm(section.control)
    if count > 1:
        notes.append(
            f"{count} arms are compared with {control}; each interval holds for its own comparison, not for all at once."
        )
    if len(section.learners) > 1:
        notes.append(
            f"The verdict is that of the {section.learners[0]} learner, which the study names first, by {METRICS[section.metric]}."
        )
    for one in content["comparisons"]:
        judged, name = one["overlap"], plain_arm(one["arm"])
        if section.assignment == "randomised" and judged["auc_low"] > 0.5:
            notes.append(
                f"{name}: the features tell the randomised arms apart a little better than chance (AUC {judged['auc']:.2f})."
            )
        if one["outside_overlap"]:
            notes.append(
                f"{name}: {one['outside_overlap']} patients outside the limits of overlap were left out. The effects are "
                "those of the patients who might have been given either treatment."
            )
    if section.assignment != "randomised":
        notes.append(
            "The arms were not randomised: these are effects only as far as the study's justification holds, which no "
            "figure here can show."
        )
    if any(sub["difference"] for one in content["comparisons"] for sub in one["subgroups"]):
        notes.append("Subgroup effects are not adjusted for their number.")
    return notes


def _prognosis_notes(overlaps: list[dict[str, Any]], compared: NDArray[np.bool_]) -> list[str]:
    notes = [
        f"{plain_arm(one['arm'])} and {plain_arm(one['control'])} can be told apart before treatment with an AUC of "
        f"{one['auc']:.2f}; {one['outside']:.0%} of the patients were almost sure to be given one of them."
        for one in overlaps
    ]
    notes.append(
        f"For {int((~compared).sum())} of {len(compared)} patients nothing is said about the treatment that patients like them "
        "were hardly ever given."
    )
    return notes


def _signed(estimate: dict[str, Any], sign: float) -> dict[str, Any]:
    """Return the estimate on the outcome's own scale."""
    if sign > 0:
        return dict(estimate)
    return estimate | {"value": -estimate["value"], "low": -estimate["high"], "high": -estimate["low"]}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
