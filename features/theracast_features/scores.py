"""Published scores as built-in models: a sum of terms in log-odds, with coefficients and source.

A score is not computable (NaN) where one of its inputs is missing or is a level that the publication does not know.
A model that must answer anyway takes `completed`, which puts the typical patient of the score's own development cohort
in the place of such an input and says where it did so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from theracast_data.errors import StudyError
from theracast_data.modality import Modality
from theracast_data.sources import Kind
from theracast_features.naming import nearest_name
from theracast_features.specs import FeatureTable

Floats = NDArray[np.float64]
Units = Mapping[str, str | None]
NOTHING: Mapping[str, str] = MappingProxyType({})
NO_UNITS: Units = MappingProxyType({})


@dataclass(frozen=True)
class ScoreInput:
    """One term of a published score.

    Attributes:
        label: what the tumour board reads.
        modality: kind of data, for explanations by modality.
        kind: numeric and boolean have a `coefficient`, categorical has `levels`.
        typical: log-odds that this term gives for the typical patient of the score's development cohort.
        unit: UCUM unit of the coefficient; None for pure numbers and categories.
        coefficient: log-odds per unit.
        upper: values above count as this one.
        levels: category to log-odds. Case, spaces, punctuation and the word `and` do not matter.
    """

    label: str
    modality: Modality
    kind: Kind
    typical: float
    unit: str | None = None
    coefficient: float | None = None
    upper: float | None = None
    levels: Mapping[str, float] = field(default_factory=dict)

    def term(self, column: pd.Series, *, factor: float = 1.0) -> Floats:
        """Return (n,) log-odds of this term; NaN where the value is missing or an unknown level."""
        if self.coefficient is None:
            known = {_plain(level): weight for level, weight in self.levels.items()}
            weights = [known.get(_plain(cell), np.nan) if isinstance(cell, str) else np.nan for cell in column]
            return np.asarray(weights, dtype=np.float64)
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan) * factor
        return self.coefficient * np.minimum(numbers, np.inf if self.upper is None else self.upper)


@dataclass(frozen=True)
class PublishedScore:
    """A score from the literature: `log_odds = intercept + sum of the terms of its inputs`.

    Attributes:
        name: short name, as in `baselines: [loris]`.
        label: what the tumour board reads.
        source: publication with DOI.
        intercept: log-odds before any input speaks.
        inputs: name of the input to its term; a study whose columns have these names needs no mapping.
        calibrated: whether the publication claims probabilities; otherwise the score only ranks.
    """

    name: str
    label: str
    source: str
    intercept: float
    inputs: Mapping[str, ScoreInput]
    calibrated: bool = False

    @property
    def typical(self) -> dict[str, float]:
        """Log-odds of each term for the typical patient; `intercept + sum(typical)` is the base of an explanation."""
        return {name: term.typical for name, term in self.inputs.items()}

    def lacking(self, available: object, *, inputs: Mapping[str, str] = NOTHING) -> list[str]:
        """Return the inputs of the score for which there is no column among the `available` names."""
        names = set(available)  # type: ignore[call-overload]
        return [name for name in self.inputs if inputs.get(name, name) not in names]

    def contributions(
        self, values: pd.DataFrame, *, inputs: Mapping[str, str] = NOTHING, units: Units = NO_UNITS
    ) -> pd.DataFrame:
        """Return (n, n_inputs) log-odds by input; NaN where that input is missing or an unknown level.

        Args:
            values: n rows, columns by their names inside Theracast, not capped or capped no lower than the score does.
            inputs: input of the score to the name of a column, where they differ.
            units: UCUM unit of each column; one without a unit is taken to be in the unit of the score.

        Raises:
            StudyError: an input has no column, is of another kind, or `inputs` names an unknown one.
            UnitError: a unit that cannot be converted into the score's.
        """
        self._check(values, inputs)
        terms = {}
        for name, term in self.inputs.items():
            column = inputs.get(name, name)
            factor = unit_factor(units.get(column), term.unit, quantity=f"{column} ({self.label})")
            terms[name] = term.term(values[column], factor=factor)
        return pd.DataFrame(terms, index=values.index)

    def log_odds(self, values: pd.DataFrame, *, inputs: Mapping[str, str] = NOTHING, units: Units = NO_UNITS) -> Floats:
        """Return (n,) log-odds; NaN where any input is missing. Arguments as for `contributions`."""
        terms = self.contributions(values, inputs=inputs, units=units).to_numpy(dtype=np.float64)
        return np.asarray(self.intercept + terms.sum(axis=1), dtype=np.float64)

    def completed(
        self, values: pd.DataFrame, *, inputs: Mapping[str, str] = NOTHING, units: Units = NO_UNITS
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return finite contributions, and (n, n_inputs) bool: where the typical patient stands in for the input."""
        terms = self.contributions(values, inputs=inputs, units=units)
        return terms.fillna(self.typical), terms.isna()

    def _check(self, values: pd.DataFrame, inputs: Mapping[str, str]) -> None:
        faults = [
            f"{self.label} has no input {name!r}{nearest_name(name, self.inputs)}"
            for name in inputs
            if name not in self.inputs
        ]
        faults += [
            f"{self.label} needs {name!r} ({self._wanted(name)}), but there is no column "
            f"{inputs.get(name, name)!r}{nearest_name(inputs.get(name, name), values.columns)}"
            for name in self.lacking(values.columns, inputs=inputs)
        ]
        faults += [
            f"{self.label} needs {name!r} as {term.kind}, but the column {inputs.get(name, name)!r} is of another kind"
            for name, term in self.inputs.items()
            if inputs.get(name, name) in values.columns and not _fits(values[inputs.get(name, name)], term)
        ]
        if faults:
            raise StudyError(
                ". ".join(faults) + ". Name the columns after the inputs of the score, or map them with `inputs`."
            )

    def _wanted(self, name: str) -> str:
        term = self.inputs[name]
        return f"{term.label}, {term.unit or term.kind}"


def table_values(table: FeatureTable) -> tuple[pd.DataFrame, dict[str, str | None]]:
    """Return the values of a feature table by their bare names (`albumin` for `lab.albumin`), and the unit of each.

    Derived columns (`nlr`) are among them, missing indicators are not.
    """
    kept = {spec.name.split(".", 1)[1]: spec for spec in table.catalogue if spec.role != "indicator"}
    frame = pd.DataFrame({bare: table.frame[spec.name] for bare, spec in kept.items()}, index=table.frame.index)
    return frame, {bare: spec.unit for bare, spec in kept.items()}


def published_score(name: str) -> PublishedScore:
    """Return the built-in score of this name."""
    if name not in PUBLISHED:
        known = ", ".join(PUBLISHED)
        raise StudyError(f"there is no published score {name!r}{nearest_name(name, PUBLISHED)}. Known scores: {known}.")
    return PUBLISHED[name]


def _fits(column: pd.Series, term: ScoreInput) -> bool:
    """Whether the column is of the term's kind; one without any value is of every kind."""
    return bool(column.isna().all()) or pd.api.types.is_numeric_dtype(column) == (term.coefficient is not None)


def _plain(level: str) -> str:
    return re.sub(r"\band\b|[^0-9a-z]+", "", level.lower())


def unit_factor(found: str | None, wanted: str | None, *, quantity: str) -> float:
    """Return the factor from one UCUM unit to another; 1 where the first is not known.

    Annotations in braces carry no meaning in UCUM: `{mutations}/Mb` and `{mut}/Mb` are the same unit.
    """
    if found is None or _bare_unit(found) == _bare_unit(wanted or "1"):
        return 1.0
    from theracast_data.events.molar import analyte_factor  # its unit library takes long to import and is seldom needed

    return analyte_factor(found, wanted or "1", quantity=quantity)


def _bare_unit(unit: str) -> str:
    bare = re.sub(r"\{[^}]*\}", "", unit)
    return f"1{bare}" if bare.startswith("/") else bare or "1"


# Means of the development cohort (n = 964) that the authors' own fit stored: the first row, `LLR_mean`, of
# 03.Results/6features/PanCancer/PanCancer_LLR6_10k_ParamCalculate.txt in github.com/rootchang/LORIS.
_CANCER_TYPES = {
    "Bladder": (-0.3323, 0.06745),
    "Breast": (-0.3323, 0.01244),
    "Colorectal": (-0.1020, 0.02904),
    "Endometrial": (-0.0079, 0.02796),
    "Esophageal": (0.5500, 0.02492),
    "Gastric": (0.2306, 0.04457),
    "Head & Neck": (0.0678, 0.04972),
    "Hepatobiliary": (-0.1189, 0.03736),
    "Melanoma": (-0.0086, 0.15770),
    "Mesothelioma": (0.1255, 0.02071),
    "NSCLC": (0.0008, 0.34339),
    "Ovarian": (-0.0520, 0.02387),
    "Pancreatic": (-1.1169, 0.01553),
    "Renal": (0.5451, 0.07579),
    "Sarcoma": (0.0542, 0.03427),
    "SCLC": (-0.0033, 0.03527),
}

loris = PublishedScore(
    name="loris",
    label="LORIS",
    source="Chang TG et al. LORIS robustly predicts patient outcomes with immune checkpoint blockade therapy using "
    "common clinical, pathologic and genomic features. Nature Cancer 2024;5:1158-1175. doi:10.1038/s43018-024-00772-7",
    intercept=-2.0886,
    inputs={
        "tmb": ScoreInput(
            label="Tumour mutational burden",
            modality="genomic",
            kind="numeric",
            unit="{mutations}/Mb",
            coefficient=0.0371,
            upper=50,
            typical=0.0371 * 9.7168,
        ),
        "systemic_therapy_history": ScoreInput(
            label="Chemotherapy or targeted therapy before",
            modality="clinical",
            kind="boolean",
            coefficient=-0.8775,
            typical=-0.8775 * 0.66282,
        ),
        "albumin": ScoreInput(
            label="Albumin",
            modality="lab",
            kind="numeric",
            unit="g/dL",
            coefficient=0.5382,
            typical=0.5382 * 3.81077,
        ),
        "nlr": ScoreInput(
            label="Neutrophil-to-lymphocyte ratio",
            modality="lab",
            kind="numeric",
            coefficient=-0.0330,
            upper=25,
            typical=-0.0330 * 5.82983,
        ),
        "age": ScoreInput(
            label="Age",
            modality="clinical",
            kind="numeric",
            unit="a",
            coefficient=0.0049,
            upper=85,
            typical=0.0049 * 61.77915,
        ),
        "cancer_type": ScoreInput(
            label="Cancer type",
            modality="clinical",
            kind="categorical",
            levels={name: weight for name, (weight, _) in _CANCER_TYPES.items()},
            typical=sum(weight * share for weight, share in _CANCER_TYPES.values()),
        ),
    },
)

PUBLISHED: Mapping[str, PublishedScore] = MappingProxyType({loris.name: loris})
