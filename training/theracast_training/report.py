"""The study report: one self-contained HTML page, made from numbers alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from theracast_training import panels, wording
from theracast_training.content import ReportContent, explanation_summary
from theracast_training.limits import derived_limits
from theracast_training.performance_tables import net_benefit_table
from theracast_training.report_view import (
    checklist_views,
    endpoint_view,
    further_views,
    glance,
    safe,
    statistics_view,
)
from theracast_training.summary import summary_sentences

__all__ = ["ReportContent", "explanation_summary", "study_report"]

TEMPLATES = Path(__file__).parent / "templates"
SLIGHT = 0.05
EXPLAINED = {
    "binary": ("log-odds", "Probability is", "+0.7 doubles the odds"),
    "time_to_event": ("log-hazard", "Risk is", "+0.7 doubles the hazard"),
    "ordinal": ("log-odds", "A better level is", "+0.7 doubles the odds of every level or a better one"),
    "continuous": ("estimate", "Estimate is", "in the unit of the endpoint"),
}
"""By kind: the scale of contributions, what higher values raise, and how one is read."""
SEVERITIES = ("error", "warning", "note")


def study_report(content: ReportContent) -> str:
    """Return the study report as one HTML page that asks nothing of the network.

    The same content gives the same page, byte for byte.
    """
    return (
        page_environment(autoescape=True)
        .get_template("study_report.html.j2")
        .render(
            c=content,
            asked=content.asked,
            lead=content.headline,
            summary=summary_sentences(content),
            limits=derived_limits(content),
            glance=glance(content),
            view=endpoint_view(content.primary),
            net_benefit=net_benefit_table(content.primary),
            further=further_views(content),
            blocks=statistics_view(content),
            checklists=checklist_views(content),
            days=_day_rows(content),
            thresholds=_threshold_rows(content),
            findings=_sorted_findings(content),
            comparisons=_comparison_rows(content),
            directions=_direction_rows(content),
            catalogue=_catalogue_rows(content),
            families=_family_rows(content),
            panel=_drawn(content),
            scheme=_scheme_words(content.scheme),
            scale=EXPLAINED[content.asked.kind],
        )
    )


def page_environment(*, autoescape: bool) -> Environment:
    """Return the template environment with the wording of numbers as filters."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "interval": wording.interval,
        "percent_interval": wording.percent_interval,
        "percent": wording.percent,
        "hundredfold_interval": wording.hundredfold_interval,
        "decimals": wording.number,
        "p_value": wording.p_value,
        "thousands": wording.count,
        "site_label": wording.site_label,
        "listed": wording.listed,
        "rival_label": wording.rival_label,
        "plural": wording.plural,
        "sentence": wording.sentence,
        "ticked": _ticked,
    }
    return environment


def _ticked(text: str) -> Markup:
    """Return the text with what stands between backticks set as code, everything else escaped."""
    parts = str(text).split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 and place < len(parts) - 1 else escape(part)
        for place, part in enumerate(parts)
    )


def _drawn(content: ReportContent) -> dict[str, Any]:
    """Return every panel that is not one of the endpoint's own as safe markup."""
    single = {
        "forest": panels.forest_panel(content) if content.performance else None,
        "tuning": panels.tuning_panel(content),
        "explanation": panels.explanation_panel(content),
        "modality": panels.modality_panel(content),
    }
    decision = {"decision": safe(panels.decision_panels(content))}
    return {name: None if found is None else Markup(found) for name, found in single.items()} | decision


def _threshold_rows(content: ReportContent) -> list[dict[str, Any]]:
    """Return one block a threshold with a row for each site."""
    blocks: dict[float, list[dict[str, Any]]] = {}
    for site, record in content.performance.items():
        for row in record.get("thresholds") or []:
            blocks.setdefault(float(row["threshold"]), []).append(
                {"label": wording.site_label(site), "n": record["n"], "row": row}
            )
    return [{"threshold": threshold, "rows": rows} for threshold, rows in sorted(blocks.items())]


def _day_rows(content: ReportContent) -> list[dict[str, Any]]:
    """Return the performance at each day of decision, site by site; nothing where a study asks once."""
    return [
        {"day": day, "label": wording.site_label(site), "record": record}
        for site, days in (content.evaluations.get("by_day") or {}).items()
        for day, record in days.items()
    ]


def _sorted_findings(content: ReportContent) -> dict[str, list[dict[str, Any]]]:
    """Return open findings by severity, and the accepted ones; those of one check with one reason stand together."""
    found = {
        severity: [one for one in content.findings if one["severity"] == severity and not one.get("accepted")]
        for severity in SEVERITIES
    } | {"accepted": [one for one in content.findings if one.get("accepted")]}
    return {name: _grouped(findings) for name, findings in found.items()}


def _grouped(findings: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for one in findings:
        groups.setdefault((one["check"], one["severity"], one.get("why"), one.get("accepted")), []).append(one)
    return [
        {
            "check": check,
            "severity": severity,
            "why": why,
            "accepted": accepted,
            "remedy": members[0].get("remedy"),
            "varied": len({one.get("remedy") for one in members}) > 1,
            "places": _places(members),
        }
        for (check, severity, why, accepted), members in groups.items()
    ]


def _places(members: list[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return one row for each site and message, with the columns that share them."""
    columns: dict[tuple[str, str], list[str]] = {}
    for one in members:
        shared = columns.setdefault((one.get("site") or "all sites", one["message"]), [])
        if one.get("column"):
            shared.append(str(one["column"]))
    return [
        {"where": f"{site}: {', '.join(names)}" if names else site, "message": message}
        for (site, message), names in columns.items()
    ]


def _comparison_rows(content: ReportContent) -> list[dict[str, Any]]:
    return [_comparison_row(one, external=one["site"] in content.external) for one in content.comparisons]


def _comparison_row(one: Mapping[str, Any], *, external: bool) -> dict[str, Any]:
    difference = {"d": one.get("auc_difference"), "d_low": one.get("low"), "d_high": one.get("high")}
    error = {"d": one.get("brier_difference"), "d_low": one.get("brier_low"), "d_high": one.get("brier_high")}
    timed = one.get("survival") or {}
    return {
        "timed": bool(timed),
        "c_a": timed.get("c_harrell_a"),
        "c_b": timed.get("c_harrell_b"),
        "c": wording.interval(timed, "c_harrell_difference", digits=3, signed=True) if timed else "–",
        "against": wording.rival_label(str(one["against"])),
        "kind": one["kind"],
        "site": wording.site_label(str(one["site"])),
        "external": external,
        "n": one.get("n"),
        "auc_a": one.get("auc_a"),
        "auc_b": one.get("auc_b"),
        "auc": wording.interval(difference, "d", digits=3, signed=True),
        "p": wording.p_value(one.get("p_value")),
        "brier": wording.interval(error, "d", digits=3, signed=True) if one.get("calibrated", True) else "–",
    }


def _direction_rows(content: ReportContent) -> list[dict[str, Any]]:
    """Return for each shown feature what speaks for and against."""
    shown = (content.explanation.get("features") or [])[: panels.SHOWN_FEATURES]
    return [
        {"label": one["label"], "modality": one["modality"], "words": _direction_words(one)}
        for one in shown
        if one["mean_abs"] > 0
    ]


def _direction_words(feature: Mapping[str, Any]) -> str:
    """Return which values raise the probability and which lower it; categories with a slight effect are left out."""
    direction, levels = feature.get("direction"), feature.get("levels") or []
    if levels:
        raising = [one["level"] for one in levels if one["mean_phi"] > SLIGHT][:4]
        lowering = [one["level"] for one in reversed(levels) if one["mean_phi"] < -SLIGHT][:4]
        parts = [
            f"{verb} by {wording.listed(names)}"
            for verb, names in (("raised", raising), ("lowered", lowering))
            if names
        ]
        return "; ".join(parts) or "little difference between categories"
    if direction is None or abs(direction) < 0.3:
        return "no single direction"
    what = "when true" if feature.get("kind") == "boolean" else "by higher values"
    return f"{'raised' if direction > 0 else 'lowered'} {what}"


def _catalogue_rows(content: ReportContent) -> list[dict[str, Any]]:
    sites = [*content.development, *content.external]
    return [
        {
            "label": spec["label"],
            "name": spec["name"],
            "modality": spec["modality"],
            "unit": _unit_words(spec),
            "code": spec.get("code") or "",
            "role": spec.get("role", "value"),
            "missing": [(spec.get("missing") or {}).get(site) for site in sites],
        }
        for spec in content.features
    ]


def _unit_words(spec: Mapping[str, Any]) -> str:
    unit = spec.get("unit")
    if unit in (None, "", "1"):
        return {"categorical": "category", "boolean": "yes or no"}.get(str(spec.get("kind")), "")
    return "years" if unit == "a" else str(unit)


def _family_rows(content: ReportContent) -> list[dict[str, Any]]:
    rows = []
    for family, search in content.searches.items():
        trials = search.get("trials") or []
        finished = sum(trial.get("loss") is not None and trial.get("state") != "PRUNED" for trial in trials)
        rows.append(
            {
                "family": family,
                "chosen": family == content.family,
                "loss": search.get("loss"),
                "error": search.get("standard_error"),
                "trials": f"{finished} of {len(trials)} to the end" if trials else "no search of its own",
                "params": _parameters(search.get("params") or {}),
            }
        )
    return rows


def _parameters(params: Mapping[str, Any]) -> list[str]:
    """Return the parameters as short texts; a stack's members appear as families with their weights."""
    members = params.get("members")
    if isinstance(members, list | tuple):
        weights = params.get("weights") or [None] * len(members)
        return [
            f"{_member(member)}{'' if weight is None else f' × {_parameter(weight)}'}"
            for member, weight in zip(members, weights, strict=True)
        ]
    return [f"{name} {_parameter(value)}" for name, value in params.items()]


def _member(member: Any) -> str:
    if not isinstance(member, Mapping):
        return str(member)
    modality = member.get("modality")
    return f"{member.get('family', 'member')}{f' on {modality}' if modality else ''}"


def _parameter(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}".replace("-", "−")
    if isinstance(value, list | tuple):
        return ", ".join(_parameter(one) for one in value)
    return str(value)


def _scheme_words(scheme: Mapping[str, Any]) -> str:
    """Return how the procedure was judged, a sentence."""
    by = {
        "subject": "stratified, all decisions of a patient in one fold",
        "site": "leaving sites out",
        "time": "forward in time",
    }[str(scheme.get("by", "subject"))]
    inner = f"Families were tuned on {scheme['inner']} inner folds ({by}), up to {scheme['trials']} trials a family."
    if not scheme.get("outer"):
        return f"{inner} Nested cross-validation was left out."
    repeated = f", repeated {scheme['repeats']} times" if scheme.get("repeats", 1) > 1 else ""
    return (
        f"{inner} The whole procedure, tuning and choice of family included, was judged by nested cross-validation "
        f"with {scheme['outer']} outer folds{repeated}. External sites took no part in any choice."
    )
