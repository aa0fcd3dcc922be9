"""A small picture of a region: a cube around it on a coarse grid, as one text that an event can carry."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from theracast_data.errors import ImageError
from theracast_features.imaging.section import Patch

Bytes = NDArray[np.uint8]

_MOST_BYTES = 2 * 64**3
"""What a text may unfold to; more is no picture of ours."""


def cut_patch(
    image: NDArray[np.floating],
    mask: NDArray[np.bool_],
    *,
    spacing_mm: tuple[float, float, float],
    patch: Patch,
) -> Bytes:
    """Return uint8 (2, n, n, n): the image, its window scaled to 0..255, and the region as 0 and 1.

    The cube lies around the region's centre of mass, along the axes of the image. Both are smoothed before they are read at
    larger distances than they were made, as scikit-image does it (standard deviation (ratio - 1) / 2 voxels), so that what
    is finer than the grid does not turn into a false pattern. What lies outside the image, and what has no number, is at
    the lower end of the window.

    Args:
        image: (n_slices, n_rows, n_columns).
        mask: same shape; a region larger than the cube is cut at its sides.
        spacing_mm: (z, y, x).

    Raises:
        ImageError: the region is empty.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates

    places = np.argwhere(mask)
    if not len(places):
        raise ImageError("the region holds no voxel, so there is no picture of it. Check the contour.")
    step = patch.spacing_mm / np.asarray(spacing_mm)
    offsets = (np.arange(patch.voxels) - (patch.voxels - 1) / 2) * step[:, None]  # (3, n), in voxels of the image
    along = places.mean(axis=0)[:, None] + offsets
    sigma = np.maximum(0.0, (step - 1) / 2)
    margin = np.ceil(4 * sigma).astype(int) + 2
    first = np.maximum(0, np.floor(along[:, 0]).astype(int) - margin)
    stop = np.minimum(mask.shape, np.ceil(along[:, -1]).astype(int) + margin + 1)
    box = tuple(slice(low, high) for low, high in zip(first, stop, strict=True))
    grid = np.meshgrid(*(along - first[:, None]), indexing="ij")
    low, high = patch.window
    scaled = np.clip((np.nan_to_num(image[box].astype(np.float64), nan=low) - low) / (high - low), 0.0, 1.0)
    pictures = [
        map_coordinates(gaussian_filter(one, sigma, mode="nearest"), grid, order=1, mode="grid-constant", cval=0.0)
        for one in (scaled, mask[box].astype(np.float64))
    ]
    return np.stack([np.rint(255 * pictures[0]), pictures[1] >= 0.5]).astype(np.uint8)


def encode_patch(picture: Bytes) -> str:
    """Return a picture (2, n, n, n) as text."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(picture).tobytes(), 9)).decode("ascii")


def decode_patch(text: str) -> Bytes:
    """Return the picture (2, n, n, n) that `encode_patch` wrote.

    Raises:
        ImageError: the text is no picture, or not a whole one.
    """
    unfold = zlib.decompressobj()
    try:
        content = unfold.decompress(base64.b64decode(text, validate=True), _MOST_BYTES + 1)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise ImageError(f"{_DAMAGED} ({error}). {_REMEDY}") from error
    edge = round((len(content) / 2) ** (1 / 3))
    if not unfold.eof or not edge or 2 * edge**3 != len(content):
        raise ImageError(f"{_DAMAGED} ({len(content)} bytes are no two cubes). {_REMEDY}")
    return np.frombuffer(content, dtype=np.uint8).reshape(2, edge, edge, edge)


def decode_patches(texts: Sequence[str]) -> Bytes:
    """Return the pictures (m, 2, n, n, n) of at least one text.

    Raises:
        ImageError: one is no picture, or they are not of one size.
    """
    pictures = [decode_patch(text) for text in texts]
    sizes = sorted({one.shape[-1] for one in pictures})
    if len(sizes) > 1:
        raise ImageError(f"pictures of regions of {' and '.join(map(str, sizes))} voxels stand side by side. {_REMEDY}")
    return np.stack(pictures)


_DAMAGED = "the picture of a region is damaged"
_REMEDY = "Make it with `theracast images extract`, from the study of the model, and pass it on as it is."
