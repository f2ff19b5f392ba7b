"""The text files of a folder, and the folders in it that are skipped because they hold no text of the user."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tokenloom.data.readers import READERS, format_suffix
from tokenloom.data.shards_meta import is_shards_folder
from tokenloom.errors import DataError
from tokenloom.home import expand_home
from tokenloom.run_folder import RunFolder

_SKIPPED_IN_NOTICE = 3
_NO_SUFFIX = "without a suffix"
_WEIGHTS = ("*.safetensors", "*.gguf", "pytorch_model*.bin")


@dataclass(frozen=True)
class FolderListing:
    """The files in a supported format, in a fixed order, and what is skipped."""

    files: list[Path] = field(default_factory=list[Path])
    skipped: dict[Path, str] = field(default_factory=dict[Path, str])
    """The skipped folders, with the kind of each."""
    other_types: Counter[str] = field(default_factory=Counter[str])
    """The number of files in formats that are not supported, by suffix."""


def list_folder(folder: Path) -> FolderListing:
    """The text files of a folder and its subfolders, each once however many links lead to it.

    Symbolic links are followed, except to a folder that contains `folder`. Hidden files, and anything that is not a
    regular file, such as a named pipe, are ignored. Raises `DataError` for a folder that cannot be listed, and if
    `folder` itself is of a kind that is skipped in other folders.
    """
    if kind := _kind_of(folder):
        raise DataError(f"{folder} is {kind}, not text. To read files in it, name them: {folder / '*.md'}.")
    listing = FolderListing()
    found: dict[str, Path] = {}  # by resolved path
    seen: set[str] = set()
    folders, linked_folders, linked_files = [folder], list[Path](), list[Path]()
    while folders or linked_folders:
        # Links last: what can be reached without one keeps its own name.
        current = folders.pop() if folders else linked_folders.pop(0)
        resolved = os.path.realpath(current)
        if resolved in seen:
            continue
        seen.add(resolved)
        for entry in _entries(current):
            path = Path(entry.path)
            if entry.is_dir():
                if kind := "hidden" if entry.name.startswith(".") else _kind_of(path):
                    listing.skipped[path] = kind
                elif not entry.is_symlink():
                    folders.append(path)
                elif not Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(path)):
                    linked_folders.append(path)
            elif entry.name.startswith("."):
                continue
            elif not is_supported(path):
                listing.other_types[format_suffix(path) or _NO_SUFFIX] += entry.is_file()
            elif entry.is_symlink():
                linked_files.append(path)
            else:
                found[os.path.join(resolved, entry.name)] = path
    for path in sorted(linked_files):
        found.setdefault(os.path.realpath(path), path)
    listing.files.extend(sorted(found.values(), key=lambda file: file.relative_to(folder).parts))
    return listing


def skipped_notices(names: Iterable[str]) -> list[str]:
    """What is skipped in the folders among `names`: a line about folders and one about files, if there are any."""
    paths = (expand_home(name) for name in names if name)
    # A folder that is itself of a kind that is skipped is either opened as token shards or refused.
    listings = [list_folder(path) for path in paths if os.path.isdir(path) and not _kind_of(path)]
    folders = sorted(item for listing in listings for item in listing.skipped.items())
    types = sum((listing.other_types for listing in listings), Counter[str]())
    notices: list[str] = []
    if folders:
        shown = [f"{path} ({kind})" for path, kind in folders[:_SKIPPED_IN_NOTICE]]
        more = [f"{len(folders) - len(shown):,} more"] if len(folders) > len(shown) else []
        notices.append(f"skipped {_counted(len(folders), 'folder')}: {', '.join(shown + more)}")
    if types:
        notices.append(f"skipped {describe_types(types)}")
    return notices


def describe_types(types: Counter[str]) -> str:
    """Files of types that are not supported, the most frequent first: "5 files of other types: 3 .html, 2 .pdf"."""
    shown = sorted(types.items(), key=lambda item: (-item[1], item[0]))[:_SKIPPED_IN_NOTICE]
    others = types.total() - sum(count for _, count in shown)
    named = [f"{count:,} {suffix}" for suffix, count in [*shown, *([("others", others)] if others else [])]]
    return f"{_counted(types.total(), 'file')} of other types: {', '.join(named)}"


def is_supported(path: Path) -> bool:
    """Whether a path, which is not a folder, has a supported format and is a regular file or a broken link."""
    if format_suffix(path) not in READERS:
        return False
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True  # reading it raises an error, which names it


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot list folder {error.filename}: {error.strerror}. Check its permissions.") from None


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _kind_of(folder: Path) -> str | None:
    """What a folder is, if it was written by a program and is not a collection of texts."""
    return next((kind for kind, is_of_kind in _KINDS.items() if is_of_kind(folder)), None)


def _is_run(folder: Path) -> bool:
    run = RunFolder(folder)
    return os.path.isfile(run.config_file) and os.path.isfile(run.identity_file)


def _is_model(folder: Path) -> bool:
    return os.path.isfile(folder / "config.json") and any(any(folder.glob(pattern)) for pattern in _WEIGHTS)


def _is_shards(folder: Path) -> bool:
    with suppress(DataError, OSError):  # a meta.json that is not of token shards, or a folder without permissions
        return is_shards_folder(folder)
    return False


def _is_tokenizer(folder: Path) -> bool:
    return os.path.isfile(folder / "merges.txt") and os.path.isfile(folder / "vocab.json")


def _is_virtual_environment(folder: Path) -> bool:
    return os.path.isfile(folder / "pyvenv.cfg") or os.path.isdir(folder / "conda-meta")


_KINDS: dict[str, Callable[[Path], bool]] = {
    "a run": _is_run,
    "a model": _is_model,
    "token shards": _is_shards,
    "a tokenizer": _is_tokenizer,
    "a virtual environment": _is_virtual_environment,
}
