"""Small CTs of one lesion as three scanners would show it: shape, texture inside, and what each scanner does to the numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

ORGAN_HU, FAT_HU, LESION_HU = 105.0, -85.0, 68.0
# Texture of the lesion: standard deviation in HU and correlation length in mm at a heterogeneity of 0, how both grow with
# it, and how both vary for other reasons, on the logarithmic scale.
_AMPLITUDE_HU, _LENGTH_MM = 20.0, 4.5
_AMPLITUDE_GROWS, _LENGTH_GROWS = 0.42, 0.15
_AMPLITUDE_VARIES, _LENGTH_VARIES = 0.22, 0.15
_FEWEST_VOXELS = 12
_WAVES, _WAVE_SHARE = 6, 0.055


@dataclass(frozen=True)
class Scanner:
    """A scanner, its grid, and what it does to a Hounsfield unit: times `gain`, plus `offset_hu`, and noise.

    In hospitals the gain is that of contrast medium and tube voltage.

    Attributes:
        shape: (n_slices, n_rows, n_columns).
        spacing_mm: (z, y, x); slices are as thick as they lie apart.
        noise_hu: standard deviation of the noise, before `blur_mm` was applied to it.
        blur_mm: width of the kernel, as the standard deviation of a Gaussian.
    """

    manufacturer: str
    model: str
    kernel: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    gain: float
    offset_hu: float
    noise_hu: float
    blur_mm: float

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in mL."""
        return float(np.prod(self.spacing_mm)) / 1000


SCANNERS = {
    "Northfield": Scanner(
        "Synthetic Imaging", "Aurora 64", "STANDARD", (12, 44, 44), (6.0, 3.0, 3.0), 0.9, -4.0, 7.0, 1.4
    ),
    "Harbour": Scanner("Phantom Medical", "Tide 128", "B40f", (14, 44, 44), (5.0, 2.9, 2.9), 1.3, 14.0, 15.0, 0.7),
    "Lakeside": Scanner("Imaginary Health", "Fjord CT", "SOFT", (10, 44, 44), (7.0, 3.1, 3.1), 1.03, 2.0, 9.0, 1.2),
}


@dataclass(frozen=True)
class Shape:
    """An ellipsoid with an uneven surface, without its size.

    Attributes:
        axes: (3, 3) of a step in mm (z, y, x) to the ellipsoid's own axes.
        waves: (n, 3) wave vectors on the unit sphere, which raise and lower the surface; phases: (n,).
    """

    axes: Floats
    waves: Floats
    phases: Floats

    def radius(self, scanner: Scanner, centre_mm: Floats) -> Floats:
        """Return, for each voxel, the size from which on the lesion covers it; the region is all below a number."""
        half = (np.array(scanner.shape, dtype=np.float64) - 1) / 2
        steps = np.indices(scanner.shape).reshape(3, -1) - half[:, None]
        own = self.axes @ (steps * np.array(scanner.spacing_mm)[:, None] - centre_mm[:, None])
        length = np.sqrt((own**2).sum(axis=0))
        angles = self.waves @ (own / np.maximum(length, 1e-9)) + self.phases[:, None]
        surface = 1.0 + _WAVE_SHARE * np.cos(angles).sum(axis=0)
        return np.asarray((length / surface).reshape(scanner.shape), dtype=np.float64)


def draw_shape(rng: np.random.Generator) -> Shape:
    """Return a shape that is flatter from head to foot than across, as fits the field of view."""
    turn, tilt = rng.uniform(0, np.pi), rng.uniform(-0.2, 0.2)
    cos, sin = np.cos(turn), np.sin(turn)
    in_plane = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    tilted = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    semi_axes = np.array([rng.uniform(0.5, 0.7), rng.uniform(0.8, 1.0), 1.0])
    waves = rng.standard_normal((_WAVES, 3)) * 2.2
    return Shape((in_plane @ tilted) / semi_axes[:, None], waves, rng.uniform(0, 2 * np.pi, _WAVES))


def most_voxels(radius: Floats) -> int:
    """Return how many voxels the largest lesion has that leaves the outermost voxels of the image free."""
    border = np.ones(radius.shape, dtype=np.bool_)
    border[1:-1, 1:-1, 1:-1] = False
    return int((radius < radius[border].min()).sum())


def lesion_mask(radius: Floats, volume_ml: float, scanner: Scanner) -> Booleans:
    """Return the region of a volume, to the nearest voxel; the least has 12 voxels."""
    count = max(round(volume_ml / scanner.voxel_ml), _FEWEST_VOXELS)
    limit = np.partition(radius.ravel(), count - 1)[count - 1]
    return np.asarray(radius <= limit)


def ct_image(
    radius: Floats, mask: Booleans, *, heterogeneity: float, scanner: Scanner, rng: np.random.Generator
) -> Floats:
    """Return the image in HU as the scanner shows it: an organ in fat, with a darker lesion, uneven as told."""
    spacing = np.array(scanner.spacing_mm)
    length = np.exp(_LENGTH_GROWS * heterogeneity + _LENGTH_VARIES * rng.standard_normal())
    amplitude = np.exp(_AMPLITUDE_GROWS * heterogeneity + _AMPLITUDE_VARIES * rng.standard_normal())
    lesion = LESION_HU + _AMPLITUDE_HU * amplitude * _field(scanner, _LENGTH_MM * length, rng)
    organ = ORGAN_HU + 5.0 * _field(scanner, 9.0, rng) + 55.0 * _vessels(scanner, rng)
    _, y, x = np.indices(scanner.shape)
    middle = (np.array(scanner.shape) - 1) / 2
    from_middle = np.hypot((y - middle[1]) / 1.28, (x - middle[2]) / 1.36) / middle[1]
    body = np.clip((1 - from_middle) * middle[1] + 0.5, 0, 1)
    # The edge is as wide as a voxel: how far a voxel lies inside, in voxels.
    edge = float(radius[mask].max())
    depth = (edge - radius) / edge * np.cbrt(3 * mask.sum() / (4 * np.pi))
    share = np.clip(0.5 + depth, 0, 1)
    picture = share * lesion + (1 - share) * (body * organ + (1 - body) * FAT_HU)
    noise = rng.standard_normal(scanner.shape) * scanner.noise_hu
    blurred = gaussian_filter(picture, (0, *(0.5 * scanner.blur_mm / spacing[1:])), mode="nearest")
    shown = gaussian_filter(noise, (0, *(scanner.blur_mm / spacing[1:])), mode="wrap")
    return np.asarray(scanner.gain * blurred + scanner.offset_hu + shown, dtype=np.float64)


def _field(scanner: Scanner, length_mm: float, rng: np.random.Generator) -> Floats:
    """Return a random field of mean 0 and standard deviation 1, smooth over a length."""
    sigma = length_mm / np.sqrt(2) / np.array(scanner.spacing_mm)
    field = gaussian_filter(rng.standard_normal(scanner.shape), sigma, mode="wrap")
    return np.asarray((field - field.mean()) / field.std())


def _vessels(scanner: Scanner, rng: np.random.Generator) -> Floats:
    """Return (n_slices, n_rows, n_columns) how much of each voxel is vessel: three that cross the slices aslant."""
    _, y, x = np.indices(scanner.shape, dtype=np.float64)
    z = np.arange(scanner.shape[0])[:, None, None] - (scanner.shape[0] - 1) / 2
    found = np.zeros(scanner.shape)
    for _ in range(3):
        at, step = rng.uniform(6, scanner.shape[1] - 6, size=2), rng.uniform(-1.2, 1.2, size=2)
        apart = np.hypot(y - at[0] - step[0] * z, x - at[1] - step[1] * z) * scanner.spacing_mm[1]
        found = np.maximum(found, np.clip((rng.uniform(2.5, 5.0) - apart) / 2.5, 0, 1))
    return found
