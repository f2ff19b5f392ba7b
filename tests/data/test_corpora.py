"""Named corpora are found, verified, and downloaded at most once."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tokenloom.data import corpora
from tokenloom.data.corpora import CORPUS_NAMES, DOWNLOADS, cache_folder, corpus_file, python_docs
from tokenloom.errors import DataError


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Mirror]:
    """A web server on loopback that serves a folder and records the requested paths."""
    monkeypatch.delenv("TOKENLOOM_DATA", raising=False)
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Mirror(tmp_path / "served")
    monkeypatch.setenv("TOKENLOOM_MIRROR", f"http://127.0.0.1:{server.port}/")
    yield server
    server.stop()


class Mirror:
    def __init__(self, folder: Path) -> None:
        self.folder, self.requests = folder, []
        folder.mkdir()
        requests = self.requests

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args: object) -> None:
                super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

            def log_message(self, *args: object) -> None:
                requests.append(self.path)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return python_docs()


def test_python_docs_are_distinct_long_docstrings_sorted_by_hash(texts: list[str]) -> None:
    assert len(texts) > 4_000
    assert len(set(texts)) == len(texts)
    assert sum(map(len, texts)) > 1_000_000
    assert min(map(len, texts)) >= 50
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    assert digests == sorted(digests)
    assert any(text.startswith("JSON (JavaScript Object Notation)") for text in texts)


def test_python_docs_leave_out_tests_and_installed_packages() -> None:
    folders = {part for file in corpora.standard_library_files() for part in file.parts}
    assert not folders & {"test", "tests", "site-packages", "dist-packages"}


def test_python_docs_are_the_same_in_every_process(texts: list[str]) -> None:
    program = (
        "import hashlib; from tokenloom.data.corpora import python_docs;"
        "print(hashlib.sha256(repr(python_docs()).encode()).hexdigest())"
    )
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == hashlib.sha256(repr(texts).encode()).hexdigest()


@pytest.mark.parametrize("name", DOWNLOADS)
def test_a_copy_in_the_data_folder_is_used_without_network_access(
    name: str, texts_folder: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENLOOM_DATA", str(texts_folder))
    assert corpus_file(name) == texts_folder / f"{name}.txt"
    assert mirror.requests == []


def test_a_different_text_under_the_name_of_a_corpus_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "the-verdict.txt").write_text("The Verdict, abridged.")
    monkeypatch.setenv("TOKENLOOM_DATA", str(tmp_path))
    with pytest.raises(DataError, match="its sha256 differs"):
        corpus_file("the-verdict")


def test_a_download_is_cached_and_not_repeated(
    texts_folder: Path, mirror: Mirror, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(texts_folder / "the-verdict.txt", mirror.folder)
    first = corpus_file("the-verdict")
    assert len(mirror.requests) == 1
    assert first.read_bytes() == (texts_folder / "the-verdict.txt").read_bytes()
    mirror.stop()
    assert corpus_file("the-verdict") == first
    assert first.is_relative_to(cache_folder())
    assert capfd.readouterr() == ("", "")


def test_a_download_with_different_content_is_refused_and_not_cached(mirror: Mirror) -> None:
    (mirror.folder / "the-verdict.txt").write_text("<html>Log in to this network first</html>")
    with pytest.raises(DataError, match="its sha256 differs"):
        corpus_file("the-verdict")
    assert [file for file in cache_folder().rglob("*") if file.is_file()] == []


def test_a_failed_request_reports_its_status_and_a_remedy(mirror: Mirror) -> None:
    with pytest.raises(DataError, match=r"returned status 404\. Put tinyshakespeare\.txt into a folder"):
        corpus_file("tinyshakespeare")


def test_a_missing_connection_is_reported_with_a_remedy(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("TOKENLOOM_MIRROR", f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(DataError, match=r"no connection to http.*TOKENLOOM_DATA") as caught:
            corpus_file("the-verdict")
    assert "\n" not in str(caught.value)


def test_an_invalid_mirror_url_is_refused(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENLOOM_MIRROR", "not an address")
    with pytest.raises(DataError, match="the-verdict"):
        corpus_file("the-verdict")


def test_a_cache_that_cannot_be_written_is_reported(
    texts_folder: Path, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(texts_folder / "the-verdict.txt", mirror.folder)
    (tmp_path / "file").touch()
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="TOKENLOOM_CACHE"):
        corpus_file("the-verdict")


def test_the_cache_folder_can_be_set_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("TOKENLOOM_CACHE")
    assert cache_folder().name == "tokenloom"


def test_there_are_three_named_corpora() -> None:
    assert CORPUS_NAMES == ("python-docs", "the-verdict", "tinyshakespeare")
