"""Durable writes and content hashes: what is on disk after a crash is the old version or the new one, never half of it.

Everything is written under a temporary name beside its target, flushed to the disk, and renamed. All functions raise
`OSError` as the operating system reports it; callers turn it into an error with advice.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
import sys
from collections.abc import Generator
from pathlib import Path

from tokenloom.strict_json import dump_json

# From linux/fcntl.h and linux/fs.h.
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def utf8_name(path: Path) -> Generator[Path]:
    """A name of an existing file for libraries that accept only names in UTF-8; usually its own."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        with path.open("rb") as file:
            yield Path(f"/dev/fd/{file.fileno()}")
    else:
        yield path


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file atomically and durably."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8) atomically and durably.

    The undecodable bytes of a file name, which Python holds as lone surrogates, become escapes such as \\udce9. Reading
    them as JSON restores the name.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: object) -> None:
    """Replace a JSON file atomically and durably."""
    write_text(path, dump_json(value, indent=2) + "\n")


@contextlib.contextmanager
def atomic_file(path: Path) -> Generator[Path]:
    """The name of a temporary file to write; on success it replaces `path`, on any error it is removed.

    The temporary name holds the process id, so that two processes never write into the same file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        replace_file(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Generator[Path]:
    """A temporary folder to fill; on success it replaces `path`, on any error it is removed.

    One writer at a time: the remains of a killed writer under the temporary name are removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        fsync_tree(temporary)
        replace_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_file(source: Path, target: Path) -> None:
    """Move a finished file to `target` durably, replacing a file there."""
    fsync(source)
    os.replace(source, target)
    fsync(target.parent)


def replace_folder(source: Path, target: Path) -> None:
    """Move a folder to `target`, replacing a folder there: at every instant the old one or the new one is in place.

    Where the file system cannot exchange two folders in one step, a crash can leave the old folder beside its place;
    `recover_folders` puts it back.
    """
    if not target.exists():
        source.rename(target)
    elif _exchange(source, target):
        shutil.rmtree(source, ignore_errors=True)  # the old content, under the temporary name
    else:
        replaced = _replaced_name(target)
        shutil.rmtree(replaced, ignore_errors=True)
        target.rename(replaced)
        try:
            source.rename(target)
        except OSError:
            recover_folders(target.parent)
            raise
        shutil.rmtree(replaced, ignore_errors=True)
    fsync(target.parent)


def recover_folders(parent: Path) -> None:
    """Restore every folder in `parent` whose replacement was interrupted; delete leftovers of finished ones."""
    for replaced in parent.glob(".*.replaced"):
        target = parent / replaced.name.removeprefix(".").removesuffix(".replaced")
        if target.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            replaced.rename(target)


def fsync(path: Path) -> None:
    """Flush one file, or the entries of one folder, to the disk; nothing beside or below it is opened."""
    if os.name == "nt" and path.is_dir():  # Windows cannot flush a folder
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)  # Windows flushes writable files only
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_tree(folder: Path) -> None:
    """Flush a folder with all regular files and folders below it; symbolic links are not followed."""
    for path in folder.rglob("*"):
        if not path.is_symlink() and (path.is_file() or path.is_dir()):
            fsync(path)
    fsync(folder)


def _replaced_name(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two paths atomically (`renameat2`, Linux); False where the system or file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):  # a C library without it
        return False
    if renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(b))
