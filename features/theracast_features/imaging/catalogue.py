"""What each radiomic feature is: tag, code of the IBSI, family, label and unit.

Codes are those of the IBSI reference manual (arXiv:1612.07003). A feature and its aggregation have a code each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from theracast_features.imaging.settings import Aggregation, Extent, Family, FixedBinNumber, RadiomicsSettings

# Lines of `name code unit label`; units: mm, mm2, mm3, /mm; u and u2 for that of the intensities and its square; - for none.
_MORPHOLOGY = """
volume RNU0 mm3 Volume (mesh)
area_mesh C0JK mm2 Surface area (mesh)
av 2PR5 /mm Surface to volume ratio
comp_1 SKGS - Compactness 1
comp_2 BQWJ - Compactness 2
sph_dispr KRCK - Spherical disproportion
sphericity QCFX - Sphericity
asphericity 25C7 - Asphericity
vol_approx YEKZ mm3 Volume (voxel counting)
diam L0JK mm Maximum 3D diameter
pca_maj_axis TDIC mm Major axis length
pca_min_axis P9VJ mm Minor axis length
pca_least_axis 7J51 mm Least axis length
pca_elongation Q3CK - Elongation
pca_flatness N17B - Flatness
vol_dens_aabb PBX1 - Volume density (axis-aligned bounding box)
area_dens_aabb R59B - Area density (axis-aligned bounding box)
vol_dens_ombb ZH1A - Volume density (oriented minimum bounding box)
area_dens_ombb IQYR - Area density (oriented minimum bounding box)
vol_dens_aee 6BDE - Volume density (approximate enclosing ellipsoid)
area_dens_aee RDD2 - Area density (approximate enclosing ellipsoid)
vol_dens_mvee SWZ1 - Volume density (minimum volume enclosing ellipsoid)
area_dens_mvee BRI8 - Area density (minimum volume enclosing ellipsoid)
vol_dens_conv_hull R3ER - Volume density (convex hull)
area_dens_conv_hull 7T7F - Area density (convex hull)
com KLMA mm Centre of mass shift
integ_int 99N0 u.mm3 Integrated intensity
moran_i N365 - Moran's I index
geary_c NPT7 - Geary's C measure
"""
_LOCAL = """
peak_loc VJGA u Local intensity peak
peak_glob 0F91 u Global intensity peak
"""
_STATISTICS = """
mean Q4LE u Mean intensity
var ECT3 u2 Intensity variance
skew KE2A - Intensity skewness
kurt IPH6 - Intensity kurtosis
median Y12H u Median intensity
min 1GSF u Minimum intensity
p10 QG58 u 10th percentile of intensity
p90 8DWT u 90th percentile of intensity
max 84IY u Maximum intensity
iqr SALO u Interquartile range of intensity
range 2OJQ u Range of intensity
mad 4FUA u Mean absolute deviation of intensity
rmad 1128 u Robust mean absolute deviation of intensity
medad N72L u Median absolute deviation of intensity
cov 7TET - Coefficient of variation of intensity
qcod 9S40 - Quartile coefficient of dispersion of intensity
energy N8CA u2 Energy
rms 5ZWQ u Root mean square of intensity
"""
_HISTOGRAM = """
mean X6K6 - Mean grey level
var CH89 - Grey level variance of the histogram
skew 88K1 - Grey level skewness
kurt C3I7 - Grey level kurtosis
median WIFQ - Median grey level
min 1PR8 - Minimum grey level
p10 GPMT - 10th percentile of grey levels
p90 OZ0C - 90th percentile of grey levels
max 3NCY - Maximum grey level
iqr WR0O - Interquartile range of grey levels
range 5Z3W - Range of grey levels
mad D2ZX - Mean absolute deviation of grey levels
rmad WRZB - Robust mean absolute deviation of grey levels
medad 4RNL - Median absolute deviation of grey levels
cov CWYJ - Coefficient of variation of grey levels
qcod SLWD - Quartile coefficient of dispersion of grey levels
mode AMMC - Commonest grey level
entropy TLU2 - Entropy of the histogram
uniformity BJ5W - Uniformity of the histogram
max_grad 12CE - Maximum histogram gradient
max_grad_g 8E6O - Grey level of the maximum histogram gradient
min_grad VQB3 - Minimum histogram gradient
min_grad_g RHQZ - Grey level of the minimum histogram gradient
"""
_IVH = """
v10 BC2M - Volume fraction at 10 % intensity
v90 BC2M - Volume fraction at 90 % intensity
i10 GBPN u Intensity at 10 % volume
i90 GBPN u Intensity at 90 % volume
diff_v10_v90 DDTU - Volume fraction difference between 10 % and 90 % intensity
diff_i10_i90 CNV2 u Intensity difference between 10 % and 90 % volume
auc 9CMM - Area under the intensity-volume curve
"""
_GLCM = """
joint_max GYBY - Joint maximum
joint_avg 60VM - Joint average
joint_var UR99 - Joint variance
joint_entr TU9B - Joint entropy
diff_avg TF7R - Difference average
diff_var D3YU - Difference variance
diff_entr NTRS - Difference entropy
sum_avg ZGXS - Sum average
sum_var OEEB - Sum variance
sum_entr P6QZ - Sum entropy
energy 8ZQL - Angular second moment
contrast ACUI - Contrast
dissimilarity 8S9J - Dissimilarity
inv_diff IB1Z - Inverse difference
inv_diff_norm NDRX - Normalised inverse difference
inv_diff_mom WF0Z - Inverse difference moment
inv_diff_mom_norm 1QCO - Normalised inverse difference moment
inv_var E8JP - Inverse variance
corr NI2N - Correlation
auto_corr QWB0 - Autocorrelation
clust_tend DG8W - Cluster tendency
clust_shade 7NFM - Cluster shade
clust_prom AE86 - Cluster prominence
info_corr1 R8DG - Information correlation 1
info_corr2 JN9H - Information correlation 2
"""
_GLRLM = """
sre 22OV - Short runs emphasis
lre W4KF - Long runs emphasis
lgre V3SW - Low grey level run emphasis
hgre G3QZ - High grey level run emphasis
srlge HTZT - Short run low grey level emphasis
srhge GD3A - Short run high grey level emphasis
lrlge IVPO - Long run low grey level emphasis
lrhge 3KUM - Long run high grey level emphasis
glnu R5YN - Grey level non-uniformity of runs
glnu_norm OVBL - Normalised grey level non-uniformity of runs
rlnu W92Y - Run length non-uniformity
rlnu_norm IC23 - Normalised run length non-uniformity
r_perc 9ZK5 - Run percentage
gl_var 8CE5 - Grey level variance of runs
rl_var SXLW - Run length variance
rl_entr HJ9O - Run entropy
"""
_GLSZM = """
sze 5QRC - Small zone emphasis
lze 48P8 - Large zone emphasis
lgze XMSY - Low grey level zone emphasis
hgze 5GN9 - High grey level zone emphasis
szlge 5RAI - Small zone low grey level emphasis
szhge HW1V - Small zone high grey level emphasis
lzlge YH51 - Large zone low grey level emphasis
lzhge J17V - Large zone high grey level emphasis
glnu JNSA - Grey level non-uniformity of zones
glnu_norm Y1RO - Normalised grey level non-uniformity of zones
zsnu 4JP3 - Zone size non-uniformity
zsnu_norm VB3A - Normalised zone size non-uniformity
z_perc P30P - Zone percentage
gl_var BYLV - Grey level variance of zones
zs_var 3NSA - Zone size variance
zs_entr GU8N - Zone size entropy
"""
_GLDZM = """
sde 0GBI - Small distance emphasis
lde MB4I - Large distance emphasis
lgze S1RA - Low grey level zone emphasis (by distance)
hgze K26C - High grey level zone emphasis (by distance)
sdlge RUVG - Small distance low grey level emphasis
sdhge DKNJ - Small distance high grey level emphasis
ldlge A7WM - Large distance low grey level emphasis
ldhge KLTH - Large distance high grey level emphasis
glnu VFT7 - Grey level non-uniformity of zones (by distance)
glnu_norm 7HP3 - Normalised grey level non-uniformity of zones (by distance)
zdnu V294 - Zone distance non-uniformity
zdnu_norm IATH - Normalised zone distance non-uniformity
z_perc VIWW - Zone percentage (by distance)
gl_var QK93 - Grey level variance of zones (by distance)
zd_var 7WT1 - Zone distance variance
zd_entr GBDU - Zone distance entropy
"""
_NGTDM = """
coarseness QCDE - Coarseness
contrast 65HE - Contrast to neighbours
busyness NQ30 - Busyness
complexity HDEZ - Complexity
strength 1X9X - Strength
"""
_NGLDM = """
lde SODN - Low dependence emphasis
hde IMOQ - High dependence emphasis
lgce TL9H - Low grey level count emphasis
hgce OAE7 - High grey level count emphasis
ldlge EQ3F - Low dependence low grey level emphasis
ldhge JA6D - Low dependence high grey level emphasis
hdlge NBZI - High dependence low grey level emphasis
hdhge 9QMG - High dependence high grey level emphasis
glnu FP8K - Grey level non-uniformity of dependences
glnu_norm 5SPA - Normalised grey level non-uniformity of dependences
dcnu Z87G - Dependence count non-uniformity
dcnu_norm OKJI - Normalised dependence count non-uniformity
dc_perc 6XV8 - Dependence count percentage
gl_var 1PFV - Grey level variance of dependences
dc_var DNX2 - Dependence count variance
dc_entr FCBV - Dependence count entropy
dc_energy CAS9 - Dependence count energy
"""
_TABLES: dict[Family, tuple[str, str]] = {
    "morphology": ("morph", _MORPHOLOGY),
    "local": ("loc", _LOCAL),
    "statistics": ("stat", _STATISTICS),
    "histogram": ("ih", _HISTOGRAM),
    "ivh": ("ivh", _IVH),
    "glcm": ("cm", _GLCM),
    "glrlm": ("rlm", _GLRLM),
    "glszm": ("szm", _GLSZM),
    "gldzm": ("dzm", _GLDZM),
    "ngtdm": ("ngt", _NGTDM),
    "ngldm": ("ngl", _NGLDM),
}
_AGGREGATIONS: dict[Aggregation, tuple[str, str]] = {
    "2D_avg": ("BTW3", "2D, averaged"),
    "2D_comb": ("SUJT", "2D, slice-merged"),
    "2_5D_avg": ("JJUI", "2.5D, direction-merged"),
    "2_5D_comb": ("ZW7Z", "2.5D, merged"),
    "3D_avg": ("ITBB", "3D, averaged"),
    "3D_comb": ("IAZD", "3D, merged"),
}
_EXTENTS: dict[Extent, tuple[str, str]] = {
    "2D": ("8QNN", "2D, averaged"),
    "2_5D": ("62GR", "2.5D, merged"),
    "3D": ("KOBO", "3D"),
}


@dataclass(frozen=True)
class RadiomicsFeature:
    """The meaning of one value that `radiomics` returns.

    Attributes:
        tag: its key, e.g. `cm_contrast_3D_avg` or `log_2mm.cm_contrast_3D_avg`.
        code: of the feature, four characters, e.g. ACUI.
        family: group of the IBSI.
        label: for people, with aggregation and response map.
        unit: UCUM; None for pure numbers, and where the intensities have no unit.
        aggregation_code: of the aggregation, four characters, e.g. ITBB; None where there is none.
        response_map: name of the filtered image it is of; None for the image itself.
    """

    tag: str
    code: str
    family: Family
    label: str
    unit: str | None
    aggregation_code: str | None = None
    response_map: str | None = None


def feature_catalogue(
    settings: RadiomicsSettings, *, intensity_unit: str | None = None
) -> tuple[RadiomicsFeature, ...]:
    """Return what `radiomics` returns with these settings, in the order of its values.

    Args:
        intensity_unit: UCUM unit of the image, e.g. `[hnsf'U]`; None where it is arbitrary.
    """
    found = list(_of_image(settings, settings.families, intensity_unit, None))
    for chosen in settings.filters:
        for name in chosen.names:
            found += _of_image(settings, settings.filter_families, None, name)
    return tuple(found)


def _of_image(
    settings: RadiomicsSettings, families: Sequence[Family], intensity_unit: str | None, response_map: str | None
) -> Iterator[RadiomicsFeature]:
    for family, (prefix, table) in _TABLES.items():
        if family not in families:
            continue
        for suffix, aggregation_code, aggregation_label in _aggregated(family, settings):
            for line in table.strip().splitlines():
                name, code, unit, label = line.split(" ", 3)
                tag = f"{prefix}_{name}{suffix}"
                parts = [part for part in (aggregation_label, response_map) if part]
                # Levels of a fixed bin number have no unit.
                levels = family == "ivh" and isinstance(settings.ivh_discretisation, FixedBinNumber)
                yield RadiomicsFeature(
                    tag=tag if response_map is None else f"{response_map}.{tag}",
                    code=code,
                    family=family,
                    label=f"{label} [{'; '.join(parts)}]" if parts else label,
                    unit=None if levels else _unit(unit, intensity_unit),
                    aggregation_code=aggregation_code,
                    response_map=response_map,
                )


def _aggregated(family: Family, settings: RadiomicsSettings) -> list[tuple[str, str | None, str | None]]:
    if family in ("glcm", "glrlm"):
        return [(f"_{aggregation}", *_AGGREGATIONS[aggregation]) for aggregation in settings.aggregations]
    if family in ("glszm", "gldzm", "ngtdm", "ngldm"):
        return [(f"_{extent}", *_EXTENTS[extent]) for extent in settings.extents]
    return [("", None, None)]


def _unit(unit: str, intensity_unit: str | None) -> str | None:
    if not unit.startswith("u"):
        return None if unit == "-" else unit
    return None if intensity_unit is None else intensity_unit + unit[1:]
