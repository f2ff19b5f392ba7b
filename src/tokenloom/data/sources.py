"""Where documents come from: files, folders, globs, standard input, datasets and named corpora."""

from __future__ import annotations

import difflib
import glob
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

from tokenloom.data.corpora import (
    CORPUS_NAMES,
    DOWNLOADS,
    PYTHON_DOCS,
    corpus_file,
    python_docs,
    standard_library_files,
)
from tokenloom.data.readers import READABLE, Document, Piece, Reading, counted, kind_of, pieces_of, text_of, text_pieces
from tokenloom.errors import DataError, MissingExtraError

STDIN = "-"

_READABLE = f"Readable: {' '.join(READABLE)}, each also .gz and .zst"


@dataclass(frozen=True)
class Source:
    """One thing to read: `pieces` may be asked for again and gives the same, unless `identity` has changed."""

    name: str
    size: int | None
    """Bytes on disk; None where that is unknown."""
    identity: str
    """Where it is and what is known of its content without reading it."""
    pieces: Callable[[Reading], Iterator[Piece]]


def find_sources(names: Iterable[str], stdin: BinaryIO | None = None) -> list[Source]:
    """What the names stand for: files, folders, globs, "-" (a file with what came in), hf:NAME and named corpora.

    Raises `DataError` for a name that stands for nothing readable.
    """
    return [source for name in names for source in _find(name, stdin)]


def read_documents(
    names: Iterable[str], reading: Reading | None = None, stdin: BinaryIO | None = None
) -> Iterator[Document]:
    """Whole documents, empty ones left out, for texts that fit in memory."""
    reading = reading or Reading()
    held: list[str] = []
    for source in find_sources(names, stdin):
        for piece in source.pieces(reading):
            held.append(piece.text)
            if piece.ends_document:
                if any(held):
                    yield Document("".join(held), piece.source)
                held.clear()


def _find(name: str, stdin: BinaryIO | None) -> list[Source]:
    if name == STDIN:
        return [_stdin_source(stdin)]
    if name.startswith("hf:"):
        return [_dataset_source(name)]
    if name == PYTHON_DOCS:
        return [_python_docs_source()]
    if name in DOWNLOADS:
        return [_download_source(name)]
    path = Path(name).expanduser()
    if name and path.is_dir():
        return _folder_sources(path)
    if name and path.exists():
        return [_file_source(path)]
    if glob.has_magic(name):
        return _glob_sources(str(path))
    near = _nearest(path)
    raise DataError(
        f'there is no file, folder or named corpus "{name}".{near} Named corpora: {", ".join(CORPUS_NAMES)}.'
    )


def _folder_sources(folder: Path) -> list[Source]:
    def cannot_list(error: OSError) -> None:
        raise DataError(f"cannot list folder {error.filename}: {error.strerror}. Check its permissions.")

    files: list[Path] = []
    for parent, subfolders, names in os.walk(folder, onerror=cannot_list):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        files += [Path(parent, name) for name in names if not name.startswith(".") and kind_of(Path(name)) in READABLE]
    if not files:
        raise DataError(f"folder {folder} holds nothing to read. {_READABLE}.")
    return [_file_source(file) for file in sorted(files, key=lambda file: file.relative_to(folder).parts)]


def _glob_sources(pattern: str) -> list[Source]:
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
    files = [match for match in matches if match.is_file() and kind_of(match) in READABLE]
    if not files:
        found = f"nothing that can be read, but {matches[0]}" if matches else "nothing"
        raise DataError(f"{pattern} matches {found}. {_READABLE}.")
    return [_file_source(file) for file in files]


def _file_source(path: Path) -> Source:
    name = str(path)
    if kind_of(path) not in READABLE:
        raise DataError(
            f"{name} is of no kind that can be read. {_READABLE}. "
            f"Plain text of another name can come from standard input: - < {path.name}"
        )
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror}. Check its permissions.") from None
    identity = f"{path.resolve()} {status.st_size} {status.st_mtime_ns}"
    return Source(name, status.st_size, identity, lambda reading: pieces_of(path, name, reading))


def _download_source(name: str) -> Source:
    path = corpus_file(name)
    identity = f"{name} {DOWNLOADS[name].sha256}"
    return Source(name, path.stat().st_size, identity, lambda reading: pieces_of(path, name, reading))


def _stdin_source(kept: BinaryIO | None) -> Source:
    if kept is None:
        raise DataError('standard input ("-") can be read only once. Save it as a .txt file and name that.')
    name = "standard input"
    kept.seek(0)
    digest = hashlib.file_digest(kept, "sha256").hexdigest()  # type: ignore[arg-type]
    size = kept.tell()

    def pieces(reading: Reading) -> Iterator[Piece]:
        kept.seek(0)
        return text_pieces(counted(kept, name, reading, keep_open=True), name, reading)

    return Source(name, size, f"{name} {digest}", pieces)


def _python_docs_source() -> Source:
    listing = hashlib.sha256()
    for file in standard_library_files():
        status = file.stat()
        listing.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))

    docstrings = cache(python_docs)  # seconds to find, and asked for several times

    def pieces(reading: Reading) -> Iterator[Piece]:
        reading.hashes[PYTHON_DOCS] = hashlib.sha256("\0".join(docstrings()).encode("utf-8")).hexdigest()
        return (Piece(text, PYTHON_DOCS, True) for text in docstrings())

    return Source(PYTHON_DOCS, None, f"{PYTHON_DOCS} {listing.hexdigest()}", pieces)


def _dataset_source(name: str) -> Source:
    """A dataset of the Hugging Face Hub, or a folder of one, streamed: hf:NAME or hf:NAME:CONFIGURATION."""
    repository, _, configuration = name.removeprefix("hf:").partition(":")

    def pieces(reading: Reading) -> Iterator[Piece]:
        try:
            import datasets
        except ImportError:
            raise MissingExtraError("datasets", "data", f"reading {name}") from None
        digest = hashlib.sha256()
        try:
            rows = datasets.load_dataset(repository, configuration or None, split="train", streaming=True)
            for number, row in enumerate(rows, start=1):
                text = text_of(row, f"{name} row {number:,}", reading)
                data = text.encode("utf-8") + b"\0"
                digest.update(data)
                reading.bytes_read += len(data)
                yield Piece(text, name, True)
        except DataError:
            raise
        except Exception as error:  # the library and those below it raise dozens of kinds
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise DataError(
                f"cannot read the dataset {name}: {reason}. Check the name and the connection, or pass files."
            ) from None
        reading.hashes[name] = digest.hexdigest()

    return Source(name, None, name, pieces)


def _nearest(path: Path) -> str:
    if not path.name:
        return ""
    try:
        beside = {str(path.with_name(name)): name for name in os.listdir(path.parent)}
    except OSError:
        beside = {}
    near = difflib.get_close_matches(path.name, [*beside.values(), *CORPUS_NAMES], n=1, cutoff=0.6)
    return f" Did you mean {next((full for full, name in beside.items() if name == near[0]), near[0])}?" if near else ""
