"""Several endpoints of every kind by the commands of the main road: trained, verified, scored, judged elsewhere, promoted."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
import yaml

ENDPOINTS = [
    {
        "name": "recist",
        "kind": "ordinal",
        "column": "Best response",
        "levels": ["PD", "SD", "PR", "CR"],
        "not_evaluable": ["NE"],
    },
    {"name": "months", "kind": "continuous", "column": "PFS (months)", "unit": "mo"},
]


@pytest.fixture(scope="module")
def trained_on_four(new_workplace: Callable[..., Any]) -> tuple[Any, dict[str, Any]]:
    """The demo's tables, asked for survival first, with response, its levels and a number beside it."""
    place = new_workplace(patients=450)
    study = yaml.safe_load(place.study.read_text(encoding="utf-8"))
    study["study"] = "four"
    study["endpoints"] += ENDPOINTS
    study |= {"primary": "os", "further": ["response", "recist", "months"], "baselines": []}
    study["search"] |= {"families": ["elasticnet"], "trials": 4, "replicates": 10}
    study["report"] = {"bootstrap": 100}
    place.study.write_text(yaml.safe_dump(study, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return place, place.json("train", place.study)


def test_each_endpoint_is_judged_as_what_it_is(trained_on_four: tuple[Any, dict[str, Any]]) -> None:
    place, result = trained_on_four
    site = result["external"]["Lakeside"]
    assert site["survival"]["c_harrell"] > 0.5  # survival follows from the response alone here, and weakly
    assert result["further"]["response"]["external"]["Lakeside"]["auc"] > 0.7
    assert result["further"]["recist"]["external"]["Lakeside"]["ordinal"]["c_ordinal"] > 0.6
    assert result["further"]["months"]["external"]["Lakeside"]["rmse"] > 0
    assert site["survival"]["n"] >= site["n"]  # who was censored before the horizon counts for ranking too
    shown = place.json("models", "show", result["model"])
    assert shown["evaluations"]["external"]["Lakeside"]["survival"]["horizons"]
    text = place.run("models", "show", result["model"]).stdout
    assert "Lakeside" in text


def test_all_roads_give_the_same_answers_to_all_endpoints(trained_on_four: tuple[Any, dict[str, Any]]) -> None:
    place, result = trained_on_four
    verified = place.json("verify", result["model"])
    assert verified["passed"], verified


def test_one_patient_hears_all_four(trained_on_four: tuple[Any, dict[str, Any]]) -> None:
    place, result = trained_on_four
    clinic = pd.read_excel(place.folder / "data" / "clinic.xlsx", sheet_name="Lakeside", dtype=str)
    clinic.head(3).to_csv(place.folder / "new.csv", index=False)
    rows = place.json("score", result["model"], place.folder / "new.csv", "--site", "Lakeside")["rows"]
    row = rows[0]
    told = math.log(-math.log1p(-row["probability"]))
    assert told == pytest.approx(row["base"] + sum(row["contributions"].values()), abs=1e-6)
    assert list(row["endpoints"]) == ["response", "recist", "months"]
    assert "value" in row["endpoints"]["months"]
    levels = row["endpoints"]["recist"]["answers"]
    assert [one["name"] for one in levels] == ["PR or better", "SD or better", "CR"]
    for one in (row, *row["endpoints"].values()):
        assert one["prediction_set"]["coverage"] == 0.9
        assert one["similar"]["patients"] >= 10
    assert row["validated"]["absent"]  # laboratory values and variants were not given
    place.run("score", result["model"], place.folder / "new.csv", "--out", place.folder / "scores.csv")
    table = pd.read_csv(place.folder / "scores.csv")
    assert {"response", "months", "recist: CR"} <= set(table.columns)


def test_it_is_judged_on_data_from_elsewhere_and_promoted(trained_on_four: tuple[Any, dict[str, Any]]) -> None:
    place, result = trained_on_four
    found = place.json("evaluate", result["model"], "--study", place.study)
    assert found["survival"]["c_harrell"] > 0.5
    json.dumps(found, allow_nan=False)
    move = place.json("models", "alias", "four", 1, "champion", "--by", "an engineer", "--override", "end-to-end test")
    assert move["to_version"] == 1  # the gates could be computed; whether four tables of 600 pass them is not asked
