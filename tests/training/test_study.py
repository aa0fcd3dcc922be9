"""The study file: strict, with helpful errors, overridable from the command line."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from theracast_data.errors import StudyError
from theracast_features.events.images import kept_measures
from theracast_features.imaging.habitat_file import fitted_text
from theracast_features.imaging.habitats import Habitats
from theracast_features.imaging.section import ImageMeasures
from theracast_features.imaging.stability import FeatureStability
from theracast_features.imaging.stability_file import stability_text
from theracast_training.study import parse_study, read_study, study_text

TEXT = """
study: small
question: Does it work?
sources:
  - path: table.csv
    subject: id
    columns:
      Albumin: {modality: lab, unit: g/dL}
endpoints:
  - {name: response, kind: binary, column: Response}
  - {name: os, kind: time_to_event, time: OS, event: OSE}
"""


def test_defaults_are_a_whole_study() -> None:
    study = parse_study(TEXT)
    assert study.endpoint.name == "response"
    assert study.search.families == ("elasticnet", "late", "lightgbm", "stack")
    assert study.sources[0].meanings["albumin"].unit == "g/dL"  # type: ignore[union-attr]


def test_a_study_survives_its_own_record() -> None:
    study = parse_study(TEXT)
    assert parse_study(study_text(study)) == study


def test_a_mapping_of_numbers_stays_one_of_numbers() -> None:
    text = TEXT.replace("Albumin: {modality: lab, unit: g/dL}", "Drug: {levels: {0: alone, 1: combination}}")
    study = parse_study(text)
    assert parse_study(study_text(study)).sources[0].columns["Drug"].levels == {0: "alone", 1: "combination"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("serch: {trials: 3}", r"serch: unknown key 'serch'. Did you mean 'search'\?"),
        ("search: {trails: 3}", r"search.trails: unknown key 'trails'. Did you mean 'trials'\?"),
        ("search: {trials: 0}", r"search.trials: input should be greater than or equal to 1 \(found 0\)"),
        ("primary: pfs", "no endpoint is named 'pfs'; there are response, os"),
        ("validation: {development: [A], external: [A]}", "A cannot be both development and external"),
    ],
)
def test_faults_name_place_and_remedy(change: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        parse_study(f"{TEXT}\n{change}\n")


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(StudyError) as caught:
        parse_study(TEXT.replace("modality: lab", "modalty: lab").replace("column: Response", "colum: Response"))
    assert "Did you mean 'modality'?" in str(caught.value)
    assert "Did you mean 'column'?" in str(caught.value)


def test_overrides_reach_into_lists_and_new_sections() -> None:
    study = parse_study(
        TEXT,
        overrides=["search.trials=3", "sources.0.path=other.csv", "validation.scheme.inner=4", "baselines=[loris]"],
    )
    assert (study.search.trials, study.sources[0].path) == (3, "other.csv")
    assert study.validation.scheme.inner == 4
    assert study.baselines == ("loris",)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.trials", "write KEY=VALUE"),
        ("sources.7.path=x", "not a position in a list of 1"),
        ("study.name=x", "has no keys below it"),
        ("search.trials=[1", "not valid YAML"),
    ],
)
def test_wrong_overrides_say_what_is_wrong(override: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        parse_study(TEXT, overrides=[override])


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"nowhere\.yaml: the study file cannot be read"):
        read_study(tmp_path / "nowhere.yaml")
    path = tmp_path / "broken.yaml"
    path.write_text("study: [unclosed\n")
    with pytest.raises(StudyError, match="not valid YAML at line 2"):
        read_study(path)
    path.write_text("- a\n- b\n")
    with pytest.raises(StudyError, match="mapping that begins with `study: NAME`"):
        read_study(path)


def test_development_is_all_that_is_not_external() -> None:
    study = parse_study(f"{TEXT}\nvalidation: {{external: [B]}}\n")
    assert study.development_sites(["A", "B", "C"]) == ["A", "C"]
    with pytest.raises(StudyError, match="no decision comes from B"):
        study.development_sites(["A", "C"])


def test_every_shipped_study_is_valid(repository: Path) -> None:
    paths = sorted((repository / "studies").glob("*.yaml"))
    assert len(paths) >= 5
    for path in paths:
        assert read_study(path).question


def test_a_faulty_item_does_not_make_its_list_too_short() -> None:
    with pytest.raises(StudyError) as caught:
        parse_study(TEXT.replace("modality: lab", "modalty: lab"))
    assert "at least 1 item" not in str(caught.value)
    with pytest.raises(StudyError, match="at least 1 item"):
        parse_study(TEXT.split("sources:", maxsplit=1)[0] + "sources: []\nendpoints:" + TEXT.split("endpoints:")[1])


DECIDED = """
study: decided
question: Does it work without a table?
events: {store: store}
decisions: {trigger: {codes: [RX//1]}, attributes: {sex: {codes: ["Gender//*"], take: code}}}
endpoints:
  - {name: response, kind: best_response, categories: {R//PR: PR, R: PD}, positive: [PR], window: "(0d, 90d]"}
  - {name: pfs, kind: first_event, events: [{codes: [R//PD]}, {codes: [MEDS_DEATH]}], horizon: 180d}
"""


def test_a_study_may_have_no_table() -> None:
    study = parse_study(DECIDED)
    assert study.sources == ()
    assert list(study.inputs.meanings) == ["sex"]
    assert parse_study(study_text(study)) == study


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("decisions: {", "decisionz: {", "unknown key 'decisionz'. Did you mean 'decisions'"),
        ("events: {store: store}\n", "", "the study needs an `events` section"),
        ("kind: first_event", "kind: time_to_event", "endpoints.1.time_to_event.events: unknown key"),
        (
            "  - {name: pfs",
            "  - {name: os, kind: binary, column: R}\n  - {name: pfs",
            "os come from columns of a table",
        ),
        ("trigger: {codes", "trigger: {kodes", "unknown key 'kodes'. Did you mean 'codes'"),
        (
            "take: code}",
            "take: kode}",
            "attributes.sex.take: input should be 'text', 'number', 'code' or 'years_since'",
        ),
        (
            "endpoints:",
            "sources: [{path: t.csv, subject: id, asked_at: 2000-01-01}]\nendpoints:",
            "t.csv: remove asked_at",
        ),
    ],
)
def test_what_decisions_cannot_do_is_said(old: str, new: str, message: str) -> None:
    with pytest.raises(StudyError, match=re.escape(message)):
        parse_study(DECIDED.replace(old, new))


def test_endpoints_from_events_need_events() -> None:
    first = "{name: pfs, kind: first_event, events: [{codes: [R//PD]}]}"
    with pytest.raises(StudyError, match="pfs come from events, and there is no `events` section"):
        parse_study(TEXT + f"  - {first}\n")


IMAGES = """
study: scans
question: Do scans tell who responds?
sources: [{path: p.csv, subject: patient, index_time: decided, columns: {age: {}}}]
events: {store: store, concepts: {}}
endpoints: [{name: response, kind: binary, column: response}]
features:
  images:
    ct: {modality: CT, regions: [GTV*], icc: "ICC", icc_at_least: 0.75}
"""


def _stability(measures: ImageMeasures) -> str:
    found = [
        FeatureStability("volume_ml", 0.98, 0.9, 0.99, "ICC(2,1)", 0.95, 10, 0, ("none", "shift")),
        FeatureStability("longest_axial_mm", 0.6, 0.3, 0.8, "ICC(2,1)", 0.95, 10, 0, ("none", "shift")),
        FeatureStability("perpendicular_mm", math.nan, math.nan, math.nan, "ICC(2,1)", 0.95, 1, 9, ("none", "shift")),
    ]
    return stability_text("ct", measures, found)


def test_the_stability_of_image_measurements_comes_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measures = ImageMeasures(modality="CT", regions=("GTV*",))
    (tmp_path / "stability.json").write_text(_stability(measures), encoding="utf-8")
    monkeypatch.setenv("HERE", str(tmp_path))
    for path in ("stability.json", "${HERE}/stability.json", str(tmp_path / "stability.json")):
        (tmp_path / "study.yaml").write_text(IMAGES.replace("ICC", path, 1), encoding="utf-8")
        study = read_study(tmp_path / "study.yaml")
        assert study.features.images["ct"].icc == {"volume_ml": 0.98, "longest_axial_mm": 0.6}
        assert list(kept_measures("ct", study.features.images["ct"])) == ["volume_ml"]
        assert parse_study(study_text(study)) == study
    before = read_study(tmp_path / "study.yaml", stability=False)
    assert before.features.images["ct"].icc_at_least is None
    assert before.features.images["ct"].digest == measures.digest


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "the file cannot be read .* write it with `theracast images stability`"),
        ("[1, 2]", "this is not what `theracast images stability` writes"),
        ("{", "this is not what `theracast images stability` writes"),
        (
            _stability(ImageMeasures(modality="CT")),
            "measured with other settings .* Run `theracast images stability` again",
        ),
    ],
)
def test_a_stability_file_that_is_not_of_this_study_is_refused(content: str | None, told: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "stability.json").write_text(content, encoding="utf-8")
    (tmp_path / "study.yaml").write_text(IMAGES.replace("ICC", "stability.json", 1), encoding="utf-8")
    with pytest.raises(StudyError, match=told):
        read_study(tmp_path / "study.yaml")


def test_faults_beside_a_stability_file_are_told_by_themselves(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(IMAGES.replace("modality: CT", "modality: XX"), encoding="utf-8")
    with pytest.raises(StudyError, match=r"features.images.ct.modality") as told:
        read_study(tmp_path / "study.yaml")
    assert "icc" not in str(told.value)


HABITATS = """
        maps: {suv: {modality: PT, suv: bw}, hu: {modality: CT}}
        counts: [2]
        fitted: FITTED
"""
PARTS = IMAGES.replace(
    """    ct: {modality: CT, regions: [GTV*], icc: "ICC", icc_at_least: 0.75}
""",
    f"""    ct:
      modality: CT
      habitats:{HABITATS}""",
)


def _habitats(*, maps: tuple[str, ...] = ("suv", "hu"), regions: tuple[str, ...] = ("*",)) -> str:
    section = {"maps": {"suv": {"modality": "PT", "suv": "bw"}, "hu": {"modality": "CT"}}, "counts": (2,)}
    measures = ImageMeasures.model_validate({"modality": "CT", "regions": regions, "habitats": section})
    found = Habitats(
        maps, np.array([4.0, 40.0]), np.array([2.5, 12.3]), np.array([[-1.0, 0.1], [1.0, 1 / 3]]), None, None, {}, 9
    )
    return fitted_text("ct", measures, found, study="scans", seed=7, others=3, faults=0)


def test_habitats_come_from_a_file_and_travel_as_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "habitats.json").write_text(_habitats(), encoding="utf-8")
    monkeypatch.setenv("HERE", str(tmp_path))
    for path in ("habitats.json", "${HERE}/habitats.json"):
        (tmp_path / "study.yaml").write_text(PARTS.replace("FITTED", path), encoding="utf-8")
        study = read_study(tmp_path / "study.yaml")
        assert study.features.images["ct"].habitats is not None
        fitted = study.features.images["ct"].fitted_habitats
        assert fitted is not None
        assert (fitted.maps, fitted.patients, fitted.centroids[1][1]) == (("suv", "hu"), 9, 1 / 3)
        again = parse_study(study_text(study))
        assert again == study
        assert again.features.images["ct"].digest == study.features.images["ct"].digest


def test_habitats_that_are_not_fitted_name_the_command(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(PARTS.replace("        fitted: FITTED\n", ""), encoding="utf-8")
    with pytest.raises(StudyError, match=r"features.images.ct: habitats are not fitted yet.*theracast images habitats"):
        read_study(tmp_path / "study.yaml")
    before = read_study(tmp_path / "study.yaml", fitted=False)
    (tmp_path / "study.yaml").write_text(PARTS.replace("FITTED", "nowhere.json"), encoding="utf-8")
    assert read_study(tmp_path / "study.yaml", fitted=False) == before


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "the file cannot be read .* write it with `theracast images habitats`"),
        ("[1, 2]", "this is not what `theracast images habitats` writes"),
        (_habitats(maps=("adc", "t1")), "fitted for the maps adc, t1 .* those of the study are suv, hu"),
        (_habitats(regions=("GTV*",)), "by the settings .* Run `theracast images habitats` again"),
        (_habitats().replace('"centroids"', '"middles"'), r"features.images.ct.habitats.fitted.middles: unknown key"),
    ],
)
def test_a_file_of_other_habitats_is_refused(content: str | None, told: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "habitats.json").write_text(content, encoding="utf-8")
    (tmp_path / "study.yaml").write_text(PARTS.replace("FITTED", "habitats.json"), encoding="utf-8")
    with pytest.raises(StudyError, match=told):
        read_study(tmp_path / "study.yaml")


def test_a_network_needs_pictures() -> None:
    images = "{images: {ct: {modality: CT, regions: [GTV*]%s}}}"
    text = f"{TEXT}\nevents: {{store: store, concepts: {{}}}}\nsearch: {{families: [elasticnet, cnn]}}\nfeatures: {images}\n"
    text = text.replace("    subject: id\n", "    subject: id\n    index_time: decided\n")
    with pytest.raises(StudyError, match=r"cnn looks at pictures of regions.*Say `patch: .*features.images.NAME"):
        parse_study(text % "")
    study = parse_study(text % ", patch: {window: [-160, 240]}")
    assert study.search.families == ("elasticnet", "cnn")
    assert study.features.images["ct"].patch is not None
    assert parse_study(study_text(study)) == study
