"""demo: the whole road on patients that never lived."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from theracast.output import tell
from theracast_data.errors import TheracastError

SITE = "Lakeside"  # the external site of the synthetic cohort
NEW_PATIENTS = 12


def demo(options: argparse.Namespace) -> int:
    """Make a synthetic cohort and run ingest, images extract, check, train, verify, alias, score and report on it."""
    from theracast.main import main
    from theracast_data.synthetic import export, generate, write_images

    folder: Path = options.to.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["THERACAST_HOME"] = str(folder / "state")
    os.environ["THERACAST_DATA"] = str(folder / "data")
    study, sources, store = folder / "study.yaml", folder / "ingest.yaml", folder / "data" / "store"
    images = folder / "data" / "images"
    tell(f"1/9 synthetic patients at three sites, as hospitals export them: {folder / 'data' / 'export'}, {images}")
    truth = generate(folder / "data")
    export(truth, folder / "data" / "export")
    write_images(truth, images)
    for path, name in ((study, "demo.yaml"), (sources, "ingest/demo.yaml")):
        path.write_text(_packaged_text(name), encoding="utf-8")
    if (store / "manifest.json").exists():
        shutil.rmtree(store)  # of an earlier demonstration

    def run(title: str, *arguments: Any) -> None:
        tell(f"{title}\n    $ theracast {' '.join(str(argument) for argument in arguments)}")
        if main([str(argument) for argument in arguments]) != 0:
            raise TheracastError(f"demo: `theracast {arguments[0]}` did not succeed; its message stands above.")

    run("2/9 dated events, and what was not understood", "ingest", sources, "--to", store)
    run("3/9 measurements of the CTs as events", "images", "extract", study, images, "--to", store)
    run("4/9 audit", "check", study, "--html", folder / "audit.html", "--overwrite")
    run("5/9 tune, validate, register", "train", study, "--report", folder / "study_report.html", "--overwrite")
    name = _study_name(study)
    run("6/9 every road gives the same answer", "verify", f"models:/{name}@challenger")
    run("7/9 gates, then champion", "models", "alias", name, _newest(name), "champion")
    patients, first = _new_patients(study, folder)
    champion = f"models:/{name}@champion"
    run("8/9 score", "score", champion, patients, "--out", folder / "scores.csv", "--overwrite")
    sheet = ("--patient", first, "--out", folder / "board_sheet.html", "--overwrite")
    run("9/9 board sheet", "report", champion, patients, *sheet)
    print(_outputs(folder, name))
    return 0


def _packaged_text(name: str) -> str:
    """Return a study file of the demo: beside the package when installed, in `studies/` in a checkout."""
    packaged = files("theracast") / "studies" / name
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).resolve().parents[3] / "studies" / name).read_text(encoding="utf-8")


def _study_name(study: Path) -> str:
    from theracast_training.study import read_study

    return read_study(study).study


def _newest(name: str) -> int:
    from theracast_training import registry

    return registry.show(f"{name}@challenger").version


def _new_patients(study: Path, folder: Path) -> tuple[Path, str]:
    """Write a few patients of the external site with what was known at their first dose; return the file and one of them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from theracast_data.events.access import cells_of_events
    from theracast_data.table import read_cohort
    from theracast_training.study import read_study

    cohort = read_cohort(read_study(study).inputs, (), base=folder).at([SITE]).take(range(NEW_PATIENTS))
    assert cohort.events is not None
    moment = dict(zip(cohort.decisions["subject_id"], cohort.decisions["index_time"], strict=True))
    parts = []
    for shard in cohort.events.shards():
        own = shard.filter(pc.is_in(shard["subject_id"], value_set=pa.array(list(moment), pa.string())))
        limit = pa.array([moment[patient] for patient in own["subject_id"].to_pylist()], pa.timestamp("us"))
        known = pc.max_element_wise(own["time"], own["available_time"])
        parts.append(own.filter(pc.fill_null(pc.less_equal(known, limit), True)))  # undated: always known
    events = cells_of_events(pa.concat_tables(parts))
    rows = [
        {"subject_id": patient, "index_time": asked.isoformat(), "events": events[patient]}
        for patient, asked in moment.items()
    ]
    path = folder / "new_patients.json"
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path, next(iter(moment))


def _outputs(folder: Path, name: str) -> str:
    shown = {
        "audit of the data": "audit.html",
        "study report": "study_report.html",
        "board sheet of one patient": "board_sheet.html",
        "scores of twelve patients": "scores.csv",
        "the study file, to be changed": "study.yaml",
        "what its events are read from": "ingest.yaml",
    }
    lines = [f"  {title:32} {folder / file}" for title, file in shown.items()]
    command = f"THERACAST_HOME={folder / 'state'} {Path(sys.executable).with_name('theracast')}"
    lines.append(f"  {'runs and registry':32} {command} ui")
    return "\n".join([f"\nDone. The model is models:/{name}@champion. Open:", *lines])
