"""The command line: what it loads, what it prints, how it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import theracast
from theracast.main import build_parser, main

HEAVY = {
    "pandas",
    "numpy",
    "sklearn",
    "lightgbm",
    "mlflow",
    "optuna",
    "shap",
    "torch",
    "matplotlib",
    "pydantic",
    "yaml",
}

VERBS = {
    "init": ["NAME", "--from", "t.csv"],
    "schema": [],
    "check": ["s.yaml", "--json"],
    "features": ["s.yaml", "--out", "f.parquet"],
    "train": ["s.yaml", "--seed", "1", "--trials", "2", "--set", "a=b", "--set", "c=d", "--json"],
    "evaluate": ["M", "f.csv", "--sheet", "S", "--study", "s.yaml", "--json"],
    "score": ["M", "f.csv", "--sheet", "S", "--json"],
    "report": ["M", "f.csv", "--patient", "7", "--out", "o.html"],
    "verify": ["M"],
    "serve": ["M", "--port", "9000"],
    "models list": [],
    "models show": ["M"],
    "models alias": ["N", "3", "champion", "--override", "because"],
    "models rollback": ["N"],
    "ui": [],
    "fetch": ["icb", "--to", "d"],
    "demo": ["--to", "d"],
}


def _modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print(*sorted(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("code", ["import theracast", "import theracast.main as m; m.build_parser()"])
def test_nothing_heavy_is_imported_before_a_verb_needs_it(code: str) -> None:
    assert not _modules_after(code) & HEAVY


@pytest.mark.parametrize("verb", VERBS)
def test_the_contract_of_the_command_line_parses(verb: str) -> None:
    options = build_parser().parse_args([*verb.split(), *VERBS[verb]])
    module, _, function = options.verb_target.partition(":")
    assert callable(getattr(__import__(module, fromlist=[function]), function))


def test_every_public_name_is_there() -> None:
    for name in theracast.__all__:
        assert getattr(theracast, name) is not None
    with pytest.raises(AttributeError, match="it offers"):
        theracast.nothing  # noqa: B018


def test_wrong_usage_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["score"])
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_schema_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"study", "question", "sources", "endpoints", "validation"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False


def test_a_mistake_exits_with_1_and_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none.yaml")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "cannot be read" in captured.err
    assert main(["init", "x", "--from", str(tmp_path / "none.csv"), "--out", str(tmp_path / "x.yaml")]) == 1
    assert not (tmp_path / "x.yaml").exists()


def test_init_drafts_a_study_that_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "patients.csv"
    rows = [f"P{i},{50 + i % 30},{3.1 + (i % 17) / 10:.1f},{i % 3 == 0:d}" for i in range(60)]
    table.write_text("patient_id,age,albumin,response\n" + "\n".join(rows) + "\n")
    draft = tmp_path / "mine.yaml"
    assert main(["init", "mine", "--from", str(table), "--out", str(draft)]) == 0
    assert main(["init", "mine", "--from", str(table), "--out", str(draft)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    main(["check", str(draft), "--json"])
    assert "findings" in json.loads(capsys.readouterr().out)
