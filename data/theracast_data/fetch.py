"""Public cohorts by name: downloaded, checked against their hash, and only then put in place."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from theracast_data.errors import TheracastError
from theracast_data.spelling import listed, nearest

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
_CHUNK = 1 << 16
_TIMEOUT_SECONDS = 30


class FetchError(TheracastError):
    """A public cohort could not be fetched; nothing was written."""


@dataclass(frozen=True)
class Dataset:
    """One public file.

    Attributes:
        file: where it goes, below the folder that `THERACAST_DATA` names.
        sha256: of the whole file.
        source: publication or project.
        licence: what is known of the terms under which it may be used.
    """

    name: str
    url: str
    sha256: str
    file: str
    source: str
    licence: str


DATASETS: Mapping[str, Dataset] = {
    one.name: one
    for one in (
        Dataset(
            name="icb",
            url="https://raw.githubusercontent.com/rootchang/LORIS/"
            "eb87300f2dc6287bdf0e4404e662db0dbd421c4b/02.Input/AllData.xlsx",
            sha256="d7ad5c4aeb1033d9b36e520d63acfd8efdc5f6e3f5d52ae0f9abf0d6fe922218",
            file="icb/icb_cohorts.xlsx",
            source="Chang et al., Nature Cancer 2024 (LORIS); immune checkpoint blockade, several centres",
            licence="terms of the repository rootchang/LORIS; read them before you use or pass on the data",
        ),
    )
}


def fetch(
    name: str,
    *,
    to: Path,
    datasets: Mapping[str, Dataset] = DATASETS,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> Path:
    """Return the file of a public cohort below the folder `to`, downloaded unless it is there already.

    The file appears only when all of it has arrived and its hash is right.

    Args:
        progress: called with the bytes received and the bytes expected (0 if not known).
        overwrite: whether a file with other content is replaced.

    Raises:
        FetchError: unknown name, no connection, refusal by the server, incomplete or changed file, or another file in
            its place.
    """
    if name not in datasets:
        near = nearest(name, datasets)
        hint = f" Did you mean {near!r}?" if near else ""
        raise FetchError(f"no public cohort is named {name!r}.{hint} There are: {listed(list(datasets))}.")
    dataset = datasets[name]
    target = to / dataset.file
    if target.exists():
        if target.is_file() and _sha256(target) == dataset.sha256:
            logger.info("%s is there already", target)
            return target
        if not overwrite or not target.is_file():
            raise FetchError(
                f"{target} is there, but is not the {name} file (its SHA-256 differs). "
                "Move it away, choose another folder, or fetch with overwrite."
            )
    made = [folder for folder in (target.parent, *target.parent.parents) if not folder.exists()]
    try:
        _download(dataset, target, progress)
    except BaseException:
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise
    logger.info("%s fetched from %s", target, dataset.url)
    return target


def _download(dataset: Dataset, target: Path, progress: Progress | None) -> None:
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.WARNING)
    downloader = pooch.HTTPDownloader(
        progressbar=_Bar(progress) if progress is not None else False, chunk_size=_CHUNK, timeout=_TIMEOUT_SECONDS
    )
    where = f"{dataset.name}: {dataset.url}"
    try:
        pooch.retrieve(
            dataset.url, f"sha256:{dataset.sha256}", fname=target.name, path=target.parent, downloader=downloader
        )
    except requests.exceptions.HTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        raise FetchError(
            f"{where}: the server answers {status}. The file may have moved; get it by hand and put it at {target}."
        ) from error
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
        raise FetchError(f"{where}: the connection broke off in the middle of the file. Fetch it again.") from error
    except requests.exceptions.Timeout as error:
        raise FetchError(f"{where}: no answer within {_TIMEOUT_SECONDS} s. Try again or elsewhere.") from error
    except requests.exceptions.RequestException as error:
        raise FetchError(
            f"{where}: no connection. Check the network and HTTPS_PROXY, or get the file by hand and put it "
            f"at {target}."
        ) from error
    except ValueError as error:
        raise FetchError(
            f"{where}: the file received is not the one expected (SHA-256 should be {dataset.sha256}). "
            "It was changed at the source or on the way, and was thrown away. Try again; do not use it unchecked."
        ) from error
    except OSError as error:
        raise FetchError(f"{target}: cannot be written ({error.strerror}). Choose another folder.") from error


class _Bar:
    """What pooch expects of a progress bar, on a function."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._received = 0
        self.total = 0

    def update(self, count: int) -> None:
        self._received = min(self._received + count, self.total) if self.total else self._received + count
        self._progress(self._received, self.total)

    def reset(self) -> None:
        self._received = 0

    def close(self) -> None:
        return


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
