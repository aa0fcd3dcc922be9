"""Curves of single columns whose sum is a score: evaluated in double precision without PyTorch, stored as safetensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from theracast_data.errors import ArtifactError
from theracast_models.logodds import Floats

ASKED_TOGETHER = 4_000_000
"""Numbers of hidden units that are held at a time."""


@dataclass(frozen=True)
class Shapes:
    """`f_j(z_j) = slope_j z_j + sum_k out_jk tanh(steep_jk z_j + shift_jk) - centre_j`, one for each of c columns.

    Attributes:
        slope, centre: (c,).
        curved: (b,) positions of the columns that are more than a line.
        steep, shift, out: (b, units) of those.
    """

    slope: Floats
    centre: Floats
    curved: NDArray[np.intp]
    steep: Floats
    shift: Floats
    out: Floats

    def parts(self, z: Floats) -> Floats:
        """Return f (n, c) of the columns z (n, c)."""
        found: Floats = z * self.slope - self.centre
        if not self.out.size:
            return found
        step = max(1, ASKED_TOGETHER // self.out.size)
        for start in range(0, len(z), step):
            rows = slice(start, start + step)
            hidden = np.tanh(z[rows][:, self.curved, None] * self.steep + self.shift)
            found[rows, self.curved] += np.einsum("nbk,bk->nb", hidden, self.out)
        return found

    def centred(self, z: Floats, weight: Floats) -> tuple[Shapes, float]:
        """Return the curves with weighted mean 0 over the rows of z (n, c), and the sum of what was taken from them."""
        mean = np.average(self.parts(z), axis=0, weights=weight)
        return replace(self, centre=self.centre + mean), float(mean.sum())

    def scaled(self, by: float) -> Shapes:
        """Return the curves, each multiplied."""
        return replace(self, slope=by * self.slope, centre=by * self.centre, out=by * self.out)

    @classmethod
    def mean(cls, members: Sequence[Shapes]) -> Shapes:
        """Return the mean of curves of the same columns: their units side by side."""
        count = len(members)
        return cls(
            slope=np.mean([one.slope for one in members], axis=0),
            centre=np.mean([one.centre for one in members], axis=0),
            curved=members[0].curved,
            steep=np.concatenate([one.steep for one in members], axis=1),
            shift=np.concatenate([one.shift for one in members], axis=1),
            out=np.concatenate([one.out for one in members], axis=1) / count,
        )


def write_shapes(members: Sequence[tuple[float, Shapes]], path: Path) -> None:
    """Write base and curves of models in double precision by the format safetensors, which holds no code."""
    from safetensors.numpy import save_file

    tensors: dict[str, NDArray[np.generic]] = {}
    for number, (base, shapes) in enumerate(members):
        tensors[f"{number}.base"] = np.array([base])
        for field in fields(Shapes):
            tensors[f"{number}.{field.name}"] = np.ascontiguousarray(getattr(shapes, field.name))
    save_file(tensors, str(path))


def read_shapes(path: Path, *, columns: int) -> list[tuple[float, Shapes]]:
    """Return what `write_shapes` wrote.

    Raises:
        ArtifactError: the file does not hold curves of so many columns.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(str(path))
        count = len({name.split(".")[0] for name in tensors})
        found = [
            (
                float(tensors[f"{number}.base"][0]),
                Shapes(**{field.name: tensors[f"{number}.{field.name}"] for field in fields(Shapes)}),
            )
            for number in range(count)
        ]
    except (OSError, SafetensorError, KeyError) as error:
        raise _damaged(path, columns) from error
    for _, shapes in found:
        units = (len(shapes.curved), shapes.out.shape[-1])
        fits = len(shapes.slope) == len(shapes.centre) == columns and (shapes.curved < columns).all()
        if not fits or not shapes.steep.shape == shapes.shift.shape == shapes.out.shape == units:
            raise _damaged(path, columns)
    return found


def _damaged(path: Path, columns: int) -> ArtifactError:
    return ArtifactError(
        f"{path.name}: the weights are not those of curves of {columns} columns. The folder is damaged; take it from where "
        "it was saved, or train again."
    )
