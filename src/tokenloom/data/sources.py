"""Sources of documents: files, folders, globs, standard input, datasets and named corpora."""

from __future__ import annotations

import difflib
import glob
import hashlib
import os
import re
import shlex
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from tokenloom.data import decompression
from tokenloom.data.corpora import (
    CORPUS_NAMES,
    DOWNLOADS,
    PYTHON_DOCS,
    corpus_file,
    python_docs,
    standard_library_files,
)
from tokenloom.data.documents import Document, DocumentPart, ReadState, record_text
from tokenloom.data.folders import describe_types, is_supported, list_folder, skipped_notices
from tokenloom.data.readers import READERS, format_suffix, hashing_stream, read_file, read_text
from tokenloom.data.streams import STDIN, Streams, is_pipe
from tokenloom.errors import DataError, MissingExtraError, shortened
from tokenloom.home import expand_home

NO_STREAMS: Streams = {}
_SUPPORTED = f"Supported: {' '.join(READERS)}, each also as .gz or .zst"


@dataclass(frozen=True)
class Source:
    """One file, dataset or corpus. Reading it again gives the same documents unless its `identity` has changed."""

    name: str
    size: int | None
    """Bytes on disk; None if unknown."""
    identity: str
    """Its location, and what is known about its content without reading it: the size and times of every file."""
    read: Callable[[ReadState], Iterator[DocumentPart]]


def find_sources(names: Iterable[str], streams: Streams = NO_STREAMS) -> list[Source]:
    """The sources that the names refer to: files, folders, globs, "-", hf:NAME and named corpora.

    `streams` has the copies of standard input, the source of the name "-", and of pipes. Raises `DataError` for a name
    that refers to nothing supported.
    """
    return [source for name in names for source in _find(name, streams)]


def read_documents(
    names: Iterable[str], state: ReadState | None = None, streams: Streams = NO_STREAMS
) -> Iterator[Document]:
    """The documents of all sources, each held in memory as a whole, without empty ones."""
    state = state or ReadState()
    texts: list[str] = []
    for source in find_sources(names, streams):
        for part in source.read(state):
            texts.append(part.text)
            if part.ends_document:
                if any(texts):
                    yield Document("".join(texts), part.source)
                texts.clear()


def source_notices(names: Sequence[str]) -> list[str]:
    """What the user should know about sources: local paths hidden by another meaning of a name, and what is skipped."""
    named = {name: "corpus" for name in names if name in CORPUS_NAMES}
    named |= {name: "dataset" for name in names if name.startswith("hf:")}
    hidden = [
        f"{name} is the {kind} of that name; write ./{name} for the local path"
        for name, kind in named.items()
        if os.path.lexists(name)
    ]
    return [*hidden, *skipped_notices(name for name in names if name not in named)]


def folder_name(source: str) -> str:
    """A name for the folder of what is made from a source, such as shakespeare for texts/shakespeare.txt.gz.

    Empty if a source such as .. has no letters and digits.
    """
    stem = "stdin" if source == STDIN else Path(source.removeprefix("hf:")).name.split(".")[0]
    return re.sub(r"[^\w-]+", "-", stem).strip("-")


def _find(name: str, streams: Streams) -> list[Source]:
    if name in streams:
        return [_stream_source(name, streams[name])]
    if name == STDIN:
        raise DataError('standard input ("-") can be read only once here. Save it as a .txt file and pass that.')
    if name.startswith("hf:"):
        return [_dataset_source(name)]
    if name == PYTHON_DOCS:
        return [_python_docs_source()]
    if name in DOWNLOADS:
        return [_download_source(name)]
    path = expand_home(name)
    if name and os.path.isdir(path):
        return _folder_sources(path)
    if name and os.path.lexists(path):
        return [_file_source(path)]
    if glob.has_magic(name):
        return _glob_sources(str(path))
    advice = _suggestion(path) or _text_advice(name)
    raise DataError(
        f'there is no file, folder or named corpus "{shortened(name)}".{advice} '
        f"Named corpora: {', '.join(CORPUS_NAMES)}.",
        topic="no such text",
    )


def _folder_sources(folder: Path) -> list[Source]:
    listing = list_folder(folder)
    if not listing.files:
        others = f", only {describe_types(listing.other_types)}" if listing.other_types else ""
        raise DataError(f"folder {folder} contains no supported file{others}. {_SUPPORTED}.", topic="no such text")
    return [_file_source(file) for file in listing.files]


def _glob_sources(pattern: str) -> list[Source]:
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
    files = [match for match in matches if not match.is_dir() and is_supported(match)]
    if not files:
        result = f"no supported file, only {matches[0]}" if matches else "nothing"
        raise DataError(
            f"{shortened(pattern)} matches {result}. {_SUPPORTED}.{_text_advice(pattern)}", topic="no such text"
        )
    return [_file_source(file) for file in files]


def _file_source(path: Path) -> Source:
    name = str(path)
    try:
        status = path.stat()
    except OSError as error:
        advice = "where the link leads" if path.is_symlink() else "its permissions"
        raise DataError(f"cannot read {name}: {error.strerror}. Check {advice}.") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "pipe" if is_pipe(path) else "device or socket"
        raise DataError(f"{name} is a {kind}, not a file. Pass a file, or - to read standard input.")
    if format_suffix(path) not in READERS:
        raise DataError(
            f"{name} has an unsupported file type. {_SUPPORTED}. "
            f"Plain text with another suffix can be read from standard input (- < {shlex.quote(name)}).",
            topic="no such text",
        )
    identity = f"{path.resolve()} {_file_state(status)}"
    return Source(name, status.st_size, identity, lambda state: read_file(path, name, state))


def _download_source(name: str) -> Source:
    path = corpus_file(name)
    identity = f"{name} {DOWNLOADS[name].sha256}"
    return Source(name, path.stat().st_size, identity, lambda state: read_file(path, name, state))


def _stream_source(name: str, stream: BinaryIO) -> Source:
    """Plain text that was copied from standard input or a pipe."""
    suffix = Path(name).suffix.lower()
    if suffix in decompression.SUFFIXES or READERS.get(suffix, read_text) is not read_text:
        raise DataError(f"{name} is a pipe, and pipes are read as plain text. Write its content to a file instead.")
    name = "standard input" if name == STDIN else name
    digest = hashlib.sha256()
    stream.seek(0)
    while data := stream.read(1 << 20):
        digest.update(data)
    size = stream.tell()

    def read(state: ReadState) -> Iterator[DocumentPart]:
        stream.seek(0)
        return read_text(hashing_stream(stream, name, state, close=False), name, state)

    return Source(name, size, f"{name} {digest.hexdigest()}", read)


def _python_docs_source() -> Source:
    identity = f"{PYTHON_DOCS} {_files_state(standard_library_files())}"
    docstrings = cache(python_docs)  # takes seconds, and the source is read several times

    def read(state: ReadState) -> Iterator[DocumentPart]:
        state.sha256[PYTHON_DOCS] = hashlib.sha256("\0".join(docstrings()).encode("utf-8")).hexdigest()
        return (DocumentPart(text, PYTHON_DOCS, True) for text in docstrings())

    return Source(PYTHON_DOCS, None, identity, read)


def _dataset_source(name: str) -> Source:
    """A dataset of the Hugging Face Hub, or a local dataset folder, streamed: hf:NAME or hf:NAME:CONFIGURATION."""
    repository, _, configuration = name.removeprefix("hf:").partition(":")

    def read(state: ReadState) -> Iterator[DocumentPart]:
        digest = hashlib.sha256()
        try:
            for number, row in enumerate(_dataset_rows(repository, configuration or None, name), start=1):
                text = record_text(row, f"{name} row {number:,}", state)
                data = text.encode("utf-8") + b"\0"
                digest.update(data)
                state.bytes_read += len(data)
                yield DocumentPart(text, name, True)
        except (DataError, MissingExtraError):
            raise
        except Exception as error:  # the library and its dependencies raise many kinds of errors
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise DataError(
                f"cannot read the dataset {name}: {reason}. Check the name and the connection, or pass files.",
                topic="download",
            ) from None
        state.sha256[name] = digest.hexdigest()

    return Source(name, None, _dataset_identity(name, repository), read)


def _dataset_identity(name: str, repository: str) -> str:
    """Of a dataset of the hub, its name is all that is known without a connection."""
    folder = Path(repository)
    if not (repository and folder.is_dir()):
        return name
    files = (
        file for file in folder.rglob("*") if not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
    return f"{name} {folder.resolve()} {_files_state(files)}"


def _dataset_rows(repository: str, configuration: str | None, name: str) -> Iterable[Mapping[str, object]]:
    try:
        import datasets  # pyright: ignore[reportMissingTypeStubs]  # it has no type information
    except ImportError:
        raise MissingExtraError("datasets", "data", f"reading {name}") from None
    return cast("Any", datasets).load_dataset(repository, configuration, split="train", streaming=True)


def _text_advice(name: str) -> str:
    """A hint for a text that was passed instead of the name of a file; "" if it does not look like one."""
    looks_like_text = any(character.isspace() for character in name)
    return " To pass a text itself, write it to standard input and pass -." if looks_like_text else ""


def _file_state(status: os.stat_result) -> str:
    """Changes with the content of a file. A program can set the modification time, but not the time of that change."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


def _files_state(files: Iterable[Path]) -> str:
    """Changes with the name and the content of any of the files."""
    listing = hashlib.sha256()
    for file in sorted(file for file in files if file.is_file()):
        listing.update(os.fsencode(f"{file} {_file_state(file.stat())}\n"))
    return listing.hexdigest()


def _suggestion(path: Path) -> str:
    """A hint at the neighbouring file or named corpus whose name is most similar; "" if none is."""
    if not path.name:
        return ""
    try:
        neighbours = {name: str(path.with_name(name)) for name in os.listdir(path.parent)}
    except (OSError, ValueError):
        neighbours = {}
    matches = difflib.get_close_matches(path.name, [*neighbours, *CORPUS_NAMES], n=1, cutoff=0.6)
    return f" Did you mean {neighbours.get(matches[0], matches[0])}?" if matches else ""
