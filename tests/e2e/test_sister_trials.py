"""The tables of sister trials: other spellings, other codes, whole kinds of data missing; the answers stay what they were.

Models are small and made from the studies' own sections; the rows are those of the cohorts, written as others would write them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from theracast_data.sources import ColumnSpec
from theracast_data.spelling import header_key
from theracast_data.table import read_cohort, read_file
from theracast_features.build import build_features, resolve_section
from theracast_models.families import Recipe
from theracast_models.fitting import fit_calibrated, patient_folds
from theracast_models.response_model import ResponseModel
from theracast_serving.score import score_frame, unknown_columns
from theracast_training.study import Study, read_study

FILES = {"transneo": "transneo/training.csv", "oak": "oak/clinical.csv"}
Made = tuple[Study, ResponseModel, pd.DataFrame]


def _made(name: str, shared_cohorts: Path, repository: Path) -> Made:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THERACAST_DATA", str(shared_cohorts))
        study = read_study(repository / "studies" / f"{name}.yaml")
        cohort = read_cohort(study.inputs, study.endpoints, base=repository / "studies")
    y = cohort.endpoints[study.endpoint.name].to_numpy(dtype=np.float64)
    section = resolve_section(study.features, cohort)
    table = build_features(cohort, section)
    folds = patient_folds(table, y, folds=3, seed=0)
    recipe = Recipe("elasticnet", {"c": 0.02, "l1_ratio": 0.0})
    model = ResponseModel.build(
        card={"name": name},
        inputs=study.inputs,
        section=section,
        endpoint=study.endpoint,
        calibrated=fit_calibrated(recipe, table, y, folds=folds, replicates=10, seed=0),
        table=table,
        y=y,
    )
    return study, model, read_file(shared_cohorts / FILES[name])


@pytest.fixture(scope="module")
def transneo(shared_cohorts: Path, repository: Path) -> Made:
    return _made("transneo", shared_cohorts, repository)


@pytest.fixture(scope="module")
def oak(shared_cohorts: Path, repository: Path) -> Made:
    return _made("oak", shared_cohorts, repository)


def _columns(study: Study) -> dict[str, ColumnSpec]:
    return dict(study.sources[0].columns)


def _camel(header: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9+%]+", header))


SPELLINGS: dict[str, Callable[[str], str]] = {
    "capitals and underscores": lambda header: header.upper().replace(".", "_"),
    "blanks": lambda header: header.lower().replace(".", " ").replace("_", " "),
    "no punctuation": _camel,
}


@pytest.mark.parametrize("spelling", [*SPELLINGS, "first alias", "last alias", "plain names"])
@pytest.mark.parametrize("name", ["transneo", "oak"])
def test_other_headers_in_another_order_change_nothing(
    name: str, spelling: str, request: pytest.FixtureRequest
) -> None:
    study, model, frame = request.getfixturevalue(name)
    columns = _columns(study)
    frame = frame[[study.sources[0].subject, *columns]]
    if spelling in SPELLINGS:
        renamed = {header: SPELLINGS[spelling](header) for header in frame.columns}
    elif spelling == "plain names":
        renamed = {header: str(spec.name) for header, spec in columns.items()}
    else:
        renamed = {
            header: spec.aliases[0 if "first" in spelling else -1] for header, spec in columns.items() if spec.aliases
        }
    other = frame.rename(columns=renamed)[[renamed.get(one, one) for one in reversed(list(frame.columns))]]
    assert unknown_columns(model, other) == []
    expected, found = score_frame(model, frame), score_frame(model, other)
    assert np.array_equal(found.probability, expected.probability)
    assert found.contributions.equals(expected.contributions)


CODES = {
    "transneo": [
        {
            "ER.status": {1: "POS", -1: "NEG"},
            "HER2.status": {1: "HER2+", -1: "HER2-"},
            "LN.at.diagnosis": {1: "N1", -1: "N0"},
        },
        {
            "ER.status": {1: "yes", -1: "no"},
            "HER2.status": {1: 1, -1: 0},
            "LN.at.diagnosis": {1: "Positive", -1: "negative"},
        },
        {
            "Histology": {1: "IDC", 0: "ILC"},
            "CodingMuts.TP53": {1: "Mutated", 0: "WT"},
            "HLA.LOH": {1: "LOH", 0: "no LOH"},
        },
        {"Chemo.any.antiHER2": {1: "TRUE", 0: "FALSE"}, "CodingMuts.PIK3CA": {1: "yes", 0: "no"}},
    ],
    "oak": [
        {"TRT01P": {"MPDL3280A": "Atezolizumab", "Docetaxel": "DOCETAXEL"}, "SEX": {"F": "Female", "M": "Male"}},
        {
            "HIST": {"SQUAMOUS": "squamous", "NON-SQUAMOUS": "non-squamous"},
            "TOBHX": {"PREVIOUS": "Former", "CURRENT": "Current", "NEVER": "Never"},
        },
        {"EGFRMUT": {"POSITIVE": "mutant", "NEGATIVE": "wild type"}, "KRASMUT": {"POSITIVE": 1, "NEGATIVE": 0}},
        {"TC1IC1": {"TC1/2/3 or IC1/2/3": "positive", "TC0 and IC0": "negative"}},
    ],
}


@pytest.mark.parametrize(("name", "number"), [(name, number) for name in CODES for number in range(4)])
def test_other_codes_change_nothing(name: str, number: int, request: pytest.FixtureRequest) -> None:
    _, model, frame = request.getfixturevalue(name)
    other = frame.copy()
    for header, codes in CODES[name][number].items():
        raw = {str(cell): code for cell, code in codes.items()}
        told = [raw.get(str(cell).removesuffix(".0"), cell) for cell in frame[header]]
        assert pd.Series(told).isin(list(codes.values())).sum() > 50, header
        other[header] = pd.Series(told, index=frame.index, dtype=object)
    assert np.array_equal(score_frame(model, other).probability, score_frame(model, frame).probability)


@pytest.mark.parametrize("name", ["transneo", "oak"])
def test_without_a_kind_of_data_there_are_answers_that_say_so(name: str, request: pytest.FixtureRequest) -> None:
    study, model, frame = request.getfixturevalue(name)
    columns = _columns(study)
    whole = score_frame(model, frame)
    modalities = dict.fromkeys(spec.modality for spec in columns.values() if spec.role == "feature")
    for modality in modalities:
        gone = [header for header, spec in columns.items() if spec.modality == modality]
        dropped, emptied = frame.drop(columns=gone), frame.copy()
        emptied[gone] = np.nan
        found = score_frame(model, dropped)
        assert np.array_equal(found.probability, score_frame(model, emptied).probability)
        assert np.isfinite(found.probability).all()
        log_odds = np.log(found.probability / (1 - found.probability))
        assert np.abs(found.base + found.contributions.sum(axis=1) - log_odds).max() < 1e-6
        names = [f"{spec.name}" for header, spec in columns.items() if header in gone and spec.role == "feature"]
        for told in found.missing:
            assert set(names) <= {one.split(".", 1)[1] for one in told}
        if modality != "treatment":
            assert np.corrcoef(found.probability, whole.probability)[0, 1] > 0.5


@pytest.mark.parametrize("name", ["icb", "icb_full", "oak", "oak_blood", "transneo", "ispy2_baseline", "actg175_cd4"])
def test_no_two_columns_answer_to_one_header(name: str, repository: Path) -> None:
    owner: dict[str, str] = {}
    for source in read_study(repository / "studies" / f"{name}.yaml").sources:
        for header, spec in source.columns.items():
            for one in {header_key(word) for word in (header, str(spec.name or header), *spec.aliases)}:
                assert owner.setdefault(one, header) == header, f"{one} is {owner[one]} and {header}"
