"""init, schema, check, features, fetch."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

from theracast.output import print_json, require_free, tell, write_text


def init(options: argparse.Namespace) -> int:
    """Draft a study file from a table."""
    from theracast_data.scaffold import draft_study

    path = options.out or Path(f"{options.name}.yaml")
    require_free(path, overwrite=options.overwrite)
    write_text(path, draft_study(options.name, options.table, base=path.parent), overwrite=options.overwrite)
    tell(f"wrote {path}. Read it, correct it, then: theracast check {path}")
    return 0


def schema(options: argparse.Namespace) -> int:
    """Print the JSON schema of a study file."""
    from theracast_training.study import Study

    text = json.dumps(Study.model_json_schema(), indent=1, ensure_ascii=False)
    if options.out:
        write_text(options.out, text + "\n", overwrite=options.overwrite)
    else:
        print(text)
    return 0


def check(options: argparse.Namespace) -> int:
    """Audit a study's data; exit 1 on open errors."""
    from theracast_data.audit.page import audit_page
    from theracast_data.table import read_cohort
    from theracast_training.study import read_study
    from theracast_training.study_audit import audit_study

    study = read_study(options.study, overrides=options.overrides)
    if options.html:
        require_free(options.html, overwrite=options.overwrite)
    report = audit_study(study, read_cohort(study.inputs, study.endpoints, base=options.study.parent, strict=False))
    if options.html:
        write_text(options.html, audit_page(report, title=study.study), overwrite=options.overwrite)
    if options.json:
        print_json(report.to_json())
    else:
        print(report.to_text())
    return 1 if report.open_errors else 0


def features(options: argparse.Namespace) -> int:
    """Write the feature table of a study, and its catalogue beside it."""
    from theracast.progress import TrialProgress
    from theracast_data.home import feature_cache
    from theracast_data.table import read_cohort
    from theracast_features.build import resolve_section
    from theracast_features.parts import remove_unused
    from theracast_features.wide import write_features
    from theracast_training.study import read_study

    require_free(options.out, overwrite=options.overwrite)
    study = read_study(options.study, overrides=options.overrides)
    cohort = read_cohort(study.inputs, study.endpoints, base=options.study.parent)
    section = resolve_section(study.features, cohort.at(study.development_sites(cohort.sites)))
    cache = None if options.no_cache else options.cache or feature_cache()
    with TrialProgress(task="features", unit="parts") as follow:
        report = write_features(cohort, section, path=options.out, cache=cache, progress=follow.count)
    if cache is not None:
        remove_unused(cache, now=datetime.now(UTC).timestamp())
    if options.json:
        print_json(report.to_json())
    tell(
        f"wrote {options.out}: {report.rows} decisions x {report.columns} features, and its catalogue beside it; "
        f"{report.built} parts built, {report.reused} as they were"
    )
    return 0


def explain(options: argparse.Namespace) -> int:
    """Print how a feature came about, and from which rows for one patient."""
    from theracast_data.table import read_cohort
    from theracast_features.build import resolve_section
    from theracast_features.lineage import feature_lineage
    from theracast_training.study import read_study

    study = read_study(options.study)
    cohort = read_cohort(study.inputs, study.endpoints, base=options.study.parent)
    section = resolve_section(study.features, cohort.at(study.development_sites(cohort.sites)))
    print(feature_lineage(options.name, cohort, section, study.inputs, patient=options.patient).to_text())
    return 0


def ingest(options: argparse.Namespace) -> int:
    """Read sources of dated facts into an event store; print what was not understood."""
    from theracast_data.events.ingest import ingest as ingest_sources
    from theracast_data.events.ingest import read_spec
    from theracast_data.events.store import EventStore

    spec = read_spec(options.source)
    known = (options.to / "manifest.json").exists()
    store = EventStore.open(options.to) if known else EventStore.create(options.to, shards=options.shards)
    reports = ingest_sources(spec, base=options.source.resolve().parent, store=store, now=datetime.now(UTC))
    if options.json:
        print_json({"store": str(options.to), "sources": [report.to_json() for report in reports]})
    else:
        print("\n".join(report.to_text() for report in reports))
    tell(f"{options.to}: {store.manifest['rows']} events in {store.shard_count} shards")
    return 0


def fetch(options: argparse.Namespace) -> int:
    """Download a public cohort."""
    from theracast_data.fetch import fetch as fetch_cohort

    path = fetch_cohort(options.name, to=options.to, overwrite=options.overwrite)
    print(path)
    return 0
