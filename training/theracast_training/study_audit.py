"""The audit of a study: of its data, and where there are events, of the features and folds that are made from them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from theracast_data.audit import AuditReport, Finding, audit
from theracast_data.audit.findings import plural
from theracast_data.audit.section import OutcomeCodes
from theracast_data.cohort import Cohort
from theracast_data.decided import decided_rows
from theracast_data.decisions.section import FirstEvent, NextLine
from theracast_data.endpoints import event_endpoints
from theracast_data.errors import CohortError
from theracast_data.events.access import KEY, GivenEvents
from theracast_data.events.schema import empty_events
from theracast_data.sources import Inputs
from theracast_features.build import build_features, resolve_section
from theracast_features.section import FeatureSection
from theracast_features.specs import FeatureTable
from theracast_models.preprocess import LinearInputs
from theracast_training.search import cut_folds
from theracast_training.splits import Folds, make_folds
from theracast_training.study import Study
from theracast_training.target import Target, target_of

MOST_DECISIONS, MOST_EVENTS = 2_000, 1_000_000
"""Beyond this the features are made anew, and the preprocessing fitted anew, for a part of the decisions only."""


def audit_study(study: Study, cohort: Cohort, *, table: FeatureTable | None = None) -> AuditReport:
    """Return what a careful statistician would find in the cohort and, with events, in what is made from it.

    Args:
        table: the features of all decisions, if they are there already.

    Raises:
        TheracastError: what the features cannot accept.
    """

    def made() -> list[Finding]:
        return [] if cohort.events is None else _made_findings(study, cohort, table)

    return audit(
        cohort,
        development=study.development_sites(cohort.sites),
        external=study.validation.external,
        endpoints=study.endpoints,
        accept=study.accept,
        outcomes=_outcome_codes(study),
        made=made,
    )


def _made_findings(study: Study, cohort: Cohort, table: FeatureTable | None) -> list[Finding]:
    """Return what is wrong with features and folds, made by the code that makes them in a training."""
    from theracast_data.audit.events_features import check_future_rows, check_identifiers, check_site_proxy

    sites = study.development_sites(cohort.sites)
    section = resolve_section(study.features, cohort.at(sites))
    table = build_features(cohort, section) if table is None else table
    persons = _persons(cohort)
    sample, events = _sample(cohort)
    findings = check_future_rows(
        events, _persons(cohort.take(sample)).assign(row=sample), _Builder(cohort, section, study.inputs)
    )
    findings += check_identifiers(table.frame, persons)
    if len(sample) < len(cohort):
        findings.append(_partial(len(sample), len(cohort), events.num_rows))
    target = target_of(cohort, study.endpoint)
    findings += check_site_proxy(table.frame, persons, target.y)
    learn = np.intersect1d(np.flatnonzero(cohort.decisions["site"].isin(sites)), target.known)
    findings += _fold_findings(study, table.take(learn), target.take(learn), persons.iloc[learn])
    return findings


class _Builder:
    """Attributes and features of a cohort, made by the code of the training from any events."""

    def __init__(self, cohort: Cohort, section: FeatureSection, inputs: Inputs) -> None:
        self._cohort = cohort
        self._section = section
        self._inputs = inputs

    def __call__(self, events: pa.Table, asked: pd.DataFrame) -> pd.DataFrame:
        """Return the features of the decisions at the positions `row`."""
        part = self._cohort.take(asked["row"])
        assert part.events is not None
        part = replace(part, events=replace(part.events, source=GivenEvents(events)))
        if self._inputs.decisions is not None:
            part = self._with_attributes(part)
        return build_features(part, self._section).frame

    def _with_attributes(self, part: Cohort) -> Cohort:
        """Return the decisions with the attributes that these events say; where they make no decision, those it has."""
        assert part.events is not None
        # Events that end at the decision do not show that the patient was followed at a landmark; the cohort does.
        followed = part.decisions["index_time"].max().to_pydatetime()
        try:
            made = decided_rows(self._inputs, (), part.events, store="events", as_of=followed)
        except CohortError:  # a rule looks ahead, and without the future it lets nobody in
            return part
        # Two landmarks of one patient may fall on one moment; what is known then is the same.
        keys = ["subject_id", "index_time"]
        first = np.flatnonzero(~made.decisions.duplicated(keys))
        place = pd.MultiIndex.from_frame(made.decisions[keys].iloc[first])
        found = place.get_indexer(pd.MultiIndex.from_frame(part.decisions[keys]))
        rows = np.where(found >= 0, first[found], -1)
        values = {
            name: pd.Series(column[rows], dtype=part.values[name].dtype).where(rows >= 0, part.values[name])
            for name, column in made.values.items()
        }
        return replace(part, values=part.values.assign(**values))


def _outcome_codes(study: Study) -> list[OutcomeCodes]:
    """Return what the study says of its outcomes in events, and the events of its endpoints of which it says nothing."""
    said = {one.name for one in study.outcome_codes}
    concepts = study.events.concepts if study.events is not None else {}
    own = []
    for endpoint in event_endpoints(study.endpoints):
        if isinstance(endpoint, FirstEvent) and endpoint.name not in said:
            named = [
                one for one in endpoint.events if not isinstance(one, NextLine) and not one.texts and not one.value
            ]
            codes = [code for one in named for code in (concepts[one.concept].codes if one.concept else one.codes)]
            if codes:
                own.append(OutcomeCodes(name=endpoint.name, codes=tuple(codes)))
    return [*study.outcome_codes, *own]


def _fold_findings(study: Study, table: FeatureTable, target: Target, persons: pd.DataFrame) -> list[Finding]:
    """Return what is wrong with the outer folds, the inner ones where the study has none."""
    from theracast_data.audit.events_folds import check_folds, check_preprocessing

    scheme, seed = study.validation.scheme, study.search.seed
    number, seed = (scheme.outer, seed + 1000) if scheme.outer > 1 else (scheme.inner, seed)
    try:
        splits: Folds = make_folds(table.decisions, target.strata, by=scheme.by, folds=number, seed=seed)
    except CohortError as error:
        return [_no_folds(error)]
    rows = np.random.default_rng(0).permutation(len(table))[:MOST_DECISIONS]
    kept = np.isin(np.arange(len(table)), rows)
    part, place = table.take(np.flatnonzero(kept)), np.cumsum(kept) - 1
    cut = [(place[train[kept[train]]], place[test[kept[test]]]) for train, test in splits]
    known = target.take(np.flatnonzero(kept))

    def fit(frame: pd.DataFrame, train: NDArray[np.intp]) -> dict[str, Any]:
        """Return what one fold of a search starts from: its rows, weights, and what the linear models learn first."""
        test = np.setdiff1d(np.arange(len(frame)), train)
        [fold] = cut_folds(replace(part, frame=frame), known, [(train, test)])
        inputs = LinearInputs.learn(fold.train, weight=fold.learned.weight)
        learned = {"outcome": fold.learned.strata, "weight": fold.learned.weight}
        return {"rows": fold.train.frame, "inputs": inputs.to_json()} | learned

    return [*check_folds(persons, splits), *check_preprocessing(part.frame, cut, fit)]


def _persons(cohort: Cohort) -> pd.DataFrame:
    """Return the decisions with `subject_id` as in the events: one person, wherever treated."""
    return cohort.decisions.assign(subject_id=cohort.decisions[KEY].astype("str"))


def _sample(cohort: Cohort) -> tuple[NDArray[np.intp], pa.Table]:
    """Return positions of decisions and the events of their patients, no more of both than can be asked twice soon."""
    assert cohort.events is not None
    keys = cohort.decisions[KEY].astype("str")
    wanted = np.arange(len(cohort))
    if len(wanted) > MOST_DECISIONS:
        wanted = np.sort(np.random.default_rng(0).permutation(len(wanted))[:MOST_DECISIONS])
    patients = pa.array(keys.iloc[wanted].unique(), pa.string())
    taken: list[pa.Table] = []
    seen: list[str] = []
    complete = True
    for shard in cohort.events.shards():
        if sum(part.num_rows for part in taken) >= MOST_EVENTS:
            complete = False
            break
        own = shard.filter(pc.is_in(shard["subject_id"], value_set=patients))
        taken.append(own)
        seen += pc.unique(own["subject_id"]).to_pylist()
    if not complete:
        wanted = wanted[keys.iloc[wanted].isin(seen).to_numpy()]
    return wanted, pa.concat_tables(taken) if taken else empty_events()


def _partial(sampled: int, decisions: int, events: int) -> Finding:
    return Finding(
        check="features-in-part",
        severity="note",
        site=None,
        column=None,
        message=f"Whether features need later events was tried on {sampled:,} of {plural(decisions, 'decision')} with "
        f"{plural(events, 'event')} of their patients.",
        why="Features are made twice for it; a fault that is rare may lie in the rest.",
        remedy="Nothing, or check a part of the sites at a time.",
    )


def _no_folds(error: CohortError) -> Finding:
    return Finding(
        check="no-folds",
        severity="warning",
        site=None,
        column=None,
        message=f"The folds of the validation cannot be made, so they were not audited: {error}",
        why="The training will stop at the same place.",
        remedy="Change `validation.scheme`, or add patients.",
    )
