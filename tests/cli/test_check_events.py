"""`theracast check` on event cohorts: leaks planted into store, tables, study or code are found, the clean cohort has none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pytest
import yaml

from theracast.main import main
from theracast_data.decisions import trigger
from theracast_data.events.ingest import ingest, read_spec
from theracast_data.events.schema import COLUMNS, EVENT_SCHEMA
from theracast_data.events.store import EventStore, SourceRecord
from theracast_data.synthetic import Truth, export, generate
from theracast_features.events import aggregates
from theracast_training import study_audit
from theracast_training.prepare import prepare
from theracast_training.study import read_study

DAY = pd.Timedelta(days=1)
# What the audit rightly says of the cohort itself: Lakeside is small, and its patients respond less often.
TRUE_OF_THE_COHORT = {"small-sample", "outcome-prevalence"}
STUDY = """
study: courses
question: Who responds?
sources:
  - path: clinic.xlsx
    sheets: [Northfield, Harbour, Lakeside]
    subject: Patient
    site: $sheet
    index_time: Decision date
    columns:
      Age (years): {name: age, unit: a}
      Diagnosis: {name: cancer_type, kind: categorical}
events:
  store: store
  concepts:
    albumin: {codes: [demo_lab//ALB], unit: g/dL, quantity: albumin, plausible: [1, 7]}
    ldh: {codes: [demo_lab//LDH], unit: U/L, plausible: [30, 20000]}
    tmb: {codes: [LOINC//94076-7], modality: genomic, unit: "{mutations}/Mb"}
    steps: {codes: [wearable//steps], modality: wearable, unit: "{steps}"}
    record: {codes: [theracast-demo//record-number], modality: clinical}
    analyser: {codes: [theracast-demo//analyser], modality: clinical}
features:
  events:
    - {concept: albumin, windows: [90d], aggregates: [last, slope]}
    - {concept: ldh, windows: [90d], aggregates: [last, max]}
    - {concept: tmb, aggregates: [last]}
    - {concept: steps, windows: [30d], aggregates: [mean]}
    - {concept: record, aggregates: [last]}
    - {concept: analyser, aggregates: [exists]}
endpoints:
  - name: response
    kind: binary
    column: Best response
    positive: [CR, PR]
    negative: [SD, PD]
    not_evaluable: [NE]
    not_evaluable_as: negative
validation: {development: [Northfield, Harbour], external: [Lakeside], scheme: {outer: 3, inner: 3}}
outcome_codes:
  - name: progression
    codes: [LOINC//97509-4]
    synonyms: [theracast-demo//clinical-progression]
    follow_up: [theracast-demo//hospice]
"""


@dataclass(frozen=True)
class Place:
    """A cohort with its store and study in a folder."""

    folder: Path
    truth: Truth

    @property
    def study(self) -> Path:
        return self.folder / "study.yaml"

    def rows(self, code: str, *, days: float = -10.0, count: int = 8, **cells: Any) -> pd.DataFrame:
        """Events of one code for the first patients, so many days after their decision."""
        first = self.truth.decisions.head(count)
        time = first["index_time"] + days * DAY
        given = {"subject_id": first["subject_id"], "time": time, "code": code, "available_time": time + 0.2 * DAY}
        return pd.DataFrame(given | cells).reindex(columns=list(COLUMNS))

    def add(self, events: pd.DataFrame) -> None:
        typed = pa.Table.from_pandas(events[list(COLUMNS)], schema=EVENT_SCHEMA, preserve_index=False)
        EventStore.open(self.folder / "store").append(SourceRecord(name="planted", kind="test"), [typed])

    def say(self, text: str) -> None:
        self.study.write_text(self.study.read_text(encoding="utf-8") + text, encoding="utf-8")

    def check(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
        """Exit code and report of the command."""
        code = main(["check", str(self.study), "--json", *arguments])
        report = json.loads(capsys.readouterr().out)
        report["findings"] = [one for one in report["findings"] if one["check"] not in TRUE_OF_THE_COHORT]
        return code, report


def made(folder: Path, repository: Path, *, seed: int, patients: int = 400) -> Place:
    truth = generate(folder, patients=patients, seed=seed)
    export(truth, folder / "export", seed=seed, faults=False)
    store = EventStore.create(folder / "store", shards=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THERACAST_DATA", str(folder))
        spec = read_spec(repository / "studies" / "ingest" / "demo.yaml")
        ingest(spec, base=folder, store=store, now=datetime(2026, 1, 1, tzinfo=UTC))
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    return Place(folder, truth)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Place:
    return made(tmp_path_factory.mktemp("clean"), repository, seed=30)


@pytest.fixture
def place(clean: Place, tmp_path: Path) -> Place:
    shutil.copytree(clean.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("export"))
    return Place(tmp_path / "copy", clean.truth)


def result_before_specimen(place: Place, _: pytest.MonkeyPatch) -> None:
    rows = place.rows("demo_lab//ALB", numeric_value=3.9, unit="g/dL")
    place.add(rows.assign(available_time=rows["time"] - 0.3 * DAY))


def missing_available_time(place: Place, _: pytest.MonkeyPatch) -> None:
    rows = place.rows("demo_lab//ALB", numeric_value=3.9, unit="g/dL")
    place.add(rows.assign(time=rows["time"] + 0.33 * DAY, available_time=pd.NaT))


def after_death(place: Place, _: pytest.MonkeyPatch) -> None:
    place.add(place.rows("theracast-demo//visit", days=4000, count=60))


def before_birth(place: Place, _: pytest.MonkeyPatch) -> None:
    place.add(place.rows("theracast-demo//visit", days=-40_000))


def outcome_in_lookback(place: Place, _: pytest.MonkeyPatch) -> None:
    place.add(place.rows("LOINC//97509-4", text_value="SNOMED//271299001"))


def synonym_in_lookback(place: Place, _: pytest.MonkeyPatch) -> None:
    place.add(place.rows("theracast-demo//clinical-progression"))


def follow_up_in_lookback(place: Place, _: pytest.MonkeyPatch) -> None:
    place.add(place.rows("theracast-demo//hospice"))


def duplicated_export(place: Place, _: pytest.MonkeyPatch) -> None:
    events = EventStore.open(place.folder / "store").read_shard(0).to_pandas()
    place.add(events[events["code"] == "demo_lab//ALB"])


def unit_not_declared(place: Place, _: pytest.MonkeyPatch) -> None:
    place.add(place.rows("demo_lab//ALB", numeric_value=39.0, unit="g/dL"))


def unit_without_conversion(place: Place, _: pytest.MonkeyPatch) -> None:
    place.add(place.rows("demo_lab//ALB", numeric_value=3.9, unit="U/L"))


def running_number(place: Place, _: pytest.MonkeyPatch) -> None:
    count = len(place.truth.decisions)
    number = np.random.default_rng(3).permutation(count) + 70_000.0
    place.add(place.rows("theracast-demo//record-number", count=count).assign(numeric_value=number))


def mark_of_one_hospital(place: Place, _: pytest.MonkeyPatch) -> None:
    rows = place.rows("theracast-demo//analyser", count=len(place.truth.decisions))
    place.add(rows[(place.truth.decisions["site"] == "Lakeside").to_numpy()])


def patient_moved_between_hospitals(place: Place, _: pytest.MonkeyPatch) -> None:
    """Ten patients are in the sheets of two hospitals, in small letters in one of them: one person, two decisions."""
    book = openpyxl.load_workbook(place.folder / "clinic.xlsx")
    rows = list(book["Northfield"].iter_rows(min_row=2, max_row=11, values_only=True))
    for row in rows:
        book["Harbour"].append([str(row[0]).lower(), *row[1:]])
    book.save(place.folder / "clinic.xlsx")


def builder_that_sees_a_month_ahead(place: Place, patch: pytest.MonkeyPatch) -> None:
    engine = aggregates._engine

    def late(name: Any) -> Callable[..., Any]:
        def compute(events: pa.Table, decisions: pd.DataFrame, *rest: Any) -> Any:
            return engine(name)(events, decisions.assign(index_time=decisions["index_time"] + 30 * DAY), *rest)

        return compute

    patch.setattr(aggregates, "_engine", late)


def centred_on_all_rows(place: Place, patch: pytest.MonkeyPatch) -> None:
    cut = study_audit.cut_folds

    def centred(table: Any, target: Any, folds: Any) -> Any:
        frame = table.frame.assign(**{"clin.age": table.frame["clin.age"] - table.frame["clin.age"].mean()})
        return cut(study_audit.replace(table, frame=frame), target, folds)

    patch.setattr(study_audit, "cut_folds", centred)


PLANTED = [
    (result_before_specimen, "result-before-specimen", "demo_lab//ALB"),
    (missing_available_time, "missing-available-time", "demo_lab//ALB"),
    (after_death, "after-death", None),
    (before_birth, "before-birth", None),
    (outcome_in_lookback, "outcome-in-lookback", "progression"),
    (synonym_in_lookback, "outcome-synonym-in-lookback", "progression"),
    (follow_up_in_lookback, "outcome-follow-up-in-lookback", "progression"),
    (duplicated_export, "duplicated-result", "demo_lab//ALB"),
    (unit_not_declared, "implausible-value", "albumin"),
    (unit_without_conversion, "unit-not-convertible", "albumin"),
    (running_number, "identifier-as-feature", "clin.record.last.all"),
    (mark_of_one_hospital, "site-proxy", "clin.analyser.exists.all"),
    (patient_moved_between_hospitals, "patient-in-two-folds", None),
    (builder_that_sees_a_month_ahead, "needs-the-future", "lab.albumin.last.90d"),
    (centred_on_all_rows, "preprocessing-across-folds", None),
]


@pytest.mark.parametrize("seed", [30, 21, 22, 23])
def test_the_clean_cohort_raises_nothing(
    seed: int, clean: Place, tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = clean if seed == 30 else made(tmp_path, repository, seed=seed)
    code, report = place.check(capsys)
    assert [(one["check"], one["column"], one["message"]) for one in report["findings"]] == []
    assert code == 0


@pytest.mark.parametrize("planted", PLANTED, ids=[plant.__name__ for plant, _, _ in PLANTED])
def test_a_planted_leak_is_found(
    planted: tuple[Callable[[Place, pytest.MonkeyPatch], None], str, str | None],
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plant, check, column = planted
    plant(place, monkeypatch)
    code, report = place.check(capsys)
    found = [one for one in report["findings"] if one["check"] == check]
    assert column in [one["column"] for one in found], [one["check"] for one in report["findings"]]
    assert code == (1 if report["summary"]["error"] else 0)
    others = {one["check"] for one in report["findings"]} - {check}
    # The tables know the moved patients too, as one patient at two sites.
    assert others <= ({"same-patient-at-two-sites"} if plant is patient_moved_between_hospitals else set())


@pytest.fixture
def decided(place: Place, repository: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The study of the demonstration, whose decisions, attributes and outcomes come from events."""
    monkeypatch.setenv("THERACAST_DATA", str(place.folder))
    study = yaml.safe_load((repository / "studies" / "demo.yaml").read_text(encoding="utf-8"))
    study["decisions"]["attributes"]["diameters"] = {"concept": "sum_of_diameters", "take": "number"}
    place.study.write_text(yaml.safe_dump(study), encoding="utf-8")
    return place


def test_a_study_of_events_alone_raises_nothing(decided: Place, capsys: pytest.CaptureFixture[str]) -> None:
    _, report = decided.check(capsys)
    assert [one for one in report["findings"] if one["check"] != "outcome-missing"] == []


def test_an_attribute_that_sees_ahead_is_found(
    decided: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = trigger.attribute_cells

    def late(selection: Any, attribute: Any, subject: Any, index: Any) -> Any:
        return cells(selection, attribute, subject, index + 90 * 86_400_000_000)

    monkeypatch.setattr(trigger, "attribute_cells", late)
    _, report = decided.check(capsys)
    found = {one["column"] for one in report["findings"] if one["check"] == "needs-the-future"}
    assert found == {"clin.diameters"}, "no other attribute has events after the decision"


def test_an_endpoint_of_events_is_looked_for_before_the_decision(
    decided: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a word in the study: the codes of a first event are those of its outcome."""
    decided.add(decided.rows("theracast-demo//clinical-progression"))
    _, report = decided.check(capsys)
    assert ("outcome-in-lookback", "pfs") in {(one["check"], one["column"]) for one in report["findings"]}


def test_a_finding_is_accepted_with_a_reason_and_stands_on_the_page(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    running_number(place, monkeypatch)
    page = place.folder / "audit.html"
    code, _ = place.check(capsys, "--html", str(page))
    assert code == 1
    assert "identifier-as-feature" in page.read_text(encoding="utf-8")
    place.say(
        "accept:\n  - {check: identifier-as-feature, column: clin.record.last.all, reason: A test of the acceptance.}\n"
    )
    code, report = place.check(capsys)
    assert (code, report["findings"]) == (0, [])
    assert [one["accepted"] for one in report["accepted"]] == ["A test of the acceptance."]


def test_the_audit_of_a_training_is_that_of_the_command(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mark_of_one_hospital(place, monkeypatch)
    running_number(place, monkeypatch)
    _, report = place.check(capsys)
    prepared = prepare(read_study(place.study), base=place.folder)
    found = [one.to_json() for one in prepared.audit.findings if one.check not in TRUE_OF_THE_COHORT]
    assert found == report["findings"]
    assert len(found) == 2


def test_a_large_cohort_is_tried_in_part_and_says_so(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The leak is found in the part too."""
    monkeypatch.setattr(study_audit, "MOST_DECISIONS", 50)
    builder_that_sees_a_month_ahead(place, monkeypatch)
    _, report = place.check(capsys)
    [note] = [one for one in report["findings"] if one["check"] == "features-in-part"]
    assert "50 of 400 decisions" in note["message"]
    assert "needs-the-future" in {one["check"] for one in report["findings"]}
    monkeypatch.setattr(study_audit, "MOST_DECISIONS", 2_000)
    monkeypatch.setattr(study_audit, "MOST_EVENTS", 10)
    _, report = place.check(capsys)
    [note] = [one for one in report["findings"] if one["check"] == "features-in-part"]
    whole = pa.compute.count_distinct(EventStore.open(place.folder / "store").read_shard(0)["subject_id"]).as_py()
    assert f"{whole} of 400 decisions" in note["message"], "the first shard alone"


def test_intensive_care_shows_what_a_clinician_would_recognise(
    shared_cohorts: Path,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Results dated before their specimens, repeated results, an impossible bicarbonate, units that no one can convert."""
    if not (shared_cohorts / "ehr" / "eicu_demo").is_dir():
        pytest.skip("the eICU demonstration data are not among the cohorts")
    monkeypatch.setenv("THERACAST_DATA", str(shared_cohorts))
    monkeypatch.setenv("EICU_STORE", str(tmp_path / "store"))
    source = repository / "studies" / "ingest" / "eicu.yaml"
    assert main(["ingest", str(source), "--to", str(tmp_path / "store")]) == 0
    capsys.readouterr()
    main(["check", str(repository / "studies" / "eicu.yaml"), "--json"])
    findings = json.loads(capsys.readouterr().out)["findings"]
    found = {(one["check"], one["column"]): one for one in findings}
    events = pd.read_csv(shared_cohorts / "ehr" / "eicu_demo" / "lab.csv")
    sodium = events[events["labname"] == "sodium"]
    early = (sodium["labresultrevisedoffset"] < sodium["labresultoffset"]).sum()
    assert found["result-before-specimen", "eicu_lab//sodium"]["count"] == early
    whole = ["patientunitstayid", "labresultoffset", "labname", "labresult", "labmeasurenameinterface"]
    urea = events[(events["labname"] == "BUN") & events["labresult"].notna()]
    assert found["duplicated-result", "eicu_lab//BUN"]["count"] == urea.duplicated(whole).sum()
    assert "1 below" in found["implausible-value", "bicarbonate"]["message"]
    assert "mm/l" in found["unit-not-convertible", "bicarbonate"]["message"]
    assert ("unit-not-convertible", "haemoglobin") not in found, "gm/dL is g/dL"
    # Features and folds are made by the code of the training, which is sound.
    assert not {"needs-the-future", "patient-in-two-folds", "preprocessing-across-folds"} & {one[0] for one in found}
