"""The same patients through every door of one model: all must hear the same answer."""

from __future__ import annotations

import http.client
import json
import logging
import math
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from theracast_data.errors import ArtifactError, TheracastError
from theracast_models.response_model import ResponseModel
from theracast_serving.app import create_app
from theracast_serving.course import with_changes
from theracast_serving.describe import example_answers, example_rows
from theracast_serving.load import (
    RegisteredVersion,
    downloaded,
    load_model,
    local_folder,
    resolve_version,
)
from theracast_serving.score import score_frame

logger = logging.getLogger(__name__)

ADDITIVITY = 1e-6
COMMAND_SECONDS = 300
START_SECONDS = 30
Answer = dict[str, Any]


@dataclass(frozen=True)
class PathResult:
    """How one door answered: against the answers of Python's, and whether its explanations add up.

    Attributes:
        path: name of the door.
        patients: how many it answered.
        max_difference: largest difference of any number from the reference, None where nothing could be compared.
        max_additivity: largest `|answer on its scale - base - sum of contributions|`.
        seconds: duration, starting the door included.
        ok: agrees and adds up; None where the door does not exist for this model.
        note: what went wrong, or why it does not apply.
    """

    path: str
    patients: int
    max_difference: float | None
    max_additivity: float | None
    seconds: float
    ok: bool | None
    note: str = ""


@dataclass(frozen=True)
class VerifyReport:
    """Whether all doors of a model give one answer."""

    model: str
    tolerance: float
    paths: tuple[PathResult, ...]

    @property
    def passed(self) -> bool:
        """True where every door that exists agrees, and at least one was tried."""
        judged = [path.ok for path in self.paths if path.ok is not None]
        return bool(judged) and all(judged)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return {
            "model": self.model,
            "passed": self.passed,
            "tolerance": self.tolerance,
            "additivity_tolerance": ADDITIVITY,
            "paths": [asdict(path) for path in self.paths],
        }

    def to_text(self) -> str:
        """Return the report as a table, with the verdict below it."""
        header = f"{'path':<12} {'patients':>8} {'max difference':>15} {'max additivity':>15} {'seconds':>8}  result"
        lines = [f"{self.model}", header, "-" * len(header)]
        for path in self.paths:
            result = {True: "ok", False: "FAILED", None: "n/a"}[path.ok]
            lines.append(
                f"{path.path:<12} {path.patients:>8} {_number(path.max_difference):>15} "
                f"{_number(path.max_additivity):>15} {path.seconds:>8.2f}  {result}"
                + (f": {path.note}" if path.note else "")
            )
        verdict = "all paths agree" if self.passed else "the paths do NOT agree; do not use this model"
        lines.append(f"{verdict} (tolerance {self.tolerance:g}; explanations add up to {ADDITIVITY:g})")
        return "\n".join(lines)


def verify(reference: str | Path, *, tolerance: float = 1e-9) -> VerifyReport:
    """Return whether Python, command line, MLflow model and REST give the stored example patients one answer.

    Args:
        reference: what `load_model` takes.
        tolerance: largest difference allowed in any probability, bound, base or contribution.

    Raises:
        ArtifactError: the model stores no example patients, or cannot be loaded.
        RegistryError: the registry does not know the reference.
    """
    version = None if local_folder(reference) is not None else resolve_version(str(reference))
    fixed = str(reference) if version is None else version.uri
    model = load_model(fixed)
    rows = example_rows(model)
    if not rows:
        raise ArtifactError(f"{fixed}: the model stores no example patients to replay. Train it again.")
    started = time.perf_counter()
    expected = _by_python(model, rows)
    seconds = time.perf_counter() - started
    stored = example_answers(model)
    paths = [
        _stored_result(stored, _without_changes(expected), seconds, tolerance),
        _try("one by one", lambda: _one_by_one(model, rows), expected, tolerance),
        _try("cli", lambda: _by_command(fixed, rows), expected, tolerance),
        _no_mlflow()
        if version is None
        else _try("mlflow", lambda: _by_mlflow(version, rows), _without_changes(expected), tolerance),
        _try("rest", lambda: _by_rest(model, rows), expected, tolerance),
    ]
    return VerifyReport(model.identity, tolerance, tuple(paths))


def largest_difference(found: Sequence[Mapping[str, Any]], expected: Sequence[Mapping[str, Any]]) -> float:
    """Return the largest difference of any number between two lists of answers; infinite where anything else differs.

    All that stands in a record counts: the answers of every endpoint, horizon and level, and what is said beside them.
    """
    return _apart(list(found), list(expected))


def _apart(one: Any, other: Any) -> float:
    """Return how far two JSON contents lie apart; what is null in one may be absent in the other."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return max((_apart(one.get(key), other.get(key)) for key in {*one, *other}), default=0.0)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return math.inf
        return max((_apart(mine, theirs) for mine, theirs in zip(one, other, strict=True)), default=0.0)
    if _is_number(one) and _is_number(other):
        distance = abs(float(one) - float(other))
        return distance if math.isfinite(distance) else math.inf
    return 0.0 if one == other and isinstance(one, bool) == isinstance(other, bool) else math.inf


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def additivity_error(answers: Sequence[Mapping[str, Any]]) -> float:
    """Return the largest `|answer on its scale - base - sum of contributions|`, over features, modalities and endpoints."""
    largest = 0.0
    for answer in answers:
        if "abstained" in answer:
            continue
        told = _on_its_scale(answer)
        if told is None:
            return math.inf
        for key in ("contributions", "modalities"):
            error = abs(told - float(answer["base"]) - math.fsum(answer[key].values()))
            largest = max(largest, error if math.isfinite(error) else math.inf)
        largest = max(largest, additivity_error(list((answer.get("endpoints") or {}).values())))
    return largest


def _on_its_scale(answer: Mapping[str, Any]) -> float | None:
    """Return the leading answer as log-odds, log cumulative hazard or number; None for a probability of 0 or 1."""
    if "on_scale" in answer:  # a competing event may come first: the chance is no function of this hazard alone
        return float(answer["on_scale"])
    if "value" in answer:
        return float(answer["value"])
    probability = float(answer["probability"])
    if not 0 < probability < 1:
        return None
    if answer.get("kind") == "time_to_event":
        return math.log(-math.log1p(-probability))
    return math.log(probability) - math.log1p(-probability)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"


def _by_python(model: ResponseModel, rows: list[dict[str, Any]]) -> list[Answer]:
    frame = pd.DataFrame(rows)
    return with_changes(model, frame, score_frame(model, frame))


def _without_changes(answers: Sequence[Answer]) -> list[Answer]:
    """Return the answers as the model itself gives them: what changed is told by those who ask it twice."""
    return [
        {
            key: {name: _without_changes([one])[0] for name, one in value.items()} if key == "endpoints" else value
            for key, value in answer.items()
            if key != "change"
        }
        for answer in answers
    ]


def _one_by_one(model: ResponseModel, rows: list[dict[str, Any]]) -> list[Answer]:
    return [answer for row in rows for answer in _by_python(model, [row])]


def _by_command(reference: str, rows: list[dict[str, Any]]) -> list[Answer]:
    with tempfile.TemporaryDirectory(prefix="theracast-verify-") as folder:
        file = Path(folder) / "examples.json"
        file.write_text(json.dumps(rows), encoding="utf-8")
        command = [sys.executable, "-m", "theracast", "score", reference, str(file), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ArtifactError(f"`theracast score` ended with {done.returncode}: {last}")
    return list(json.loads(done.stdout)["rows"])


def _by_mlflow(version: RegisteredVersion, rows: list[dict[str, Any]]) -> list[Answer]:
    with downloaded(version) as folder, warnings.catch_warnings():
        # MLflow warns of its own type annotations on import, and of package versions on loading; neither is a fault.
        warnings.simplefilter("ignore")
        from mlflow import pyfunc

        answer = pyfunc.load_model(str(folder)).predict(pd.DataFrame(rows))
    # What stands in some rows only, such as a refusal, is NaN in the others.
    return [
        {str(key): value for key, value in record.items() if not (isinstance(value, float) and math.isnan(value))}
        for record in answer.to_dict("records")
    ]


def _no_mlflow() -> PathResult:
    note = "no MLflow model around this folder; verify the registered version for that"
    return PathResult("mlflow", 0, None, None, 0.0, None, note)


def _by_rest(model: ResponseModel, rows: list[dict[str, Any]]) -> list[Answer]:
    with running_server(model) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=COMMAND_SECONDS)
        try:
            body = json.dumps({"rows": rows})
            connection.request("POST", "/v1/score", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = json.loads(response.read())
        finally:
            connection.close()
    if response.status != 200:
        raise ArtifactError(f"POST /v1/score answered {response.status}: {content.get('detail')}")
    return list(content["rows"])


@contextmanager
def running_server(model: ResponseModel) -> Iterator[int]:
    """Yield the loopback port of a real server with this model, which runs in a thread until the block ends."""
    import uvicorn

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    port: int = listener.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(create_app(model), log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + START_SECONDS
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise ArtifactError("the web server did not start on a free loopback port.")
            time.sleep(0.01)
        yield port
    finally:
        server.should_exit = True
        thread.join(timeout=START_SECONDS)
        listener.close()


def _try(path: str, ask: Callable[[], list[Answer]], expected: list[Answer], tolerance: float) -> PathResult:
    """Return how one door did; a door that fails is a result, so that the others are still tried."""
    started = time.perf_counter()
    try:
        answers = ask()
    except TheracastError as error:
        return PathResult(path, 0, None, None, time.perf_counter() - started, False, str(error))
    except Exception as error:
        logger.debug("verify: path %s failed", path, exc_info=True)
        return PathResult(
            path, 0, None, None, time.perf_counter() - started, False, f"failed with {type(error).__name__}"
        )
    return _judge(path, answers, expected, time.perf_counter() - started, tolerance)


def _judge(path: str, answers: list[Answer], expected: list[Answer], seconds: float, tolerance: float) -> PathResult:
    difference, error = largest_difference(answers, expected), additivity_error(answers)
    faults = []
    if not difference <= tolerance:
        faults.append("answers differ")
    if not error <= ADDITIVITY:
        faults.append("explanations do not add up")
    return PathResult(path, len(answers), difference, error, seconds, not faults, "; ".join(faults))


def _stored_result(stored: list[Answer] | None, answers: list[Answer], seconds: float, tolerance: float) -> PathResult:
    """Judge Python's answers of today against those stored when the model was saved."""
    if stored is None:
        note = "the model stores no answers of its examples; compared with nothing"
        return PathResult("python", len(answers), None, additivity_error(answers), seconds, False, note)
    return _judge("python", answers, stored, seconds, tolerance)
