"""The smooth relation between predicted and observed: a local linear fit, for all resamples at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

SPAN = 0.75
GRID_POINTS = 100


@dataclass(frozen=True)
class Loess:
    """A local linear smoother of 0/1 outcomes over probabilities, laid out for n given probabilities.

    Tricube weights over the nearest 75 % of the weight (span 0.75), degree 1, no robustness steps, held in [0, 1]. It
    is evaluated at up to 100 of the probabilities and interpolated linearly between them. The span's neighbourhoods are
    those of the given sample; resamples share them, so that all resamples need only a few matrix products.

    Attributes:
        grid: (m,) probabilities at which the fit is made, rising.
        kernel: (m, n) tricube weights.
        distance: (m, n) signed distance of each probability from the grid point.
        position: (n,) place of each probability on the grid, in steps, for the interpolation.

    Source: Cleveland, J Am Stat Assoc 1979;74:829-836; Austin & Steyerberg, Stat Med 2019;38:4051-4065, who use R's
    `loess` with span 0.75 and degree 2. Degree 1 is taken here because degree 2 leaves [0, 1] at the ends of small
    samples.
    """

    grid: Floats
    kernel: Floats
    distance: Floats
    position: Floats

    @classmethod
    def over(cls, p: Floats, *, weight: Floats | None = None, span: float = SPAN) -> Loess:
        """Return the smoother for probabilities `p` (n,); its neighbourhoods hold the fraction `span` of the weight."""
        mass = np.ones_like(p) if weight is None else weight
        distinct = np.unique(p)
        grid = distinct
        if len(distinct) > GRID_POINTS:
            grid = np.unique(np.quantile(distinct, np.linspace(0, 1, GRID_POINTS)))
        distance = p[None, :] - grid[:, None]
        bandwidth = _bandwidths(np.abs(distance), mass, span=span)
        inside = np.clip(1 - (np.abs(distance) / bandwidth[:, None]) ** 3, 0, None)
        return cls(grid, inside**3, distance, np.interp(p, grid, np.arange(len(grid))))

    def fit_each(self, y: Floats, weights: Floats) -> Floats:
        """Return (R, m) smoothed outcome at the grid, for each of R rows of weights (R, n)."""
        first, second = self.kernel * self.distance, self.kernel * self.distance**2
        s0, s1, s2 = weights @ self.kernel.T, weights @ first.T, weights @ second.T
        outcome = weights * y
        t0, t1 = outcome @ self.kernel.T, outcome @ first.T
        spread = s0 * s2 - s1**2
        straight = spread > 1e-10 * np.maximum(s0 * s2, 1e-300)
        with np.errstate(divide="ignore", invalid="ignore"):
            fitted = np.where(straight, (s2 * t0 - s1 * t1) / spread, t0 / s0)
        return np.asarray(np.clip(fitted, 0.0, 1.0), dtype=np.float64)

    def at_observations(self, fitted: Floats) -> Floats:
        """Return (R, n) the fits (R, m) interpolated at the n probabilities."""
        lower = np.minimum(self.position.astype(np.intp), max(len(self.grid) - 2, 0))
        upper = np.minimum(lower + 1, len(self.grid) - 1)
        share = self.position - lower
        return np.asarray(fitted[:, lower] * (1 - share) + fitted[:, upper] * share, dtype=np.float64)


def smooth(y: ArrayLike, p: ArrayLike, *, weight: ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Return the grid (m,) of probabilities and the smoothed observed frequency (m,) at it."""
    outcome, probability = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    mass = np.ones_like(probability) if weight is None else np.asarray(weight, dtype=np.float64)
    loess = Loess.over(probability, weight=mass)
    return loess.grid, loess.fit_each(outcome, mass[None, :])[0]


def _bandwidths(distance: Floats, weight: Floats, *, span: float) -> Floats:
    """Return (m,) the least distance within which the fraction `span` of the weight lies, never 0.

    A whisker is added so that the farthest neighbour itself still counts.
    """
    order = np.argsort(distance, axis=1, kind="stable")
    sorted_distance = np.take_along_axis(distance, order, axis=1)
    reached = np.cumsum(weight[order], axis=1) >= span * weight.sum() - 1e-9
    bandwidth = np.take_along_axis(sorted_distance, reached.argmax(axis=1)[:, None], axis=1)[:, 0]
    positive = np.where(distance > 0, distance, np.inf).min(axis=1)
    nearest = np.where(np.isfinite(positive), positive, 1.0)
    return np.asarray(np.where(bandwidth > 0, bandwidth * 1.000001, nearest), dtype=np.float64)
