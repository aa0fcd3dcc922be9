"""demo: the whole road on patients that never lived."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from theracast.output import tell
from theracast_data.errors import TheracastError

SITE = "Lakeside"  # the external site of the synthetic cohort


def demo(options: argparse.Namespace) -> int:
    """Make a synthetic cohort and run check, train, verify, alias, score and report on it."""
    from theracast.main import main
    from theracast_data.synthetic import generate

    folder: Path = options.to.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["THERACAST_HOME"] = str(folder / "state")
    os.environ["THERACAST_DATA"] = str(folder / "data")
    study = folder / "study.yaml"
    tell(f"1/7 synthetic patients at three sites, as a hospital would export them: {folder / 'data'}")
    generate(folder / "data")
    study.write_text(_study_text(), encoding="utf-8")

    def run(title: str, *arguments: Any) -> None:
        tell(f"{title}\n    $ theracast {' '.join(str(argument) for argument in arguments)}")
        if main([str(argument) for argument in arguments]) != 0:
            raise TheracastError(f"demo: `theracast {arguments[0]}` did not succeed; its message stands above.")

    patients = _new_patients(study, folder)
    run("2/7 audit", "check", study, "--html", folder / "audit.html", "--overwrite")
    run("3/7 tune, validate, register", "train", study, "--report", folder / "study_report.html", "--overwrite")
    name = _study_name(study)
    run("4/7 every road gives the same answer", "verify", f"models:/{name}@challenger")
    run("5/7 gates, then champion", "models", "alias", name, _newest(name), "champion")
    champion, here = f"models:/{name}@champion", ("--site", SITE)
    run("6/7 score", "score", champion, patients, *here, "--out", folder / "scores.csv", "--overwrite")
    sheet = (*here, "--patient", _first_patient(patients), "--out", folder / "board_sheet.html", "--overwrite")
    run("7/7 board sheet", "report", champion, patients, *sheet)
    print(_outputs(folder, name))
    return 0


def _study_text() -> str:
    """Return the demo's study file: beside the package when installed, in `studies/` in a checkout."""
    packaged = files("theracast") / "demo.yaml"
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).resolve().parents[3] / "studies" / "demo.yaml").read_text(encoding="utf-8")


def _study_name(study: Path) -> str:
    from theracast_training.study import read_study

    return read_study(study).study


def _newest(name: str) -> int:
    from theracast_training import registry

    return registry.show(f"{name}@challenger").version


def _new_patients(study: Path, folder: Path) -> Path:
    """Write the raw rows of a few patients of the external site, joined into one table, without their outcomes."""
    import pandas as pd

    from theracast_data.files import read_raw
    from theracast_training.study import read_study

    loaded = read_study(study)
    joined: pd.DataFrame | None = None
    for source in loaded.sources:
        sheets = read_raw(source, base=folder)
        table = sheets[SITE] if SITE in sheets else pd.concat(sheets.values(), ignore_index=True)
        kept = [column for column in table.columns if column in {source.subject, source.site, *source.columns}]
        table = table[kept].rename(columns={source.subject: loaded.sources[0].subject})
        joined = table if joined is None else joined.merge(table, on=loaded.sources[0].subject, how="left")
    assert joined is not None
    path = folder / "new_patients.csv"
    joined.head(12).to_csv(path, index=False)
    return path


def _first_patient(path: Path) -> str:
    import pandas as pd

    return str(pd.read_csv(path, dtype=str).iloc[0, 0])


def _outputs(folder: Path, name: str) -> str:
    shown = {
        "audit of the data": "audit.html",
        "study report": "study_report.html",
        "board sheet of one patient": "board_sheet.html",
        "scores of twelve patients": "scores.csv",
        "the study file, to be changed": "study.yaml",
    }
    lines = [f"  {title:32} {folder / file}" for title, file in shown.items()]
    command = f"THERACAST_HOME={folder / 'state'} {Path(sys.executable).with_name('theracast')}"
    lines.append(f"  {'runs and registry':32} {command} ui")
    return "\n".join([f"\nDone. The model is models:/{name}@champion. Open:", *lines])
