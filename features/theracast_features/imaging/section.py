"""What is measured in the images of a study, and which of it becomes features: `features.images` of a study file."""

from __future__ import annotations

import hashlib
import json
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from theracast_data.errors import StudyError
from theracast_data.section import Section
from theracast_features.events.section import Aggregate, check_windows
from theracast_features.imaging.habitat_section import NOT_FITTED, FittedHabitats, ImageHabitats
from theracast_features.imaging.overlay_section import DynamicContrast, PlannedDose, QuantitativeMap
from theracast_features.imaging.settings import RadiomicsSettings

FORMAT = 1
"""Raise it where the same image gives other measurements than before: they then have other codes, and caches are passed over."""

CODE_SYSTEM = "IMAGE"
SCANNER = "scanner"
"""Last part of the code of the event that says, as text, with what an image was made."""

PATCH = "patch"
"""Last part of the code of the event that holds, as text, a small picture of the region."""

SERIES = "series"
"""The part of a code before the identifier of the series that was measured."""


class Uptake(Section):
    """Uptake of a tracer in a region of a PET."""

    suv: Literal["bw", "lbm_james", "lbm_janmahasatian"] = Field(
        "bw", description="Body on which the uptake is standardised: bw body weight, lbm lean body mass by formula."
    )
    fixed: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (2.5, 4.0), description="SUV from which voxels count as active tumour."
    )
    relative: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.41, 0.5), description="Likewise, as fractions of the region's maximum."
    )


class Patch(Section):
    """A small picture of the region, for the family `cnn`: a cube around it, made of the image and the region itself."""

    voxels: int = Field(24, ge=8, le=48, description="Voxels along an edge of the cube.")
    spacing_mm: float = Field(2.0, gt=0, description="Distance between them; the cube is `voxels` times as wide.")
    window: tuple[float, float] = Field(
        description="Lowest and highest value that are told apart, e.g. [-160, 240] HU for soft tissue or [0, 20] SUV."
    )

    @field_validator("window")
    @classmethod
    def _check_window(cls, window: tuple[float, float]) -> tuple[float, float]:
        if not window[0] < window[1]:
            raise ValueError(f"the window ends where it begins, or before: {window[0]:g} to {window[1]:g}")
        return window


class ImageMeasures(Section):
    """Which images, which region in them, and what is measured. A change of it gives the measurements other codes.

    An image is a series of `modality` to which a region belongs whose name fits `regions`.
    """

    modality: Literal["CT", "PT", "MR"] = Field(description="As in DICOM: CT, PT (PET) or MR.")
    series: tuple[str, ...] = Field(
        ("*",),
        min_length=1,
        description="Descriptions of the series that count, * for any ending; case is not regarded.",
    )
    regions: tuple[str, ...] = Field(
        ("*",), min_length=1, description="Names of the regions that count, e.g. [GTV*]; case is not regarded."
    )
    several: Literal["union", "largest", "refuse"] = Field(
        "refuse", description="What is measured where several regions of an image fit."
    )
    region_off_grid: Literal["refuse", "resample"] = Field(
        "refuse", description="What becomes of a region whose grid or contours are not those of the image."
    )
    size: bool = Field(
        True, description="Volume, longest axial diameter and the one across it, longest diameter in 3D."
    )
    uptake: Uptake | None = Field(None, description="SUVmax, SUVpeak, SUVmean, MTV and TLG; for PT.")
    intensity: bool = Field(False, description="Mean, percentiles and shape of the intensities, in no unit.")
    map: QuantitativeMap | None = Field(None, description="The image is a map of a quantity with a unit, e.g. ADC.")
    dose: PlannedDose | None = Field(
        None, description="Dose of radiotherapy in the region, of the RTDOSE over the image."
    )
    enhancement: DynamicContrast | None = Field(
        None, description="Enhancement between phases of a dynamic series, and functional tumour volume; for MR."
    )
    radiomics: RadiomicsSettings | None = Field(None, description="Features of the IBSI, and how they are computed.")
    habitats: ImageHabitats | None = Field(
        None, description="Parts of the region that look alike on several maps: size, contacts, and means of the maps."
    )
    patch: Patch | None = Field(
        None,
        description="A small picture of the region, from which the family `cnn` learns; that of the last scan counts.",
    )

    @field_validator("series", "regions", mode="before")
    @classmethod
    def _one_pattern(cls, patterns: object) -> object:
        return (patterns,) if isinstance(patterns, str) else patterns

    @model_validator(mode="after")
    def _check_modality(self) -> ImageMeasures:
        if self.uptake is not None and self.modality != "PT":
            raise ValueError(f"`uptake` is measured in PET; say modality: PT, or remove it (found {self.modality})")
        if self.enhancement is not None and self.modality != "MR":
            raise ValueError(f"`enhancement` is measured in MR; say modality: MR, or remove it (found {self.modality})")
        if self.map is not None and self.modality == "PT":
            raise ValueError("`map` is of CT or MR; a PET is measured by `uptake`")
        measured = (self.size, self.uptake, self.intensity, self.map, self.dose, self.enhancement, self.radiomics)
        if not any((*measured, self.habitats)):
            raise ValueError(
                "nothing is measured; ask for `size`, `uptake`, `intensity`, `map`, `dose`, `enhancement`, `radiomics` or "
                "`habitats`"
            )
        return self

    @property
    def phases_in_one_series(self) -> bool:
        """Whether the series with the region is a dynamic one that holds several volumes."""
        return self.enhancement is not None and not self.enhancement.series

    @property
    def has_overlays(self) -> bool:
        """Whether more is read than the image and its region: a dose, or phases."""
        return self.dose is not None or self.enhancement is not None

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that change with anything that changes a measurement.

        What is as by default does not enter, so that a setting of a later version leaves the codes of models as they are.
        """
        settings = self.model_dump(mode="json", include=set(ImageMeasures.model_fields), exclude_defaults=True)
        text = json.dumps({"format": FORMAT} | settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def habitats_digest(self) -> str:
        """Eight hexadecimal digits that change with anything by which habitats are fitted."""
        keys = {"modality", "series", "regions", "several", "region_off_grid", "habitats"}
        settings = self.model_dump(mode="json", include=keys, exclude_defaults=True)
        settings.get("habitats", {}).pop("fitted", None)
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def fitted_habitats(self) -> FittedHabitats | None:
        """What was learnt of habitats; None where none are measured.

        Raises:
            StudyError: habitats are asked for and not fitted.
        """
        if self.habitats is not None and self.habitats.fitted is None:
            raise StudyError(NOT_FITTED)
        return None if self.habitats is None else self.habitats.fitted


class ImageFeatures(ImageMeasures):
    """What is measured in one kind of image, and which measurements become features, as of each decision."""

    label: str | None = Field(
        None, description="What the tumour board reads, e.g. CT of the tumour; by default the name."
    )
    keep: tuple[str, ...] = Field(
        ("*",),
        min_length=1,
        description="Measurements that become features, e.g. [volume_ml, 'cm_*', 'log_2mm.stat_*'].",
    )
    windows: tuple[str, ...] = Field(("all",), min_length=1, description="e.g. [90d, all]; as in `events`.")
    aggregates: tuple[Aggregate, ...] = Field(
        ("last",), min_length=1, description="last; change, relative_change, change_per_day and interval between scans."
    )
    log: tuple[str, ...] = Field((), description="Measurements that linear models see on a logarithmic scale.")
    icc: dict[str, Annotated[float, Field(ge=-1, le=1)]] = Field(
        {},
        description="Measurement to its intraclass correlation under perturbed regions; in a study file also the path of "
        "the JSON file that `theracast images stability` wrote.",
    )
    icc_at_least: float | None = Field(
        None, ge=0, le=1, description="Least correlation, e.g. 0.75; what is below it, or not known, is no feature."
    )

    @field_validator("windows")
    @classmethod
    def _check_windows(cls, windows: tuple[str, ...]) -> tuple[str, ...]:
        return check_windows(windows)

    @model_validator(mode="after")
    def _check_stability(self) -> ImageFeatures:
        if self.icc_at_least is not None and not self.icc:
            raise ValueError("`icc_at_least` needs `icc`: measure it with `theracast images stability`")
        return self

    @property
    def measures(self) -> ImageMeasures:
        """What is measured, without what becomes of it."""
        return ImageMeasures(**{name: getattr(self, name) for name in ImageMeasures.model_fields})


def measure_code(name: str, measures: ImageMeasures, measure: str) -> str:
    """Return the code of a measurement as an event: `IMAGE//NAME-DIGEST//MEASURE`."""
    return f"{CODE_SYSTEM}//{name}-{measures.digest}//{measure}"


def fits(text: str, patterns: tuple[str, ...]) -> bool:
    """Return whether a text fits one of the patterns, whatever the case of its letters."""
    return any(fnmatchcase(text.casefold(), pattern.casefold()) for pattern in patterns)
