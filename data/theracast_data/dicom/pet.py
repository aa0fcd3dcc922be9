"""PET to standardised uptake values (SUV), with the activity and the injected dose taken to the same moment.

SUV = activity per mL / (injected activity / body mass). The traps are the moments: images are decay-corrected to the start of
the scan (START), to the injection (ADMIN) or not at all (NONE); series times are rewritten by post-processing; injection times
come without a date. What the files do not tell beyond doubt is an error.

Source: QIBA, SUV vendor-neutral pseudo-code (happy path and the robust version), FDG-PET/CT Profile; DICOM PS3.3 C.8.9.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from theracast_data.dicom.header import View, tag_name
from theracast_data.dicom.series import Paths, Series, as_datetime, date_and_time, load_series
from theracast_data.dicom.slices import pet_units
from theracast_data.errors import ImageError
from theracast_data.volume import Volume

SuvKind = Literal["bw", "lbm_james", "lbm_janmahasatian", "sul"]
STORED_KINDS: dict[str, SuvKind] = {"BW": "bw", "LBMJAMES128": "lbm_james", "LBMJANMA": "lbm_janmahasatian"}
"""SUVType (0054,1006) of images that hold SUV already. `LBM` alone does not tell the formula."""

GE_CREATOR, GE_SCAN_TIME = "GEMS_PETD_01", 0x0D
PHILIPS_CREATOR, PHILIPS_SUV, PHILIPS_ACTIVITY = "Philips PET Private Group", 0x00, 0x09

LONGEST_WAIT = 6.0  # half-lives between injection and scan: beyond, clocks or dates are wrong
HALF_LIFE_S = {"F18": 6586.2, "C11": 1221.8, "GA68": 4062.6, "CU64": 45723.6, "ZR89": 282276.0}
"""Half-lives by nuclide. Source: NNDC NuDat 3; a file may differ by 2 %."""
NUCLIDE_CODES = {"C-111A1": "F18", "C-105A1": "C11", "C-131A3": "GA68", "C-127A2": "CU64", "C-168A4": "ZR89"}


@dataclass(frozen=True)
class Tracer:
    """What was injected: activity in Bq at the injection, half-life in s, and when; None where it is not needed."""

    activity_bq: float
    half_life_s: float
    injected: datetime | None

    @property
    def decay_per_s(self) -> float:
        """Decay constant."""
        return math.log(2) / self.half_life_s


def read_suv(paths: Paths, *, kind: SuvKind = "bw", injected: datetime | None = None, **options: Any) -> Volume:
    """Return the SUV volume of a PET series, in g/mL.

    Args:
        paths: as in `read_series`, whose further options are passed on.
        kind: `bw` by body weight; `lbm_james` or `lbm_janmahasatian` by lean body mass, after that formula; `sul` is
            `lbm_janmahasatian`, which PERCIST's successors ask for.
        injected: time of injection, where the files tell none or a wrong one.

    Raises:
        ImageError: as in `read_series`, and what keeps SUV from being certain; it names the tag.
    """
    return suv_volume(load_series(paths, **options), kind=kind, injected=injected)


def suv_volume(series: Series, *, kind: SuvKind = "bw", injected: datetime | None = None) -> Volume:
    """Return a PET series as SUV; see `read_suv`."""
    volume, views = series.volume, [one.view for one in series.slices]
    first = views[0]
    if volume.modality != "PT":
        raise ImageError(f"{first.place}: SUV is of PET; this is {volume.modality}. Name the PET series.")
    wanted: SuvKind = "lbm_janmahasatian" if kind == "sul" else kind
    _check_constant(views)
    if any(one.intercept != 0 for one in series.slices):
        raise first.fault("RescaleIntercept (0028,1052) is not 0, which the PET image module asks for")
    _check_attenuation(first)
    units = pet_units(first)
    factor: npt.NDArray[np.float64] | float
    if units == "GML":
        factor, notes = _stored_suv(first, wanted)
    elif units in ("BQML", "CNTS"):
        scale = _philips_scale(first) if units == "CNTS" else ("activity", np.ones(len(views)))
        if scale[0] == "suv":
            factor, notes = scale[1], ["scaled to SUV by the factor of Philips (7053,1000)"]
        else:
            per_dose, notes = _per_dose(views, injected)
            factor = scale[1] * per_dose * weight_kg(first) * 1000.0
        if wanted != "bw":
            factor = factor * _mass_ratio(first, wanted)
    else:
        raise first.fault(f"Units (0054,1001) is {units}; SUV can be had from BQML, CNTS (Philips) and GML")
    values = volume.values * np.broadcast_to(np.asarray(factor, dtype=np.float64), (len(views),))[:, None, None]
    return replace(volume, values=values, unit="g/mL", notes=(*volume.notes, f"SUV: {wanted}", *notes))


def lbm_james_kg(weight: float, height_m: float, sex: str) -> float:
    """Return lean body mass in kg.

    Source: James, Research on Obesity, HMSO 1976: men 1.10 W - 128 (W/H)^2, women 1.07 W - 148 (W/H)^2, kg and cm.
    """
    ratio = (weight / (height_m * 100.0)) ** 2
    return 1.10 * weight - 128.0 * ratio if sex == "M" else 1.07 * weight - 148.0 * ratio


def lbm_janmahasatian_kg(weight: float, height_m: float, sex: str) -> float:
    """Return lean body mass in kg.

    Source: Janmahasatian et al., Clin Pharmacokinet 2005;44:1051-1065: 9270 W / (6680 + 216 BMI) for men,
    9270 W / (8780 + 244 BMI) for women.
    """
    bmi = weight / height_m**2
    return 9270.0 * weight / (6680.0 + 216.0 * bmi if sex == "M" else 8780.0 + 244.0 * bmi)


LEAN_MASS: dict[str, Callable[[float, float, str], float]] = {
    "lbm_james": lbm_james_kg,
    "lbm_janmahasatian": lbm_janmahasatian_kg,
}


def weight_kg(view: View) -> float:
    """Return PatientWeight, which must be there and be that of a person in kg."""
    weight = view.number("PatientWeight")
    if not weight:
        raise view.fault("PatientWeight (0010,1030) is missing or 0")
    if not 1.0 <= weight <= 500.0:
        raise view.fault("PatientWeight (0010,1030) is not that of a person in kg")
    return weight


def _mass_ratio(view: View, kind: SuvKind) -> float:
    """Return lean body mass over body mass."""
    weight, height, sex = weight_kg(view), view.number("PatientSize"), view.text("PatientSex")
    if not height:
        raise view.fault("PatientSize (0010,1020) is missing or 0")
    if not 0.3 <= height <= 2.6:
        raise view.fault("PatientSize (0010,1020) is not that of a person in m")
    if sex not in ("M", "F"):
        raise view.fault("PatientSex (0010,0040) is not M or F, which lean body mass needs")
    lean = LEAN_MASS[kind](weight, height, sex)
    if not 0.2 * weight <= lean <= weight:
        raise view.fault(
            f"lean body mass by {kind} is no share of PatientWeight (0010,1030) and PatientSize (0010,1020) that a body has"
        )
    return lean / weight


def _check_constant(views: list[View]) -> None:
    """Check that what SUV hangs on is the same in all slices."""
    for keyword in ("PatientWeight", "PatientSize", "PatientSex", "SeriesDate", "SeriesTime"):
        if len({view.text(keyword) for view in views}) > 1:
            raise views[0].fault(f"{tag_name(keyword)} differs between slices of the series")
    told = {_tracer_text(view) for view in views}
    if len(told) > 1:
        raise views[0].fault(
            f"{tag_name('RadiopharmaceuticalInformationSequence')} differs between slices of the series"
        )


def _tracer_text(view: View) -> str:
    keywords = (
        "RadionuclideTotalDose",
        "RadionuclideHalfLife",
        "RadiopharmaceuticalStartTime",
        "RadiopharmaceuticalStartDateTime",
    )
    items = view.items("RadiopharmaceuticalInformationSequence")
    return str([[View((item,), view.place).text(keyword) for keyword in keywords] for item in items])


def _check_attenuation(view: View) -> None:
    if view.text("AttenuationCorrected") == "NO":
        raise view.fault("AttenuationCorrected (0018,9759) is NO: without attenuation correction there is no SUV")
    corrected = view.text("CorrectedImage")
    if corrected is not None and "ATTN" not in corrected.split("\\"):
        raise view.fault("CorrectedImage (0028,0051) has no ATTN: without attenuation correction there is no SUV")


def _stored_suv(view: View, wanted: SuvKind) -> tuple[float, list[str]]:
    """Return the factor for images in g/mL, which hold SUV already."""
    told = view.text("SUVType") or "BW"  # absent means BW by the standard
    stored = STORED_KINDS.get(told)
    if stored == wanted:
        return 1.0, ["the images hold SUV as they are"]
    if stored == "bw":
        return _mass_ratio(view, wanted), ["the images hold SUV by body weight"]
    raise view.fault(
        f"the images hold SUV of another kind (SUVType (0054,1006) is {told}), not to be turned into {wanted}"
    )


def _philips_scale(view: View) -> tuple[Literal["suv", "activity"], npt.NDArray[np.float64] | float]:
    """Return what counts of Philips scanners are scaled to, and by how much; a factor of 0 means none."""
    for element, to in ((PHILIPS_SUV, "suv"), (PHILIPS_ACTIVITY, "activity")):
        factor = _private_number(view, 0x7053, PHILIPS_CREATOR, element)
        if factor:
            return ("suv", factor) if to == "suv" else ("activity", factor)
    raise view.fault(
        "Units (0054,1001) is CNTS, and neither the SUV factor (7053,1000) nor the activity factor (7053,1009) of Philips is there"
    )


def _private(view: View, group: int, creator: str, element: int) -> Any:
    """Return the value of a private element, wherever its block lies; None where it is not."""
    for source in view.sources:
        try:
            block = source.private_block(group, creator)
            if element in block:
                return block[element].value
        except KeyError:
            continue
        except Exception as error:  # pydicom converts late, and fails in many ways
            raise view.fault(f"the private element ({group:04X},xx{element:02X}) cannot be read") from error
    return None


def _private_number(view: View, group: int, creator: str, element: int) -> float | None:
    value = _private(view, group, creator, element)
    try:
        # A reader without the private dictionary wrote it as bytes of unknown VR.
        number = None if value is None else float(value.decode() if isinstance(value, bytes) else value)
    except (TypeError, ValueError, UnicodeDecodeError) as error:
        raise view.fault(f"the private element ({group:04X},xx{element:02X}) is not a number") from error
    return number if number is None or math.isfinite(number) else None


def _per_dose(views: list[View], injected: datetime | None) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Return what activity is to be multiplied by, for each slice, to be a share of the dose that is left per mL."""
    first = views[0]
    if first.text("DecayCorrected") is not None:
        return _enhanced_per_dose(views, injected)
    corrected = (first.need_text("CorrectedImage")).split("\\")
    decay = first.need_text("DecayCorrection")
    done = "DECY" in corrected or "DECAY" in corrected
    if decay not in ("START", "ADMIN", "NONE"):
        raise first.fault(f"DecayCorrection (0054,1102) is {decay}, not START, ADMIN or NONE")
    if done != (decay != "NONE"):
        raise first.fault(
            f"DecayCorrection (0054,1102) is {decay}, which CorrectedImage (0028,0051) contradicts "
            f"({'with' if done else 'without'} DECY)"
        )
    if decay == "ADMIN":
        tracer = _tracer(first, None, None)
        return np.full(len(views), 1.0 / tracer.activity_bq), ["decay-corrected to the injection"]
    if decay == "START":
        scan, how = _scan_start(views, _half_life(first))
        tracer = _tracer(first, scan, injected)
        assert tracer.injected is not None
        left = tracer.activity_bq * math.exp(-tracer.decay_per_s * (scan - tracer.injected).total_seconds())
        return np.full(len(views), 1.0 / left), ["decay-corrected to the start of the scan", *how]
    starts = [_acquired(view) for view in views]
    tracer = _tracer(first, min(starts), injected)
    assert tracer.injected is not None
    factors = []
    for view, start in zip(views, starts, strict=True):
        wait = (start - tracer.injected).total_seconds()
        decay_in_frame = tracer.decay_per_s * view.need_number("ActualFrameDuration") / 1000.0
        mean = decay_in_frame / -math.expm1(-decay_in_frame) if decay_in_frame > 0 else 1.0
        factors.append(math.exp(tracer.decay_per_s * wait) * mean / tracer.activity_bq)
    return np.array(factors), ["not decay-corrected in the files; corrected here, frame by frame, to the injection"]


def _enhanced_per_dose(views: list[View], injected: datetime | None) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Return the same for enhanced images, which tell the moment itself: DecayCorrectionDateTime (0018,9701)."""
    first = views[0]
    if first.text("DecayCorrected") != "YES":
        raise first.fault("DecayCorrected (0018,9758) is not YES; correct the images for decay first")
    moments = {as_datetime(view.text("DecayCorrectionDateTime")) for view in views}
    moment = next(iter(moments))
    if len(moments) != 1 or moment is None:
        raise first.fault("DecayCorrectionDateTime (0018,9701) is missing, no time, or differs between frames")
    tracer = _tracer(first, moment, injected)
    assert tracer.injected is not None
    left = tracer.activity_bq * math.exp(-tracer.decay_per_s * (moment - tracer.injected).total_seconds())
    return np.full(len(views), 1.0 / left), ["decay-corrected to DecayCorrectionDateTime (0018,9701)"]


def _scan_start(views: list[View], half_life_s: float) -> tuple[datetime, list[str]]:
    """Return the moment to which START corrects: the start of the scan, which SeriesTime is unless it was rewritten."""
    first = views[0]
    starts = [_acquired(view) for view in views]
    series = date_and_time(first, "SeriesDate", "SeriesTime")
    if series is None:
        raise first.fault("SeriesDate (0008,0021) or SeriesTime (0008,0031) is missing or no time")
    if series <= min(starts):
        return series, []
    late = "SeriesTime (0008,0031) lies after the first acquisition: it is that of later processing"
    private = _private(first, 0x0009, GE_CREATOR, GE_SCAN_TIME)
    if private is not None:
        text = private.decode(errors="replace").strip("\0 ") if isinstance(private, bytes) else str(private)
        scan = as_datetime(text)
        if scan is None:
            raise first.fault("the scan time of GE (0009,xx0D) is no time")
        return scan, [f"{late}; the start is the scan time of GE (0009,xx0D)"]
    offsets = [_from_frame_reference(view, start, half_life_s) for view, start in zip(views, starts, strict=True)]
    known = [one for one in offsets if one is not None]
    if known and len(known) == len(views):
        if (max(known) - min(known)).total_seconds() > 60.0:
            raise first.fault(
                f"{late}, and FrameReferenceTime (0054,1300) of the slices leads back to starts more than a minute apart"
            )
        return sorted(known)[len(known) // 2], [f"{late}; the start was computed from FrameReferenceTime (0054,1300)"]
    return min(starts), [f"{late}; the start is the first AcquisitionTime (0008,0032)"]


def _from_frame_reference(view: View, start: datetime, half_life_s: float) -> datetime | None:
    """Return the start of the scan by the moment of the mean count rate in a frame.

    FrameReferenceTime is the time in ms from the start of the scan to when the rate equals its mean over the frame, which is
    ln(x / (1 - exp(-x))) / decay constant after the frame's start, x being its decay. Source: QIBA pseudo-code.
    """
    reference, duration = view.number("FrameReferenceTime"), view.number("ActualFrameDuration")
    if not reference or not duration or reference < 0 or duration < 0:
        return None
    rate = math.log(2) / half_life_s
    decay = rate * duration / 1000.0
    mean = math.log(decay / -math.expm1(-decay)) / rate
    return start - timedelta(seconds=reference / 1000.0) + timedelta(seconds=mean)


def _acquired(view: View) -> datetime:
    found = as_datetime(view.text("AcquisitionDateTime")) or date_and_time(view, "AcquisitionDate", "AcquisitionTime")
    if found is None:
        raise view.fault("AcquisitionDate (0008,0022) or AcquisitionTime (0008,0032) is missing or no time")
    return found


def _item(view: View) -> View:
    items = view.items("RadiopharmaceuticalInformationSequence")
    if len(items) != 1:
        raise view.fault(f"{tag_name('RadiopharmaceuticalInformationSequence')} has {len(items)} items, not 1")
    return View((items[0],), view.place)


def _half_life(view: View) -> float:
    item = _item(view)
    half_life = item.number("RadionuclideHalfLife")
    if not half_life or half_life < 0:
        raise view.fault("RadionuclideHalfLife (0018,1075) is missing or 0")
    for code in item.items("RadionuclideCodeSequence"):
        nuclide = NUCLIDE_CODES.get(View((code,), view.place).text("CodeValue") or "")
        if nuclide and abs(half_life / HALF_LIFE_S[nuclide] - 1) > 0.02:
            raise view.fault(
                f"RadionuclideHalfLife (0018,1075) is not that of {nuclide}, which the file names (seconds?)"
            )
    return half_life


def _tracer(view: View, scan: datetime | None, injected: datetime | None) -> Tracer:
    """Return what was injected; when is asked only if the images are corrected to another moment, `scan`."""
    item = _item(view)
    half_life, activity = _half_life(view), item.number("RadionuclideTotalDose")
    if not activity:
        raise view.fault("RadionuclideTotalDose (0018,1074) is missing or 0")
    if not 1e5 <= activity <= 1e11:
        raise view.fault("RadionuclideTotalDose (0018,1074) is no injected activity in Bq (is it in MBq?)")
    if scan is None:
        return Tracer(activity, half_life, None)
    when = injected or _injection(item, scan)
    wait = (scan - when).total_seconds()
    if wait < 0 or wait > LONGEST_WAIT * half_life:
        side = "after the scan" if wait < 0 else f"more than {LONGEST_WAIT:g} half-lives before the scan"
        raise view.fault(
            f"the injection (RadiopharmaceuticalStartTime (0018,1072) or -DateTime (0018,1078)) lies {side}; "
            "give the right time with injected=..."
        )
    return Tracer(activity, half_life, when)


def _injection(item: View, scan: datetime) -> datetime:
    """Return when the tracer was injected; a time without a date is the last such before the scan, even the day before."""
    clock = item.text("RadiopharmaceuticalStartTime")
    by_clock = None if clock is None else as_datetime(f"{scan:%Y%m%d}{clock.replace(':', '')}")
    if clock is not None and by_clock is None:
        raise item.fault("RadiopharmaceuticalStartTime (0018,1072) is no time")
    exact_text = item.text("RadiopharmaceuticalStartDateTime")
    exact = as_datetime(exact_text)
    if exact_text is not None and exact is None:
        raise item.fault("RadiopharmaceuticalStartDateTime (0018,1078) is no time")
    if exact is None and by_clock is None:
        raise item.fault("RadiopharmaceuticalStartTime (0018,1072) is missing")
    if exact is not None:
        if by_clock is not None:
            apart = abs((exact - by_clock).total_seconds()) % 86400.0
            if min(apart, 86400.0 - apart) > 60.0:
                raise item.fault(
                    "RadiopharmaceuticalStartTime (0018,1072) and RadiopharmaceuticalStartDateTime (0018,1078) contradict"
                )
        return exact
    assert by_clock is not None
    return by_clock - timedelta(days=1) if by_clock > scan else by_clock
