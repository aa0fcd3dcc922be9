"""The command as its user starts it, and one trained demo cohort for all end-to-end tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from theracast_data.synthetic import Truth, generate

NO_STATISTICS = "statistics: {optimism: 0, learning_curve: 0}"


@dataclass(frozen=True)
class Workplace:
    """A folder with the synthetic files, a study and a state folder of its own."""

    folder: Path
    truth: Truth

    @property
    def study(self) -> Path:
        return self.folder / "study.yaml"

    @property
    def environment(self) -> dict[str, str]:
        own = {"THERACAST_HOME": str(self.folder / "state"), "THERACAST_DATA": str(self.folder / "data")}
        rest = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        return rest | own

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "theracast", *map(str, arguments)]
        return subprocess.Popen(
            command, env=self.environment, cwd=self.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "theracast", *map(str, arguments)]
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, text=True, capture_output=True, check=False
        )
        assert done.returncode == code, f"exit {done.returncode}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        return done

    def json(self, *arguments: object, code: int = 0) -> Any:
        """Run a verb with --json and return the one object that it prints."""
        return json.loads(self.run(*arguments, "--json", code=code).stdout)


@pytest.fixture(scope="session")
def new_workplace(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Workplace]:
    def make(*, patients: int = 600) -> Workplace:
        folder = tmp_path_factory.mktemp("work")
        truth = generate(folder / "data", patients=patients)
        text = (repository / "studies" / "demo_table.yaml").read_text(encoding="utf-8")
        text = text.replace("study: demo-table", "study: demo")
        # What a training asks of its own figures is tried in test_endpoints_road; elsewhere it would only take time.
        text = text.replace("report: {bootstrap: 500}", f"report: {{bootstrap: 500, {NO_STATISTICS}}}")
        (folder / "study.yaml").write_text(text, encoding="utf-8")
        return Workplace(folder, truth)

    return make


@pytest.fixture(scope="session")
def trained(new_workplace: Callable[..., Workplace]) -> tuple[Workplace, dict[str, Any]]:
    """A workplace with the demo trained in it, and what `train --json` said."""
    place = new_workplace()
    return place, place.json("train", place.study, "--trials", 4)
