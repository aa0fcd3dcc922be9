"""models list, show, alias, rollback; ui."""

from __future__ import annotations

import argparse
import getpass
import os
import subprocess
import sys
from datetime import UTC, datetime

from theracast.output import print_json, tell
from theracast_data.errors import RegistryError
from theracast_data.home import artifact_root, home, tracking_uri


def list_models(options: argparse.Namespace) -> int:
    """Print every model, where its aliases stand, and every move there was."""
    from theracast_training import registry

    models = registry.list_models()
    if options.json:
        print_json({"models": [model.to_json() for model in models]})
        return 0
    if not models:
        print("The registry is empty. `theracast train STUDY` registers a model.")
    for model in models:
        print(model.name)
        for version in model.versions:
            marks = f"  [{', '.join(version.aliases)}]" if version.aliases else ""
            print(f"  version {version.version}  {version.created}{marks}")
        for move in model.moves:
            print(f"  {move.to_text().strip()}")
        for text in model.drift:
            print(f"  ! {text}")
    return 0


def show(options: argparse.Namespace) -> int:
    """Print what one version is and how it performs."""
    from theracast_serving.describe import describe_head
    from theracast_serving.load import load_model
    from theracast_training import registry
    from theracast_training.external import evaluation_text

    version = registry.show(options.model)
    model = load_model(version.uri)
    moves = [move for move in registry.history(version.name) if version.version in (move.from_version, move.to_version)]
    if options.json:
        content = version.to_json() | {"card": model.card, "evaluations": model.evaluations}
        content |= {"endpoints": [describe_head(head) for head in model.heads]}
        print_json(content | {"moves": [move.to_json() for move in moves]})
        return 0
    print(f"{version.uri}  {version.created}  [{', '.join(version.aliases) or 'no alias'}]  identity {model.identity}")
    for head in model.heads:
        if len(model.heads) > 1:
            asked = ", ".join(asking.name for asking in head.asked)
            print(f"\n{head.endpoint.name}: {head.label} ({asked})" if asked != head.label else f"\n{head.label}")
        sites = {"nested cross-validation": head.evaluations.get("cv"), **head.evaluations.get("external", {})}
        for site, figures in sites.items():
            if figures:
                print(f"\n{site}\n{evaluation_text(figures)}")
    for move in moves:
        print(move.to_text())
    return 0


def alias(options: argparse.Namespace) -> int:
    """Move an alias; `champion` is held to the gates first."""
    from theracast_training import registry

    report = None
    if options.alias == registry.CHAMPION:
        report = _gate_report(options)
    move = registry.set_alias(
        options.name,
        options.version,
        options.alias,
        actor=options.by or getpass.getuser(),
        now=datetime.now(UTC),
        gate_report=report,
        override=options.override,
        why=options.reason or None,
    )
    if options.json:
        print_json(move.to_json())
    else:
        print(report.to_text() if report else "")
        print(move.to_text())
    return 0


def _gate_report(options: argparse.Namespace):  # type: ignore[no-untyped-def]
    """Return what the gates say about the version, against the present champion."""
    from theracast_serving.load import load_model
    from theracast_serving.verify import verify
    from theracast_training import promotion, registry

    version = registry.show(f"models:/{options.name}/{options.version}")
    champion = next(
        (model.aliases.get(registry.CHAMPION) for model in registry.list_models() if model.name == options.name), None
    )
    outcome = verify(version.uri)
    return promotion.gate_report(
        version,
        load_model(version.uri),
        champion=None if champion is None else registry.show(f"models:/{options.name}/{champion}"),
        verified=outcome.passed,
        verify_reason="" if outcome.passed else outcome.to_text(),
        policy_file=options.gates,
    )


def rollback(options: argparse.Namespace) -> int:
    """Undo the last move of an alias."""
    from theracast_training import registry

    move = registry.rollback(
        options.name,
        actor=options.by or getpass.getuser(),
        now=datetime.now(UTC),
        alias=options.alias,
        why=options.reason or None,
    )
    if options.json:
        print_json(move.to_json())
    else:
        print(move.to_text())
    return 0


def ui(options: argparse.Namespace) -> int:
    """Open MLflow's own pages on the embedded store."""
    uri = tracking_uri()
    if not uri.startswith("sqlite:"):
        tell(f"MLFLOW_TRACKING_URI is set; open {uri} in a browser.")
        return 0
    if not (home() / "mlflow.db").exists():
        raise RegistryError(f"{home()}: no run is recorded here yet. `theracast train STUDY` records one.")
    tell(f"MLflow on http://127.0.0.1:{options.port} (Ctrl-C ends it)")
    settings = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = ["server", "--backend-store-uri", uri, "--default-artifact-root", artifact_root().as_uri()]
    arguments = [
        sys.executable,
        "-m",
        "mlflow",
        *command,
        "--workers",
        "1",
        "--host",
        "127.0.0.1",
        "--port",
        str(options.port),
    ]
    return subprocess.run(arguments, env=settings, check=False).returncode
