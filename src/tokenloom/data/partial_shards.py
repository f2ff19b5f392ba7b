"""The folder beside the output in which token shards are written until all of them are finished."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Generator
from pathlib import Path

from tokenloom.data.shards_meta import (
    FINISHED_FOLDER,
    SPLITS,
    TOKENIZER_FOLDER,
    cannot_write_shards,
    is_shards_folder,
    remove_meta,
)
from tokenloom.errors import DataError, TokenloomError
from tokenloom.storage import write_text

_SPEC_FILE = "spec.json"


def start_partial(folder: Path, spec_json: str) -> None:
    """Create the folder, or continue in the one that an earlier call left.

    Finished shards stay even if the specification is another one, because each is used only for the text and the
    tokenizer that it was written from. A tokenizer is kept for the same specification only, because it can depend on
    all of the text. Raises `DataError` if the folder contains something else.
    """
    if folder.exists() and not _is_ours(folder):
        raise DataError(f"{folder} exists and was not written by tokenloom prepare. Move it, or choose another --out.")
    folder.mkdir(exist_ok=True)
    for temporary in folder.rglob("*.tmp"):  # left by processes that were killed
        temporary.unlink()
    spec_file = folder / _SPEC_FILE
    if not (spec_file.is_file() and spec_file.read_bytes() == spec_json.encode()):
        remove_meta(folder)
        shutil.rmtree(folder / TOKENIZER_FOLDER, ignore_errors=True)
        write_text(spec_file, spec_json)
    for name in (*SPLITS, FINISHED_FOLDER):
        (folder / name).mkdir(exist_ok=True)


def finish_partial(folder: Path) -> None:
    """Remove what is not part of the token shards. Can be repeated."""
    shutil.rmtree(folder / FINISHED_FOLDER, ignore_errors=True)
    (folder / _SPEC_FILE).unlink(missing_ok=True)


@contextlib.contextmanager
def kept_on_failure(folder: Path, out: Path) -> Generator[None]:
    """On an error, keep the folder if a shard is finished, and say so in the error; remove it otherwise."""
    try:
        yield
    except BaseException as error:
        if not _has_finished_shards(folder):
            if _is_ours(folder):
                shutil.rmtree(folder, ignore_errors=True)
            raise
        kept = f"Finished shards are kept in {folder}: repeat the command to continue from them."
        if isinstance(error, OSError):
            raise DataError(f"{cannot_write_shards(out, error)} {kept}") from None
        if isinstance(error, (TokenloomError, KeyboardInterrupt)):
            error.args = (f"{(str(error) or 'interrupted').removesuffix('.')}. {kept}",)
        raise


def _is_ours(folder: Path) -> bool:
    """Whether the folder was made by `start_partial`; a call that is killed at once leaves it without its files."""
    if not folder.is_dir():
        return False
    if (folder / _SPEC_FILE).is_file() or is_shards_folder(folder):
        return True
    return all(path.name.startswith(f".{_SPEC_FILE}.") for path in folder.iterdir())


def _has_finished_shards(folder: Path) -> bool:
    return any((folder / FINISHED_FOLDER).glob("*.json")) or (folder.is_dir() and is_shards_folder(folder))
