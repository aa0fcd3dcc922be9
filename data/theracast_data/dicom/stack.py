"""Slices to one regular grid: nothing missing, nothing twice, nothing askew, nothing of another series among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from theracast_data.dicom.faults import Faults
from theracast_data.dicom.header import HeaderError, tag_name
from theracast_data.dicom.slices import ACQUISITION, ACQUISITION_NUMBERS, IDENTITY, SCALE, Slice, Trait, same_trait

DUPLICATE_SHARE = 0.01  # of the spacing: nearer than that, two slices lie in one place
TILT_SHARE = 0.01  # of the spacing of pixels over the whole stack, or a hundredth of a degree, whichever is more
TELLING = (
    "AcquisitionNumber",
    "AcquisitionTime",
    "AcquisitionDateTime",
    "FrameAcquisitionDateTime",
    "TriggerTime",
    "EchoNumbers",
    "FrameReferenceTime",
    "ContentTime",
)
"""What may tell images at one position apart where nothing that must agree does."""


@dataclass(frozen=True)
class Grid:
    """The slices in order along the normal, and the affine of their grid."""

    slices: tuple[Slice, ...]
    affine: npt.NDArray[np.float64]


def check_alike(slices: Sequence[Slice], faults: Faults) -> None:
    """Note in which elements slices differ that must agree."""
    for keyword in slices[0].traits:
        values = [one.traits[keyword] for one in slices]
        groups = _groups(values, exact=keyword in ("RescaleSlope", "RescaleIntercept"))
        if len(groups) == 1:
            continue
        common = max(groups, key=lambda group: len(group[1]))
        others = [slices[number].place for group in groups if group is not common for number in group[1]]
        faults.add(*_difference(keyword, groups), others)


def check_slopes(slices: Sequence[Slice], faults: Faults) -> None:
    """Note slices of PET whose slope differs from one that nearly all others share; where all differ (GE), that is right."""
    slopes = Counter(one.slope for one in slices)
    usual, count = slopes.most_common(1)[0]
    odd = [one.place for one in slices if one.slope != usual]
    if slices[0].traits["Modality"] == "PT" and odd and count > 3 and len(odd) <= max(2, len(slices) // 10):
        faults.add(
            f"values on different scales: RescaleSlope (0028,1053) is the same in {count} slices and another in {len(odd)}",
            "Export the series again; slopes are one for all, or one for each.",
            odd,
        )


def arrange(
    slices: Sequence[Slice],
    faults: Faults,
    *,
    spacing_tolerance: float,
    single_slice: bool,
    partial: bool = False,
) -> Grid | None:
    """Return the slices on their grid, or None with the reasons in `faults`. The slices agree in their traits.

    Args:
        slices: at least one.
        faults: takes what is wrong.
        spacing_tolerance: how far a slice may lie from its place, as a share of the spacing.
        single_slice: whether one slice is a volume (its spacing is then SliceThickness).
        partial: whether slices may be fewer than the files tell, e.g. every second.
    """
    normal = slices[0].normal
    positions = np.array([one.position for one in slices])
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    ordered = tuple(slices[number] for number in order)
    heights, positions = heights[order], positions[order]
    if len(ordered) == 1:
        return _single(ordered[0], faults, single_slice)
    gaps = np.diff(heights)
    if not _check_distinct(ordered, gaps, faults):
        return None
    _check_gaps(ordered, gaps, faults, spacing_tolerance)
    spacing = float((heights[-1] - heights[0]) / (len(ordered) - 1))
    _check_shear(ordered, positions, heights, normal, faults)
    _check_order(ordered, heights, faults)
    if not partial:
        _check_thinned(ordered[0], spacing, faults)
    return None if faults else Grid(ordered, _affine(ordered[0], normal * spacing))


def _groups(values: Sequence[Trait], *, exact: bool) -> list[tuple[Trait, list[int]]]:
    groups: list[tuple[Trait, list[int]]] = []
    for number, value in enumerate(values):
        for known, members in groups:
            if known == value or (not exact and same_trait(known, value)):
                members.append(number)
                break
        else:
            groups.append((value, [number]))
    return groups


def _difference(keyword: str, groups: list[tuple[Trait, list[int]]]) -> tuple[str, str]:
    """Return what differs and the remedy."""
    name = tag_name(keyword)
    shown = "; ".join(f"{_shown(value)} in {len(members)}" for value, members in groups[:4])
    if keyword == "ImageOrientationPatient":
        return (
            f"slices of another orientation: {name} has {len(groups)} values",
            "Separate the stacks into series of their own.",
        )
    if keyword in ("Rows", "Columns", "PixelSpacing"):
        return f"{name} differs ({shown})", "Take the images of another matrix out of the folder."
    if keyword in IDENTITY:
        return f"images of different origin: {name} differs ({shown})", "Separate them, or name one with series_uid."
    if keyword in ("RescaleSlope", "RescaleIntercept", *SCALE):
        return (
            f"values on different scales: {name} differs ({shown})",
            "Export the series again; images of one volume share scale and unit.",
        )
    if keyword in (*ACQUISITION, *ACQUISITION_NUMBERS):
        example = groups[0][0] if groups[0][0] is not None else groups[-1][0]
        return (
            f"several acquisitions in one series: {name} differs ({shown})",
            f"Choose one, e.g. select={{{keyword!r}: {example!r}}}.",
        )
    return f"images stored in different ways: {name} differs ({shown})", "Export the series again."


def _shown(value: Trait) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return "\\".join(f"{part:g}" for part in value)
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _single(one: Slice, faults: Faults, single_slice: bool) -> Grid | None:
    thickness = one.traits["SliceThickness"]
    if not single_slice:
        faults.add(
            "only one slice is here, so that the spacing is unknown and slices are probably missing",
            "Fetch the others, or accept it with single_slice=True.",
            one.place,
        )
    elif not isinstance(thickness, float) or thickness <= 0:
        faults.add("SliceThickness (0018,0050) is missing, and one slice has no other spacing", "Add it.", one.place)
    else:
        return Grid((one,), _affine(one, one.normal * thickness))
    return None


def _affine(first: Slice, step: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    between_rows, between_columns = first.spacing
    row, column = np.array(first.cosines[:3]), np.array(first.cosines[3:])
    affine = np.eye(4)
    affine[:3, 0] = row / np.linalg.norm(row) * between_columns
    affine[:3, 1] = column / np.linalg.norm(column) * between_rows
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    return affine


def _check_distinct(ordered: Sequence[Slice], gaps: npt.NDArray[np.float64], faults: Faults) -> bool:
    """Note slices at one position: a copy, or several time points, energies or echoes mixed."""
    apart = gaps[gaps > 1e-4]
    near = DUPLICATE_SHARE * float(np.median(apart)) if apart.size else np.inf
    twins = [number for number in range(len(gaps)) if gaps[number] <= near]
    if not twins:
        return True
    places = [f"{ordered[number].place} and {ordered[number + 1].place}" for number in twins]
    telling = _telling(ordered, np.flatnonzero(np.concatenate([[True], gaps > near])))
    if telling is not None:
        keyword, value, count = telling
        faults.add(
            f"several volumes mixed: {len(twins)} positions are taken more than once, "
            f"and {tag_name(keyword)} has {count} values",
            f"Choose one, e.g. select={{{keyword!r}: {value!r}}}.",
            places,
        )
    else:
        faults.add(
            "duplicated slices: two images lie at the same position",
            "Remove the copy, or the other time point, from the folder.",
            places,
        )
    return False


def _telling(ordered: Sequence[Slice], starts: npt.NDArray[np.intp]) -> tuple[str, str, int] | None:
    """Return the element that parts images into volumes with each position once, one of its values, and how many."""
    owner = np.zeros(len(ordered), dtype=int)
    owner[starts] = 1
    position = np.cumsum(owner)
    for keyword in TELLING:
        try:
            values = [one.view.text(keyword) for one in ordered]
        except HeaderError:
            continue
        sizes = Counter(values)
        pairs = {(value, place) for value, place in zip(values, position, strict=True)}
        if None not in sizes and 1 < len(sizes) < len(ordered) and len(pairs) == len(ordered):
            return keyword, str(values[0]), len(sizes)
    return None


def _check_gaps(
    ordered: Sequence[Slice], gaps: npt.NDArray[np.float64], faults: Faults, spacing_tolerance: float
) -> None:
    """Note missing slices and other uneven spacing."""
    usual = float(np.median(gaps))
    # Spacing that is even but for whole multiples: slices are missing there.
    steps = np.maximum(np.round(gaps / usual), 1)
    uneven = np.abs(gaps - steps * usual) > spacing_tolerance * usual * steps
    if not uneven.any() and (steps > 1).any():
        between = [
            f"{int(steps[number]) - 1} between {ordered[number].place} and {ordered[number + 1].place}"
            for number in np.flatnonzero(steps > 1).tolist()
        ]
        faults.add(
            f"missing slices: {int((steps - 1).sum())} of a stack spaced {usual:.4g} mm",
            "Fetch them from the archive.",
            between,
        )
        return
    heights = np.concatenate([[0.0], np.cumsum(gaps)])
    mean = heights[-1] / len(gaps)
    drift = np.abs(heights - mean * np.arange(len(heights))).max()
    if uneven.any() or drift > max(spacing_tolerance, 0.05) * mean:
        odd = [
            f"{gaps[number]:.4g} mm between {ordered[number].place} and {ordered[number + 1].place}"
            for number in (np.flatnonzero(uneven).tolist() or [int(np.argmax(np.abs(gaps - usual)))])
        ]
        faults.add(
            f"spacing between slices is not uniform: {gaps.min():.4g} to {gaps.max():.4g} mm, mostly {usual:.4g}",
            "Fetch missing slices, or reconstruct evenly; rounded positions are accepted with spacing_tolerance.",
            odd,
        )


def _check_shear(
    ordered: Sequence[Slice],
    positions: npt.NDArray[np.float64],
    heights: npt.NDArray[np.float64],
    normal: npt.NDArray[np.float64],
    faults: Faults,
) -> None:
    """Note stacks that lean (gantry tilt), and slices moved sideways."""
    aside = positions - positions[0] - np.outer(heights - heights[0], normal)
    height = float(heights[-1] - heights[0])
    allowed = max(TILT_SHARE * min(ordered[0].spacing), height * np.tan(np.radians(0.01)))
    far = np.linalg.norm(aside, axis=1)
    if far.max() <= allowed:
        return
    lean = aside[-1] / height
    straight = np.abs(aside - np.outer(heights - heights[0], lean)).max() <= allowed
    if straight:
        angle = float(np.degrees(np.arctan(np.linalg.norm(lean))))
        faults.add(
            f"the stack is sheared: it leans by {angle:.2f} degrees against the normal of its slices (gantry tilt)",
            "Reconstruct without tilt, or resample to a rectangular grid first.",
        )
        return
    usual = np.median(aside, axis=0)
    odd = np.linalg.norm(aside - usual, axis=1) > allowed
    faults.add(
        f"slices are moved sideways, by up to {far.max():.3g} mm (ImagePositionPatient (0020,0032))",
        "Take slices of another stack out of the folder, or export the series again.",
        [one.place for one, moved in zip(ordered, odd, strict=True) if moved],
    )


def _check_order(ordered: Sequence[Slice], heights: npt.NDArray[np.float64], faults: Faults) -> None:
    """Note that SliceLocation or the numbering follows the positions but for two slices: their tags were exchanged.

    A numbering need not follow the positions at all, and may begin anew with each bed position; that is no fault.
    """
    for keyword in ("SliceLocation", "InstanceNumber"):
        try:
            values = [one.view.number(keyword) for one in ordered]
        except HeaderError as fault:
            faults.add(fault.what, f"{fault.remedy}.", fault.place)
            continue
        if len(ordered) < 5 or any(value is None for value in values):
            continue
        told = np.array(values, dtype=np.float64)
        along = np.sign((told - told.mean()) @ (heights - heights.mean()))
        exchanged = np.flatnonzero(along * told != np.sort(along * told))
        if len(exchanged) == 2:
            faults.add(
                f"{tag_name(keyword)} runs against the positions (ImagePositionPatient (0020,0032)) in two slices: "
                "their tags were exchanged or damaged",
                "Export the series again.",
                [ordered[number].place for number in exchanged.tolist()],
            )


def _check_thinned(first: Slice, spacing: float, faults: Faults) -> None:
    """Note that only every n-th slice is here, as far as SpacingBetweenSlices tells."""
    try:
        told = first.view.number("SpacingBetweenSlices")
    except HeaderError as fault:
        faults.add(fault.what, f"{fault.remedy}.", fault.place)
        return
    if not told:
        return
    steps = spacing / abs(told)
    if steps > 1.5 and abs(steps - round(steps)) < 0.02:
        faults.add(
            f"slices lie {spacing:.4g} mm apart, {round(steps)} times SpacingBetweenSlices (0018,0088): "
            f"only every {round(steps)}. slice is here",
            "Fetch the missing ones from the archive, or accept these with partial=True.",
        )
