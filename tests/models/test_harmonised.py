"""A model behind the harmonisation of scanners: what it learns from, and what always holds of its answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.combat import Combat
from theracast_models.fitting import CalibratedModel, Recipe, build_model, fit_calibrated, out_of_fold, patient_folds
from theracast_models.harmonised import Harmonised
from theracast_models.logodds import Floats, LogOddsModel, expit
from theracast_models.sentences import gap_sentences

BATCH = "batch.scanner"
SCANNERS = ("north", "south", "east")
IMAGES = ("image.ct.volume_ml.last.all", "image.ct.mean.last.all", "image.ct.entropy.last.all")

ELASTICNET = Recipe("elasticnet", {"c": 0.5, "l1_ratio": 0.5}, harmonise=True)
LIGHTGBM = Recipe("lightgbm", {"rounds": 20, "min_data_in_leaf": 10}, harmonise=True)
RECIPES = {
    "elasticnet": ELASTICNET,
    "lightgbm": LIGHTGBM,
    "restricted": replace(ELASTICNET, modality="imaging"),
    "late": Recipe("late", {"folds": 3}, harmonise=True),
    "gated": Recipe("gated", harmonise=True),
    "stack": Recipe(
        "stack",
        {
            "folds": 3,
            "members": [
                ELASTICNET.to_json(),
                LIGHTGBM.to_json(),
                replace(ELASTICNET, modality="imaging").to_json(),
                Recipe("elasticnet", {"c": 0.5, "l1_ratio": 0.5}, "lab").to_json(),
            ],
        },
    ),
}


def scanned(seed: int = 0, n: int = 240, *, missing: float = 0.1) -> tuple[FeatureTable, Floats]:
    """Return n decisions of three scanners, of which south shifts and stretches what it measures, and the outcomes."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(n, 3))
    scanner = np.array(SCANNERS)[rng.integers(0, 3, n)]
    seen = np.where((scanner == "south")[:, None], truth * 1.7 + [2.0, -1.5, 3.0], truth)
    frame = pd.DataFrame({IMAGES[0]: np.exp(2 + 0.5 * seen[:, 0]), IMAGES[1]: seen[:, 1], IMAGES[2]: seen[:, 2]})
    frame["lab.albumin"] = rng.normal(4, 0.5, n)
    y = (rng.random(n) < expit(1.5 * truth[:, 0] - truth[:, 1])).astype(np.float64)
    y[:2] = (0.0, 1.0)
    frame = frame.mask(rng.random(frame.shape) < missing)
    catalogue = (
        _spec(IMAGES[0], transform="log1p", batch=BATCH),
        _spec(IMAGES[1], batch=BATCH),
        _spec(IMAGES[2], batch=BATCH),
        FeatureSpec("lab.albumin", "lab", "numeric", "Albumin", ("albumin",)),
    )
    decisions = pd.DataFrame(
        {
            "subject_id": [str(number) for number in range(n)],
            "site": "A",
            "index_time": pd.NaT,
            BATCH: pd.array(scanner.tolist(), dtype="str"),
        }
    )
    return FeatureTable(frame, catalogue, decisions), y


def _spec(name: str, **more: Any) -> FeatureSpec:
    return FeatureSpec(name, "imaging", "numeric", name.split(".")[2].upper(), (name.split(".")[2],), **more)


def strange(table: FeatureTable, seed: int = 9) -> FeatureTable:
    """Return the table with holes, scanners that nobody has seen, and scanners that are not known."""
    rng = np.random.default_rng(seed)
    scanner = table.decisions[BATCH].to_numpy(dtype=object)
    dice = rng.random(len(table))
    scanner = np.where(dice < 0.3, "a new scanner", np.where(dice < 0.5, None, scanner))
    return FeatureTable(
        table.frame.mask(rng.random(table.frame.shape) < 0.3),
        table.catalogue,
        table.decisions.assign(**{BATCH: pd.array(scanner.tolist(), dtype="str")}),
    )


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_explanations_add_up_and_a_saved_model_answers_the_same(recipe: Recipe, tmp_path: Path) -> None:
    table, y = scanned()
    folds = patient_folds(table, y, folds=3, seed=1)
    fitted = fit_calibrated(recipe, table, y, folds=folds, replicates=3, seed=2)
    asked = strange(scanned(5)[0])
    base, phi = fitted.model.contributions(asked)
    assert phi.shape == asked.frame.shape
    assert np.abs(base + phi.sum(axis=1) - fitted.model.log_odds(asked)).max() < 1e-9
    fitted.save(tmp_path / "model")
    again = CalibratedModel.load(tmp_path / "model")
    assert again.recipe == fitted.recipe
    np.testing.assert_array_equal(again.log_odds(asked), fitted.log_odds(asked))
    np.testing.assert_array_equal(again.interval(asked), fitted.interval(asked))
    np.testing.assert_array_equal(again.explain(asked)[1], fitted.explain(asked)[1])
    assert again.model.gaps(asked) == fitted.model.gaps(asked)
    record = json.loads((tmp_path / "model" / "calibrated.json").read_text())["recipe"]
    assert Recipe.from_json(record).to_json() == recipe.to_json()


def test_one_decision_alone_gets_the_answer_it_gets_among_others() -> None:
    table, y = scanned()
    model = build_model(ELASTICNET, seed=0).fit(table, y)
    asked = strange(table)
    together = model.log_odds(asked)
    alone = [model.log_odds(asked.take([row]))[0] for row in range(0, len(asked), 17)]
    np.testing.assert_allclose(alone, together[::17], rtol=0, atol=1e-12)


def test_the_inner_model_sees_what_a_slow_loop_harmonises() -> None:
    """Each feature on the scale of linear models, by ComBat of the decisions that count; then back."""
    table, y = scanned()
    weight = (np.arange(len(table)) % 4 > 0).astype(float)
    model = Harmonised(_Listening())
    model.fit(table, y, weight=weight)
    own = table.take(np.flatnonzero(weight))

    def scale(frame: pd.DataFrame) -> Floats:
        return np.column_stack([np.log1p(frame[IMAGES[0]]), frame[IMAGES[1]], frame[IMAGES[2]]])

    combat = Combat.learn(scale(own.frame), own.decisions[BATCH].tolist(), features=IMAGES)
    expected = combat.apply(scale(table.frame), table.decisions[BATCH].tolist())
    assert isinstance(model.model, _Listening)
    seen = model.model.seen.frame
    np.testing.assert_allclose(np.log1p(seen[IMAGES[0]]), expected[:, 0], rtol=1e-9)
    np.testing.assert_allclose(seen[list(IMAGES[1:])], expected[:, 1:], rtol=1e-12)
    pd.testing.assert_series_equal(seen["lab.albumin"], table.frame["lab.albumin"])
    south = (table.decisions[BATCH] == "south").to_numpy()
    gap = abs(np.nanmean(table.frame[IMAGES[1]][south]) - np.nanmean(table.frame[IMAGES[1]][~south]))
    left = abs(np.nanmean(seen[IMAGES[1]][south]) - np.nanmean(seen[IMAGES[1]][~south]))
    assert left < 0.2
    assert gap > 1.0


def test_what_cannot_be_harmonised_stays_to_the_last_digit() -> None:
    table, y = scanned(missing=0.0)
    model = Harmonised(_Listening()).fit(table, y)
    model.log_odds(replace(table, decisions=table.decisions.assign(**{BATCH: "a new scanner"})))
    pd.testing.assert_frame_equal(model.model.seen.frame, table.frame, check_exact=True)


def test_the_fold_that_is_judged_teaches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poisoned test rows change no ComBat that their own fold learns, nor any other answer's model."""
    table, y = scanned()
    folds = patient_folds(table, y, folds=3, seed=4)
    _, test = folds[0]
    frame = table.frame.copy()
    frame.loc[test, list(IMAGES)] = 1e6 * (1 + np.arange(len(test)))[:, None]
    poisoned = replace(table, frame=frame)
    learned: list[list[dict[str, Any]]] = []
    whole = Harmonised.fit

    def listening(self: Harmonised, *arguments: Any, **options: Any) -> Harmonised:
        fitted = whole(self, *arguments, **options)
        learned[-1].append({batch: combat.to_json() for batch, combat in fitted.combats_.items()})
        return fitted

    monkeypatch.setattr(Harmonised, "fit", listening)
    for recipe in (ELASTICNET, RECIPES["stack"]):
        learned.clear()
        for one in (table, poisoned):
            learned.append([])
            out_of_fold(recipe, one, y, folds, seed=0)
        clean, dirty = learned
        own = len(clean) // len(folds)  # a stack fits its members several times within each fold
        assert len(clean) == len(dirty)
        assert own >= 1
        assert clean[:own] == dirty[:own]
        assert clean[own:] != dirty[own:]


def test_a_scanner_that_was_not_seen_is_told_with_its_features() -> None:
    table, y = scanned(missing=0.0)
    decisions = table.decisions.copy()
    decisions.loc[:1, BATCH] = "rare"  # two decisions are too few to learn from
    table = replace(table, decisions=decisions)
    for recipe in RECIPES.values():
        model = build_model(recipe, seed=0).fit(table, y)
        asked = table.take([0, 5, 6, 7, 8])
        asked.decisions[BATCH] = pd.array(["rare", "south", "never seen", None, "never seen"], dtype="str")
        asked.frame.loc[4, IMAGES[0]] = np.nan
        told = [gap.unharmonised for gap in model.gaps(asked)]
        assert [set(one) for one in told] == [set(IMAGES), set(), set(IMAGES), set(IMAGES), set(IMAGES[1:])]
        assert model.handled(asked) == gap_sentences(model.gaps(asked), asked)
        assert model.handled(asked)[2][-1].endswith("used as measured: VOLUME_ML, MEAN and ENTROPY.")


def test_a_recipe_says_so_only_where_it_is_harmonised() -> None:
    plain = Recipe("elasticnet", {"c": 1.0, "l1_ratio": 0.0})
    assert plain.to_json() == {"family": "elasticnet", "params": {"c": 1.0, "l1_ratio": 0.0}, "modality": None}
    assert Recipe.from_json(plain.to_json()) == plain
    assert ELASTICNET.to_json()["harmonise"] is True
    with pytest.raises(ValueError, match="or of the members of the stack"):
        Recipe("stack", {"members": []}, harmonise=True)
    with pytest.raises(ValueError, match="no model family 'harmonised'"):
        Recipe("harmonised")


def test_tables_that_are_cut_keep_scanners_and_batches() -> None:
    table, _ = scanned()
    assert table.take([3, 4]).decisions[BATCH].tolist() == table.decisions[BATCH].iloc[[3, 4]].tolist()
    cut = table.of_modality("imaging")
    assert [spec.batch for spec in cut.catalogue] == [BATCH] * 3
    assert BATCH in cut.decisions
    assert BATCH in table.without_modality("imaging").decisions
    assert FeatureSpec.from_json(table.catalogue[0].to_json()) == table.catalogue[0]


class _Listening:
    """A model that keeps the last table it was given."""

    family = "listening"
    seen: FeatureTable

    def fit(self, table: FeatureTable, y: Floats, *, weight: Floats | None = None) -> LogOddsModel:
        self.seen = table
        return self  # type: ignore[return-value]

    def log_odds(self, table: FeatureTable) -> Floats:
        self.seen = table
        return np.zeros(len(table))
