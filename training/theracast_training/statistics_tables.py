"""What a training asked of its own figures, in words and tables: one block a question, for the report and the card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from theracast_models.standing import WORDS
from theracast_training.fairness import CHANCE_NOTE
from theracast_training.study_figures import LABELS
from theracast_training.tables import Row, Table
from theracast_training.wording import count, interval, listed, number, p_value, percent, plural, site_label

DIGITS = {"brier": 3, "rmse": 3}
NAMES = {**LABELS, "r2": "R2", "rmse": "RMSE", "mean_bias": "Bias"}
SHOWN_FEATURES = 8
CANDIDATES = "candidate parameter"
OVER = {
    "external": "external sites",
    "left out": "development sites, each left out of what judges it",
    "development": "development sites, by answers out of fold",
}


@dataclass(frozen=True)
class Block:
    """One question: a heading, what was found in sentences, a table that is shown and one that is folded."""

    key: str
    title: str
    words: Sequence[str]
    table: Table | None = None
    folded: Table | None = None
    notes: Sequence[str] = field(default=())


def statistics_blocks(statistics: Mapping[str, Any]) -> list[Block]:
    """Return a block for every question that was answered."""
    found = [
        _sample_size(statistics.get("sample_size")),
        _optimism(statistics.get("optimism")),
        _learning_curve(statistics.get("learning_curve")),
        _sites(statistics.get("sites")),
        _fairness(statistics.get("fairness")),
        _patterns(statistics.get("patterns")),
        _periods(statistics.get("periods")),
        _leaks(statistics.get("leaks")),
    ]
    return [block for block in found if block is not None]


def statistics_lines(statistics: Mapping[str, Any]) -> list[str]:
    """Return what a terminal shows of it: a line a question that has something to say."""
    lines = []
    size = statistics.get("sample_size") or {}
    if size.get("achieved"):
        enough = size["achieved"]
        verdict = "enough" if enough["enough"] else "too few"
        lines.append(
            f"sample size: {enough['n']:,} decisions for {plural(enough['parameters'], CANDIDATES)}, "
            f"{enough['needed']:,} needed: {verdict}"
        )
    found = statistics.get("optimism")
    if found:
        lead = leading_measure(found)
        shown = [interval(found, lead, digits=3).replace("−", "-"), number(found.get(f"{lead}_apparent"), digits=3)]
        lines.append(
            f"corrected for optimism: {NAMES[lead]} {shown[0]}, apparent {shown[1]} ({found['resamples']} refits)"
        )
    pooled = statistics.get("sites")
    if pooled:
        lead = leading_measure(pooled["measures"])
        one = pooled["measures"][lead]
        if one["value"] is not None:
            words = f"{OVER[pooled['over']].split(',')[0]} together: {NAMES[lead]} {interval(_named(one), 'value', digits=3)}"
            if one["prediction_low"] is not None:
                words += f", a new site {one['prediction_low']:.3f} to {one['prediction_high']:.3f}"
            lines.append(words)
    leaks = statistics.get("leaks") or {}
    suspects = (leaks.get("screen") or {}).get("suspects") or []
    lines += [f"suspect: {one['sentence']}" for one in suspects]
    return lines


def leading_measure(found: Mapping[str, Any]) -> str:
    """Return the measure that leads among those of an answer: the C-index, else the AUC, else R2."""
    return next(name for name in ("c_index", "auc", "r2") if name in found)


def _named(one: Mapping[str, Any]) -> dict[str, Any]:
    return {"value": one["value"], "value_low": one["low"], "value_high": one["high"]}


def _sample_size(found: Mapping[str, Any] | None) -> Block | None:
    if not found:
        return None
    candidates = found["candidates"]["parameters"]
    if not found["needed"]:
        return Block("sample-size", "Are there enough patients?", [f"Nothing can be said: {found['note']}."])
    needed, achieved = found["needed"], found["achieved"]
    per = achieved.get("events_per_parameter")
    verdict = "which is enough" if achieved["enough"] else f"fewer than the {count(needed['needed'])} needed"
    words = [
        f"There are {count(achieved['n'])} decisions for {plural(candidates, CANDIDATES)}, {verdict} "
        f"(anticipated: {needed['anticipated']})."
    ]
    if achieved["shrinkage"] is not None:
        words.append(
            f"With so many, what is learnt is expected to be too extreme by {percent(1 - achieved['shrinkage'])}"
            f"{'' if per is None else f'; {number(per, digits=1)} events stand behind each parameter'}."
        )
    table = Table(
        "Criteria of Riley et al. (BMJ 2020;368:m441), for a model without a penalty. A penalty shrinks for the analyst, but how "
        "much is estimated from the same patients.",
        ("Asked", "Decisions needed", "Met"),
        [
            Row((one["meaning"], count(one["n"]), "yes" if one["n"] <= achieved["n"] else "no"))
            for one in needed["criteria"]
        ],
        style="",
        notes=needed["notes"],
    )
    return Block("sample-size", "Are there enough patients?", words, folded=table)


def _optimism(found: Mapping[str, Any] | None) -> Block | None:
    if not found:
        return None
    names = [name for name in NAMES if f"{name}_apparent" in found]
    rows = [
        Row(
            (
                NAMES[name],
                number(found[f"{name}_apparent"], digits=DIGITS.get(name, 2)),
                number(found[f"{name}_optimism"], digits=DIGITS.get(name, 2), signed=True),
                interval(found, name, digits=DIGITS.get(name, 2)),
                number(found.get(f"{name}_632plus"), digits=DIGITS.get(name, 2)),
            )
        )
        for name in names
    ]
    words = [
        f"The chosen recipe was fitted again on {count(found['resamples'])} bootstrap samples of the patients. What it did "
        "better there than on all patients is its optimism, and is taken off. The choice of family and parameters was not "
        "repeated, so that nested cross-validation stays the stricter judge."
    ]
    table = Table(
        "Performance on the development decisions as it appears, and corrected for optimism (Harrell et al., Stat Med "
        "1996;15:361-387) with 95 % intervals.",
        ("Figure", "Apparent", "Optimism", "Corrected (95 %)", ".632+"),
        rows,
        style="",
    )
    return Block("optimism", "How much of it is optimism?", words, table=table, notes=found["notes"])


def _learning_curve(found: Mapping[str, Any] | None) -> Block | None:
    if not found:
        return None
    fit = found["fits"]["auc"]
    table = Table(
        f"Performance in held-out patients, mean of {found['repeats']} splits with the range of the middle 95 %.",
        ("Patients to learn from", "Events", "AUC", "Brier", "Slope (median)"),
        [
            Row(
                (
                    count(round(one["patients"])),
                    count(round(one["events"])),
                    interval(one, "auc"),
                    interval(one, "brier", digits=3),
                    interval(one, "calibration_slope"),
                )
            )
            for one in found["points"]
        ],
        numbers=0,
        style="",
    )
    words = [fit["sentence"]] if fit["sentence"] else []
    return Block("learning-curve", "Would more patients help?", words, folded=table, notes=found["notes"])


def _sites(found: Mapping[str, Any] | None) -> Block | None:
    if not found:
        return None
    rows, notes = [], []
    for name, one in found["measures"].items():
        prediction = {"v": one["value"], "v_low": one["prediction_low"], "v_high": one["prediction_high"]}
        span = "–" if one["prediction_low"] is None else interval(prediction, "v").partition("(")[2].rstrip(")")
        rows.append(Row((NAMES[name], interval(_named(one), "value"), span, number(one["tau"]), percent(one["i2"]))))
        notes += one["notes"]
    table = Table(
        f"Random-effects meta-analysis over {OVER[found['over']]} (REML, Hartung and Knapp; tau on the logit scale for AUC and "
        "C-index, on the log scale for observed / expected).",
        ("Figure", "Mean (95 %)", "A new site (95 %)", "tau", "I²"),
        rows,
        style="",
        notes=list(dict.fromkeys(notes)),
    )
    lead = leading_measure(found["measures"])
    one = found["measures"][lead]
    words = []
    if one["prediction_low"] is not None:
        words = [
            f"Over {one['k']} {OVER[found['over']]} the {NAMES[lead]} is {interval(_named(one), 'value')} on average; at a new "
            f"site like these it is expected between {number(one['prediction_low'])} and {number(one['prediction_high'])}."
        ]
    return Block("sites", "How much do sites differ?", words, table=table)


def _fairness(found: Mapping[str, Any] | None) -> Block | None:
    if not found:
        return None
    rows: list[Row] = []
    words, notes = [], []
    for place, judged in found.items():
        where = "External sites together" if place == "external" else site_label(place)
        for column, one in judged["subgroups"].items():
            rows.append(Row.heading(f"{column.replace('_', ' ')}, {where[:1].lower()}{where[1:]}"))
            rows += [_group_row(group) for group in one["groups"]]
            gaps = one["gaps"]
            if gaps and gaps.get("auc") is not None:
                by_chance = gaps.get("auc_by_chance")
                chance = (
                    ""
                    if by_chance is None
                    else f" (by chance up to {number(by_chance)}, p {p_value(gaps['auc_p_value'])})"
                )
                words.append(
                    f"{where}, {column.replace('_', ' ')}: the AUC differs by {interval(gaps, 'auc')}{chance}, highest "
                    f"in “{gaps['auc_highest']}”, lowest in “{gaps['auc_lowest']}”."
                )
            notes += [note for note in one["notes"] if note != CHANCE_NOTE]
    table = Table(
        "Performance in the groups that the study names, with 95 % intervals. The widest gap lies above 0 even where groups do not "
        "differ: hold it against what chance gives. Groups that differ in how frequent the outcome is "
        "cannot have equal predictive values and equal error rates at once.",
        ("Group", "Decisions", "Observed", "Predicted", "AUC", "Observed / expected", "Slope"),
        rows,
        style="compact long",
        notes=list(dict.fromkeys(notes)),
    )
    return Block("groups", "Does it serve groups alike?", words, table=table)


def _group_row(group: Mapping[str, Any]) -> Row:
    record = group["performance"]
    if record is None:
        return Row((group["group"], count(group["n"]), group["reason"], "", "", "", ""))
    return Row(
        (
            group["group"],
            count(group["n"]),
            percent(record["prevalence"]),
            percent(record["mean_probability"]),
            interval(record, "auc"),
            interval(record, "observed_expected"),
            interval(record, "calibration_slope"),
        )
    )


def _patterns(found: Mapping[str, Any] | None) -> Block | None:
    """Return the performance by the kinds of data that a patient has; nothing where there is one kind only."""
    if not found or len(found) < 2:
        return None
    words = [
        f"Without {listed([WORDS.get(one, one) for one in record['absent']])} the AUC is lower by "
        f"{interval(_lost(record['auc_lost']), 'lost', digits=3)}."
        for record in found.values()
        if record.get("auc_lost") and len(record["absent"]) == 1 and record["auc_lost"]["difference"] is not None
    ]
    rows = [
        Row(
            (
                listed([WORDS.get(one, one) for one in record["modalities"]]) or "nothing",
                count(record["n"]),
                count(record["events"]),
                "found so" if record["how"] == "found" else "the others taken away",
                interval(record, "auc"),
                number(record.get("brier"), digits=3),
                interval(record, "calibration_slope"),
            )
        )
        for record in found.values()
    ]
    table = Table(
        "Performance for patients of whom just these kinds of data are known, in nested cross-validation, with 95 % intervals. "
        "Where too few have just these, the others are taken away from those who have more: that tells what the model loses, "
        "not how patients who are not measured differ.",
        ("Known", "Decisions", "With outcome", "How", "AUC", "Brier", "Slope"),
        rows,
        style="compact long",
    )
    return Block("patterns", "What if a kind of data is missing?", words, table=table)


def _lost(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"lost": found["difference"], "lost_low": found["low"], "lost_high": found["high"]}


def _periods(found: Mapping[str, Any] | None) -> Block | None:
    if not found or not found["periods"]:
        return None
    drift = found["drift"] or {}
    rows = [
        Row(
            (
                _years(one["start"], one["end"]),
                f"{count(one['events'])} of {count(one['n'])}",
                *(
                    interval(one["performance"] or {}, name)
                    for name in ("auc", "observed_expected", "calibration_slope")
                ),
            )
        )
        for one in found["periods"]
    ]
    where = "External sites together" if found["place"] == "external" else "Nested cross-validation"
    table = Table(
        f"{where}, by the calendar year of the decision.",
        ("Years", "With the outcome", "AUC", "Observed / expected", "Slope"),
        rows,
        style="",
    )
    words = [drift["sentence"]] if drift.get("sentence") else []
    return Block("periods", "Does it hold as time goes on?", words, table=table, notes=found["notes"])


def _years(start: float, end: float) -> str:
    last = int(end) - 1
    return f"{int(start)}" if last <= int(start) else f"{int(start)} to {last}"


def _leaks(found: Mapping[str, Any] | None) -> Block | None:
    if not found:
        return None
    screen, rests, permuted = found["screen"], found.get("concentration") or {}, found.get("permuted")
    words = [one["sentence"] for one in screen["suspects"]]
    if screen["features"] and not words:
        best = screen["features"][0]
        words.append(
            f"No single feature tells too much: the best one alone, {best['label']}, has an AUC of {interval(best, 'auc')} "
            f"(suspected from {number(screen['limit'])} on)."
        )
    if rests.get("sentence"):
        words.append(rests["sentence"])
    elif rests.get("effective") is not None:
        words.append(f"The model goes by about {number(rests['effective'], digits=0)} features of equal weight.")
    if permuted:
        words.append(permuted["sentence"])
    table = None
    if screen["features"]:
        table = Table(
            f"The {min(SHOWN_FEATURES, len(screen['features']))} features that tell most by themselves; by groups: by whether and "
            "in which tenth or category the value lies.",
            ("Feature", "Judged by", "Known", "AUC"),
            [
                Row((one["label"], one["by"], count(one["known"]), interval(one, "auc")))
                for one in screen["features"][:SHOWN_FEATURES]
            ],
            numbers=2,
            style="",
        )
    return Block("leaks", "Does it know what it must not?", words, folded=table, notes=[*screen.get("notes", ())])


def group_names(statistics: Mapping[str, Any]) -> str:
    """Return the columns whose groups were compared, as they are read."""
    judged: Mapping[str, Any] = next(iter((statistics.get("fairness") or {}).values()), {"subgroups": {}})
    return listed([column.replace("_", " ") for column in judged["subgroups"]])
