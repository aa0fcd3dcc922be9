"""Habitats: parts of a tumour that look alike on several co-registered maps, numbered alike in every patient and fit.

Fit on development patients only (`fit_habitats`); what was learnt is plain numbers, and applying it is plain numpy. Habitats
are numbered from 1 by the mean of the first map, lowest first, so a number means the same after every fit of the same maps.

Source: Gatenby RA et al. Radiology 2013;269:8-15 (habitats); Wu J et al. Radiology 2018;288:26-35 (clusters over patients,
spatial interaction of neighbouring voxels).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from theracast_data.section import Section

Floats = NDArray[np.float64]
Labels = NDArray[np.int16]
Mask = NDArray[np.bool_]
Spacing = tuple[float, float, float]
FORMAT = 1


class HabitatSection(Section):
    """How habitats are found."""

    method: Literal["kmeans", "gaussian"] = Field(
        "kmeans", description="Clusters round in every map, or Gaussian mixture."
    )
    counts: tuple[int, ...] = Field((3,), min_length=1, description="Number of habitats, or several to choose from.")
    criterion: Literal["silhouette", "bic"] = Field(
        "silhouette", description="Chooses among several numbers; `bic` needs the Gaussian mixture."
    )
    voxels_per_patient: int = Field(500, ge=10, description="Voxels drawn from each patient: all weigh the same.")
    starts: int = Field(10, ge=1, description="Random starts of a fit, of which the best counts.")


@dataclass(frozen=True)
class Habitats:
    """What was learnt of k habitats over p maps.

    Attributes:
        maps: names, p.
        centre, scale: (p,) mean and standard deviation of the drawn voxels, in the unit of each map.
        centroids: (k, p) means in standardised units, in the order of the numbers.
        covariances: (k, p, p) and weights (k,) of the Gaussian mixture; None for k-means.
        scores: criterion of each number of habitats that was tried; lower is better for bic, higher for silhouette.
        patients: that took part.
    """

    maps: tuple[str, ...]
    centre: Floats
    scale: Floats
    centroids: Floats
    covariances: Floats | None
    weights: Floats | None
    scores: dict[int, float]
    patients: int

    @property
    def count(self) -> int:
        """Number of habitats."""
        return len(self.centroids)

    @property
    def levels(self) -> Floats:
        """(k, p) the mean of each habitat in the unit of each map."""
        return np.asarray(self.centroids * self.scale + self.centre)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "format": FORMAT,
            "maps": list(self.maps),
            "centre": self.centre.tolist(),
            "scale": self.scale.tolist(),
            "centroids": self.centroids.tolist(),
            "covariances": None if self.covariances is None else self.covariances.tolist(),
            "weights": None if self.weights is None else self.weights.tolist(),
            "scores": {str(count): score for count, score in self.scores.items()},
            "patients": self.patients,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Habitats:
        """Return what `to_json` wrote.

        Raises:
            ValueError: it was written in a format that this version does not know.
        """
        if record.get("format") != FORMAT:
            raise ValueError(
                f"habitats of format {record.get('format')!r}: this version reads {FORMAT}. Fit them anew."
            )

        def array(key: str) -> Floats | None:
            return None if record[key] is None else np.array(record[key], dtype=np.float64)

        return cls(
            maps=tuple(record["maps"]),
            centre=np.array(record["centre"], dtype=np.float64),
            scale=np.array(record["scale"], dtype=np.float64),
            centroids=np.array(record["centroids"], dtype=np.float64),
            covariances=array("covariances"),
            weights=array("weights"),
            scores={int(count): float(score) for count, score in record["scores"].items()},
            patients=int(record["patients"]),
        )


def fit_habitats(
    voxels: Sequence[NDArray[np.floating]],
    maps: Sequence[str],
    *,
    rng: np.random.Generator,
    section: HabitatSection | None = None,
) -> Habitats:
    """Return the habitats of the development patients.

    Of each patient the same number of voxels is drawn (with repetition where there are fewer), so that large tumours do not
    decide alone. Voxels with a missing map are left out.

    Args:
        voxels: one array (n_voxels, n_maps) per patient, in the unit of each map.
        maps: their names; the first one gives the habitats their order.

    Raises:
        ValueError: fewer than two patients with voxels, another number of maps, a map that does not vary, or `bic` without
            the Gaussian mixture.
    """
    rules = section or HabitatSection()
    if rules.criterion == "bic" and rules.method != "gaussian" and len(rules.counts) > 1:
        raise ValueError("the criterion bic needs method gaussian. Choose that, or the criterion silhouette.")
    drawn, patients = _drawn(voxels, len(maps), rules, rng)
    centre, scale = drawn.mean(axis=0), drawn.std(axis=0)
    flat = [name for name, spread in zip(maps, scale, strict=True) if not spread > 0]
    if flat:
        raise ValueError(f"the map {', '.join(flat)} does not vary, so it tells no habitats apart. Leave it out.")
    standard = (drawn - centre) / scale
    seed = int(rng.integers(2**31))
    fits = {count: _clustered(standard, count, rules, seed) for count in rules.counts}
    scores = {count: fit[3] for count, fit in fits.items()}
    best = min(scores, key=lambda count: scores[count] if rules.criterion == "bic" else -scores[count])
    centroids, covariances, weights, _ = fits[best]
    order = np.lexsort(centroids.T[::-1])
    return Habitats(
        maps=tuple(maps),
        centre=centre,
        scale=scale,
        centroids=centroids[order],
        covariances=None if covariances is None else covariances[order],
        weights=None if weights is None else weights[order],
        scores={} if len(scores) == 1 else scores,
        patients=patients,
    )


def assign_habitats(habitats: Habitats, voxels: NDArray[np.floating]) -> Labels:
    """Return (n_voxels,) the habitat of each voxel from 1 on; 0 where a map is missing.

    Args:
        voxels: (n_voxels, n_maps) in the unit of each map.
    """
    if voxels.ndim != 2 or voxels.shape[1] != len(habitats.maps):
        raise ValueError(
            f"voxels: (n_voxels, {len(habitats.maps)}) of {', '.join(habitats.maps)} (found {voxels.shape})"
        )
    known = np.isfinite(voxels).all(axis=1)
    standard = (voxels[known].astype(np.float64) - habitats.centre) / habitats.scale
    merit = np.empty((len(standard), habitats.count))
    for number, centroid in enumerate(habitats.centroids):
        away = standard - centroid
        if habitats.covariances is None or habitats.weights is None:
            merit[:, number] = -(away**2).sum(axis=1)
        else:
            covariance = habitats.covariances[number]
            distance = (away * np.linalg.solve(covariance, away.T).T).sum(axis=1)
            merit[:, number] = np.log(habitats.weights[number]) - 0.5 * (distance + np.linalg.slogdet(covariance)[1])
    labels = np.zeros(len(voxels), dtype=np.int16)
    labels[known] = merit.argmax(axis=1) + 1
    return labels


def habitat_map(habitats: Habitats, volumes: Sequence[NDArray[np.floating]], mask: Mask) -> Labels:
    """Return the habitat of each voxel of the region as a volume; 0 outside it and where a map is missing.

    Args:
        volumes: (n_slices, n_rows, n_columns) one per map, in the order of `habitats.maps`, on one grid.
    """
    shapes = {volume.shape for volume in volumes} | {mask.shape}
    if len(shapes) > 1 or len(volumes) != len(habitats.maps) or mask.dtype != np.bool_:
        raise ValueError(
            f"the volumes of {', '.join(habitats.maps)} and the mask (bool) must lie on one grid (found {len(volumes)} "
            f"volumes, shapes {sorted(shapes)}). Register and resample them first."
        )
    if not mask.any():
        raise ValueError("the region is empty. Leave it out, or draw it.")
    labels = np.zeros(mask.shape, dtype=np.int16)
    labels[mask] = assign_habitats(habitats, np.stack([volume[mask] for volume in volumes], axis=1))
    return labels


def habitat_fractions(labels: Labels, mask: Mask, spacing_mm: Spacing, *, count: int) -> dict[str, float]:
    """Return what describes the habitats of one region.

    - `fraction.I` of the voxels with all maps, `volume_ml.I`, for I from 1 to `count`;
    - `entropy_bits` of the fractions;
    - `contact.I_J`: part of the pairs of neighbouring voxels (sharing a face) that are one of I and one of J;
    - `contact_different`: part of the pairs with two habitats;
    - `spatial_entropy_bits`: entropy of the unordered pairs, 0 where there is one habitat;
    - `missing_fraction`: part of the region without habitat.

    Fractions and contacts are missing where no voxel has a habitat, or there are no pairs.

    Args:
        labels: of `habitat_map`.

    Source: Wu J et al. Radiology 2018;288:26-35 (pairs of neighbours); O'Neill RV et al.
    Landscape Ecol 1988;1:153-162 (entropy of pairs).
    """
    inside = labels[mask]
    sizes = np.bincount(inside, minlength=count + 1)[: count + 1].astype(np.float64)
    known = sizes[1:].sum()
    voxel_ml = float(np.prod(np.asarray(spacing_mm, dtype=np.float64))) / 1000.0
    fractions = sizes[1:] / known if known else np.full(count, np.nan)
    pairs = _contacts(np.where(mask, labels, 0), count)
    parts = pairs / pairs.sum() if pairs.sum() else np.full(pairs.shape, np.nan)
    found = {f"fraction.{i}": float(part) for i, part in enumerate(fractions, start=1)}
    found |= {f"volume_ml.{i}": float(size * voxel_ml) for i, size in enumerate(sizes[1:], start=1)}
    found["entropy_bits"] = _entropy(fractions)
    upper = [(i, j) for i in range(count) for j in range(i, count)]
    found |= {f"contact.{i + 1}_{j + 1}": float(parts[i, j]) for i, j in upper}
    found["contact_different"] = float(np.triu(parts, 1).sum()) if pairs.any() else np.nan
    found["spatial_entropy_bits"] = _entropy(np.array([parts[i, j] for i, j in upper]))
    found["missing_fraction"] = float(1.0 - known / len(inside)) if len(inside) else np.nan
    return found


def _drawn(
    voxels: Sequence[NDArray[np.floating]], n_maps: int, rules: HabitatSection, rng: np.random.Generator
) -> tuple[Floats, int]:
    """Return the voxels that are drawn from all patients, and how many patients had any."""
    wrong = [place for place, one in enumerate(voxels) if one.ndim != 2 or one.shape[1] != n_maps]
    if wrong:
        raise ValueError(
            f"voxels: {len(wrong)} patients do not have the {n_maps} maps as columns (first: number {wrong[0]}, "
            f"shape {voxels[wrong[0]].shape})"
        )
    parts = []
    for one in voxels:
        known = one[np.isfinite(one).all(axis=1)].astype(np.float64)
        if len(known):
            wanted = rules.voxels_per_patient
            parts.append(known[rng.choice(len(known), wanted, replace=len(known) < wanted)])
    if len(parts) < 2:
        raise ValueError(f"habitats need at least two patients with voxels (found {len(parts)})")
    return np.concatenate(parts), len(parts)


def _clustered(
    standard: Floats, count: int, rules: HabitatSection, seed: int
) -> tuple[Floats, Floats | None, Floats | None, float]:
    """Return means, covariances, weights and the criterion of one number of habitats."""
    from sklearn.cluster import KMeans  # takes a second to load, and applying needs none of it
    from sklearn.metrics import silhouette_score
    from sklearn.mixture import GaussianMixture

    covariances = weights = None
    score = np.nan
    if rules.method == "gaussian":
        mixture = GaussianMixture(count, n_init=rules.starts, random_state=seed).fit(standard)
        centroids, covariances, weights = mixture.means_, mixture.covariances_, mixture.weights_
        labels = mixture.predict(standard)
        if rules.criterion == "bic":
            score = float(mixture.bic(standard))
    else:
        clusters = KMeans(count, n_init=rules.starts, random_state=seed).fit(standard)
        centroids, labels = clusters.cluster_centers_, clusters.labels_
    if rules.criterion == "silhouette" and len(rules.counts) > 1:
        # The silhouette compares all pairs; a few thousand voxels tell as much as all.
        several = len(np.unique(labels)) > 1
        size = min(len(standard), 3000)
        score = float(silhouette_score(standard, labels, sample_size=size, random_state=seed)) if several else -1.0
    return centroids, covariances, weights, score


def _contacts(labels: Labels, count: int) -> Floats:
    """Return (count, count) numbers of pairs of neighbours, the lower number first."""
    pairs = np.zeros((count, count))
    for axis in range(3):
        lines = np.moveaxis(labels, axis, 0)
        here, there = lines[:-1].ravel(), lines[1:].ravel()
        both = (here > 0) & (there > 0)
        low, high = np.minimum(here[both], there[both]) - 1, np.maximum(here[both], there[both]) - 1
        np.add.at(pairs, (low, high), 1.0)
    return pairs


def _entropy(parts: Floats) -> float:
    if np.isnan(parts).any():
        return np.nan
    present = parts[parts > 0]
    return float(-(present * np.log2(present)).sum()) + 0.0
