"""One DICOM file, and values of its elements that are there, of the right kind and finite, or an error that names the tag.

pydicom forgives much: it warns of a file that ends early, keeps values that cannot be read until someone asks, and reads text
where numbers belong. Here all of that is an error.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pydicom
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.errors import InvalidDicomError
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from theracast_data.errors import ImageError

PASSED_OVER = frozenset({"DICOMDIR", ".DS_Store", "Thumbs.db", "desktop.ini"})
"""Names of files that lie beside images and are none."""

T = TypeVar("T")

EXPORT_AGAIN = "Export or transfer it again from the archive"


def dicom_files(folder: Path) -> list[Path]:
    """Return all files under a folder, by name, but for those that only lie beside images."""
    if not folder.is_dir():
        raise ImageError(f"{folder}: there is no such folder. Correct the path.")
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path for path in found if path.name not in PASSED_OVER and not path.name.startswith("._")]


@contextmanager
def quiet_pydicom() -> Iterator[list[warnings.WarningMessage]]:
    """Collect what pydicom warns of, for the caller to judge."""
    with warnings.catch_warnings(record=True) as caught, pydicom.config.disable_value_validation():
        warnings.simplefilter("always")
        yield caught


def open_dicom(path: Path, *, pixels: bool = True) -> FileDataset:
    """Return the data set of a DICOM file, with or without its pixel data.

    Raises:
        ImageError: not a DICOM file, one that ends early, or one whose structure is damaged.
    """
    try:
        with quiet_pydicom() as caught:
            dataset = pydicom.dcmread(path, stop_before_pixels=not pixels)
    except InvalidDicomError as error:
        raise ImageError(
            f"{path}: this is no DICOM file (no DICM mark at byte 128). Move it out of the folder, or convert it."
        ) from error
    except OSError as error:
        raise ImageError(f"{path}: the file cannot be read ({error.strerror or 'an error of the disk'}).") from error
    except Exception as error:  # damaged bytes surface in pydicom as errors of many kinds
        raise ImageError(f"{path}: the DICOM structure is damaged ({type(error).__name__}). {EXPORT_AGAIN}.") from error
    if any("end of file" in str(warning.message).lower() for warning in caught):
        raise ImageError(f"{path}: the file ends in the middle of an element: it is truncated. {EXPORT_AGAIN}.")
    if not dataset:
        raise ImageError(f"{path}: the DICOM file holds nothing. {EXPORT_AGAIN}.")
    return dataset


def tag_name(keyword: str) -> str:
    """Return a keyword with its tag, e.g. `PixelSpacing (0028,0030)`."""
    number = tag_for_keyword(keyword)
    if number is None:
        raise KeyError(keyword)
    tag = Tag(number)
    return f"{keyword} ({tag.group:04X},{tag.element:04X})"


def uid_name(uid: str) -> str:
    """Return the name of a UID of the standard, or the UID itself."""
    return UID(uid, validation_mode=pydicom.config.IGNORE).name


class View:
    """The elements that hold for one image: of a file, or of one frame of a multi-frame file.

    An element is looked for in `sources` in turn: for a frame, its own functional groups, the shared ones, the data set.
    """

    def __init__(self, sources: tuple[Dataset, ...], place: str) -> None:
        self.sources = sources
        self.place = place

    def raw(self, keyword: str | BaseTag) -> Any:
        """Return the value of an element as pydicom has it; None where it is absent or empty."""
        tag = _tag(keyword) if isinstance(keyword, str) else keyword
        for source in self.sources:
            try:
                value = _value(source, tag)
            except KeyError:
                if tag not in source:
                    continue
                raise self._unreadable(keyword) from None
            except Exception as error:  # pydicom converts late, and fails in many ways
                raise self._unreadable(keyword) from error
            if value is not None and not (hasattr(value, "__len__") and len(value) == 0):
                return value
        return None

    def text(self, keyword: str) -> str | None:
        """Return text; several values are joined by a backslash as in the file."""
        value = self.raw(keyword)
        if value is None:
            return None
        if isinstance(value, bytes):
            raise self.fault(f"{tag_name(keyword)} is not text")
        if not isinstance(value, str) and hasattr(value, "__iter__"):
            return "\\".join(str(part).strip() for part in value)
        return str(value).strip() or None

    def numbers(self, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
        """Return finite numbers, `count` of them if given; None where the element is absent or empty."""
        value = self.raw(keyword)
        if value is None:
            return None
        parts = [value] if isinstance(value, str | int | float) or not hasattr(value, "__iter__") else list(value)
        if isinstance(value, bytes):
            raise self.fault(f"{tag_name(keyword)} is not a number")
        try:
            found = tuple(float(part) for part in parts)
        except (TypeError, ValueError) as error:
            raise self.fault(f"{tag_name(keyword)} is not a number") from error
        if not all(math.isfinite(number) for number in found):
            raise self.fault(f"{tag_name(keyword)} is not finite")
        if count is not None and len(found) != count:
            raise self.fault(f"{tag_name(keyword)} has {len(found)} values, not {count}")
        return found

    def number(self, keyword: str) -> float | None:
        """Return one finite number; None where the element is absent or empty."""
        found = self.numbers(keyword, 1)
        return None if found is None else found[0]

    def integer(self, keyword: str) -> int | None:
        """Return one whole number; None where the element is absent or empty."""
        found = self.number(keyword)
        if found is None:
            return None
        if found != int(found):
            raise self.fault(f"{tag_name(keyword)} is not a whole number")
        return int(found)

    def items(self, keyword: str) -> list[Dataset]:
        """Return the items of a sequence; none where it is absent or empty."""
        value = self.raw(keyword)
        if value is None:
            return []
        if not isinstance(value, pydicom.Sequence):
            raise self.fault(f"{tag_name(keyword)} is not a sequence")
        return list(value)

    def need_numbers(self, keyword: str, count: int) -> tuple[float, ...]:
        """Return finite numbers that must be there."""
        return self._needed(self.numbers(keyword, count), keyword)

    def need_number(self, keyword: str) -> float:
        """Return a finite number that must be there."""
        return self._needed(self.number(keyword), keyword)

    def need_integer(self, keyword: str) -> int:
        """Return a whole number that must be there."""
        return self._needed(self.integer(keyword), keyword)

    def need_text(self, keyword: str) -> str:
        """Return a text that must be there."""
        return self._needed(self.text(keyword), keyword)

    def fault(self, what: str) -> HeaderError:
        """Return the error of one element of this image."""
        return HeaderError(self.place, what)

    def _unreadable(self, keyword: str | BaseTag) -> HeaderError:
        name = tag_name(keyword) if isinstance(keyword, str) else str(keyword)
        return self.fault(f"{name} cannot be read: the file is damaged")

    def _needed(self, value: T | None, keyword: str) -> T:
        if value is None:
            raise self.fault(f"{tag_name(keyword)} is missing")
        return value


class HeaderError(ImageError):
    """One element of one image is missing or damaged; gathered over the files of a series where there are several."""

    def __init__(self, place: str, what: str, remedy: str = f"{EXPORT_AGAIN}, with all its tags") -> None:
        super().__init__(f"{place}: {what}. {remedy}.")
        self.place, self.what, self.remedy = place, what, remedy


_TAGS: dict[str, BaseTag] = {}


def _tag(keyword: str) -> BaseTag:
    if keyword not in _TAGS:
        number = tag_for_keyword(keyword)
        if number is None:
            raise KeyError(keyword)
        _TAGS[keyword] = Tag(number)
    return _TAGS[keyword]


CACHED = 4096
PLAIN = frozenset({"CS", "DS", "IS", "UI", "US", "SS", "DA", "TM", "DT", "UL", "FL", "FD"})  # no character set matters
_converted: dict[tuple[Any, ...], Any] = {}


def _value(source: Dataset, tag: BaseTag) -> Any:
    """Return the value of an element; equal bytes, as in the slices of a series, are converted once."""
    element = source.get_item(tag)
    if not isinstance(element, RawDataElement):
        return source[tag].value
    stored = element.value
    if stored is None or len(stored) > 128:
        with quiet_pydicom():
            return source[tag].value
    implicit = element.VR is None
    kind = (element.VR, element.is_little_endian, _signed(source) if implicit else None)
    key = (tag, stored, kind, str(source.original_character_set) if element.VR not in PLAIN else None)
    if key not in _converted:
        if len(_converted) >= CACHED:
            _converted.clear()
        with quiet_pydicom():
            _converted[key] = source[tag].value
    return _converted[key]


def _signed(source: Dataset) -> bytes | None:
    """Return PixelRepresentation as stored, on which the kind of other elements hangs."""
    element = source.get_item(0x00280103) if 0x00280103 in source else None
    return element.value if isinstance(element, RawDataElement) else str(getattr(element, "value", "")).encode()
