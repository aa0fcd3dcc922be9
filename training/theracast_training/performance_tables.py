"""The figures of an endpoint at every site as tables, by its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from theracast_training.endpoint_content import EndpointContent, decisions_of
from theracast_training.tables import Row, Table, site_notes
from theracast_training.wording import (
    calibration_verdict,
    count,
    hundredfold_interval,
    interval,
    number,
    percent,
    percent_interval,
    sentence,
    site_label,
)

DAYS_PER_MONTH = 30.4375
BRIER_DIGITS = 3
STEP = 0.1
"""Thresholds of the table of net benefit, beside those of the study."""


def glance_table(endpoint: EndpointContent) -> Table:
    """Return one row a site: what was observed, what predicted, the leading figure, and whether probabilities hold."""
    terms, lead = endpoint.terms, endpoint.headline
    number_ = terms.kind == "continuous"
    what = "the mean of" if number_ else "fraction with"
    observed = f"{what} {terms.leading}{f' ({terms.unit})' if terms.unit else ''}"
    given = "the mean estimate" if number_ else "the mean probability that the model gave"
    rows = []
    for site, record in endpoint.performance.items():
        pair = (
            (number(record.get("mean_outcome")), number(record.get("mean_estimate")))
            if number_
            else (percent(record.get("prevalence")), percent(record.get("mean_probability")))
        )
        figure = interval(lead.of(record), lead.name)
        rows.append(Row.of(site, count(decisions_of(record)), *pair, figure, verdict=calibration_verdict(record)))
    return Table(
        f"At a glance. Observed and predicted: {observed}, and {given}.",
        ("Site", "Decisions", "Observed", "Predicted", f"{sentence(lead.label).rstrip('.')} (95 %)"),
        rows,
        verdicts="Estimates" if number_ else "Probabilities",
        style="",
    )


def performance_tables(endpoint: EndpointContent) -> list[Table]:
    """Return how well an endpoint is ranked and predicted at every site."""
    if not endpoint.performance:
        return []
    return {
        "binary": _binary,
        "time_to_event": _times,
        "ordinal": _levels,
        "continuous": _numbers,
    }[endpoint.terms.kind](endpoint)


def calibration_table(endpoint: EndpointContent) -> Table | None:
    """Return how probabilities (or estimates) agree with what happened at every site, None without any."""
    if not endpoint.performance:
        return None
    if endpoint.terms.kind == "continuous":
        return Table(
            "Line of the outcome on the estimate: intercept 0 and slope 1 are ideal, a slope below 1 means estimates that are "
            "too extreme. Bias: estimate minus outcome, on average.",
            ("Site", "Bias", "Intercept", "Slope"),
            [
                Row.of(
                    site,
                    *(interval(record, name) for name in ("mean_bias", "calibration_intercept", "calibration_slope")),
                    verdict=calibration_verdict(record),
                )
                for site, record in endpoint.performance.items()
            ],
            verdicts="Estimates",
            style="",
        )
    of = "" if endpoint.terms.kind == "binary" else f"Of the probability of {endpoint.terms.leading}. "
    return Table(
        f"{of}Intercept: 0 is ideal, below 0 the probabilities are too high. Slope: 1 is ideal, below 1 they are too extreme. "
        "ICI: mean distance from the smooth line, in percentage points.",
        ("Site", "Observed / expected", "Intercept", "Slope", "ICI"),
        [
            Row.of(
                site,
                *(
                    interval(record, name)
                    for name in ("observed_expected", "calibration_intercept", "calibration_slope")
                ),
                _points(record, "ici"),
                verdict=calibration_verdict(record),
            )
            for site, record in endpoint.performance.items()
        ],
        verdicts="Probabilities",
        style="",
    )


def net_benefit_table(endpoint: EndpointContent) -> Table | None:
    """Return net benefit and interventions avoided over the range of thresholds, None where no curve was drawn."""
    rows: list[Row] = []
    for site, curve in endpoint.curves.items():
        decision = curve.get("decision")
        if not decision:
            continue
        rows.append(Row.heading(site_label(site)))
        for place, threshold in enumerate(decision["threshold"]):
            if abs(threshold / STEP - round(threshold / STEP)) > 1e-6 and place not in (
                0,
                len(decision["threshold"]) - 1,
            ):
                continue
            found = {
                f"{name}{end}": _at(decision.get(f"{name}{end}"), place)
                for name in ("net_benefit", "treat_all", "interventions_avoided")
                for end in ("", "_low", "_high")
            }
            rows.append(
                Row(
                    (
                        percent(threshold),
                        hundredfold_interval(found, "net_benefit"),
                        hundredfold_interval(found, "treat_all"),
                        interval(found, "interventions_avoided", digits=1),
                    )
                )
            )
    if not rows:
        return None
    by = f" by {endpoint.terms.first_horizon}, from Kaplan-Meier" if endpoint.terms.kind == "time_to_event" else ""
    return Table(
        f"Net benefit{by} per 100 decisions over the range of thresholds; and interventions avoided per 100 decisions against "
        "treating everyone, at no loss of events found. 95 % bootstrap intervals.",
        ("Threshold", "By the model", "Treat everyone", "Interventions avoided"),
        rows,
        numbers=0,
        style="compact long",
    )


def _binary(endpoint: EndpointContent) -> list[Table]:
    return [
        Table(
            "Ranking and accuracy, with 95 % bootstrap intervals. Scaled Brier: 1 is perfect, 0 no better than telling "
            "everyone the average.",
            ("Site", "With outcome", "AUC", "AUPRC", "Brier", "Scaled Brier"),
            [
                Row.of(
                    site,
                    f"{count(record['events'])} of {count(record['n'])}",
                    interval(record, "auc"),
                    interval(record, "auprc"),
                    interval(record, "brier", digits=BRIER_DIGITS),
                    interval(record, "scaled_brier"),
                )
                for site, record in endpoint.performance.items()
            ],
            style="",
            notes=site_notes(endpoint.performance),
        )
    ]


def _times(endpoint: EndpointContent) -> list[Table]:
    timed = {site: record["survival"] for site, record in endpoint.performance.items() if record.get("survival")}
    overall = Table(
        "Ranking and accuracy over the whole follow-up, with 95 % bootstrap intervals. Uno's C does not depend on censoring. "
        "Slope: that of the log-hazard in a Cox model, 1 is ideal. Integrated Brier: error of the probabilities over the days "
        "to the last horizon; scaled, 1 is perfect and 0 no better than the Kaplan-Meier curve of all.",
        ("Site", "Events", "C-index", "Uno's C", "Slope", "Integrated Brier", "Scaled"),
        [
            Row.of(
                site,
                f"{count(found['events'])} of {count(found['n'])}",
                interval(found, "c_harrell"),
                interval(found, "c_uno"),
                interval(found, "calibration_slope"),
                interval(found, "ibs", digits=BRIER_DIGITS),
                interval(found, "ibs_scaled"),
            )
            for site, found in timed.items()
        ],
        notes=[
            *_follow_up(timed),
            *(_in_words(note, endpoint) for note in site_notes(endpoint.performance, part="survival")),
        ],
    )
    return [overall, _horizons(endpoint, timed)]


def _horizons(endpoint: EndpointContent, timed: Mapping[str, Mapping[str, Any]]) -> Table:
    rows: list[Row] = []
    for day, words in endpoint.terms.horizons.items():
        rows.append(Row.heading(f"By {words}"))
        for site, found in timed.items():
            one = next((row for row in found["horizons"] if abs(row["horizon"] - day) < 1e-6), None)
            if one is None:
                continue
            rows.append(
                Row.of(
                    site,
                    count(one["n_at_risk"]),
                    _points(one, "observed"),
                    percent(one.get("predicted")).removesuffix(" %"),
                    interval(one, "auc"),
                    interval(one, "brier", digits=BRIER_DIGITS),
                    interval(one, "observed_expected"),
                    _points(one, "ici"),
                )
            )
    return Table(
        f"By each horizon. Observed and predicted: probability of the event of {endpoint.terms.label} in per cent (Kaplan-Meier "
        "or Aalen-Johansen, and the mean of the model's). AUC: cumulative cases against those still free of it. ICI: mean "
        "distance from the smooth calibration line, in percentage points.",
        ("Site", "Still at risk", "Observed", "Predicted", "AUC", "Brier", "Observed / expected", "ICI"),
        rows,
        style="compact long",
    )


def _levels(endpoint: EndpointContent) -> list[Table]:
    ordered = {site: record["ordinal"] for site, record in endpoint.performance.items() if record.get("ordinal")}
    overall = Table(
        "Ranking and accuracy over all levels, with 95 % bootstrap intervals. Ranked probability score, scaled: 1 is perfect, 0 "
        "no better than telling everyone how frequent each level is. Kappa: agreement of the most probable level, squared "
        "distances. Slope: 1 is ideal.",
        ("Site", "Decisions", "Ordinal C", "Scaled ranked score", "Kappa", "Slope"),
        [
            Row.of(
                site,
                count(found["n"]),
                *(
                    interval(found, name)
                    for name in ("c_ordinal", "rps_scaled", "kappa_quadratic", "calibration_slope")
                ),
            )
            for site, found in ordered.items()
        ],
        style="",
        notes=site_notes(endpoint.performance, part="ordinal"),
    )
    rows: list[Row] = []
    levels = endpoint.terms.levels
    for cut in range(1, len(levels)):
        rows.append(Row.heading(f"{levels[cut]}{' or better' if cut + 1 < len(levels) else ''}"))
        for site, found in ordered.items():
            one = next((row for row in found["cuts"] if row["cut"] == cut), None)
            if one is None:
                continue
            rows.append(
                Row.of(
                    site,
                    f"{count(one['events'])} of {count(one['n'])}",
                    interval(one, "auc"),
                    interval(one, "brier", digits=BRIER_DIGITS),
                    interval(one, "calibration_intercept"),
                    interval(one, "calibration_slope"),
                )
            )
    cuts = Table(
        "At each cut between levels, as a yes or no.",
        ("Site", "So many", "AUC", "Brier", "Intercept", "Slope"),
        rows,
        style="compact long",
    )
    return [overall, cuts]


def _numbers(endpoint: EndpointContent) -> list[Table]:
    unit = f" in {endpoint.terms.unit}" if endpoint.terms.unit else " in the unit of the endpoint"
    return [
        Table(
            f"Accuracy and ranking, with 95 % bootstrap intervals; errors{unit}. R2: 1 is perfect, 0 no better than telling "
            "everyone the mean.",
            ("Site", "Decisions", "R2", "RMSE", "Mean absolute error", "Rank correlation"),
            [
                Row.of(
                    site, count(record["n"]), *(interval(record, name) for name in ("r2", "rmse", "mae", "spearman"))
                )
                for site, record in endpoint.performance.items()
            ],
            style="",
            notes=site_notes(endpoint.performance),
        )
    ]


def _in_words(note: str, endpoint: EndpointContent) -> str:
    """Return a note with its horizon in words in place of days."""
    for day, words in endpoint.terms.horizons.items():
        note = note.replace(f"at {day:g} days:", f"by {words}:")
    return note


def _points(record: Mapping[str, Any], name: str) -> str:
    return percent_interval(record, name).replace(" %", "")


def _follow_up(timed: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the median follow-up at every site, one note."""
    found = [
        f"{site_label(site)} {record['follow_up_median'] / DAYS_PER_MONTH:.0f}"
        for site, record in timed.items()
        if record.get("follow_up_median") is not None
    ]
    return [f"Median follow-up in months: {', '.join(found)}."] if found else []


def _at(values: Any, place: int) -> float | None:
    return None if not values else values[place]
