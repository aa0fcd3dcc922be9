"""Registration of bodies whose position is known exactly, its refusals, and resampling against an independent interpolation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from theracast_features.imaging.registration import (
    RegistrationSection,
    RigidRegistration,
    register_rigid,
    resample,
    resample_mask,
)

SHAPE, SPACING = (30, 56, 60), (4.0, 2.5, 2.5)  # (z, y, x)
QUICK = RegistrationSection(sampled_fraction=0.1, iterations=100)


def _affine(
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    *,
    centre: tuple[float, ...] = (0, 0, 0),
    turn: np.ndarray | None = None,
) -> np.ndarray:
    """Grid whose middle lies at `centre` (LPS mm)."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) * np.array(spacing[::-1])
    affine[:3, 3] = np.array(centre) - affine[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
    return affine


def _body(places: np.ndarray) -> np.ndarray:
    """A body with organs as a smooth function of place (..., 3) in mm, so that no grid is favoured."""
    draw = np.random.default_rng(11)
    outline = 1 / (1 + np.exp((np.linalg.norm(places / [58, 50, 52], axis=-1) - 1) * 15))
    organs = np.zeros(places.shape[:-1])
    for _ in range(14):
        middle, width, level = draw.uniform(-38, 38, 3), draw.uniform(6, 14, 3), draw.uniform(-60, 90)
        organs += level * np.exp(-0.5 * (((places - middle) / width) ** 2).sum(axis=-1))
    return outline * (100 + organs)


def _lesion(places: np.ndarray) -> np.ndarray:
    return np.linalg.norm((places - [15, -10, 8]) / [18, 14, 16], axis=-1) < 1


def _places(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    z, y, x = np.meshgrid(*[np.arange(size) for size in shape], indexing="ij")
    return np.stack([x, y, z], axis=-1) @ affine[:3, :3].T + affine[:3, 3]


def _movement(seed: int, *, degrees: float = 8.0, shift_mm: float = 12.0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    matrix = np.eye(4)
    axis = draw.normal(size=3)
    matrix[:3, :3] = Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    direction = draw.normal(size=3)
    matrix[:3, 3] = shift_mm * direction / np.linalg.norm(direction)
    return matrix


def _pair(seed: int, **how: float) -> tuple[np.ndarray, ...]:
    """Fixed and moving volume with their grids and lesions, and the true matrix; the second is another contrast, with noise."""
    truth = _movement(seed, **how)
    fixed_affine = _affine(SHAPE, SPACING)
    draw = np.random.default_rng(seed)
    turn = Rotation.from_euler("z", 10, degrees=True).as_matrix()
    other_shape, other_spacing = (34, 50, 52), (3.6, 2.9, 2.8)
    moving_affine = _affine(other_shape, other_spacing, centre=(3, -4, 2), turn=turn)
    # The anatomy at p in the fixed volume lies at truth p in the moving one.
    origin = _places(other_shape, moving_affine) - truth[:3, 3]
    origin = origin @ truth[:3, :3]
    fixed = _body(_places(SHAPE, fixed_affine)) + draw.normal(0, 2, SHAPE)
    moving = 300 - 0.8 * _body(origin) + 20 * np.sin(_body(origin) / 20) + draw.normal(0, 3, other_shape)
    return fixed, fixed_affine, moving, moving_affine, _lesion(_places(SHAPE, fixed_affine)), _lesion(origin), truth


def _error_mm(found: np.ndarray, truth: np.ndarray) -> float:
    """Largest distance over the body between where a place is taken and where it belongs."""
    places = np.array(np.meshgrid([-50, 0, 50], [-45, 0, 45], [-45, 0, 45])).reshape(3, -1)
    difference = (found - truth)[:3, :3] @ places + (found - truth)[:3, 3:]
    return float(np.linalg.norm(difference, axis=0).max())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_recovers_a_known_movement_between_two_contrasts(seed: int) -> None:
    """Within less than one voxel (2.5 mm) everywhere in the body, on a grid that is turned and coarser."""
    fixed, fixed_affine, moving, moving_affine, lesion, other, truth = _pair(seed)
    found = register_rigid(
        fixed, fixed_affine, moving, moving_affine, seed=5, section=QUICK, fixed_mask=lesion, moving_mask=other
    )
    assert _error_mm(np.eye(4), truth) > 10
    assert _error_mm(found.matrix, truth) < 2.0
    assert found.information_after > found.information_before + 0.1
    assert found.dice_after > 0.9 > found.dice_before
    assert found.usable
    assert found.overlap == 1
    assert found.inconsistency_mm < 1.5
    assert found.turn_degrees == pytest.approx(8, abs=1.5)
    np.testing.assert_allclose(found.matrix[:3, :3] @ found.matrix[:3, :3].T, np.eye(3), atol=1e-9)
    json.dumps(found.to_json(), allow_nan=False)
    brought = resample(moving, moving_affine, SHAPE, fixed_affine, matrix=found.matrix)
    inside = np.isfinite(brought) & (np.linalg.norm(_places(SHAPE, fixed_affine), axis=-1) < 40)
    expected = 300 - 0.8 * fixed[inside] + 20 * np.sin(fixed[inside] / 20)
    assert np.corrcoef(brought[inside], expected)[0, 1] > 0.9


def test_one_seed_gives_one_answer_and_the_same_place_stays() -> None:
    fixed, fixed_affine, *_ = _pair(1)
    moving = 200 - fixed
    section = QUICK.model_copy(update={"max_inconsistency_mm": None})
    first, second = (
        register_rigid(fixed, fixed_affine, moving, fixed_affine, seed=3, section=section) for _ in range(2)
    )
    np.testing.assert_allclose(first.matrix, second.matrix, atol=1e-9)
    assert _error_mm(first.matrix, np.eye(4)) < 0.5
    assert first.displacement_max_mm < 0.7
    assert np.isnan(first.dice_after)
    assert np.isnan(first.inconsistency_mm)
    assert first.to_json()["dice_after"] is None


def test_volumes_far_apart_meet_by_their_centres() -> None:
    """Scanners whose frames do not agree: half a metre apart is found by `best`, and refused for its size by default."""
    fixed, fixed_affine, moving, moving_affine, *_, truth = _pair(2)
    away = np.eye(4)
    away[:3, 3] = [500, 0, -200]
    found = register_rigid(fixed, fixed_affine, moving, away @ moving_affine, seed=1, section=QUICK)
    assert _error_mm(found.matrix, away @ truth) < 2.0
    assert np.isnan(found.information_before)
    assert any("mean displacement" in reason for reason in found.refusals)
    frame = QUICK.model_copy(update={"start": "frame"})
    lost = register_rigid(fixed, fixed_affine, moving, away @ moving_affine, seed=1, section=frame)
    assert any("do not overlap enough" in reason for reason in lost.refusals)
    assert lost.overlap == 0
    json.dumps(lost.to_json(), allow_nan=False)


def test_a_search_that_loses_the_overlap_is_a_refusal() -> None:
    """Noise against noise at the rim of each other: SimpleITK gives up on most of these, and none passes."""
    draw = np.random.default_rng(0)
    grid = np.diag([2.0, 2.0, 2.0, 1.0])
    section = RegistrationSection(start="frame", sampled_fraction=0.3, iterations=60)
    told = []
    for number in range(6):
        one, other = draw.normal(size=(2, 12, 14, 14))
        beside = grid.copy()
        beside[:2, 3] = 28 - draw.uniform(2, 9), draw.uniform(-20, 20)
        told += [register_rigid(one, grid, other, beside, seed=number, section=section).refusals]
    assert all(told)
    assert sum(any("do not overlap enough" in reason for reason in reasons) for reasons in told) >= 3


def test_regions_that_do_not_meet_are_refused() -> None:
    fixed, fixed_affine, moving, moving_affine, lesion, other, _ = _pair(3)
    wrong = np.roll(other, 14, axis=2)
    found: RigidRegistration = register_rigid(
        fixed, fixed_affine, moving, moving_affine, seed=5, section=QUICK, fixed_mask=lesion, moving_mask=wrong
    )
    assert not found.usable
    assert any("Dice" in reason for reason in found.refusals)


def test_resampling_equals_an_independent_interpolation() -> None:
    draw = np.random.default_rng(0)
    volume = draw.normal(size=(9, 11, 13))
    turn = Rotation.from_euler("xyz", [20, -10, 30], degrees=True).as_matrix()
    moving_affine = _affine(volume.shape, (3.0, 1.5, 1.2), centre=(4, 5, -6), turn=turn)
    shape, affine = (8, 7, 6), _affine((8, 7, 6), (2.0, 2.0, 2.0), centre=(3, 5, -5))
    matrix = _movement(4, degrees=15, shift_mm=2)
    places = _places(shape, affine) @ matrix[:3, :3].T + matrix[:3, 3]
    back = np.linalg.inv(moving_affine)
    indices = np.moveaxis((places @ back[:3, :3].T + back[:3, 3])[..., ::-1], -1, 0)
    expected = ndimage.map_coordinates(volume, indices, order=1, mode="constant", cval=np.nan)
    found = resample(volume, moving_affine, shape, affine, matrix=matrix)
    both = np.isfinite(expected) & np.isfinite(found)
    assert both.sum() > 100
    np.testing.assert_allclose(found[both], expected[both], atol=1e-6)
    np.testing.assert_array_equal(resample_mask(volume > 0, moving_affine, volume.shape, moving_affine), volume > 0)


def test_errors_say_what_to_mend() -> None:
    volume = np.random.default_rng(0).normal(size=(6, 6, 6))
    good = np.eye(4)
    sheared = np.eye(4)
    sheared[1, 2] = 0.3
    with pytest.raises(ValueError, match="sheared"):
        register_rigid(volume, sheared, volume, good, seed=1)
    with pytest.raises(ValueError, match="without a number"):
        register_rigid(np.where(volume > 2, np.nan, volume) * np.nan, good, volume, good, seed=1)
    with pytest.raises(ValueError, match="one intensity"):
        register_rigid(np.ones((6, 6, 6)), good, volume, good, seed=1)
    with pytest.raises(ValueError, match="3 dimensions"):
        register_rigid(np.ones((6, 6)), good, volume, good, seed=1)


def test_a_real_ct_finds_back(shared_imaging: Path) -> None:
    """The lung CT of the IBSI, moved by a known amount and interpolated to a coarser grid by another library."""
    import nibabel

    folder = shared_imaging / "ibsi_1_ct_radiomics_phantom" / "nifti" / "image"
    image = nibabel.load(next(folder.glob("*.nii*")))
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine  # NIfTI's axes run to the right and front
    ct = np.asarray(image.dataobj, dtype=np.float64).transpose(2, 1, 0)
    ct, affine = ct[:, ::2, ::2], affine @ np.diag([2.0, 2.0, 1.0, 1.0])
    truth = _movement(9, degrees=4, shift_mm=8)
    middle = affine[:3, :3] @ ((np.array(ct.shape[::-1]) - 1) / 2) + affine[:3, 3]
    truth[:3, 3] += middle - truth[:3, :3] @ middle
    shape = (ct.shape[0], 90, 90)
    grid = _affine(shape, (3.0, 2.5, 2.5), centre=tuple(middle))
    origin = (_places(shape, grid) - truth[:3, 3]) @ truth[:3, :3]
    back = np.linalg.inv(affine)
    indices = np.moveaxis((origin @ back[:3, :3].T + back[:3, 3])[..., ::-1], -1, 0)
    moving = ndimage.map_coordinates(ct, indices, order=1, mode="nearest")
    quick = QUICK.model_copy(update={"sampled_fraction": 0.03, "max_inconsistency_mm": None})
    found = register_rigid(ct, affine, moving, grid, seed=1, section=quick)
    places = _places(ct.shape, affine)[5:-5:10, 20:-20:10, 20:-20:10].reshape(-1, 3)
    difference = places @ (found.matrix - truth)[:3, :3].T + (found.matrix - truth)[:3, 3]
    assert np.linalg.norm(difference, axis=1).max() < np.linalg.norm(affine[:3, 0])
    assert found.usable


@pytest.mark.parametrize("patient", ["STS_008", "STS_025"])
def test_soft_tissue_against_pet_is_refused(shared_imaging: Path, patient: str) -> None:
    """Small fields of T1 MR and PET that share a frame: mutual information rises by a turn that is wrong, and is not believed."""
    import pydicom

    def read(name: str) -> tuple[np.ndarray, np.ndarray]:
        slices = [pydicom.dcmread(path) for path in (shared_imaging / "sts" / patient / name / "image").glob("*.dcm")]
        first = slices[0]
        across, down = np.array(first.ImageOrientationPatient, dtype=float).reshape(2, 3)
        slices.sort(key=lambda one: float(np.cross(across, down) @ np.array(one.ImagePositionPatient, dtype=float)))
        start, end = (np.array(one.ImagePositionPatient, dtype=float) for one in (slices[0], slices[-1]))
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1] = across * float(first.PixelSpacing[1]), down * float(first.PixelSpacing[0])
        affine[:3, 2], affine[:3, 3] = (end - start) / (len(slices) - 1), start
        return np.stack([one.pixel_array * float(one.get("RescaleSlope", 1) or 1) for one in slices]), affine

    (mr, mr_affine), (pet, pet_affine) = read("MR_T1"), read("PET")
    found = register_rigid(mr, mr_affine, pet, pet_affine, seed=1, section=QUICK)
    assert found.information_after > found.information_before + 0.05
    assert any("there and back again" in reason for reason in found.refusals)
