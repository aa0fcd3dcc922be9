"""The picture of a region: where its voxels come from, and that its text is read back or refused."""

from __future__ import annotations

import base64
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from theracast_data.errors import ImageError
from theracast_features.imaging.patch import cut_patch, decode_patch, decode_patches, encode_patch
from theracast_features.imaging.section import ImageMeasures, Patch

CUBE = Patch(voxels=8, spacing_mm=2.0, window=(0.0, 255.0))


def ball(
    shape: tuple[int, int, int], centre: tuple[float, float, float], radius: float, spacing: NDArray[np.float64]
) -> NDArray[np.bool_]:
    places = np.indices(shape).transpose(1, 2, 3, 0) - np.array(centre)
    return np.asarray(((places * spacing) ** 2).sum(axis=-1) <= radius**2)


def test_on_the_grid_of_the_image_the_voxels_are_those_of_the_image() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 22, 24)).astype(float)
    mask = np.zeros(image.shape, dtype=bool)
    mask[6:12, 8:12, 5:13] = True
    picture = cut_patch(image, mask, spacing_mm=(2.0, 2.0, 2.0), patch=CUBE)
    box = (slice(5, 13), slice(6, 14), slice(5, 13))
    np.testing.assert_array_equal(picture[0], image[box])
    np.testing.assert_array_equal(picture[1], mask[box])


def test_a_slope_in_mm_is_the_same_whatever_the_spacing_of_the_image() -> None:
    """A linear image is read exactly between its voxels, so each step of the cube is 2 mm of it."""
    for spacing in ((2.0, 2.0, 2.0), (1.0, 0.5, 0.5), (5.0, 1.0, 1.0), (3.0, 4.0, 2.5)):
        steps = np.array(spacing)
        shape = tuple(int(120 / step) for step in spacing)
        along = np.indices(shape).transpose(1, 2, 3, 0) * steps
        image = along @ [1.0, 0.5, 0.25]
        mask = ball(shape, tuple(length // 2 for length in shape), 9.0, steps)
        window = (0.0, 255.0)
        picture = cut_patch(image, mask, spacing_mm=spacing, patch=Patch(voxels=12, spacing_mm=2.0, window=window))
        middle = np.argwhere(mask).mean(axis=0) * steps
        offsets = (np.arange(12) - 5.5) * 2.0
        grid = np.stack(np.meshgrid(*(middle[axis] + offsets for axis in range(3)), indexing="ij"), axis=-1)
        assert np.abs(picture[0] - grid @ [1.0, 0.5, 0.25]).max() <= 0.51
        assert picture[1].sum() * 8 == pytest.approx(4 / 3 * np.pi * 9**3, rel=0.2)


def test_the_window_is_what_is_told_apart_and_the_rest_of_the_world_is_its_lower_end() -> None:
    image = np.full((8, 8, 8), 40.0)
    image[4, 4, 4], image[4, 4, 5], image[4, 5, 4] = np.nan, 4000.0, -4000.0
    mask = np.zeros(image.shape, dtype=bool)
    mask[0:2, 0:2, 0:2] = True
    picture = cut_patch(image, mask, spacing_mm=(2.0,) * 3, patch=Patch(voxels=8, window=(-160, 240)))
    assert set(picture[0, :3].ravel()) == {0}  # outside the image
    assert picture[0, 3, 3, 3] == round(255 * 200 / 400)
    whole = cut_patch(image, np.ones_like(mask), spacing_mm=(2.0,) * 3, patch=Patch(voxels=8, window=(-160, 240)))
    assert [whole[0, 4, 4, 4], whole[0, 4, 4, 5], whole[0, 4, 5, 4]] == [0, 255, 0]
    with pytest.raises(ImageError, match="no voxel"):
        cut_patch(image, np.zeros_like(mask), spacing_mm=(2.0,) * 3, patch=CUBE)


def test_what_is_finer_than_the_cube_makes_no_false_pattern() -> None:
    """Stripes one voxel wide at 0.5 mm, read every 2 mm, would be all dark or all bright without smoothing."""
    stripes = np.broadcast_to(np.arange(120) % 2 * 255.0, (30, 30, 120))
    mask = np.zeros(stripes.shape, dtype=bool)
    mask[10:20, 10:20, 50:70] = True
    picture = cut_patch(stripes, mask, spacing_mm=(2.0, 2.0, 0.5), patch=CUBE)
    assert np.abs(picture[0].astype(float) - 127.5).max() < 10


def test_a_picture_survives_its_text_and_is_small() -> None:
    rng = np.random.default_rng(1)
    steps = np.array([2.0, 2.0, 2.0])
    smooth = 100 + 40 * np.sin(np.indices((40, 40, 40)).sum(axis=0) / 6) + rng.normal(0, 3, (40, 40, 40))
    picture = cut_patch(
        smooth, ball((40, 40, 40), (20, 20, 20), 20.0, steps), spacing_mm=(2.0,) * 3, patch=Patch(window=(0, 255))
    )
    text = encode_patch(picture)
    np.testing.assert_array_equal(decode_patch(text), picture)
    np.testing.assert_array_equal(decode_patches([text, text]), np.stack([picture, picture]))
    assert text == encode_patch(decode_patch(text))
    assert len(text) < 20_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no base64 at all!",
        base64.b64encode(b"no zlib").decode(),
        encode_patch(np.zeros((2, 8, 8, 8), np.uint8))[:12],
        base64.b64encode(zlib.compress(bytes(2 * 8**3 - 1))).decode(),
        base64.b64encode(zlib.compress(bytes(50_000_000))).decode(),
    ],
    ids=["empty", "letters", "bytes", "cut", "short", "bomb"],
)
def test_what_is_no_picture_is_refused(text: str) -> None:
    with pytest.raises(ImageError, match=r"is damaged .*theracast images extract"):
        decode_patch(text)


def test_pictures_of_two_sizes_do_not_stand_side_by_side() -> None:
    texts = [encode_patch(np.zeros((2, edge, edge, edge), np.uint8)) for edge in (8, 9)]
    with pytest.raises(ImageError, match="8 and 9 voxels"):
        decode_patches(texts)


def test_a_picture_is_part_of_what_is_measured() -> None:
    plain = ImageMeasures(modality="CT")
    pictured = ImageMeasures(modality="CT", patch=CUBE)
    assert len({plain.digest, pictured.digest, ImageMeasures(modality="CT", patch=Patch(window=(0, 255))).digest}) == 3
    with pytest.raises(ValidationError, match="ends where it begins"):
        Patch(window=(5, 5))
