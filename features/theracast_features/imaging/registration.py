"""Rigid registration of one volume onto another's grid, with its quality, and refusal where it cannot be trusted.

Volumes are (n_slices, n_rows, n_columns) with an affine (4, 4) that takes (column, row, slice, 1) to millimetres in DICOM's
patient axes (LPS: to the patient's left, back, head). The movement is that of a rigid body, as a
head or a pelvis; lungs, bowel or a breast change their shape, and the quality tells so only in part.
"""

# SimpleITK 2.5 calls itself typed, but its functions are not.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name under which its own texts know it
from numpy.typing import NDArray
from pydantic import Field

from theracast_data.section import Section

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class RegistrationSection(Section):
    """How volumes are registered, and what is refused."""

    start: Literal["best", "frame", "centres"] = Field(
        "best",
        description="Where the search starts: `frame` patient coordinates as they are, `centres` both volumes' middles on "
        "each other, `best` whichever has the higher mutual information.",
    )
    bins: int = Field(32, ge=8, description="Of each intensity, for mutual information.")
    sampled_fraction: float = Field(0.2, gt=0, le=1, description="Part of the fixed volume's voxels that is compared.")
    shrink: tuple[int, ...] = Field((4, 2, 1), min_length=1, description="Shrinkage of the grid, one per resolution.")
    smooth_mm: tuple[float, ...] = Field((4.0, 2.0, 0.0), description="Smoothing (mm) at each resolution.")
    iterations: int = Field(200, ge=1, description="At most, at each resolution.")
    clip_percent: float = Field(0.5, ge=0, lt=50, description="Of the intensities cut off at either end (%).")
    threads: int = Field(1, ge=1, description="With one the result is the same on every run, to rounding.")
    max_displacement_mm: float = Field(150.0, gt=0, description="A larger mean displacement (mm) is refused.")
    max_turn_degrees: float = Field(45.0, gt=0, description="A larger turn (degrees) is refused.")
    min_overlap: float = Field(
        0.5, ge=0, le=1, description="Least part of the fixed volume (or region) that is covered."
    )
    min_gain: float = Field(0.0, description="Least gain of mutual information (nats) over the start in the frame.")
    max_inconsistency_mm: float | None = Field(
        5.0,
        gt=0,
        description="The search is run backwards as well; a larger mean distance (mm) between a place and where there and "
        "back again leads is refused. Null leaves the way back out and halves the time.",
    )
    min_dice: float = Field(
        0.5, ge=0, le=1, description="Least overlap of both regions after it, where both are given."
    )


@dataclass(frozen=True)
class RigidRegistration:
    """A rigid movement from the fixed to the moving volume, and how good it is.

    Attributes:
        matrix: (4, 4) takes a place in the fixed volume to the same anatomy in the moving one, both in LPS mm.
        turn_degrees: angle of its rotation.
        information_before, information_after: mutual information of the voxels that overlap, nats; before: patient
            coordinates as they are. NaN where nothing overlaps.
        displacement_mean_mm, displacement_max_mm: how far the voxels of the fixed volume (or region) move.
        overlap: part of them that lies inside the moving volume.
        inconsistency_mm: mean distance between them and where there and, by a search of its own, back again leads; NaN if
            that was left out. Higher mutual information alone does not tell a wrong answer from a right one: small fields
            of view of soft tissue against PET gained 0.1 nats by turning 12 degrees away, and failed here.
        dice_before, dice_after: overlap of both regions; NaN unless both are given.
        refusals: why it should not be used; empty if it may.
        seed: of the sampling.
    """

    matrix: Floats
    turn_degrees: float
    information_before: float
    information_after: float
    displacement_mean_mm: float
    displacement_max_mm: float
    overlap: float
    inconsistency_mm: float
    dice_before: float
    dice_after: float
    refusals: tuple[str, ...]
    seed: int

    @property
    def usable(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.refusals

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; numbers that are missing are null."""
        record: dict[str, Any] = {**self.__dict__, "matrix": self.matrix.tolist(), "refusals": list(self.refusals)}
        return {
            key: None if isinstance(value, float) and not np.isfinite(value) else value for key, value in record.items()
        }


def register_rigid(
    fixed: NDArray[np.floating],
    fixed_affine: Floats,
    moving: NDArray[np.floating],
    moving_affine: Floats,
    *,
    seed: int,
    section: RegistrationSection | None = None,
    fixed_mask: Mask | None = None,
    moving_mask: Mask | None = None,
) -> RigidRegistration:
    """Return the rigid movement that makes the moving volume look most like the fixed one by mutual information.

    Regions do not steer the search; they only judge it.

    Args:
        fixed_mask, moving_mask: the same organ or lesion in both, on the grid of each.

    Raises:
        ValueError: a volume is not three-dimensional, has no contrast or numbers missing, or its grid is sheared.

    Source: Mattes D et al. IEEE Trans Med Imaging 2003;22:120-128 (metric), by SimpleITK.
    """
    rules = section or RegistrationSection()
    still, other = _image(_clipped(fixed, rules), fixed_affine), _image(_clipped(moving, rules), moving_affine)
    information = _Information(still, other, rules, seed)
    middles = _middle(fixed.shape, fixed_affine), _middle(moving.shape, moving_affine)
    matrix, held = _searched(still, other, middles, rules=rules, seed=seed)
    back = None
    if rules.max_inconsistency_mm is not None:
        back, returned = _searched(other, still, middles[::-1], rules=rules, seed=seed + 1)
        held = held and returned
    return _judged(
        matrix,
        information,
        (fixed.shape, fixed_affine, fixed_mask),
        (moving.shape, moving_affine, moving_mask),
        back=back,
        held=held,
        rules=rules,
        seed=seed,
    )


def resample(
    moving: NDArray[np.floating] | Mask,
    moving_affine: Floats,
    shape: tuple[int, int, int],
    affine: Floats,
    *,
    matrix: Floats | None = None,
    interpolation: Literal["linear", "nearest", "cubic"] = "linear",
    outside: float = np.nan,
) -> Floats:
    """Return the moving volume on another grid, float64; `outside` where it has no voxels.

    A mask is interpolated as 0 and 1, `outside` 0; `>= 0.5` makes it a mask again (`resample_mask`).

    Args:
        shape: (n_slices, n_rows, n_columns) of the grid, with its affine.
        matrix: (4, 4) of `RigidRegistration`; without it both lie in one frame.
    """
    interpolators = {"linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor, "cubic": sitk.sitkBSpline3}
    source = _image(moving.astype(np.float64), moving_affine)
    spacing, direction = _geometry(affine)
    answer = sitk.Resample(
        source,
        [int(size) for size in shape[::-1]],
        _transform(np.eye(4) if matrix is None else matrix),
        interpolators[interpolation],
        affine[:3, 3].tolist(),
        spacing.tolist(),
        direction.ravel().tolist(),
        float(outside),
        sitk.sitkFloat64,
    )
    return np.asarray(sitk.GetArrayFromImage(answer), dtype=np.float64)


def resample_mask(
    mask: Mask, moving_affine: Floats, shape: tuple[int, int, int], affine: Floats, *, matrix: Floats | None = None
) -> Mask:
    """Return a region on another grid: the voxels of which at least half is inside, by linear interpolation."""
    part = resample(mask, moving_affine, shape, affine, matrix=matrix, outside=0.0)
    return np.asarray(part >= 0.5)


class _Information:
    """Mutual information of two volumes as a function of the movement between them."""

    def __init__(self, fixed: sitk.Image, moving: sitk.Image, rules: RegistrationSection, seed: int) -> None:
        self._fixed, self._moving = fixed, moving
        self._method = _method(rules, seed)

    def of(self, matrix: Floats) -> float:
        """Return nats, higher is more alike; NaN where the volumes do not overlap enough to tell."""
        self._method.SetInitialTransform(_transform(matrix))
        try:
            return -float(self._method.MetricEvaluate(self._fixed, self._moving))
        except RuntimeError:  # SimpleITK: too few samples lie in the moving volume
            return np.nan


def _method(rules: RegistrationSection, seed: int) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(rules.threads)
    method.SetMetricAsMattesMutualInformation(rules.bins)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(rules.sampled_fraction, _itk_seed(seed))
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _optimised(
    fixed: sitk.Image, moving: sitk.Image, start: Floats, centre: Floats, *, rules: RegistrationSection, seed: int
) -> Floats:
    """Return the best matrix from one start, coarse to fine."""
    method = _method(rules, seed)
    levels = [
        (shrink, smooth)
        for shrink, smooth in zip(rules.shrink, rules.smooth_mm, strict=True)
        if shrink == 1 or min(fixed.GetSize()) // shrink >= 8
    ]
    method.SetShrinkFactorsPerLevel([shrink for shrink, _ in levels])
    method.SetSmoothingSigmasPerLevel([smooth for _, smooth in levels])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    # The usual relaxation of 0.5 ends up to 7 mm away on phantoms of known position; 0.9 ends within half a voxel.
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0,
        minStep=5e-4,
        numberOfIterations=rules.iterations,
        relaxationFactor=0.9,
        gradientMagnitudeTolerance=1e-8,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    movement = sitk.Euler3DTransform()
    movement.SetCenter(centre.tolist())
    movement.SetMatrix(start[:3, :3].ravel().tolist())
    movement.SetTranslation((start[:3, :3] @ centre + start[:3, 3] - centre).tolist())
    method.SetInitialTransform(movement, inPlace=True)
    method.Execute(fixed, moving)
    turn = np.array(movement.GetMatrix()).reshape(3, 3)
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    matrix[:3, 3] = centre + np.array(movement.GetTranslation()) - turn @ centre
    return matrix


def _searched(
    fixed: sitk.Image, moving: sitk.Image, middles: tuple[Floats, Floats], *, rules: RegistrationSection, seed: int
) -> tuple[Floats, bool]:
    """Return the matrix that is found from the better start; the start, and False, where the volumes lose their overlap."""
    information = _Information(fixed, moving, rules, seed)
    centred = np.eye(4)
    centred[:3, 3] = middles[1] - middles[0]
    starts = {"frame": [np.eye(4)], "centres": [centred], "best": [np.eye(4), centred]}[rules.start]
    first = max(starts, key=lambda one: np.nan_to_num(information.of(one), nan=-np.inf))
    if np.isnan(information.of(first)):
        return first, False
    try:
        return _optimised(fixed, moving, first, middles[0], rules=rules, seed=seed), True
    except RuntimeError as error:
        if "sufficiently overlap" not in str(error):
            raise
        return first, False


def _middle(shape: tuple[int, ...], affine: Floats) -> Floats:
    return np.asarray(affine[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2) + affine[:3, 3])


Grid = tuple[tuple[int, ...], Floats, Mask | None]


def _judged(
    matrix: Floats,
    information: _Information,
    fixed: Grid,
    moving: Grid,
    *,
    back: Floats | None,
    held: bool,
    rules: RegistrationSection,
    seed: int,
) -> RigidRegistration:
    """Return the movement with its quality."""
    shape, affine, mask = fixed
    voxels = np.argwhere(mask) if mask is not None and mask.any() else _lattice(shape)
    places = voxels[:, ::-1] @ affine[:3, :3].T + affine[:3, 3]
    moved = places @ matrix[:3, :3].T + matrix[:3, 3]
    distances = np.linalg.norm(moved - places, axis=1)
    returned = np.nan if back is None else np.linalg.norm(moved @ back[:3, :3].T + back[:3, 3] - places, axis=1).mean()
    to_voxels = np.linalg.inv(moving[1])
    indices = moved @ to_voxels[:3, :3].T + to_voxels[:3, 3]
    inside = ((indices > -0.5) & (indices < np.array(moving[0][::-1]) - 0.5)).all(axis=1)
    before, after = information.of(np.eye(4)), information.of(matrix)
    turn = float(np.degrees(np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1))))
    dice_before, dice_after = (_dice(fixed, moving, one) for one in (np.eye(4), matrix))
    checks = {
        f"the mean displacement of {distances.mean():.1f} mm is above {rules.max_displacement_mm:g}": (
            distances.mean() > rules.max_displacement_mm
        ),
        f"the turn of {turn:.1f} degrees is above {rules.max_turn_degrees:g}": turn > rules.max_turn_degrees,
        f"only {100 * inside.mean():.0f} % of the fixed volume is covered, less than {100 * rules.min_overlap:g} %": (
            inside.mean() < rules.min_overlap
        ),
        f"there and back again ends {returned:.1f} mm away, above {rules.max_inconsistency_mm} mm": bool(
            returned > (rules.max_inconsistency_mm or np.inf)
        ),
        "the volumes do not overlap enough to be compared": bool(np.isnan(after)) or not held,
        f"mutual information did not rise by {rules.min_gain:g} nats": bool(after < before + rules.min_gain),
        f"the regions overlap by a Dice of {dice_after:.2f}, below {rules.min_dice:g}": bool(
            dice_after < rules.min_dice
        ),
    }
    return RigidRegistration(
        matrix=matrix,
        turn_degrees=turn,
        information_before=before,
        information_after=after,
        displacement_mean_mm=float(distances.mean()),
        displacement_max_mm=float(distances.max()),
        overlap=float(inside.mean()),
        inconsistency_mm=float(returned),
        dice_before=dice_before,
        dice_after=dice_after,
        refusals=tuple(reason for reason, wrong in checks.items() if wrong),
        seed=seed,
    )


def _lattice(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return at most 20 places along each axis of a grid, ends included."""
    axes = [np.linspace(0, size - 1, min(size, 20)) for size in shape]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)


def _dice(fixed: Grid, moving: Grid, matrix: Floats) -> float:
    if fixed[2] is None or moving[2] is None:
        return np.nan
    n_slices, n_rows, n_columns = fixed[0]
    brought = resample_mask(moving[2], moving[1], (n_slices, n_rows, n_columns), fixed[1], matrix=matrix)
    size = int(fixed[2].sum()) + int(brought.sum())
    return 2.0 * int((fixed[2] & brought).sum()) / size if size else np.nan


def _clipped(volume: NDArray[np.floating], rules: RegistrationSection) -> NDArray[np.float32]:
    """Return the volume without its extreme intensities, which would take most of the histogram."""
    if volume.ndim != 3 or min(volume.shape) < 4:
        raise ValueError(f"a volume has 3 dimensions of at least 4 voxels (found {volume.shape})")
    if not np.isfinite(volume).all():
        raise ValueError("the volume has voxels without a number. Fill what lies outside the body before.")
    low, high = np.percentile(volume, [rules.clip_percent, 100 - rules.clip_percent])
    if low == high:
        low, high = volume.min(), volume.max()
    if low == high:
        raise ValueError("the volume has one intensity throughout, so nothing can be registered to it.")
    clipped: NDArray[np.float32] = np.clip(volume, low, high).astype(np.float32)
    return clipped


def _image(volume: NDArray[Any], affine: Floats) -> sitk.Image:
    image = sitk.GetImageFromArray(volume)
    spacing, direction = _geometry(affine)
    image.SetSpacing(spacing.tolist())
    image.SetDirection(direction.ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def _geometry(affine: Floats) -> tuple[Floats, Floats]:
    """Return spacing (x, y, z) and the directions of the axes as columns."""
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.allclose(affine[3], [0, 0, 0, 1]):
        raise ValueError("an affine is (4, 4) with the last row 0 0 0 1, from (column, row, slice, 1) to mm")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if (spacing == 0).any():
        raise ValueError("the affine has an axis of length 0. Correct the spacing.")
    direction = affine[:3, :3] / spacing
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-3):
        raise ValueError(
            "the grid is sheared (a tilted gantry, or slices shifted against each other). Resample it to a right-angled "
            "grid first."
        )
    # To the last digit, which SimpleITK asks for.
    left, _, right = np.linalg.svd(direction)
    return spacing, left @ right


def _transform(matrix: Floats) -> sitk.AffineTransform:
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    return transform


def _itk_seed(seed: int) -> int:
    """Return a seed that ITK takes: 32 bits, and not 0, which stands for the clock."""
    return seed % (2**32 - 1) + 1
