"""Fetching public cohorts, against a real server on loopback."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from theracast_data.fetch import DATASETS, Dataset, FetchError, fetch

CONTENT = b"subject,response\n" + b"1,0\n" * 50_000


@dataclass
class Served:
    """A server's address and how often it was asked."""

    url: str
    asked: list[str] = field(default_factory=list)

    def dataset(self, path: str, sha256: str = hashlib.sha256(CONTENT).hexdigest()) -> dict[str, Dataset]:
        return {"toy": Dataset("toy", self.url + path, sha256, "toy/table.csv", "nobody", "none")}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path == "/gone":
                self.send_error(404)
                return
            self.send_response(200)
            if self.path != "/unknown-length":
                self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[: len(CONTENT) // 2] if self.path in ("/half", "/unknown-length") else CONTENT)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield Served(f"http://127.0.0.1:{server.server_port}", asked)
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_cohort_arrives_whole_and_is_not_fetched_again(served: Served, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    first = fetch(
        "toy", to=tmp_path, datasets=served.dataset("/table"), progress=lambda done, total: steps.append((done, total))
    )
    again = fetch("toy", to=tmp_path, datasets=served.dataset("/table"))
    assert first == again == tmp_path / "toy" / "table.csv"
    assert first.read_bytes() == CONTENT
    assert served.asked == ["/table"]
    assert steps[-1] == (len(CONTENT), len(CONTENT))
    assert [file.name for file in first.parent.iterdir()] == ["table.csv"]


@pytest.mark.parametrize(
    ("path", "sha256", "message"),
    [
        ("/table", "0" * 64, "not the one expected"),
        ("/half", hashlib.sha256(CONTENT).hexdigest(), "broke off in the middle"),
        ("/unknown-length", hashlib.sha256(CONTENT).hexdigest(), "not the one expected"),
        ("/gone", hashlib.sha256(CONTENT).hexdigest(), "the server answers 404"),
    ],
)
def test_what_is_not_right_leaves_nothing_behind(
    served: Served, tmp_path: Path, path: str, sha256: str, message: str
) -> None:
    with pytest.raises(FetchError, match=message):
        fetch("toy", to=tmp_path / "new" / "folder", datasets=served.dataset(path, sha256))
    assert list(tmp_path.rglob("*")) == []


def test_no_network_is_said_with_the_way_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    datasets = Served(f"http://127.0.0.1:{port}").dataset("/table")
    with pytest.raises(FetchError, match=r"no connection\. Check the network and HTTPS_PROXY, or get the file by hand"):
        fetch("toy", to=tmp_path, datasets=datasets)
    assert list(tmp_path.rglob("*")) == []


def test_another_file_in_the_place_is_kept_unless_told_otherwise(served: Served, tmp_path: Path) -> None:
    target = tmp_path / "toy" / "table.csv"
    target.parent.mkdir()
    target.write_text("my own work")
    with pytest.raises(FetchError, match=r"Move it away, choose another folder, or fetch with overwrite"):
        fetch("toy", to=tmp_path, datasets=served.dataset("/table"))
    assert target.read_text() == "my own work"
    with pytest.raises(FetchError):
        fetch("toy", to=tmp_path, datasets=served.dataset("/half"), overwrite=True)
    assert target.read_text() == "my own work"
    fetch("toy", to=tmp_path, datasets=served.dataset("/table"), overwrite=True)
    assert target.read_bytes() == CONTENT


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(FetchError, match=r"no public cohort is named 'icv'\. Did you mean 'icb'\?"):
        fetch("icv", to=Path("nowhere"))


def test_every_listed_cohort_says_where_it_comes_from() -> None:
    for name, one in DATASETS.items():
        assert one.name == name
        assert one.url.startswith("https://")
        assert len(one.sha256) == 64
        assert one.source
        assert one.licence
