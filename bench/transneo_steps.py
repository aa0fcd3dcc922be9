"""What each kind of data adds in TransNEO: AUC by nested cross-validation of the models of `studies/transneo.yaml`, step by step.

    THERACAST_DATA=FOLDER python bench/transneo_steps.py --repeats 5 --trials 20

Every step runs the whole procedure (search, choice of family, calibration) inside each outer fold, on the same folds. An AUC is
that of a repeat's out-of-fold scores; its standard deviation is over repeats, of the mean score over repeats the last column.
Published on 75 external patients (Sammut et al., Nature 2022): clinical 0.70, + DNA 0.80, + RNA 0.86, all 0.87.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.metrics import roc_auc_score

from theracast_data.modality import Modality
from theracast_training.develop import Task, nested_tasks, run_task
from theracast_training.development import final_task
from theracast_training.prepare import Prepared, prepare
from theracast_training.study import read_study

STEPS: tuple[tuple[str, Modality], ...] = (
    ("clinical", "clinical"),
    ("+ DNA", "genomic"),
    ("+ RNA", "transcriptomic"),
    ("+ digital pathology", "pathology"),
    ("+ treatment", "treatment"),
)


def main() -> None:
    """Print one line a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=Path(__file__).parents[1] / "studies" / "transneo.yaml")
    parser.add_argument("--repeats", type=int, default=5, help="repeats of the outer folds")
    parser.add_argument("--trials", type=int, default=20, help="trials a family, in every outer fold")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--families", default="elasticnet,lightgbm,stack")
    options = parser.parse_args()
    families = ", ".join(options.families.split(","))
    overrides = [
        f"validation.scheme.repeats={options.repeats}",
        f"search.trials={options.trials}",
        f"search.seed={options.seed}",
        f"search.families=[{families}]",
    ]
    prepared = prepare(read_study(options.study, overrides=overrides), base=options.study.parent)
    print(f"{options.repeats} x nested cross-validation, {options.trials} trials, seed {options.seed}, {families}")
    print(f"{'step':22} {'features':>8} {'AUC':>6} {'sd':>6} {'mean score':>10}  families chosen  (seconds)")
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(len(STEPS)):
            print(step_line(prepared, number, repeats=options.repeats, journals=Path(scratch)), flush=True)


def step_line(prepared: Prepared, number: int, *, repeats: int, journals: Path) -> str:
    """Return the line of the model that sees the modalities up to this step."""
    started = time.perf_counter()
    seen = {modality for _, modality in STEPS[: number + 1]}
    final = final_task(prepared)
    names = [spec.name for spec in final.table.catalogue if spec.modality in seen]
    task = replace(final, key=f"step{number}", table=final.table.select(names), journals=journals)
    scores, chosen = outer_scores(task, repeats)
    aucs = [roc_auc_score(task.target.y, one) for one in scores]
    whole = roc_auc_score(task.target.y, scores.mean(axis=0))
    counts = ", ".join(f"{family} {chosen.count(family)}" for family in dict.fromkeys(chosen))
    return (
        f"{STEPS[number][0]:22} {len(names):8d} {np.mean(aucs):6.3f} {np.std(aucs):6.3f} {whole:10.3f}  {counts}  "
        f"({time.perf_counter() - started:.0f})"
    )


def outer_scores(task: Task, repeats: int) -> tuple[NDArray[np.float64], list[str]]:
    """Return (repeats, n) calibrated log-odds by models that have not seen the patient, and the families chosen."""
    tasks = nested_tasks(task)
    scores = np.full((repeats, len(task.table)), np.nan)
    chosen = []
    for place, outer in enumerate(tasks):
        result = run_task(outer)
        assert result.judgement is not None
        scores[place * repeats // len(tasks), result.judged] = logit(result.judgement.answers[:, 0])
        chosen.append(result.choice.family)
    return scores, chosen


if __name__ == "__main__":
    main()
