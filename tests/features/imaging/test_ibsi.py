"""Every reference value of the IBSI's first phase: digital phantom, and configurations of the CT phantom."""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from theracast_features.imaging.catalogue import feature_catalogue
from theracast_features.imaging.extract import radiomics
from theracast_features.imaging.presets import PRESETS
from theracast_features.imaging.region import Region, bounding_box, prepare_region
from theracast_features.imaging.settings import (
    LaplacianOfGaussian,
    Laws,
    MeanFilter,
    RadiomicsSettings,
    Resegmentation,
    Wavelet,
)

CT = "ibsi_1_ct_radiomics_phantom"
CT_SPACING = (3.0, 0.977, 0.977)
# preset: data set, spacing (z, y, x), file of reference values (None: not among the shared ones)
CONFIGURATIONS = {
    "ibsi-digital-phantom": ("ibsi_1_digital_phantom", (2.0, 2.0, 2.0), "digital_phantom", 482),
    "ibsi-a": (CT, CT_SPACING, "config_A", 346),
    "ibsi-c": (CT, CT_SPACING, "config_C", 210),
    "ibsi-d": (CT, CT_SPACING, "config_D", 210),
}


def volume(folder: Path, name: str) -> tuple[Any, Any]:
    """Return image and mask of a phantom, (z, y, x)."""
    image = np.asarray(nib.load(folder / name / "nifti/image/phantom.nii.gz").dataobj).T
    mask = np.asarray(nib.load(folder / name / "nifti/mask/mask.nii.gz").dataobj).T
    return image, mask


def references(folder: Path, name: str) -> dict[str, tuple[str, str, str]]:
    """Return family, reference value and tolerance by tag, without what the IBSI has not standardised."""
    path = folder / "ibsi_reference_values" / f"ibsi_1_reference_values_{name}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return {
            row["tag"]: (row["family"], row["reference value"], row["tolerance"])
            for row in csv.DictReader(file)
            if row["reference value"]
        }


def agrees(found: float, reference: str, tolerance: str) -> bool:
    """Return whether a value lies within the tolerance of a reference, which was published with three digits."""
    value = Decimal(reference)
    if value == 0:
        return abs(found) <= max(float(tolerance), 1e-9)
    digit = Decimal(1).scaleb(value.adjusted() - 2)
    # Round as the reference was: half a unit of its third digit is not a difference.
    rounded = Decimal(found).quantize(digit)
    return abs(rounded - value) <= Decimal(tolerance)


@pytest.mark.parametrize("preset", CONFIGURATIONS)
def test_reference_values(shared_imaging: Path, preset: str) -> None:
    data_set, spacing, name, count = CONFIGURATIONS[preset]
    image, mask = volume(shared_imaging, data_set)
    found = radiomics(image, mask, spacing_mm=spacing, settings=PRESETS[preset])
    wanted = {tag: row for tag, row in references(shared_imaging, name).items() if not row[0].startswith("Diagnostics")}
    faults = [
        f"{tag}: {found.get(tag)} for {reference} +- {tolerance}"
        for tag, (_, reference, tolerance) in wanted.items()
        if tag not in found or not agrees(found[tag], reference, tolerance)
    ]
    assert not faults, "\n".join(faults)
    assert len(wanted) == count


def described(region: Region, mask: Any, which: str) -> dict[str, float]:
    """Return the diagnostic features of a mask, by the beginning of their tag."""
    z, y, x = bounding_box(mask)
    values = region.image[mask]
    return {
        f"{which}_bb_dim_x": x.stop - x.start,
        f"{which}_bb_dim_y": y.stop - y.start,
        f"{which}_bb_dim_z": z.stop - z.start,
        f"{which}_vox_count": int(mask.sum()),
        f"{which}_mean_int": float(values.mean()),
        f"{which}_min_int": float(values.min()),
        f"{which}_max_int": float(values.max()),
    }


@pytest.mark.parametrize("preset", ["ibsi-a", "ibsi-c", "ibsi-d"])
def test_diagnostics(shared_imaging: Path, preset: str) -> None:
    image, mask = volume(shared_imaging, CT)
    settings = PRESETS[preset]
    whole = settings.model_copy(update={"resegmentation": Resegmentation()})
    everywhere = prepare_region(image, np.ones_like(mask), spacing_mm=CT_SPACING, settings=whole)
    before = prepare_region(image, mask, spacing_mm=CT_SPACING, settings=whole)
    after = prepare_region(image, mask, spacing_mm=CT_SPACING, settings=settings)
    found: dict[str, float] = {
        "mean_int_interp_img": float(everywhere.image.mean()),
        "min_int_interp_img": float(everywhere.image.min()),
        "max_int_interp_img": float(everywhere.image.max()),
    }
    for axis, size, spacing in zip("zyx", after.full_shape, after.spacing_mm, strict=True):
        found |= {f"img_dim_{axis}_interp_img": size, f"vox_dim_{axis}_interp_img": spacing}
    for region, stage in ((before, "interp"), (after, "reseg")):
        for which, members in (("int_mask", region.intensity_mask), ("morph_mask", region.shape_mask)):
            found |= {f"{tag}_{stage}_roi": value for tag, value in described(region, members, which).items()}
    wanted = references(shared_imaging, CONFIGURATIONS[preset][2])
    compared = [tag for tag in wanted if tag in found]
    faults = [f"{tag}: {found[tag]} for {wanted[tag]}" for tag in compared if not agrees(found[tag], *wanted[tag][1:])]
    assert not faults, "\n".join(faults)
    assert len(compared) == 31


# Configurations without a file of reference values here: the same features computed by another library (mirp 2.7.0).
OTHER_LIBRARY = {
    "ibsi-b": {
        "morph_volume": 357522.5, "morph_area_mesh": 33731.14, "morph_diam": 125.06, "morph_moran_i": 0.03285393,
        "loc_peak_glob": 178.4931, "stat_mean": 11.5301, "stat_kurt": 5.929687, "ih_entropy": 3.156174,
        "ih_max_grad": 3224.0, "ivh_v10": 0.9769728, "ivh_i90": -135.0, "cm_contrast_2D_avg": 11.88436,
        "cm_corr_2_5D_comb": 0.6952082, "cm_info_corr1_2_5D_avg": -0.1880766, "rlm_rl_entr_2D_comb": 4.576187,
        "rlm_r_perc_2_5D_avg": 0.6421744, "szm_zsnu_2D": 140.4053, "dzm_zd_var_2_5D": 15.02521,
        "ngt_strength_2D": 6.019528, "ngl_dc_entr_2_5D": 5.783108,
    },
    "ibsi-e": {
        "morph_volume": 367459.0, "morph_area_mesh": 34306.25, "morph_diam": 125.06, "morph_moran_i": 0.05958,
        "loc_peak_glob": 180.8455, "stat_mean": -22.62566, "stat_kurt": 4.441027, "ih_entropy": 3.221426,
        "ih_max_grad": 6010.0, "ivh_v10": 0.9745526, "ivh_i90": 399.0, "cm_contrast_3D_avg": 11.14637,
        "cm_corr_3D_comb": 0.7727482, "cm_info_corr1_3D_avg": -0.1805658, "rlm_rl_entr_3D_avg": 4.868279,
        "rlm_r_perc_3D_comb": 0.663829, "szm_zsnu_3D": 2367.852, "dzm_zd_var_3D": 5.557276,
        "ngt_strength_3D": 0.1674297, "ngl_dc_entr_3D": 7.06426,
    },
}  # fmt: skip


@pytest.mark.parametrize("preset", OTHER_LIBRARY)
def test_other_configurations(shared_imaging: Path, preset: str) -> None:
    image, mask = volume(shared_imaging, CT)
    settings = PRESETS[preset]
    found = radiomics(image, mask, spacing_mm=CT_SPACING, settings=settings)
    assert list(found) == [feature.tag for feature in feature_catalogue(settings)]
    assert all(np.isfinite(value) for value in found.values())
    wanted = OTHER_LIBRARY[preset]
    assert {tag: found[tag] for tag in wanted} == pytest.approx(wanted, rel=1e-4)


# Lung phantom, reference values of the second phase: filters 1 to 4 and 6 within slices (A, as it is) and in 3D (B, 1 mm), as
# consensus value and tolerance of the statistics in the order of STATISTICS. Source: Whybra et al., Radiology
# 2024;310:e231319 (ibsi_2_reference_values.csv, CC0).
STATISTICS = [
    "mean", "var", "skew", "kurt", "median", "min", "p10", "p90", "max",
    "iqr", "range", "mad", "rmad", "medad", "cov", "qcod", "energy", "rms",
]  # fmt: skip
SECOND_PHASE = {
    "1.A": "-47 4.6 53300 2000 -2.17 0.07 3.65 0.34 41 0.6 -1000 10 -434 21 93 0.1 377 10 69 6.4 1380 10 160 5 64.4 5.8 "
    "122 4 -4.92 0.42 1 0.85 6.96e+09 4.5e+08 236 5",
    "1.B": "-46.4 5.9 52600 2800 -2.18 0.09 3.71 0.47 41 0.7 -997 3 -427 29 92 0.1 377 15 67 9.1 1370 20 159 7 63.6 7.3 "
    "121 6 -4.94 0.64 0.944 0.925 1.96e+10 1.9e+09 234 7",
    "2.A": "-49.9 4.4 46600 1600 -2.13 0.07 3.53 0.33 38.1 0.7 -889 3 -402 18 79.8 0.1 334 7 82 10.5 1220 10 153 5 67.7 5.6 "
    "116 4 -4.33 0.34 1.85 0.66 6.15e+09 3.9e+08 222 5",
    "2.B": "-49.9 5.7 44400 2300 -2.13 0.09 3.59 0.46 37.3 0.6 -906 5 -389 25 77.2 0.1 316 7 92.6 13.5 1220 10 149 6 68.1 6.9 "
    "114 5 -4.22 0.47 2.97 0.58 1.68e+10 1.6e+09 217 7",
    "3.A": "-2.44 0.12 556 24 0.295 0.027 7.02 0.3 -0.585 0.012 -178 1 -27.1 0.5 13.2 1.3 191 1 8.74 0.19 369 2 13.2 0.3 "
    "4.98 0.16 12.9 0.4 -9.66 1.21 -2.93 0.06 70300000 4200000 23.7 0.5",
    "3.B": "-2.94 0.2 720 33 0.428 0.009 6.13 0.27 -0.919 0.024 -173 5 -32.2 0.5 17.4 1.9 204 1 11.4 0.3 377 5 15.5 0.4 "
    "6.37 0.19 15.3 0.4 -9.12 1.63 -2.34 0.07 2.61e+08 1.9e+07 27 0.6",
    "4.A": "148 3 18000 500 0.877 0.024 -0.279 0.039 88.7 5 15.5 0.1 26.9 0.1 347 4 672 4 219 5 657 4 116 2 92.9 1.8 "
    "111 2 0.904 0.007 0.773 0.003 5e+09 2.7e+08 200 4",
    "4.B": "142 3 11100 300 0.645 0.028 -0.711 0.044 113 4 28.5 0.1 35.6 0.1 293 4 525 1 188 4 496 1 92.4 1.4 75.9 1.4 "
    "90.8 1.6 0.743 0.005 0.699 0.003 1.12e+10 7e+08 177 3",
    "6.A": "-0.185 0.025 427 11 0.0837 0.0188 7.72 0.24 0.0456 0.0041 -245 2 -18.8 0.4 17.7 0.4 202 2 15.8 0.1 447 3 13 0.2 "
    "6.82 0.08 13 0.2 -112 37 491 10 53500000 2e+06 20.7 0.3",
    "6.B": "-0.182 0.024 250 9 0.157 0.018 8.98 0.35 0.0575 0.0046 -148 1 -13.8 0.5 12.1 0.4 155 1 9.35 0.15 303 2 9.26 0.22 "
    "4.21 0.09 9.25 0.22 -86.9 32.6 -162 27 89600000 5300000 15.8 0.3",
}


@pytest.mark.parametrize("dimension", ["2D", "3D"])
def test_second_phase_filters(shared_imaging: Path, dimension: Any) -> None:
    image, mask = volume(shared_imaging, CT)
    flat = dimension == "2D"
    filters = {
        "2": MeanFilter(size=5, dimension=dimension),
        "3": LaplacianOfGaussian(sigma_mm=1.5, dimension=dimension),
        "4": Laws(kernels="L5E5" if flat else "L5E5E5", pooling="max", energy_distance=7),
        "6": Wavelet(wavelet="db3", bands=("LH" if flat else "LLH",), rotation_invariant=True),
    }
    settings = RadiomicsSettings.model_validate(
        {
            "interpolation": None if flat else {"spacing_mm": 1.0, "method": "cubic"},
            "resegmentation": {"minimum": -1000, "maximum": 400},
            "families": ("statistics",),
            "filters": tuple(filters.values()),
            "filter_families": ("statistics",),
        }
    )
    found = radiomics(image, mask, spacing_mm=CT_SPACING, settings=settings)
    maps = list(dict.fromkeys(tag.rpartition(".stat_")[0] for tag in found))
    faults = []
    for number, name in zip(("1", *filters), maps, strict=True):
        row = SECOND_PHASE[f"{number}.{'A' if flat else 'B'}"].split()
        for statistic, reference, tolerance in zip(STATISTICS, row[::2], row[1::2], strict=True):
            value = found[f"{name}.stat_{statistic}" if name else f"stat_{statistic}"]
            if not agrees(value, reference, tolerance):
                faults.append(f"{number} {name} {statistic}: {value} for {reference} +- {tolerance}")
    assert not faults, "\n".join(faults)
