"""`theracast train`: from a study to a tuned, calibrated, externally validated and registered response model."""

from __future__ import annotations

import getpass
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from theracast_data.endpoints import kind_of
from theracast_data.home import feature_cache
from theracast_features.parts import remove_unused
from theracast_models.companions import Companions
from theracast_models.head import Head
from theracast_models.reference import Reference
from theracast_models.response_model import ResponseModel
from theracast_training import tracking
from theracast_training.beside import learn_companions
from theracast_training.comparisons import compare_with, evaluate_by_day, evaluate_judged, evaluate_rival
from theracast_training.development import Developed, Progress, Silent, develop
from theracast_training.patterns import pattern_records
from theracast_training.prepare import Prepared, prepare, prepare_endpoint
from theracast_training.promotion import store_predictions
from theracast_training.registry import CHALLENGER, set_alias
from theracast_training.statistics_tables import statistics_lines
from theracast_training.story import Story, write_story
from theracast_training.study import Study, study_text
from theracast_training.study_statistics import leaks, sample_size, study_statistics

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What a training gave.

    Attributes:
        model: `models:/NAME/VERSION`.
        response_model: the model itself.
        family: the family that was chosen.
        seconds: duration.
        report: the study report, HTML.
        report_path: where it lies.
    """

    model: str
    response_model: ResponseModel
    family: str
    choice: str
    seconds: float
    report: str
    report_path: Path
    run_id: str

    def to_json(self) -> dict[str, Any]:
        """Return the contract of `theracast train --json`."""
        evaluations = self.response_model.evaluations
        return {
            "model": self.model,
            "family": self.family,
            "choice": self.choice,
            "cv": evaluations["cv"],
            "external": evaluations["external"],
            "baselines": evaluations["baselines"],
            "single_modality": evaluations["single_modality"],
            "without_modality": evaluations["without_modality"],
            "by_day": evaluations["by_day"],
            "statistics": evaluations["statistics"],
            "further": {
                head.endpoint.name: {"family": head.calibrated.recipe.family, "kind": kind_of(head.endpoint)}
                | {part: head.evaluations[part] for part in ("cv", "external", "statistics")}
                for head in self.response_model.further
            },
            "identity": self.response_model.identity,
            "run_id": self.run_id,
            "report": str(self.report_path),
            "checklists": {
                name: str(self.report_path.with_name(f"{name}.json")) for name in ("tripod_ai", "probast_ai")
            },
            "seconds": self.seconds,
        }

    def to_text(self) -> str:
        """Return the outcome as lines to read."""
        evaluations = self.response_model.evaluations
        lines = [f"{self.model}: {self.family} ({self.choice})"]
        sites = {"nested cross-validation": evaluations["cv"], **evaluations["external"]}
        for site, figures in sites.items():
            if figures:
                lines += _site_lines(site, figures)
                lines += _lines_by_day(
                    evaluations.get("by_day", {}).get("cv" if figures is evaluations["cv"] else site, {})
                )
        for head in self.response_model.further:
            lines.append(f"{head.endpoint.name}: {head.calibrated.recipe.family}")
            told = {"nested cross-validation": head.evaluations["cv"], **head.evaluations["external"]}
            lines += [line for site, figures in told.items() if figures for line in _site_lines(site, figures)]
        lines += statistics_lines(evaluations["statistics"])
        lines.append(f"report: {self.report_path}   ({self.seconds:.0f} s)")
        return "\n".join(lines)


def _site_lines(site: str, figures: Mapping[str, Any]) -> list[str]:
    """Return the figures of one site as lines: those of the leading answer, and of the kind of the endpoint."""
    lines = []
    if "auc" in figures:
        shown = {name: _shown(figures.get(name)) for name in ("auc", "auc_low", "auc_high", "brier")}
        lines.append(
            f"  {site:24} n {figures['n']:5d}  events {figures['events']:4d}  AUC {shown['auc']} "
            f"({shown['auc_low']} to {shown['auc_high']})  Brier {shown['brier']}  "
            f"slope {_shown(figures.get('calibration_slope'))}"
        )
    ordered = figures.get("ordinal")
    if ordered:
        lines.append(
            f"  {site:24} n {ordered['n']:5d}  ordinal C {_shown(ordered['c_ordinal'])} "
            f"({_shown(ordered['c_ordinal_low'])} to {_shown(ordered['c_ordinal_high'])})"
        )
    if "r2" in figures:
        lines.append(
            f"  {site:24} n {figures['n']:5d}  R2 {_shown(figures['r2'])} ({_shown(figures['r2_low'])} to "
            f"{_shown(figures['r2_high'])})  RMSE {_shown(figures['rmse'])}  slope {_shown(figures['calibration_slope'])}"
        )
    timed = figures.get("survival")
    if timed:
        lines.append(
            f"  {site:24} n {timed['n']:5d}  events {timed['events']:4d}  C {_shown(timed['c_harrell'])} "
            f"({_shown(timed['c_harrell_low'])} to {_shown(timed['c_harrell_high'])})  "
            f"Uno's C {_shown(timed['c_uno'])}  integrated Brier {_shown(timed['ibs'])}"
        )
    return lines


def _lines_by_day(days: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [
        f"    {'day ' + day:22} n {figures['n']:5d}  events {figures['events']:4d}  AUC {_shown(figures.get('auc'))} "
        f"({_shown(figures.get('auc_low'))} to {_shown(figures.get('auc_high'))})"
        for day, figures in days.items()
    ]


def _shown(figure: float | None) -> str:
    return "not estimable" if figure is None else f"{figure:.3f}"


def train(study: Study, *, base: Path, now: datetime, jobs: int = 1, progress: Progress | None = None) -> TrainResult:
    """Tune, fit, calibrate, validate and register the model of a study; alias `challenger`.

    A training that was killed goes on from its finished trials when it is started again; the result is the same.

    Args:
        study: the study.
        base: folder from which relative paths of the study count.
        now: the moment that the model and the report carry.
        jobs: worker processes.
        progress: told of steps and trials.

    Raises:
        TheracastError: what the data or the study do not allow.
    """
    follow = progress or Silent()
    started = time.monotonic()
    follow.step("reading and auditing the data")
    prepared = prepare(study, base=base, cache=feature_cache())
    remove_unused(feature_cache(), now=now.timestamp())
    others = [prepare_endpoint(prepared, endpoint) for endpoint in study.trained[1:]]
    sizes = {part.endpoint.name: sample_size(part) for part in (prepared, *others)}
    developed = develop(prepared, jobs=jobs, progress=follow)
    further = [(part, develop(part, jobs=jobs, progress=follow, rivals=False)) for part in others]
    follow.step("validating")
    evaluations = evaluate(prepared, developed)
    follow.step("questioning the figures")
    questioned = study_statistics(prepared, developed, evaluations, jobs=jobs)
    evaluations["statistics"] = {"sample_size": sizes[prepared.endpoint.name]} | questioned
    model = ResponseModel.build(
        card=model_card_facts(prepared, developed, now=now),
        inputs=study.inputs,
        section=prepared.section,
        endpoint=prepared.endpoint,
        calibrated=developed.fitted,
        table=prepared.table.take(prepared.learn),
        y=prepared.target.told[prepared.learn],
        weight=prepared.target.take(prepared.learn).weight(),
        evaluations=evaluations,
        further=[_head(*part, size=sizes[part[0].endpoint.name]) for part in further],
        companions=_companions(prepared, developed, first=True),
    )
    follow.step("writing to MLflow")
    return _record([(prepared, developed), *further], model, now=now, started=started)


def _head(prepared: Prepared, developed: Developed, *, size: dict[str, Any]) -> Head:
    """Return what the model keeps of a further endpoint."""
    target = prepared.target.take(prepared.learn)
    questioned = {"statistics": {"sample_size": size, "leaks": leaks(prepared, developed)}}
    return Head(
        endpoint=prepared.endpoint,
        calibrated=developed.fitted,
        reference=Reference.learn(prepared.table.take(prepared.learn), target.told, weight=target.weight()),
        evaluations=evaluate(prepared, developed) | questioned,
        companions=_companions(prepared, developed, first=False),
    )


def _companions(prepared: Prepared, developed: Developed, *, first: bool) -> Companions:
    nested = developed.own.get("cv")
    return learn_companions(prepared, developed.fitted, developed.final, nested, first=first)


def evaluate(prepared: Prepared, developed: Developed) -> dict[str, Any]:
    """Return the performance of the model, the baselines and the single modalities, as it travels in the artefact."""
    own = {site: evaluate_judged(judged, prepared) for site, judged in developed.own.items()}
    by_kind: dict[str, dict[str, Any]] = {"baseline": {}, "modality": {}, "without": {}}
    for rival in developed.rivals:
        by_kind[rival.kind][rival.name] = evaluate_rival(rival, prepared)
    return {
        "cv": own.pop("cv", {}),
        "external": own,
        "baselines": by_kind["baseline"],
        "single_modality": by_kind["modality"],
        "without_modality": by_kind["without"],
        "by_day": evaluate_by_day(developed.own, prepared),
        "patterns": evaluate_patterns(developed, prepared),
        "comparisons": compare_with(developed.rivals, developed.own, prepared),
    }


def evaluate_patterns(developed: Developed, prepared: Prepared) -> dict[str, Any]:
    """Return the performance for each combination of modalities, out of fold; nothing without nested validation."""
    if not developed.by_pattern:
        return {}
    target = prepared.target.take(prepared.learn)
    return pattern_records(
        developed.by_pattern,
        prepared.table.take(prepared.learn),
        target.y,
        weight=target.weight(),
        group=prepared.patients(prepared.learn),
        bootstrap=min(prepared.study.report.bootstrap, 500),
        seed=prepared.study.search.seed,
    )


def model_card_facts(prepared: Prepared, developed: Developed, *, now: datetime) -> dict[str, Any]:
    """Return what the artefact says of its own making."""
    study = prepared.study
    return {
        "name": study.study,
        "question": study.question,
        "created": now.isoformat(timespec="seconds"),
        "family": developed.final.choice.family,
        "choice": developed.final.choice.reason,
        "seed": study.search.seed,
        "development": list(prepared.sites),
        "external": list(prepared.external),
        "data_fingerprint": prepared.fingerprint["digest"],
        "gates": study.gates.model_dump(mode="json"),
        "audit": {"open_errors": sorted(finding.check for finding in prepared.audit.open_errors)},
    }


def _record(
    parts: Sequence[tuple[Prepared, Developed]], model: ResponseModel, *, now: datetime, started: float
) -> TrainResult:
    """Write everything to MLflow, register the version, and return the result; the primary endpoint is the first part."""
    prepared, developed = parts[0]
    study = prepared.study
    client = tracking.connect()
    choice = developed.final.choice
    tags = {
        "theracast.study": study.study,
        "theracast.seed": str(study.search.seed),
        "theracast.data": prepared.fingerprint["digest"],
        "theracast.identity": model.identity,
    }
    with tracking.study_run(client, study.study, tags=tags) as run_id, tempfile.TemporaryDirectory() as scratch:
        for family, search in choice.searches.items():
            tracking.log_family(client, run_id, family, search, chosen=family == choice.family)
        tracking.log_site_metrics(client, run_id, model.evaluations)
        client.log_text(run_id, study_text(study), "study.yaml")
        client.log_dict(run_id, prepared.fingerprint, "data_fingerprint.json")
        client.log_dict(run_id, prepared.audit.to_json(), "audit.json")
        store_predictions(run_id, developed.own, prepared)
        folder = Path(scratch) / "response_model"
        model.save(folder)
        version = tracking.register(client, run_id, study.study, model, folder, tags=tags)
        uri = f"models:/{study.study}/{version}"
        story = Story(
            parts=tuple(parts),
            model=model,
            uri=uri,
            made=now.date(),
            seconds=time.monotonic() - started,
        )
        report, path = write_story(story, client, run_id, version)
        set_alias(study.study, version, CHALLENGER, actor=getpass.getuser(), now=now, why="newly trained")
    return TrainResult(
        model=uri,
        response_model=model,
        family=choice.family,
        choice=choice.reason,
        seconds=round(time.monotonic() - started, 2),
        report=report,
        report_path=path,
        run_id=run_id,
    )
