"""train, evaluate."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime

from theracast.output import print_json, require_free, tell, write_text


def train(options: argparse.Namespace) -> int:
    """Tune, validate and register the model of a study."""
    _one_thread_a_process()
    from theracast.progress import TrialProgress
    from theracast_training.study import read_study
    from theracast_training.train import train as train_study

    overrides = list(options.overrides)
    overrides += [f"search.seed={options.seed}"] if options.seed is not None else []
    overrides += [f"search.trials={options.trials}"] if options.trials is not None else []
    study = read_study(options.study, overrides=overrides)
    if options.report:
        require_free(options.report, overwrite=options.overwrite)
    with TrialProgress() as progress:
        result = train_study(
            study,
            base=options.study.resolve().parent,
            now=datetime.now(UTC),
            jobs=options.jobs or len(os.sched_getaffinity(0)),
            progress=progress,
        )
    if options.report:
        write_text(options.report, result.report, overwrite=options.overwrite)
    if options.json:
        print_json(result.to_json())
    else:
        print(result.to_text())
    tell(f"registered {result.model} with the alias challenger; next: theracast verify {result.model}")
    return 0


def _one_thread_a_process() -> None:
    """Linear algebra on one thread: the same sums in the same order, whatever the number of processes."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def evaluate(options: argparse.Namespace) -> int:
    """Judge a model on a cohort that it has never seen."""
    from theracast_serving.load import load_model
    from theracast_training.external import evaluate_file, evaluation_text
    from theracast_training.study import read_study

    model = load_model(options.model)
    study = read_study(options.study) if options.study else None
    figures = evaluate_file(
        model,
        options.file,
        sheet=options.sheet,
        study=study,
        base=options.study.resolve().parent if options.study else None,
        seed=options.seed,
    )
    if options.json:
        print_json(figures)
    else:
        print(evaluation_text(figures))
    return 0
