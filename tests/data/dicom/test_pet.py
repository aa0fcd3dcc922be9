"""SUV against the formula written out, for each way in which files tell activity and time."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset

from theracast_data.dicom.pet import lbm_james_kg, lbm_janmahasatian_kg, read_suv
from theracast_data.dicom.series import read_series
from theracast_data.errors import ImageError

Make = Callable[..., list[Path]]
Change = Callable[..., None]
HALF_LIFE = 6586.2
DOSE, WEIGHT, HEIGHT = 3.7e8, 70.0, 1.75
HOUR = 3600.0


@pytest.fixture
def pet(tmp_path: Path, make_series: Make) -> list[Path]:
    """START, injected 09:15, scan 10:15, BQML."""
    return make_series(tmp_path / "pt", kind="PT", intercept=0.0, slope=2.5)


def every(files: list[Path], change: Change, edit: Callable[[FileDataset], None]) -> None:
    for path in files:
        change(path, edit)


def tracer(**elements: Any) -> Callable[[FileDataset], None]:
    def edit(dataset: FileDataset) -> None:
        for keyword, value in elements.items():
            item = dataset.RadiopharmaceuticalInformationSequence[0]
            if value is None:
                delattr(item, keyword)
            else:
                setattr(item, keyword, value)

    return edit


def elements(**wanted: Any) -> Callable[[FileDataset], None]:
    def edit(dataset: FileDataset) -> None:
        for keyword, value in wanted.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    return edit


def activity(files: list[Path]) -> np.ndarray:
    return np.stack([pydicom.dcmread(path).pixel_array for path in files]) * 2.5


def after(seconds: float) -> float:
    """Return the factor from Bq/mL to SUVbw with so much decay of the dose."""
    return WEIGHT * 1000 / (DOSE * 2 ** (-seconds / HALF_LIFE))


def test_corrected_to_the_start_of_the_scan(pet: list[Path]) -> None:
    volume = read_suv(pet)
    np.testing.assert_allclose(volume.values, activity(pet) * after(HOUR), rtol=1e-12)
    assert volume.unit == "g/mL"
    assert "SUV: bw" in volume.notes


def test_corrected_to_the_injection(pet: list[Path], change: Change) -> None:
    every(pet, change, elements(DecayCorrection="ADMIN"))
    np.testing.assert_allclose(read_suv(pet).values, activity(pet) * after(0), rtol=1e-12)


def test_not_corrected_in_the_files(pet: list[Path], change: Change) -> None:
    every(pet, change, elements(DecayCorrection="NONE", CorrectedImage=["ATTN"]))
    for path in pet[3:]:  # a second bed, five minutes later
        change(path, AcquisitionTime="102000")
    wait = np.array([HOUR] * 3 + [HOUR + 300] * 3)
    rate = math.log(2) / HALF_LIFE
    # The mean over 120 s of a falling activity, by summing it up.
    mean = np.exp(-rate * (np.arange(120000) + 0.5) / 1000).mean()
    factor = np.exp(rate * wait) / mean * WEIGHT * 1000 / DOSE
    np.testing.assert_allclose(read_suv(pet).values, activity(pet) * factor[:, None, None], rtol=1e-9)


def test_injected_before_midnight(pet: list[Path], change: Change) -> None:
    every(pet, change, elements(SeriesTime="001500", AcquisitionTime="001500"))
    every(pet, change, tracer(RadiopharmaceuticalStartTime="231500"))
    np.testing.assert_allclose(read_suv(pet).values, activity(pet) * after(HOUR), rtol=1e-12)
    every(pet, change, tracer(RadiopharmaceuticalStartDateTime="20200101231500.00+0100"))
    np.testing.assert_allclose(read_suv(pet).values, activity(pet) * after(HOUR), rtol=1e-12)


def test_a_scan_that_crosses_midnight(pet: list[Path], change: Change) -> None:
    every(pet, change, elements(SeriesTime="235500", AcquisitionTime="235500"))
    for path in pet[3:]:
        change(path, AcquisitionTime="000500", AcquisitionDate="20200103")
    every(pet, change, tracer(RadiopharmaceuticalStartTime="225500"))
    np.testing.assert_allclose(read_suv(pet).values, activity(pet) * after(HOUR), rtol=1e-12)


def test_a_rewritten_series_time_does_not_move_the_scan(pet: list[Path], change: Change) -> None:
    every(pet, change, elements(SeriesTime="150000", FrameReferenceTime=None))
    volume = read_suv(pet)
    np.testing.assert_allclose(volume.values, activity(pet) * after(HOUR), rtol=1e-12)
    assert any("the start is the first AcquisitionTime" in note for note in volume.notes)

    # Two beds: the mean count rate comes just before the middle of each, counted from the start of the scan.
    rate = math.log(2) / HALF_LIFE
    decay = rate * 120
    mean_ms = 1000 * math.log(decay / (1 - math.exp(-decay))) / rate
    assert 59_000 < mean_ms < 60_000
    for number, path in enumerate(pet):
        bed = 0 if number < 3 else 300
        change(
            path,
            AcquisitionTime="101500" if bed == 0 else "102000",
            FrameReferenceTime=f"{bed * 1000 + mean_ms + 120_000:.3f}",
        )
    volume = read_suv(pet)  # the scan began 120 s before the first bed of this series
    np.testing.assert_allclose(volume.values, activity(pet) * after(HOUR - 120), rtol=1e-6)
    assert any("FrameReferenceTime" in note for note in volume.notes)

    def ge(dataset: FileDataset) -> None:
        dataset.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20200102101000.00")

    every(pet, change, ge)
    volume = read_suv(pet)
    np.testing.assert_allclose(volume.values, activity(pet) * after(HOUR - 300), rtol=1e-12)
    assert any("scan time of GE" in note for note in volume.notes)


@pytest.mark.parametrize("vr", ["DS", "UN"])
def test_counts_of_philips(pet: list[Path], change: Change, vr: str) -> None:
    def philips(**factors: float) -> Callable[[FileDataset], None]:
        def edit(dataset: FileDataset) -> None:
            dataset.Units = "CNTS"
            block = dataset.private_block(0x7053, "Philips PET Private Group", create=True)
            for element, value in ((0x00, factors["suv"]), (0x09, factors["activity"])):
                if element in block:
                    del block[element]
                block.add_new(element, vr, str(value) if vr == "DS" else f"{value} ".encode())

        return edit

    every(pet, change, philips(suv=0.001, activity=3.0))
    np.testing.assert_allclose(read_suv(pet).values, activity(pet) * 0.001, rtol=1e-12)
    every(pet, change, philips(suv=0.0, activity=3.0))
    np.testing.assert_allclose(read_suv(pet).values, activity(pet) * 3.0 * after(HOUR), rtol=1e-12)
    every(pet, change, philips(suv=0.0, activity=0.0))
    with pytest.raises(ImageError, match=r"neither the SUV factor \(7053,1000\)"):
        read_suv(pet)


def test_lean_body_mass(pet: list[Path], change: Change) -> None:
    # A woman of 70 kg and 175 cm, by hand: James 74.9 - 148 * 0.16 = 51.22; Janmahasatian 648900 / (8780 + 244 * 22.857).
    assert lbm_james_kg(70, 1.75, "F") == pytest.approx(51.22)
    assert lbm_james_kg(70, 1.75, "M") == pytest.approx(77 - 128 * 0.16)
    assert lbm_janmahasatian_kg(70, 1.75, "F") == pytest.approx(648900 / (8780 + 244 * 70 / 3.0625))
    assert lbm_janmahasatian_kg(70, 1.75, "M") == pytest.approx(648900 / (6680 + 216 * 70 / 3.0625))
    body = read_suv(pet).values
    np.testing.assert_allclose(read_suv(pet, kind="lbm_james").values, body * 51.22 / 70, rtol=1e-12)
    lean = read_suv(pet, kind="sul")
    np.testing.assert_allclose(lean.values, body * lbm_janmahasatian_kg(70, 1.75, "F") / 70, rtol=1e-12)
    assert "SUV: lbm_janmahasatian" in lean.notes
    every(pet, change, elements(Units="GML", SUVType="LBMJANMA"))
    np.testing.assert_allclose(read_suv(pet, kind="sul").values, activity(pet), rtol=1e-12)
    with pytest.raises(ImageError, match=r"SUVType \(0054,1006\) is LBMJANMA"):
        read_suv(pet)


REFUSED: dict[str, tuple[Callable[[FileDataset], None], str, str]] = {
    "no weight": (elements(PatientWeight=None), "bw", r"PatientWeight \(0010,1030\) is missing"),
    "weight 0": (elements(PatientWeight=0), "bw", r"PatientWeight \(0010,1030\) is missing or 0"),
    "weight in g": (elements(PatientWeight=70000), "bw", r"PatientWeight \(0010,1030\) is not that of a person"),
    "no height": (elements(PatientSize=None), "sul", r"PatientSize \(0010,1020\) is missing"),
    "height in cm": (elements(PatientSize=175), "sul", r"PatientSize \(0010,1020\) is not that of a person in m"),
    "no sex": (elements(PatientSex="O"), "sul", r"PatientSex \(0010,0040\) is not M or F"),
    "no dose": (tracer(RadionuclideTotalDose=None), "bw", r"RadionuclideTotalDose \(0018,1074\) is missing"),
    "dose in MBq": (tracer(RadionuclideTotalDose=370), "bw", r"is it in MBq"),
    "no half-life": (tracer(RadionuclideHalfLife=None), "bw", r"RadionuclideHalfLife \(0018,1075\) is missing"),
    "no injection": (tracer(RadiopharmaceuticalStartTime=None), "bw", r"StartTime \(0018,1072\) is missing"),
    "injection unreadable": (tracer(RadiopharmaceuticalStartTime="soon"), "bw", r"\(0018,1072\) is no time"),
    "injected next day": (
        tracer(RadiopharmaceuticalStartDateTime="20200103091500"),
        "bw",
        r"lies after the scan; give the right time with injected",
    ),
    "clock of the injection fast": (tracer(RadiopharmaceuticalStartTime="101600"), "bw", r"more than 6 half-lives"),
    "date shifted": (tracer(RadiopharmaceuticalStartDateTime="20190102091500"), "bw", r"more than 6 half-lives"),
    "two injections": (tracer(RadiopharmaceuticalStartDateTime="20200102090000"), "bw", r"contradict"),
    "no decay correction": (elements(DecayCorrection=None), "bw", r"DecayCorrection \(0054,1102\) is missing"),
    "decay contradicted": (elements(DecayCorrection="NONE"), "bw", r"which CorrectedImage .* contradicts"),
    "not attenuation-corrected": (elements(CorrectedImage=["DECY"]), "bw", r"has no ATTN"),
    "other unit": (elements(Units="PROPCPS"), "bw", r"Units \(0054,1001\) is PROPCPS"),
    "no acquisition": (elements(AcquisitionTime=None), "bw", r"AcquisitionTime \(0008,0032\) is missing"),
    "no tracer": (elements(RadiopharmaceuticalInformationSequence=[]), "bw", r"\(0054,0016\) has 0 items"),
    "counts of nobody": (elements(Units="CNTS"), "bw", r"neither the SUV factor"),
}


@pytest.mark.filterwarnings("ignore:Invalid value for VR TM")  # pydicom says so while the test writes the fault
@pytest.mark.parametrize("name", REFUSED)
def test_what_keeps_suv_from_being_certain_is_named(pet: list[Path], change: Change, name: str) -> None:
    edit, kind, message = REFUSED[name]
    every(pet, change, edit)
    with pytest.raises(ImageError, match=message):
        read_suv(pet, kind=kind)  # type: ignore[arg-type]


def test_a_half_life_of_another_nuclide_is_refused(pet: list[Path], change: Change) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "C-111A1", "SRT", "18F"
    every(pet, change, tracer(RadionuclideCodeSequence=[code]))
    read_suv(pet)
    every(pet, change, tracer(RadionuclideHalfLife=109.77))  # in minutes
    with pytest.raises(ImageError, match="not that of F18"):
        read_suv(pet)


def test_the_time_of_injection_can_be_given(pet: list[Path], change: Change) -> None:
    every(pet, change, tracer(RadiopharmaceuticalStartDateTime="20190102091500"))
    given = pd.Timestamp("2020-01-02 09:45").to_pydatetime()
    np.testing.assert_allclose(read_suv(pet, injected=given).values, activity(pet) * after(HOUR / 2), rtol=1e-12)


def test_slices_of_several_doses_are_refused(pet: list[Path], change: Change) -> None:
    change(pet[2], tracer(RadionuclideTotalDose=3e8))
    with pytest.raises(ImageError, match=r"RadiopharmaceuticalInformationSequence \(0054,0016\) differs"):
        read_suv(pet)


def enhanced_pet(path: Path, blank: Callable[..., FileDataset], unit: str) -> np.ndarray:
    """Write an enhanced PET of 3 frames with real-world values of 2.5 a step, and return its stored values."""
    stored = np.random.default_rng(2).integers(0, 4000, (3, 4, 5), dtype=np.uint16)
    dataset = blank("EPT", "enhanced")
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.DecayCorrected, dataset.DecayCorrectionDateTime = "YES", "20200102101500"
    dataset.AttenuationCorrected, dataset.PatientWeight, dataset.PatientSize = "YES", WEIGHT, HEIGHT
    tracer_item = Dataset()
    tracer_item.RadiopharmaceuticalStartDateTime = "20200102091500"
    tracer_item.RadionuclideTotalDose, tracer_item.RadionuclideHalfLife = DOSE, HALF_LIFE
    dataset.RadiopharmaceuticalInformationSequence = [tracer_item]
    shared, measures, orientation, real, code = (Dataset() for _ in range(5))
    measures.PixelSpacing, measures.SliceThickness = [4.0, 4.0], 3.0
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = unit, "UCUM", "unit"
    real.RealWorldValueSlope, real.RealWorldValueIntercept, real.LUTLabel = 2.5, 0.0, "real"
    real.MeasurementUnitsCodeSequence = [code]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    shared.RealWorldValueMappingSequence = [real]
    dataset.SharedFunctionalGroupsSequence = [shared]
    items = []
    for frame in range(3):
        item, position, content = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, 3.0 * frame]
        content.StackID = "1"
        item.PlanePositionSequence, item.FrameContentSequence = [position], [content]
        items.append(item)
    dataset.PerFrameFunctionalGroupsSequence = items
    dataset.PixelData = stored.tobytes()
    dataset["PixelData"].VR = "OW"
    dataset.save_as(path, enforce_file_format=True)
    return stored


def test_an_enhanced_pet_tells_unit_and_moment_in_ways_of_its_own(
    tmp_path: Path, blank: Callable[..., FileDataset], change: Change
) -> None:
    path = tmp_path / "enhanced.dcm"
    stored = enhanced_pet(path, blank, "Bq/ml")
    assert read_series(path).unit == "Bq/mL"
    np.testing.assert_allclose(read_suv(path).values, stored * 2.5 * after(HOUR), rtol=1e-12)
    change(path, elements(DecayCorrectionDateTime=None))
    with pytest.raises(ImageError, match=r"DecayCorrectionDateTime \(0018,9701\) is missing"):
        read_suv(path)
    change(path, elements(AttenuationCorrected="NO"))
    with pytest.raises(ImageError, match=r"AttenuationCorrected \(0018,9759\) is NO"):
        read_suv(path)
    stored = enhanced_pet(path, blank, "{SUVbw}g/ml")
    np.testing.assert_allclose(read_suv(path).values, stored * 2.5, rtol=1e-12)

    def second_meaning(dataset: FileDataset) -> None:
        shared = dataset.SharedFunctionalGroupsSequence[0]
        shared.RealWorldValueMappingSequence = [*shared.RealWorldValueMappingSequence] * 2

    change(path, second_meaning)
    with pytest.raises(ImageError, match=r"Units \(0054,1001\), or RealWorldValueSlope .* is missing"):
        read_suv(path)
    stored = enhanced_pet(path, blank, "1")
    with pytest.raises(ImageError, match=r"Units \(0054,1001\) is 1"):
        read_suv(path)


@pytest.mark.parametrize("patient", ["STS_008", "STS_025"])
def test_real_pet_holds_suv_by_body_weight(shared_images: Path, patient: str) -> None:
    """STS comes in g/mL, corrected to the injection: SUV is the stored value times the slope of each slice."""
    folder = shared_images / "sts" / patient / "PET" / "image"
    volume = read_suv(folder)
    slices = sorted((pydicom.dcmread(path) for path in folder.iterdir()), key=lambda one: one.ImagePositionPatient[2])
    expected = np.stack([one.pixel_array.astype(float) * float(one.RescaleSlope) for one in slices])
    np.testing.assert_allclose(volume.values, expected, rtol=1e-12)
    assert 1 < volume.values.max() < 50
    first = slices[0]
    weight, height, sex = float(first.PatientWeight), float(first.PatientSize), first.PatientSex
    lean = 9270 * weight / (8780 + 244 * weight / height**2 if sex == "F" else 6680 + 216 * weight / height**2)
    np.testing.assert_allclose(read_suv(folder, kind="sul").values, expected * lean / weight, rtol=1e-12)


@pytest.mark.parametrize("decay", ["ADMIN", "START"])
def test_real_pet_turned_back_to_activity_gives_the_same_suv(
    shared_images: Path, tmp_path: Path, change: Change, decay: str
) -> None:
    """The same images written as Bq/mL, as the scanner had them, give the SUV that was stored."""
    folder = shared_images / "sts" / "STS_025" / "PET" / "image"
    stored = read_series(folder).values
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())

        def back(dataset: FileDataset) -> None:
            item = dataset.RadiopharmaceuticalInformationSequence[0]
            wait = (  # 10:16:00 to 11:52:24
                pd.Timestamp(f"2000-10-04 {dataset.SeriesTime}") - pd.Timestamp("2000-10-04 101600.00")
            ).total_seconds()
            left = float(item.RadionuclideTotalDose)
            if decay == "START":
                left *= 0.5 ** (wait / float(item.RadionuclideHalfLife))
            slope = float(dataset.RescaleSlope) * left / (1000 * float(dataset.PatientWeight))
            dataset.Units, dataset.DecayCorrection, dataset.RescaleSlope = "BQML", decay, f"{slope:.12g}"

        change(tmp_path / path.name, back)
    np.testing.assert_allclose(read_suv(tmp_path).values, stored, rtol=1e-9)
