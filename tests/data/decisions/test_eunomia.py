"""OMOP Eunomia: a drug exposure as trigger and a condition as endpoint, against SQL on the source tables."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from theracast_data.decisions import DecisionSection, EventEndpoints, derive_decisions, derive_event_endpoints
from theracast_data.events.readers.omop import OmopOptions, read_omop
from theracast_data.events.report import IngestReport

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
