"""The progress display of long commands, on stderr, with the time left."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class TrialProgress:
    """Counts trials and names steps; on a terminal as a bar, elsewhere as a line now and then.

    Args:
        task, unit: what is going on, and what is counted.
        quiet_seconds: between two lines.
    """

    def __init__(self, *, task: str = "tuning", unit: str = "trials", quiet_seconds: float = 15.0) -> None:
        self._name, self._unit = task, unit
        self._terminal = sys.stderr.isatty()
        self._quiet_seconds = quiet_seconds
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not self._terminal,
        )
        self._task: TaskID | None = None
        self._total = 0
        self._done = 0
        self._started = self._last = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, text: str) -> None:
        """Name what is done now."""
        if self._task is not None:
            self._bar.update(self._task, description=text)
        if not self._terminal:
            print(f"theracast: {text}", file=sys.stderr)

    def expect(self, trials: int) -> None:
        """Say how many trials there will be, in addition to those that were said before."""
        self._total += trials
        if self._task is None:
            self._started = self._last = time.monotonic()
            self._task = self._bar.add_task(self._name, total=self._total)
        else:
            self._bar.update(self._task, total=self._total)

    def trial(self) -> None:
        """Count one trial."""
        self._reach(self._done + 1)

    def count(self, done: int, of: int) -> None:
        """Say how many trials are done, and how many there will be."""
        if self._task is None:
            self.expect(of)
        self._reach(done)

    def _reach(self, done: int) -> None:
        self._done = done
        if self._task is not None:
            self._bar.update(self._task, completed=done)
        now = time.monotonic()
        if not self._terminal and now - self._last > self._quiet_seconds:
            self._last = now
            left = (now - self._started) / self._done * (self._total - self._done)
            print(f"theracast: {self._done} of {self._total} {self._unit}, about {left:.0f} s left", file=sys.stderr)
