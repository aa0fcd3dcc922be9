"""Texture matrices and their features against slow, obvious loops written from the IBSI's definitions."""

from __future__ import annotations

from collections import Counter
from itertools import product
from math import exp, log2, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_features.imaging.cooccurrence import COOCCURRENCE, cooccurrence
from theracast_features.imaging.levels import LevelVolume, VoxelFrame
from theracast_features.imaging.neighbourhood import DEPENDENCE, TONE_DIFFERENCE, dependence, tone_difference
from theracast_features.imaging.run_length import RUN_LENGTH, run_length
from theracast_features.imaging.settings import AGGREGATIONS
from theracast_features.imaging.zones import DISTANCE_ZONE, SIZE_ZONE, zone_features

Point = tuple[int, int, int]
STEPS_3D = [step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]
STEPS_2D = [step for step in STEPS_3D if step[0] == 0]
EXTENTS = ("2D", "2_5D", "3D")


@st.composite
def regions(draw: st.DrawFn) -> tuple[dict[Point, int], set[Point], LevelVolume]:
    """Draw grey levels by voxel, the voxels of the shape (of which some have no level), and the same for the kernels."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)))
    kinds = draw(st.integers(1, 5))
    drawn = draw(st.lists(st.integers(-1, kinds), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    levels = np.array(drawn).reshape(shape)
    if not (levels > 0).any():
        levels[0, 0, 0] = 1
    count = int(levels.max()) + draw(st.integers(0, 2))
    frame = VoxelFrame.of(levels > 0, levels >= 0, reach=draw(st.integers(2, 3)))
    volume = LevelVolume.of(frame, levels[levels > 0], count)
    points = {tuple(int(i) for i in place): int(levels[tuple(place)]) for place in np.argwhere(levels > 0)}
    members = {tuple(int(i) for i in place) for place in np.argwhere(levels >= 0)}
    return points, members, volume  # type: ignore[return-value]


def moved(point: Point, step: Point, times: int = 1) -> Point:
    return (point[0] + times * step[0], point[1] + times * step[1], point[2] + times * step[2])


def by_slice(points: dict[Point, int]) -> list[dict[Point, int]]:
    return [{p: g for p, g in points.items() if p[0] == z} for z in sorted({p[0] for p in points})]


def mean(rows: list[list[float]], n: int) -> list[float]:
    """Return the means over rows that are known."""
    columns = [[row[k] for row in rows if row[k] == row[k]] for k in range(n)]
    return [sum(column) / len(column) if column else float("nan") for column in columns]


def total(counters: Any) -> Counter[Any]:
    merged: Counter[Any] = Counter()
    for counter in counters:
        merged.update(counter)
    return merged


def directional(points: dict[Point, int], matrix: Any, features: Any, n: int) -> dict[str, list[float]]:
    """Return the features of each aggregation, by the words of the IBSI manual, 3.6."""
    slices = by_slice(points)
    planar = [[matrix(part, step) for step in STEPS_2D] for part in slices]
    spatial = [matrix(points, step) for step in STEPS_3D]
    size = len(points)
    return {
        "2D_avg": mean([features(m, len(part)) for part, row in zip(slices, planar, strict=True) for m in row], n),
        "2D_comb": mean([features(total(row), 4 * len(part)) for part, row in zip(slices, planar, strict=True)], n),
        "2_5D_avg": mean([features(total(column), size) for column in zip(*planar, strict=True)], n),
        "2_5D_comb": features(total(m for row in planar for m in row), 4 * size),
        "3D_avg": mean([features(m, size) for m in spatial], n),
        "3D_comb": features(total(spatial), 13 * size),
    }


def assert_same(found: dict[str, float], wanted: dict[str, list[float]], prefix: str, names: tuple[str, ...]) -> None:
    assert len(found) == len(names) * len(wanted)
    for suffix, values in wanted.items():
        got = [found[f"{prefix}_{name}_{suffix}"] for name in names]
        # info_corr2 is the root of a difference that may be 0 but for rounding.
        np.testing.assert_allclose(got, values, rtol=1e-9, atol=1e-7, err_msg=f"{prefix} {suffix} {names}")


def entropy(probabilities: Any) -> float:
    return -sum(p * log2(p) for p in probabilities if p > 0)


def pair_features(pairs: Counter[tuple[int, int]], levels: int) -> list[float]:
    n = sum(pairs.values())
    if n == 0:
        return [float("nan")] * 25
    p = {pair: count / n for pair, count in pairs.items()}
    row = {i: sum(v for (a, _), v in p.items() if a == i) for i in range(1, levels + 1)}
    gap = {k: sum(v for (a, b), v in p.items() if abs(a - b) == k) for k in range(levels)}
    plus = {k: sum(v for (a, b), v in p.items() if a + b == k) for k in range(2, 2 * levels + 1)}
    mu = sum(i * v for i, v in row.items())
    variance = sum((i - mu) ** 2 * v for i, v in row.items())
    mu_gap = sum(k * v for k, v in gap.items())
    mu_sum = sum(k * v for k, v in plus.items())
    hxy, hx = entropy(p.values()), entropy(row.values())
    hxy1 = -sum(v * log2(row[a] * row[b]) for (a, b), v in p.items())
    hxy2 = -sum(row[a] * row[b] * log2(row[a] * row[b]) for a in row for b in row if row[a] * row[b] > 0)
    nan = float("nan")
    return [
        max(p.values()),
        mu,
        variance,
        hxy,
        mu_gap,
        sum((k - mu_gap) ** 2 * v for k, v in gap.items()),
        entropy(gap.values()),
        mu_sum,
        sum((k - mu_sum) ** 2 * v for k, v in plus.items()),
        entropy(plus.values()),
        sum(v * v for v in p.values()),
        sum((a - b) ** 2 * v for (a, b), v in p.items()),
        sum(abs(a - b) * v for (a, b), v in p.items()),
        sum(v / (1 + abs(a - b)) for (a, b), v in p.items()),
        sum(v / (1 + abs(a - b) / levels) for (a, b), v in p.items()),
        sum(v / (1 + (a - b) ** 2) for (a, b), v in p.items()),
        sum(v / (1 + (a - b) ** 2 / levels**2) for (a, b), v in p.items()),
        2 * sum(v / (a - b) ** 2 for (a, b), v in p.items() if a < b),
        sum((a - mu) * (b - mu) * v for (a, b), v in p.items()) / variance if variance > 1e-12 else nan,
        sum(a * b * v for (a, b), v in p.items()),
        sum((a + b - 2 * mu) ** 2 * v for (a, b), v in p.items()),
        sum((a + b - 2 * mu) ** 3 * v for (a, b), v in p.items()),
        sum((a + b - 2 * mu) ** 4 * v for (a, b), v in p.items()),
        (hxy - hxy1) / hx if hx > 1e-12 else nan,
        sqrt(max(1 - exp(-2 * (hxy2 - hxy)), 0)),
    ]


def emphasis_features(counts: Counter[tuple[int, int]], voxels: int) -> list[float]:
    """Return the 17 features of (level, column) counts."""
    n = sum(counts.values())
    if n == 0:
        return [float("nan")] * 17
    p = {key: count / n for key, count in counts.items()}

    def power(a: int, b: int) -> float:
        return sum(v * float(g) ** a * float(c) ** b for (g, c), v in p.items())

    grey = Counter({g: sum(k for (a, _), k in counts.items() if a == g) for g in {g for g, _ in counts}})
    column = Counter({c: sum(k for (_, b), k in counts.items() if b == c) for c in {c for _, c in counts}})
    mu_g, mu_c = power(1, 0), power(0, 1)
    return [
        power(0, -2),
        power(0, 2),
        power(-2, 0),
        power(2, 0),
        power(-2, -2),
        power(2, -2),
        power(-2, 2),
        power(2, 2),
        sum(k * k for k in grey.values()) / n,
        sum(k * k for k in grey.values()) / n**2,
        sum(k * k for k in column.values()) / n,
        sum(k * k for k in column.values()) / n**2,
        n / voxels,
        sum(v * (g - mu_g) ** 2 for (g, _), v in p.items()),
        sum(v * (c - mu_c) ** 2 for (_, c), v in p.items()),
        entropy(p.values()),
        sum(v * v for v in p.values()),
    ]


@settings(max_examples=60, deadline=None)
@given(regions(), st.integers(1, 2))
def test_cooccurrence(region: tuple[dict[Point, int], set[Point], LevelVolume], distance: int) -> None:
    points, _, volume = region

    def pairs(part: dict[Point, int], step: Point) -> Counter[tuple[int, int]]:
        found: Counter[tuple[int, int]] = Counter()
        for point, level in part.items():
            other = part.get(moved(point, step, distance))
            if other is not None:
                found[level, other] += 1
                found[other, level] += 1
        return found

    wanted = directional(points, pairs, lambda matrix, _: pair_features(matrix, volume.count), 25)
    assert_same(cooccurrence(volume, AGGREGATIONS, distance=distance), wanted, "cm", COOCCURRENCE)


@settings(max_examples=60, deadline=None)
@given(regions())
def test_run_length(region: tuple[dict[Point, int], set[Point], LevelVolume]) -> None:
    points, _, volume = region

    def runs(part: dict[Point, int], step: Point) -> Counter[tuple[int, int]]:
        found: Counter[tuple[int, int]] = Counter()
        for point, level in part.items():
            if part.get(moved(point, step, -1)) != level:
                length = 1
                while part.get(moved(point, step, length)) == level:
                    length += 1
                found[level, length] += 1
        return found

    wanted = directional(points, runs, lambda matrix, voxels: emphasis_features(matrix, voxels)[:16], 16)
    assert_same(run_length(volume, AGGREGATIONS), wanted, "rlm", RUN_LENGTH)


def zones(points: dict[Point, int], steps: list[Point], distance: Any) -> list[tuple[int, int, int]]:
    """Return level, size and distance of each zone by flooding."""
    around = steps + [(-a, -b, -c) for a, b, c in steps]
    left, found = dict(points), []
    while left:
        start, level = left.popitem()
        zone, edge = [start], [start]
        while edge:
            point = edge.pop()
            for step in around:
                near = moved(point, step)
                if left.get(near) == level:
                    del left[near]
                    zone.append(near)
                    edge.append(near)
        found.append((level, len(zone), min(distance(point) for point in zone)))
    return found


def city_block(members: set[Point], steps: list[Point]) -> Any:
    """Return a function for the number of unit steps from a voxel of the shape to the outside."""
    straight = [step for step in steps if sum(map(abs, step)) == 1]
    around = straight + [(-a, -b, -c) for a, b, c in straight]

    def distance(point: Point) -> int:
        reached, seen, steps_taken = {point}, {point}, 0
        while all(place in members for place in reached):
            reached = {moved(place, step) for place in reached for step in around} - seen
            seen |= reached
            steps_taken += 1
        return steps_taken

    return distance


@settings(max_examples=60, deadline=None)
@given(regions())
def test_zones(region: tuple[dict[Point, int], set[Point], LevelVolume]) -> None:
    points, members, volume = region
    planar = [(part, zones(part, STEPS_2D, city_block(members, STEPS_2D))) for part in by_slice(points)]
    spatial = zones(points, STEPS_3D, city_block(members, STEPS_3D))
    found = zone_features(volume, EXTENTS, sizes=True, distances=True)
    for column, prefix, names in ((1, "szm", SIZE_ZONE), (2, "dzm", DISTANCE_ZONE)):
        matrices = [(Counter((zone[0], zone[column]) for zone in flat), len(part)) for part, flat in planar]
        wanted = {
            "2D": mean([emphasis_features(matrix, n)[:16] for matrix, n in matrices], 16),
            "2_5D": emphasis_features(total(matrix for matrix, _ in matrices), len(points))[:16],
            "3D": emphasis_features(Counter((zone[0], zone[column]) for zone in spatial), len(points))[:16],
        }
        own = {tag: value for tag, value in found.items() if tag.startswith(prefix)}
        assert_same(own, wanted, prefix, names)


def around(distance: int, flat: bool) -> list[Point]:
    span = range(-distance, distance + 1)
    return [(z, y, x) for z in ((0,) if flat else span) for y in span for x in span if (z, y, x) != (0, 0, 0)]


@settings(max_examples=60, deadline=None)
@given(regions(), st.integers(1, 2), st.integers(0, 1))
def test_dependence(region: tuple[dict[Point, int], set[Point], LevelVolume], distance: int, coarseness: int) -> None:
    points, _, volume = region

    def counts(part: dict[Point, int], flat: bool) -> Counter[tuple[int, int]]:
        found: Counter[tuple[int, int]] = Counter()
        for point, level in part.items():
            others = [part.get(moved(point, step)) for step in around(distance, flat)]
            found[level, 1 + sum(g is not None and abs(g - level) <= coarseness for g in others)] += 1
        return found

    slices = by_slice(points)
    wanted = {
        "2D": mean([emphasis_features(counts(part, True), len(part)) for part in slices], 17),
        "2_5D": emphasis_features(total(counts(part, True) for part in slices), len(points)),
        "3D": emphasis_features(counts(points, False), len(points)),
    }
    found = dependence(volume, EXTENTS, distance=distance, coarseness=coarseness)
    assert_same(found, wanted, "ngl", DEPENDENCE)


def tone_features(rows: list[tuple[int, float]]) -> list[float]:
    """Return the features from the level and the difference to the neighbours' mean of each voxel that has neighbours."""
    n = len(rows)
    if n == 0:
        return [float("nan")] * 5
    p = {g: sum(level == g for level, _ in rows) / n for g in {level for level, _ in rows}}
    s = {g: sum(gap for level, gap in rows if level == g) for g in p}
    kinds, spread = len(p), sum(s.values())
    coarse = sum(p[g] * s[g] for g in p)
    busy = sum(abs(a * p[a] - b * p[b]) for a in p for b in p)
    return [
        1 / coarse if coarse > 0 else 1e6,
        sum(p[a] * p[b] * (a - b) ** 2 for a in p for b in p) / (kinds * (kinds - 1)) * spread / n if kinds > 1 else 0,
        coarse / busy if busy > 0 else 0,
        sum(abs(a - b) * (p[a] * s[a] + p[b] * s[b]) / (p[a] + p[b]) for a in p for b in p) / n,
        sum((p[a] + p[b]) * (a - b) ** 2 for a in p for b in p) / spread if spread > 0 else 0,
    ]


@settings(max_examples=60, deadline=None)
@given(regions(), st.integers(1, 2))
def test_tone_difference(region: tuple[dict[Point, int], set[Point], LevelVolume], distance: int) -> None:
    points, _, volume = region

    def differences(part: dict[Point, int], flat: bool) -> list[tuple[int, float]]:
        found = []
        for point, level in part.items():
            near = [part[moved(point, step)] for step in around(distance, flat) if moved(point, step) in part]
            if near:
                found.append((level, abs(level - sum(near) / len(near))))
        return found

    slices = by_slice(points)
    wanted = {
        "2D": mean([tone_features(differences(part, True)) for part in slices], 5),
        "2_5D": tone_features([row for part in slices for row in differences(part, True)]),
        "3D": tone_features(differences(points, False)),
    }
    assert_same(tone_difference(volume, EXTENTS, distance=distance), wanted, "ngt", TONE_DIFFERENCE)


def test_pairs_counted_in_one_order_only() -> None:
    levels = np.array([[[1, 2, 2]]])
    volume = LevelVolume.of(VoxelFrame.of(levels > 0, levels > 0, reach=1), levels.ravel(), 2)
    found = cooccurrence(volume, ("3D_comb",), symmetric=False)
    assert found["cm_joint_avg_3D_comb"] == pytest.approx(1.5)  # pairs (1, 2) and (2, 2): first members 1 and 2
    assert found["cm_sum_avg_3D_comb"] == pytest.approx(3.5)
