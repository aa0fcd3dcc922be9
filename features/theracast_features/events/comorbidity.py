"""The Charlson comorbidity index from ICD-10 diagnoses known at a decision."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from types import MappingProxyType
from typing import Literal

import pandas as pd
import pyarrow as pa
from pydantic import Field, field_validator

from theracast_data.errors import StudyError
from theracast_data.section import Section
from theracast_features.events.builder import coded_events, column_of, named_columns
from theracast_features.events.visible import by_decision, require_columns, visible_events
from theracast_features.naming import label_from_name, nearest_name
from theracast_features.specs import FeatureSpec, feature_name

# Quan H et al. Med Care 2005;43:1130-1139, table 1, column "ICD-10". Beginnings of codes, without the point.
_DIABETES = tuple(f"E{kind}" for kind in (10, 11, 12, 13, 14))
CHARLSON_CODES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "myocardial_infarction": ("I21", "I22", "I252"),
        "heart_failure": (
            *("I099", "I110", "I130", "I132", "I255", "I420", "I425", "I426", "I427", "I428", "I429", "I43", "I50"),
            "P290",
        ),
        "peripheral_vascular": (
            *("I70", "I71", "I731", "I738", "I739", "I771", "I790", "I792", "K551", "K558", "K559", "Z958", "Z959"),
        ),
        "cerebrovascular": ("G45", "G46", "H340", *(f"I{number}" for number in range(60, 70))),
        "dementia": ("F00", "F01", "F02", "F03", "F051", "G30", "G311"),
        "pulmonary": (
            *("I278", "I279", "J40", "J41", "J42", "J43", "J44", "J45", "J46", "J47", "J60", "J61", "J62", "J63"),
            *("J64", "J65", "J66", "J67", "J684", "J701", "J703"),
        ),
        "rheumatic": ("M05", "M06", "M315", "M32", "M33", "M34", "M351", "M353", "M360"),
        "peptic_ulcer": ("K25", "K26", "K27", "K28"),
        "mild_liver": (
            *("B18", "K700", "K701", "K702", "K703", "K709", "K713", "K714", "K715", "K717", "K73", "K74", "K760"),
            *("K762", "K763", "K764", "K768", "K769", "Z944"),
        ),
        "diabetes": tuple(f"{kind}{digit}" for kind in _DIABETES for digit in "01689"),
        "diabetes_complicated": tuple(f"{kind}{digit}" for kind in _DIABETES for digit in "23457"),
        "plegia": ("G041", "G114", "G801", "G802", "G81", "G82", "G830", "G831", "G832", "G833", "G834", "G839"),
        "renal": (
            *("I120", "I131", "N032", "N033", "N034", "N035", "N036", "N037", "N052", "N053", "N054", "N055", "N056"),
            *("N057", "N18", "N19", "N250", "Z490", "Z491", "Z492", "Z940", "Z992"),
        ),
        "cancer": tuple(
            f"C{number:02d}"
            for first, last in ((0, 26), (30, 34), (37, 41), (43, 43), (45, 58), (60, 76), (81, 85), (88, 88), (90, 97))
            for number in range(first, last + 1)
        ),
        "severe_liver": (*("I850", "I859", "I864", "I982", "K704", "K711", "K721", "K729", "K765", "K766", "K767"),),
        "metastatic": ("C77", "C78", "C79", "C80"),
        "aids": ("B20", "B21", "B22", "B24"),
    }
)
_PREFIXES = tuple((prefix, disease) for disease, prefixes in CHARLSON_CODES.items() for prefix in prefixes)

# Order as CHARLSON_CODES. 1987: Charlson ME et al. J Chronic Dis 1987;40:373-383. 2011: Quan H et al. Am J Epidemiol
# 2011;173:676-682.
_WEIGHTS_1987 = (1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 6, 6)
_WEIGHTS_2011 = (0, 2, 0, 0, 2, 1, 1, 0, 2, 0, 1, 2, 1, 2, 4, 6, 4)
CHARLSON_WEIGHTS: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "1987": MappingProxyType(dict(zip(CHARLSON_CODES, _WEIGHTS_1987, strict=True))),
        "2011": MappingProxyType(dict(zip(CHARLSON_CODES, _WEIGHTS_2011, strict=True))),
    }
)
_GRAVER = {"mild_liver": "severe_liver", "diabetes": "diabetes_complicated", "cancer": "metastatic"}


_SOURCES = {
    "1987": "Charlson ME et al. J Chronic Dis 1987;40:373-383; codes of Quan H et al. Med Care 2005;43:1130-1139",
    "2011": "Quan H et al. Am J Epidemiol 2011;173:676-682; codes of Quan H et al. Med Care 2005;43:1130-1139",
}


class ComorbiditySection(Section):
    """The Charlson index from ICD-10 diagnoses. Features are called `clin.charlson.score`, `clin.charlson.renal`, ..."""

    weights: Literal["1987", "2011"] = Field("1987", description="As first published, or as updated by Quan et al.")
    exclude: tuple[str, ...] = Field(
        (), description="Diseases that give no points, e.g. the cancer under treatment: [cancer, metastatic]."
    )
    diseases: Literal["all", "none"] | tuple[str, ...] = Field(
        "all", description="Diseases that become features of their own, beside the score."
    )
    lookback_days: float | None = Field(
        None, gt=0, description="Only diagnoses of the last so many days (d) count, and those without a time."
    )

    @field_validator("exclude", "diseases")
    @classmethod
    def _check_diseases(cls, names: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for name in () if isinstance(names, str) else names:
            if name not in CHARLSON_CODES:
                raise ValueError(
                    f"the Charlson index has no disease {name!r}{nearest_name(name, CHARLSON_CODES)}. "
                    f"Diseases: {', '.join(CHARLSON_CODES)}"
                )
        return names


@dataclass(frozen=True)
class ComorbidityBuilder:
    """The `features.comorbidity` of a study; see `EventBuilder`."""

    section: ComorbiditySection

    @cached_property
    def _meanings(self) -> dict[str, FeatureSpec]:
        named = {"all": tuple(CHARLSON_CODES), "none": ()}
        own = self.section.diseases
        diseases = named[own] if isinstance(own, str) else own
        label = f"Charlson comorbidity index ({self.section.weights})"
        if self.section.exclude:
            label += f" without {', '.join(self.section.exclude)}"
        return {
            column: FeatureSpec(
                name=feature_name("clinical", "charlson", column),
                modality="clinical",
                kind="numeric" if column == "score" else "boolean",
                label=label if column == "score" else f"{label_from_name(column)} (Charlson)",
                columns=("diagnoses",),
                role="derived",
                source=_SOURCES[self.section.weights],
            )
            for column in dict.fromkeys(("score", *diseases))
        }

    @property
    def catalogue(self) -> tuple[FeatureSpec, ...]:
        """The meaning of each column."""
        return tuple(self._meanings.values())

    def build(self, events: pa.Table, decisions: pd.DataFrame) -> pd.DataFrame:
        """Return score and diseases as of each decision."""
        table = charlson(
            self._diagnoses(events),
            decisions,
            weights=self.section.weights,
            exclude=self.section.exclude,
            lookback_days=self.section.lookback_days,
        )
        return named_columns(table, self._meanings)

    def steps(self, name: str) -> tuple[str, ...]:
        """Return which diagnoses count, and for what."""
        column = column_of(name, self._meanings)
        days = self.section.lookback_days
        steps = [
            "diagnoses: events with ICD-10 codes",
            f"seen: those {'' if days is None else f'of the last {days:g} d, or without a time, '}up to the decision that were "
            "available by then; none at all is missing, not healthy",
        ]
        if column == "score":
            points = CHARLSON_WEIGHTS[self.section.weights]
            counted = [f"{disease} {points[disease]}" for disease in points if disease not in self.section.exclude]
            return (*steps, f"points: {', '.join(counted)} ({_SOURCES[self.section.weights]})")
        graver = _GRAVER.get(column)
        replaced = "" if graver is None else f"; {graver} replaces it"
        return (*steps, f"codes that begin with {', '.join(CHARLSON_CODES[column])}{replaced}")

    def rows(self, name: str, events: pa.Table, decisions: pd.DataFrame) -> pd.DataFrame:
        """Return the diagnoses seen, with the Charlson diseases of each.

        Of one disease its own and its graver form's; where there is none, the others, for they make the answer a no.
        """
        column = column_of(name, self._meanings)
        seen = _seen(self._diagnoses(events), decisions, self.section.lookback_days)
        found = seen["code"].map(charlson_diseases)
        seen = seen.assign(disease=found.map(", ".join))
        if column == "score":
            return seen
        wanted = {column, _GRAVER.get(column)}
        own = found.map(lambda diseases: not wanted.isdisjoint(diseases)).astype(bool)
        return seen[own | ~own.groupby(seen["decision"]).transform("any").astype(bool)]

    def _diagnoses(self, events: pa.Table) -> pd.DataFrame:
        own: pd.DataFrame = coded_events(events, _is_diagnosis).to_pandas()
        return own


def charlson_diseases(code: str) -> tuple[str, ...]:
    """Return the Charlson diseases that one event code stands for, none for codes that are not ICD-10 diagnoses.

    `ICD10CM//E11.9`, `ICD-10//E119` and `DIAGNOSIS//ICD10//E11.9` are the same. ICD-10-PCS codes procedures.
    """
    for system, found in pairwise(code.split("//")):
        if _is_icd10(system):
            bare = found.upper().replace(".", "").strip()
            return tuple(dict.fromkeys(disease for prefix, disease in _PREFIXES if bare.startswith(prefix)))
    return ()


def charlson(
    events: pd.DataFrame,
    decisions: pd.DataFrame,
    *,
    weights: Literal["1987", "2011"] = "1987",
    exclude: Collection[str] = (),
    lookback_days: float | None = None,
) -> pd.DataFrame:
    """Return (n, 18) for each decision `score` (points) and 0/1 for every disease, not adjusted for age.

    A graver form replaces the milder one (metastatic the cancer, complicated the plain diabetes, severe the mild liver
    disease) in score and columns. A decision that sees no ICD-10 diagnosis at all is missing, not healthy.

    Args:
        events: subject_id, time, code; optionally available_time. Other codes are passed over.
        weights: 1987 as first published, 2011 as updated by Quan et al.
        exclude: diseases that give no points, e.g. the cancer under treatment: ("cancer", "metastatic").
        lookback_days: only diagnoses with `index_time - lookback_days < time`; None for all. Those without time count.

    Raises:
        StudyError: `exclude` names no disease of the index.

    Source: codes of Quan H et al. Med Care 2005;43:1130-1139.
    """
    for name in exclude:
        if name not in CHARLSON_CODES:
            raise StudyError(
                f"the Charlson index has no disease {name!r}{nearest_name(name, CHARLSON_CODES)}. "
                f"Diseases: {', '.join(CHARLSON_CODES)}."
            )
    require_columns(events, ("code",), what="events")
    diagnoses = events[events["code"].map(_is_diagnosis).astype(bool)]
    seen = _seen(diagnoses, decisions, lookback_days)
    meaning = {code: charlson_diseases(code) for code in seen["code"].unique()}
    met = seen.assign(disease=seen["code"].map(meaning)).explode("disease")
    table = pd.DataFrame(0.0, index=sorted(seen["decision"].unique()), columns=list(CHARLSON_CODES))
    for disease, rows in met.groupby("disease"):
        table.loc[rows["decision"].unique(), str(disease)] = 1.0
    for milder, graver in _GRAVER.items():
        table.loc[table[graver] == 1, milder] = 0.0
    points = pd.Series(
        {name: 0 if name in exclude else weight for name, weight in CHARLSON_WEIGHTS[weights].items()}, dtype=float
    )
    table.insert(0, "score", (table * points).sum(axis=1))
    return by_decision(table, decisions)


def _seen(diagnoses: pd.DataFrame, decisions: pd.DataFrame, lookback_days: float | None) -> pd.DataFrame:
    """Return the visible diagnoses inside the look-back; those without a time are true at all times."""
    seen = visible_events(diagnoses, decisions)
    if lookback_days is None:
        return seen
    return seen[~(seen["time"] <= seen["index_time"] - pd.Timedelta(days=lookback_days))]


def _is_diagnosis(code: str) -> bool:
    return any(_is_icd10(part) for part in code.split("//")[:-1])


def _is_icd10(system: str) -> bool:
    name = re.sub(r"[^0-9A-Z]", "", system.upper())
    return name.startswith("ICD10") and not name.startswith("ICD10PCS")
