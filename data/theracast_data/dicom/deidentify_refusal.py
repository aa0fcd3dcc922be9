"""Which files are not taken: kinds whose content cannot be cleaned here, and images that may have text in the pixels."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom import uid
from pydicom.dataset import Dataset, FileDataset

from theracast_data.dicom.deidentify_keys import is_registered
from theracast_data.dicom.deidentify_rules import DeidentifyOptions

# Images without a habit of burned-in text, and regions and registrations on them.
TAKEN = frozenset(
    {
        uid.CTImageStorage,
        uid.EnhancedCTImageStorage,
        uid.LegacyConvertedEnhancedCTImageStorage,
        uid.MRImageStorage,
        uid.EnhancedMRImageStorage,
        uid.LegacyConvertedEnhancedMRImageStorage,
        uid.PositronEmissionTomographyImageStorage,
        uid.EnhancedPETImageStorage,
        uid.LegacyConvertedEnhancedPETImageStorage,
        uid.NuclearMedicineImageStorage,
        uid.DigitalXRayImageStorageForPresentation,
        uid.DigitalXRayImageStorageForProcessing,
        uid.DigitalMammographyXRayImageStorageForPresentation,
        uid.DigitalMammographyXRayImageStorageForProcessing,
        uid.BreastTomosynthesisImageStorage,
        uid.ComputedRadiographyImageStorage,
        uid.ParametricMapStorage,
        uid.SegmentationStorage,
        uid.RTStructureSetStorage,
        uid.RTDoseStorage,
        uid.SpatialRegistrationStorage,
        uid.DeformableSpatialRegistrationStorage,
        uid.RealWorldValueMappingStorage,
    }
)
LIKELY_BURNED_IN = frozenset(
    {
        uid.UltrasoundImageStorage,
        uid.UltrasoundMultiFrameImageStorage,
        uid.SecondaryCaptureImageStorage,
        uid.MultiFrameSingleBitSecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
        uid.XRayAngiographicImageStorage,
        uid.XRayRadiofluoroscopicImageStorage,
    }
)
_SCREENS = ("SCREEN", "CAPTURE", "DOSE INFO", "PATIENT PROTOCOL", "PROTOCOL PAGE")
_BURNED_IN_MODALITIES = frozenset({"US", "IVUS", "OT", "SC", "ES", "XC", "GM", "SM"})
_INTEGER_PIXELS = ("Rows", "Columns", "BitsAllocated")


def refusal(dataset: FileDataset, options: DeidentifyOptions) -> str | None:
    """Return why a file is not taken, in words that hold none of its values, or None.

    Args:
        dataset: with or without its pixels.
    """
    if dataset.file_meta.get("MediaStorageSOPClassUID") == uid.MediaStorageDirectoryStorage:
        return "is a directory of other files (DICOMDIR), which names patients; the files themselves are taken"
    sop_class = str(dataset.get("SOPClassUID", ""))
    if not str(dataset.get("SOPInstanceUID", "")) or not sop_class:
        return "has no SOP Instance UID or SOP Class UID"
    if not str(dataset.get("PatientID", "") or "").strip():
        return "has no Patient ID, so that pseudonym and date shift are not defined"
    if sop_class not in TAKEN | LIKELY_BURNED_IN:
        name = uid.UID(sop_class).name if is_registered(sop_class) else "a private SOP class"
        return f"{name} is a kind of object that is not taken (reports, documents, presentation states, raw data)"
    if "TransferSyntaxUID" not in dataset.file_meta:
        return "has no Transfer Syntax UID"
    return None if options.allow_burned_in else _burned_in(dataset, sop_class)


def truncation(dataset: Dataset) -> str | None:
    """Return that uncompressed pixel data are shorter than the header says, or None."""
    if "PixelData" not in dataset or dataset.file_meta.TransferSyntaxUID.is_compressed:
        return None
    if any(not isinstance(dataset.get(name), int) for name in _INTEGER_PIXELS):
        return "has pixel data without rows, columns or bits"
    frames, samples = int(dataset.get("NumberOfFrames") or 1), int(dataset.get("SamplesPerPixel") or 1)
    bits = dataset.Rows * dataset.Columns * frames * samples * dataset.BitsAllocated
    if len(dataset.PixelData) < (bits + 7) // 8 and dataset.get("PhotometricInterpretation") != "YBR_FULL_422":
        return "is truncated: its pixel data are shorter than rows x columns x frames"
    return None


def _burned_in(dataset: FileDataset, sop_class: str) -> str | None:
    way = "Look at the pixels; if there is no text, say --allow-burned-in"
    if str(dataset.get("BurnedInAnnotation", "")).strip().upper() == "YES":
        return f"says that text is burned into its pixels. {way}"
    if sop_class in LIKELY_BURNED_IN or str(dataset.get("Modality", "")).strip().upper() in _BURNED_IN_MODALITIES:
        return f"is of a kind that often has text in its pixels (ultrasound, secondary capture, fluoroscopy). {way}"
    image_type = " ".join(_texts(dataset.get("ImageType"))).upper()
    if any(word in image_type for word in _SCREENS):
        return f"is a screen capture by its image type. {way}"
    overlays = [tag for tag in list(dataset.keys()) if tag.group & 0xFF01 == 0x6000 and tag.element == 0x0102]
    if any(dataset[tag].value for tag in overlays):
        return f"has an overlay in unused bits of its pixels. {way}"
    return None


def _texts(value: object) -> Iterable[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(one) for one in value]  # type: ignore[attr-defined]
