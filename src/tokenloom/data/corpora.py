"""Texts known by name: python-docs, which every Python has, and two that are fetched once."""

from __future__ import annotations

import ast
import hashlib
import os
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenloom.errors import DataError

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

_LEFT_OUT = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
_SHORTEST = 50  # characters; "Return True." and the like teach nothing
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def cache_folder() -> Path:
    """Where downloads and prepared data are kept: TOKENLOOM_CACHE, or the platform's folder for caches."""
    if chosen := os.environ.get("TOKENLOOM_CACHE"):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("tokenloom", appauthor=False)


def standard_library_files() -> list[Path]:
    """The Python files of the running interpreter's standard library, sorted; tests and installed packages left out."""
    library = Path(sysconfig.get_paths()["stdlib"])
    files: list[Path] = []
    for folder, subfolders, names in os.walk(library):
        subfolders[:] = [name for name in subfolders if name not in _LEFT_OUT]
        files += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(files)


def python_docs() -> list[str]:
    """The standard library's docstrings of 50 characters or more, each once, in the order of their sha256.

    Raises `DataError` where Python came without its source files.
    """
    docstrings = {text for file in standard_library_files() for text in _docstrings(file)}
    if not docstrings:
        raise DataError(
            f"this Python has no library source files in {sysconfig.get_paths()['stdlib']}. Name a text of yours."
        )
    return sorted(docstrings, key=lambda text: hashlib.sha256(text.encode("utf-8")).digest())


def corpus_file(name: str, cache: Path | None = None) -> Path:
    """The file of a corpus that has one: from the folder TOKENLOOM_DATA names, or downloaded once and kept.

    A copy that is there is never fetched again. Raises `DataError` for a copy with other content, and where the
    text can be neither found nor downloaded.
    """
    source = DOWNLOADS[name]
    folder = os.environ.get("TOKENLOOM_DATA")
    if folder and (file := Path(folder, f"{name}.txt")).is_file():
        if hashlib.sha256(file.read_bytes()).hexdigest() != source.sha256:
            raise DataError(
                f"{file} is not the {name} that is known by that name: its sha256 differs. Remove or rename it."
            )
        return file
    return _download(name, source, (cache or cache_folder()) / "corpora")


def _download(name: str, source: Download, folder: Path) -> Path:
    import pooch
    import requests

    mirror = os.environ.get("TOKENLOOM_MIRROR")
    url = f"{mirror.rstrip('/')}/{name}.txt" if mirror else source.url
    elsewhere = f"Put {name}.txt into a folder and name that folder in TOKENLOOM_DATA, or name a text of yours."
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # a library does not talk on stderr
    try:
        fetch: Any = pooch.HTTPDownloader(timeout=30)
        return Path(pooch.retrieve(url, f"sha256:{source.sha256}", fname=f"{name}.txt", path=folder, downloader=fetch))
    except requests.HTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        raise DataError(f"cannot download {name}: {url} answered {status}. {elsewhere}") from None
    except requests.RequestException as error:
        raise DataError(
            f"cannot download {name}: no connection to {url} ({type(error).__name__}). {elsewhere}"
        ) from None
    except ValueError:
        raise DataError(f"{url} is not the {name} that is known: its sha256 differs. {elsewhere}") from None
    except OSError as error:
        raise DataError(
            f"cannot keep {name} in {folder}: {error.strerror}. Name another folder in TOKENLOOM_CACHE."
        ) from None
    finally:
        logger.setLevel(level)


def _docstrings(file: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in old modules
            tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return  # templates and deliberately broken files
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and (text := ast.get_docstring(node)) and len(text) >= _SHORTEST:
            yield text
