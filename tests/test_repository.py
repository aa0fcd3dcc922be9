"""What must hold of the repository as a whole: layout, layers, packaging, licences, and what should not be in it."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDERS = {
    "data": "theracast_data",
    "features": "theracast_features",
    "models": "theracast_models",
    "training": "theracast_training",
    "serving": "theracast_serving",
    "cli": "theracast",
}

# Packages whose metadata does not say it: what their own licence file says, read by a person.
READ_BY_HAND = {"huey": "MIT"}
NOT_PERMITTED = re.compile(r"\bA?GPL|LGPL|General Public License|SSPL|Business Source|Non-?Commercial", re.IGNORECASE)


@pytest.fixture(scope="module")
def tracked(repository: Path) -> list[Path]:
    """Every file that git tracks."""
    if not (repository / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git work tree, or no git here")
    answer = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, check=True)
    return [repository / name for name in answer.stdout.decode().split("\0") if name and (repository / name).is_file()]


@pytest.fixture(scope="module")
def project(repository: Path) -> dict[str, dict[str, object]]:
    return tomllib.loads((repository / "pyproject.toml").read_text())


def test_every_folder_of_the_house_is_there(repository: Path) -> None:
    for folder, package in FOLDERS.items():
        assert (repository / folder / package / "__init__.py").is_file()
        assert (repository / folder / package / "py.typed").is_file()
        assert not (repository / folder / "__init__.py").exists()
    for name in ("README.md", "LICENSE", "CONTRIBUTING.md", "Makefile", "constraints.txt", ".pre-commit-config.yaml"):
        assert (repository / name).is_file()
    for name in ("mlflow", "tests", "studies", "bench"):
        assert (repository / name).is_dir()
    assert os.access(repository / ".ci" / "run", os.X_OK)


def test_the_mlflow_folder_holds_no_python(repository: Path) -> None:
    """With Python in it, `mlflow/` would hide the library from every program started in the repository."""
    assert not list((repository / "mlflow").rglob("*.py"))
    assert not (repository / "mlflow" / "__pycache__").exists()


def test_import_mlflow_is_the_library_even_from_the_root_of_the_repository(repository: Path) -> None:
    program = "import mlflow; print(mlflow.__file__); print(mlflow.__version__)"
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, check=True, timeout=120
    )
    place, version = answer.stdout.split()
    assert not Path(place).is_relative_to(repository / "mlflow")
    assert version == metadata.version("mlflow")


def test_layers_hold(repository: Path) -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    answer = subprocess.run([lint, "--no-cache"], cwd=repository, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout


def test_python_files_are_in_packages_of_a_size_to_read(tracked: list[Path], repository: Path) -> None:
    too_long, vague = [], []
    for path in tracked:
        if path.suffix != ".py" or path.relative_to(repository).parts[0] not in FOLDERS:
            continue
        if len(path.read_text(encoding="utf-8").splitlines()) > 600:
            too_long.append(path.name)
        if path.stem in {"utils", "helpers", "common", "base", "misc"}:
            vague.append(path.name)
    assert not too_long
    assert not vague


def test_functions_are_of_a_size_to_read(tracked: list[Path], repository: Path) -> None:
    too_long = [
        f"{path.relative_to(repository)}:{node.lineno} {node.name}"
        for path in tracked
        if path.suffix == ".py" and path.relative_to(repository).parts[0] in FOLDERS
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (node.end_lineno or 0) - node.lineno > 80
    ]
    assert not too_long


def test_no_tracked_file_is_large(tracked: list[Path], repository: Path) -> None:
    assert not [str(path.relative_to(repository)) for path in tracked if path.stat().st_size > 1_000_000]


def test_no_path_of_a_machine_no_registry_host_no_patient_table(tracked: list[Path], repository: Path) -> None:
    # Put together here, so that this file does not find itself.
    words = [
        "/wo" + "rk/",
        "/ro" + "ot/",
        "py" + "pi.org",
        "pytho" + "nhosted",
        "download.pyto" + "rch",
        "/opt/" + "wheels",
    ]
    pattern = re.compile("|".join(map(re.escape, words)).encode())
    found = [str(path.relative_to(repository)) for path in tracked if pattern.search(path.read_bytes())]
    assert not found
    tables = {".xlsx", ".parquet", ".duckdb", ".dcm", ".feather", ".pkl", ".pickle", ".joblib"}
    assert not [str(path.relative_to(repository)) for path in tracked if path.suffix.lower() in tables]


def test_no_unfinished_marks(tracked: list[Path], repository: Path) -> None:
    pattern = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
    found = [
        str(path.relative_to(repository))
        for path in tracked
        if path.suffix in {".py", ".yaml", ".toml", ".md"} and pattern.search(path.read_text(encoding="utf-8"))
    ]
    assert not found


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "mlflow/README.md"])
def test_documents_name_files_that_are_there(repository: Path, document: str) -> None:
    text = (repository / document).read_text(encoding="utf-8")
    named = re.findall(r"`((?:data|features|models|training|serving|cli|mlflow|tests)/[\w./]+)`", text)
    assert named
    assert not [name for name in named if not (repository / name).exists()]


def test_yaml_files_can_be_read(tracked: list[Path]) -> None:
    paths = [path for path in tracked if path.suffix in {".yaml", ".yml"}]
    assert len(paths) > 5
    assert all(yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths)


def test_the_version_is_the_same_everywhere(project: dict[str, dict[str, object]]) -> None:
    import theracast

    assert metadata.version("theracast") == project["project"]["version"]
    assert getattr(theracast, "__version__", project["project"]["version"]) == project["project"]["version"]


def test_the_wheel_holds_every_package_and_its_data(
    repository: Path, tracked: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = pytest.importorskip("hatchling.build", reason="hatchling is not installed: make lint")
    monkeypatch.chdir(repository)
    wheel = tmp_path / build.build_wheel(str(tmp_path))
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    expected = {
        "/".join(path.relative_to(repository).parts[1:])
        for path in tracked
        if path.relative_to(repository).parts[0] in FOLDERS
        and path.relative_to(repository).parts[1] == FOLDERS[path.relative_to(repository).parts[0]]
    }
    assert expected
    assert expected <= inside
    tops = {name.split("/")[0] for name in inside}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(FOLDERS.values())


def test_constraints_are_exact_and_cover_every_dependency(
    repository: Path, project: dict[str, dict[str, object]]
) -> None:
    lines = (repository / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    for pin in pins:
        (only,) = pin.specifier
        assert only.operator == "=="
        assert "+" not in only.version, f"{pin}: a local build is not to be had elsewhere"
    pinned = {canonicalize_name(pin.name): pin for pin in pins}
    groups = project["project"]["optional-dependencies"]
    assert isinstance(groups, dict)
    direct = project["project"]["dependencies"]
    assert isinstance(direct, list)
    for text in [*direct, *(one for group in groups.values() for one in group)]:
        wanted = Requirement(text)
        pin = pinned[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(next(iter(pin.specifier)).version), text
    # What a GPU build of torch brings depends on the system, setuptools on the Python; all else is the same everywhere.
    varies = re.compile(r"nvidia-|cuda-|triton|setuptools$")
    assert not [
        name for name in _installed_with("theracast", ("dev",)) if name not in pinned and not varies.match(name)
    ]


def test_no_dependency_has_a_licence_that_binds_users() -> None:
    """GPL, AGPL and LGPL are looked for in the metadata of everything that an installation brings, tools included."""
    found, silent = [], []
    for name in sorted(_installed_with("theracast", ("dev", "server"))):
        described = metadata.metadata(name)
        words = [described.get("License-Expression") or "", *(described.get_all("Classifier") or [])]
        licence = " ".join(word for word in words if not word.startswith(("Programming", "Topic"))).strip()
        declared = (described.get("License") or "").strip()
        licence += " " + declared.splitlines()[0] if declared else ""
        if "License" not in licence and not declared and not described.get("License-Expression"):
            if name not in READ_BY_HAND:
                silent.append(name)
        elif NOT_PERMITTED.search(licence):
            found.append(f"{name}: {licence}")
    assert not found
    assert not silent, "read their licence files and add them to READ_BY_HAND"


def _installed_with(name: str, extras: tuple[str, ...]) -> set[str]:
    """Return every installed distribution that `name` brings with it, by its canonical name, without `name`."""
    seen: set[tuple[str, tuple[str, ...]]] = set()
    waiting = [(canonicalize_name(name), extras)]
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        waiting += [following for following in _required(*one) if following not in seen]
    return {one for one, _ in seen} - {canonicalize_name(name)}


@cache
def _required(name: str, extras: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    return list(_requirements(name, extras))


def _requirements(name: str, extras: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for text in metadata.requires(name) or []:
        wanted = Requirement(text)
        if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            try:
                metadata.version(wanted.name)
            except metadata.PackageNotFoundError:
                continue
            yield canonicalize_name(wanted.name), tuple(sorted(wanted.extras))
