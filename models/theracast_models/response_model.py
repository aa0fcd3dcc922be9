"""The one artefact: from raw inputs to calibrated answers with interval, exact explanation and warnings."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd

from theracast_data.cohort import Cohort
from theracast_data.endpoints import Endpoint, endpoint_from_json, kind_of
from theracast_data.errors import ArtifactError
from theracast_data.sources import Inputs
from theracast_data.table import cohort_from_frame
from theracast_features.build import build_features
from theracast_features.section import FeatureSection
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.artefact import audit_artefact, write_artefact
from theracast_models.caution import warnings_of
from theracast_models.companions import Companions
from theracast_models.examples import invented_rows, raw_columns
from theracast_models.fitting import CalibratedModel
from theracast_models.head import Head
from theracast_models.logodds import Floats
from theracast_models.prediction import Prediction
from theracast_models.reference import Reference

UNSAVED = "not saved"


@dataclass(frozen=True)
class ResponseModel:
    """A model that answers from raw tables. Training, command line, REST and MLflow all ask this object.

    Attributes:
        card: who made it, when, from what, for which question.
        inputs: how raw columns become values.
        section: which values become features.
        endpoint: what is predicted first.
        catalogue: the features, in order.
        calibrated: the model of the features.
        reference: what the development patients were like.
        evaluations: performance, `{"cv": {...}, "external": {site: {...}}, "baselines": ..., "single_modality": ...}`.
        examples: invented patients, `{"row": raw cells, "answer": record of Prediction.rows()}`.
        further: the other endpoints that it answers.
        companions: what stands beside an answer to the first endpoint.
        identity: name under which it answers: its digest, or the name in a registry.
    """

    card: dict[str, Any]
    inputs: Inputs
    section: FeatureSection
    endpoint: Endpoint
    catalogue: tuple[FeatureSpec, ...]
    calibrated: CalibratedModel
    reference: Reference
    evaluations: dict[str, Any] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)
    further: tuple[Head, ...] = ()
    companions: Companions = field(default_factory=Companions)
    identity: str = UNSAVED

    @property
    def head(self) -> Head:
        """The primary endpoint."""
        return Head(self.endpoint, self.calibrated, self.reference, self.evaluations, self.companions)

    @property
    def heads(self) -> tuple[Head, ...]:
        """All endpoints, the primary one first."""
        return (self.head, *self.further)

    @classmethod
    def build(
        cls,
        *,
        card: dict[str, Any],
        inputs: Inputs,
        section: FeatureSection,
        endpoint: Endpoint,
        calibrated: CalibratedModel,
        table: FeatureTable,
        y: Floats,
        weight: Floats | None = None,
        evaluations: dict[str, Any] | None = None,
        further: Sequence[Head] = (),
        companions: Companions | None = None,
    ) -> ResponseModel:
        """Return the whole model around a fitted one: with reference, examples, and the identity it will have saved.

        Args:
            section: resolved (`missing_indicators` by name).
            table, y, weight: the development decisions with what happened, 0/1 at the leading horizon or level; only an
                aggregate of them stays.
            further: the other endpoints.
            companions: what stands beside an answer.
        """
        model = cls(
            card=_plain(card),
            inputs=_without_paths(inputs),
            section=section,
            endpoint=endpoint,
            catalogue=table.catalogue,
            calibrated=calibrated,
            reference=Reference.learn(table, y, weight=weight),
            evaluations=_plain(evaluations or {}),
            further=tuple(replace(head, evaluations=_plain(head.evaluations)) for head in further),
            companions=companions or Companions(),
        )
        rows = invented_rows(model.inputs, model.catalogue, model.reference)
        answers = model.predict(pd.DataFrame(rows)).rows()
        model = replace(
            model, examples=[{"row": row, "answer": answer} for row, answer in zip(rows, answers, strict=True)]
        )
        with tempfile.TemporaryDirectory() as scratch:
            return replace(model, identity=model.save(Path(scratch) / "model"))

    @property
    def raw_columns(self) -> list[str]:
        """Headers that a raw table for scoring may have."""
        return raw_columns(self.inputs)

    def example_frame(self) -> pd.DataFrame:
        """Return the invented patients as a raw table."""
        return pd.DataFrame([example["row"] for example in self.examples])

    def predict(self, raw: pd.DataFrame, *, site: str | None = None) -> Prediction:
        """Return the answers for the rows of one raw table, in their order.

        Args:
            raw: (n, ...) raw cells; columns may be absent, ids may repeat.
            site: where the decisions are made, if the table does not say.

        Raises:
            SchemaError: a header stands twice.
            ArtifactError: an explanation does not add up.
        """
        return self.predict_cohort(cohort_from_frame(raw, self.inputs, site=site))

    def predict_cohort(self, cohort: Cohort) -> Prediction:
        """Return the answers for decisions that were read already.

        Raises:
            ArtifactError: an explanation does not add up, or the features are not those of the model.
        """
        table = build_features(cohort, self.section)
        self._check_features(table)
        answer, *further = (head.answer(table, self.catalogue) for head in self.heads)
        return Prediction(
            model=self.identity,
            subject_id=[str(one) for one in table.decisions["subject_id"]],
            answer=answer,
            further=tuple(further),
            missing=_missing(table),
            warnings=warnings_of(
                cohort,
                table,
                gaps=self.calibrated.model.gaps(table),
                reference=self.reference,
                validated=self.evaluations.get("external", {}),
            ),
            features=table,
        )

    def save(self, folder: Path | str) -> str:
        """Write the model into a folder that must not exist, and return the identity that it has there.

        Raises:
            ArtifactError: the folder exists or cannot be written.
        """
        return _identity(write_artefact(Path(folder), self._write, created=self.card.get("created")))

    @classmethod
    def load(cls, folder: Path | str) -> ResponseModel:
        """Return the model that `save` wrote, after every byte was found as it was.

        Raises:
            ArtifactError: damaged, incomplete, foreign, or saved by a newer Theracast.
        """
        folder = Path(folder)
        content = audit_artefact(folder)
        try:
            return _read(folder, identity=_identity(content["digest"]))
        except ArtifactError:
            raise
        except (KeyError, TypeError, ValueError, FileNotFoundError) as error:
            raise ArtifactError(
                f"{folder}: the files are intact but do not hold what format {content['version']} promises "
                f"({type(error).__name__}). It was not saved by a released Theracast; train the model again."
            ) from error

    def _write(self, folder: Path) -> None:
        about = {
            "card": self.card,
            "endpoint": self.endpoint.model_dump(mode="json"),
            "section": self.section.model_dump(mode="json"),
            "catalogue": [spec.to_json() for spec in self.catalogue],
        } | ({"further": len(self.further)} if self.further else {})
        for name, record in {
            "model.json": about,
            "inputs.json": inputs_to_json(self.inputs),
            "reference.json": self.reference.to_json(),
            "evaluations.json": self.evaluations,
            "examples.json": self.examples,
            "companions.json": self.companions.to_json(),
        }.items():
            text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
            (folder / name).write_text(text + "\n", encoding="utf-8")
        self.calibrated.save(folder / "estimator")
        for number, head in enumerate(self.further):
            _write_head(folder / "further" / str(number), head)

    def _check_features(self, table: FeatureTable) -> None:
        found, expected = [spec.name for spec in table.catalogue], [spec.name for spec in self.catalogue]
        if found != expected:
            strange = sorted(set(found) ^ set(expected))
            raise ArtifactError(
                f"the decisions give other features than the model's ({', '.join(strange[:5]) or 'order'}). "
                "Read them with the model's own `inputs`."
            )


def inputs_to_json(inputs: Inputs) -> dict[str, Any]:
    """Return the inputs as JSON; a mapping of cells to levels becomes pairs: JSON would turn the cell 1 into "1"."""
    record = inputs.model_dump(mode="json")
    for source, written in zip(inputs.sources, record["sources"], strict=True):
        for raw, spec in source.columns.items():
            if isinstance(spec.levels, dict):
                written["columns"][raw]["levels"] = {"pairs": [[cell, level] for cell, level in spec.levels.items()]}
    return record


def inputs_from_json(record: Mapping[str, Any]) -> Inputs:
    """Return the inputs that `inputs_to_json` wrote."""
    sources = []
    for source in record["sources"]:
        columns = {}
        for raw, spec in source["columns"].items():
            levels = spec["levels"]
            pairs = isinstance(levels, dict)
            columns[raw] = spec | {"levels": dict(levels["pairs"]) if pairs else levels}
        sources.append(source | {"columns": columns})
    kept = {"events": record.get("events"), "decisions": record.get("decisions")}
    return Inputs.model_validate({"sources": sources} | kept)


def _checked(endpoint: Endpoint, calibrated: CalibratedModel) -> CalibratedModel:
    if kind_of(endpoint) != calibrated.calibration.kind:
        raise ValueError(f"an endpoint of kind {endpoint.kind} is not what the model answers")
    return calibrated


def _read(folder: Path, *, identity: str) -> ResponseModel:
    about, inputs, reference, evaluations, examples = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("model", "inputs", "reference", "evaluations", "examples")
    )
    endpoint = endpoint_from_json(about["endpoint"])
    return ResponseModel(
        card=about["card"],
        inputs=inputs_from_json(inputs),
        section=FeatureSection.model_validate(about["section"]),
        endpoint=endpoint,
        catalogue=tuple(FeatureSpec.from_json(one) for one in about["catalogue"]),
        calibrated=_checked(endpoint, CalibratedModel.load(folder / "estimator")),
        reference=Reference.from_json(reference),
        evaluations=evaluations,
        examples=examples,
        further=tuple(_read_head(folder / "further" / str(number)) for number in range(about.get("further", 0))),
        companions=_companions(folder),
        identity=identity,
    )


def _companions(folder: Path) -> Companions:
    """Return what stands beside the answers; nothing in a folder of a format before 3."""
    path = folder / "companions.json"
    return Companions.from_json(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else Companions()


def _write_head(folder: Path, head: Head) -> None:
    folder.mkdir(parents=True)
    for name, record in {
        "endpoint.json": head.endpoint.model_dump(mode="json"),
        "reference.json": head.reference.to_json(),
        "evaluations.json": head.evaluations,
        "companions.json": head.companions.to_json(),
    }.items():
        text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    head.calibrated.save(folder / "estimator")


def _read_head(folder: Path) -> Head:
    endpoint, reference, evaluations = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("endpoint", "reference", "evaluations")
    )
    asked = endpoint_from_json(endpoint)
    return Head(
        asked,
        _checked(asked, CalibratedModel.load(folder / "estimator")),
        Reference.from_json(reference),
        evaluations,
        _companions(folder),
    )


def _missing(table: FeatureTable) -> list[list[str]]:
    names = np.array([spec.name for spec in table.catalogue if spec.role != "indicator"], dtype=object)
    absent = table.absent(names.tolist())
    return [[str(name) for name in names[row]] for row in absent]


def _identity(digest: str) -> str:
    return f"sha256:{digest[:16]}"


def _without_paths(inputs: Inputs) -> Inputs:
    """Return the inputs with file names in place of paths: where the data lay is nobody's business but the study's."""
    sources = tuple(
        source.model_copy(update={"path": PurePath(source.path.replace("\\", "/")).name, "name": source.name})
        for source in inputs.sources
    )
    events = (
        None
        if inputs.events is None
        else inputs.events.model_copy(update={"store": PurePath(inputs.events.store).name, "engine": "duckdb"})
    )
    return inputs.model_copy(update={"sources": sources, "events": events})


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record as it will be read back: tuples as lists, keys as text; NaN is refused."""
    plain: dict[str, Any] = json.loads(json.dumps(record, allow_nan=False))
    return plain
