"""Corpora available by name: python-docs, from the running Python, and two that are downloaded once."""

from __future__ import annotations

import ast
import hashlib
import os
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenloom.errors import DataError
from tokenloom.home import expand_home
from tokenloom.storage import atomic_file, sha256_of

PYTHON_DOCS = "python-docs"


@dataclass(frozen=True)
class Download:
    """A text file on the web."""

    url: str
    sha256: str


DOWNLOADS = {
    "the-verdict": Download(
        "https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/main/ch02/01_main-chapter-code/the-verdict.txt",
        "b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f",
    ),
    "tinyshakespeare": Download(
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
}
CORPUS_NAMES = (PYTHON_DOCS, *DOWNLOADS)

_EXCLUDED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
_MIN_DOCSTRING_CHARACTERS = 50  # drops "Return True." and the like
_NODES_WITH_DOCSTRINGS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_DOWNLOAD_TIMEOUT = 30.0  # seconds
_DOWNLOAD_CHUNK_BYTES = 1 << 16


def cache_folder() -> Path:
    """The folder of downloads and prepared data: TOKENLOOM_CACHE, or the platform's cache folder.

    Raises `DataError` if the user has no home folder.
    """
    if folder := os.environ.get("TOKENLOOM_CACHE"):
        return expand_home(folder)
    from platformdirs import user_cache_path

    folder = user_cache_path("tokenloom", appauthor=False)
    if not folder.is_absolute():  # without a home folder, the path begins with "~"
        raise DataError("there is no home folder for the cache. Set TOKENLOOM_CACHE to a folder.")
    return folder


def standard_library_files() -> list[Path]:
    """The Python files of the running interpreter's standard library, sorted, without tests and installed packages."""
    library = Path(sysconfig.get_paths()["stdlib"])
    files: list[Path] = []
    for folder, subfolders, names in os.walk(library):
        subfolders[:] = [name for name in subfolders if name not in _EXCLUDED_FOLDERS]
        files += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(files)


def python_docs() -> list[str]:
    """The distinct docstrings of the standard library of 50 characters or more, sorted by their sha256.

    Raises `DataError` if Python is installed without its source files.
    """
    docstrings = {text for file in standard_library_files() for text in _docstrings(file)}
    if not docstrings:
        raise DataError(
            f"this Python has no library source files in {sysconfig.get_paths()['stdlib']}. Pass a text of your own."
        )
    return sorted(docstrings, key=lambda text: hashlib.sha256(text.encode("utf-8")).digest())


def corpus_file(name: str, cache: Path | None = None) -> Path:
    """The file of a corpus in `DOWNLOADS`: from the folder in TOKENLOOM_DATA, from the cache, or downloaded.

    Raises `DataError` if the copy in TOKENLOOM_DATA has different content, or if the download fails.
    """
    download = DOWNLOADS[name]
    folder = os.environ.get("TOKENLOOM_DATA")
    if folder and (file := Path(folder, f"{name}.txt")).is_file():
        if sha256_of(file) != download.sha256:
            raise DataError(f"{file} is not the corpus {name}: its sha256 differs. Remove or rename it.")
        return file
    return _download_once(name, download, (cache or cache_folder()) / "corpora")


def _download_once(name: str, download: Download, folder: Path) -> Path:
    """The file in `folder`, downloaded if it does not exist there with the right content."""
    import requests

    file = folder / f"{name}.txt"
    mirror = os.environ.get("TOKENLOOM_MIRROR")
    url = f"{mirror.rstrip('/')}/{name}.txt" if mirror else download.url
    hint = f"Put {name}.txt into a folder and set TOKENLOOM_DATA to that folder, or pass a text of your own."
    try:
        if file.is_file() and sha256_of(file) == download.sha256:
            return file
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as temporary:
            _fetch(url, temporary)
            if sha256_of(temporary) != download.sha256:
                raise DataError(f"{url} is not the corpus {name}: its sha256 differs. {hint}")
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else "unknown"
        raise DataError(f"cannot download {name}: {url} returned status {status}. {hint}", topic="download") from None
    except requests.RequestException as error:
        raise DataError(
            f"cannot download {name}: no connection to {url} ({type(error).__name__}). {hint}", topic="download"
        ) from None
    except OSError as error:
        raise DataError(
            f"cannot write {name} to {folder}: {error.strerror}. Set TOKENLOOM_CACHE to another folder."
        ) from None
    return file


def _fetch(url: str, target: Path) -> None:
    import requests

    with requests.get(url, stream=True, timeout=_DOWNLOAD_TIMEOUT) as response, target.open("wb") as file:
        response.raise_for_status()
        for chunk in response.iter_content(_DOWNLOAD_CHUNK_BYTES):
            file.write(chunk)


def _docstrings(file: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escape sequences in old modules
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return  # templates and deliberately invalid files
    for node in ast.walk(tree):
        if (
            isinstance(node, _NODES_WITH_DOCSTRINGS)
            and (text := ast.get_docstring(node))
            and len(text) >= _MIN_DOCSTRING_CHARACTERS
        ):
            yield text
