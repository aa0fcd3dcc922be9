"""Where the raw data lie and what each column means: the `sources` section of a study file."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Literal, cast

from pydantic import Field, model_validator

from theracast_data.decisions.section import LANDMARK, AttributeColumn, DecisionSection
from theracast_data.events.section import EventSection
from theracast_data.modality import Modality
from theracast_data.section import Section

Kind = Literal["numeric", "boolean", "categorical"]
Cell = str | int | float | bool


def snake_case(name: str) -> str:
    """Return a column header as a plain lower-case name: `PDL1_TPS(%)` gives `pdl1_tps`, `Age.at.diagnosis` `age_at_diagnosis`."""
    return re.sub(r"[^0-9a-z]+", "_", name.lower()).strip("_") or "column"


class ColumnMeaning(Section):
    """What one quantity is, however many raw columns it comes from."""

    name: str | None = Field(None, description="Name inside Theracast; by default the header in snake case.")
    label: str | None = Field(None, description="What the tumour board reads; by default made from the name.")
    modality: Modality = Field("clinical", description="Kind of data; models and explanations are grouped by it.")
    role: Literal["feature", "covariate"] = Field(
        "feature", description="`covariate`: kept for audit, subgroups and splits, never given to a model."
    )
    code: str | None = Field(None, description="Code of the quantity as SYSTEM:CODE, e.g. LOINC:1751-7.")
    aliases: tuple[str, ...] = Field((), description="Other headers under which the column may arrive when scoring.")


class ColumnSpec(ColumnMeaning):
    """One raw column: its type, unit, missing codes, levels and limits."""

    kind: Kind | None = Field(
        None, description="By default categorical or boolean where `levels` say so, else numeric."
    )
    unit: str | None = Field(None, description="UCUM unit in which the model works, e.g. g/dL.")
    source_unit: str | None = Field(None, description="UCUM unit in the file, where it differs from `unit`.")
    site_units: dict[str, str] = Field({}, description="UCUM unit in the file at single sites: {site: unit}.")
    missing: tuple[Cell, ...] = Field((), description="Cells of this column that mean: not known.")
    levels: tuple[str, ...] | dict[Cell, Cell] | None = Field(
        None, description="Allowed categories, or a mapping from the cell to the category (or to 0/1 for boolean)."
    )
    cap: float | tuple[float, float] | None = Field(
        None, description="Upper cap, or [lower, upper], in `unit`; features are clipped to it, the audit sees all."
    )
    plausible: tuple[float, float] | None = Field(
        None, description="Clinically possible range in `unit`, for the audit."
    )
    transform: Literal["none", "log1p"] = Field("none", description="Scale on which linear models see the column.")

    @model_validator(mode="after")
    def _check_kind(self) -> ColumnSpec:
        if self.kind == "categorical" and self.unit is not None:
            raise ValueError("a categorical column has no unit; remove `unit` or say kind: numeric")
        if self.kind == "numeric" and self.levels is not None:
            raise ValueError("a numeric column has no levels; remove `levels` or say kind: categorical")
        return self

    @property
    def resolved_kind(self) -> Kind:
        """The type of the column after reading."""
        if self.kind is not None:
            return self.kind
        if self.levels is None:
            return "numeric"
        if isinstance(self.levels, dict) and set(self.levels.values()) <= {0, 1}:
            return "boolean"
        return "categorical"

    @property
    def cap_range(self) -> tuple[float | None, float | None]:
        """Lower and upper cap; None where there is none."""
        return self.cap if isinstance(self.cap, tuple) else (None, self.cap)


class OneHotSpec(ColumnMeaning):
    """Several 0/1 columns that together say one category, folded back into it. No 1 in any of them: missing."""

    name: str = Field(description="Name of the category inside Theracast.")
    columns: dict[str, str] = Field(description="Raw 0/1 column to the category it stands for.")


class NumberRange(Section):
    """Numbers that are allowed; both ends belong to them."""

    at_least: float | None = None
    at_most: float | None = None

    def __str__(self) -> str:
        parts = [f"at least {self.at_least:g}"] if self.at_least is not None else []
        return " and ".join(parts + ([f"at most {self.at_most:g}"] if self.at_most is not None else []))


class TableSource(Section):
    """A table with one row per decision: CSV, XLSX (a sheet may be a site) or Parquet."""

    kind: Literal["table"] = "table"
    name: str | None = Field(None, description="Name of the source; by default the file's stem.")
    path: str = Field(description="File; ${VARIABLE} is taken from the environment, else relative to the study file.")
    sheets: tuple[str, ...] = Field((), description="Sheets of an XLSX file, in order; by default the first.")
    subject: str = Field(description="Column that identifies the patient; unique within a sheet.")
    site: str | None = Field(None, description="`$sheet`, or the column that names the site; by default the source.")
    index_time: str | None = Field(None, description="Column with the date of the decision.")
    asked_at: datetime | None = Field(
        None,
        description="Moment of every decision that has no date of its own, where all clocks start at a common zero, "
        "e.g. 24 hours after an admission that is set to 2000-01-01.",
    )
    treatment: str | None = Field(None, description="Column with the treatment that is asked about.")
    calendar: str | None = Field(
        None, description="Column with the year or date of the decision, for time splits and audit."
    )
    missing: tuple[Cell, ...] = Field((), description="Cells that mean `not known` in every column, beside empty ones.")
    columns: dict[str, ColumnSpec] = Field({}, description="Raw header to what it means. Other columns are not read.")
    one_hot: tuple[OneHotSpec, ...] = Field((), description="Groups of 0/1 columns folded back into one category.")
    include: dict[str, tuple[Cell, ...] | NumberRange] = Field(
        {},
        description="Keep only rows whose raw cell is one of these: {column: [cells]}, or a number in a range: "
        "{column: {at_least: 5}}. Counted in the attrition.",
    )
    delimiter: str = Field(",", description="Field separator of a CSV file.")
    decimal: str = Field(".", description="Decimal sign of a CSV file.")
    encoding: str = Field("utf-8-sig", description="Text encoding of a CSV file.")

    @model_validator(mode="after")
    def _check_names(self) -> TableSource:
        names = list(self.meanings)
        count = len(self.columns) + len(self.one_hot)
        if len(names) != count:
            raise ValueError("two columns have the same name inside Theracast; give one of them another `name`")
        return self

    @property
    def meanings(self) -> dict[str, ColumnSpec | OneHotSpec]:
        """Name inside Theracast to its spec, in the order of the study file."""
        named: dict[str, ColumnSpec | OneHotSpec] = {
            spec.name or snake_case(raw): spec for raw, spec in self.columns.items()
        }
        return named | {group.name: group for group in self.one_hot}


class Inputs(Section):
    """How raw input becomes typed values: the part of the study that travels inside a model.

    The decisions come from the events where `decisions` says how, and all sources are joined to them by subject; else
    they come from the first source, and the others are joined to it.
    """

    sources: tuple[TableSource, ...] = ()
    events: EventSection | None = None
    decisions: DecisionSection | None = None

    @model_validator(mode="after")
    def _check_decisions(self) -> Inputs:
        if self.decisions is None:
            if not self.sources:
                raise ValueError("`sources` needs at least 1 item, or `decisions` must say how they follow from events")
            return self
        if self.events is None:
            raise ValueError(
                "`decisions` come from events: the study needs an `events` section that says where they lie"
            )
        for source in self.sources:
            given = [
                key for key in ("index_time", "asked_at", "treatment", "calendar") if getattr(source, key) is not None
            ]
            if given:
                raise ValueError(
                    f"source {source.name or source.path}: remove {', '.join(given)}; `decisions` say when the question "
                    "is asked and about which treatment, and the source is joined to them by its `subject`"
                )
        return self

    @model_validator(mode="after")
    def _check_names(self) -> Inputs:
        seen: dict[str, str] = {}
        for number, source in enumerate(self.tables, start=0 if self.decisions is None else -1):
            where = str(number) if number >= 0 else "decisions.attributes"
            for name in source.meanings:
                if name in seen:
                    raise ValueError(
                        f"the name {name!r} is used in sources {seen[name]} and {where}; give one of them another `name`"
                    )
                seen[name] = where
        return self

    @property
    def tables(self) -> tuple[TableSource, ...]:
        """The tables whose columns a row to be scored may have; the first one says who, where, when and which treatment.

        Where decisions come from events, the first one stands for a row's own keys and its attributes.
        """
        return self.sources if self.decisions is None else (self._asked_rows, *self.sources)

    @property
    def _asked_rows(self) -> TableSource:
        assert self.decisions is not None
        columns = {name: self._column_of(one) for name, one in self.decisions.attributes.items()}
        landmarks = self.decisions.landmarks
        if landmarks is not None:
            label = "Days since the start" if landmarks.label is None else landmarks.label
            columns[LANDMARK] = ColumnSpec(kind="numeric", unit="d", label=label, modality="treatment")
        keys = {key: key for key in ("site", "index_time", "treatment")}
        return TableSource(name="events", path="events", subject="subject_id", columns=columns, **keys)

    def _column_of(self, attribute: AttributeColumn) -> ColumnSpec:
        """Return what the attribute means, as a column of a table would say it."""
        concept = self.events.concepts.get(attribute.concept or "") if self.events is not None else None
        unit = attribute.unit or (concept.unit if concept is not None else None)
        kind = attribute.resolved_kind
        levels = cast("dict[Cell, Cell]", dict(attribute.levels))
        if attribute.missing is not None and levels:
            levels.setdefault(attribute.missing, attribute.missing)
        return ColumnSpec(
            kind=kind,
            unit={"years_since": "a", "number": unit}.get(attribute.take),
            levels=levels or None,
            **{name: getattr(attribute, name) for name in _SHARED},
        )

    @property
    def meanings(self) -> dict[str, ColumnSpec | OneHotSpec]:
        """Name inside Theracast to its spec, over all tables."""
        return {name: spec for source in self.tables for name, spec in source.meanings.items()}


_SHARED = ("label", "modality", "role", "aliases", "cap", "plausible", "transform")
"""What an attribute says in the words of a column."""
