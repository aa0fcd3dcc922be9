"""score, report, verify, serve."""

from __future__ import annotations

import argparse
import json
import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from theracast.output import print_json, require_free, tell, write_text
from theracast_data.errors import SchemaError, TheracastError

if TYPE_CHECKING:
    import pandas as pd

    from theracast_models.prediction import Answer, Floats, Prediction
    from theracast_models.response_model import ResponseModel


def score(options: argparse.Namespace) -> int:
    """Score patients."""
    from theracast_serving.load import load_model
    from theracast_serving.score import score_frame

    if options.out:
        require_free(options.out, overwrite=options.overwrite)
    model = load_model(options.model)
    frame = _with_images(
        _read(options.file, options.sheet, model, index_time=options.index_time), model, options.images
    )
    prediction = score_frame(model, frame, site=options.site or options.sheet)
    site = options.site or options.sheet
    if options.json:
        print_json(_record(model, frame, prediction, site))
    elif options.out and options.out.suffix.lower() == ".json":
        text = json.dumps(_record(model, frame, prediction, site), indent=1, ensure_ascii=False)
        write_text(options.out, text + "\n", overwrite=options.overwrite)
        tell(f"wrote {options.out}: {len(prediction)} decisions")
    elif options.out:
        _write_table(prediction, options.out, overwrite=options.overwrite)
        tell(f"wrote {options.out}: {len(prediction)} decisions")
    else:
        print(_table(prediction).to_string(index=False, max_colwidth=70))
    return 0


def _record(model: ResponseModel, frame: pd.DataFrame, prediction: Prediction, site: str | None) -> dict[str, Any]:
    """Return the contract of `score --json`: the records, with what changed where a patient had earlier decisions."""
    from theracast_serving.course import with_changes

    return {"model": prediction.model, "rows": with_changes(model, frame, prediction, site=site)}


def _read(path: Path, sheet: str | None, model: ResponseModel, *, index_time: str | None = None) -> pd.DataFrame:
    """Return the raw rows of a table, of JSON on standard input, or of a FHIR bundle."""
    import pandas as pd

    from theracast_data.table import read_file
    from theracast_serving.bundle import is_bundle, rows_of_bundle

    if str(path) != "-" and path.suffix.lower() != ".json":
        return read_file(path, sheet=sheet)
    name = "standard input" if str(path) == "-" else str(path)
    try:
        content = json.loads(sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SchemaError(f"{path}: the file cannot be read ({error.strerror}). Check the path.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SchemaError(f"{name}: not valid JSON in UTF-8. Send a list of records, or a FHIR bundle.") from error
    if is_bundle(content):
        rows, told = rows_of_bundle(content, model, index_time=index_time)
        for sentence in told:
            tell(f"{name}: {sentence}")
        return pd.DataFrame(rows)
    if str(path) != "-":
        return read_file(path, sheet=sheet)
    records = content.get("rows") if isinstance(content, dict) else content
    if not isinstance(records, list) or not all(isinstance(row, dict) for row in records):
        raise SchemaError('standard input: send a list of records, or {"rows": [...]}.')
    return pd.DataFrame(records)


def _with_images(frame: pd.DataFrame, model: ResponseModel, folder: Path | None) -> pd.DataFrame:
    """Return the rows with what the model measures in the images of a folder; tell what could not be measured."""
    if folder is None:
        return frame
    from theracast_data.home import home
    from theracast_serving.pictures import with_images

    joined, faults = with_images(frame, model, folder, jobs=os.cpu_count() or 1, cache=home() / "images")
    for fault in faults:
        tell(fault)
    return joined


def _table(prediction: Prediction) -> pd.DataFrame:
    """Return one readable line per decision: chance, interval, the strongest reasons, and what to mind."""
    import pandas as pd

    reasons, remarks = [], []
    for row in range(len(prediction)):
        refused = prediction.answer.abstains(row)
        phi = prediction.contributions.iloc[row]
        top = phi.reindex(phi.abs().sort_values(ascending=False, kind="stable").index)[:4]
        reasons.append("" if refused else ", ".join(f"{name} {value:+.2f}" for name, value in top.items()))
        remarks.append(" | ".join(([refused] if refused else []) + prediction.warnings[row]))
    leading = prediction.answer
    return pd.DataFrame(
        {
            "subject_id": prediction.subject_id,
            leading.estimate_name: _given(leading, leading.estimates, 0),
            "low": _given(leading, leading.low, 0),
            "high": _given(leading, leading.high, 0),
        }
        | _beside(prediction)
        | {
            "top_contributions": reasons,
            "missing": [", ".join(names) for names in prediction.missing],
            "warnings": remarks,
        }
    )


def _given(answer: Answer, part: Floats, place: int) -> Floats:
    """Return one answer of all decisions, rounded; NaN where none is given."""
    import numpy as np

    refused = [answer.abstains(row) is not None for row in range(len(part))]
    return np.where(refused, np.nan, part[:, place].round(3))


def _beside(prediction: Prediction) -> dict[str, Any]:
    """Return a column for each answer beside the leading one: other horizons and levels, and the other endpoints.

    A leading answer of another endpoint has its interval beside it.
    """
    columns: dict[str, Any] = {}
    for answer in prediction.answers:
        for place, asking in enumerate(answer.asked):
            if answer is not prediction.answer or place > 0:
                name = answer.endpoint if len(answer.asked) == 1 else f"{answer.endpoint}: {asking.name}"
                columns[name] = _given(answer, answer.estimates, place)
            if answer is not prediction.answer and place == 0:
                columns[f"{answer.endpoint} low"] = _given(answer, answer.low, place)
                columns[f"{answer.endpoint} high"] = _given(answer, answer.high, place)
    return columns


def _write_table(prediction: Prediction, path: Path, *, overwrite: bool) -> None:
    ending = path.suffix.lower()
    if ending == ".csv":
        write_text(path, _table(prediction).to_csv(index=False), overwrite=overwrite)
    elif ending == ".parquet":
        _table(prediction).to_parquet(path, index=False)
    else:
        raise TheracastError(f"{path}: the ending {ending!r} is not known. Use .csv, .parquet or .json.")


def report(options: argparse.Namespace) -> int:
    """Write the board sheet of one patient."""
    from theracast_serving.course import course_of
    from theracast_serving.load import load_model
    from theracast_serving.score import score_frame
    from theracast_serving.sheet import board_sheet

    require_free(options.out, overwrite=options.overwrite)
    model = load_model(options.model)
    site = options.site or options.sheet
    frame = _with_images(_read(options.file, options.sheet, model), model, options.images)
    prediction = score_frame(model, frame, site=site)
    places = [place for place, subject in enumerate(prediction.subject_id) if subject == options.patient]
    if len(places) != 1:
        found = "no patient" if not places else f"{len(places)} rows"
        raise SchemaError(
            f"{options.file}: {found} with the identifier {options.patient!r} among {len(prediction)} rows. "
            "Check --patient and --sheet; the identifier must be unique in the file."
        )
    page = board_sheet(
        model,
        prediction,
        places[0],
        as_of=datetime.now().astimezone().date(),
        course=course_of(model, frame, prediction, places[0], site=site),
    )
    write_text(options.out, page, overwrite=options.overwrite)
    tell(f"wrote {options.out}")
    return 0


def verify(options: argparse.Namespace) -> int:
    """Replay the stored example patients on every road."""
    from theracast_serving.verify import verify as verify_model

    outcome = verify_model(options.model)
    if options.json:
        print_json(outcome.to_json())
    else:
        print(outcome.to_text())
    return 0 if outcome.passed else 1


def serve(options: argparse.Namespace) -> int:
    """Serve a model over REST."""
    import uvicorn

    from theracast_serving.app import create_app
    from theracast_serving.load import load_model

    model = load_model(options.model)
    model.predict(
        model.example_frame().head(1)
    )  # what is compiled or loaded at the first answer is so before anybody asks
    app = create_app(model)
    tell(f"serving {options.model} on http://{options.host}:{options.port} (documentation at /docs)")
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning")
    return 0
