"""How habitats are found in the images of a study, and what was learnt of them: `features.images.NAME.habitats`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from theracast_data.section import Section
from theracast_features.imaging.habitats import FORMAT, Habitats, HabitatSection

Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
MapName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]

NOT_FITTED = (
    "habitats are not fitted yet. Fit them with `theracast images habitats STUDY FOLDER --images NAME --out FILE`, and name "
    "the file as `habitats.fitted` of that kind of image."
)


class HabitatMap(Section):
    """One of the maps: a series of the same study as the image that carries the region, or that image itself."""

    modality: Literal["CT", "PT", "MR"] = Field(description="As in DICOM: CT, PT (PET) or MR.")
    series: tuple[str, ...] = Field(
        ("*",),
        min_length=1,
        description="Descriptions of the series that count, * for any ending; case is not regarded.",
    )
    suv: Literal["bw", "lbm_james", "lbm_janmahasatian"] | None = Field(
        None, description="PET as uptake standardised to this body; by default as the file has it."
    )
    scale: Literal["as_read", "region"] = Field(
        "as_read",
        description="region: minus the mean of the region, over its standard deviation, image by image; for MR, whose "
        "intensities differ between scanners.",
    )
    registration: Literal["none", "rigid"] = Field(
        "none",
        description="none: the map shares the frame of reference, and is only resampled; rigid: it is also searched for, and "
        "an image for which the answer cannot be trusted is not measured.",
    )

    @field_validator("series", mode="before")
    @classmethod
    def _one_pattern(cls, patterns: object) -> object:
        return (patterns,) if isinstance(patterns, str) else patterns

    @model_validator(mode="after")
    def _check_suv(self) -> HabitatMap:
        if self.suv is not None and self.modality != "PT":
            raise ValueError(f"`suv` is of PET; say modality: PT, or remove it (found {self.modality})")
        return self


class FittedHabitats(Section):
    """What was learnt of k habitats over p maps, as plain numbers; see `Habitats`."""

    format: Literal[1] = FORMAT  # type: ignore[assignment]
    settings: str = Field(description="Digest of the settings by which it was fitted.")
    maps: tuple[str, ...] = Field(min_length=2, description="Names, p; the first one orders the habitats.")
    centre: tuple[Number, ...] = Field(description="p means, in the unit of each map.")
    scale: tuple[Positive, ...] = Field(description="p standard deviations.")
    centroids: tuple[tuple[Number, ...], ...] = Field(min_length=1, description="k x p means in standardised units.")
    covariances: tuple[tuple[tuple[Number, ...], ...], ...] | None = Field(
        None, description="k x p x p of the Gaussian mixture."
    )
    weights: tuple[Positive, ...] | None = Field(None, description="k of the Gaussian mixture.")
    scores: dict[int, Number] = Field({}, description="Criterion of each number of habitats that was tried.")
    patients: int = Field(ge=2, description="That took part.")

    @model_validator(mode="after")
    def _check_shapes(self) -> FittedHabitats:
        p, k = len(self.maps), len(self.centroids)
        square = [(p, tuple(len(row) for row in one)) for one in self.covariances or ()]
        right = (
            len(self.centre) == len(self.scale) == p
            and all(len(one) == p for one in self.centroids)
            and (self.covariances is None) == (self.weights is None)
            and (self.weights is None or len(self.weights) == len(square) == k)
            and all(rows == (p,) * p for _, rows in square)
        )
        if not right:
            raise ValueError(f"the numbers are not those of {k} habitats over {p} maps. Fit the habitats again.")
        return self

    @property
    def habitats(self) -> Habitats:
        """The same as arrays."""
        return Habitats.from_json(self.model_dump())


class ImageHabitats(HabitatSection):
    """Parts of a region that look alike on several maps, and how they are found."""

    maps: dict[MapName, HabitatMap] = Field(
        min_length=2,
        description="Name of a map (a-z, 0-9, _) to the series it is read from; the first one orders the habitats, lowest first.",
    )
    covered: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Least part of the region with a number in every map; an image with less is not measured.",
    )
    fitted: FittedHabitats | None = Field(
        None,
        description="What was learnt on the development patients; in a study file the path of the JSON file that `theracast "
        "images habitats` wrote.",
    )

    @model_validator(mode="after")
    def _check_fitted(self) -> ImageHabitats:
        if self.fitted is not None and set(self.fitted.maps) != set(self.maps):
            raise ValueError(
                f"fitted for the maps {', '.join(self.fitted.maps)}; those of the study are {', '.join(self.maps)}. Run "
                "`theracast images habitats` again."
            )
        return self
