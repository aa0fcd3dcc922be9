"""Which modalities are there, and taking them away."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from theracast_features.specs import FeatureSpec, FeatureTable
from theracast_models.presence import masked, modalities_of, pattern_name, pattern_of, present_modalities, without

EVERYTHING = "lab+clinical+genomic"


def test_a_pattern_names_what_is_there(make_table) -> None:
    table, _ = make_table(0, 4, missing=0.0)
    frame = table.frame.copy()
    frame.loc[1, ["lab.albumin", "lab.crp"]] = np.nan
    frame.loc[2, "gen.tmb"] = np.nan  # the other genomic value is still there
    frame.loc[3, :] = np.nan
    found = pattern_of(FeatureTable(frame, table.catalogue, table.decisions))
    assert found == [EVERYTHING, "clinical+genomic", EVERYTHING, "none"]
    assert [pattern_name(modalities_of(one)) for one in found] == found


def test_indicators_counts_and_what_is_derived_do_not_speak() -> None:
    catalogue = (
        FeatureSpec("lab.crp.last.90d", "lab", "numeric", "CRP", ("crp",)),
        FeatureSpec("lab.crp.count.90d", "lab", "numeric", "CRP, count", ("crp",), role="derived"),
        FeatureSpec("lab.crp.missing", "lab", "boolean", "CRP not measured", ("crp",), role="indicator"),
        FeatureSpec("clin.score", "clinical", "numeric", "Score", ("crp", "age"), role="derived"),
        FeatureSpec("clin.age", "clinical", "numeric", "Age", ("age",)),
        FeatureSpec("gen.tp53", "genomic", "boolean", "TP53", ("tp53_test",), role="derived"),
    )
    rows = [
        [3.0, 2.0, 0.0, 1.5, 60.0, 1.0],
        [np.nan, 0.0, 1.0, 1.5, np.nan, np.nan],
        [np.nan, 0.0, 1.0, np.nan, 50.0, 0.0],
    ]
    frame = pd.DataFrame(rows, columns=[spec.name for spec in catalogue])
    table = FeatureTable(frame, catalogue, pd.DataFrame({"subject_id": list("abc")}))
    assert pattern_of(table) == ["lab+clinical+genomic", "none", "clinical+genomic"]
    taken = without(table, ["lab"]).frame.iloc[0]
    assert np.isnan(taken["lab.crp.last.90d"])
    assert (taken["lab.crp.count.90d"], taken["lab.crp.missing"]) == (0.0, 1.0)
    assert np.isnan(taken["clin.score"]), "what is made of a lab value goes with it"
    assert (taken["clin.age"], taken["gen.tp53"]) == (60.0, 1.0)


def test_a_picture_goes_with_its_modality() -> None:
    catalogue = (FeatureSpec("image.ct", "imaging", "boolean", "CT", ("ct.picture",), role="picture"),)
    decisions = pd.DataFrame({"subject_id": ["a", "b"], "ct.picture": pd.Series(["text", None], dtype=object)})
    table = FeatureTable(pd.DataFrame({"image.ct": [1.0, np.nan]}), catalogue, decisions)
    taken = without(table, ["imaging"])
    assert taken.decisions["ct.picture"].tolist() == [None, None]
    assert pattern_of(table) == ["imaging", "none"]
    assert pattern_of(taken) == ["none", "none"]
    assert table.decisions["ct.picture"].tolist() == ["text", None]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_masked_takes_away_what_it_is_told_and_nothing_else(make_table, make_holes, seed: int) -> None:
    table = make_holes(make_table(seed, 40)[0], seed)
    rng = np.random.default_rng(seed)
    gone = rng.random((40, 3)) < 0.5
    taken = masked(table, gone)
    assert np.array_equal(present_modalities(taken), present_modalities(table) & ~gone)
    kept = ~gone[:, [table.modalities.index(spec.modality) for spec in table.catalogue]]
    assert taken.frame.where(kept).equals(table.frame.where(kept))
    assert [str(kind) for kind in taken.frame.dtypes] == [str(kind) for kind in table.frame.dtypes]
