"""Grey level size zone and distance zone matrices (IBSI manual, 3.8 and 3.9).

A zone is a connected group of voxels of one grey level: by faces, edges and corners, within the volume (3D) or within each
slice (2D, 2.5D). Its distance is that of its voxel nearest to the border of the region's shape, in city blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theracast_features.imaging.aggregate import Floats, mean_of
from theracast_features.imaging.compiled import compiled
from theracast_features.imaging.emphasis import emphasis
from theracast_features.imaging.levels import DIRECTIONS, IN_SLICE, LevelVolume
from theracast_features.imaging.settings import Extent

SIZE_ZONE = (
    "sze",
    "lze",
    "lgze",
    "hgze",
    "szlge",
    "szhge",
    "lzlge",
    "lzhge",
    "glnu",
    "glnu_norm",
    "zsnu",
    "zsnu_norm",
    "z_perc",
    "gl_var",
    "zs_var",
    "zs_entr",
)
DISTANCE_ZONE = (
    "sde",
    "lde",
    "lgze",
    "hgze",
    "sdlge",
    "sdhge",
    "ldlge",
    "ldhge",
    "glnu",
    "glnu_norm",
    "zdnu",
    "zdnu_norm",
    "z_perc",
    "gl_var",
    "zd_var",
    "zd_entr",
)


@dataclass(frozen=True)
class Zones:
    """n zones in the order of their first voxel: grey level, size in voxels, distance to the border, first voxel."""

    level: NDArray[np.int64]
    size: NDArray[np.int64]
    distance: NDArray[np.int64]
    first: NDArray[np.int64]


def zone_features(volume: LevelVolume, extents: Sequence[Extent], *, sizes: bool, distances: bool) -> dict[str, float]:
    """Return 16 features of sizes (`szm_sze_3D`) and 16 of distances (`dzm_sde_3D`) for each extent."""
    found: dict[str, dict[str, float]] = {"szm": {}, "dzm": {}}
    within: Zones | None = None
    for extent in extents:
        if extent == "3D":
            zones = find_zones(volume, in_slice=False)
        else:
            within = find_zones(volume, in_slice=True) if within is None else within
            zones = within
        for wanted, prefix, names in ((sizes, "szm", SIZE_ZONE), (distances, "dzm", DISTANCE_ZONE)):
            if wanted:
                values = _of_extent(volume, zones, zones.size if prefix == "szm" else zones.distance, extent)
                found[prefix] |= {
                    f"{prefix}_{name}_{extent}": float(value) for name, value in zip(names, values, strict=True)
                }
    return found["szm"] | found["dzm"]


def find_zones(volume: LevelVolume, *, in_slice: bool) -> Zones:
    """Return the zones of a volume, within slices or through them."""
    steps = IN_SLICE if in_slice else DIRECTIONS
    border = volume.frame.border_distance_in_slice if in_slice else volume.frame.border_distance
    return Zones(*_find_zones(volume.flat, volume.voxels, volume.frame.offsets(steps), border))


def _of_extent(volume: LevelVolume, zones: Zones, columns: NDArray[np.int64], extent: Extent) -> Floats:
    if extent != "2D":
        return _features(zones.level, columns, volume.count, len(volume.voxels))
    bounds = np.searchsorted(zones.first, volume.voxels[volume.frame.slices[:-1]])
    bounds = np.append(bounds, len(zones.first))
    return mean_of(
        [
            _features(zones.level[a:b], columns[a:b], volume.count, int(n))
            for a, b, n in zip(bounds[:-1], bounds[1:], np.diff(volume.frame.slices), strict=True)
        ]
    )


def _features(levels: NDArray[np.int64], columns: NDArray[np.int64], count: int, voxels: int) -> Floats:
    # Only sizes that occur get a column: n zones have at most sqrt(2 n voxels) different sizes.
    present = np.flatnonzero(np.bincount(columns))
    places = np.zeros(int(columns.max()) + 1, np.int64)
    places[present] = np.arange(len(present))
    flat = (levels - 1) * len(present) + places[columns]
    counts = np.bincount(flat, minlength=count * len(present)).astype(np.int32).reshape(count, len(present))
    return emphasis(counts, present, voxels)[: len(SIZE_ZONE)]


@compiled
def _find_zones(
    flat: NDArray[np.uint16], voxels: NDArray[np.int64], offsets: NDArray[np.int64], border: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return grey level, size, distance and first voxel of every zone: union-find over the backward neighbours."""
    n = voxels.shape[0]
    parent = np.empty(flat.shape[0], np.int32)
    for index in range(n):
        voxel = voxels[index]
        level = flat[np.uint64(voxel)]
        root = np.int32(voxel)
        parent[np.uint64(voxel)] = root
        for step in range(offsets.shape[0]):
            other = voxel - offsets[step]
            if flat[np.uint64(other)] == level:
                above = parent[np.uint64(other)]
                if above == root:
                    continue
                while parent[np.uint64(above)] != above:
                    parent[np.uint64(above)] = parent[np.uint64(parent[np.uint64(above)])]
                    above = parent[np.uint64(above)]
                # The earlier voxel becomes the root, so that zones come in the order of their first voxel.
                if above < root:
                    parent[np.uint64(root)] = above
                    root = above
                else:
                    parent[np.uint64(above)] = root
        parent[np.uint64(voxel)] = root
    return _measure_zones(flat, voxels, parent, border)


@compiled
def _measure_zones(
    flat: NDArray[np.uint16], voxels: NDArray[np.int64], parent: NDArray[np.int32], border: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    n = voxels.shape[0]
    zone = np.empty(flat.shape[0], np.int32)
    levels, sizes = np.empty(n, np.int64), np.zeros(n, np.int64)
    distances, firsts = np.empty(n, np.int64), np.empty(n, np.int64)
    found = 0
    for index in range(n):
        voxel = voxels[index]
        # A parent lies before its voxel and was met: its own parent is the root.
        root = parent[np.uint64(parent[np.uint64(voxel)])]
        parent[np.uint64(voxel)] = root
        if root == voxel:
            zone[np.uint64(root)] = found
            levels[found], distances[found], firsts[found] = flat[np.uint64(voxel)], border[np.uint64(voxel)], voxel
            found += 1
        place = zone[np.uint64(root)]
        sizes[place] += 1
        distances[place] = min(distances[place], border[np.uint64(voxel)])
    return levels[:found], sizes[:found], distances[:found], firsts[:found]
