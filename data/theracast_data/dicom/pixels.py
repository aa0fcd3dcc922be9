"""Stored pixels of a slice to values: decoded whole, in the bits that the header tells, scaled, padding set to NaN."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom.uid as uids
from openjpeg.utils import decode_pixel_data
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.tag import Tag

from theracast_data.dicom.codestream import Frame, is_whole, jpeg2000_frame, jpeg_frame, rle_fault
from theracast_data.dicom.header import EXPORT_AGAIN, HeaderError, View, quiet_pydicom, uid_name
from theracast_data.dicom.isolated import GDCM
from theracast_data.dicom.slices import Slice

PIXEL_DATA = Tag(0x7FE00010)
NATIVE = frozenset(
    {
        uids.ImplicitVRLittleEndian,
        uids.ExplicitVRLittleEndian,
        uids.ExplicitVRBigEndian,
        uids.DeflatedExplicitVRLittleEndian,
    }
)
JPEG = frozenset(
    {
        uids.JPEGBaseline8Bit,
        uids.JPEGExtended12Bit,
        uids.JPEGLossless,
        uids.JPEGLosslessSV1,
        uids.JPEGLSLossless,
        uids.JPEGLSNearLossless,
    }
)
JPEG2000 = frozenset({uids.JPEG2000Lossless, uids.JPEG2000})
COMPRESSED = JPEG | JPEG2000 | {uids.RLELossless}
LOSSY = frozenset({uids.JPEGBaseline8Bit, uids.JPEGExtended12Bit, uids.JPEGLSNearLossless})
PLUGINS = {
    uids.RLELossless: "pydicom",
    uids.JPEGLSLossless: "pyjpegls",
    uids.JPEGLSNearLossless: "pyjpegls",
    uids.JPEGBaseline8Bit: "pillow",
    uids.JPEGExtended12Bit: "pillow",
}
"""Decoders of pydicom that raise on damaged streams; GDCM, which may end the process, has one of its own."""
ISOLATED = frozenset({uids.JPEGExtended12Bit, uids.JPEGLossless, uids.JPEGLosslessSV1})
PLUGIN_BITS = {uids.JPEGExtended12Bit: 8}  # up to so many, Pillow decodes
LARGEST_EXACT = 2**24  # whole numbers up to here are exact in float32

Stored = npt.NDArray[np.integer[Any]]


class Pixels:
    """The stored pixels of one file, by frame."""

    def __init__(
        self,
        dataset: Dataset,
        place: str,
        *,
        frames: int,
        path: Path | None = None,
        photometric: tuple[str, ...] = ("MONOCHROME1", "MONOCHROME2"),
    ) -> None:
        self._view = View((dataset,), place)
        self._rows, self._columns = self._view.need_integer("Rows"), self._view.need_integer("Columns")
        self._frames, self._photometric = frames, photometric
        self._path = path or Path(place)
        self._allocated = self._view.need_integer("BitsAllocated")
        self._stored = self._view.need_integer("BitsStored")
        self._signed = self._view.need_integer("PixelRepresentation") == 1
        self._check_bits()
        self.syntax = stored_as(dataset, self._view)
        self._data = self._pixel_data()

    @property
    def lossy(self) -> bool:
        """Whether values were changed by compression."""
        return self.syntax in LOSSY or self._view.text("LossyImageCompression") == "01"

    def frame(self, number: int) -> Stored:
        """Return the stored values of a frame, (rows, columns)."""
        decoded = self._native(number) if self.syntax in NATIVE else self._decoded(number)
        return self._within_bits(decoded)

    def _check_bits(self) -> None:
        view, high = self._view, self._view.need_integer("HighBit")
        if self._allocated not in (8, 16, 32) or not 1 <= self._stored <= self._allocated:
            raise view.fault(
                f"BitsAllocated (0028,0100) and BitsStored (0028,0101) are {self._allocated} and {self._stored}"
            )
        if high != self._stored - 1:
            raise view.fault(f"HighBit (0028,0102) is {high}, not {self._stored - 1} (BitsStored - 1)")
        if view.integer("PixelRepresentation") not in (0, 1):
            raise view.fault("PixelRepresentation (0028,0103) is neither 0 nor 1")
        if view.text("PhotometricInterpretation") not in self._photometric:
            raise view.fault(f"PhotometricInterpretation (0028,0004) is not {' or '.join(self._photometric)}")

    def _pixel_data(self) -> bytes | list[bytes]:
        """Return the bytes of the uncompressed frames, or one stream a frame."""
        data = self._view.raw(PIXEL_DATA)
        if not isinstance(data, bytes):
            raise self._view.fault("PixelData (7FE0,0010) is missing")
        undefined = bool(getattr(self._view.sources[0][PIXEL_DATA], "is_undefined_length", False))
        if self.syntax in NATIVE:
            return self._whole(data, undefined)
        if not undefined:
            raise self._view.fault("PixelData (7FE0,0010) is not encapsulated, which its transfer syntax asks for")
        try:
            with quiet_pydicom():
                streams = list(generate_frames(data, number_of_frames=self._frames))
        except Exception as error:  # damaged bytes surface in pydicom as errors of many kinds
            raise self._view.fault("PixelData (7FE0,0010) is damaged: its fragments cannot be read") from error
        if len(streams) != self._frames:
            raise self._view.fault(f"PixelData (7FE0,0010) holds {len(streams)} frames, not {self._frames}")
        return streams

    def _whole(self, data: bytes, undefined: bool) -> bytes:
        needed = self._rows * self._columns * self._frames * self._allocated // 8
        if undefined:
            raise self._view.fault("PixelData (7FE0,0010) is encapsulated, which its transfer syntax excludes")
        if len(data) < needed:
            raise HeaderError(
                self._view.place,
                f"the pixel data are truncated: {len(data)} bytes of {needed}",
                EXPORT_AGAIN,
            )
        if len(data) > needed + needed % 2:
            raise self._view.fault(f"PixelData (7FE0,0010) has {len(data)} bytes, the image needs {needed}")
        return data

    def _native(self, number: int) -> Stored:
        order = ">" if self.syntax == uids.ExplicitVRBigEndian else "<"
        width = self._allocated // 8
        size = self._rows * self._columns
        dtype = np.dtype(f"{order}{'i' if self._signed else 'u'}{width}")
        assert isinstance(self._data, bytes)
        data = self._data
        if width == 1 and order == ">" and self._view.sources[0][PIXEL_DATA].VR == "OW":
            data = np.frombuffer(data, dtype="u2").byteswap().tobytes()  # 8-bit pixels in 16-bit words
        found: Stored = np.frombuffer(data, dtype=dtype, count=size, offset=number * size * width)
        return found.reshape(self._rows, self._columns)

    def _decoded(self, number: int) -> Stored:
        assert isinstance(self._data, list)
        stream = self._data[number]
        frame = self._checked(stream)
        try:
            with quiet_pydicom() as caught:
                if self.syntax in JPEG2000 and frame is not None:
                    found = _jpeg2000(stream, frame, self._signed)
                elif self.syntax in ISOLATED and frame is not None and frame.bits > PLUGIN_BITS.get(self.syntax, 0):
                    found = GDCM.decode(self._path, number)
                else:
                    plugin = PLUGINS[self.syntax]
                    decoder = get_decoder(self.syntax)
                    array, _ = decoder.as_array(self._view.sources[0], index=number, raw=True, decoding_plugin=plugin)
                    found = np.asarray(array)
        except Exception as error:  # each decoder has errors of its own
            raise self._damaged(f"the compressed pixels ({self.syntax.name}) cannot be decoded") from error
        if caught and self.syntax == uids.RLELossless:  # planes that unpack to too much
            raise self._damaged("the compressed pixels are damaged: an RLE plane is too long")
        if found.shape != (self._rows, self._columns) or found.dtype.kind not in "iu":
            raise self._view.fault("the decoded pixels have another size than Rows and Columns tell")
        return found

    def _checked(self, stream: bytes) -> Frame | None:
        """Return what the stream says of its image, which must be what the header says; None for RLE, which says nothing."""
        if self.syntax == uids.RLELossless:
            fault = rle_fault(stream, planes=self._allocated // 8)
            if fault:
                raise self._damaged(f"the compressed pixels are damaged: {fault}")
            return None
        frame = jpeg2000_frame(stream) if self.syntax in JPEG2000 else jpeg_frame(stream)
        if frame is None:
            raise self._damaged(f"the compressed pixels are no {self.syntax.name} stream, or its start is damaged")
        if (frame.rows, frame.columns, frame.components) != (self._rows, self._columns, 1):
            raise self._view.fault("the compressed pixels have another size than Rows and Columns tell")
        if frame.bits > self._allocated:
            raise self._view.fault("the compressed pixels have more bits than BitsAllocated (0028,0100) tells")
        if frame.signed and not self._signed:
            raise self._view.fault("the compressed pixels are signed, PixelRepresentation (0028,0103) is not")
        if not is_whole(stream):
            raise self._damaged("the compressed pixels are truncated: they have no end mark")
        return frame

    def _damaged(self, what: str) -> HeaderError:
        return HeaderError(self._view.place, what, EXPORT_AGAIN)

    def _within_bits(self, values: Stored) -> Stored:
        """Return the values without unused high bits, which may hold an overlay; anything else in them is a fault."""
        unused = self._allocated - self._stored
        if not unused:
            return values
        half = 1 << (self._stored - 1)
        low, high = (-half, half - 1) if self._signed else (0, 2 * half - 1)
        if values.max() <= high and (low == 0 or values.min() >= low):
            return values
        unsigned = values.astype(f"u{values.dtype.itemsize}", copy=False)
        shift = values.dtype.itemsize * 8 - self._stored
        kept: Stored = (unsigned << unsigned.dtype.type(shift)).astype(
            f"{'i' if self._signed else 'u'}{values.dtype.itemsize}"
        )
        kept >>= kept.dtype.type(shift)
        strange = kept != values
        if strange.any() and not self._has_embedded_overlay():
            padding = padding_range(self._view, self._signed, self._allocated)
            if padding is None or not _is_padding(values[strange], padding).all():
                raise self._view.fault(f"pixel values need more than the {self._stored} bits of BitsStored (0028,0101)")
            return values
        return kept

    def _has_embedded_overlay(self) -> bool:
        overlay = (Tag(group, 0x0102) for group in range(0x6000, 0x6020, 2))
        return any(bool(self._view.raw(tag)) for tag in overlay if tag in self._view.sources[0])


def padding_range(view: View, signed: bool, allocated: int) -> tuple[int, int] | None:
    """Return the lowest and highest stored value that mean padding, as in PixelPaddingValue and its range limit."""
    value = view.integer("PixelPaddingValue")
    if value is None:
        return None
    limit = view.integer("PixelPaddingRangeLimit")
    ends = [_as_stored(end, signed, allocated) for end in (value, value if limit is None else limit)]
    return min(ends), max(ends)


def scaled(stored: Stored, one: Slice, out: npt.NDArray[np.floating[Any]]) -> None:
    """Write the values of a slice to `out`: slope and intercept applied in its precision, padding as NaN."""
    if one.slope == 1.0:
        np.add(stored, out.dtype.type(one.intercept), out=out, casting="unsafe", dtype=out.dtype)
    else:
        np.multiply(stored, out.dtype.type(one.slope), out=out, casting="unsafe", dtype=out.dtype)
        if one.intercept:
            out += out.dtype.type(one.intercept)
    signed = one.view.integer("PixelRepresentation") == 1
    padding = padding_range(one.view, signed, one.view.need_integer("BitsAllocated"))
    if padding is not None:
        out[_is_padding(stored, padding)] = np.nan


def _jpeg2000(stream: bytes, frame: Frame, signed: bool) -> Stored:
    """Return the pixels of a JPEG 2000 stream; unsigned ones of an image of signed pixels are its two's complement."""
    width = 1 if frame.bits <= 8 else 2 if frame.bits <= 16 else 4
    decoded = decode_pixel_data(stream, version=2)
    found: Stored = np.frombuffer(decoded, dtype=f"<{'i' if frame.signed else 'u'}{width}")
    found = found.reshape(frame.rows, frame.columns)
    if signed and not frame.signed:
        shift = 8 * width - frame.bits
        return np.asarray((found << shift).astype(f"i{width}") >> shift)
    return found


def exact_dtype(slices: Sequence[Slice]) -> type[np.float32] | type[np.float64]:
    """Return float32 where it holds all values of the slices exactly, that is for whole slopes and intercepts."""
    for one in slices:
        reach = abs(one.slope) * 2.0 ** one.view.need_integer("BitsStored") + abs(one.intercept)
        if one.slope != int(one.slope) or one.intercept != int(one.intercept) or reach > LARGEST_EXACT:
            return np.float64
    return np.float32


def _is_padding(stored: Stored, padding: tuple[int, int]) -> npt.NDArray[np.bool_]:
    low, high = padding
    if low == high:
        return np.asarray(stored == low)
    return np.asarray((stored >= low) & (stored <= high))


def _as_stored(value: int, signed: bool, allocated: int) -> int:
    """Return a value in the range of the stored pixels: the VR of padding values is often the wrong one of US and SS."""
    span = 1 << allocated
    wrapped = value % span
    return wrapped - span if signed and wrapped >= span // 2 else wrapped


def transfer_syntax(dataset: Dataset, place: str) -> str | None:
    """Return the transfer syntax that a file names."""
    meta = getattr(dataset, "file_meta", None)
    return None if meta is None else View((meta,), place).text("TransferSyntaxUID")


def stored_as(dataset: Dataset, view: View) -> uids.UID:
    """Return the transfer syntax, one of those that are read here."""
    syntax = transfer_syntax(dataset, view.place)
    if syntax is None:
        raise view.fault("TransferSyntaxUID (0002,0010) is missing")
    if syntax not in NATIVE and syntax not in COMPRESSED:
        raise HeaderError(
            view.place,
            f"pixels are stored as {uid_name(syntax)!r}, which is not read here",
            "Have the archive send another transfer syntax, e.g. Explicit VR Little Endian",
        )
    return uids.UID(syntax)  # one of ours: known to be sound
