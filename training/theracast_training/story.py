"""What a training tells people: the study report and the model card, made from what it found."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from theracast_data.home import home
from theracast_models.families import Recipe, as_recipe
from theracast_models.head import Head
from theracast_models.response_model import ResponseModel
from theracast_training.card import model_card
from theracast_training.checklist import items_csv, items_json
from theracast_training.content import NESTED, ReportContent, explanation_summary
from theracast_training.development import Developed
from theracast_training.endpoint_content import EndpointContent, Terms
from theracast_training.endpoint_curves import site_curves
from theracast_training.prepare import Prepared
from theracast_training.probast import probast_items
from theracast_training.report import study_report
from theracast_training.tripod import tripod_items

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_NAMED_SOFTWARE = ("theracast", "scikit-learn", "lightgbm", "optuna", "mlflow", "numpy", "pandas", "shap")
SHOWN_TREATMENTS = 12


@dataclass(frozen=True)
class Story:
    """All that the report and the card are made from; the primary endpoint is the first of the parts."""

    parts: tuple[tuple[Prepared, Developed], ...]
    model: ResponseModel
    uri: str
    made: date
    seconds: float


def write_story(story: Story, client: MlflowClient, run_id: str, version: int) -> tuple[str, Path]:
    """Write report, card and checklists to MLflow and to the state folder; return the report and its path there."""
    content = report_content(story)
    report = study_report(content)
    files = {"report.html": report, "model_card.md": model_card(content)}
    for name, items in (("tripod_ai", tripod_items(content)), ("probast_ai", probast_items(content))):
        files |= {f"{name}.csv": items_csv(items), f"{name}.json": items_json(items)}
    folder = home() / "reports" / f"{content.name}-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        client.log_text(run_id, text, name)
        (folder / name).write_text(text, encoding="utf-8")
    return report, folder / "report.html"


def report_content(story: Story) -> ReportContent:
    """Return everything that the report shows, as plain numbers."""
    (prepared, developed), model = story.parts[0], story.model
    study = prepared.study
    audited = prepared.audit.to_json()
    learn = prepared.table.take(prepared.learn)
    prediction = model.predict_cohort(prepared.cohort.take(prepared.learn))
    scheme = study.validation.scheme
    named = (*_NAMED_SOFTWARE, *(("torch",) if {"cnn", "neural"} & set(study.search.families) else ()))
    evaluations = {name: part for name, part in model.evaluations.items() if name != "comparisons"}
    return ReportContent(
        name=study.study,
        question=study.question,
        endpoint=study.endpoint.label or study.endpoint.name,
        model=story.uri,
        family=developed.final.choice.family,
        choice=developed.final.choice.reason,
        made=story.made,
        seed=study.search.seed,
        development=prepared.sites,
        external=tuple(prepared.external),
        cohort=_cohort_counts(prepared),
        attrition=audited["attrition"],
        findings=audited["findings"],
        searches={
            family: {
                "loss": search.loss,
                "standard_error": search.standard_error,
                "params": _shown_params(search.recipe),
                "trials": list(search.trials),
            }
            for family, search in developed.final.choice.searches.items()
        },
        evaluations=evaluations,
        curves=site_curves(prepared, developed),
        comparisons=model.evaluations["comparisons"],
        explanation=explanation_summary(prediction.contributions, learn.frame, learn.catalogue, seed=study.search.seed),
        catalogue=_catalogue(prepared),
        scheme={
            "outer": scheme.outer,
            "inner": scheme.inner,
            "repeats": scheme.repeats,
            "by": scheme.by,
            "trials": study.search.trials,
            "bootstrap": study.report.bootstrap,
            "replicates": study.search.replicates,
        },
        versions={"python": platform.python_version(), **{name: installed(name) for name in named}},
        fingerprint=prepared.fingerprint["digest"],
        seconds=round(story.seconds, 1),
        terms=Terms.of(model.head),
        further=tuple(_further(head, *part) for head, part in zip(model.further, story.parts[1:], strict=True)),
        study=study_facts(prepared),
    )


def _further(head: Head, prepared: Prepared, developed: Developed) -> EndpointContent:
    """Return what the report says of an endpoint beside the primary one."""
    nested = head.evaluations.get("cv") or {}
    return EndpointContent(
        name=head.endpoint.name,
        terms=Terms.of(head),
        family=developed.final.choice.family,
        choice=developed.final.choice.reason,
        performance=({NESTED: nested} if nested else {}) | head.evaluations["external"],
        curves=site_curves(prepared, developed),
        statistics=head.evaluations.get("statistics") or {},
    )


def study_facts(prepared: Prepared) -> dict[str, Any]:
    """Return what the study file says and no figure shows, as plain JSON without a patient's value."""
    study = prepared.study
    decisions = prepared.cohort.decisions.iloc[prepared.learn]
    years = decisions["calendar"].to_numpy(dtype=np.float64)
    known = years[np.isfinite(years)]
    statement = study.statement.model_dump(exclude_none=True)
    include = {key: str(rule) for source in study.sources for key, rule in source.include.items()}
    columns = [spec for source in study.sources for spec in source.columns.values()]
    return {
        "statement": statement,
        "thresholds": list(study.report.thresholds),
        "include": include,
        "from_events": study.decisions is not None,
        "calendar": [int(np.floor(known.min())), int(np.floor(known.max()))] if len(known) else None,
        "treatments": sorted({str(one) for one in decisions["treatment"].dropna()})[:SHOWN_TREATMENTS],
        "baselines": [one.score for one in study.published],
        "gates": study.gates.model_dump(mode="json", exclude_none=True),
        "sources": [str(source.kind) for source in study.sources] + (["events"] if study.events else []),
        "transforms": sorted({one for spec in columns if (one := getattr(spec, "transform", None))}),
        "caps": sum(getattr(spec, "cap", None) is not None for spec in columns),
        "harmonised": sorted({str(spec.batch) for spec in prepared.table.catalogue if spec.batch}),
        "indicators": sum(spec.role == "indicator" for spec in prepared.table.catalogue),
        "fairness": [one.column for one in study.fairness.subgroups] if study.fairness else [],
        "patients": len(np.unique(prepared.patients(prepared.learn))),
        "by": study.validation.scheme.by,
    }


def _shown_params(recipe: Recipe) -> dict[str, Any]:
    """Return the parameters in the width of a table: a stack by the names of its members, whose own rows say the rest."""
    if "members" not in recipe.params:
        return dict(recipe.params)
    return {"members": " + ".join(as_recipe(member).family for member in recipe.params["members"])}


def _cohort_counts(prepared: Prepared) -> list[dict[str, Any]]:
    site = prepared.cohort.decisions["site"].to_numpy()
    target = prepared.target
    known = np.zeros(len(site), dtype=bool)
    known[target.known] = True
    happened = target.strata
    return [
        {
            "site": name,
            "decisions": int((site == name).sum()),
            "known": int(known[site == name].sum()),
            "events": None if target.kind == "continuous" else int(np.nansum(happened[(site == name) & known])),
        }
        for name in (*prepared.sites, *prepared.external)
    ]


def _catalogue(prepared: Prepared) -> list[dict[str, Any]]:
    site = prepared.cohort.decisions["site"].to_numpy()
    missing = prepared.table.frame.isna()
    return [
        spec.to_json()
        | {
            "missing": {
                name: float(missing.loc[site == name, spec.name].mean())
                for name in (*prepared.sites, *prepared.external)
            }
        }
        for spec in prepared.table.catalogue
    ]
