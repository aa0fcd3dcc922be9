"""Everything of a training run into MLflow: runs, trials in batches, figures, report, and the registered version."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities import Metric
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types.schema import AnyType, ColSpec, Schema

from theracast_data.home import artifact_root, home, tracking_uri
from theracast_models.response_model import ResponseModel
from theracast_training.search import FamilySearch

logger = logging.getLogger(__name__)

_BATCH = 1000  # MLflow's limit of metrics in one call


def connect() -> MlflowClient:
    """Return a client of the tracking store; the embedded one is created when it is first needed."""
    uri = tracking_uri()
    if uri.startswith("sqlite:"):
        home().mkdir(parents=True, exist_ok=True)
    _quiet_libraries()
    return MlflowClient(uri, uri)


@contextmanager
def as_global_store(uri: str) -> Iterator[None]:
    """Point MLflow's global functions, which alone can log a model, at a store, and put everything back afterwards.

    Even a client of another store resolves `models:/` addresses by them.
    """
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    before = {name: os.environ.get(name) for name in names}
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before["MLFLOW_TRACKING_URI"] or "")
        mlflow.set_registry_uri(before["MLFLOW_REGISTRY_URI"] or "")
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _quiet_libraries() -> None:
    """Keep schema migrations and model-logging chatter out of the story of a run."""
    for name in ("alembic", "mlflow.store.db.utils", "mlflow.store.model_registry", "mlflow.tracking._model_registry"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("mlflow.models.model", "mlflow.pyfunc", "mlflow.types.type_hints", "mlflow.utils.requirements_utils"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def study_run(client: MlflowClient, study: str, *, tags: Mapping[str, str]) -> Iterator[str]:
    """Give the id of a new parent run in the study's experiment; it ends as failed if the block raises."""
    run = client.create_run(_experiment(client, study), run_name=study, tags=dict(tags))
    try:
        yield run.info.run_id
    except BaseException:
        client.set_terminated(run.info.run_id, status="FAILED")
        raise
    client.set_terminated(run.info.run_id)


def _experiment(client: MlflowClient, study: str) -> str:
    found = client.get_experiment_by_name(study)
    if found is not None:
        return str(found.experiment_id)
    embedded = tracking_uri().startswith("sqlite:")
    location = (artifact_root() / study).as_uri() if embedded else None
    return str(client.create_experiment(study, artifact_location=location))


def log_family(client: MlflowClient, parent: str, family: str, search: FamilySearch, *, chosen: bool) -> None:
    """Write one child run for a family: its best parameters, and all trials in one batch of metric steps."""
    experiment = client.get_run(parent).info.experiment_id
    tags = {"mlflow.parentRunId": parent, "theracast.family": family, "theracast.chosen": str(chosen).lower()}
    run_id = client.create_run(experiment, run_name=family, tags=tags).info.run_id
    now = int(time.time() * 1000)
    metrics = [
        Metric("inner_log_loss", search.loss, now, 0),
        Metric("inner_log_loss_se", search.standard_error, now, 0),
    ]
    metrics += [Metric("trial_log_loss", trial["loss"], now, trial["number"]) for trial in search.trials]
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + _BATCH])
    for name, value in search.recipe.params.items():
        client.log_param(run_id, name, json.dumps(value) if isinstance(value, list | dict) else value)
    if search.trials:
        client.log_text(run_id, json.dumps(list(search.trials), indent=1), "trials.json")
    client.set_terminated(run_id)


def log_site_metrics(client: MlflowClient, run_id: str, evaluations: Mapping[str, Any]) -> None:
    """Write the figures of the nested cross-validation and of every external site as metrics `SITE/NAME`."""
    now = int(time.time() * 1000)
    sites = {"cv": evaluations.get("cv") or {}, **evaluations.get("external", {})}
    for part in ("survival", "ordinal"):
        sites |= {f"{site}/{part}": figures[part] for site, figures in list(sites.items()) if figures.get(part)}
    metrics = [
        Metric(f"{_metric_name(site)}/{name}", float(value), now, 0)
        for site, figures in sites.items()
        for name, value in figures.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    for start in range(0, len(metrics), _BATCH):
        client.log_batch(run_id, metrics=metrics[start : start + _BATCH])


def _metric_name(site: str) -> str:
    return "".join(sign if sign.isalnum() or sign in "_-. " else "_" for sign in site) or "site"


def register(
    client: MlflowClient, run_id: str, name: str, model: ResponseModel, folder: Path, *, tags: Mapping[str, str]
) -> int:
    """Log the model folder with signature and input example, and register it; it has no alias yet.

    Returns:
        The number of the new version.
    """
    columns: list[Any] = [
        ColSpec(AnyType(), column, required=False)  # type: ignore[no-untyped-call]
        for column in model.raw_columns
    ]
    with as_global_store(tracking_uri()):
        with mlflow.start_run(run_id=run_id):
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(Path(__file__).with_name("pyfunc_model.py")),
                artifacts={"response_model": str(folder)},
                signature=ModelSignature(inputs=Schema(columns)),
                input_example=model.example_frame().astype(object),
                pip_requirements=["theracast"],
                metadata={"theracast.identity": model.identity},
            )
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        version = client.create_model_version(name, logged.model_uri, run_id, tags=dict(tags), model_id=logged.model_id)
    return int(version.version)
