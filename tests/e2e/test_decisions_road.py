"""The road of a study without a table: a FHIR export and a laboratory's list, decisions with landmarks, a model, its answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import yaml

from theracast_data.events.schema import EVENT_SCHEMA
from theracast_data.events.store import EventStore, SourceRecord
from theracast_data.synthetic import export
from theracast_data.synthetic.export_fhir import TIMEZONE

SOURCES = """
sources:
  - {kind: fhir, path: export/fhir, timezone: ZONE}
  - kind: long_table
    path: export/labs.csv
    subject: patient
    time: {column: collected}
    available_time: {column: reported}
    code: lab//{test}
    value: {column: result}
    unit_column: unit
""".replace("ZONE", TIMEZONE)

STUDY = """
study: asked
question: Will this patient respond, asked at the first dose and three weeks later?
events:
  store: store
  concepts:
    albumin: {codes: [lab//ALB], unit: g/dL, label: Albumin, plausible: [1, 7]}
    ldh: {codes: [lab//LDH], unit: U/L, label: LDH}
    ecog: {codes: [LOINC//89247-1], modality: clinical, label: Performance status}
decisions:
  trigger:
    codes: [ATC//L01FF02, ATC//L01FX04]
    treatment: {ATC//L01FF02: anti-PD-1, ATC//L01FX04: anti-CTLA-4}
  include:
    - {name: performance status within 30 days, concept: ecog, window: "(-30d, 0d]"}
  landmarks:
    days: [0, 21]
    label: Days since the first dose
    ends: [{codes: [MEDS_DEATH]}, {codes: [LOINC//97509-4], texts: [SNOMED//271299001]}]
  site: {codes: ["Organization//*"], take: code}
  attributes:
    age: {codes: [MEDS_BIRTH], take: years_since, label: Age, plausible: [18, 110]}
    sex: {codes: ["Gender//*"], take: code, label: Sex, levels: {F: female, M: male}}
    stage: {codes: [LOINC//21908-9], label: Stage, levels: {AJCC//III: III, AJCC//IV: IV}}
    tmb:
      {codes: [LOINC//94076-7], take: number, label: TMB, modality: genomic, unit: "{mutations}/Mb", cap: 50, transform: log1p}
    ecog_now: {concept: ecog, take: number}
endpoints:
  - name: response
    label: objective response
    kind: best_response
    rule_version: "2"
    categories:
      LOINC//97509-4=SNOMED//260415000: CR
      LOINC//97509-4=SNOMED//268910001: PR
      LOINC//97509-4=SNOMED//359746009: SD
      LOINC//97509-4=SNOMED//271299001: PD
      LOINC//97509-4: NE
    positive: [CR, PR]
    window: "(0d, 180d]"
    failure: [{codes: [MEDS_DEATH]}]
  - name: alive
    kind: first_event
    events: [{codes: [MEDS_DEATH], on_index_day: true}]
    horizon: 180d
    positive: event_free
features:
  events:
    - {concept: albumin, windows: [60d], aggregates: [last, slope]}
    - {concept: ldh, windows: [60d], aggregates: [last], transform: log1p}
validation: {development: [Northfield, Lakeside], external: [Harbour], scheme: {outer: 2, inner: 3}}
search: {families: [elasticnet], trials: 2, seed: 3, replicates: 10}
report: {bootstrap: 100, statistics: {optimism: 0, learning_curve: 0}}
"""


@pytest.fixture(scope="module")
def asked(new_workplace: Callable[..., Any]) -> tuple[Any, dict[str, Any]]:
    place = new_workplace(patients=300)
    export(place.truth, place.folder / "export", faults=False)
    (place.folder / "sources.yaml").write_text(SOURCES, encoding="utf-8")
    (place.folder / "asked.yaml").write_text(STUDY, encoding="utf-8")
    place.run("ingest", "sources.yaml", "--to", "store", "--shards", "3")
    return place, place.json("train", "asked.yaml")


def _events(place: Any) -> pd.DataFrame:
    store = EventStore.open(place.folder / "store")
    return pd.concat([store.read_shard(shard).to_pandas() for shard in range(store.shard_count)], ignore_index=True)


def _row(events: pd.DataFrame, patient: str, **more: Any) -> dict[str, Any]:
    own = events[events["subject_id"] == patient].drop(columns="subject_id")
    for name in ("time", "available_time"):
        own[name] = own[name].dt.strftime("%Y-%m-%dT%H:%M:%S.%f")
    own = own.astype(object).where(own.notna(), None)
    return {"subject_id": patient, "events": own.to_dict("records")} | more


def test_the_audit_counts_who_each_rule_left_out(asked: Any) -> None:
    place, _ = asked
    told = place.run("check", "asked.yaml").stdout
    assert "patients with the trigger" in told
    assert "performance status within 30 days" in told
    assert "at risk and followed on day 21" in told


def test_the_features_are_those_of_the_cohort_that_was_exported(asked: Any) -> None:
    place, _ = asked
    place.run("features", "asked.yaml", "--out", "wide.parquet")
    wide = pd.read_parquet(place.folder / "wide.parquet")
    first = wide[wide["treat.landmark"] == 0].set_index("subject_id")
    assert set(wide["treat.landmark"]) == {0, 21}
    truth = place.truth.values.set_index(place.truth.decisions["subject_id"]).loc[first.index]
    assert (first["clin.sex"] == truth["sex"].map({"F": "female", "M": "male"})).all()
    assert (first["clin.stage"] == truth["stage"]).all()
    assert ((first["clin.age"] - truth["age"]).round(1) == 0.5).all(), "the export puts birthdays half a year back"
    tmb = truth["tmb"].clip(upper=50).astype("float32")  # as tables are kept
    pd.testing.assert_series_equal(first["gen.tmb"], tmb, check_names=False)
    assert (first["clin.ecog_now"] == truth["ecog"]).all()
    drugs = place.truth.decisions.set_index("subject_id").loc[first.index]
    assert (first["index_time"].dt.date == drugs["index_time"].dt.date).all()


def test_features_explain_tells_where_an_attribute_comes_from(asked: Any) -> None:
    place, _ = asked
    told = place.run("features", "explain", "clin.age", "--study", "asked.yaml", "--patient", "NO-0001").stdout
    assert "years from the first event to the decision, of events of the codes MEDS_BIRTH" in told
    assert told.count("patient NO-0001 at Northfield") == 2
    told = place.run("features", "explain", "treat.landmark", "--study", "asked.yaml").stdout
    assert "whole days from the trigger to the decision" in told


def test_training_judges_the_external_site(asked: Any) -> None:
    _, result = asked
    assert result["external"]["Harbour"]["n"] > 120, "two decisions a patient"
    assert result["cv"]["auc"] > 0.6


def test_verify_replays_the_examples_on_every_road(asked: Any) -> None:
    place, _ = asked
    assert place.json("verify", "models:/asked/1")["passed"]


def test_a_patient_s_events_are_scored_and_what_lies_after_the_decision_changes_nothing(
    asked: Any, tmp_path: Path
) -> None:
    place, _ = asked
    events = _events(place)
    place.run("features", "asked.yaml", "--out", "again.parquet")
    wide = pd.read_parquet(place.folder / "again.parquet").head(12)
    file = tmp_path / "asked.json"
    rows = [
        _row(events, patient, index_time=str(time))
        for patient, time in zip(wide["subject_id"], wide["index_time"], strict=True)
    ]
    file.write_text(json.dumps(rows), encoding="utf-8")
    scored = place.json("score", "asked", file)["rows"]
    past = events[~(events["time"] > events["subject_id"].map(wide.groupby("subject_id")["index_time"].max()))]
    rows = [
        _row(past, patient, index_time=str(time))
        for patient, time in zip(wide["subject_id"], wide["index_time"], strict=True)
    ]
    file.write_text(json.dumps(rows), encoding="utf-8")
    again = place.json("score", "asked", file)["rows"]
    for one, other in zip(scored, again, strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-12)
        assert one["warnings"] == other["warnings"]
    judged = place.json("evaluate", "asked", "--study", "asked.yaml")
    assert judged["n"] > 500


def test_a_bundle_and_its_events_are_one_and_the_same_question(asked: Any, tmp_path: Path) -> None:
    place, _ = asked
    patient = "HA-0002"
    resources = []
    for file in sorted((place.folder / "export" / "fhir").glob("*.ndjson")):
        for line in file.read_text(encoding="utf-8").splitlines():
            resource = json.loads(line)
            if resource["id"] == patient or resource.get("subject", {}).get("reference") == f"Patient/{patient}":
                resources.append(resource)
    bundle = tmp_path / "bundle.json"
    bundle.write_text(
        json.dumps({"resourceType": "Bundle", "type": "collection", "entry": [{"resource": one} for one in resources]})
    )
    answer = place.json("score", "asked", bundle)["rows"][0]
    assert answer["subject_id"] == patient
    assert any("day 21" in warning for warning in answer["warnings"]), "all of it is known, long after the first dose"
    first = next(one for one in resources if one["id"] == f"{patient}-cycle1-1")
    moment = pd.Timestamp(first["effectivePeriod"]["start"]).tz_convert("UTC").tz_localize(None)
    rows = tmp_path / "rows.json"
    events = _events(place)
    exported = events[~events["code"].str.startswith("lab//")]  # the laboratory is no part of the bundle
    rows.write_text(json.dumps([_row(exported, patient, index_time="2019-03-08T10:00")]), encoding="utf-8")
    assert pd.Timestamp(first["effectivePeriod"]["start"]).tz_localize(None) == pd.Timestamp("2019-03-08T10:00")
    by_rows = place.json("score", "asked", rows)["rows"][0]
    by_bundle = place.json("score", "asked", bundle, "--index-time", moment.isoformat())["rows"][0]
    assert by_bundle["contributions"] == pytest.approx(by_rows["contributions"], abs=0.02), "on UTC: an hour off"
    assert not any("day 21" in warning for warning in by_bundle["warnings"])
    refused = place.run("score", "asked", bundle, "--index-time", "8.3.2019", code=1)
    assert "index_time is no moment" in refused.stderr
    before = [one for one in resources if one["resourceType"] == "Patient"]
    bundle.write_text(
        json.dumps({"resourceType": "Bundle", "type": "collection", "entry": [{"resource": one} for one in before]})
    )
    answer = place.json("score", "asked", bundle)["rows"][0]
    assert any("does not meet the study's inclusion rules" in warning for warning in answer["warnings"])
    assert "gen.tmb" in answer["missing"]


def test_a_doctor_s_cells_and_the_board_sheet(asked: Any, tmp_path: Path) -> None:
    place, _ = asked
    row = _row(_events(place), "HA-0003")
    row["events"] = [
        event for event in row["events"] if event["code"] == "Gender//F" or event["code"].startswith("ATC")
    ]
    row |= {"age": 61, "stage": "IV", "TMB": 12, "site": "Harbour", "index_time": row["events"][0]["time"]}
    file = tmp_path / "row.json"
    file.write_text(json.dumps([row]), encoding="utf-8")
    answer = place.json("score", "asked", file)["rows"][0]
    assert not {"clin.age", "clin.stage", "gen.tmb", "treat.landmark"} & set(answer["missing"])
    place.run("report", "asked", file, "--patient", "HA-0003", "--out", tmp_path / "sheet.html")
    sheet = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert "objective response" in sheet
    assert "(rule 2)" in sheet


def test_another_hospital_s_store_and_codes(asked: Any) -> None:
    """Its laboratory and registry write other codes and units; its study says so, the model stays as it is."""
    place, _ = asked
    renamed = {"lab//ALB": "local//serum-albumin", "MEDS_BIRTH": "local//born", "LOINC//94076-7": "local//tmb"}
    events = _events(place)
    harbour = events.loc[events["code"] == "Organization//Harbour", "subject_id"]
    events = events[events["subject_id"].isin(harbour)].copy()
    grams = (events["code"] == "lab//ALB") & (events["unit"] == "g/dL")
    events.loc[grams, ["numeric_value", "unit"]] = events.loc[grams, ["numeric_value"]].mul(10).assign(unit="g/L")
    events["code"] = events["code"].replace(renamed)
    table = pa.Table.from_pandas(events, schema=EVENT_SCHEMA, preserve_index=False)
    EventStore.create(place.folder / "elsewhere", shards=2).append(SourceRecord(name="e", kind="test"), [table])
    study = yaml.safe_load(STUDY)
    study |= {"study": "elsewhere", "validation": {}, "features": {}}
    study["events"] = {"store": "elsewhere", "concepts": {"albumin": {"codes": ["local//serum-albumin"], "unit": "g/L"},
                                                          "ecog": {"codes": ["LOINC//89247-1"]}}}  # fmt: skip
    study["decisions"]["attributes"] = {
        "age": {"codes": ["local//born"], "take": "years_since"},
        "tmb": {"codes": ["local//tmb"], "take": "number"},
    }
    (place.folder / "elsewhere.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    found = place.json("evaluate", "models:/asked/1", "--study", "elsewhere.yaml")
    own = STUDY.replace("store: store", "store: elsewhere")
    known = asked[1]["external"]["Harbour"]
    assert found["n"] == known["n"]
    assert found["auc"] == pytest.approx(known["auc"], abs=1e-9)
    assert found["brier"] == pytest.approx(known["brier"], abs=1e-9)
    (place.folder / "unmapped.yaml").write_text(own, encoding="utf-8")
    unmapped = place.json("evaluate", "models:/asked/1", "--study", "unmapped.yaml")
    assert unmapped["brier"] != pytest.approx(known["brier"], abs=1e-6), "without its codes nothing is found"
    tables = "study: t\nquestion: q\nsources: [{path: t.csv, subject: id}]\n"
    tables += "endpoints: [{name: response, kind: binary, column: r}]\n"
    (place.folder / "tables.yaml").write_text(tables, encoding="utf-8")
    refused = place.run("evaluate", "models:/asked/1", "--study", "tables.yaml", code=1)
    assert "the study has no `events` section" in refused.stderr
    refused = place.run("evaluate", "models:/asked/1", code=1)
    assert "Give FILE, or --study" in refused.stderr
