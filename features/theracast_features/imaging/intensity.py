"""Intensity statistics, intensity histogram and intensity-volume histogram of a region.

Definitions: IBSI reference manual (arXiv:1612.07003), 3.3 to 3.5. Undefined values are NaN: skewness and kurtosis of a flat
region, a coefficient divided by 0, the robust deviation where no voxel lies between the 10th and the 90th percentile, and the
intensity that at most 10 % of the voxels reach where even the highest is commoner.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theracast_features.imaging.discretise import GreyLevels

Floats = NDArray[np.float64]


def statistics(ascending: Floats) -> dict[str, float]:
    """Return the 18 intensity statistics of intensities in ascending order, (n,) with n at least 1."""
    found = {f"stat_{name}": value for name, value in _moments(ascending).items()}
    squares = float(np.sum(ascending * ascending))
    found["stat_energy"] = squares
    found["stat_rms"] = float(np.sqrt(squares / len(ascending)))
    return found


def histogram(grey: GreyLevels) -> dict[str, float]:
    """Return the 23 features of the histogram of grey levels."""
    by_level = np.bincount(grey.levels, minlength=grey.count + 1)[1:]
    moments = _moments(np.repeat(np.arange(1.0, grey.count + 1), by_level))
    counts = by_level.astype(np.float64)
    shares = counts / counts.sum()
    present = shares[shares > 0]
    commonest = np.flatnonzero(counts == counts.max()) + 1
    gradient = np.gradient(counts) if len(counts) > 1 else np.zeros(1)
    return {f"ih_{name}": value for name, value in moments.items()} | {
        # Of several commonest levels the one next to the mean; of two equally near, the lower.
        "ih_mode": float(commonest[np.argmin(np.abs(commonest - moments["mean"]))]),
        "ih_entropy": float(-np.sum(present * np.log2(present))) + 0.0,
        "ih_uniformity": float(np.sum(shares * shares)),
        "ih_max_grad": float(gradient.max()),
        "ih_max_grad_g": float(np.argmax(gradient) + 1),
        "ih_min_grad": float(gradient.min()),
        "ih_min_grad_g": float(np.argmin(gradient) + 1),
    }


def intensity_volume_histogram(
    ascending: Floats, grey: GreyLevels | None, *, minimum: float | None, maximum: float | None
) -> dict[str, float]:
    """Return the 7 features of the share of voxels at or above each intensity.

    Args:
        ascending: intensities in ascending order, (n,), not discretised.
        grey: their levels, in the same order; None takes intensities as they are. Levels of fixed width stand for their centres.
        minimum: lower end of the histogram; by default the lowest intensity. Not used with a fixed number of bins.
        maximum: upper end likewise.
    """
    values, low, high = ascending, minimum, maximum
    # Intensities follow each other by a bin, by 1 where all are whole numbers (HU), else from one voxel's to the next.
    step = 1.0 if grey is not None or np.array_equal(ascending, np.rint(ascending)) else None
    if grey is not None:
        values = grey.levels.astype(np.float64)
        low, high = 1.0, float(grey.count)
        if minimum is not None or maximum is not None:
            values, step = grey.start + (values - 0.5) * grey.width, grey.width
            low = (grey.start if minimum is None else minimum) + 0.5 * grey.width
            high = values.max() if maximum is None else maximum - 0.5 * grey.width
    starts = np.flatnonzero(np.append(True, np.diff(values) > 0))
    present, counts = values[starts], np.diff(np.append(starts, len(values)))
    low = float(present[0]) if low is None else low
    high = float(present[-1]) if high is None else high
    reached = counts[::-1].cumsum()[::-1] / len(values)
    share = (present - low) / (high - low) if high > low else np.zeros(len(present))

    def volume_at(fraction: float) -> float:
        found = np.flatnonzero(share >= fraction)
        return float(reached[found[0]]) if len(found) else 0.0

    def intensity_at(fraction: float) -> float:
        commoner = int(np.flatnonzero(reached > fraction)[-1])
        if commoner == len(present) - 1:
            return float("nan")
        return float(present[commoner + 1]) if step is None else float(present[commoner]) + step

    v10, v90, i10, i90 = volume_at(0.1), volume_at(0.9), intensity_at(0.1), intensity_at(0.9)
    return {
        "ivh_v10": v10,
        "ivh_v90": v90,
        "ivh_i10": i10,
        "ivh_i90": i90,
        "ivh_diff_v10_v90": v10 - v90,
        "ivh_diff_i10_i90": i10 - i90,
        "ivh_auc": float(np.sum(np.diff(share) * (reached[:-1] + reached[1:]) / 2)),
    }


def _moments(ascending: Floats) -> dict[str, float]:
    """Return what statistics and histogram share, of values in ascending order."""
    mean = float(ascending.mean())
    deviation = ascending - mean
    square = deviation * deviation
    p10, p25, median, p75, p90 = (_quantile(ascending, share) for share in (0.1, 0.25, 0.5, 0.75, 0.9))
    low, high = float(ascending[0]), float(ascending[-1])
    variance = float(square.mean()) if low < high else 0.0
    inner = ascending[np.searchsorted(ascending, p10, "left") : np.searchsorted(ascending, p90, "right")]
    return {
        "mean": mean,
        "var": variance,
        "skew": float((square * deviation).mean()) / variance**1.5 if variance > 0 else float("nan"),
        "kurt": float((square * square).mean()) / variance**2 - 3 if variance > 0 else float("nan"),
        "median": median,
        "min": low,
        "p10": p10,
        "p90": p90,
        "max": high,
        "iqr": p75 - p25,
        "range": high - low,
        "mad": float(np.abs(deviation).mean()),
        "rmad": float(np.abs(inner - inner.mean()).mean()) if len(inner) else float("nan"),
        "medad": float(np.abs(ascending - median).mean()),
        "cov": float(np.sqrt(variance)) / mean if mean != 0 else float("nan"),
        "qcod": (p75 - p25) / (p75 + p25) if p75 + p25 != 0 else float("nan"),
    }


def _quantile(ascending: Floats, share: float) -> float:
    """Return a quantile, linear between neighbours, as NumPy's default."""
    place = share * (len(ascending) - 1)
    lower = int(place)
    upper = min(lower + 1, len(ascending) - 1)
    return float(ascending[lower] + (place - lower) * (ascending[upper] - ascending[lower]))
