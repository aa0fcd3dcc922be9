"""What a training asks of its own figures, for every kind of endpoint, and the report, card and checklists made of it."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from theracast_data.errors import StudyError
from theracast_models.response_model import ResponseModel
from theracast_training.card import model_card
from theracast_training.checklist import items_csv, items_json
from theracast_training.content import ReportContent
from theracast_training.development import Developed, Silent, develop
from theracast_training.leading import dealt_folds, leading_fit, leading_measures
from theracast_training.limits import derived_limits
from theracast_training.metrics import auc
from theracast_training.prepare import Prepared, prepare
from theracast_training.probast import probast_items
from theracast_training.report import study_report
from theracast_training.statistics_tables import statistics_lines
from theracast_training.story import Story, report_content
from theracast_training.study import Study, parse_study
from theracast_training.study_statistics import sample_size, study_statistics
from theracast_training.summary import summary_sentences
from theracast_training.survival_metrics import c_harrell
from theracast_training.train import evaluate, model_card_facts
from theracast_training.tripod import ITEMS, tripod_items

STUDY = """
study: kinds
question: What comes of it?
sources:
  - path: table.csv
    subject: id
    site: hospital
    calendar: year
    columns:
      albumin: {modality: lab}
      age: {modality: clinical}
      sex: {modality: clinical, kind: categorical}
endpoints:
  - {name: response, kind: binary, label: response, column: response}
  - {name: os, kind: time_to_event, label: overall survival, time: months, event: dead, unit: month, horizons: [12, 24]}
  - {name: grade, kind: ordinal, label: grade of response, column: grade, levels: [PD, SD, PR]}
  - {name: change, kind: continuous, label: change of size, column: change, unit: mm}
features: {missing_indicators: none}
validation: {development: [A], external: [B, C], scheme: {outer: 2, inner: 2}}
search: {families: [elasticnet], trials: 2, replicates: 10}
fairness: {subgroups: [sex], minimum_n: 20, minimum_events: 5}
statement: {funding: Nobody paid., ethics: "=Committee 7 approved it."}
report: {bootstrap: 100, statistics: {optimism: 10, learning_curve: 3}}
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patients of whom albumin tells what comes, in four forms, at three hospitals over six years."""
    folder = tmp_path_factory.mktemp("kinds")
    rng = np.random.default_rng(6)
    n = 480
    albumin = rng.normal(4, 0.5, n)
    better = 3 * (albumin - 4)
    months = rng.exponential(24 * np.exp(0.8 * better))
    censored = rng.uniform(6, 60, n)
    latent = better + rng.logistic(0, 1, n)
    frame = pd.DataFrame(
        {
            "id": [f"P{number}" for number in range(n)],
            "hospital": np.array(["A", "A", "B", "C"])[np.arange(n) % 4],
            "year": 2015 + np.arange(n) % 6,
            "albumin": albumin,
            "age": rng.normal(60, 9, n),
            "sex": np.where(rng.random(n) < 0.5, "f", "m"),
            "response": (rng.random(n) < 1 / (1 + np.exp(-better))).astype(int),
            "months": np.minimum(months, censored).round(2),
            "dead": (months <= censored).astype(int),
            "grade": np.where(latent > 1, "PR", np.where(latent > -1, "SD", "PD")),
            "change": (-10 * better + rng.normal(0, 8, n)).round(1),
        }
    )
    frame.to_csv(folder / "table.csv", index=False)
    return folder


Ready = tuple[Prepared, Developed, dict[str, Any]]


@pytest.fixture(scope="module")
def trained(base: Path) -> Any:
    """A training of an endpoint up to its statistics, once for each."""
    kept: dict[str, Ready] = {}

    def of(name: str) -> Ready:
        if name not in kept:
            study = _study(base, primary=name)
            prepared = prepare(study, base=base)
            developed = develop(prepared, jobs=1, progress=Silent())
            evaluations = evaluate(prepared, developed)
            questioned = study_statistics(prepared, developed, evaluations, jobs=1)
            evaluations["statistics"] = {"sample_size": sample_size(prepared)} | questioned
            kept[name] = prepared, developed, evaluations
        return kept[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THERACAST_HOME", str(base / "home"))
        yield of


def _study(base: Path, **changes: str) -> Study:
    return parse_study(STUDY, base=base, overrides=[f"{key}={value}" for key, value in changes.items()])


def _content(ready: Ready) -> ReportContent:
    prepared, developed, evaluations = ready
    model = ResponseModel.build(
        card=model_card_facts(prepared, developed, now=datetime(2026, 11, 25, tzinfo=UTC)),
        inputs=prepared.study.inputs,
        section=prepared.section,
        endpoint=prepared.endpoint,
        calibrated=developed.fitted,
        table=prepared.table.take(prepared.learn),
        y=prepared.target.told[prepared.learn],
        weight=prepared.target.take(prepared.learn).weight(),
        evaluations=evaluations,
    )
    story = Story(((prepared, developed),), model, "models:/kinds/1", date(2026, 11, 25), 1.0)
    return report_content(story)


@pytest.mark.parametrize(
    ("name", "lead", "told"),
    [
        ("response", "auc", "gives the probability of response for one patient"),
        ("os", "c_index", "gives the probability of an event (overall survival) by 12 months and 24 months"),
        ("grade", "c_index", "gives the probability of each level of grade of response (PD, SD, PR, worst first)"),
        ("change", "r2", "estimates change of size in mm"),
    ],
)
def test_every_kind_is_questioned_and_told(trained: Any, name: str, lead: str, told: str) -> None:
    found = trained(name)[2]["statistics"]
    json.dumps(found, allow_nan=False)
    corrected = found["optimism"]
    assert corrected["resamples"] == 10
    assert corrected[lead] < corrected[f"{lead}_apparent"] + 0.02
    assert corrected[lead] > 0.3
    assert (found["learning_curve"] is None) == (name == "change")
    assert (found["sites"] is None) == (name == "change")
    assert (found["sample_size"]["needed"] is None) == (name == "grade")
    assert found["leaks"]["permuted"] is None
    content = _content(trained(name))
    assert told in summary_sentences(content)[0]
    page, card = study_report(content), model_card(content)
    for text in (page, card):
        assert "nan" not in text.lower().replace("finance", "").split()
        assert "Nobody paid." not in card
    assert "Nobody paid." in page
    assert ("AUC" in " ".join([*summary_sentences(content), *derived_limits(content)])) == (name == "response")
    assert "How much of it is optimism?" in card


def test_times_are_told_by_horizon_and_risk_group(trained: Any) -> None:
    content = _content(trained("os"))
    page = html.unescape(study_report(content))
    for words in ("By 12 months", "By 24 months", "Number at risk", "Uno's C", "Integrated Brier", "low risk (n="):
        assert words in page, words
    timed = content.curves["B"]["survival"]
    assert sum(one["n"] for one in timed["risk_groups"]) == timed["n"]
    cut_by_development = [one["n"] for one in timed["risk_groups"]]
    assert cut_by_development != [timed["n"] // 3] * 3
    assert content.curves["B"]["decision"]["horizon"] == pytest.approx(12 * 30.4375)
    assert "probabilities by 12 months" in summary_sentences(content)[2]


def test_numbers_are_told_without_a_single_patient(trained: Any) -> None:
    content = _content(trained("change"))
    page = study_report(content)
    assert "R2" in page
    assert 'id="decisions"' not in page
    assert "net benefit" not in page.lower()
    assert content.curves == {}
    groups = content.performance["cv"]["groups"]
    assert min(one["n"] for one in groups) >= 10


def test_levels_are_told_at_each_cut(trained: Any) -> None:
    page = study_report(_content(trained("grade")))
    for words in (
        "Ordinal C",
        "SD or better",
        "Most probable level",
        "Decisions by the probability of grade of response PR",
    ):
        assert words in page, words


def test_groups_years_and_sites_are_told(trained: Any) -> None:
    content = _content(trained("response"))
    found = content.statistics
    assert set(found["fairness"]) == {"cv", "external"}
    assert {group["group"] for group in found["fairness"]["external"]["subgroups"]["sex"]["groups"]} == {"f", "m"}
    assert found["periods"]["place"] == "cv"
    assert sum(one["n"] for one in found["periods"]["periods"]) == 240
    assert found["sites"]["over"] == "external"
    assert found["sites"]["measures"]["auc"]["k"] == 2
    words = study_report(content)
    for heading in ("Does it serve groups alike?", "Does it hold as time goes on?", "How much do sites differ?"):
        assert heading in words


def test_development_sites_stand_in_where_no_other_judges(base: Path, trained: Any) -> None:
    prepared, developed, _ = trained("response")
    hospital = prepared.cohort.decisions["site"].to_numpy(dtype=object).copy()
    learn = prepared.learn
    hospital[learn[::2]] = "A2"
    cohort = replace(prepared.cohort, decisions=prepared.cohort.decisions.assign(site=pd.array(hospital, dtype="str")))
    alone = replace(prepared, cohort=cohort, sites=("A", "A2"), external={})
    inside = replace(developed, own={"cv": developed.own["cv"]})
    found = study_statistics(
        replace(
            alone, study=_study(base, **{"report.statistics.optimism": "0", "report.statistics.learning_curve": "0"})
        ),
        inside,
        {"external": {}},
        jobs=1,
    )
    assert (found["optimism"], found["learning_curve"]) == (None, None)
    assert found["sites"]["over"] == "development"
    assert {one["site"] for one in found["sites"]["measures"]["auc"]["sites"]} == {"A", "A2"}


def test_leading_measures_are_those_of_the_field(trained: Any) -> None:
    prepared, developed, _ = trained("os")
    target, table = prepared.target.take(prepared.learn), prepared.table.take(prepared.learn)
    rows = np.arange(len(table))
    p = leading_fit(developed.final.choice.recipe, table, target, seed=3)(rows)(rows)
    measures = leading_measures(target)
    assert target.time is not None
    assert target.event is not None
    positions = rows.astype(float)
    assert measures["c_index"](positions, p) == pytest.approx(c_harrell(target.time, target.event, p))
    known = ~np.isnan(target.y)
    by_hand = auc(target.y[known], p[known], weight=target.weight()[known])
    assert measures["auc"](positions, p) == pytest.approx(by_hand)
    part = np.array([5, 5, 9, 11, 17, 40, 41, 77, 120, 180, 200, 231])
    assert measures["c_index"](part.astype(float), p[part]) == pytest.approx(
        c_harrell(target.time[part], target.event[part], p[part])
    )


def test_dealt_folds_keep_patients_whole_and_outcomes_even() -> None:
    rng = np.random.default_rng(2)
    patients = rng.integers(0, 90, 260)
    outcome = (rng.random(90) < 0.3).astype(float)[patients]
    folds = dealt_folds(patients, outcome, folds=3, seed=4)
    assert sorted(np.concatenate([test for _, test in folds])) == list(range(260))
    events = []
    for train, test in folds:
        assert not set(patients[train]) & set(patients[test])
        assert len(train) + len(test) == 260
        events.append(len(set(patients[test][outcome[test] == 1])))
    assert max(events) - min(events) <= 1
    assert dealt_folds(np.arange(5), np.array([1.0, 0, 0, 0, 0]), folds=3, seed=4) == []


def test_shortage_of_patients_is_told_before_tuning(trained: Any, caplog: pytest.LogCaptureFixture) -> None:
    prepared = trained("response")[0]
    with caplog.at_level("WARNING"):
        found = sample_size(replace(prepared, study=_study(Path(), **{"sample_size.auc": "0.6"})))
    assert not found["achieved"]["enough"]
    assert "are too few" in caplog.text
    limits = derived_limits(_content(trained("response")))
    assert any("decisions for 3 candidate parameters" in one for one in limits) == (
        not trained("response")[2]["statistics"]["sample_size"]["achieved"]["enough"]
    )


def test_tripod_has_all_items_and_names_the_key_of_what_is_open(trained: Any) -> None:
    items = tripod_items(_content(trained("os")))
    assert len(items) == len(ITEMS) == 52
    assert {int(item.number.rstrip("abcdefg")) for item in items} == set(range(1, 28))
    assert {item.applies for item in items} == {"D", "E", "D;E"}
    by_number = {item.number: item for item in items}
    assert by_number["18a"].answer == "Nobody paid."
    assert by_number["18a"].source == "study file, statement.funding"
    assert not by_number["18b"].answered
    assert "statement.conflicts" in by_number["18b"].answer
    assert "by 12 months and 24 months" in by_number["8a"].answer
    assert "2015 to 2020" in by_number["5b"].answer
    assert all(item.source for item in items if item.answered)


def test_probast_has_both_parts_and_judges_only_what_the_run_shows(trained: Any) -> None:
    items = probast_items(_content(trained("response")))
    assert [sum(item.applies == side for item in items) for side in "DE"] == [16, 18]
    by_number = {item.number: item for item in items}
    assert by_number["E4.6"].answer.startswith("yes")
    assert by_number["D4.4"].answer.startswith("does not apply")
    assert not by_number["D1.2"].answered
    verdicts = ("yes", "no", "partly", "does not apply", "to be judged", "not answered")
    assert all(item.answer.startswith(verdicts) for item in items)
    bare = replace(_content(trained("response")), evaluations={})
    assert {item.number: item for item in probast_items(bare)}["E4.1"].answer.startswith("no:")


def test_items_are_files_that_can_be_read_again(trained: Any) -> None:
    items = tripod_items(_content(trained("response")))
    rows = list(csv.DictReader(io.StringIO(items_csv(items))))
    assert [row["number"] for row in rows] == [item.number for item in items]
    ethics = next(row for row in rows if row["number"] == "17")
    assert ethics["answer"].startswith("'="), "a spreadsheet must not run it"
    assert json.loads(items_json(items))[0]["answered"] is True


def test_a_terminal_is_told_the_gist(trained: Any) -> None:
    lines = statistics_lines(trained("os")[2]["statistics"])
    text = "\n".join(lines)
    assert re.search(r"sample size: \d+ decisions for 3 candidate parameters, [\d,]+ needed: (enough|too few)", text)
    assert re.search(
        r"corrected for optimism: C-index 0\.\d{3} \(0\.\d{3} to 0\.\d{3}\), apparent 0\.\d{3} \(10 refits\)", text
    )
    assert "external sites together: C-index" in text
    assert statistics_lines({}) == []


def test_permuted_outcomes_are_asked_for_where_the_study_wants_them(base: Path, trained: Any) -> None:
    prepared, developed, evaluations = trained("response")
    asked = {
        "report.statistics.optimism": "0",
        "report.statistics.learning_curve": "0",
        "report.statistics.permutations": "3",
    }
    found = study_statistics(replace(prepared, study=_study(base, **asked)), developed, evaluations, jobs=1)
    permuted = found["leaks"]["permuted"]
    assert permuted["times"] == 3
    assert 0.3 < permuted["auc"] < 0.7
    with pytest.raises(StudyError, match="tell nothing"):
        _study(base, **{"report.statistics.permutations": "2"})
