"""Measurements of images as features: those of the last scan that a decision may see, and how they have moved.

A measurement is an event like a laboratory result, made by `theracast images extract`: at the time of the scan, under a code
that says what was measured and how. So windows, visibility and changes between scans are those of `features.events`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from theracast_data.errors import StudyError
from theracast_data.events.concepts import Concept
from theracast_features.events.aggregates import AggregateBuilder
from theracast_features.events.builder import coded_events
from theracast_features.events.section import EventFeatures
from theracast_features.events.visible import dated, visible_events
from theracast_features.imaging.meaning import Meaning
from theracast_features.imaging.measure import meanings
from theracast_features.imaging.section import PATCH, ImageFeatures, fits, measure_code
from theracast_features.pictures import picture_spec
from theracast_features.specs import FeatureSpec

_OF_THE_LAST = frozenset({"last", "change", "relative_change", "change_per_day"})


class ImageBuilder:
    """One kind of image of the `features.images` of a study; see `EventBuilder`."""

    def __init__(self, name: str, section: ImageFeatures, *, engine: Literal["duckdb", "spark"] = "duckdb") -> None:
        self.name, self.section = name, section
        self._kept = kept_measures(name, section)
        concepts = {
            f"{name}.{measure}": Concept(
                codes=(measure_code(name, section.measures, measure),),
                label=f"{name}, {meaning.label}" if section.label is None else f"{section.label}, {meaning.label}",
                modality="imaging",
                unit=meaning.unit,
            )
            for measure, meaning in self._kept.items()
        }
        features = [
            EventFeatures(
                concept=f"{name}.{measure}",
                windows=section.windows,
                aggregates=section.aggregates,
                transform="log1p" if fits(measure, section.log) else "none",
            )
            for measure in self._kept
        ]
        self._aggregates = AggregateBuilder(features, concepts, engine=engine)
        self._measured = tuple(self._described(spec) for spec in self._aggregates.catalogue)
        self._picture = None if section.patch is None else picture_spec(name, section)
        self.catalogue: tuple[FeatureSpec, ...] = (*self._measured, *((self._picture,) if self._picture else ()))

    def build(self, events: pa.Table, decisions: pd.DataFrame) -> pd.DataFrame:
        """Return every aggregate of every measurement that is kept, and whether there is a picture.

        What is not defined in the last scan (the mean of the voxels above a threshold, where there is none) is missing:
        the scan before says nothing of what is there now.
        """
        frame = self._aggregates.build(events, decisions)
        outdated = self._outdated(events, decisions)
        for spec in self._measured:
            code = measure_code(self.name, self.section.measures, self._measure(spec))
            if code in outdated and spec.name.rsplit(".", 2)[1] in _OF_THE_LAST:
                frame.loc[outdated[code], spec.name] = np.nan
        if self._picture is not None:
            there = np.isin(np.arange(len(decisions)), self._pictures(events, decisions)["decision"])
            frame[self._picture.name] = np.where(there, 1.0, np.nan)
        return frame

    def steps(self, name: str) -> tuple[str, ...]:
        """Return how it was measured, which scans are seen, and what is made of them."""
        if self._picture is not None and name == self._picture.name:
            return self._picture_steps()
        regions = " or ".join(self.section.regions)
        measured = (
            f"measured in {self.section.modality}, region {regions}, by the settings {self.section.measures.digest}"
        )
        last = "missing where the last scan has no such measurement"
        of_the_last = name.rsplit(".", 2)[1] in _OF_THE_LAST
        fitted = self.section.fitted_habitats if name.split(".")[2].startswith("habitat_") else None
        if fitted is not None:
            measured += f"; habitats of {', '.join(fitted.maps)} fitted on {fitted.patients} development patients"
        if (dose := self.section.dose) is not None and name.split(".")[2].startswith("dose_"):
            measured += f"; known from when the {'RTDOSE' if dose.known == 'dose' else 'image'} was made"
        return (measured, *self._aggregates.steps(name), *((last,) if of_the_last else ()))

    def rows(self, name: str, events: pa.Table, decisions: pd.DataFrame) -> pd.DataFrame:
        """Return the measurements of the scans that the aggregate has seen; of a picture, when it was made."""
        if self._picture is not None and name == self._picture.name:
            return self._pictures(events, decisions).drop(columns="text_value")
        return self._aggregates.rows(name, events, decisions)

    def _outdated(self, events: pa.Table, decisions: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
        """Return by code the decisions (n,) that see a later scan than the last one with this measurement."""
        prefix = measure_code(self.name, self.section.measures, "")
        own = coded_events(events, lambda code: code.startswith(prefix))
        if not own.num_rows:
            return {}
        columns = own.select(["subject_id", "time", "code", "available_time"]).to_pandas()
        seen = dated(visible_events(columns, decisions))
        last = seen.groupby("decision")["time"].transform("max")
        newest = (seen["time"] == last).groupby([seen["decision"], seen["code"]]).any()
        found: dict[str, NDArray[np.bool_]] = {}
        for decision, code in newest.index[~newest]:
            found.setdefault(code, np.zeros(len(decisions), dtype=bool))[decision] = True
        return found

    def _pictures(self, events: pa.Table, decisions: pd.DataFrame) -> pd.DataFrame:
        """Return the last picture that each decision may see, with `decision`; none for one without."""
        code = measure_code(self.name, self.section.measures, PATCH)
        own = events.filter(pc.equal(events["code"], code)).to_pandas()
        last = dated(visible_events(own, decisions)).drop_duplicates("decision", keep="last")
        return last[last["text_value"].notna()]

    def _picture_steps(self) -> tuple[str, ...]:
        patch = self.section.patch
        assert patch is not None
        regions = " or ".join(self.section.regions)
        return (
            f"a cube of {patch.voxels} voxels of {patch.spacing_mm:g} mm around the region {regions} in "
            f"{self.section.modality}, by the settings {self.section.measures.digest}",
            "that of the last scan before the decision, at any time",
            "1 where there is one; only the family cnn looks at it, no other model uses this feature",
        )

    def _measure(self, spec: FeatureSpec) -> str:
        return spec.columns[0].removeprefix(f"{self.name}.")

    def _described(self, spec: FeatureSpec) -> FeatureSpec:
        measure = self._measure(spec)
        return replace(spec, code=self._kept[measure].code, icc=self.section.icc.get(measure))


def kept_measures(name: str, section: ImageFeatures) -> dict[str, Meaning]:
    """Return the measurements that become features.

    Raises:
        StudyError: none is left, or one that is named is not measured.
    """
    known = meanings(section.measures)
    for key in ("keep", "log", "icc"):
        strange = [one for one in getattr(section, key) if not any(fits(measure, (one,)) for measure in known)]
        if strange:
            raise StudyError(
                f"features.images.{name}.{key}: {', '.join(strange)} fits nothing that is measured. There are "
                f"{_some(list(known))}."
            )
    least = section.icc_at_least
    kept = {
        measure: meaning
        for measure, meaning in known.items()
        if fits(measure, section.keep) and (least is None or section.icc.get(measure, -1.0) >= least)
    }
    if not kept:
        raise StudyError(f"features.images.{name}: no measurement has an icc of at least {least}. Lower icc_at_least.")
    return kept


def image_builders(
    section: Mapping[str, ImageFeatures], *, engine: Literal["duckdb", "spark"] = "duckdb"
) -> list[ImageBuilder]:
    """Return a builder for each kind of image."""
    return [ImageBuilder(name, one, engine=engine) for name, one in section.items()]


def _some(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
