"""From a reference to the model that answers: a folder, a `models:/` URI or a name in the registry."""

from __future__ import annotations

import difflib
import logging
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import yaml

from theracast_data.errors import ArtifactError, RegistryError
from theracast_data.home import prepare_mlflow, tracking_uri
from theracast_models.response_model import ResponseModel

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

logger = logging.getLogger(__name__)

ARTIFACT = "response_model"
_URI = re.compile(r"^models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))$")
_CONNECT_SECONDS = 5.0
_T = TypeVar("_T")


@dataclass(frozen=True)
class RegisteredVersion:
    """One version in the registry: what `models:/NAME/VERSION` points to."""

    name: str
    version: str
    aliases: tuple[str, ...] = ()

    @property
    def uri(self) -> str:
        """The reference that always means this version."""
        return f"models:/{self.name}/{self.version}"


def load_model(reference: str | Path) -> ResponseModel:
    """Return the model that `reference` means, ready to answer.

    Args:
        reference: a model folder (also the folder of an MLflow model around one), `models:/NAME@ALIAS`,
            `models:/NAME/VERSION`, or a name in the registry: its champion; where there is none, its challenger, else
            its newest version, which a warning then says.

    Raises:
        ArtifactError: the folder is missing, damaged or no Theracast model.
        RegistryError: the registry cannot be reached, or does not know the name, alias or version.
    """
    folder = local_folder(reference)
    if folder is not None:
        return ResponseModel.load(model_folder(folder, shown=str(reference)))
    version = resolve_version(str(reference))
    with downloaded(version) as mlflow_folder:
        model = ResponseModel.load(model_folder(mlflow_folder, shown=version.uri))
    return _named(model, version)


def local_folder(reference: str | Path) -> Path | None:
    """Return the folder that `reference` means, or None where it means something in the registry.

    A folder without a model does not hide a model of the same name in the registry: `make demo` leaves such a folder.
    """
    path = Path(reference)
    if path.is_dir():
        bare = isinstance(reference, str) and path.name == reference
        holds_model = any((path / name).is_file() for name in ("format.json", "MLmodel"))
        return path if holds_model or not bare else None
    if path.is_file():
        raise ArtifactError(f"{reference}: this is a file. Name the model's folder, a models:/ URI or a registry name.")
    text = str(reference)
    looks_like_path = isinstance(reference, Path) or text.startswith((".", "~", os.sep)) or os.sep in text
    if looks_like_path and not text.startswith("models:"):
        raise ArtifactError(
            f"{reference}: there is no such folder. Name a model's folder, models:/NAME@ALIAS, models:/NAME/VERSION "
            "or a name in the registry."
        )
    return None


def model_folder(folder: Path, *, shown: str) -> Path:
    """Return the folder of the ResponseModel: `folder` itself, or the one inside an MLflow model."""
    description = folder / "MLmodel"
    if not description.is_file():
        return folder
    try:
        content = yaml.safe_load(description.read_text(encoding="utf-8"))
        inside = content["flavors"]["python_function"]["artifacts"][ARTIFACT]["path"]
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{shown}: this MLflow model holds no Theracast model (its MLmodel file names no artifact {ARTIFACT!r}). "
            "Name a version that `theracast train` registered."
        ) from error
    found = (folder / str(inside)).resolve()
    if not found.is_relative_to(folder.resolve()) or not found.is_dir():
        raise ArtifactError(
            f"{shown}: its MLmodel file points to {str(inside)!r}, which is not inside the model. "
            "The model is damaged; train or copy it again."
        )
    return found


def resolve_version(reference: str) -> RegisteredVersion:
    """Return the version in the registry that `models:/NAME@ALIAS`, `models:/NAME/VERSION` or a bare name means."""
    client = registry_client()
    if not reference.startswith("models:"):
        return _ask(lambda: _best_version(client, reference))
    match = _URI.match(reference)
    if match is None:
        raise RegistryError(f"{reference}: not a model reference. Write models:/NAME@ALIAS or models:/NAME/VERSION.")
    name, alias, version = match["name"], match["alias"], match["version"]
    return _ask(lambda: _by_alias(client, name, alias) if alias else _by_version(client, name, version))


@contextmanager
def downloaded(version: RegisteredVersion) -> Iterator[Path]:
    """Yield a temporary folder with the MLflow model of this version."""
    prepare_mlflow()
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    client, uri = registry_client(), tracking_uri()
    with tempfile.TemporaryDirectory(prefix="theracast-model-") as target:
        try:
            # Asked for models:/NAME/VERSION, MLflow follows the reference in its global store instead of this one.
            source = client.get_model_version_download_uri(version.name, version.version)
            logged = re.fullmatch(r"models:/(m-[0-9a-f]+)", source)
            location = client.get_logged_model(logged[1]).artifact_location if logged else source
            folder = download_artifacts(artifact_uri=location, dst_path=target, tracking_uri=uri)
        except (MlflowException, OSError) as error:
            raise RegistryError(
                f"{version.uri}: the registry knows this version, but its files cannot be fetched "
                f"({type(error).__name__}). Check that the artefact store is there and that you may read it."
            ) from error
        yield Path(folder)


def registry_client() -> MlflowClient:
    """Return a client of the registry, after making sure that the store is there."""
    prepare_mlflow()
    uri = tracking_uri()
    _check_reachable(uri)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _check_reachable(uri: str) -> None:
    """MLflow itself creates a missing SQLite file and tries an absent server for minutes: look first."""
    parts = urlsplit(uri)
    if parts.scheme == "sqlite":
        path = Path(uri.removeprefix("sqlite:///").split("?")[0])
        if not path.is_file():
            raise RegistryError(
                f"there is no registry at {path}. Train a model first, or set THERACAST_HOME or MLFLOW_TRACKING_URI "
                "to where the models are; a model's folder needs no registry."
            )
    if parts.scheme in ("http", "https") and parts.hostname:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            socket.create_connection((parts.hostname, port), timeout=_CONNECT_SECONDS).close()
        except OSError as error:
            raise RegistryError(
                f"the registry at {parts.hostname}:{port} does not answer ({type(error).__name__}). "
                "Start the tracking server, or set MLFLOW_TRACKING_URI to where it runs."
            ) from error


def _ask(question: Callable[[], _T]) -> _T:
    from mlflow.exceptions import MlflowException

    try:
        return question()
    except MlflowException as error:
        raise RegistryError(
            f"the registry cannot answer ({error.error_code}). Check MLFLOW_TRACKING_URI and the credentials for it."
        ) from error


def _best_version(client: MlflowClient, name: str) -> RegisteredVersion:
    aliases = _aliases(client, name)
    if "champion" in aliases:
        return _by_alias(client, name, "champion")
    if "challenger" in aliases:
        version = _by_alias(client, name, "challenger")
        logger.warning("%s has no champion yet; its challenger, version %s, answers.", name, version.version)
        return version
    versions = client.search_model_versions(f"name = '{name}'")
    if not versions:
        raise RegistryError(f"the model {name!r} has no version in the registry. Train it: theracast train STUDY.")
    newest = max(versions, key=lambda one: int(one.version))
    logger.warning("%s has neither champion nor challenger; its newest version, %s, answers.", name, newest.version)
    return _registered(newest)


def _by_alias(client: MlflowClient, name: str, alias: str) -> RegisteredVersion:
    aliases = _aliases(client, name)
    if alias not in aliases:
        known = ", ".join(f"{one} (version {number})" for one, number in sorted(aliases.items())) or "none"
        raise RegistryError(
            f"models:/{name}@{alias}: the model has no alias {alias!r}; its aliases: {known}. "
            f"Set it with: theracast models alias {name} VERSION {alias}."
        )
    return _registered(client.get_model_version(name, str(aliases[alias])), alias)


def _by_version(client: MlflowClient, name: str, version: str) -> RegisteredVersion:
    _aliases(client, name)
    versions = {str(one.version): one for one in client.search_model_versions(f"name = '{name}'")}
    if version not in versions:
        known = ", ".join(sorted(versions, key=int)) or "none"
        raise RegistryError(f"models:/{name}/{version}: there is no such version; the registry holds: {known}.")
    return _registered(client.get_model_version(name, version))


def _aliases(client: MlflowClient, name: str) -> dict[str, str]:
    """Return alias to version of a registered model; a name that is not there is an error with the nearest ones."""
    from mlflow.exceptions import MlflowException

    try:
        return {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    names = [one.name for one in client.search_registered_models(max_results=1000)]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        hint = f"Did you mean {' or '.join(near)}?"
    elif names:
        hint = f"It holds: {', '.join(sorted(names)[:10])}."
    else:
        hint = "It is empty: train a model first."
    raise RegistryError(f"{name}: neither a folder nor a model in the registry. {hint}")


def _registered(version: ModelVersion, *also: str) -> RegisteredVersion:
    aliases = dict.fromkeys([*also, *(version.aliases or ())])
    return RegisteredVersion(version.name, str(version.version), tuple(aliases))


def _named(model: ResponseModel, version: RegisteredVersion) -> ResponseModel:
    """Return the same model, answering under its name in the registry instead of its folder's identity."""
    registry = {"name": version.name, "version": version.version, "aliases_when_loaded": list(version.aliases)}
    return replace(model, identity=version.uri, card=model.card | {"registry": registry})
