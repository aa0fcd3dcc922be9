"""How a feature came about, in words, and the very rows that one patient's value came from."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from theracast_data.cohort import Cohort
from theracast_data.decisions.section import LANDMARK
from theracast_data.errors import CohortError, StudyError
from theracast_data.events.schema import empty_events
from theracast_data.sources import ColumnSpec, Inputs, OneHotSpec, snake_case
from theracast_features.build import build_features, event_builders
from theracast_features.events.builder import EventBuilder, asked_decisions, shards_of
from theracast_features.naming import nearest_name
from theracast_features.section import FeatureSection
from theracast_features.specs import FeatureSpec, FeatureTable


@dataclass(frozen=True)
class Lineage:
    """One feature: what it is, and (for one patient) what it was made from.

    Attributes:
        spec: the feature.
        steps: sentences from the raw data to the value.
        rows: per decision of the patient its value, and for events each row that was seen; None without a patient.
    """

    spec: FeatureSpec
    steps: tuple[str, ...]
    rows: tuple[tuple[str, pd.DataFrame], ...] = ()

    def to_text(self) -> str:
        """Return the lineage as lines to read."""
        spec = self.spec
        head = f"{spec.name}: {spec.label}{f' [{spec.unit}]' if spec.unit else ''} ({spec.modality}, {spec.kind})"
        lines = [head, *(f"  {step}" for step in self.steps)]
        for title, frame in self.rows:
            lines += ["", title, frame.to_string(index=False) if len(frame) else "  no row was seen"]
        return "\n".join(lines)


def feature_lineage(
    name: str, cohort: Cohort, section: FeatureSection, inputs: Inputs, *, patient: str | None = None
) -> Lineage:
    """Return how the feature `name` comes about, and from which rows for `patient`.

    Args:
        name: of the feature, e.g. `lab.albumin.slope.30d`.
        cohort: the cohort it is built from.
        section: resolved features of the study.
        patient: identifier; at every site that knows it.

    Raises:
        StudyError: the study makes no such feature.
        CohortError: there is no such patient.
    """
    chosen = cohort.take([])
    if patient is not None:
        chosen = cohort.take([row for row, one in enumerate(cohort.decisions["subject_id"]) if one == patient])
        if not len(chosen):
            raise CohortError(f"no decision of patient {patient!r} is in the cohort. Check the identifier.")
    table = build_features(chosen, section)
    specs = {spec.name: spec for spec in table.catalogue}
    if name not in specs:
        raise StudyError(f"the study makes no feature {name!r}{nearest_name(name, specs)}.")
    builders = event_builders(section, cohort.events) if section.reads_events and cohort.events is not None else []
    makers = {spec.name: builder for builder in builders for spec in builder.catalogue}
    events = _own_events(chosen) if makers and len(chosen) else empty_events()
    spec = specs[name]
    if name in makers:
        rows = _event_rows(name, makers[name], chosen, table, events)
        return Lineage(spec, makers[name].steps(name), rows)
    # A derived feature calls the features that it is made from by their names without prefix.
    inputs_from_events = [one for one in makers if one.split(".", 1)[1] in spec.columns]
    steps = [step for one in inputs_from_events for step in makers[one].steps(one)]
    rows = tuple(_table_row(spec, chosen, row, table.frame[name].iloc[row]) for row in range(len(chosen)))
    for one in inputs_from_events:
        made = _event_rows(one, makers[one], chosen, table, events)
        rows += tuple((f"{one}: {title}", frame) for title, frame in made)
    return Lineage(spec, (*steps, *_table_steps(spec, inputs)), rows)


def _table_steps(spec: FeatureSpec, inputs: Inputs) -> tuple[str, ...]:
    steps = []
    for place, source in enumerate(inputs.tables):
        headers = {one.name or snake_case(raw): (raw, one) for raw, one in source.columns.items()}
        groups = {group.name: group for group in source.one_hot}
        where = source.name or source.path
        asked = place == 0 and inputs.decisions is not None
        for column in spec.columns:
            if asked and column in headers:
                steps += _attribute_steps(column, inputs)
            elif column in headers:
                steps += _column_steps(column, *headers[column], where=where, joined=place > 0)
            elif column in groups:
                steps.append(_group_step(column, groups[column], where=where))
    if spec.role == "derived":
        steps.append(f"computed from {', '.join(spec.columns)}{f' ({spec.source})' if spec.source else ''}")
    if spec.role == "indicator":
        steps.append("1 where the value was not measured, else 0")
    return tuple(steps)


def _attribute_steps(column: str, inputs: Inputs) -> list[str]:
    """Return how an attribute of the decisions comes from events."""
    assert inputs.decisions is not None
    assert inputs.events is not None
    if column == LANDMARK:
        return [f"{column}: whole days from the trigger to the decision"]
    attribute = inputs.decisions.attributes[column]
    concept = inputs.events.concepts.get(attribute.concept or "")
    codes = ", ".join(concept.codes if concept is not None else attribute.codes)
    what = {
        "text": "the text of the last event",
        "number": "the number of the last event",
        "code": "the end of the code of the last event",
        "years_since": "years from the first event to the decision, of events",
    }[attribute.take]
    unit = inputs.meanings[column]
    shown = f", in {unit.unit}" if isinstance(unit, ColumnSpec) and unit.unit and attribute.take == "number" else ""
    steps = [
        f"{column}: {what} of the codes {codes}{shown}",
        "seen: those up to the decision that were available by then",
    ]
    if attribute.levels:
        steps.append("called: " + ", ".join(f"{found} {level}" for found, level in attribute.levels.items()))
    if attribute.missing is not None:
        steps.append(f"not known: {attribute.missing}")
    if attribute.cap is not None:
        steps.append(f"limited to {attribute.cap}")
    if attribute.transform != "none":
        steps.append(f"linear models see its {attribute.transform}")
    return steps


def _column_steps(column: str, raw: str, spec: ColumnSpec, *, where: str, joined: bool) -> list[str]:
    steps = [f"{column}: column {raw!r} of {where}{', joined by the patient' if joined else ''}"]
    if spec.source_unit or spec.site_units:
        units = {**({"elsewhere": spec.source_unit} if spec.source_unit else {}), **spec.site_units}
        steps.append(f"converted to {spec.unit} from {', '.join(f'{unit} ({site})' for site, unit in units.items())}")
    if spec.missing:
        steps.append(f"cells that mean not known: {', '.join(map(str, spec.missing))}")
    if spec.cap is not None:
        steps.append(f"limited to {spec.cap}")
    if spec.transform != "none":
        steps.append(f"linear models see its {spec.transform}")
    return steps


def _group_step(column: str, group: OneHotSpec, *, where: str) -> str:
    return f"{column}: the category whose column is 1 among {len(group.columns)} columns of {where}"


def _table_row(spec: FeatureSpec, cohort: Cohort, row: int, value: object) -> tuple[str, pd.DataFrame]:
    known = [column for column in spec.columns if column in cohort.values]
    return _title(cohort, row, value), cohort.values.loc[[row], known]


def _own_events(cohort: Cohort) -> pa.Table:
    """Return the events of the cohort's patients alone."""
    keys = pa.array(asked_decisions(cohort)["subject_id"].unique().tolist(), pa.string())
    return pa.concat_tables(
        [empty_events(), *(shard.filter(pc.is_in(shard["subject_id"], value_set=keys)) for shard in shards_of(cohort))]
    )


def _event_rows(
    name: str, builder: EventBuilder, cohort: Cohort, table: FeatureTable, events: pa.Table
) -> tuple[tuple[str, pd.DataFrame], ...]:
    """Return for each decision the events that its value was made from, without columns in which nothing stands."""
    seen = builder.rows(name, events, asked_decisions(cohort))
    told = []
    for row in range(len(cohort)):
        mine = seen[seen["decision"] == row].drop(columns=["subject_id", "decision", "index_time"])
        told.append((_title(cohort, row, table.frame[name].iloc[row]), mine.dropna(axis=1, how="all")))
    return tuple(told)


def _title(cohort: Cohort, row: int, value: object) -> str:
    decision = cohort.decisions.iloc[row]
    asked = "" if pd.isna(decision["index_time"]) else f", asked {decision['index_time']}"
    return f"patient {decision['subject_id']} at {decision['site']}{asked}: {value}"
