"""Evidence for the gates: what is known of a version, and its probabilities for the patients it was judged on.

The probabilities stay in the state folder of the machine that trained the version, beside the tuning journals: they are
patient data and do not go to MLflow. Patients are known again by a hash of site and identifier.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from theracast_data.errors import RegistryError
from theracast_data.home import home
from theracast_models.response_model import ResponseModel
from theracast_training.comparisons import Judged
from theracast_training.gates import Evidence, GateReport, evaluate_gates, merge_policy, read_policy
from theracast_training.prepare import Prepared
from theracast_training.registry import Version
from theracast_training.study import GateSection


def store_predictions(run_id: str, own: Mapping[str, Judged], prepared: Prepared) -> Path:
    """Write the probabilities by which a version was judged, and return the file.

    Columns: `patient` and `decision` (hashes of site and identifier, and index time), `place` (site, or `cv` for nested
    cross-validation), `y`, `weight`, `p`.
    """
    parts = []
    for place, judged in own.items():
        decisions = prepared.cohort.decisions.iloc[judged.rows]
        target = prepared.target.take(judged.rows)
        parts.append(
            pd.DataFrame(
                {
                    "patient": _keys(decisions, ["site", "subject_id"]),
                    "decision": _keys(decisions, ["site", "subject_id", "index_time"]),
                    "place": place,
                    "y": target.told,
                    "weight": target.weight(),
                    "p": judged.probability,
                }
            )
        )
    path = _predictions_path(run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    pd.concat(parts, ignore_index=True).to_parquet(partial, index=False)
    partial.replace(path)
    return path


def _keys(decisions: pd.DataFrame, columns: list[str]) -> list[str]:
    texts = decisions[columns].astype("str").fillna("").agg("\x1f".join, axis=1)
    return [hashlib.sha256(text.encode()).hexdigest()[:24] for text in texts]


def _predictions_path(run_id: str) -> Path:
    return home() / "predictions" / f"{run_id}.parquet"


def gate_report(
    version: Version,
    model: ResponseModel,
    *,
    champion: Version | None,
    verified: bool,
    verify_reason: str,
    policy_file: Path | None = None,
) -> GateReport:
    """Return what the default gates and the study's say about a version against the present champion."""
    policy = merge_policy(read_policy(policy_file), GateSection.model_validate(model.card["gates"]))
    own = Evidence(
        version.uri,
        model.evaluations,
        open_audit_errors=tuple(model.card["audit"]["open_errors"]),
        verified=verified,
        verify_reason=verify_reason,
    )
    if champion is None or champion.uri == version.uri:
        return evaluate_gates(policy, evidence=own, champion=None)
    shared = same_decisions(version, champion)
    if shared is None:
        return evaluate_gates(policy, evidence=own, champion=Evidence(champion.uri, {}))
    words = f"the same {len(shared)} decisions ({', '.join(dict.fromkeys(shared['place']))})"
    y = shared["y"].to_numpy(dtype=float)
    own = replace(
        own,
        patients=words,
        y=y,
        p=shared["p"].to_numpy(dtype=float),
        weight=shared["weight"].to_numpy(dtype=float),
        group=shared["patient"].to_numpy(dtype=object),
    )
    theirs = Evidence(champion.uri, {}, y=y, p=shared["p_champion"].to_numpy(dtype=float))
    return evaluate_gates(policy, evidence=own, champion=theirs)


def same_decisions(version: Version, champion: Version) -> pd.DataFrame | None:
    """Return `place`, `y`, `p`, `p_champion` of the patients on whom both were judged, neither having learned from them.

    External sites where there are any; else the nested cross-validation.
    """
    own, theirs = _read_predictions(version), _read_predictions(champion)
    if own is None or theirs is None:
        return None
    both = own.merge(theirs, on=["decision", "place"], suffixes=("", "_champion"))
    outside = both[both["place"] != "cv"]
    both = (outside if len(outside) else both).reset_index(drop=True)
    both = both[both[["y", "p", "p_champion"]].notna().all(axis=1)]
    if not len(both):
        return None
    changed = int((both["y"] != both["y_champion"]).sum())
    if changed:
        raise RegistryError(
            f"{changed} of {len(both)} decisions have another outcome now than when {champion.uri} was trained. "
            "Train the champion's study again on the present data, then compare."
        )
    return both


def _read_predictions(version: Version) -> pd.DataFrame | None:
    path = _predictions_path(version.run_id or "unknown")
    return pd.read_parquet(path) if path.is_file() else None
