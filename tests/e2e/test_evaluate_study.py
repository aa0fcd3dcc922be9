"""A new hospital with other headers, units and codes: its own study file says so, the model stays as it is."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import yaml


def test_evaluate_reads_the_file_as_the_given_study_says(trained: Any) -> None:
    place, result = trained
    clinic = pd.read_excel(place.folder / "data" / "clinic.xlsx", sheet_name="Lakeside")
    plain = place.json("evaluate", "models:/demo/1", "data/clinic.xlsx", "--sheet", "Lakeside")
    renamed = clinic.rename(columns={"Age (years)": "alter_tage", "Best response": "RECIST"})
    renamed["alter_tage"] = renamed["alter_tage"] * 365.25
    renamed.to_csv(place.folder / "elsewhere.csv", index=False)
    study = yaml.safe_load(place.study.read_text(encoding="utf-8"))
    source = study["sources"][0]
    source |= {"path": "elsewhere.csv", "sheets": [], "site": None}
    source["columns"]["alter_tage"] = source["columns"].pop("Age (years)") | {
        "unit": "d",
        "name": "age",
        "plausible": None,
    }
    study["sources"] = [source]
    study["endpoints"][0]["column"] = "RECIST"
    study |= {"features": {}, "baselines": [], "accept": [], "validation": {}}
    (place.folder / "elsewhere.yaml").write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    found = place.json("evaluate", "models:/demo/1", "elsewhere.csv", "--study", "elsewhere.yaml")
    assert found["n"] == plain["n"] == result["external"]["Lakeside"]["n"]
    assert found["auc"] == pytest.approx(plain["auc"], abs=1e-9)
    assert found["brier"] == pytest.approx(plain["brier"], abs=1e-6)
