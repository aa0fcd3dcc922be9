"""How fast boosted trees are explained, and in how much memory: ours beside LightGBM's pred_contrib and shap.TreeExplainer.

    python bench/treeshap.py [--trees 500] [--leaves 63] [--features 300] [--rows 256] [--most-rows 100000]

One model, grown on made-up rows with missing values and categories; one thread; the same rows for all. The three take turns, so
that what else the machine does falls on all; each figure is the best of its turns. Compilation, once per installation, and
memory are measured in processes of their own. Prints tables; asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
CATEGORICAL = 10  # of the features
TURNS = 7


def make_rows(n: int, features: int, seed: int) -> Any:
    """Return rows of numbers, the first few columns categories of 12 levels, a tenth missing."""
    import numpy as np

    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, features))
    X[:, :CATEGORICAL] = rng.integers(0, 12, (n, CATEGORICAL))
    for begin in range(0, n, 1000):
        part = X[begin : begin + 1000]
        part[rng.random(part.shape) < 0.1] = np.nan
    return X


def grow(trees: int, leaves: int, features: int, path: Path) -> None:
    """Write a model as LightGBM's text."""
    import lightgbm
    import numpy as np

    X = make_rows(20_000, features, 1)
    rng = np.random.default_rng(2)
    Z = np.nan_to_num(X)
    signal = Z @ (rng.normal(size=features) * (rng.random(features) < 0.2)) + 2 * Z[:, -1] * Z[:, -2]
    y = signal + 2 * (Z[:, 0] % 3 == 1) + rng.normal(size=len(X)) > 0
    settings = {"objective": "binary", "num_leaves": leaves, "learning_rate": 0.05, "feature_fraction": 0.7}
    data = lightgbm.Dataset(X, y, categorical_feature=list(range(CATEGORICAL)))
    lightgbm.train(settings | {"verbosity": -1, "seed": 1, "num_threads": 1}, data, trees).save_model(path)


def best(calls: dict[str, Callable[[], Any]], turns: int, repeats: int) -> dict[str, float]:
    """Return milliseconds of each call, the best of turns x repeats, turn about."""
    found = dict.fromkeys(calls, float("inf"))
    for _ in range(turns):
        for name, call in calls.items():
            for _ in range(repeats):
                begun = time.perf_counter()
                call()
                found[name] = min(found[name], 1000 * (time.perf_counter() - begun))
    return found


def side_by_side(path: Path, rows: int) -> None:
    """Print milliseconds a row of the three, alone and many."""
    import warnings

    import lightgbm
    import numpy as np

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import shap
    from theracast_models.treeshap import TreeShap

    booster = lightgbm.Booster(model_file=path)
    X = make_rows(rows, booster.num_feature(), 3)
    begun = time.perf_counter()
    ours = TreeShap.read(path.read_text(encoding="utf-8"))
    print(f"reading the text and laying out the trees: {1000 * (time.perf_counter() - begun):.0f} ms, once a model")
    explainer = shap.TreeExplainer(booster)

    def contributions(part: Any) -> Any:
        return booster.predict(part, pred_contrib=True, num_threads=1)

    expected = contributions(X)
    gap = max(np.abs(ours.values(X) - expected[:, :-1]).max(), abs(ours.base - expected[0, -1]))
    print(f"largest difference from pred_contrib: {gap:.1e}, where the largest value is {np.abs(expected).max():.2g}")
    print(f"\n{'ms a row':28}{'ours':>10}{'pred_contrib':>14}{'shap':>10}{'times as fast':>22}")
    for label, part, repeats in (("one row", X[:1], 10), (f"{rows} rows", X, 1)):
        calls: dict[str, Callable[[], Any]] = {
            "ours": lambda part=part: ours.values(part),  # type: ignore[misc]
            "contrib": lambda part=part: contributions(part),  # type: ignore[misc]
            "shap": lambda part=part: explainer.shap_values(part),  # type: ignore[misc]
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = {name: value / len(part) for name, value in best(calls, TURNS, repeats).items()}
        faster = f"{found['contrib'] / found['ours']:12.1f}{found['shap'] / found['ours']:10.1f}"
        print(f"{label:28}{found['ours']:10.3f}{found['contrib']:14.2f}{found['shap']:10.2f}{faster}", flush=True)
    alone = best({"predict": lambda: booster.predict(X[:1], raw_score=True, num_threads=1)}, 3, 20)
    print(f"{'one row, score alone':28}{'':10}{alone['predict']:14.3f}")


def memory(path: Path, rows: int) -> dict[str, float]:
    """Return seconds and megabytes of an explanation of so many rows in this process."""
    from theracast_models.treeshap import TreeShap

    ours = TreeShap.read(path.read_text(encoding="utf-8"))
    X = make_rows(rows, ours.features, 3)
    few = make_rows(64, ours.features, 4)
    first = {}
    for name, part in (("first row", few[:1]), ("first block", few)):
        begun, used = time.perf_counter(), time.process_time()
        ours.values(part)
        first[name] = time.perf_counter() - begun
        first[f"CPU of {name}"] = time.process_time() - used
    reset = Path("/proc/self/clear_refs")  # Linux: the peak starts anew
    if os.access(reset, os.W_OK):
        reset.write_text("5", encoding="ascii")
    held = _status("VmRSS")
    begun = time.perf_counter()
    answer = ours.values(X)
    seconds = time.perf_counter() - begun
    peak = _status("VmHWM")
    sizes = {"rows": X.nbytes / 1e6, "answer": answer.nbytes / 1e6}
    return sizes | first | {"seconds": seconds, "peak": peak, "beside": peak - held - answer.nbytes / 1e6}


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1.024e-3 * int(next(line.split()[1] for line in lines if line.startswith(name + ":")))


def in_new_process(path: Path, rows: int, cache: Path | None = None) -> dict[str, float]:
    command = [sys.executable, __file__, "--model", str(path), "--rows", str(rows)]
    environment = os.environ | ONE_THREAD | ({} if cache is None else {"NUMBA_CACHE_DIR": str(cache)})
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("trees", 500), ("leaves", 63), ("features", 300), ("rows", 256), ("most-rows", 100_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]
    if given.model:
        print(json.dumps(memory(given.model, given.rows)))
        return
    os.environ |= ONE_THREAD
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.txt"
        grow(given.trees, given.leaves, given.features, path)
        print(f"{given.trees} trees x {given.leaves} leaves x {given.features} features, one thread")
        print(f"{'first call of a process, s':28}{'one row':>10}{'CPU':>8}{'a block':>10}{'CPU':>8}")
        for label in ("compiles, once a machine", "reads what was compiled"):
            found = in_new_process(path, 1, Path(name) / "numba")
            figures = [found[part] for part in ("first row", "CPU of first row", "first block", "CPU of first block")]
            print(f"{label:28}{figures[0]:10.2f}{figures[1]:8.2f}{figures[2]:10.2f}{figures[3]:8.2f}", flush=True)
        side_by_side(path, given.rows)
        print(
            f"\n{'ours, in a process of its own':32}{'ms a row':>10}{'X MB':>8}{'answer MB':>11}{'peak beside both MB':>21}"
        )
        rows = 1000
        while rows <= given.most_rows:
            found = in_new_process(path, rows)
            print(
                f"{rows:>20,} rows{'':7}{1000 * found['seconds'] / rows:10.3f}{found['rows']:8.0f}{found['answer']:11.0f}"
                f"{max(found['beside'], 0):21.1f}",
                flush=True,
            )
            rows *= 10


if __name__ == "__main__":
    main()
