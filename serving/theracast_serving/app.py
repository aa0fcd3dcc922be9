"""One loaded model behind HTTP: health, what it is, scores and board sheets."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any, TypeVar

import pandas as pd
from fastapi import Body, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from theracast_data.errors import TheracastError
from theracast_models.response_model import ResponseModel
from theracast_serving.bundle import rows_of_bundle
from theracast_serving.course import course_of, with_changes
from theracast_serving.describe import describe_model, example_rows
from theracast_serving.record import ScoreAnswer
from theracast_serving.score import describe_unknown, score_frame, unknown_columns
from theracast_serving.sheet import board_sheet

logger = logging.getLogger(__name__)

MAX_ROWS = 1000
MAX_EVENTS = 100_000
MAX_BYTES = 16 * 1024 * 1024
_T = TypeVar("_T")


def _row_cell(cell: Any) -> Any:
    """Return a cell of a row: a plain one, or the patient's events as a list of records of plain ones."""
    if not isinstance(cell, list):
        return _plain_cell(cell)
    if len(cell) > MAX_EVENTS:
        raise ValueError(f"a patient has more than {MAX_EVENTS} events; send those in the model's longest window")
    if not all(isinstance(event, dict) for event in cell):
        raise ValueError("a list in a row is the patient's events, each a record with a code and a time")
    for event in cell:
        for value in event.values():
            _plain_cell(value)
    return cell


def _plain_cell(cell: Any) -> Any:
    if cell is not None and not isinstance(cell, str | int | float | bool):
        raise ValueError("a cell is text, a number, true, false or null")
    if isinstance(cell, float) and not math.isfinite(cell):
        raise ValueError("NaN and infinity are not JSON; send null or leave the column out where it is not known")
    if isinstance(cell, int) and abs(cell) > sys.float_info.max:
        raise ValueError("the number is too large; send null or leave the column out where it is not known")
    if isinstance(cell, str) and not cell.isascii() and any("\ud800" <= sign <= "\udfff" for sign in cell):
        raise ValueError("the text is not valid Unicode; send it as UTF-8")
    return cell


_EVENTS_SCHEMA = {"type": "array", "items": {"type": "object"}, "description": "Events of the patient, in `events`."}
Cell = Annotated[
    Any,
    AfterValidator(_row_cell),
    WithJsonSchema({"anyOf": [{"type": kind} for kind in ("string", "number", "boolean", "null")] + [_EVENTS_SCHEMA]}),
]
Text = Annotated[str, AfterValidator(_plain_cell)]
Row = dict[Text, Cell]


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid")

    site: Text | None = Field(None, description="Where the patients are treated, if the rows do not say it.")


class ScoreRequest(_Question):
    """Raw rows as they stand in the source: either `rows` or one `patient`."""

    rows: list[Row] | None = Field(None, min_length=1, description=f"Raw columns of up to {MAX_ROWS} decisions.")
    patient: Row | None = Field(None, description="Raw columns of one decision.")
    bundle: dict[str, Any] | None = Field(None, description="FHIR R4 bundle, for models made from events.")
    index_time: Text | None = Field(
        None, description="Moment of the question for a bundle, ISO 8601; by default that of the latest fact in it."
    )

    @model_validator(mode="after")
    def _check_one(self) -> ScoreRequest:
        if [self.rows, self.patient, self.bundle].count(None) != 2:
            raise ValueError('give either "rows": [{...}], "patient": {...} or "bundle": {...}')
        if self.index_time is not None and self.bundle is None:
            raise ValueError("index_time goes with a bundle; a row says it in a column of its own")
        return self

    @property
    def all_rows(self) -> list[Row]:
        """The rows, however they were given."""
        return self.rows if self.rows is not None else [self.patient or {}]


class ReportRequest(_Question):
    """Raw columns of one decision."""

    patient: Row


class Fault(BaseModel):
    """What is wrong, and how to mend it. Never holds a value of a patient."""

    detail: str


_FAULTS: dict[int | str, dict[str, Any]] = {
    413: {"model": Fault, "description": "Too many rows or bytes."},
    422: {"model": Fault, "description": "The request is not understood."},
    500: {"model": Fault, "description": "A fault of the service."},
}


def create_app(model: ResponseModel, *, clock: Callable[[], date] = lambda: datetime.now(UTC).date()) -> FastAPI:
    """Return the web application that answers with this model, which is loaded once and shared by all requests.

    Args:
        model: a loaded model.
        clock: gives the date that stands on a board sheet.
    """
    app = FastAPI(
        title=f"Theracast: {model.endpoint.label or model.endpoint.name}",
        version=str(model.identity),
        description=f"Calibrated answers with interval and exact explanation for {_asked(model)}. "
        "`POST /v1/score` takes raw columns as they stand in the source; absent and empty ones count as not measured.",
        docs_url="/docs",
        redoc_url=None,
    )
    app.add_middleware(_BodyLimit, limit=MAX_BYTES)
    app.add_exception_handler(RequestValidationError, _refuse_invalid)
    examples = example_rows(model)
    description = describe_model(model)
    score_body = Body(openapi_examples=_score_examples(examples))
    report_body = Body(openapi_examples=_report_examples(examples))

    @app.get("/health", summary="Whether the service answers, and with which model")
    def health() -> dict[str, str]:
        return {"status": "ok", "model": str(model.identity)}

    @app.get("/v1/model", summary="What the model is, what it expects and how well it did")
    def show_model() -> JSONResponse:
        return JSONResponse(description)

    @app.post("/v1/score", responses=_FAULTS, summary="Score decisions", response_model=ScoreAnswer)
    def score(request: ScoreRequest = score_body) -> JSONResponse:
        told: list[str] = []
        if request.bundle is None:
            rows = request.all_rows
        else:
            rows, told = _guarded(lambda: rows_of_bundle(request.bundle or {}, model, index_time=request.index_time))
        if len(rows) > MAX_ROWS:
            raise HTTPException(413, f"{len(rows)} rows in one request; at most {MAX_ROWS}. Send them in parts.")
        frame = pd.DataFrame(rows)

        def answer() -> JSONResponse:
            prediction = score_frame(model, frame, request.site)
            content = {"model": prediction.model, "rows": with_changes(model, frame, prediction, site=request.site)}
            unused = describe_unknown(model.inputs, unknown_columns(model, frame))
            return JSONResponse(finite(content | {"warnings": told + unused}))

        return _guarded(answer)

    @app.post("/v1/report", responses=_FAULTS, summary="Board sheet of one decision", response_class=HTMLResponse)
    def report(request: ReportRequest = report_body) -> HTMLResponse:
        frame = pd.DataFrame([request.patient])

        def answer() -> HTMLResponse:
            prediction = score_frame(model, frame, request.site)
            course = course_of(model, frame, prediction, 0, site=request.site)
            return HTMLResponse(board_sheet(model, prediction, 0, as_of=clock(), course=course))

        return _guarded(answer)

    return app


def _asked(model: ResponseModel) -> str:
    """Return the endpoints of the model in a row."""
    return ", ".join(head.label for head in model.heads)


def finite(content: Any) -> Any:
    """Return the same JSON content with null in place of NaN and infinity."""
    if isinstance(content, Mapping):
        return {str(key): finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def _guarded(answer: Callable[[], _T]) -> _T:
    """Return the answer. A fault of ours is logged by type and place only: its text may hold a patient's value."""
    try:
        return answer()
    except TheracastError as error:
        raise HTTPException(422, str(error)) from None
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "unknown place"
        logger.error("scoring failed: %s at %s", type(error).__name__, place)
        raise HTTPException(500, "The service failed on this request; the log says where. It was not scored.") from None


async def _refuse_invalid(request: Request, error: Exception) -> JSONResponse:
    """FastAPI's own answer would echo the input; this one names places and faults only."""
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    lines = [_fault_line(fault) for fault in faults[:20]]
    if len(faults) > len(lines):
        lines.append(f"and {len(faults) - len(lines)} more")
    return JSONResponse({"detail": "; ".join(lines) or "the request is not understood"}, status_code=422)


def _fault_line(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "json_invalid":
        place = fault["loc"][-1]
        return f"the body is not JSON (at character {place}). Send an object with rows or patient."
    where = ".".join(str(part) for part in fault["loc"] if part != "body") or "the body"
    text = f"{where}: {str(fault['msg']).removeprefix('Value error, ')}"
    return text.encode("utf-8", "backslashreplace").decode()


def _score_examples(examples: list[dict[str, Any]]) -> Any:
    if not examples:
        return None
    chosen: dict[str, Any] = {
        "one": {"summary": "One patient", "value": {"patient": examples[0]}},
        "several": {"summary": f"{len(examples)} patients", "value": {"rows": examples}},
    }
    return chosen


def _report_examples(examples: list[dict[str, Any]]) -> Any:
    return {"one": {"summary": "One patient", "value": {"patient": examples[0]}}} if examples else None


class _BodyLimit:
    """Refuses a request body of more than `limit` bytes, whether or not it says its length."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.limit:
                text = f"the request is larger than {self.limit // 1024**2} MB. Send the rows in parts."
                await JSONResponse({"detail": text}, status_code=413)(scope, receive, send)
                return

        delivered = False

        async def replay() -> Message:
            nonlocal delivered
            if delivered:
                return await receive()
            delivered = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self.app(scope, replay, send)
