"""From a study to the data of a training: cohort, audit, features, target, and who develops and who judges."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from theracast_data.audit import AuditReport
from theracast_data.cohort import Cohort
from theracast_data.endpoints import Endpoint
from theracast_data.events.store import EventStore
from theracast_data.paths import resolve_path
from theracast_data.table import read_cohort
from theracast_features.build import build_features, resolve_section
from theracast_features.section import FeatureSection
from theracast_features.specs import FeatureTable
from theracast_features.wide import read_features
from theracast_models.folds import patient_numbers
from theracast_training.study import Study
from theracast_training.study_audit import audit_study
from theracast_training.target import Target, require_both_outcomes, target_of

logger = logging.getLogger(__name__)

Rows = NDArray[np.intp]


@dataclass(frozen=True)
class Prepared:
    """The data of a training.

    Attributes:
        study: the study.
        cohort: all decisions.
        audit: what the audit found.
        section: the features, with nothing left to be resolved.
        endpoint: what is predicted.
        table, target: one row per decision.
        sites: the development sites.
        learn: positions of the development decisions with a known outcome.
        external: site to the positions of its decisions with a known outcome.
        fingerprint: `sources` (name, sha256, bytes), `rows` (site to decisions), `digest`.
    """

    study: Study
    cohort: Cohort
    audit: AuditReport
    section: FeatureSection
    endpoint: Endpoint
    table: FeatureTable
    target: Target
    sites: tuple[str, ...]
    learn: Rows
    external: dict[str, Rows]
    fingerprint: dict[str, Any]

    def patients(self, rows: Rows) -> Rows:
        """Return a number per patient for these decisions, by which resampling keeps a patient's decisions together."""
        return self._patient_numbers[rows]

    @cached_property
    def _patient_numbers(self) -> Rows:
        return patient_numbers(self.table.decisions)


def prepare(study: Study, *, base: Path, cache: Path | None = None) -> Prepared:
    """Return the data of a training.

    Args:
        study: the study.
        base: folder from which relative paths of the study count.
        cache: folder for the features of events in parts, which `theracast features` shares; None: nothing is kept.

    Raises:
        TheracastError: what the readers, the features or the endpoint cannot accept.
    """
    cohort = read_cohort(study.inputs, study.endpoints, base=base)
    sites = study.development_sites(cohort.sites)
    section = resolve_section(study.features, cohort.at(sites))
    table = _features(cohort, section, cache=cache)
    nobody = np.array([], dtype=np.intp)
    prepared = Prepared(
        study=study,
        cohort=cohort,
        audit=audit_study(study, cohort, table=table),
        section=section,
        endpoint=study.endpoint,
        table=table,
        target=target_of(cohort, study.endpoint),
        sites=tuple(sites),
        learn=nobody,
        external={},
        fingerprint=data_fingerprint(study, cohort, base=base),
    )
    logger.info("%d decisions", len(cohort))
    return prepare_endpoint(prepared, study.endpoint)


def prepare_endpoint(prepared: Prepared, endpoint: Endpoint) -> Prepared:
    """Return the same data for another endpoint of the study: who develops and who judges follows from who is known.

    Raises:
        CohortError: too little is known of the endpoint.
    """
    cohort, sites = prepared.cohort, prepared.sites
    site = cohort.decisions["site"].to_numpy()
    develops = np.isin(site, sites)
    target = target_of(cohort, endpoint, develop=np.flatnonzero(develops))
    known = np.zeros(len(cohort), dtype=bool)
    known[target.known] = True
    learn = np.flatnonzero(develops & known)
    require_both_outcomes(target.take(learn), where=f"{endpoint.name}, development ({', '.join(sites)})")
    patients = patient_numbers(cohort.decisions)
    unseen = known & ~np.isin(patients, patients[learn])  # who was at a development site too judges nothing
    external = {name: np.flatnonzero((site == name) & unseen) for name in prepared.study.validation.external}
    return replace(
        prepared,
        endpoint=endpoint,
        target=target,
        learn=learn,
        external={name: rows for name, rows in external.items() if len(rows)},
    )


def _features(cohort: Cohort, section: FeatureSection, *, cache: Path | None) -> FeatureTable:
    """Return the features; those of events by shards, of which the cache has what was computed before."""
    if cohort.events is None or cache is None:
        return build_features(cohort, section)
    return read_features(cohort, section, cache=cache)


def data_fingerprint(study: Study, cohort: Cohort, *, base: Path) -> dict[str, Any]:
    """Return hashes and row counts by which the same data are known again; no patient's data."""
    sources: list[dict[str, Any]] = []
    for source in study.sources:
        path = resolve_path(source.path, base=base)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        sources.append({"name": source.name or path.stem, "sha256": digest, "bytes": path.stat().st_size})
    if study.events is not None:
        store = EventStore.open(resolve_path(study.events.store, base=base))
        hashes = "".join(store.shard_hash(shard) for shard in range(store.shard_count))
        rows = int(store.manifest["rows"])
        sources.append({"name": "events", "sha256": hashlib.sha256(hashes.encode()).hexdigest(), "rows": rows})
    counts = cohort.decisions["site"].value_counts(sort=False)
    content: dict[str, Any] = {"sources": sources, "rows": {str(site): int(count) for site, count in counts.items()}}
    text = json.dumps(content, sort_keys=True)
    return content | {"digest": hashlib.sha256(text.encode()).hexdigest()}


def search_key(prepared: Prepared) -> str:
    """Return the name under which searches of the same question on the same data are gone on with.

    What does not change a trial (their number, the families, reports, gates) does not change it.
    """
    study = prepared.study
    content = {
        "data": prepared.fingerprint["digest"],
        "inputs": study.inputs.model_dump(mode="json"),
        "endpoint": prepared.endpoint.model_dump(mode="json"),
        "features": prepared.section.model_dump(mode="json"),
        "validation": study.validation.model_dump(mode="json"),
        "seed": study.search.seed,
    }
    return f"{study.study}-{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]}"
