"""How stable a feature is under small changes of image and region: the intraclass correlation coefficient (ICC)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from theracast_features.imaging.perturb import Mask, Perturbation, Spacing, perturb

IccKind = Literal["ICC(2,1)", "ICC(3,1)"]
Measure = Callable[[NDArray[np.float64], Mask, Spacing], dict[str, float]]
Case = tuple[str, NDArray[np.floating], Mask, Spacing]


@dataclass(frozen=True)
class Icc:
    """An intraclass correlation coefficient with its interval; NaN where nothing varies, or the interval has no ends.

    Attributes:
        value, low, high: estimate and ends of the interval.
        kind: ICC(2,1) for agreement in the value itself, ICC(3,1) for consistency but for a shift that all share.
        subjects, raters: n and k.
        confidence: of the interval.
    """

    value: float
    low: float
    high: float
    kind: IccKind
    subjects: int
    raters: int
    confidence: float


def intraclass_correlation(ratings: ArrayLike, *, kind: IccKind = "ICC(2,1)", confidence: float = 0.95) -> Icc:
    """Return the ICC of single ratings, two-way model.

    Args:
        ratings: (n_subjects, n_raters), no missing values, at least two of each.

    Raises:
        ValueError: fewer than two subjects or raters, or a value that is no number.

    Source: Shrout PE, Fleiss JL. Psychol Bull 1979;86:420-428; McGraw KO, Wong SP. Psychol Methods 1996;1:30-46 (intervals).
    """
    table = np.asarray(ratings, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2 or not np.isfinite(table).all():
        raise ValueError(
            f"ratings: (n_subjects, n_raters) numbers, at least two of each (found the shape {table.shape}). "
            "Leave out subjects with a missing rating."
        )
    n, k = table.shape
    between, across, rest = _mean_squares(table)
    if between == 0 and rest == 0:
        return Icc(np.nan, np.nan, np.nan, kind, n, k, confidence)
    tail = 1.0 - (1.0 - confidence) / 2.0
    if kind == "ICC(3,1)":
        value = (between - rest) / (between + (k - 1) * rest)
        if rest == 0:
            return Icc(1.0, 1.0, 1.0, kind, n, k, confidence)
        ratio = between / rest
        low = ratio / stats.f.ppf(tail, n - 1, (n - 1) * (k - 1))
        high = ratio * stats.f.ppf(tail, (n - 1) * (k - 1), n - 1)
        ends = [float((end - 1) / (end + k - 1)) for end in (low, high)]
        return Icc(value, ends[0], ends[1], kind, n, k, confidence)
    value = (between - rest) / (between + (k - 1) * rest + k * (across - rest) / n)
    if rest == 0 and across == 0:
        return Icc(1.0, 1.0, 1.0, kind, n, k, confidence)
    # Satterthwaite's degrees of freedom, from the mean squares so that no error left (rest 0) is no division by 0.
    a, b = k * value / (n * (1 - value)), 1 + k * value * (n - 1) / (n * (1 - value))
    freedom = (a * across + b * rest) ** 2 / ((a * across) ** 2 / (k - 1) + (b * rest) ** 2 / ((n - 1) * (k - 1)))
    upper = stats.f.ppf(tail, n - 1, freedom)
    lower = stats.f.ppf(tail, freedom, n - 1)
    error = k * across + (k * n - k - n) * rest
    low = n * (between - upper * rest) / (upper * error + n * between)
    high = n * (lower * between - rest) / (error + n * lower * between)
    if not low <= value <= high:  # with a fraction of a degree of freedom both ends run to one limit: no interval
        return Icc(value, np.nan, np.nan, kind, n, k, confidence)
    return Icc(value, float(low), float(high), kind, n, k, confidence)


@dataclass(frozen=True)
class FeatureStability:
    """Stability of one feature over patients and perturbations, as a catalogue stores it.

    Attributes:
        feature: name.
        icc, low, high, kind, confidence: as `Icc`.
        patients: with a value under every perturbation; left_out: the others.
        perturbations: names.
        grade: by the lower end: poor below 0.5, moderate below 0.75, good below 0.9, else excellent (Koo TK, Li MY. J
            Chiropr Med 2016;15:155-163); `unknown` where there is no ICC.
    """

    feature: str
    icc: float
    low: float
    high: float
    kind: IccKind
    confidence: float
    patients: int
    left_out: int
    perturbations: tuple[str, ...]

    @property
    def grade(self) -> Literal["poor", "moderate", "good", "excellent", "unknown"]:
        """How stable the feature is at least."""
        if np.isnan(self.low):
            return "unknown"
        if self.low < 0.5:
            return "poor"
        if self.low < 0.75:
            return "moderate"
        return "good" if self.low < 0.9 else "excellent"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; numbers that are missing are null."""
        record = asdict(self) | {"perturbations": list(self.perturbations), "grade": self.grade}
        return {
            key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in record.items()
        }


def measure_perturbed(cases: Iterable[Case], measure: Measure, perturbations: Sequence[Perturbation]) -> pd.DataFrame:
    """Return every feature of every patient under every perturbation; a region that is gone has none (missing).

    Cases are taken one at a time, so that they may be read one at a time.

    Args:
        cases: (patient, image, mask, spacing_mm) each; one region a patient.
        measure: from (image, mask, spacing_mm) to numbers by name.

    Returns:
        index (patient, perturbation), one column per feature.
    """
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for patient, image, mask, spacing_mm in cases:
        for one in perturbations:
            if (patient, one.name) in rows:
                raise ValueError(
                    f"patient {patient} and perturbation {one.name} come twice. Give one region a patient, and each "
                    "perturbation its own name."
                )
            changed, region = perturb(image, mask, spacing_mm, one)
            rows[patient, one.name] = measure(changed, region, spacing_mm) if region.any() else {}
    index = pd.MultiIndex.from_tuples(list(rows), names=["patient", "perturbation"])
    return pd.DataFrame(list(rows.values()), index=index, dtype=np.float64)


def feature_stability(
    measurements: pd.DataFrame, *, kind: IccKind = "ICC(2,1)", confidence: float = 0.95
) -> tuple[FeatureStability, ...]:
    """Return the stability of each feature of `measure_perturbed`, in the order of its columns.

    Perturbations are the raters. Patients with a missing value under any of them are left out of that feature; with fewer
    than two patients left there is no ICC.
    """
    names = tuple(str(name) for name in measurements.index.unique("perturbation"))
    if len(names) < 2:
        raise ValueError("stability compares at least two perturbations, the original among them. Give more.")
    found = []
    for feature in measurements.columns:
        table = measurements[feature].unstack("perturbation")[list(names)].to_numpy(dtype=np.float64)
        whole = table[np.isfinite(table).all(axis=1)]
        icc = (
            intraclass_correlation(whole, kind=kind, confidence=confidence)
            if len(whole) > 1
            else Icc(np.nan, np.nan, np.nan, kind, len(whole), len(names), confidence)
        )
        found.append(
            FeatureStability(
                feature=str(feature),
                icc=float(icc.value),
                low=float(icc.low),
                high=float(icc.high),
                kind=kind,
                confidence=confidence,
                patients=len(whole),
                left_out=len(table) - len(whole),
                perturbations=names,
            )
        )
    return tuple(found)


def _mean_squares(table: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the mean squares between subjects, between raters, and of what is left."""
    n, k = table.shape
    centred = table - table.mean()
    of_subjects, of_raters = centred.mean(axis=1, keepdims=True), centred.mean(axis=0, keepdims=True)
    left = centred - of_subjects - of_raters
    # Rounding leaves squares of the order of 1e-32 of the total where there is nothing.
    nothing = 1e-28 * max(float((table**2).sum()), 1e-300)
    sums = k * (of_subjects**2).sum(), n * (of_raters**2).sum(), (left**2).sum()
    between, across, rest = (0.0 if part < nothing else float(part) for part in sums)
    return between / (n - 1), across / (k - 1), rest / ((n - 1) * (k - 1))
