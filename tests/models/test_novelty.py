"""Unlike the development patients: one in a hundred of those who are like them, most of those who are not, and why."""

from __future__ import annotations

import json
import time as clock

import numpy as np
import pandas as pd
import pytest

from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.elasticnet import ElasticNet
from theracast_models.novelty import LEVELS, Novelty, unusual_sentence
from theracast_models.rarity import Distances, Layout, shrunk_covariance

LABS, SCANS = [f"lab.l{n}" for n in range(5)], [f"img.i{n}" for n in range(4)]
CATALOGUE = tuple(
    FeatureSpec(name=name, modality=modality, kind="numeric", label=name, columns=(name,))
    for modality, names in (("lab", LABS), ("imaging", SCANS))
    for name in names
)


def correlated(seed: int, n: int, *, missing: float = 0.0) -> FeatureTable:
    """Labs of which the first two go together (r = 0.95), and images of heavy tails."""
    rng = np.random.default_rng(seed)
    values = np.column_stack([rng.normal(size=(n, 5)), rng.standard_t(6, size=(n, 4))])
    values[:, 1] = 0.95 * values[:, 0] + np.sqrt(1 - 0.95**2) * values[:, 1]
    values[rng.random(values.shape) < missing] = np.nan
    frame = pd.DataFrame(values, columns=[*LABS, *SCANS])
    decisions = pd.DataFrame({"subject_id": [str(row) for row in range(n)], "site": "A"})
    return FeatureTable(frame, CATALOGUE, decisions)


def contributions(table: FeatureTable) -> np.ndarray:
    """Contributions of a linear model in which image 3 does nothing."""
    return table.frame.fillna(0).to_numpy() * np.array([0.8, 0.6, 0.4, 0.3, 0.3, 0.5, 0.4, 0.3, 0.0])


def rare(novelty: Novelty, table: FeatureTable) -> float:
    return float(np.mean([one.rare for one in novelty.of(table)]))


@pytest.mark.parametrize("n", [80, 150, 600])
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_one_in_a_hundred_like_patients_is_rare(n: int, missing: float) -> None:
    """On average over trainings, on patients who were not there; so with few patients, and with holes."""
    found, ninety = [], []
    for seed in range(max(8, 1_600 // n)):
        table = correlated(seed, n, missing=missing)
        novelty = Novelty.learn(table, contributions(table))
        new = novelty.of(correlated(1_000 + seed, 1_000, missing=missing))
        found.append(np.mean([one.rare for one in new]))
        ninety.append(np.mean([one.beyond >= 0.9 for one in new]))
    assert 0.005 < np.mean(found) < 0.02
    assert np.mean(ninety) == pytest.approx(0.1, abs=0.025)


def test_patients_of_another_kind_are_rare_and_it_says_what_makes_them_so() -> None:
    table = correlated(1, 800)
    novelty = Novelty.learn(table, contributions(table))
    usual = dict.fromkeys([*LABS, *SCANS], 0.2)
    rows = {
        "usual": usual,
        "extreme": usual | {"lab.l2": 7.0},
        "low": usual | {"img.i0": -9.0},
        "together": usual | {"lab.l0": 1.8, "lab.l1": -1.8},  # each is common
        "not used": usual | {"img.i3": 50.0},
        "nothing": dict.fromkeys(usual, np.nan),
        "half": usual | {"lab.l2": 7.0} | dict.fromkeys([*SCANS, "lab.l0"], np.nan),
    }
    decisions = pd.DataFrame({"subject_id": list(rows), "site": "A"})
    frame = pd.DataFrame(rows).T.reset_index(drop=True)
    answers = dict(zip(rows, novelty.of(FeatureTable(frame, CATALOGUE, decisions)), strict=True))
    told = {name: (one.rare, one.leading, [tuple(reason) for reason in one.reasons]) for name, one in answers.items()}
    assert [name for name, one in told.items() if one[0]] == ["extreme", "low", "together", "half"]
    assert told["extreme"][1:] == ("lab", [("lab.l2", "high")])
    assert told["low"][1:] == ("imaging", [("img.i0", "low")])
    assert told["together"][1] == "lab"
    assert sorted(told["together"][2]) == [("lab.l0", "together"), ("lab.l1", "together")]
    assert told["half"][2] == [("lab.l2", "high")]
    assert told["nothing"] == (False, None, [])
    assert answers["extreme"].parts["imaging"] < 0.9
    assert unusual_sentence(answers["usual"], CATALOGUE) is None
    assert unusual_sentence(answers["extreme"], CATALOGUE).endswith("What makes it so: lab.l2 (unusually high).")
    assert set(answers["half"].parts) == {"whole", "lab"}


def test_a_category_never_seen_is_rare_and_missing_is_not(make_table, make_holes) -> None:
    table, y = make_table(1, 600)
    model = ElasticNet(0.3).fit(table, y)
    novelty = Novelty.learn(table, model.contributions(table)[1])
    new, _ = make_table(2, 2_000, missing=0.5)
    assert rare(novelty, new) < 0.025
    frame = new.frame.assign(**{"clin.tumour": pd.Series("a new level", index=new.frame.index, dtype="str")})
    answers = novelty.of(FeatureTable(frame, new.catalogue, new.decisions))
    assert np.mean([one.rare for one in answers]) > 0.95
    assert answers[0].reasons[0] == ("clin.tumour", "rare category")
    again = Novelty.from_json(json.loads(json.dumps(novelty.to_json(), allow_nan=False)))
    holes = make_holes(new, 3)
    assert again.of(holes) == novelty.of(holes)
    alone = [novelty.of(holes.take([row]))[0] for row in range(50)]
    assert alone == novelty.of(holes)[:50]
    assert novelty.of(holes.take([])) == []


def test_the_covariance_is_that_of_ledoit_and_wolf() -> None:
    from sklearn.covariance import ledoit_wolf

    values = np.random.default_rng(3).normal(size=(60, 12)) @ np.random.default_rng(4).normal(size=(12, 12))
    values -= values.mean(axis=0)
    expected, shrinking = ledoit_wolf(values, assume_centered=True)
    within = np.diag(values.var(axis=0))
    found, (kept, _) = shrunk_covariance(values, np.ones(60), owner=np.arange(12), within=within)
    assert kept == pytest.approx(1 - shrinking, rel=1e-3)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)
    distances = Distances(found, (kept, (1 - kept) * np.trace(values.T @ values) / 60 / 12))
    drops = distances.drops(values[0], np.arange(12), np.arange(12))
    precision = np.linalg.inv(found)
    for feature in (0, 7):
        rest = np.arange(12) != feature
        smaller = values[0][rest] @ np.linalg.inv(found[np.ix_(rest, rest)]) @ values[0][rest]
        assert drops[feature] == pytest.approx(values[0] @ precision @ values[0] - smaller)


def test_nothing_tells_of_fewer_than_ten(make_table) -> None:
    """Five patients with a mutation, four of a rare tumour, nine whose TMB is known: their values change nothing kept."""
    table, _ = make_table(5, 300, missing=0.0)
    phi = np.random.default_rng(6).normal(size=(300, 7))
    kept = []
    for other in (1.0, 5.0):
        frame = table.frame.copy()
        frame["gen.msi"] = (np.arange(300) < 5).astype(float)
        frame.loc[5:8, "clin.tumour"] = "very rare"
        frame.loc[9:, "gen.tmb"] = np.nan
        frame.loc[:8, "gen.tmb"] = other
        # Which of the patients they are is told by no covariance, as nobody else's values change.
        made = Novelty.learn(FeatureTable(frame, table.catalogue, table.decisions), phi)
        kept.append(made)
    assert kept[0].to_json() == kept[1].to_json()
    text = json.dumps(kept[0].to_json())
    assert "very rare" not in text
    assert "gen.tmb" not in text
    columns = {column.name: column for column in kept[0].columns}
    assert columns["gen.msi"].mean == 0.0
    assert columns["gen.msi"].scale == pytest.approx(np.sqrt(10 / 300 * 290 / 300), rel=1e-4)
    assert columns["clin.tumour"].shares[-1] == pytest.approx(10 / 306, rel=1e-3)
    place = next(n for n, column in enumerate(kept[0].columns) if column.name == "gen.msi")
    row = Layout(kept[0].columns).owner.tolist().index(place)
    assert (np.delete(kept[0].covariance[row], row) == 0).all()
    share, added = kept[0].ridge
    assert kept[0].covariance[row, row] == pytest.approx(share * columns["gen.msi"].reach ** 2 + added, rel=1e-4)


def test_pairs_of_yes_or_no_that_few_share_count_as_unrelated() -> None:
    rng = np.random.default_rng(7)
    first = (np.arange(400) < 40).astype(float)
    second = (np.abs(np.arange(400) - 55) < 20).astype(float)  # four have both
    third = rng.random(400) < 0.5
    values = np.column_stack([first, second, third])
    values -= values.mean(axis=0)
    found, _ = shrunk_covariance(values, np.ones(400), owner=np.arange(3), within=np.diag(values.var(axis=0)))
    assert found[0, 1] == 0
    assert found[0, 2] != 0


def test_limits_rise_and_the_patient_counts_once() -> None:
    table = correlated(8, 300)
    often = table.take(np.r_[np.arange(300), np.zeros(500, dtype=int)])
    patients = np.r_[np.arange(300), np.zeros(500, dtype=int)]
    once = Novelty.learn(table, contributions(table))
    many = Novelty.learn(often, contributions(table)[patients], patients=patients)
    assert many.patients == once.patients == 300
    for part in (*once.parts, *many.parts):
        assert list(part.limits) == sorted(part.limits)
        assert len(part.limits) == len(LEVELS)
    assert {part.name for part in once.parts} == {"whole", "lab", "imaging"}
    assert rare(many, correlated(9, 2_000)) < 0.04
    weight = np.r_[np.ones(200), np.zeros(100)]
    assert Novelty.learn(table, contributions(table), weight=weight).patients == 200


def test_wide_tables_and_few_patients() -> None:
    """300 features and 120 patients: at most 150 columns are kept, and an answer takes less than two milliseconds."""
    rng = np.random.default_rng(11)
    names = [f"img.x{n}" for n in range(300)]
    catalogue = tuple(
        FeatureSpec(name=one, modality="imaging", kind="numeric", label=one, columns=(one,)) for one in names
    )
    latent = rng.normal(size=(1_120, 5))
    values = latent @ rng.normal(size=(5, 300)) + rng.normal(size=(1_120, 300))
    decisions = pd.DataFrame({"subject_id": [str(row) for row in range(1_120)], "site": "A"})
    table = FeatureTable(pd.DataFrame(values, columns=names), catalogue, decisions)
    learn, new = table.take(range(120)), table.take(range(120, 1_120))
    novelty = Novelty.learn(learn, values[:120] * rng.exponential(size=300))
    assert len(novelty.covariance) <= 150
    assert 0.0 <= rare(novelty, new) < 0.05
    taken = []
    one = new.take([0])
    for _ in range(20):
        begun = clock.process_time()
        novelty.of(one)
        taken.append(clock.process_time() - begun)
    assert min(taken) < 0.002
    with pytest.raises(ValueError, match="49 patients are too few to say what is usual; 50 are needed"):
        Novelty.learn(table.take(range(49)), values[:49])


def test_a_model_that_uses_nothing_finds_nobody_unusual() -> None:
    table = correlated(1, 100)
    novelty = Novelty.learn(table, np.zeros((100, 9)))
    assert (novelty.columns, novelty.parts) == ((), ())
    assert rare(Novelty.from_json(novelty.to_json()), correlated(2, 20)) == 0
