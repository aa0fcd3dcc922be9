"""What becomes of each attribute: the action table of PS3.15, and what we decide where the table leaves it open.

The table (E.1-1 of DICOM PS3.15, edition 2026c, basic application level confidentiality profile) is read from the package
dicom-anonymizer, whose own engine is not used: it draws random UIDs, puts one date for all and looks at the top level only.
Attributes that the table does not list are kept by the profile; here, free text among them goes unless it is listed below.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from functools import cache
from types import MappingProxyType

from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
from pydantic import Field
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.tag import BaseTag, Tag

from theracast_data.errors import TheracastError
from theracast_data.section import Section
from theracast_data.spelling import nearest

TABLE_EDITION = "PS3.15 2026c Table E.1-1"


class Action(StrEnum):
    """What is done with an element. The audit list writes these words."""

    KEEP = "kept"
    AGE = "age kept"
    TIME = "time kept"
    DATE = "date shifted"
    UID = "UID replaced"
    PATIENT = "patient pseudonym"
    DEVICE = "device pseudonym"
    TECHNICAL = "technical text kept"
    CODE = "code kept"
    DESCRIPTOR = "descriptor cleaned"
    DESCEND = "items cleaned"
    DUMMY = "dummy value"
    EMPTY = "emptied"
    REMOVE = "removed"


def _keywords(text: str) -> frozenset[str]:
    return frozenset(text.split())


class DeidentifyOptions(Section):
    """The options of the profile. Modified dates, safe private and clean descriptors are always in use."""

    patient_characteristics: bool = Field(
        default=False,
        description="keep age, sex, size and weight and what goes with them (SUV needs the weight): 113108",
    )
    cap_ages: bool = Field(default=True, description="write ages over 89 years as 090Y")
    allow_burned_in: bool = Field(
        default=False, description="take images that say, or are of a kind, that text is burned into the pixels"
    )
    keep_text: tuple[str, ...] = Field(
        default=(), description="keywords of further descriptors to keep cleaned, e.g. SeriesDescription"
    )

    def descriptors(self) -> frozenset[str]:
        """Return the keywords of all descriptors that are kept.

        Raises:
            TheracastError: a keyword is unknown, or is no descriptor.
        """
        for keyword in self.keep_text:
            if keyword not in KEEPABLE_DESCRIPTORS:
                near = nearest(keyword, KEEPABLE_DESCRIPTORS)
                hint = f" Did you mean {near}?" if near else ""
                raise TheracastError(
                    f"{keyword}: not the keyword of a text that may be kept.{hint} "
                    f"There are: {', '.join(sorted(KEEPABLE_DESCRIPTORS))}."
                )
        return REGION_NAMES | frozenset(self.keep_text)


REGION_NAMES = frozenset({"ROIName", "SegmentLabel"})
KEEPABLE_DESCRIPTORS = _keywords(
    "StudyDescription SeriesDescription ProtocolName ContrastBolusAgent StructureSetLabel StructureSetName "
    "StructureSetDescription ROIDescription ROIGenerationDescription ROIObservationLabel ROIObservationDescription "
    "ContentDescription SegmentDescription TrackingID DerivationDescription ReconstructionDescription "
    "RequestedProcedureDescription AcquisitionProtocolName ImageComments FrameComments LUTExplanation "
    "WindowCenterWidthExplanation"
)
# Retain Patient Characteristics Option: column K of Table E.1-1, and the body measures of group 0010 outside the table.
CHARACTERISTICS = _keywords(
    "PatientSex PatientAge PatientSize PatientWeight PatientBodyMassIndex MeasuredAPDimension MeasuredLateralDimension "
    "EthnicGroup SmokingStatus PregnancyStatus PatientSexNeutered"
)
# Text that scanners and programs write about themselves, none of it in the table.
TECHNICAL_TEXT = _keywords(
    "Manufacturer ManufacturerModelName SoftwareVersions SequenceName PulseSequenceName ImagedNucleus ReceiveCoilName "
    "TransmitCoilName Radiopharmaceutical RadiopharmaceuticalRoute ContrastBolusRoute FilterType TypeOfFilters "
    "CollimatorGridName AcquisitionMode ConvolutionKernel ImageFilter AlgorithmName AlgorithmVersion AlgorithmSource "
    "SegmentAlgorithmName AttenuationCorrectionMethod ReconstructionMethod ScatterCorrectionMethod PVCRejection "
    "DetectorLinesOfResponseUsed EnergyWindowName PositionReferenceIndicator RescaleType ModalityLUTType StackID "
    "DimensionDescriptionLabel PixelSpacingCalibrationDescription SecondaryCaptureDeviceManufacturer "
    "SecondaryCaptureDeviceManufacturerModelName DoseModeName "
    "FunctionalGroupPrivateCreator DimensionIndexPrivateCreator MappingResourceName CodingSchemeName "
    "CodeMeaning ExtendedCodeMeaning"
)
CODES = _keywords(
    "CodeValue LongCodeValue URNCodeValue ExtendedCodeValue CodingSchemeDesignator CodingSchemeVersion "
    "CodingSchemeRegistry Modality SpecificCharacterSet ImageType"
)
# Data that is the image or says how to draw it. Any other stream of bytes goes.
BULK = _keywords(
    "PixelData FloatPixelData DoubleFloatPixelData ExtendedOffsetTable ExtendedOffsetTableLengths LUTData "
    "RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData "
    "SegmentedRedPaletteColorLookupTableData SegmentedGreenPaletteColorLookupTableData "
    "SegmentedBluePaletteColorLookupTableData VectorGridData PointCoordinatesData TrianglePointIndexList "
    "LongTrianglePointIndexList LongPrimitivePointIndexList DoublePointCoordinatesData "
    "VectorCoordinateData"
)
DEVICES = MappingProxyType({"DeviceSerialNumber": "serial number", "InstitutionName": "institution"})
# Private attributes without identity: (group, creator, offset) -> VR. Numbers and dates that SUV, pitch and diffusion need.
# Source: PS3.15 Table E.3.10-1; for GE PET the tags of QIBA's vendor-neutral pseudo-code for SUV.
SAFE_PRIVATE = MappingProxyType(
    {
        (0x7053, "Philips PET Private Group", 0x00): "DS",  # SUV factor
        (0x7053, "Philips PET Private Group", 0x09): "DS",  # activity concentration factor
        (0x0009, "GEMS_PETD_01", 0x0D): "DT",  # scan begins: the time that decay is corrected to
        (0x0009, "GEMS_PETD_01", 0x38): "FL",  # tracer activity
        (0x0009, "GEMS_PETD_01", 0x39): "DT",  # activity measured
        (0x0009, "GEMS_PETD_01", 0x3B): "DT",  # tracer given
        (0x0009, "GEMS_PETD_01", 0x3C): "FL",  # activity left over
        (0x0009, "GEMS_PETD_01", 0x3D): "DT",  # remainder measured
        (0x0009, "GEMS_PETD_01", 0x3F): "FL",  # half-life
        (0x0019, "GEMS_ACQU_01", 0x23): "DS",  # table speed
        (0x0019, "GEMS_ACQU_01", 0x24): "DS",  # middle of the scan
        (0x0019, "GEMS_ACQU_01", 0x27): "DS",  # rotation
        (0x0043, "GEMS_PARM_01", 0x39): "IS",  # b-value
        (0x0045, "GEMS_HELIOS_01", 0x01): "SS",  # rows of the detector
        (0x0045, "GEMS_HELIOS_01", 0x02): "FL",  # width of a row
        (0x0019, "SIEMENS MR HEADER", 0x0C): "IS",  # b-value
        (0x0019, "SIEMENS MR HEADER", 0x0D): "CS",  # direction of diffusion
        (0x0019, "SIEMENS MR HEADER", 0x0E): "FD",  # gradient
        (0x0019, "SIEMENS MR HEADER", 0x27): "FD",  # b-matrix
        (0x2001, "Philips Imaging DD 001", 0x03): "FL",  # b-value
        (0x2001, "Philips Imaging DD 001", 0x04): "CS",  # direction of diffusion
        (0x2005, "Philips MR Imaging DD 001", 0x0E): "FL",  # scale slope: signal in units that compare between scans
        (0x01F1, "ELSCINT1", 0x26): "DS",  # pitch
        (0x01F1, "ELSCINT1", 0x27): "DS",  # rotation time
    }
)
# Names of persons, identifiers and phrases by which text is searched for what points to the patient.
IDENTIFIERS = _keywords(
    "PatientID OtherPatientIDs AccessionNumber AdmissionID ServiceEpisodeID RequestedProcedureID StudyID "
    "ScheduledProcedureStepID PerformedProcedureStepID FillerOrderNumberImagingServiceRequest MedicalRecordLocator "
    "PlacerOrderNumberImagingServiceRequest InsurancePlanIdentification ClinicalTrialSubjectID "
    "ClinicalTrialSubjectReadingID PatientTelephoneNumbers DeviceSerialNumber"
)
PHRASES = _keywords(
    "PatientAddress InstitutionName InstitutionAddress InstitutionalDepartmentName ReferringPhysicianAddress "
    "CurrentPatientLocation PatientInstitutionResidence Occupation StationName ClinicalTrialSiteName "
    "ResponsibleOrganization"
)
TEXT = frozenset({"AE", "LO", "LT", "SH", "ST", "UC", "UR", "UT"})
NUMBERS = frozenset({"DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV", "AT"})
BYTES = frozenset({"OB", "OD", "OF", "OL", "OV", "OW"})
# Written anew for every file: what was done to it.
_METHOD = _keywords(
    "PatientIdentityRemoved DeidentificationMethod DeidentificationMethodCodeSequence "
    "LongitudinalTemporalInformationModified"
)
_OVERLAYS_AND_CURVES = (0x5000, 0x6000)


def _table_actions() -> dict[BaseTag, Action]:
    columns = {
        Action.REMOVE: [table.X_TAGS],
        Action.EMPTY: [table.Z_TAGS, table.X_Z_TAGS],
        Action.DUMMY: [table.D_TAGS, table.Z_D_TAGS, table.X_D_TAGS, table.X_Z_D_TAGS],
        Action.UID: [table.U_TAGS],
        Action.DESCEND: [table.X_Z_U_STAR_TAGS],
    }
    return {
        Tag(*one): action
        for action, lists in columns.items()
        for tags in lists
        for one in tags
        if len(one) == 2  # the three repeating groups are overlays and curves, which go as a whole
    }


TABLE = MappingProxyType(_table_actions())


def rule_for(tag: BaseTag, vr: str, *, options: DeidentifyOptions, descriptors: frozenset[str]) -> Action:
    """Return the action for a public element.

    Args:
        vr: value representation as stored; where the dictionary disagrees in kind, the element goes.
        descriptors: of `options.descriptors()`.
    """
    if (
        tag.group < 0x0008
        or tag.element == 0
        or tag.group & 0xFF00 in _OVERLAYS_AND_CURVES
        or not dictionary_has_tag(tag)
    ):
        return Action.REMOVE
    keyword, expected = _dictionary(tag)
    if keyword in _METHOD or not _same_kind(vr, expected):
        return Action.REMOVE
    if keyword in ("PatientID", "PatientName"):
        return Action.PATIENT
    if keyword in DEVICES:
        return Action.DEVICE
    if keyword in descriptors:
        return Action.DESCRIPTOR
    if tag.group == 0x0010 or keyword in CHARACTERISTICS:
        return _patient_rule(tag, vr, keyword, options)
    if vr in ("DA", "DT"):
        return Action.DATE
    if vr == "TM":
        return Action.TIME
    listed = TABLE.get(tag)
    if listed is Action.DUMMY and vr == "SQ":
        return Action.EMPTY
    if keyword == "TimezoneOffsetFromUTC":  # a time, without which times of two scanners do not compare
        return Action.TIME
    return listed or _unlisted_rule(tag, vr, keyword)


def _patient_rule(tag: BaseTag, vr: str, keyword: str, options: DeidentifyOptions) -> Action:
    if options.patient_characteristics and keyword in CHARACTERISTICS:
        return Action.AGE if vr == "AS" else Action.DESCRIPTOR if vr in TEXT else Action.KEEP
    if options.patient_characteristics and keyword == "LastMenstrualDate":
        return Action.DATE
    listed = TABLE.get(tag)
    return Action.EMPTY if listed is Action.EMPTY else Action.REMOVE


def _unlisted_rule(tag: BaseTag, vr: str, keyword: str) -> Action:
    if vr == "SQ":
        return Action.DESCEND
    if vr == "UI":
        return Action.UID
    if vr == "PN":
        return Action.EMPTY
    if keyword in CODES:
        return Action.CODE
    if vr in TEXT:
        return Action.TECHNICAL if keyword in TECHNICAL_TEXT else Action.EMPTY  # some modules require it to be there
    if vr in BYTES:
        return Action.KEEP if keyword in BULK else Action.REMOVE
    if vr == "CS":
        return Action.REMOVE if tag.group == 0x0012 else Action.TECHNICAL
    return Action.KEEP if vr in NUMBERS else Action.REMOVE


@cache
def _dictionary(tag: BaseTag) -> tuple[str, tuple[str, ...]]:
    return keyword_for_tag(tag), tuple(dictionary_VR(tag).split(" or "))


def _same_kind(vr: str, expected: Iterable[str]) -> bool:
    """Return whether a stored VR is one the dictionary allows, or a mix-up within texts, numbers or bytes."""
    return any(vr == one or any(vr in kind and one in kind for kind in (TEXT, NUMBERS, BYTES)) for one in expected)


def keyword_tags(keywords: Iterable[str]) -> frozenset[BaseTag]:
    """Return the tags of keywords that the dictionary knows."""
    return frozenset(Tag(tag) for tag in map(tag_for_keyword, keywords) if tag is not None)
