"""How radiomics of one region are computed: the settings of the whole chain, from interpolation to texture.

The terms are those of the Image Biomarker Standardisation Initiative (IBSI): Zwanenburg et al., Radiology 2020;295:328-338
and its reference manual, arXiv:1612.07003; filters: Whybra et al., Radiology 2024;310:e231319, arXiv:2006.05470.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from theracast_data.section import Section

Family = Literal[
    "morphology", "local", "statistics", "histogram", "ivh", "glcm", "glrlm", "glszm", "gldzm", "ngtdm", "ngldm"
]
Aggregation = Literal["2D_avg", "2D_comb", "2_5D_avg", "2_5D_comb", "3D_avg", "3D_comb"]
Extent = Literal["2D", "2_5D", "3D"]

FAMILIES: tuple[Family, ...] = get_args(Family)
AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)


class Interpolation(Section):
    """Resampling to a grid of the given spacing whose centre is the centre of the image."""

    spacing_mm: float | tuple[float, float, float] = Field(
        description="New voxel size in mm: one number, or (z, y, x). With `dimension: 2D` the first is not used."
    )
    dimension: Literal["2D", "3D"] = Field("3D", description="2D resamples within each slice and leaves slices alone.")
    method: Literal["linear", "cubic"] = Field("linear", description="Linear, or cubic B-spline, for the intensities.")
    round_intensities: bool = Field(
        True, description="Round to whole numbers afterwards. True for CT (HU), else false."
    )
    mask_threshold: float = Field(
        0.5,
        gt=0,
        le=1,
        description="A voxel belongs to the region from this fraction on; the mask is resampled linearly.",
    )

    @model_validator(mode="after")
    def _positive(self) -> Interpolation:
        if min(self.target((1.0, 1.0, 1.0))) <= 0:
            raise ValueError("spacing_mm must be above 0")
        return self

    def target(self, spacing_mm: tuple[float, float, float]) -> tuple[float, float, float]:
        """Return the new spacing (z, y, x) for an image of this spacing."""
        wanted = self.spacing_mm if isinstance(self.spacing_mm, tuple) else (self.spacing_mm,) * 3
        return (spacing_mm[0] if self.dimension == "2D" else wanted[0], wanted[1], wanted[2])


class Resegmentation(Section):
    """Which voxels of the region count for intensities and texture. The region's shape never changes by it."""

    minimum: float | None = Field(None, description="Lowest intensity that stays, in units of the image.")
    maximum: float | None = Field(None, description="Highest intensity that stays, in units of the image.")
    outlier_sigma: float | None = Field(
        None, gt=0, description="Leave out what lies further from the region's mean than this many standard deviations."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Resegmentation:
        if self.minimum is not None and self.maximum is not None and self.minimum >= self.maximum:
            raise ValueError("minimum must be below maximum")
        return self


class FixedBinNumber(Section):
    """The range of the region's intensities in `bins` equal bins."""

    method: Literal["fbn"] = "fbn"
    bins: int = Field(32, ge=2, le=2048, description="Number of bins.")


class FixedBinSize(Section):
    """Bins of one width, counted from `start`."""

    method: Literal["fbs"] = "fbs"
    width: float = Field(25.0, gt=0, description="Width of a bin in units of the image.")
    start: float | None = Field(
        None, description="Lower edge of bin 1; by default the minimum of the re-segmentation, else of the region."
    )


class Undiscretised(Section):
    """Intensities as they are. Texture then needs whole numbers from 1 on."""

    method: Literal["none"] = "none"


Discretisation = Annotated[FixedBinNumber | FixedBinSize | Undiscretised, Field(discriminator="method")]


class Texture(Section):
    """Options of the texture matrices; distances are Chebyshev distances in voxels."""

    glcm_distance: int = Field(1, ge=1, le=16, description="Distance of the voxel pairs of the co-occurrence matrix.")
    glcm_symmetric: bool = Field(True, description="Count every pair in both orders, as IBSI does.")
    ngtdm_distance: int = Field(1, ge=1, le=8, description="Radius of the neighbourhood of the grey tone difference.")
    ngldm_distance: int = Field(1, ge=1, le=8, description="Radius of the neighbourhood of the grey level dependence.")
    ngldm_coarseness: int = Field(0, ge=0, description="Difference in grey levels up to which voxels are dependent.")

    @property
    def reach(self) -> int:
        """Largest distance in voxels that any matrix looks."""
        return max(self.glcm_distance, self.ngtdm_distance, self.ngldm_distance)


class LaplacianOfGaussian(Section):
    """Laplacian of a Gaussian, by its sampled kernel."""

    kind: Literal["log"] = "log"
    sigma_mm: float = Field(gt=0, description="Standard deviation in mm.")
    truncate: float = Field(4.0, gt=0, description="Radius of the kernel in standard deviations.")
    dimension: Literal["2D", "3D"] = "3D"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the response maps."""
        return (f"log_{self.sigma_mm:g}mm" + ("_2D" if self.dimension == "2D" else ""),)


WaveletName = Literal["haar", "db1", "db2", "db3", "db4", "db5", "db6", "db7", "db8", "coif1"]


class Wavelet(Section):
    """Undecimated separable wavelet, one level: one response map for each of `bands`."""

    kind: Literal["wavelet"] = "wavelet"
    wavelet: WaveletName = Field("coif1", description="Haar, Daubechies 1 to 8, or coiflet 1.")
    bands: tuple[str, ...] = Field(
        ("LLL", "LLH", "LHL", "LHH", "HLL", "HLH", "HHL", "HHH"),
        min_length=1,
        description="Low (L) or high (H) pass along x, y and z, in this order; two letters filter within slices.",
    )
    rotation_invariant: bool = Field(False, description="Average the responses over all right-angle rotations.")

    @model_validator(mode="after")
    def _known(self) -> Wavelet:
        wrong = [band for band in self.bands if len(band) not in (2, 3) or set(band) - set("LH")]
        if wrong:
            raise ValueError(f"band {wrong[0]!r} is not two or three letters of L and H")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the response maps."""
        pooled = "_average" if self.rotation_invariant else ""
        return tuple(f"wavelet_{self.wavelet}_{band}{pooled}" for band in self.bands)


class MeanFilter(Section):
    """Mean over a cube, or over a square within slices."""

    kind: Literal["mean"] = "mean"
    size: int = Field(3, ge=3, description="Edge in voxels, odd.")
    dimension: Literal["2D", "3D"] = "3D"

    @model_validator(mode="after")
    def _odd(self) -> MeanFilter:
        if self.size % 2 == 0:
            raise ValueError("size must be odd")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the response maps."""
        return (f"mean_{self.size}" + ("_2D" if self.dimension == "2D" else ""),)


class Laws(Section):
    """Laws' kernels, optionally pooled over right-angle rotations and summed to an energy map."""

    kind: Literal["laws"] = "laws"
    kernels: str = Field(
        pattern=r"^([LESRW]5|[LES]3){2,3}$",
        description="Kernels along x, y and z, e.g. L5E5E5; two filter within slices.",
    )
    pooling: Literal["none", "average", "max"] = Field("max", description="Pooling over all right-angle rotations.")
    energy_distance: int | None = Field(
        7, ge=1, description="Radius in voxels of the mean of |response|; none: no energy."
    )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the response maps."""
        pooled = "" if self.pooling == "none" else f"_{self.pooling}"
        energy = "" if self.energy_distance is None else f"_energy{self.energy_distance}"
        return (f"laws_{self.kernels.lower()}{pooled}{energy}",)


Filter = Annotated[LaplacianOfGaussian | Wavelet | MeanFilter | Laws, Field(discriminator="kind")]

INTENSITY_FAMILIES: tuple[Family, ...] = tuple(family for family in FAMILIES if family not in ("morphology", "local"))


class RadiomicsSettings(Section):
    """The whole chain for one kind of image. By default: as it is, 32 bins, all families, 3D."""

    interpolation: Interpolation | None = Field(None, description="None: the grid of the image.")
    resegmentation: Resegmentation = Field(Resegmentation(), description="Which voxels count for intensities.")
    discretisation: Discretisation = Field(FixedBinNumber(), description="Grey levels of histogram and texture.")
    ivh_discretisation: Discretisation = Field(
        Undiscretised(), description="Grey levels of the intensity-volume histogram."
    )
    ivh_calibrated: bool = Field(
        True,
        description="Intensities are in definite units (HU, SUV): re-segmentation limits are the ends of the histogram.",
    )
    families: tuple[Family, ...] = Field(FAMILIES, min_length=1, description="Families of the image itself.")
    aggregations: tuple[Aggregation, ...] = Field(
        ("3D_avg", "3D_comb"), min_length=1, description="How matrices of slices and directions become one value."
    )
    texture: Texture = Field(Texture(), description="Distances and coarseness of the texture matrices.")
    filters: tuple[Filter, ...] = Field((), description="Response maps computed from the interpolated image.")
    filter_families: tuple[Family, ...] = Field(INTENSITY_FAMILIES, description="Families of every response map.")
    filter_discretisation: Discretisation = Field(
        FixedBinNumber(), description="Grey levels of response maps, whose units are arbitrary."
    )
    compatibility: Literal["ibsi", "pyradiomics"] = Field(
        "ibsi",
        description="pyradiomics: bin edges at multiples of the width, kurtosis not in excess, its values for flat regions.",
    )

    @model_validator(mode="after")
    def _of_the_image_alone(self) -> RadiomicsSettings:
        wrong = [family for family in self.filter_families if family not in INTENSITY_FAMILIES]
        if wrong:
            raise ValueError(
                f"filter_families: {wrong[0]!r} is a family of the image itself, not of a response map; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _each_map_once(self) -> RadiomicsSettings:
        names = [name for chosen in self.filters for name in chosen.names]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"filters: the response map {twice[0]!r} is asked for twice; leave one out")
        return self

    def grid_spacing(self, spacing_mm: tuple[float, float, float]) -> tuple[float, float, float]:
        """Return the spacing (z, y, x) on which features are computed, for an image of this spacing."""
        return spacing_mm if self.interpolation is None else self.interpolation.target(spacing_mm)

    @property
    def extents(self) -> tuple[Extent, ...]:
        """2D, 2.5D, 3D: what the aggregations mean for matrices without directions."""
        found: dict[Extent, None] = {}
        for aggregation in self.aggregations:
            extent: Extent = "2D" if aggregation[:3] == "2D_" else "2_5D" if aggregation[0] == "2" else "3D"
            found[extent] = None
        return tuple(found)
