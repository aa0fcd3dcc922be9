"""From raw rows to answers: one road, exact sums, plain warnings."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import cast

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from theracast_data.endpoints import Endpoint, endpoint_from_json
from theracast_data.errors import ArtifactError
from theracast_data.sources import Inputs
from theracast_data.table import cohort_from_frame
from theracast_features.build import build_features
from theracast_features.section import FeatureSection
from theracast_models import artefact
from theracast_models.fitting import Recipe, fit_calibrated, patient_folds
from theracast_models.response_model import ResponseModel, inputs_from_json, inputs_to_json

ONE = {"ID": "a", "Hospital": "North", "Albumin": 36, "TMB": 5.0, "MSI": 0, "Tumour": 1, "Age": 60}


def answer(model, **cells):
    return model.predict(pd.DataFrame([ONE | cells]))


@pytest.mark.parametrize("family", ["elasticnet", "lightgbm", "stack"])
def test_answers_add_up_per_feature_and_per_modality(make_model, make_raw, family: str) -> None:
    raw, _ = make_raw(5, 80)
    raw = raw.mask(np.random.default_rng(0).random(raw.shape) < 0.2).assign(ID=raw["ID"])
    found = make_model(family).predict(raw)
    np.testing.assert_allclose(found.base + found.contributions.sum(axis=1), logit(found.probability), atol=1e-9)
    np.testing.assert_allclose(found.base + found.modalities.sum(axis=1), logit(found.probability), atol=1e-9)
    assert ((found.low <= found.probability) & (found.probability <= found.high)).all()
    assert found.subject_id == raw["ID"].tolist()


def test_one_at_a_time_is_the_same_as_all_at_once(model, make_raw) -> None:
    raw, _ = make_raw(6, 12)
    together = model.predict(raw)
    alone = [model.predict(raw.iloc[[row]]).probability[0] for row in range(12)]
    np.testing.assert_allclose(alone, together.probability, atol=1e-12)


def test_no_rows_no_answers(model) -> None:
    empty = model.predict(pd.DataFrame(columns=list(ONE)))
    assert empty.to_json() == {"model": model.identity, "rows": []}


def test_ids_may_repeat_and_keep_their_order(model) -> None:
    rows = pd.DataFrame([ONE, ONE | {"ID": "b"}, ONE | {"Albumin": 20}])
    found = model.predict(rows)
    assert found.subject_id == ["a", "b", "a"]
    assert found.probability[0] == found.probability[1] != found.probability[2]


def test_an_ordinary_patient_gives_no_warning(model) -> None:
    found = answer(model)
    assert found.warnings == [[]]
    assert found.missing == [[]]


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ({"Albumin": None}, "No laboratory data at all (Albumin): the answer rests on the other data."),
        ({"TMB": None, "MSI": None}, "No genomic data at all (TMB and MSI): the answer rests on the other data."),
        ({"Age": None}, "Not known, so the typical value of the development patients stands in: Age."),
        ({"Age": "sixty"}, "Age: the entry could not be read and is treated as not known."),
        ({"Age": 104}, "Age lies above everything seen in the development patients."),
        ({"TMB": 400}, "TMB is above the model's upper limit and counts as that limit."),
        ({"MSI": "perhaps"}, "MSI: the entry is none of the known answers and is treated as not known."),
        (
            {"Tumour": "brain"},
            "Tumour type: no development patient had this category; the model treats it as not known.",
        ),
        ({"Hospital": "Elsewhere"}, "This site took no part in developing or validating the model."),
    ],
)
def test_tells_the_doctor(model, cells, says: str) -> None:
    warnings = answer(model, **cells).warnings[0]
    assert says in warnings
    for value in cells.values():
        assert not any(str(value) in sentence for sentence in warnings)


def test_nothing_known_is_said_once(model) -> None:
    found = answer(model, **dict.fromkeys(["Albumin", "TMB", "MSI", "Tumour", "Age"]))
    assert found.warnings == [["Nothing that the model asks for is known: this is the answer for a typical patient."]]
    again = answer(model, **dict.fromkeys(["Albumin", "TMB", "MSI", "Tumour", "Age"]))
    assert found.contributions.equals(again.contributions)
    assert not found.contributions["clin.tumour"].any()


def test_absent_column_is_missing_and_units_are_converted(model) -> None:
    rows = pd.DataFrame([ONE])
    assert model.predict(rows.drop(columns="Age")).missing == [["clin.age"]]
    assert model.predict(rows).features.frame["lab.albumin"][0] == pytest.approx(3.6)


def test_another_spelling_of_the_column_is_read_and_told(model) -> None:
    found = model.predict(pd.DataFrame([ONE]).rename(columns={"Albumin": "ALBUMIN"}))
    assert found.missing == [[]]
    assert "Albumin: taken from a column of another name; check that it is the same quantity." in found.warnings[0]


def test_a_site_given_by_the_caller_counts(model) -> None:
    rows = pd.DataFrame([ONE]).drop(columns="Hospital")
    assert model.predict(rows).warnings == [[]]
    assert "This site took no part" in model.predict(rows, site="Elsewhere").warnings[0][0]


def test_a_false_explanation_is_never_handed_out(model) -> None:
    class Lying(type(model.calibrated.model)):
        def contributions(self, table):
            base, phi = super().contributions(table)
            return base + 1e-4, phi

    liar = Lying()
    vars(liar).update(vars(model.calibrated.model))
    with pytest.raises(ArtifactError, match="does not add up"):
        answer(replace(model, calibrated=replace(model.calibrated, model=liar)))


def test_examples_are_invented_cover_the_odd_cases_and_hold_the_models_answers(model, make_raw) -> None:
    raw, _ = make_raw(1)
    rows = model.example_frame()
    assert set(rows.columns) <= set(model.raw_columns)
    assert not set(rows["Albumin"].map(str)) & set(raw["Albumin"].map(str))
    assert model.predict(rows).rows() == [example["answer"] for example in model.examples]
    told = [sentence for example in model.examples for sentence in example["answer"]["warnings"]]
    assert any("no development patient had this category" in sentence for sentence in told)
    assert any("Nothing that the model asks for is known" in sentence for sentence in told)
    assert any(isinstance(cell, str) and cell.strip() != cell for cell in rows["TMB"])
    assert not any(example["answer"]["warnings"] for example in model.examples[:6])


def test_levels_keep_the_type_of_their_cells() -> None:
    inputs = Inputs.model_validate(
        {"sources": [{"path": "a.csv", "subject": "ID", "columns": {"T": {"levels": {1: "x", "1": "y", 2.5: "z"}}}}]}
    )
    again = inputs_from_json(inputs_to_json(inputs))
    assert again == inputs
    assert [type(cell) for cell in again.sources[0].columns["T"].levels] == [int, str, float]


def test_a_unit_that_hangs_on_an_unknown_site_is_told(model) -> None:
    rows = pd.DataFrame([ONE]).drop(columns="Hospital")
    by_site = model.inputs.sources[0].columns["Albumin"].model_copy(update={"site_units": {"Elsewhere": "g/L"}})
    source = model.inputs.sources[0]
    changed = source.model_copy(update={"columns": {**source.columns, "Albumin": by_site}})
    other = replace(model, inputs=model.inputs.model_copy(update={"sources": (changed,)}))
    sentence = "Albumin: sites report it in different units and the site is not a known one"
    assert any(sentence in one for one in other.predict(rows).warnings[0])
    assert not any(sentence in one for one in other.predict(rows, site="Elsewhere").warnings[0])
    assert not any(sentence in one for one in model.predict(rows).warnings[0])


DECIDED = {
    "events": {"store": "/somewhere/secret/store", "concepts": {"crp": {"codes": ["LOINC//1988-5"], "unit": "mg/L"}}},
    "decisions": {
        "trigger": {"codes": ["RX//*"], "treatment": {"RX//*": "the drug"}},
        "include": [{"name": "seen before", "codes": ["VISIT//1"], "window": "(-inf, 0d]"}],
        "landmarks": {"days": [0, 30], "ends": [{"codes": ["MEDS_DEATH"]}]},
        "attributes": {
            "age": {"codes": ["MEDS_BIRTH"], "take": "years_since"},
            "sex": {"codes": ["Gender//*"], "take": "code", "levels": {"F": "female", "M": "male"}},
            "weight": {"codes": ["W//1"], "take": "number", "unit": "kg", "assume_unit": "kg", "cap": [30, 200]},
            "msi": {"codes": ["MSI//1"], "levels": {"low": 0, "high": 1}, "modality": "genomic"},
        },
    },
}


@pytest.fixture(scope="module")
def decided() -> ResponseModel:
    """A model whose decisions, attributes and endpoint come from events."""
    rng = np.random.default_rng(3)
    n = 200
    frame = pd.DataFrame(
        {
            "subject_id": [f"p{row}" for row in range(n)],
            "index_time": "2024-05-01 12:00",
            "age": rng.integers(30, 90, n),
            "sex": rng.choice(["F", "M"], n),
            "weight": rng.normal(75, 10, n),
            "msi": rng.choice(["low", "high"], n),
            "landmark": rng.choice([0, 30], n),
            "events": [[]] * n,
        }
    )
    inputs = Inputs.model_validate(DECIDED)
    cohort = cohort_from_frame(frame, inputs)
    section = FeatureSection.model_validate(
        {"events": [{"concept": "crp", "windows": ["30d"], "aggregates": ["count"]}], "missing_indicators": "none"}
    )
    y = (rng.random(n) < 1 / (1 + np.exp(-(frame["age"] - 60) / 10))).astype(float).to_numpy()
    table = build_features(cohort, section)
    folds = patient_folds(table, y, folds=3, seed=0)
    recipe = Recipe("elasticnet", {"c": 0.3, "l1_ratio": 0.5})
    endpoint = endpoint_from_json(
        {
            "kind": "first_event",
            "name": "death",
            "events": [{"codes": ["MEDS_DEATH"]}],
            "horizon": "1y",
            "rule_version": "7",
        }
    )
    return ResponseModel.build(
        card={"name": "decided", "created": "2026-01-02T03:04:05"},
        inputs=inputs,
        section=section,
        endpoint=cast("Endpoint", endpoint),
        calibrated=fit_calibrated(recipe, table, y, folds=folds, replicates=10, seed=3),
        table=table,
        y=y,
    )


def test_decisions_and_an_endpoint_from_events_travel_in_the_folder(decided, tmp_path) -> None:
    decided.save(tmp_path / "m")
    again = ResponseModel.load(tmp_path / "m")
    assert again.inputs == decided.inputs
    assert again.inputs.decisions == Inputs.model_validate(DECIDED).decisions
    assert (again.endpoint, again.endpoint.rule_version) == (decided.endpoint, "7")
    assert again.predict(again.example_frame()).rows() == [example["answer"] for example in again.examples]
    assert all(b"secret" not in path.read_bytes() for path in (tmp_path / "m").rglob("*.json"))


def test_examples_tell_their_attributes_by_cells_and_by_events(decided) -> None:
    rows = [example["row"] for example in decided.examples]
    by_events = [row for row in rows if row["events"] and any(e["code"] == "MEDS_BIRTH" for e in row["events"])]
    assert len(by_events) == 3
    for row in by_events:
        assert {row[name] for name in ("age", "sex", "weight", "msi", "landmark")} == {None}
        cohort = cohort_from_frame(pd.DataFrame([row]), decided.inputs)
        assert cohort.values.notna().all(axis=None)
        assert set(cohort.values["landmark"]) <= set(range(31))
        assert cohort.decisions["treatment"].tolist() == ["the drug"]


def test_a_decision_that_the_study_would_not_ask_is_told_so(decided) -> None:
    begun = {"time": "2024-05-01T12:00", "code": "RX//1"}
    seen = {"time": "2024-04-01T12:00", "code": "VISIT//1"}
    row = {"subject_id": "one", "index_time": "2024-05-01T12:00", "age": 60}
    outside = "The model is not meant for such a decision: it does not meet the study's inclusion rules."
    asked = pd.DataFrame([row | {"events": [begun]}, row | {"events": [begun, seen]}])
    unseen, known = decided.predict(asked).warnings
    assert outside in unseen
    assert outside not in known
    late = decided.predict(pd.DataFrame([row | {"events": [begun, seen], "index_time": "2024-06-05"}])).warnings[0]
    assert any("day 30" in warning for warning in late)


def test_an_endpoint_of_another_kind_than_the_model_answers_is_refused(decided, tmp_path) -> None:
    decided.save(tmp_path / "m")
    about = json.loads((tmp_path / "m" / "model.json").read_text())
    about["endpoint"]["horizon"] = None
    (tmp_path / "m" / "model.json").write_text(json.dumps(about))
    content = artefact._index_content(tmp_path / "m", created=None)
    (tmp_path / "m" / "format.json").write_bytes(artefact._rendered(content))
    with pytest.raises(ArtifactError, match="do not hold what format 3 promises"):
        ResponseModel.load(tmp_path / "m")
