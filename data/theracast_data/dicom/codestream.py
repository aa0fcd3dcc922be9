"""What compressed pixel data say of themselves, checked against the header before a decoder sees them.

Decoders fill what is missing with whatever is there (OpenJPEG decodes a truncated stream without a word), and trust the sizes in
the stream. So: the sizes must be those of the header, and the stream must be whole to its end mark.
Sources: ISO/IEC 10918-1 annex B (JPEG), 14495-1 (JPEG-LS), 15444-1 annex A (JPEG 2000); DICOM PS3.5 annex G (RLE).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

START_OF_IMAGE = b"\xff\xd8"
END_OF_IMAGE = b"\xff\xd9"
START_OF_CODESTREAM = b"\xff\x4f\xff\x51"
FRAME_HEADERS = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xF7})
STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})


@dataclass(frozen=True)
class Frame:
    """Size of a compressed image: rows, columns, components, bits of a sample, and whether JPEG 2000 calls it signed."""

    rows: int
    columns: int
    components: int
    bits: int
    signed: bool = False


def jpeg_frame(stream: bytes) -> Frame | None:
    """Return what the frame header of a JPEG or JPEG-LS stream says; None where there is none to be read."""
    if not stream.startswith(START_OF_IMAGE):
        return None
    place = 2
    while place + 4 <= len(stream):
        if stream[place] != 0xFF:
            return None
        marker = stream[place + 1]
        if marker == 0xFF:
            place += 1
            continue
        if marker in STANDALONE:
            place += 2
            continue
        (length,) = struct.unpack_from(">H", stream, place + 2)
        if marker in FRAME_HEADERS and length >= 8 and place + 10 <= len(stream):
            bits, rows, columns, components = struct.unpack_from(">BHHB", stream, place + 4)
            return Frame(rows, columns, components, bits)
        if length < 2:
            return None
        place += 2 + length
    return None


def jpeg2000_frame(stream: bytes) -> Frame | None:
    """Return what the SIZ marker of a JPEG 2000 codestream says; None where there is none to be read."""
    start = stream.find(START_OF_CODESTREAM, 0, 256)  # 0 in DICOM; a JP2 wrapper is wrong but met
    if start < 0 or start + 44 > len(stream):
        return None
    across, down, left, top = struct.unpack_from(">IIII", stream, start + 8)
    components, depth = struct.unpack_from(">HB", stream, start + 40)
    return Frame(down - top, across - left, components, (depth & 0x7F) + 1, bool(depth & 0x80))


def is_whole(stream: bytes) -> bool:
    """Return whether a JPEG, JPEG-LS or JPEG 2000 stream ends with its end mark (padding may follow)."""
    return stream.rstrip(b"\x00").endswith(END_OF_IMAGE)


def rle_fault(stream: bytes, *, planes: int) -> str | None:
    """Return what is wrong with the header of an RLE frame of `planes` byte planes; None if nothing is.

    That each plane unpacks to its number of samples is checked by its decoder.
    """
    if len(stream) < 64:
        return "the RLE header is cut off"
    count, *offsets = struct.unpack_from("<16L", stream)
    if count != planes:
        return f"the RLE header tells {count} planes, the pixels need {planes}"
    ends = [*offsets[1:count], len(stream)]
    if offsets[0] != 64 or any(first >= last for first, last in zip(offsets[:count], ends, strict=True)):
        return "the RLE header tells planes out of order"
    return None
