"""The network over pictures of regions: what it learns, what it must not learn, and what always holds of its answers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from theracast_data.errors import ArtifactError, CohortError
from theracast_features.imaging.patch import encode_patch
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models import network
from theracast_models.convolution import Convolution
from theracast_models.fitting import CalibratedModel, Recipe, build_model, fit_calibrated, out_of_fold, patient_folds
from theracast_models.logodds import Floats, expit, logit

EDGE = 10
CT, PET, AGE = "image.ct.patch", "image.pet.patch", "clin.age"
CNN = Recipe("cnn", {"learning_rate": 3e-3, "channels": 4, "epochs": 12})
STACK = Recipe("stack", {"members": [Recipe("elasticnet", {"c": 0.3}), CNN], "folds": 3})


def picture(rng: np.random.Generator, y: float) -> NDArray[np.uint8]:
    """Return a ball whose texture runs across it in fine stripes in responders and in broad ones in others.

    Size, mean and standard deviation of the intensities are drawn alike, so that measurements of them say nothing.
    """
    z, row, column = np.indices((EDGE, EDGE, EDGE)) - (EDGE - 1) / 2
    ball = z**2 + row**2 + column**2 < rng.uniform(3, 4.8) ** 2
    period = 4 if y else 10
    waves = np.sin(2 * np.pi * (column / period + rng.random()))
    intensity = 120 + 12 * rng.normal(size=ball.shape) + ball * (rng.uniform(-10, 10) + 45 * waves)
    return np.stack([intensity.clip(0, 255), ball]).astype(np.uint8)


def pictured(seed: int = 0, n: int = 80, *, missing: float = 0.0, pet: bool = False) -> tuple[FeatureTable, Floats]:
    """Return n decisions with an age that says a little and pictures that say much, and the outcomes."""
    rng = np.random.default_rng(seed)
    y = (np.arange(n) % 2).astype(np.float64)
    rng.shuffle(y)
    specs = [FeatureSpec(AGE, "clinical", "numeric", "Age", ("age",)), _spec(CT, "patch.ct")]
    specs += [_spec(PET, "patch.pet")] if pet else []
    columns: dict[str, Any] = {AGE: 60 + 8 * rng.normal(size=n) + 4 * y}
    decisions = pd.DataFrame({"subject_id": [str(one) for one in range(n)], "site": "A", "index_time": pd.NaT})
    for spec in specs[1:]:
        there = rng.random(n) >= missing
        texts = [encode_patch(picture(rng, one)) if seen else None for one, seen in zip(y, there, strict=True)]
        decisions[spec.columns[0]] = pd.array(texts, dtype="str")
        columns[spec.name] = np.where(there, 1.0, np.nan)
    return FeatureTable(pd.DataFrame(columns), tuple(specs), decisions), y


def _spec(name: str, column: str) -> FeatureSpec:
    kind = name.split(".")[1].upper()
    return FeatureSpec(name, "imaging", "boolean", f"{kind}, picture", (column,), role="picture")


@pytest.fixture(scope="module")
def learned() -> tuple[Convolution, FeatureTable, Floats]:
    table, y = pictured(n=100)
    return Convolution(seed=1, learning_rate=3e-3, epochs=40).fit(table, y), table, y


def test_a_planted_texture_is_found_in_patients_it_has_not_seen(learned: Any) -> None:
    asked, truth = pictured(77, n=60)
    assert roc_auc_score(truth, learned[0].log_odds(asked)) > 0.9


def test_where_there_is_nothing_to_find_it_says_little() -> None:
    """Outcomes shuffled against the pictures: early stopping keeps the answers near the base."""
    table, y = pictured(3)
    shuffled = np.random.default_rng(0).permutation(y)
    folds = patient_folds(table, shuffled, folds=2, seed=0)
    found = out_of_fold(CNN, table, shuffled, folds, seed=0)
    loss = np.logaddexp(0, np.where(shuffled == 1, -found, found)).mean()
    assert loss < np.log(2) + 0.15


def test_the_explanation_adds_up_and_all_of_it_belongs_to_the_picture(learned: Any) -> None:
    model, _, y = learned
    asked, _ = pictured(5, n=20, missing=0.5)
    base, phi = model.contributions(asked)
    np.testing.assert_array_equal(base + phi.sum(axis=1), model.log_odds(asked))
    np.testing.assert_array_equal(base, float(logit((y.sum() + 0.5) / (len(y) + 1))))
    assert not phi[:, 0].any()
    there = asked.frame[CT].notna().to_numpy()
    assert (phi[there, 1] != 0).all()
    np.testing.assert_array_equal(model.log_odds(asked)[~there], base[~there])


def test_no_picture_moves_the_log_odds_by_more_than_four(learned: Any) -> None:
    """Not even one that is nothing like those of the training, to a network that is sure of itself."""
    model = deepcopy(learned[0])
    with torch.no_grad():
        model.networks_[CT].head.weight.mul_(1000.0)
    asked, _ = pictured(5, n=12)
    odd = np.stack([np.indices((EDGE,) * 3).sum(axis=0) % 2 * 255, np.ones((EDGE,) * 3)]).astype(np.uint8)
    texts = pd.array([encode_patch(odd), *asked.decisions["patch.ct"][1:]], dtype="str")
    shares = model.contributions(replace(asked, decisions=asked.decisions.assign(**{"patch.ct": texts})))[1][:, 1]
    assert np.abs(shares).max() <= network.MOST_LOG_ODDS == 4.0


def test_one_without_a_picture_is_told_so(learned: Any) -> None:
    asked, _ = pictured(5, n=20, missing=0.5)
    gone = asked.frame[CT].isna().to_numpy()
    assert [gap.unpictured for gap in learned[0].gaps(asked)] == [(CT,) if one else () for one in gone]
    told = learned[0].handled(asked)
    sentence = "Not there, so the answer does without it: CT, picture."
    assert told == [[sentence] if one else [] for one in gone]


def test_the_same_seed_gives_the_same_network_and_leaves_pytorch_as_it_was() -> None:
    table, y = pictured(2, n=40)
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first = build_model(CNN, seed=3).fit(table, y).log_odds(table)
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, False)
    torch.manual_seed(6)
    np.testing.assert_array_equal(build_model(CNN, seed=3).fit(table, y).log_odds(table), first)
    assert not np.array_equal(build_model(CNN, seed=4).fit(table, y).log_odds(table), first)


def test_one_decision_alone_gets_the_answer_it_gets_among_others(learned: Any) -> None:
    model, table, _ = learned
    alone = [model.log_odds(table.take([row]))[0] for row in range(8)]
    np.testing.assert_allclose(alone, model.log_odds(table)[:8], rtol=0, atol=1e-12)
    assert model.log_odds(table.take([])).shape == (0,)
    assert model.contributions(table.take([]))[1].shape == (0, 2)


def test_a_saved_network_answers_the_same_bit_by_bit(learned: Any, tmp_path: Path) -> None:
    model, table, _ = learned
    model.save(tmp_path / "cnn")
    assert {path.name for path in (tmp_path / "cnn").iterdir()} == {"model.json", "network-0.safetensors"}
    again = Convolution.load(tmp_path / "cnn")
    np.testing.assert_array_equal(again.log_odds(table), model.log_odds(table))
    np.testing.assert_array_equal(deepcopy(model).log_odds(table), model.log_odds(table))
    assert sum(path.stat().st_size for path in (tmp_path / "cnn").iterdir()) < 100_000
    weights = tmp_path / "cnn" / "network-0.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ArtifactError, match=r"network-0.safetensors.*damaged"):
        Convolution.load(tmp_path / "cnn")


def test_two_kinds_of_image_add_up_and_one_may_be_missing(tmp_path: Path) -> None:
    table, y = pictured(4, n=50, missing=0.4, pet=True)
    model = build_model(CNN, seed=0).fit(table, y)
    base, phi = model.contributions(table)
    np.testing.assert_array_equal(base + phi.sum(axis=1), model.log_odds(table))
    np.testing.assert_array_equal(phi[:, 1:] != 0, table.frame[[CT, PET]].notna().to_numpy())
    model.save(tmp_path / "cnn")
    np.testing.assert_array_equal(Convolution.load(tmp_path / "cnn").contributions(table)[1], phi)
    without = replace(table, decisions=table.decisions.assign(**{"patch.pet": pd.array([None] * 50, dtype="str")}))
    np.testing.assert_array_equal(model.contributions(without)[1][:, 1], phi[:, 1])


def test_a_table_without_any_picture_is_refused_and_a_column_without_any_gives_the_base(tmp_path: Path) -> None:
    table, y = pictured(n=20, missing=1.0)
    model = build_model(CNN, seed=0).fit(table, y)
    np.testing.assert_allclose(model.log_odds(table), 0.0, atol=1e-12)
    assert [gap.unpictured for gap in model.gaps(table)] == [()] * 20, "of nothing learned, nothing is missed"
    model.save(tmp_path / "cnn")
    np.testing.assert_array_equal(Convolution.load(tmp_path / "cnn").log_odds(table), model.log_odds(table))
    with pytest.raises(CohortError, match=r"Say `patch` in features.images.NAME"):
        build_model(CNN, seed=0).fit(table.select([AGE]), y)


def test_weights_count_and_what_has_none_is_not_looked_at() -> None:
    table, y = pictured(6, n=40)
    weight = np.where(np.arange(40) < 30, 1.0, 0.0)
    weighted = build_model(CNN, seed=0).fit(table, y, weight=weight)
    cut = build_model(CNN, seed=0).fit(table.take(np.arange(30)), y[:30])
    np.testing.assert_array_equal(weighted.log_odds(table), cut.log_odds(table))
    heavy = build_model(CNN, seed=0).fit(table, y, weight=np.where(y == 1, 3.0, 1.0))
    assert heavy.base_ == pytest.approx(float(logit((3 * y.sum() + 0.5) / (3 * y.sum() + (1 - y).sum() + 1))))


def test_the_fold_that_is_judged_teaches_nothing_and_patients_are_not_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poisoned pictures of the judged fold change no network; the patients held back are no training patients."""
    table, y = pictured(7, n=64)
    order = np.argsort(y, kind="stable")
    subjects = [str(number // 2) for number in range(64)]  # two decisions each, of one outcome
    table, y = table.take(order), y[order]
    table = replace(table, decisions=table.decisions.assign(subject_id=subjects))
    folds = patient_folds(table, y, folds=2, seed=1)
    texts = table.decisions["patch.ct"].to_numpy(dtype=object).copy()
    texts[folds[0][1]] = encode_patch(np.full((2, EDGE, EDGE, EDGE), 1, np.uint8))
    poisoned = replace(table, decisions=table.decisions.assign(**{"patch.ct": pd.array(texts, dtype="str")}))
    seen: list[list[Floats]] = []
    whole = network.train_networks

    def listening(pictures: Any, *arguments: Any, **options: Any) -> Any:
        networks = whole(pictures, *arguments, **options)
        seen[-1].append(np.concatenate([one.numpy().ravel() for one in networks[CT].state_dict().values()]))
        assert len(seen) > 1 or networks[CT].head.weight.detach().any(), "of clean pictures it has learned something"
        own = np.array(seen_subjects[len(seen[-1]) - 1])
        assert not set(own[options["train"]]) & set(own[options["held_back"]])
        assert len(options["held_back"]) > 0
        return networks

    seen_subjects = [[subjects[row] for row in train] for train, _ in folds]
    monkeypatch.setattr(network, "train_networks", listening)
    for one in (table, poisoned):
        seen.append([])
        out_of_fold(replace(CNN, params={**CNN.params, "epochs": 30}), one, y, folds, seed=0)
    clean, dirty = seen
    np.testing.assert_array_equal(clean[0], dirty[0])
    assert not np.array_equal(clean[1], dirty[1])


def test_other_families_do_not_see_that_there_is_a_picture() -> None:
    """A picture is there for responders alone: to elasticnet and lightgbm this is as if it were not said."""
    table, y = pictured(8, n=120, missing=1.0)
    tell = replace(table, frame=table.frame.assign(**{CT: np.where(y == 1, 1.0, np.nan)}))
    for recipe in (
        Recipe("elasticnet", {"c": 1.0}),
        Recipe("lightgbm", {"rounds": 20, "min_data_in_leaf": 5, "feature_fraction": 1.0}),
        Recipe("elasticnet", {"c": 1.0}, "imaging"),
    ):
        model = build_model(recipe, seed=0).fit(tell, y)
        base, phi = model.contributions(tell)
        assert phi.shape == tell.frame.shape
        assert not phi[:, 1].any()
        np.testing.assert_allclose(base + phi.sum(axis=1), model.log_odds(tell), atol=1e-9)
        np.testing.assert_array_equal(model.log_odds(tell), build_model(recipe, seed=0).fit(table, y).log_odds(table))
        assert not any(CT in names for gap in model.gaps(tell) for names in gap)


@pytest.mark.parametrize("recipe", [CNN, STACK], ids=["cnn", "stack"])
def test_a_calibrated_model_with_an_interval_survives_its_folder(recipe: Recipe, tmp_path: Path) -> None:
    table, y = pictured(9, n=60, missing=0.2)
    folds = patient_folds(table, y, folds=2, seed=1)
    fitted = fit_calibrated(recipe, table, y, folds=folds, replicates=10, seed=2)
    low, high = fitted.interval(table)
    assert (low < fitted.probability(table)).all()
    assert (fitted.probability(table) < high).all()
    base, phi = fitted.explain(table)
    np.testing.assert_allclose(expit(base + phi.sum(axis=1)), fitted.probability(table), atol=1e-12)
    fitted.save(tmp_path / "model")
    assert _files(tmp_path / "model") <= {".json", ".safetensors"}
    again = CalibratedModel.load(tmp_path / "model")
    assert again.recipe.to_json() == recipe.to_json()
    np.testing.assert_array_equal(again.log_odds(table), fitted.log_odds(table))
    np.testing.assert_array_equal(again.interval(table), (low, high))
    assert again.model.gaps(table) == fitted.model.gaps(table)
    record = json.loads((tmp_path / "model" / "calibrated.json").read_text())
    assert len(record["replicate_calibrations"]) == 10


def test_in_a_stack_the_picture_counts_beside_the_numbers() -> None:
    table, y = pictured(10, n=90)
    strong = Recipe("cnn", {"learning_rate": 3e-3, "epochs": 30})
    model = build_model(Recipe("stack", {"members": [Recipe("elasticnet"), strong], "folds": 2}), seed=0).fit(table, y)
    asked, truth = pictured(11, n=60)
    alone = build_model(Recipe("elasticnet"), seed=0).fit(table, y)
    assert roc_auc_score(truth, model.log_odds(asked)) > roc_auc_score(truth, alone.log_odds(asked)) + 0.05
    assert model.contributions(asked)[1][:, 1].any()


def test_pytorch_is_imported_by_those_alone_who_train_or_ask_a_network() -> None:
    ask = "import sys, theracast_models.response_model, theracast_models.fitting; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


def _files(folder: Path) -> set[str]:
    found: Sequence[Path] = [path for path in folder.rglob("*") if path.is_file()]
    return {path.suffix for path in found}
