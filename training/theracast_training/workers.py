"""Runs the tasks of a training in worker processes; none outlives the command that started it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from multiprocessing.queues import SimpleQueue
from typing import Any, TypeVar

from theracast_training.develop import Task, TaskResult, run_task

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_progress: Any = None


def run_tasks(tasks: Sequence[Task], *, jobs: int, on_trial: Callable[[], None]) -> list[TaskResult]:
    """Return the result of each task, in their order; `jobs` processes share the work.

    The results do not depend on `jobs`: every task is seeded by itself and linear algebra runs on one thread.
    """
    if jobs <= 1 or len(tasks) <= 1:
        return [run_task(task, on_trial) for task in tasks]
    context = multiprocessing.get_context("spawn")
    queue: SimpleQueue[int] = context.SimpleQueue()
    with (
        _environment(dict.fromkeys(_ONE_THREAD, "1")),
        ProcessPoolExecutor(
            min(jobs, len(tasks)), mp_context=context, initializer=_start_worker, initargs=(queue, os.getpid())
        ) as pool,
    ):
        futures = [pool.submit(_run_in_worker, task) for task in tasks]
        try:
            _follow(futures, queue, on_trial)
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def call_in_workers(function: Callable[[Asked], Answer], asked: Sequence[Asked], *, jobs: int) -> list[Answer]:
    """Return what a module's function gives for each, in their order; `jobs` processes share the work."""
    if jobs <= 1 or len(asked) <= 1:
        return [function(one) for one in asked]
    context = multiprocessing.get_context("spawn")
    with (
        _environment(dict.fromkeys(_ONE_THREAD, "1")),
        ProcessPoolExecutor(
            min(jobs, len(asked)),
            mp_context=context,
            initializer=_start_worker,
            initargs=(context.SimpleQueue(), os.getpid()),
        ) as pool,
    ):
        try:
            return list(pool.map(function, asked))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _follow(futures: Sequence[Future[TaskResult]], queue: SimpleQueue[int], on_trial: Callable[[], None]) -> None:
    """Count trials until all tasks are done; the first that fails ends the wait."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=0.2)
        for future in done:
            future.result()
        while not queue.empty():
            queue.get()
            on_trial()


def _start_worker(queue: Any, parent: int) -> None:
    global _progress  # noqa: PLW0603  (a worker process has one progress queue, set once)
    _progress = queue
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()


def _end_with_parent(parent: int) -> None:
    """End this process when the command is gone: an orphan would hold the journals and go on writing."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _run_in_worker(task: Task) -> TaskResult:
    return run_task(task, lambda: _progress.put(1))


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
