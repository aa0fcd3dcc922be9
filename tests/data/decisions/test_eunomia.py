"""OMOP Eunomia: a drug exposure as trigger and a condition as endpoint, against SQL on the source tables."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import yaml

from theracast_data.decisions import DecisionSection, EventEndpoints, derive_decisions, derive_event_endpoints
from theracast_data.endpoints import endpoint_from_json
from theracast_data.events.readers.omop import OmopOptions, read_omop
from theracast_data.events.report import IngestReport
from theracast_data.events.store import EventStore, SourceRecord
from theracast_data.sources import Inputs
from theracast_data.table import read_cohort

EXPECTED = """
with c as (select concept_id, vocabulary_id || '//' || concept_code as code from concept),
trigger as (
    select person_id, min(drug_exposure_start_date) as day from drug_exposure
    join c on c.concept_id = drug_concept_id where upper(code) = 'RXNORM//313782' group by 1),
seen as (
    select person_id, day, (select min(condition_start_date) from condition_occurrence o
        join c on c.concept_id = condition_concept_id
        where o.person_id = trigger.person_id and code = 'SNOMED//195662009' and condition_start_date > day) as sick,
      exists (select 1 from condition_occurrence o join c on c.concept_id = condition_concept_id
        where o.person_id = trigger.person_id and code = 'SNOMED//195662009'
          and condition_start_date < day and condition_start_date >= day - 3650) as before
    from trigger)
select person_id::varchar, day, date_diff('day', day, sick) from seen where not before order by 1
"""


def test_drug_trigger_and_condition_endpoint_are_those_of_sql(shared_cohorts: Path) -> None:
    path = shared_cohorts / "ehr" / "omop_eunomia" / "eunomia.duckdb"
    events = pa.concat_tables(read_omop(path, options=OmopOptions(path=str(path)), report=IngestReport("eunomia")))
    section = DecisionSection.model_validate(
        {
            "trigger": {"codes": ["RXNORM//313782"]},
            "exclude": [{"name": "pharyngitis before", "codes": ["SNOMED//195662009"], "window": "[-3650d, 0d)"}],
        }
    )
    outcome = {"name": "sick", "kind": "first_event", "events": [{"codes": ["SNOMED//195662009"]}]}
    decisions = derive_decisions(events, section)
    endpoints = derive_event_endpoints(events, decisions.frame, EventEndpoints.model_validate({"endpoints": [outcome]}))
    with duckdb.connect(str(path), read_only=True) as database:
        expected = database.sql(EXPECTED).fetchall()
    assert len(expected) > 100
    assert decisions.frame["subject_id"].tolist() == [row[0] for row in expected]
    assert [stamp.date() for stamp in decisions.frame["index_time"]] == [row[1] for row in expected]
    days = np.array([np.nan if row[2] is None else row[2] for row in expected], dtype=np.float64)
    np.testing.assert_array_equal(endpoints["sick.event"], np.isfinite(days))
    np.testing.assert_array_equal(endpoints["sick.time"][np.isfinite(days)], days[np.isfinite(days)])
    assert decisions.attrition[-1].left == len(expected)


STUDY = """
with c as (select concept_id, upper(vocabulary_id) || '//' || concept_code as code from concept),
drugs as (
    select person_id, drug_exposure_start_date as day, drug_concept_id from drug_exposure
    join c on c.concept_id = drug_concept_id where code in ('RXNORM//140587', 'RXNORM//3355')),
first as (
    select person_id, min(day) as day, min_by(drug_concept_id, day) as drug from drugs group by 1)
select first.person_id::varchar, day, code = 'RXNORM//140587', gender_source_value,
  date_diff('day', make_date(year_of_birth, month_of_birth, day_of_birth), day) / 365.25,
  (select min(condition_start_date) - day from condition_occurrence o join c on c.concept_id = condition_concept_id
   where o.person_id = first.person_id and code = 'SNOMED//74474003' and condition_start_date > day)
from first join c on c.concept_id = drug join person using (person_id) order by 1
"""


def test_the_shipped_study_asks_what_sql_asks(shared_cohorts: Path, repository: Path, tmp_path: Path) -> None:
    path = shared_cohorts / "ehr" / "omop_eunomia" / "eunomia.duckdb"
    store = EventStore.create(tmp_path / "store", shards=4)
    store.append(
        SourceRecord(name="eunomia", kind="omop"),
        read_omop(path, options=OmopOptions(path=str(path)), report=IngestReport("eunomia")),
    )
    content = yaml.safe_load((repository / "studies" / "eunomia.yaml").read_text(encoding="utf-8"))
    inputs = Inputs.model_validate(
        {"events": content["events"] | {"store": str(tmp_path / "store")}, "decisions": content["decisions"]}
    )
    cohort = read_cohort(inputs, [endpoint_from_json(one) for one in content["endpoints"]], base=tmp_path)
    with duckdb.connect(str(path), read_only=True) as database:
        expected = database.sql(STUDY).fetchall()
    assert len(cohort) == len(expected) == 2694
    assert cohort.decisions["subject_id"].tolist() == [row[0] for row in expected]
    assert [stamp.date() for stamp in cohort.decisions["index_time"]] == [row[1] for row in expected]
    assert (cohort.decisions["treatment"] == "celecoxib").tolist() == [row[2] for row in expected]
    assert cohort.values["sex"].str[0].str.upper().tolist() == [row[3] for row in expected]
    np.testing.assert_allclose(cohort.values["age"], [row[4] for row in expected], atol=0.01)
    days = np.array([np.nan if row[5] is None else row[5] for row in expected], dtype=np.float64)
    np.testing.assert_array_equal(cohort.endpoints["haemorrhage"] == 1, days <= 365)
    assert (days <= 365).sum() > 400
