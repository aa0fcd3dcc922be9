"""Late fusion over modalities: the members see those who have their modality, the weights fit what is there."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from theracast_data.errors import CohortError
from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.elasticnet import ElasticNet
from theracast_models.late import Late
from theracast_models.presence import masked, without
from theracast_models.restricted import Restricted


def twin_modalities(n: int, seed: int, *, shared: float) -> tuple[FeatureTable, np.ndarray]:
    """Return decisions whose lab and genomic values both show one hidden cause, and imaging that shows another."""
    rng = np.random.default_rng(seed)
    hidden, other = rng.normal(size=(2, n))
    noise = np.sqrt(1 - shared**2)
    columns = {
        "lab.a": shared * hidden + noise * rng.normal(size=n),
        "gen.b": shared * hidden + noise * rng.normal(size=n),
        "image.c": other,
        "image.d": rng.normal(size=n),
    }
    y = (rng.random(n) < expit(1.2 * hidden + 0.8 * other - 1.0)).astype(float)
    modalities = ("lab", "genomic", "imaging", "imaging")
    catalogue = tuple(
        FeatureSpec(name, modality, "numeric", name, (name,))
        for name, modality in zip(columns, modalities, strict=True)
    )
    decisions = pd.DataFrame({"subject_id": [str(k) for k in range(n)], "site": "A", "index_time": pd.NaT})
    return FeatureTable(pd.DataFrame(columns), catalogue, decisions), y


def test_one_modality_is_its_elastic_net() -> None:
    """With one modality there is nothing to fuse: the ranks are those of the early model, the scale is its own."""
    table, y = twin_modalities(400, 0, shared=0.9)
    alone = table.of_modality("imaging")
    late = Late([Restricted(ElasticNet(0.1, 0.5), "imaging")]).fit(alone, y)
    early = ElasticNet(0.1, 0.5).fit(alone, y)
    a, b = late.log_odds(alone), early.log_odds(alone)
    assert np.corrcoef(a, b)[0, 1] > 1 - 1e-12


def test_independent_modalities_fuse_to_the_early_model() -> None:
    table, y = twin_modalities(3000, 1, shared=0.0)
    late, early = Late(l1_ratio=0.0).fit(table, y), ElasticNet(1.0, 0.0).fit(table, y)
    np.testing.assert_allclose(late.log_odds(table), early.log_odds(table), atol=0.35)
    assert np.corrcoef(late.log_odds(table), early.log_odds(table))[0, 1] > 0.99


def test_a_twin_counts_more_where_the_other_is_gone() -> None:
    table, y = twin_modalities(2000, 2, shared=0.95)
    model = Late().fit(masked(table, np.random.default_rng(0).random((2000, 3)) < 0.3), y)
    both, alone = model.modality_weights(table)[0], model.modality_weights(without(table, ["lab"]))[0]
    assert alone[0] == 0
    assert alone[1] > 1.4 * both[1]
    assert alone[2] == pytest.approx(both[2], rel=0.1), "what is independent of both counts as before"


@pytest.mark.parametrize("gone", [(), ("lab",), ("lab", "genomic"), ("imaging",), ("lab", "genomic", "imaging")])
def test_is_calibrated_for_every_pattern(gone: tuple[str, ...]) -> None:
    """The truth is recovered: mean and spread of the probabilities are right on 20,000 others, whatever is gone."""
    table, y = twin_modalities(3000, 3, shared=0.8)
    model = Late().fit(masked(table, np.random.default_rng(0).random((3000, 3)) < 0.3), y)
    others, outcome = twin_modalities(20_000, 4, shared=0.8)
    p = expit(model.log_odds(without(others, gone)))
    assert p.mean() == pytest.approx(outcome.mean(), abs=0.02)
    if np.ptp(p) > 0:
        upper = p > np.quantile(p, 0.8)
        assert p[upper].mean() == pytest.approx(outcome[upper].mean(), abs=0.04)


def test_members_learn_from_those_who_have_their_modality() -> None:
    """Filled-in values of the absent would pull the mean of the scale; the mean is that of who was measured."""
    table, y = twin_modalities(400, 5, shared=0.8)
    gone = np.zeros((400, 3), dtype=bool)
    gone[np.argsort(table.frame["gen.b"].to_numpy())[:200], 1] = True
    model = Late().fit(masked(table, gone), y)
    column = model.members_[1].model.inputs_.columns[0]
    assert column.mean == pytest.approx(np.sort(table.frame["gen.b"])[200:].mean(), abs=0.02)


def test_of_several_members_of_a_modality_the_best_is_taken() -> None:
    table, y = twin_modalities(300, 6, shared=0.9)
    worse, better = Restricted(ElasticNet(1e-6), "imaging"), Restricted(ElasticNet(0.3), "imaging")
    model = Late([worse, better]).fit(table, y)
    assert model.members_[2].model.c == 0.3


def test_a_modality_that_one_patient_has_is_not_heard(make_table) -> None:
    table, y = make_table(0, 60, missing=0.0)
    gone = np.zeros((60, 3), dtype=bool)
    gone[1:, 2] = True
    model = Late().fit(masked(table, gone), y)
    assert model.members_[2] is None
    assert not model.modality_weights(table)[:, 2].any()
    assert np.isfinite(model.log_odds(table)).all()
    copy = model.refit(table, y, seed=1)
    assert np.isfinite(copy.log_odds(table)).all()


def test_a_resample_without_a_modality_keeps_its_member(make_table) -> None:
    table, y = make_table(0, 120, missing=0.0)
    model = Late(folds=3).fit(table, y)
    copy = model.refit(without(table, ["genomic"]), y, seed=1)
    assert copy.members_[2] is model.members_[2]
    assert copy.members_[0] is not model.members_[0]


def test_a_member_of_no_modality_is_refused(make_table) -> None:
    table, y = make_table(0, 60)
    with pytest.raises(CohortError, match="the table has lab, clinical, genomic"):
        Late([ElasticNet()]).fit(table, y)
    with pytest.raises(CohortError, match="'imaging'"):
        Late([Restricted(ElasticNet(), "imaging")]).fit(table, y)
