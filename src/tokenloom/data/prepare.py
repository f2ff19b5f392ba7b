"""Preparation of token shards from text: atomic, resumable after an interruption, and cached."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

from tokenloom.config import DataConfig
from tokenloom.data.corpora import cache_folder
from tokenloom.data.dataset_spec import DatasetSpec
from tokenloom.data.documents import DocumentPart, ReadState
from tokenloom.data.progress import ProgressCallback
from tokenloom.data.shard_jobs import FINISHED_FOLDER, ShardEncoder, shard_jobs
from tokenloom.data.shard_writer import finish_shards
from tokenloom.data.shards import Shards, open_shards
from tokenloom.data.shards_meta import SPLITS, TOKENIZER_FOLDER, SourceMeta, cannot_write_shards, is_shards_folder
from tokenloom.data.sources import STDIN
from tokenloom.data.splitting import SplitRule, choose_rule
from tokenloom.data.tokenizers import ENDOFTEXT, Tokenizer, load_tokenizer, make_tokenizer
from tokenloom.data.tokenizers.chunking import split_into_chunks
from tokenloom.data.tokenizers.load import needs_training
from tokenloom.data.worker_pool import encode_jobs
from tokenloom.errors import DataError, Interrupted, TokenizerError
from tokenloom.home import expand_home
from tokenloom.storage import atomic_folder, fsync_tree, replace_folder, write_text

TOKENIZER_TRAINING_CHARACTERS = 1 << 23  # training a BPE takes about 50 times as much memory

_SPEC_FILE = "spec.json"
_COPY_BYTES = 1 << 20


def prepare(data: DataConfig, out: str | Path, *, progress: ProgressCallback | None = None) -> Shards:
    """Read the sources, split them, and write token shards to the folder `out`.

    The folder appears when it is complete. If a call is killed, its finished shards stay next to `out`, and the same
    call resumes from them. The same call on a complete folder changes nothing (`already_prepared`).

    Raises `DataError` for text that cannot be read or is empty, and if `out` exists with other content;
    `TokenizerError` for a tokenizer that cannot be made.
    """
    out = Path(out)
    for name in data.sources:
        if _is_prepared(name):
            raise DataError(f"{name} is already a folder of token shards. Train on it directly, or pass the text.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _copied_stdin(data.sources, out.parent) as stdin:
            return _prepare(DatasetSpec(data, stdin), out, progress)
    except OSError as error:
        raise cannot_write_shards(out, error) from None


def prepare_cached(data: DataConfig, cache: Path | None = None, progress: ProgressCallback | None = None) -> Shards:
    """Token shards of the sources, from the cache if the same text was prepared with the same options before.

    A source that is itself a folder of token shards is opened directly. Raises like `prepare`, and `DataError` if
    such a folder was prepared with another tokenizer than the requested one.
    """
    if any(_is_prepared(name) for name in data.sources):
        return _open_source(data)
    folder = (cache or cache_folder()) / "prepared"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _copied_stdin(data.sources, folder) as stdin:
            spec = DatasetSpec(data, stdin)
            out = folder / spec.cache_key
            if out.exists() and not _is_valid(out):
                shutil.rmtree(out)
            return _prepare(spec, out, progress)
    except OSError as error:
        raise cannot_write_shards(folder, error) from None


def _prepare(spec: DatasetSpec, out: Path, progress: ProgressCallback | None) -> Shards:
    from filelock import FileLock

    lock = FileLock(out.with_name(f".{out.name}.lock"))
    with lock:  # concurrent calls for the same folder prepare it once
        try:
            existing = _open_existing(spec, out)
            if existing is not None:
                return existing
            partial = out.with_name(f".{out.name}.partial")
            _fill_partial(spec, partial, progress)
            if out.exists():
                out.rmdir()  # checked to be empty; rmdir refuses to delete anything that was written since
            replace_folder(partial, out)
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)
    return open_shards(out)


def _open_existing(spec: DatasetSpec, out: Path) -> Shards | None:
    """The shards in `out` if they match; None if there is nothing; raises `DataError` for anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not out.is_dir() or not is_shards_folder(out):
        raise DataError(f"{out} exists and is not a folder of token shards. Choose another --out.")
    shards = replace(open_shards(out), already_prepared=True)
    mismatch = spec.find_mismatch(shards.meta)
    if mismatch is not None:
        raise DataError(f"{out} contains other token shards: {mismatch}. Choose another --out, or delete the folder.")
    return shards


def _fill_partial(spec: DatasetSpec, folder: Path, progress: ProgressCallback | None) -> None:
    """Write complete token shards to `folder`, keeping what an interrupted call with the same specification wrote."""
    spec_file, spec_json = folder / _SPEC_FILE, spec.to_json()
    if folder.exists() and not (spec_file.is_file() and spec_file.read_bytes() == spec_json.encode()):
        shutil.rmtree(folder)
    for name in (*SPLITS, FINISHED_FOLDER):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_text(spec_file, spec_json)
    try:
        _write_shards(spec, folder, progress)
        shutil.rmtree(folder / FINISHED_FOLDER)
        spec_file.unlink()
        for temporary in folder.rglob("*.tmp"):  # left by processes that were killed
            temporary.unlink()
        fsync_tree(folder)
    except (KeyboardInterrupt, SystemExit, Interrupted):
        if not any((folder / FINISHED_FOLDER).glob("*.json")):
            shutil.rmtree(folder)
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write_shards(spec: DatasetSpec, folder: Path, progress: ProgressCallback | None) -> None:
    data = spec.data
    rule = choose_rule(_read_all(spec, spec.new_pass(), "scanning the text", progress), data.val_fraction)
    tokenizer = _saved_tokenizer(spec, rule, folder / TOKENIZER_FOLDER, progress)
    state = spec.new_pass()
    texts = rule.assign(_read_all(spec, state, "encoding", progress))
    jobs = shard_jobs(texts, tokenizer, data.endoftext)
    records = encode_jobs(ShardEncoder(folder, tokenizer, data.endoftext), jobs, data.workers or _available_cores())
    spec.check_unchanged()
    if not any(record.tokens for split in SPLITS for record in records[split]):
        raise DataError(f"there is no text in {', '.join(data.sources)}: all documents are empty. Pass another source.")
    sources = [SourceMeta(s.name, s.size, state.sha256.get(s.name), s.identity) for s in spec.sources]
    finish_shards(folder, tokenizer, records, request=spec.options, sources=sources, replaced=state.replacements)


def _read_all(
    spec: DatasetSpec, state: ReadState, activity: str, progress: ProgressCallback | None
) -> Iterator[DocumentPart]:
    """All documents of all sources, in order."""
    total = spec.total_bytes()
    reported = -1
    for source in spec.sources:
        for part in source.read(state):
            if progress is not None and state.bytes_read != reported:
                reported = state.bytes_read
                progress(activity, reported, total)
            yield part


def _saved_tokenizer(spec: DatasetSpec, rule: SplitRule, folder: Path, progress: ProgressCallback | None) -> Tokenizer:
    """The tokenizer, saved in `folder` for the worker processes; one that an interrupted call trained is reused."""
    if folder.is_dir():
        with contextlib.suppress(TokenizerError):
            return load_tokenizer(folder)
        shutil.rmtree(folder)
    tokenizer = spec.tokenizer or make_tokenizer(
        spec.data.tokenizer, _training_sample(spec, rule, progress), spec.data.add_tokens
    )
    with atomic_folder(folder) as temporary:
        tokenizer.save(temporary)
    return tokenizer


def _training_sample(spec: DatasetSpec, rule: SplitRule, progress: ProgressCallback | None) -> Iterator[str]:
    """Training text for the tokenizer: of a large corpus, the beginning of every file, in proportion to its size."""
    total = spec.total_bytes()
    state = spec.new_pass()
    for source in spec.sources:
        share = source.size / total if total and source.size else 1 / len(spec.sources)
        limit = int(TOKENIZER_TRAINING_CHARACTERS * share) + 1
        yield from _take_characters(limit, _training_texts(rule, source.read(state), spec.data.add_tokens))
        if progress is not None:
            progress("training the tokenizer", state.bytes_read, total)


def _training_texts(rule: SplitRule, parts: Iterator[DocumentPart], added: Sequence[str]) -> Iterator[str]:
    training = (text for text in rule.assign(parts) if text.split == "train")
    return itertools.chain.from_iterable(split_into_chunks(text.texts, (ENDOFTEXT, *added)) for text in training)


def _take_characters(limit: int, texts: Iterator[str]) -> Iterator[str]:
    for text in texts:
        yield text[:limit]
        limit -= len(text)
        if limit <= 0:
            return


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _copied_stdin(sources: Sequence[str], folder: Path) -> Generator[BinaryIO | None, None, None]:
    """A copy of standard input in an unnamed temporary file, because it is read more than once; None if not used."""
    if STDIN not in sources:
        yield None
        return
    if sys.stdin is None:
        raise DataError('there is no standard input ("-"). Pass a file instead.')
    with tempfile.TemporaryFile(dir=folder) as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy, _COPY_BYTES)
        yield cast("BinaryIO", copy)


def _is_prepared(source: str) -> bool:
    path = expand_home(source)
    return os.path.isdir(path) and is_shards_folder(path)


def _is_valid(folder: Path) -> bool:
    try:
        open_shards(folder)
    except DataError:
        return False
    return True


def _open_source(data: DataConfig) -> Shards:
    """Open the folder of token shards that is the only source, after checking the requested tokenizer."""
    if len(data.sources) != 1:
        raise DataError(
            "a folder of token shards cannot be combined with other sources. Prepare all of the text together."
        )
    shards = replace(open_shards(expand_home(data.sources[0])), already_prepared=True)
    if data.add_tokens and data.add_tokens != shards.tokenizer.added:
        raise DataError(
            f"token shards {shards.path} were prepared with added tokens {list(shards.tokenizer.added)}, "
            f"not {list(data.add_tokens)}. Omit --add-token, or prepare the text again."
        )
    actual, requested = shards.meta.request.get("tokenizer"), data.tokenizer
    # The default counts as no request: the shards have their own tokenizer.
    if requested in (actual, DataConfig().tokenizer):
        return shards
    if (
        needs_training(requested)
        or make_tokenizer(requested, added=data.add_tokens).fingerprint != shards.meta.tokenizer.fingerprint
    ):
        raise DataError(
            f"token shards {shards.path} were prepared with tokenizer {actual or shards.meta.tokenizer.kind}, "
            f"not {requested}. Omit --data.tokenizer, or prepare the text again."
        )
    return shards
