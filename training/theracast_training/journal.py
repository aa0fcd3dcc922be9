"""The tuning journal: one append-only file per search that survives SIGKILL at any moment."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.trial import TrialState

from theracast_data.errors import TheracastError


class _Held(BaseJournalFileLock):
    """No lock a write: `open_journal` holds the whole file, and the kernel frees it when a process is killed.

    Optuna's own lock is a link that outlives a killed process and blocks the next one for 30 seconds.
    """

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


class _Journal(JournalFileBackend):
    """Hands every line to the kernel at once, which a killed process cannot take back, but does not wait for the disk.

    Optuna waits for the disk at each of some ten lines a trial. A power failure may so cost the last trials, which are
    then run again; it cannot spoil the file, whose last line is mended when it is opened.
    """

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with Path(self._file_path).open("ab", buffering=0) as file:
            file.write(lines.encode("utf-8"))


@contextmanager
def open_journal(path: Path) -> Iterator[JournalStorage]:
    """Give the storage of one search, held by this process alone and mended after a kill.

    A line that was cut off is removed (its trial was not finished), and trials that were running count as failed.

    Raises:
        TheracastError: another process is at work on the same search.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".owner").open("w") as owner:
        try:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TheracastError(
                f"{path.name}: another `theracast train` is at work on the same study. Wait for it, or set another THERACAST_HOME."
            ) from error
        _cut_partial_line(path)
        storage = JournalStorage(_Journal(str(path), lock_obj=_Held()))
        _fail_interrupted(storage)
        yield storage


def _cut_partial_line(path: Path) -> None:
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
            file.flush()
            os.fsync(file.fileno())


def _fail_interrupted(storage: JournalStorage) -> None:
    for study in storage.get_all_studies():
        for trial in storage.get_all_trials(study._study_id, deepcopy=False, states=(TrialState.RUNNING,)):
            storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)


def finished_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials that ran to their end or were pruned, in their order."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
