"""`theracast effects` over small tables: effects by chance or justification, prognosis otherwise, refusals in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from theracast.main import main
from theracast_training.effects.validate import BEATS

STUDY: dict[str, Any] = {
    "study": "small",
    "question": "Does the new treatment work?",
    "sources": [
        {
            "kind": "table",
            "path": "patients.csv",
            "subject": "id",
            "treatment": "arm",
            "columns": {
                "arm": {"levels": ["old", "new"], "modality": "treatment"},
                "age": {"unit": "a"},
                "marker": {"modality": "lab"},
                "ward": {"levels": ["north", "south"]},
            },
        }
    ],
    "endpoints": [
        {"name": "response", "kind": "binary", "column": "response"},
        {"name": "os", "kind": "time_to_event", "time": "days", "event": "died", "unit": "day"},
        {
            "name": "died_early",
            "kind": "binary",
            "follow_up": {"time": "days", "event": "died", "unit": "day"},
            "horizon": 250,
        },
        {"name": "worst_to_best", "kind": "ordinal", "column": "grade", "levels": ["PD", "SD", "PR"]},
    ],
    "treatment": {
        "arms": {"old": ["old"], "new": ["new"]},
        "control": "old",
        "assignment": "randomised",
        "learners": ["dr"],
        "folds": 3,
        "repeats": 2,
        "subgroups": [{"column": "age", "at_least": 65, "label": "the old"}],
    },
}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes 360 patients and a study; `chosen`: the marker decides the arm."""

    def make(*, chosen: float = 0.0, drop: tuple[str, ...] = (), **treatment: Any) -> Path:
        rng = np.random.default_rng(0)
        n = 360
        age, marker = rng.normal(62, 8, n), rng.normal(size=n)
        new = (rng.random(n) < 1 / (1 + np.exp(-chosen * marker))).astype(float)
        p = np.clip(0.3 + 0.25 * new * (marker > 0) + 0.05 * marker, 0.02, 0.98)
        own, censored = rng.exponential(400 * (1 + 0.8 * new)), rng.uniform(200, 900, n)
        frame = pd.DataFrame(
            {
                "id": np.arange(n),
                "arm": np.where(new == 1, "new", "old"),
                "age": np.where(rng.random(n) < 0.05, np.nan, age),
                "marker": marker,
                "ward": rng.choice(["north", "south"], n),
                "response": (rng.random(n) < p).astype(int),
                "days": np.minimum(own, censored),
                "died": (own <= censored).astype(int),
                "grade": rng.choice(["PD", "SD", "PR"], n),
            }
        )
        frame.to_csv(tmp_path / "patients.csv", index=False)
        section = {key: value for key, value in (STUDY["treatment"] | treatment).items() if key not in drop}
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(STUDY | {"treatment": section}))
        return path

    return make


def asked(path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    assert main(["effects", str(path), "--json", *options]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refused(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["effects", str(path)]) == 1
    return capsys.readouterr().err


def test_a_randomised_study_gets_effects(write: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = write()
    page, table = tmp_path / "page.html", tmp_path / "patients-out.csv"
    found = asked(path, capsys, "--out", str(page), "--individual", str(table))
    frame = pd.read_csv(tmp_path / "patients.csv")
    by_arm = frame.groupby("arm")["response"].mean()
    one = found["comparisons"][0]
    assert (found["kind"], found["scale"]) == ("effects", "risk")
    assert one["unadjusted"]["value"] == pytest.approx(by_arm["new"] - by_arm["old"])
    assert one["hazard"] is None
    names = {row["name"] for row in found["features"]}
    assert names == {"clin.age", "clin.age.missing", "lab.marker", "clin.ward"}  # never the arm
    assert one["subgroups"][0]["n_treated"] == int(((frame["age"] >= 65) & (frame["arm"] == "new")).sum())
    told = pd.read_csv(table)
    assert list(told["subject_id"]) == list(frame["id"])
    basis = told["new: effect is"].unique().tolist()
    assert basis == ["individual" if one["verdict"] == BEATS else "average"]
    text = page.read_text()
    assert "Effects of treatment" in text
    assert one["verdict"] in text
    assert "http" not in text.replace("http://www.w3.org", "")
    assert main(["effects", str(path), "--out", str(page)]) == 1  # nothing is overwritten
    assert "--overwrite" in capsys.readouterr().err


def test_the_same_study_gives_the_same_answer(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(endpoint="os", horizon="300d")
    assert asked(path, capsys) == asked(path, capsys)


def test_a_time_to_event_needs_a_horizon_that_was_reached(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert "horizon: 730d" in refused(write(endpoint="os"), capsys)
    assert "are still followed at 1000 days" in refused(write(endpoint="os", horizon="1000d"), capsys)
    found = asked(write(endpoint="os", horizon="300d", strata=["ward"]), capsys)
    one = found["comparisons"][0]
    assert found["scale"] == "restricted_mean"
    assert one["hazard"]["unstratified"]["hazard_ratio"] < 1
    assert one["hazard"]["stratified"]["hazard_ratio"] == pytest.approx(
        one["hazard"]["unstratified"]["hazard_ratio"], rel=0.1
    )
    share = asked(write(endpoint="os", horizon="300d", summary="survival"), capsys)
    assert share["scale"] == "survival"
    assert 0 < share["arms"][0]["value"] < 1


def test_where_lower_is_better_signs_turn_and_gains_do_not(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    up, down = (asked(write(better=better), capsys)["comparisons"][0] for better in ("higher", "lower"))
    assert down["adjusted"]["value"] == pytest.approx(up["adjusted"]["value"], abs=1e-9)
    # AUTOC weighs the top of the ranking more, which is now the other end; Qini weighs both ends alike.
    assert down["learners"]["dr"]["qini"]["value"] == pytest.approx(up["learners"]["dr"]["qini"]["value"], abs=1e-9)
    assert down["learners"]["dr"]["policy"]["against_none"]["value"] <= 0.01 < up["adjusted"]["value"]


def test_a_share_free_of_a_harm_should_be_high(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Died within 250 days, a harm: compared is who lives then, censored patients by pseudo-values."""
    found = asked(write(endpoint="died_early", better="lower"), capsys)
    one = found["comparisons"][0]
    assert (found["scale"], found["better"], found["horizon_days"]) == ("survival", "higher", 250)
    # Exponential with means of 720 and 400 days.
    assert one["adjusted"]["low"] < np.exp(-250 / 720) - np.exp(-250 / 400) < one["adjusted"]["high"]
    assert one["learners"]["dr"]["policy"]["against_none"]["value"] > 0
    assert asked(write(endpoint="died_early", better="higher"), capsys)["better"] == "lower"


def test_the_study_says_beforehand_what_decides(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for metric in ("autoc", "qini"):
        found = asked(write(metric=metric, repeats=1), capsys)["comparisons"][0]
        assert (found["verdict"] == BEATS) == (found["learners"]["dr"][metric]["low"] > 0)


def test_an_ordinal_endpoint_is_compared_by_its_levels(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = asked(write(endpoint="worst_to_best"), capsys)
    assert found["scale"] == "mean"
    assert 0 < found["arms"][0]["value"] < 2


def test_an_observational_study_gets_prognosis_and_no_effect(
    write: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = write(chosen=2.0, assignment="observational")
    page, table = tmp_path / "page.html", tmp_path / "out.csv"
    found = asked(path, capsys, "--out", str(page), "--individual", str(table))
    assert found["kind"] == "prognosis"
    assert "not the effect of a treatment" in found["warning"]
    assert "comparisons" not in found
    assert found["overlaps"][0]["auc"] > 0.8
    told = pd.read_csv(table)
    assert not [name for name in told if "effect" in name]
    outside = told[~told["within overlap"]]
    assert outside.loc[outside["arm"] == "old", "expected under new"].isna().all()
    assert told["expected under old"][told["arm"] == "old"].notna().all()
    assert "Not an effect" in page.read_text()
    assert "Effects of treatment" not in page.read_text()
    assert main(["effects", str(path)]) == 0
    text = capsys.readouterr().out
    assert "PROGNOSIS UNDER EACH TREATMENT, NOT AN EFFECT" in text
    assert "AUTOC" not in text


def test_a_justified_observational_study_gets_effects_where_arms_overlap(
    write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "The marker alone decided the treatment, by the protocol of the ward, and it is a feature."
    found = asked(write(chosen=2.0, assignment="observational", justification=reason), capsys)
    one = found["comparisons"][0]
    assert found["justification"] == reason
    assert one["outside_overlap"] > 0
    assert one["n_treated"] + one["n_control"] + one["outside_overlap"] == 360
    assert any("no figure here can show" in note for note in found["notes"])


def test_arms_that_chance_did_not_assign_are_not_called_randomised(
    write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(write(chosen=2.0), capsys)
    assert "Chance does not do that" in message
    assert "assignment: observational" in message
    unequal = refused(write(probability={"old": 0.8, "new": 0.2}), capsys)
    assert "Correct the shares" in unequal


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": {"old": ["old"], "new": ["newest"]}}, "0 patients with a known outcome are in arm 'new'"),
        ({"column": "armm"}, "did you mean 'arm'"),
        ({"strata": ["wards"]}, "did you mean 'ward'"),
        ({"endpoint": "pfs"}, "no endpoint is named 'pfs'"),
        ({"horizon": "300d"}, "has no time; remove it"),
    ],
)
def test_refusals_say_what_to_mend(
    change: dict[str, Any], message: str, write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(write(**change), capsys)


def test_a_study_without_treatments_says_what_to_add(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = write()
    content = yaml.safe_load(path.read_text())
    content.pop("treatment")
    path.write_text(yaml.safe_dump(content))
    assert "Add one: treatment:" in refused(path, capsys)
