"""Gates: what a version must show before it may become champion. Pure functions over evidence that others gathered."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field, ValidationError, field_validator

from theracast_data.errors import StudyError
from theracast_data.section import Section, describe_faults
from theracast_training.continuous_evaluation import compare_continuous
from theracast_training.evaluation import compare_paired
from theracast_training.study import GateSection

DEFAULT_FILE = Path("mlflow/gates.yaml")

Floats = NDArray[np.float64]
Range = tuple[float, float]


class GatePolicy(Section):
    """The promotion policy; these defaults and mlflow/gates.yaml say the same (a test holds them together)."""

    auc_lower: float = Field(
        0.60, ge=0, le=1, description="Least lower 95 % bound of the AUC over the external sites (else of nested CV)."
    )
    r2_lower: float | None = Field(
        None, le=1, description="Least lower 95 % bound of R2, where the endpoint is a number and has no AUC."
    )
    calibration_slope: Range = Field((0.7, 1.4), description="Allowed calibration slope over the external sites.")
    calibration_intercept: Range = Field(
        (-0.5, 0.5), description="Allowed calibration intercept (log-odds) over the external sites."
    )
    minimum_n: int = Field(100, ge=1, description="Least number of decisions behind the evaluation.")
    minimum_events: int = Field(
        30, ge=1, description="Least number of decisions of the rarer outcome behind the evaluation."
    )
    beats: Literal["champion", "none"] = Field(
        "champion", description="`champion`: not worse than the present champion on the same patients."
    )
    margin: float = Field(
        0.02, ge=0, le=0.2, description="Loss of AUC against the champion that the data must rule out."
    )
    audit: bool = Field(True, description="No audit error may be open.")
    verify: bool = Field(True, description="`theracast verify` must have passed.")
    bootstrap: int = Field(2000, ge=100, description="Resamples of the paired comparison.")
    seed: int = Field(7, ge=0, description="Seed of the resampling.")

    @field_validator("calibration_slope", "calibration_intercept")
    @classmethod
    def _check_range(cls, allowed: Range) -> Range:
        if not allowed[0] < allowed[1]:
            raise ValueError("write a range from low to high, such as [0.7, 1.4]")
        return allowed


@dataclass(frozen=True)
class Evidence:
    """What is known of one version.

    Attributes:
        model: the version as `models:/NAME/NUMBER`.
        evaluations: the artefact's own, `{"cv": {...}, "external": {site: {...}}}`.
        open_audit_errors: check names of audit errors that nobody accepted; None when no audit is on record.
        verified: whether `theracast verify` passed; None when it was not run.
        verify_reason: what `verify` said when it failed, or why it did not run.
        patients: in words, on whom `y` and `p` stand, e.g. "1201 patients of Chowell_test, MSK1".
        y, p: outcome 0/1 and probability, (n,), row by row the same patients in challenger and champion; neither model
            may have been trained on them.
        weight: (n,) of a time-to-event outcome with early censoring; None counts every row once.
        group: (n,) patients, where a patient has several rows.
    """

    model: str
    evaluations: Mapping[str, Any]
    open_audit_errors: tuple[str, ...] | None = None
    verified: bool | None = None
    verify_reason: str | None = None
    patients: str | None = None
    y: Floats | None = None
    p: Floats | None = None
    weight: Floats | None = None
    group: NDArray[Any] | None = None


@dataclass(frozen=True)
class GateRow:
    """One gate: what it asks, what was found."""

    gate: str
    required: str
    found: str
    passed: bool
    reason: str


@dataclass(frozen=True)
class GateReport:
    """Every gate's answer about one version."""

    model: str
    champion: str | None
    rows: tuple[GateRow, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(row.passed for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON."""
        return {
            "model": self.model,
            "champion": self.champion,
            "passed": self.passed,
            "rows": [asdict(row) for row in self.rows],
        }

    def to_text(self) -> str:
        """Return the report as a table to read."""
        head = [("", "gate", "required", "found")]
        cells = head + [("ok" if row.passed else "NO", row.gate, row.required, row.found) for row in self.rows]
        widths = [max(len(line[column]) for line in cells) for column in range(4)]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells
        ]
        for position, row in reversed(list(enumerate(self.rows, start=1))):
            if row.reason:
                lines.insert(position + 1, f"      {row.reason}")
        return "\n".join(lines)


def read_policy(path: Path | None = None) -> GatePolicy:
    """Return the policy of a YAML file: the one named, else `mlflow/gates.yaml` under the working directory, else the
    built-in defaults."""
    if path is None:
        if not DEFAULT_FILE.is_file():
            return GatePolicy()
        path = DEFAULT_FILE
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StudyError(
            f"{path}: there is no such file. Name a YAML file of gates, like mlflow/gates.yaml."
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StudyError(f"{path}: cannot be read as YAML. {error}") from error
    if content is not None and not isinstance(content, dict):
        raise StudyError(f"{path}: a gates file is a list of `gate: value` lines, like mlflow/gates.yaml.")
    try:
        return GatePolicy.model_validate(content or {})
    except ValidationError as error:
        raise StudyError(f"{path}: these gates cannot be used:\n{describe_faults(error, GatePolicy)}") from error


def merge_policy(policy: GatePolicy, gates: GateSection) -> GatePolicy:
    """Return the policy with what the study's own `gates` section says in place of its defaults."""
    try:
        return GatePolicy.model_validate(policy.model_dump() | gates.model_dump(exclude_none=True))
    except ValidationError as error:
        raise StudyError(f"the study's gates cannot be used:\n{describe_faults(error, GatePolicy)}") from error


def evaluate_gates(policy: GatePolicy, *, evidence: Evidence, champion: Evidence | None) -> GateReport:
    """Return what every gate says about `evidence`; `champion` is None when there is none yet."""
    if champion is not None and champion.model == evidence.model:
        champion = None
    basis = _basis(evidence.evaluations)
    rows = [
        *_size_gates(policy, basis),
        _r2_gate(policy, basis) if basis.of_numbers and policy.r2_lower is not None else _auc_gate(policy, basis),
        _range_gate("calibration_slope", policy.calibration_slope, basis),
        *(() if basis.of_numbers else (_range_gate("calibration_intercept", policy.calibration_intercept, basis),)),
        *(_beats_gate(policy, evidence, champion) if policy.beats == "champion" else ()),
        *(_audit_gate(evidence) if policy.audit else ()),
        *(_verify_gate(evidence) if policy.verify else ()),
    ]
    return GateReport(evidence.model, champion.model if champion else None, tuple(rows))


@dataclass(frozen=True)
class _Basis:
    """The evaluations that judge: every external site, or nested cross-validation when there is none."""

    words: str
    parts: Mapping[str, Mapping[str, Any]]

    @property
    def of_numbers(self) -> bool:
        """Whether the endpoint is a number. Times to an event are judged by their leading horizon, as a yes or no is."""
        return any("r2" in part for part in self.parts.values())


def _basis(evaluations: Mapping[str, Any]) -> _Basis:
    external = {site: found for site, found in (evaluations.get("external") or {}).items() if found}
    if external:
        return _Basis(f"external: {', '.join(external)}", external)
    nested = evaluations.get("cv") or {}
    if nested:
        return _Basis("nested cross-validation, no external site", {"cv": nested})
    return _Basis("no evaluation is on record", {})


def pooled(parts: Mapping[str, Mapping[str, Any]], metric: str) -> tuple[float, float, float] | None:
    """Return (value, low, high) of a metric over the sites, or None when no site could estimate it.

    Sites are weighted by the inverse of their variance, read off their 95 % intervals; the AUC is pooled on the logit
    scale. Sites are compared within themselves only, so a difference in prevalence between them does not pass for
    discrimination. One site: its own figures, unchanged.

    Source: Debray et al., BMJ 2017;356:i6460 (summarising the logit AUC over validation studies).
    """
    onward, back = (_logit, _expit) if metric == "auc" else (_same, _same)
    found = [bounds for part in parts.values() if (bounds := _bounds(part, metric)) is not None]
    if not found:
        return None
    if len(found) == 1:
        return found[0]
    scale = np.array([[onward(value) for value in bounds] for bounds in found])
    error = np.maximum((scale[:, 2] - scale[:, 1]) / (2 * 1.959964), 1e-6)
    weight = 1 / error**2
    centre = float(np.sum(weight * scale[:, 0]) / np.sum(weight))
    half = 1.959964 / math.sqrt(float(np.sum(weight)))
    return back(centre), back(centre - half), back(centre + half)


def _bounds(part: Mapping[str, Any], metric: str) -> tuple[float, float, float] | None:
    values = [part.get(metric), part.get(f"{metric}_low"), part.get(f"{metric}_high")]
    if any(value is None or not math.isfinite(value) for value in values):
        return None
    return float(values[0]), float(values[1]), float(values[2])  # type: ignore[arg-type]


def _size_gates(policy: GatePolicy, basis: _Basis) -> Iterator[GateRow]:
    n = sum(int(part.get("n") or 0) for part in basis.parts.values())
    events = sum(int(part.get("events") or 0) for part in basis.parts.values())
    rarer = min(events, n - events)
    enough = n >= policy.minimum_n
    yield GateRow(
        "minimum_n",
        f">= {policy.minimum_n}",
        str(n),
        enough,
        basis.words if enough else f"too few decisions ({basis.words}); evaluate on more patients.",
    )
    if basis.of_numbers:
        yield GateRow(
            "minimum_events",
            f">= {policy.minimum_events}",
            "no events",
            True,
            "the endpoint is a number: minimum_n counts.",
        )
        return
    enough = rarer >= policy.minimum_events
    yield GateRow(
        "minimum_events",
        f">= {policy.minimum_events}",
        str(rarer),
        enough,
        "" if enough else "too few decisions of the rarer outcome to judge by; evaluate on more patients.",
    )


def _auc_gate(policy: GatePolicy, basis: _Basis) -> GateRow:
    required = f"lower bound >= {policy.auc_lower:g}"
    if basis.of_numbers:
        return GateRow(
            "auc_lower",
            required,
            "not estimable",
            False,
            "the endpoint is a number and has no AUC: ask for r2_lower instead.",
        )
    found = pooled(basis.parts, "auc")
    if found is None:
        return GateRow("auc_lower", required, "not estimable", False, _not_estimable(basis))
    value, low, high = found
    passed = low >= policy.auc_lower
    reason = _left_out(basis, "auc")
    if not passed:
        worst = _extreme(basis, "auc", lambda one: one)
        reason = f"discrimination may be weaker than asked{worst}.{reason and ' ' + reason}"
    return GateRow("auc_lower", required, f"{value:.3f} ({low:.3f} to {high:.3f})", passed, reason)


def _r2_gate(policy: GatePolicy, basis: _Basis) -> GateRow:
    required = f"lower bound >= {policy.r2_lower:g}"
    found = pooled(basis.parts, "r2")
    if found is None:
        return GateRow("r2_lower", required, "not estimable", False, _not_estimable(basis))
    value, low, high = found
    passed = policy.r2_lower is not None and low >= policy.r2_lower
    reason = _left_out(basis, "r2")
    if not passed:
        worst = _extreme(basis, "r2", lambda one: one)
        reason = f"estimates may be less accurate than asked{worst}.{reason and ' ' + reason}"
    return GateRow("r2_lower", required, f"{value:.3f} ({low:.3f} to {high:.3f})", passed, reason)


def _range_gate(metric: str, allowed: Range, basis: _Basis) -> GateRow:
    required = f"{allowed[0]:g} to {allowed[1]:g}"
    found = pooled(basis.parts, metric)
    if found is None:
        return GateRow(metric, required, "not estimable", False, _not_estimable(basis))
    value, low, high = found
    passed = allowed[0] <= value <= allowed[1]
    reason = _left_out(basis, metric)
    if not passed:
        middle = (allowed[0] + allowed[1]) / 2
        worst = _extreme(basis, metric, lambda one: -abs(one - middle))
        reason = f"{_meaning(metric, value, allowed)}{worst}.{reason and ' ' + reason}"
    return GateRow(metric, required, f"{value:.2f} ({low:.2f} to {high:.2f})", passed, reason)


def _meaning(metric: str, value: float, allowed: Range) -> str:
    if metric == "calibration_slope":
        return "predictions are too extreme" if value < allowed[0] else "predictions are too timid"
    return "predictions are too high" if value < allowed[0] else "predictions are too low"


def _beats_gate(policy: GatePolicy, evidence: Evidence, champion: Evidence | None) -> Iterator[GateRow]:
    """Yield the comparison with the champion: the data must rule out a loss of more than the margin.

    "Better" in the plain sense would promote by luck (on a few patients half of all equal models are ahead) and a
    significant gain would stop every renewal of an equally good model; non-inferiority asks for evidence in proportion.
    The Brier score must not be clearly worse either: the same order of patients with wrong probabilities is no equal.
    """
    number = "r2" in (next(iter(_basis(evidence.evaluations).parts.values()), {}))
    required = f"loses less than {policy.margin:g} {'R2' if number else 'AUC'}"
    if champion is None:
        yield GateRow("beats", required, "no champion yet", True, "")
        return
    if evidence.y is None or evidence.p is None or champion.y is None or champion.p is None:
        yield GateRow(
            "beats",
            required,
            "not compared",
            False,
            "no patients are on record here on whom both were judged. Probabilities stay on the machine that trained "
            "(THERACAST_HOME/predictions): move the alias there, or train both versions here.",
        )
        return
    if evidence.p.shape != champion.p.shape or not np.array_equal(evidence.y, champion.y):
        raise ValueError("the evidence of challenger and champion is not on the same patients in the same order")
    compare = _compare_numbers if number else _compare_probabilities
    difference, low, high, error, error_low = compare(policy, evidence, champion)
    if difference is None or low is None or high is None:
        yield GateRow("beats", required, "not estimable", False, "the known outcomes of these patients do not differ.")
        return
    sharper = error_low is None or error_low <= 0
    passed = low > -policy.margin and sharper
    on = f"on {evidence.patients}" if evidence.patients else f"on the same {len(evidence.y)} patients"
    reason = f"against {champion.model} {on}"
    if not passed:
        worse = "is worse" if high < 0 else "may be worse by more than that"
        if low > -policy.margin:
            worse = f"has a worse {'RMSE' if number else 'Brier score'} (by {error:+.4f})"
        reason = f"{worse}, {reason}."
    yield GateRow("beats", required, f"{difference:+.3f} ({low:+.3f} to {high:+.3f})", passed, reason)


Compared = tuple[float | None, float | None, float | None, float | None, float | None]
"""Difference of the leading figure with its bounds, difference of the error, and its lower bound."""


def _compare_probabilities(policy: GatePolicy, evidence: Evidence, champion: Evidence) -> Compared:
    assert evidence.y is not None
    assert evidence.p is not None
    assert champion.p is not None
    again: dict[str, Any] = {"weight": evidence.weight, "group": evidence.group}
    found = compare_paired(evidence.y, evidence.p, champion.p, bootstrap=policy.bootstrap, seed=policy.seed, **again)
    return (
        found["auc_difference"],
        found["low"],
        found["high"],
        found["brier_difference"],
        found["brier_low"],
    )


def _compare_numbers(policy: GatePolicy, evidence: Evidence, champion: Evidence) -> Compared:
    assert evidence.y is not None
    assert evidence.p is not None
    assert champion.p is not None
    again: dict[str, Any] = {"weight": evidence.weight, "group": evidence.group}
    found = compare_continuous(
        evidence.y, evidence.p, champion.p, bootstrap=policy.bootstrap, seed=policy.seed, **again
    )
    return (
        found["r2_difference"],
        found["r2_difference_low"],
        found["r2_difference_high"],
        found["rmse_difference"],
        found["rmse_difference_low"],
    )


def _audit_gate(evidence: Evidence) -> Iterator[GateRow]:
    found = evidence.open_audit_errors
    if found is None:
        yield GateRow("audit", "no open error", "not run", False, "no audit is on record; run `theracast check STUDY`.")
        return
    shown = "none open" if not found else f"{len(found)} open: {', '.join(sorted(set(found)))}"
    reason = "" if not found else "mend the data, or accept each in the study with a reason, and train again."
    yield GateRow("audit", "no open error", shown, not found, reason)


def _verify_gate(evidence: Evidence) -> Iterator[GateRow]:
    shown = {True: "passed", False: "failed", None: "not run"}[evidence.verified]
    reason = "" if evidence.verified else (evidence.verify_reason or f"run `theracast verify {evidence.model}`.")
    yield GateRow("verify", "passed", shown, evidence.verified is True, reason)


def _not_estimable(basis: _Basis) -> str:
    return basis.words if not basis.parts else f"no site could estimate it ({basis.words})."


def _left_out(basis: _Basis, metric: str) -> str:
    without = [site for site, part in basis.parts.items() if _bounds(part, metric) is None]
    return f"not estimable at {', '.join(without)}, left out." if without else ""


def _extreme(basis: _Basis, metric: str, order: Callable[[float], float]) -> str:
    values = {site: bounds[0] for site, part in basis.parts.items() if (bounds := _bounds(part, metric)) is not None}
    if len(values) < 2:
        return ""
    site = min(values, key=lambda one: order(values[one]))
    return f" (furthest at {site}: {values[site]:.2f})"


def _logit(value: float) -> float:
    kept = min(max(value, 1e-6), 1 - 1e-6)
    return math.log(kept / (1 - kept))


def _expit(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def _same(value: float) -> float:
    return value
