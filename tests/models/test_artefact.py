"""The saved folder: the same model comes back, and nothing else is accepted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from theracast_data.errors import ArtifactError
from theracast_models import artefact
from theracast_models.response_model import ResponseModel


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "m"
    model.save(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def resign(folder: Path, **changes) -> None:
    """Write the index anew with changes and a fitting digest, as someone with the source code could."""
    content = json.loads((folder / "format.json").read_text()) | changes
    content["digest"] = artefact._digest(content)
    (folder / "format.json").write_bytes(artefact._rendered(content))


@pytest.mark.parametrize("family", ["elasticnet", "lightgbm", "stack"])
def test_the_same_bits_come_back(make_model, make_raw, tmp_path, family: str) -> None:
    model = make_model(family)
    assert model.save(tmp_path / "m") == model.identity
    again = ResponseModel.load(tmp_path / "m")
    raw, _ = make_raw(7, 50)
    ours, theirs = model.predict(raw), again.predict(raw)
    for name in ("probability", "low", "high", "base"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name))
    assert ours.contributions.equals(theirs.contributions)
    assert (ours.warnings, ours.missing, ours.model) == (theirs.warnings, theirs.missing, theirs.model)
    assert again.inputs == model.inputs
    assert (again.card, again.evaluations, again.reference) == (model.card, model.evaluations, model.reference)
    assert (again.section, again.endpoint, again.catalogue) == (model.section, model.endpoint, model.catalogue)


def test_the_same_model_has_the_same_identity_and_another_one_another(make_model, model) -> None:
    assert make_model().identity == model.identity
    assert make_model(card={"name": "other"}).identity != model.identity


def test_a_flipped_byte_anywhere_is_refused(folder) -> None:
    rng = np.random.default_rng(0)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) >= 8
    for path in files:
        whole = path.read_bytes()
        count = 300 if path.name == "format.json" else 12
        places = {0, len(whole) - 1, *rng.integers(0, len(whole), count).tolist()}
        for place in places:
            bit = 1 << int(rng.integers(0, 8))
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            with pytest.raises(ArtifactError):
                artefact.audit_artefact(folder)
        path.write_bytes(whole)
    artefact.audit_artefact(folder)


def test_a_space_more_in_the_index_is_refused(folder) -> None:
    index = folder / "format.json"
    index.write_bytes(index.read_bytes().replace(b'"version": 3', b'"version":  3'))
    with pytest.raises(ArtifactError, match="damaged"):
        ResponseModel.load(folder)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda f: (f / "reference.json").write_bytes((f / "reference.json").read_bytes()[:-9]), "is cut short"),
        (lambda f: (f / "model.json").write_bytes((f / "model.json").read_bytes() + b" "), "is longer"),
        (lambda f: (f / "estimator" / "model" / "model.json").unlink(), "estimator/model/model.json is missing"),
        (lambda f: (f / "estimator" / "note.txt").write_text("hello"), "estimator/note.txt does not belong"),
        (lambda f: (f / "format.json").write_bytes((f / "format.json").read_bytes()[:200]), "damaged or not by"),
        (lambda f: (f / "format.json").write_bytes(b"\xff\xfe\x00"), "damaged or not by"),
        (lambda f: (f / "format.json").write_text('{"flavors": {}}'), "this is not a Theracast model"),
        (lambda f: (f / "format.json").write_text("[" * 100_000), "damaged or not by"),
        (lambda f: (f / "format.json").unlink(), "has no format.json"),
        (lambda f: (f / "again.json").symlink_to(f / "model.json"), "again.json is a link"),
        (lambda f: resign(f, files={"../outside.json": {"sha256": "0", "bytes": 1}}), "lists files that no model has"),
        (lambda f: resign(f, files={"/etc/passwd": {"sha256": "0", "bytes": 1}}), "lists files that no model has"),
        (lambda f: resign(f, extra=1), "entries are missing or were added"),
        (lambda f: resign(f, version=0), "is not one that this Theracast reads"),
        (lambda f: resign(f, version="1"), "is not one that this Theracast reads"),
    ],
)
def test_harm_is_named(folder, harm, says: str) -> None:
    harm(folder)
    with pytest.raises(ArtifactError, match=says):
        ResponseModel.load(folder)


def test_a_newer_version_names_the_theracast_to_use(folder) -> None:
    resign(folder, version=artefact.VERSION + 1, theracast="9.4.0", files=["another", "layout"])
    with pytest.raises(ArtifactError, match=r"saved in format 4 by Theracast 9\.4\.0.*Use Theracast 9\.4\.0 or later"):
        ResponseModel.load(folder)


def test_intact_files_of_another_meaning_are_refused(folder) -> None:
    (folder / "model.json").write_text("{}")
    files = artefact._index_content(folder, created=None)["files"]
    resign(folder, files=files)
    with pytest.raises(ArtifactError, match="do not hold what format 3 promises"):
        ResponseModel.load(folder)


def test_nothing_is_overwritten_and_nothing_half_written_stays(model, saved, tmp_path) -> None:
    with pytest.raises(ArtifactError, match="Choose another folder"):
        model.save(saved)

    def fails(draft: Path) -> None:
        (draft / "half.json").write_text("{")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        artefact.write_artefact(tmp_path / "m", fails, created=None)
    assert list(tmp_path.iterdir()) == []


def test_a_file_or_nothing_is_no_folder(tmp_path) -> None:
    with pytest.raises(ArtifactError, match="there is no such folder"):
        ResponseModel.load(tmp_path / "absent")


def test_holds_plain_files_only_and_no_path_of_the_study(saved) -> None:
    for path in saved.rglob("*"):
        assert path.is_dir() or path.suffix in (".json", ".txt")
        assert path.is_dir() or b"/somewhere/secret" not in path.read_bytes()


@pytest.mark.parametrize("version", [1, 2])
def test_a_folder_of_an_older_version_answers_as_it_did(version: int) -> None:
    """Format 1 knew neither decisions nor endpoints from events; format 2 one endpoint only, yes or no."""
    folder = Path(__file__).parent / "folders" / f"v{version}"
    assert json.loads((folder / "format.json").read_text())["version"] == version
    assert ("decisions" in json.loads((folder / "inputs.json").read_text())) == (version > 1)
    model = ResponseModel.load(folder)
    assert model.inputs.decisions is None
    assert model.further == ()
    answers = model.predict(model.example_frame()).rows()
    for answer, example in zip(answers, model.examples, strict=True):
        assert answer["probability"] == pytest.approx(example["answer"]["probability"], abs=1e-12)
        assert answer["contributions"] == pytest.approx(example["answer"]["contributions"], abs=1e-12)
