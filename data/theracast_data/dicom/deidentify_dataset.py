"""One dataset without its identity: every element at every depth gets its action, and the actions are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID

from theracast_data.dicom.deidentify_keys import PseudonymKey
from theracast_data.dicom.deidentify_rules import (
    DEVICES,
    IDENTIFIERS,
    PHRASES,
    SAFE_PRIVATE,
    Action,
    DeidentifyOptions,
    keyword_tags,
    rule_for,
)
from theracast_data.dicom.deidentify_values import (
    Identity,
    capped_age,
    clean_text,
    is_numbers,
    is_time,
    name_parts,
    shift_date,
    shift_datetime,
    tells,
)

# Of the files' maker this says only that it was us. 2.25 and a UUID, made once.
IMPLEMENTATION_UID = UID("2.25.263113580459416012170206184212317450529")
DUMMY_TEXT = "REMOVED"
METHOD = "Theracast: PS3.15 basic profile, keyed pseudonyms, dates shifted"
# What the pixels have gone through in an earlier de-identification stays true.
_EARLIER_METHODS = (codes.DCM.CleanPixelDataOption, codes.DCM.CleanRecognizableVisualFeaturesOption)
_IDENTIFIERS, _PHRASES = keyword_tags(IDENTIFIERS), keyword_tags(PHRASES)
_CHARACTERISTIC_CODES = ("", "M", "F", "O", "YES", "NO", "UNKNOWN", "ALTERED", "UNALTERED")
_BIRTH_DATE = Tag(0x0010, 0x0030)

# Tag, as `(gggg,eeee)` of each level joined by `>`; what was done.
Counts = Counter[tuple[str, str, Action]]


def read_identity(dataset: Dataset) -> Identity:
    """Return the names, identifiers and phrases of a dataset, of all depths, that text must not hold."""
    names: set[str] = set()
    numbers: set[str] = set()
    phrases: set[str] = set()
    for element in _telling_elements(dataset):
        texts = [str(value).strip() for value in _values(element.value)]
        if element.VR == "PN":
            names |= {part for text in texts for part in name_parts(text)}
        elif element.tag == _BIRTH_DATE:
            numbers |= {form for text in texts if len(text) == 8 for form in _birth_forms(text)}
        elif element.tag in _IDENTIFIERS:
            numbers |= {text for text in texts if tells(text)}
        else:
            phrases |= {text for text in texts if tells(text)}
    return Identity(frozenset(names), frozenset(numbers), frozenset(phrases))


def deidentify_dataset(
    dataset: FileDataset, *, key: PseudonymKey, identity: Identity, options: DeidentifyOptions
) -> tuple[FileDataset, Counts]:
    """Return a dataset without identity, with its file meta, and what was done, by tag.

    The dataset given is used up: elements are changed in place, which spares a copy of the pixels.

    Args:
        identity: of all files of this patient; kept text is searched for it.
    """
    cleaning = _Cleaning(key, identity, options, str(dataset.get("PatientID", "")))
    earlier = _earlier_methods(dataset)
    cleaning.clean(dataset, place="")
    _declare(dataset, options, earlier)
    dataset.file_meta = _file_meta(dataset)
    dataset.preamble = b"\0" * 128
    return dataset, cleaning.counts


class _Cleaning:
    """What stays the same while one file is cleaned."""

    def __init__(self, key: PseudonymKey, identity: Identity, options: DeidentifyOptions, patient_id: str) -> None:
        self.key = key
        self.identity = identity
        self.options = options
        self.descriptors = options.descriptors()
        self.days = key.shift_days(patient_id)
        self.pseudonym = key.patient(patient_id)
        self.counts: Counts = Counter()

    def clean(self, dataset: Dataset, *, place: str) -> None:
        creators = _private_creators(dataset)
        kept_blocks: set[BaseTag] = set()
        for tag in list(dataset.keys()):
            if tag in creators:
                continue
            path = f"{place}({tag.group:04X},{tag.element:04X})"
            try:
                action = self._private(dataset, tag, creators) if tag.is_private else self._public(dataset, tag, path)
            except Exception:  # whatever pydicom stumbles over in a value: it cannot be judged, so it goes
                del dataset[tag]
                action = Action.REMOVE
            if tag.is_private and action is not Action.REMOVE:
                kept_blocks.add(Tag(tag.group, tag.element >> 8))
            self.counts[path, "" if tag.is_private else keyword_for_tag(tag), action] += 1
        for tag in creators:
            if tag not in kept_blocks:
                del dataset[tag]
                self.counts[f"{place}({tag.group:04X},{tag.element:04X})", "", Action.REMOVE] += 1

    def _public(self, dataset: Dataset, tag: BaseTag, path: str) -> Action:
        vr = _vr(dataset, tag)
        action = rule_for(tag, vr, options=self.options, descriptors=self.descriptors)
        if action is Action.REMOVE:
            del dataset[tag]
        elif action is Action.EMPTY:
            dataset[tag] = _empty(tag, vr)
        elif action is Action.KEEP:
            return _keep_numbers(dataset, tag, vr)
        elif action is Action.DESCEND:
            if vr != "SQ":
                dataset[tag] = _empty(tag, vr)
                return Action.EMPTY
            for item in dataset[tag].value:
                self.clean(item, place=f"{path}>")
        else:
            return self._rewrite(dataset, tag, vr, action)
        return action

    def _private(self, dataset: Dataset, tag: BaseTag, creators: dict[BaseTag, str]) -> Action:
        creator = creators.get(Tag(tag.group, tag.element >> 8), "")
        vr = SAFE_PRIVATE.get((tag.group, creator, tag.element & 0xFF))
        if vr is None or vr != dataset[tag].VR:
            del dataset[tag]
            return Action.REMOVE
        if vr == "DT":
            return self._rewrite(dataset, tag, vr, Action.DATE)
        if vr == "CS":
            return self._rewrite(dataset, tag, vr, Action.TECHNICAL)
        # Decoded, numbers are numbers: whatever else stood there has raised.
        return Action.KEEP

    def _rewrite(self, dataset: Dataset, tag: BaseTag, vr: str, action: Action) -> Action:
        """Put new values in the place of the old ones; values of another form than their VR says are emptied."""
        rewrite = self._rewriter(tag, vr, action)
        old = [str(value) for value in _values(dataset[tag].value)]
        new = [rewrite(value) for value in old]
        if any(value is None for value in new):
            dataset[tag] = _empty(tag, vr)
            return Action.EMPTY
        if new == old:  # as stored, byte by byte
            return action if action in (Action.TIME, Action.AGE, Action.CODE, Action.TECHNICAL) else Action.KEEP
        dataset[tag] = DataElement(tag, vr, new if len(new) > 1 else new[0])
        return Action.DESCRIPTOR if action is Action.TECHNICAL else action

    def _rewriter(self, tag: BaseTag, vr: str, action: Action) -> Callable[[str], str | None]:
        if action is Action.UID:
            return self.key.uid if vr == "UI" else lambda _: None
        if action is Action.DATE:
            return lambda text: text and (shift_date if vr == "DA" else shift_datetime)(text, days=self.days)
        if action is Action.TIME:
            return lambda text: text if not text or is_time(text) else None
        if action is Action.AGE:
            return lambda text: text and capped_age(text, cap=self.options.cap_ages)
        if action is Action.PATIENT:
            return lambda _: self.pseudonym
        if action is Action.DEVICE:
            kind = DEVICES[keyword_for_tag(tag)]
            return lambda text: text and self.key.device(kind, text)
        if action is Action.DESCRIPTOR:
            return lambda text: clean_text(text, identity=self.identity, days=self.days)
        if action is Action.CODE:
            return lambda text: None if self.identity.is_one(text) else text
        if action is Action.TECHNICAL:
            return self._technical_code if vr == "CS" else self.identity.cut
        return lambda _: _dummy(vr)

    def _technical_code(self, text: str) -> str | None:
        """Return a code string as it is, or None where it holds a name: a code with a piece cut out is another code."""
        return text if len(text) <= 16 and self.identity.cut(text, shortest=4) == text else None


def _keep_numbers(dataset: Dataset, tag: BaseTag, vr: str) -> Action:
    """Leave numbers as they are stored, byte by byte; text in their place goes."""
    raw = dataset.get_item(tag)
    stored = raw.value if isinstance(raw, RawDataElement) else None
    if vr in ("DS", "IS"):
        if not isinstance(stored, bytes):
            stored = b"\\".join(str(value).encode() for value in _values(dataset[tag].value) if value is not None)
        if not is_numbers(stored):
            dataset[tag] = _empty(tag, vr)
            return Action.EMPTY
    elif vr == "CS" and str(dataset[tag].value or "") not in _CHARACTERISTIC_CODES:
        dataset[tag] = _empty(tag, vr)
        return Action.EMPTY
    return Action.KEEP


def _declare(dataset: Dataset, options: DeidentifyOptions, earlier: list[Dataset]) -> None:
    """Write into the dataset what was done to it."""
    done = [
        codes.DCM.BasicApplicationConfidentialityProfile,
        codes.DCM.CleanDescriptorsOption,
        codes.DCM.RetainLongitudinalTemporalInformationModifiedDatesOption,
        codes.DCM.RetainSafePrivateOption,
    ]
    if options.patient_characteristics:
        done.append(codes.DCM.RetainPatientCharacteristicsOption)
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = METHOD
    dataset.DeidentificationMethodCodeSequence = Sequence([*map(_code_item, done), *earlier])
    dataset.LongitudinalTemporalInformationModified = "MODIFIED"


def _earlier_methods(dataset: Dataset) -> list[Dataset]:
    old = dataset.get("DeidentificationMethodCodeSequence") or []
    said = {(str(item.get("CodingSchemeDesignator", "")), str(item.get("CodeValue", ""))) for item in old}
    return [_code_item(code) for code in _EARLIER_METHODS if ("DCM", code.value) in said]


def _code_item(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def _file_meta(dataset: FileDataset) -> FileMetaDataset:
    """Return a new file meta: of the old one, only the transfer syntax is taken over."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    return meta


def _private_creators(dataset: Dataset) -> dict[BaseTag, str]:
    return {
        tag: _text_of(dataset, tag) for tag in list(dataset.keys()) if tag.is_private and 0x10 <= tag.element <= 0xFF
    }


def _text_of(dataset: Dataset, tag: BaseTag) -> str:
    raw: Any = dataset.get_item(tag)
    value = raw.value if raw is not None else None
    return (value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)).strip(" \0")


def _vr(dataset: Dataset, tag: BaseTag) -> str:
    """Return the VR of an element without decoding its value; for UN and implicit VR, that of the dictionary."""
    element: Any = dataset.get_item(tag)
    vr = element.VR
    if vr in (None, "UN") and dictionary_has_tag(tag):
        vr = dictionary_VR(tag)
        if " or " in vr:  # pixel data, lookup tables: numbers of a width that other elements tell
            vr = "OW" if "OW" in vr else "US"
    return str(vr)


def _empty(tag: BaseTag, vr: str) -> DataElement:
    return DataElement(tag, vr, Sequence() if vr == "SQ" else None)


def _dummy(vr: str) -> str | None:
    """Return a value that keeps a required element valid and says nothing."""
    return DUMMY_TEXT if vr in ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT") else None


def _values(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, MultiValue | list | tuple) else [value]


def _telling_elements(dataset: Dataset) -> Iterable[DataElement]:
    """Yield the elements that name a person, an institution or a case, without decoding any other."""
    for tag in list(dataset.keys()):
        if tag.is_private:
            continue
        vr = _vr(dataset, tag)
        wanted = vr == "PN" or tag in _IDENTIFIERS or tag in _PHRASES or tag == _BIRTH_DATE
        try:
            if vr == "SQ":
                for item in dataset[tag].value:
                    yield from _telling_elements(item)
            elif wanted:
                yield dataset[tag]
        except Exception:  # it cannot be read, so it goes in the cleaning
            continue


def _birth_forms(text: str) -> list[str]:
    year, month, day = text[:4], text[4:6], text[6:]
    return [text, f"{year}-{month}-{day}", f"{day}.{month}.{year}", f"{month}/{day}/{year}", f"{day}/{month}/{year}"]
