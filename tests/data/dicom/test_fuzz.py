"""Damaged files: never a crash or a hang, never another error than ImageError, never another volume than the one written.

What damage can show: a header that disagrees with the other slices, a structure that does not parse, pixels of another length.
What it cannot: other bits in pixels that are stored plainly or that a decoder accepts. So flips go into headers, where the volume
must come out as written or not at all; into compressed pixels, where its grid must; and files are cut off anywhere.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.uid as uids
import pytest
from pydicom.dataset import FileDataset

from theracast_data.dicom.dose import read_dose
from theracast_data.dicom.isolated import Decoder, DecoderDiedError
from theracast_data.dicom.manifest import scan_folder
from theracast_data.dicom.nifti import read_nifti
from theracast_data.dicom.nrrd_file import read_nrrd
from theracast_data.dicom.pet import read_suv
from theracast_data.dicom.regions import read_mask
from theracast_data.dicom.rtstruct import read_rtstruct
from theracast_data.dicom.segmentation import read_segmentation
from theracast_data.dicom.series import read_series
from theracast_data.errors import ImageError
from theracast_data.volume import Volume

Make = Callable[..., list[Path]]
Damage = Callable[[bytes, int, random.Random], bytes]
PIXELS = {False: b"\xe0\x7f\x10\x00", True: b"\x7f\xe0\x00\x10"}


def flipped(content: bytes, end: int, rng: random.Random) -> bytes:
    """Return the content with one to four bits flipped in its header, behind the preamble, which means nothing."""
    broken = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        broken[rng.randrange(128, end)] ^= 1 << rng.randrange(8)
    return bytes(broken)


def overwritten(content: bytes, end: int, rng: random.Random) -> bytes:
    """Return the content with a run of random bytes in its header."""
    start = rng.randrange(128, end)
    length = min(rng.randrange(1, 12), end - start)
    return content[:start] + rng.randbytes(length) + content[start + length :]


def moved(content: bytes, end: int, rng: random.Random) -> bytes:
    """Return the content with two runs of its header exchanged, as if tags were swapped."""
    length = rng.choice([2, 4, 8])
    first = rng.randrange(128, end - 2 * length)
    second = rng.randrange(first + length, end - length + 1)
    one, other = content[first : first + length], content[second : second + length]
    return content[:first] + other + content[first + length : second] + one + content[second + length :]


def lost(content: bytes, end: int, rng: random.Random) -> bytes:
    """Return the content without a run of its header."""
    start = rng.randrange(128, end)
    return content[:start] + content[start + rng.randrange(1, 30) :]


def cut(content: bytes, end: int, rng: random.Random) -> bytes:
    """Return the beginning of the content."""
    return content[: rng.randrange(0, len(content) - 1)]


HEADER_DAMAGES: tuple[Damage, ...] = (flipped, flipped, overwritten, moved, lost, cut)


def pixel_start(content: bytes, *, big: bool = False) -> int:
    """Return where the element of the pixel data begins, its tag included."""
    found = content.rfind(PIXELS[big])
    assert found > 128
    return found


def same_volume(found: Volume, whole: Volume) -> bool:
    """Return whether a volume is the one written, to what a slice may lie from its place."""
    return (
        found.shape == whole.shape
        and bool(np.abs(found.affine - whole.affine).max() <= 0.011 * min(whole.spacing_mm))
        and np.array_equal(found.values, whole.values, equal_nan=True)
        and (found.modality, found.unit) == (whole.modality, whole.unit)
        and (found.frame_of_reference, found.subject_id) == (whole.frame_of_reference, whole.subject_id)
    )


def fuzz_series(
    folder: Path, count: int, rng: random.Random, *, read: Callable[[Path], Volume] = read_series, big: bool = False
) -> dict[str, int]:
    """Damage one file of a series `count` times; return how often it was refused and how often read as written."""
    files = sorted(path for path in folder.iterdir())
    whole = read(folder)
    told = {"refused": 0, "as written": 0}
    for _ in range(count):
        path = rng.choice(files)
        content = path.read_bytes()
        broken = rng.choice(HEADER_DAMAGES)(content, pixel_start(content, big=big), rng)
        path.write_bytes(broken)
        try:
            found = read(folder)
        except ImageError:
            told["refused"] += 1
        else:
            if not same_volume(found, whole):
                keep = folder.parent / "silently_wrong.dcm"
                keep.write_bytes(broken)
                raise AssertionError(f"a damaged file gave another volume: {_difference(content, broken)}")
            told["as written"] += 1
        finally:
            path.write_bytes(content)
    return told


def _difference(content: bytes, broken: bytes) -> str:
    """Return what of a data set was changed."""
    lines = []
    for one in (content, broken):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lines.append({f"{element}" for element in pydicom.dcmread(io.BytesIO(one)) if element.tag != 0x7FE00010})
    return "\n".join(
        ["", *(f"- {line}" for line in lines[0] - lines[1]), *(f"+ {line}" for line in lines[1] - lines[0])]
    )


SYNTAXES = {
    "explicit": uids.ExplicitVRLittleEndian,
    "implicit": uids.ImplicitVRLittleEndian,
    "big endian": uids.ExplicitVRBigEndian,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SYNTAXES)
def test_damaged_headers_of_ct(tmp_path: Path, make_series: Make, name: str) -> None:
    values = np.random.default_rng(1).integers(0, 4096, (5, 4, 5), dtype=np.uint16)
    make_series(tmp_path / "ct", values=values, syntax=SYNTAXES[name], PixelPaddingValue=4000)
    told = fuzz_series(tmp_path / "ct", 350, random.Random(name), big=name == "big endian")
    assert told["refused"] > 150
    assert told["as written"] > 20


@pytest.mark.slow
def test_damaged_headers_of_pet_give_no_other_suv(tmp_path: Path, make_series: Make) -> None:
    values = np.random.default_rng(1).integers(0, 4096, (5, 4, 5), dtype=np.uint16)
    make_series(tmp_path / "pt", kind="PT", values=values, intercept=0.0, slope=1.0)

    def read(folder: Path) -> Volume:
        return read_suv(folder)

    told = fuzz_series(tmp_path / "pt", 250, random.Random(5), read=read)
    assert told["refused"] > 100


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sts/STS_025/MR_T1", "sts/STS_008/CT"])
def test_damaged_headers_of_real_series(shared_images: Path, tmp_path: Path, name: str) -> None:
    source = sorted(
        (shared_images / name / "image").iterdir(), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2]
    )
    (tmp_path / "series").mkdir()
    for path in source[:6]:
        (tmp_path / "series" / path.name).write_bytes(path.read_bytes())
    told = fuzz_series(tmp_path / "series", 150, random.Random(name))
    assert told["refused"] > 40


@pytest.mark.slow
@pytest.mark.parametrize(
    ("syntax", "count"),
    [
        (uids.RLELossless, 120),
        (uids.JPEGLSLossless, 120),
        (uids.JPEG2000Lossless, 120),
        (uids.JPEGLosslessSV1, 60),  # its decoder runs in a process of its own, which dies now and then
    ],
    ids=["RLE", "JPEG-LS", "JPEG 2000", "JPEG lossless"],
)
def test_damaged_compressed_pixels_keep_their_grid(
    tmp_path: Path, make_series: Make, compress: Callable[[Path, uids.UID], None], syntax: uids.UID, count: int
) -> None:
    values = np.random.default_rng(1).integers(0, 4096, (4, 12, 11), dtype=np.uint16)
    for path in make_series(tmp_path / "ct", values=values):
        compress(path, syntax)
    told = fuzz_pixels(tmp_path / "ct", count, random.Random(3))
    assert told["refused"] > count // 4


def fuzz_pixels(folder: Path, count: int, rng: random.Random) -> dict[str, int]:
    """Damage the compressed pixels of one file `count` times."""
    files, whole = sorted(folder.iterdir()), read_series(folder)
    told = {"refused": 0, "read": 0}
    for _ in range(count):
        path = rng.choice(files)
        content = path.read_bytes()
        start = pixel_start(content)
        damage = rng.choice([flipped, flipped, overwritten, lost, cut])
        broken = content[:start] + damage(bytes(128) + content[start:], len(content) - start + 128, rng)[128:]
        path.write_bytes(broken)
        try:
            found = read_series(folder)
        except ImageError:
            told["refused"] += 1
        else:
            told["read"] += 1
            assert found.shape == whole.shape
            np.testing.assert_array_equal(found.affine, whole.affine)
        finally:
            path.write_bytes(content)
    return told


def fuzz_file(path: Path, read: Callable[[], Any], count: int, rng: random.Random, start: int = 0) -> dict[str, int]:
    """Damage a file anywhere `count` times; it is read or refused, and nothing else happens."""
    content = path.read_bytes()
    told = {"refused": 0, "read": 0}
    for _ in range(count):
        damage = rng.choice(HEADER_DAMAGES)
        padded = bytes(128) + content[start:]
        path.write_bytes(content[:start] + damage(padded, len(padded) - 40, rng)[128:])
        try:
            read()
        except ImageError:
            told["refused"] += 1
        else:
            told["read"] += 1
        finally:
            path.write_bytes(content)
    return told


@pytest.mark.slow
def test_damaged_regions_doses_and_volumes_raise_nothing_else(
    tmp_path: Path, make_series: Make, fuzz_objects: Callable[[Path, Volume], dict[str, Path]]
) -> None:
    make_series(tmp_path / "ct")
    image = read_series(tmp_path / "ct")
    objects = fuzz_objects(tmp_path, image)
    readers: dict[str, Callable[[Path], Any]] = {
        "rtstruct": lambda path: read_rtstruct(path, "GTV", image),
        "seg": lambda path: read_segmentation(path, 1, image),
        "dose": read_dose,
        "nifti": read_nifti,
        "nifti mask": lambda path: read_mask(path, image),
        "nrrd": read_nrrd,
        "enhanced": read_series,
    }
    rng = random.Random(9)
    for name, path in objects.items():
        start = 128 if path.suffix == ".dcm" else 0
        told = fuzz_file(path, lambda name=name, path=path: readers[name](path), 80, rng, start)
        assert told["refused"] > 5, name


@pytest.mark.slow
def test_a_manifest_of_damaged_files_lists_them(tmp_path: Path, make_series: Make) -> None:
    rng = random.Random(4)
    for number in range(20):
        for path in make_series(
            tmp_path / str(number), series=str(number), values=np.zeros((3, 4, 5), dtype=np.uint16)
        ):
            content = path.read_bytes()
            path.write_bytes(rng.choice(HEADER_DAMAGES)(content, pixel_start(content), rng))
    manifest = scan_folder(tmp_path)
    assert manifest.faults or any(row.faults for row in manifest.rows)


def test_swapped_elements_between_two_files_are_seen(tmp_path: Path, make_series: Make) -> None:
    """Every element of two slices exchanged, one at a time: what places a slice in the volume must be missed or refused."""
    make_series(tmp_path / "ct")
    files = sorted(tmp_path.joinpath("ct").iterdir())
    whole = read_series(tmp_path / "ct")
    first, second = files[0].read_bytes(), files[3].read_bytes()
    refused = []
    for keyword in [element.keyword for element in pydicom.dcmread(files[0]) if element.keyword != "PixelData"]:
        one, other = pydicom.dcmread(io.BytesIO(first)), pydicom.dcmread(io.BytesIO(second))
        swap(one, other, keyword)
        one.save_as(files[0])
        other.save_as(files[3])
        try:
            assert same_volume(read_series(tmp_path / "ct"), whole), keyword
        except ImageError:
            refused.append(keyword)
    assert "ImagePositionPatient" in refused


def swap(one: FileDataset, other: FileDataset, keyword: str) -> None:
    """Exchange an element of two data sets."""
    one[keyword], other[keyword] = other[keyword], one[keyword]


def test_the_decoder_of_its_own_process_is_started_again(
    tmp_path: Path, make_series: Make, compress: Callable[[Path, uids.UID], None]
) -> None:
    files = make_series(tmp_path / "ct")
    stored = pydicom.dcmread(files[0]).pixel_array
    compress(files[0], uids.JPEGLosslessSV1)
    decoder = Decoder()
    try:
        np.testing.assert_array_equal(decoder.decode(files[0], 0), stored)
        first = decoder.process_id
        with pytest.raises(DecoderDiedError, match="FileNotFoundError"):
            decoder.decode(tmp_path / "absent.dcm", 0)
        assert decoder.process_id == first
        assert first is not None
        os.kill(first, signal.SIGKILL)
        with contextlib.suppress(DecoderDiedError):  # it may not be gone yet when it is asked
            decoder.decode(files[0], 0)
        np.testing.assert_array_equal(decoder.decode(files[0], 0), stored)
        assert decoder.process_id != first
    finally:
        decoder.close()
    assert decoder.process_id is None
