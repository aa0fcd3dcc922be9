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
from theracast_models.response_model import ResponseModel
from theracast_training.card import model_card
from theracast_training.content import ReportContent, explanation_summary
from theracast_training.development import Developed
from theracast_training.prepare import Prepared
from theracast_training.report import study_report

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_NAMED_SOFTWARE = ("theracast", "scikit-learn", "lightgbm", "optuna", "mlflow", "numpy", "pandas", "shap")


@dataclass(frozen=True)
class Story:
    """All that the report and the card are made from."""

    prepared: Prepared
    developed: Developed
    model: ResponseModel
    uri: str
    curves: dict[str, Any]
    made: date
    seconds: float


def write_story(story: Story, client: MlflowClient, run_id: str, version: int) -> tuple[str, Path]:
    """Write report and card to MLflow and to the state folder; return the report and its path there."""
    content = report_content(story)
    report, card = study_report(content), model_card(content)
    client.log_text(run_id, report, "report.html")
    client.log_text(run_id, card, "model_card.md")
    folder = home() / "reports" / f"{content.name}-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(report, encoding="utf-8")
    (folder / "model_card.md").write_text(card, encoding="utf-8")
    return report, folder / "report.html"


def report_content(story: Story) -> ReportContent:
    """Return everything that the report shows, as plain numbers."""
    prepared, developed, model = story.prepared, story.developed, story.model
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
        curves=story.curves,
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
    )


def _shown_params(recipe: Recipe) -> dict[str, Any]:
    """Return the parameters in the width of a table: a stack by the names of its members, whose own rows say the rest."""
    if "members" not in recipe.params:
        return dict(recipe.params)
    return {"members": " + ".join(as_recipe(member).family for member in recipe.params["members"])}


def _cohort_counts(prepared: Prepared) -> list[dict[str, Any]]:
    site = prepared.cohort.decisions["site"].to_numpy()
    y = prepared.target.y
    return [
        {
            "site": name,
            "decisions": int((site == name).sum()),
            "known": int((~np.isnan(y[site == name])).sum()),
            "events": int(np.nansum(y[site == name])),
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
