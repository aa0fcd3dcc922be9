"""Radiomics as a whole: what must always hold, regions at the limit, and messages that tell how to mend."""

from __future__ import annotations

from math import isnan
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pydicom.sr._concepts_dict import concepts

from theracast_features.imaging.catalogue import feature_catalogue
from theracast_features.imaging.extract import radiomics
from theracast_features.imaging.presets import IBSI_C, IBSI_DIGITAL_PHANTOM, PRESETS, PYRADIOMICS
from theracast_features.imaging.region import RegionError
from theracast_features.imaging.settings import (
    AGGREGATIONS,
    FixedBinNumber,
    FixedBinSize,
    Interpolation,
    LaplacianOfGaussian,
    Laws,
    MeanFilter,
    RadiomicsSettings,
    Resegmentation,
    Undiscretised,
    Wavelet,
)

FILTERS = (
    LaplacianOfGaussian(sigma_mm=1.5),
    Wavelet(wavelet="db3", bands=("LLH", "HHH")),
    Wavelet(wavelet="coif1", bands=("HLH",), rotation_invariant=True),
    MeanFilter(size=5),
    Laws(kernels="L5E5E5", energy_distance=2),
)


def blob(shape: tuple[int, int, int], seed: int) -> tuple[Any, Any]:
    """Return an image of correlated noise around -50 and a lumpy mask."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=shape)
    smooth = sum(np.roll(noise, shift, axis) for axis in range(3) for shift in (-1, 0, 1))
    image = np.rint(40 * smooth - 50)
    places = np.indices(shape)
    centre = np.array(shape)[:, None, None, None] / 2
    radius = (((places - centre) / (np.array(shape)[:, None, None, None] * 0.25)) ** 2).sum(axis=0)
    return image, radius + rng.normal(scale=0.15, size=shape) < 1


def assert_close(found: dict[str, float], wanted: dict[str, float], *, rtol: float = 1e-7, atol: float = 1e-8) -> None:
    assert list(found) == list(wanted)
    faults = [
        f"{tag}: {found[tag]!r} and {wanted[tag]!r}"
        for tag in wanted
        if not np.isclose(found[tag], wanted[tag], rtol=rtol, atol=atol, equal_nan=True)
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("preset", PRESETS)
def test_tags_are_those_of_the_catalogue(preset: str) -> None:
    chosen = PRESETS[preset].model_copy(update={"filters": FILTERS, "discretisation": FixedBinNumber(bins=8)})
    image, mask = blob((12, 14, 16), 1)
    found = radiomics(image, mask, spacing_mm=(2.0, 1.5, 1.5), settings=chosen)
    catalogue = feature_catalogue(chosen, intensity_unit="[hnsf'U]")
    assert list(found) == [feature.tag for feature in catalogue]
    assert len({feature.label for feature in catalogue}) == len(catalogue)
    units = {feature.tag: feature.unit for feature in catalogue}
    assert units["morph_volume"] == "mm3"
    assert units["stat_var"] == "[hnsf'U]2"
    assert units["log_1.5mm.stat_var"] is None


def test_codes_are_those_of_the_ibsi() -> None:
    """Against the dictionary of the IBSI's codes that pydicom carries; it has no statistics and volume histograms."""
    known = {code: meaning for entry in concepts["IBSI"].values() for code, (meaning, _) in entry.items()}
    features = feature_catalogue(RadiomicsSettings(aggregations=("3D_comb",)))
    missing = {feature.family for feature in features if feature.code not in known}
    assert missing == {"local", "statistics", "ivh"}
    spelled = {"Normalized": "Normalised", "Gray": "Grey", "Nonuniformity": "Non-uniformity"}
    for feature in features:
        if feature.code in known and feature.family in ("glcm", "glrlm", "ngtdm"):
            meaning = known[feature.code].removesuffix(" of GLCM").removesuffix(" of NGTDM").removesuffix(" in Runs")
            for theirs, ours in spelled.items():
                meaning = meaning.replace(theirs, ours)
            label = feature.label.lower()
            numbered = {"first measure of information correlation": "information correlation 1"} | {
                "second measure of information correlation": "information correlation 2"
            }
            assert label.startswith(numbered.get(meaning.lower(), meaning.lower())), (feature, meaning)


def whole(**options: Any) -> RadiomicsSettings:
    """Return settings with all families, aggregations and filters."""
    return RadiomicsSettings(
        aggregations=AGGREGATIONS,
        filters=FILTERS,
        resegmentation=Resegmentation(minimum=-250, maximum=200),
        **options,
    )


@pytest.mark.parametrize("by_slice", [False, True])
@pytest.mark.parametrize("method", ["none", "linear", "cubic"])
def test_cropped_equals_whole(method: Any, by_slice: bool) -> None:
    """The engine reads a crop; a caller's crop that leaves enough around the region must not differ, nor must background."""
    dimension: Any = "2D" if by_slice else "3D"
    spacing = (3.0, 1.0, 1.0)
    interpolation = None
    if method != "none":
        interpolation = Interpolation(spacing_mm=1.5, method=method, dimension=dimension, round_intensities=False)
    chosen = whole(interpolation=interpolation)
    image, mask = blob((10, 18, 20), 2)
    # The grid shares the centre of the image: equally much is added on both sides.
    around = ((20, 20), (40, 40), (40, 40))
    rng = np.random.default_rng(5)
    larger = np.pad(image, around)
    outside = np.pad(np.zeros(image.shape, bool), around, constant_values=True)
    larger[outside] = rng.normal(-50, 100, outside.sum())
    member = np.pad(mask, around)
    once = radiomics(larger, member, spacing_mm=spacing, settings=chosen)
    # Whole pairs of new voxels, so that both centres are the same point.
    crop = (slice(8, -8), slice(6, -6), slice(3, -3))
    again = radiomics(larger[crop], member[crop], spacing_mm=spacing, settings=chosen)
    # Dispersion of a response map around zero divides by next to nothing.
    assert_close(again, once, rtol=1e-6)


def test_region_at_the_border_is_mirrored() -> None:
    """Against the image mirrored by hand."""
    image, mask = blob((12, 12, 12), 3)
    image, mask = image[4:9, 5:, :8], mask[4:9, 5:, :8]
    chosen = RadiomicsSettings(families=("statistics",), filters=FILTERS, filter_families=("statistics", "glcm"))
    found = radiomics(image, mask, spacing_mm=(1.0, 1.0, 1.0), settings=chosen)
    mirrored = radiomics(
        np.pad(image, 16, mode="symmetric"), np.pad(mask, 16), spacing_mm=(1.0, 1.0, 1.0), settings=chosen
    )
    assert_close(found, mirrored)


@settings(max_examples=15, deadline=None)
@given(st.tuples(*[st.integers(0, 9)] * 3), st.integers(0, 100))
def test_translation(shift: tuple[int, int, int], seed: int) -> None:
    image, mask = blob((10, 11, 12), seed)
    chosen = RadiomicsSettings(aggregations=AGGREGATIONS)
    wide = ((15, 15), (15, 15), (15, 15))
    image, mask = np.pad(image, wide, mode="edge"), np.pad(mask, wide)
    once = radiomics(image, mask, spacing_mm=(2.0, 1.0, 1.0), settings=chosen)
    moved = [np.roll(array, shift, axis=(0, 1, 2)) for array in (image, mask)]
    assert_close(radiomics(moved[0], moved[1], spacing_mm=(2.0, 1.0, 1.0), settings=chosen), once)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([(0,), (1,), (2,), (0, 1), (0, 1, 2)]), st.integers(0, 100))
def test_mirrored(axes: tuple[int, ...], seed: int) -> None:
    image, mask = blob((10, 11, 12), seed)
    chosen = RadiomicsSettings(
        aggregations=AGGREGATIONS,
        filters=(LaplacianOfGaussian(sigma_mm=1), Wavelet(wavelet="db2", bands=("LLH",), rotation_invariant=True)),
        discretisation=FixedBinNumber(bins=16),
    )
    once = radiomics(image, mask, spacing_mm=(2.0, 1.0, 1.0), settings=chosen)
    flipped = radiomics(np.flip(image, axes), np.flip(mask, axes), spacing_mm=(2.0, 1.0, 1.0), settings=chosen)
    # A level or two of a response map may fall on the other side of an edge by the last bit.
    plain = {tag: value for tag, value in once.items() if "." not in tag}
    assert_close({tag: flipped[tag] for tag in plain}, plain)
    means = {tag: value for tag, value in once.items() if tag.startswith("log") and "stat_" in tag}
    assert_close({tag: flipped[tag] for tag in means}, means)


def test_grey_levels_and_shape_do_not_mix() -> None:
    """Re-segmentation leaves the shape alone, and the shape's border is what distances are measured to."""
    image, mask = blob((12, 14, 16), 4)
    middle = tuple(int(part) for part in np.argwhere(mask)[mask.sum() // 2])
    image[middle] = 5_000
    open_range = RadiomicsSettings(discretisation=FixedBinSize(width=25, start=-1000), aggregations=("3D_comb",))
    narrow = open_range.model_copy(update={"resegmentation": Resegmentation(maximum=1_000)})
    once = radiomics(image, mask, spacing_mm=(1.0, 1.0, 1.0), settings=open_range)
    again = radiomics(image, mask, spacing_mm=(1.0, 1.0, 1.0), settings=narrow)
    shape = [
        tag for tag in once if tag.startswith("morph_") and tag[6:] not in ("com", "integ_int", "moran_i", "geary_c")
    ]
    assert len(shape) == 25
    assert {tag: once[tag] for tag in shape} == {tag: again[tag] for tag in shape}
    assert again["stat_max"] < 1_000 < once["stat_max"]
    image[middle] = image[mask].min()  # a hole would make a border here; a voxel that does not count makes none
    assert radiomics(image, mask, spacing_mm=(1.0, 1.0, 1.0), settings=narrow)["dzm_lde_3D"] == pytest.approx(
        again["dzm_lde_3D"], rel=0.05
    )


# NaN where the definition divides by zero, as the modules of the families say.
UNDEFINED_SINGLE = {
    "morph_pca_elongation", "morph_pca_flatness", "morph_vol_dens_aee", "morph_area_dens_aee", "morph_moran_i",
    "morph_geary_c", "stat_skew", "stat_kurt", "ih_skew", "ih_kurt", "ivh_i10", "ivh_i90", "ivh_diff_i10_i90",
}  # fmt: skip
UNDEFINED_FLAT = UNDEFINED_SINGLE - {
    "morph_pca_elongation", "morph_pca_flatness", "morph_vol_dens_aee", "morph_area_dens_aee",
}  # fmt: skip


def test_single_voxel() -> None:
    image = np.full((5, 5, 5), 3.0)
    mask = np.zeros(image.shape, bool)
    mask[2, 2, 2] = True
    chosen = IBSI_DIGITAL_PHANTOM
    found = radiomics(image, mask, spacing_mm=(2.0, 2.0, 2.0), settings=chosen)
    undefined = {tag for tag, value in found.items() if isnan(value)}
    # One voxel has no pair and no neighbour.
    assert {tag for tag in undefined if tag[:3] not in ("cm_", "ngt")} == UNDEFINED_SINGLE
    assert undefined >= {tag for tag in found if tag.startswith(("cm_", "ngt_"))}
    assert found["morph_vol_approx"] == 8
    assert found["rlm_sre_3D_comb"] == found["szm_sze_3D"] == found["dzm_sde_3D"] == found["ngl_lde_3D"] == 1


@pytest.mark.parametrize("bins", [FixedBinNumber(bins=32), FixedBinSize(width=25), Undiscretised()])
def test_flat_region(bins: Any) -> None:
    image = np.full((8, 9, 10), 7.0)
    _, mask = blob(image.shape, 1)
    chosen = RadiomicsSettings(
        discretisation=bins, ivh_discretisation=bins, aggregations=AGGREGATIONS, filters=FILTERS[:1]
    )
    found = radiomics(image, mask, spacing_mm=(1.0, 1.0, 1.0), settings=chosen)
    undefined = {tag for tag, value in found.items() if isnan(value) and "." not in tag}
    correlations = {tag for tag in found if tag.startswith(("cm_corr_", "cm_info_corr1_"))}
    assert undefined == UNDEFINED_FLAT | correlations
    assert found["ih_entropy"] == found["stat_var"] == found["cm_contrast_3D_avg"] == found["ngt_contrast_3D"] == 0
    assert found["ngt_coarseness_3D"] == 1e6
    assert found["log_1.5mm.stat_mean"] == pytest.approx(0, abs=1e-9)  # the kernel sums to zero
    theirs = radiomics(
        image,
        mask,
        spacing_mm=(1.0, 1.0, 1.0),
        settings=PYRADIOMICS.model_copy(update={"discretisation": FixedBinSize(width=25)}),
    )
    assert theirs["cm_corr_3D_avg"] == 1
    assert theirs["cm_info_corr1_3D_avg"] == 0


@pytest.mark.parametrize("shape", [(1, 6, 6), (6, 1, 6), (1, 1, 6), (2, 1, 1)])
def test_thin_regions(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(1, 6, shape).astype(float)
    chosen = RadiomicsSettings(aggregations=AGGREGATIONS, discretisation=FixedBinNumber(bins=4), filters=FILTERS)
    found = radiomics(image, np.ones(shape, bool), spacing_mm=(1.0, 1.0, 1.0), settings=chosen)
    assert all(np.isfinite(value) or isnan(value) for value in found.values())
    assert found["morph_vol_approx"] == np.prod(shape)


def refused(match: str, image: Any = None, mask: Any = None, **update: Any) -> None:
    chosen = RadiomicsSettings(families=("statistics", "glcm"), **update)
    plain = np.arange(27.0).reshape(3, 3, 3)
    with pytest.raises(RegionError, match=match):
        radiomics(
            plain if image is None else image,
            np.ones(plain.shape, bool) if mask is None else mask,
            spacing_mm=(1.0, 1.0, 1.0),
            settings=chosen,
        )


def test_messages() -> None:
    refused("no voxel of the mask is set. Check the segmentation", mask=np.zeros((3, 3, 3), bool))
    refused(r"one shape; found \(3, 3, 3\) and \(2, 3, 3\). Bring the mask", mask=np.ones((2, 3, 3), bool))
    refused("not finite in or around the region", image=np.full((3, 3, 3), np.nan))
    refused("widen `resegmentation`", resegmentation=Resegmentation(minimum=100))
    refused("Set `resegmentation.minimum`", discretisation=FixedBinSize(width=1, start=5))
    refused("Choose a larger width", discretisation=FixedBinSize(width=1e-3))
    refused("Choose fbn or fbs", discretisation=Undiscretised())
    lonely = np.zeros((3, 3, 3), bool)
    lonely[1, 1, 1] = True
    refused(
        "no new voxel lies within it by 0.5 or more",
        mask=lonely,
        interpolation=Interpolation(spacing_mm=1.5, method="linear"),
    )
    with pytest.raises(RegionError, match="three sizes above 0"):
        radiomics(np.ones((2, 2, 2)), np.ones((2, 2, 2)), spacing_mm=(1.0, 0.0, 1.0), settings=RadiomicsSettings())
    with pytest.raises(ValidationError, match="spacing_mm must be above 0"):
        Interpolation(spacing_mm=0)
    with pytest.raises(ValidationError, match="minimum must be below maximum"):
        Resegmentation(minimum=3, maximum=3)
    with pytest.raises(ValidationError, match="not of a response map; leave it out"):
        RadiomicsSettings(filter_families=("morphology",))
    with pytest.raises(ValidationError, match="'log_2mm' is asked for twice"):
        RadiomicsSettings(filters=(LaplacianOfGaussian(sigma_mm=2), LaplacianOfGaussian(sigma_mm=2.0)))
    with pytest.raises(ValidationError, match="'LX' is not two or three letters"):
        Wavelet(bands=("LX",))


def test_settings_survive_json() -> None:
    for chosen in (*PRESETS.values(), IBSI_C.model_copy(update={"filters": FILTERS})):
        assert RadiomicsSettings.model_validate_json(chosen.model_dump_json()) == chosen


def test_arguments_are_left_alone() -> None:
    image, mask = blob((8, 9, 10), 6)
    before = image.copy(), mask.copy()
    image.setflags(write=False)
    mask.setflags(write=False)
    radiomics(image, mask, spacing_mm=(1.0, 1.0, 1.0), settings=whole())
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(mask, before[1])
