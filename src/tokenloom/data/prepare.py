"""Preparation of token shards from text: atomic, resumable after an interruption, and cached."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tokenloom.config import DataConfig
from tokenloom.data.corpora import cache_folder
from tokenloom.data.dataset_spec import DatasetSpec
from tokenloom.data.documents import DocumentPart, ReadState
from tokenloom.data.partial_shards import finish_partial, kept_on_failure, start_partial
from tokenloom.data.progress import ProgressCallback
from tokenloom.data.shard_jobs import ShardEncoder, shard_jobs
from tokenloom.data.shard_writer import finish_shards
from tokenloom.data.shards import Shards, open_shards
from tokenloom.data.shards_meta import SPLITS, TOKENIZER_FOLDER, SourceMeta, cannot_write_shards, is_shards_folder
from tokenloom.data.splitting import SplitRule, choose_rule
from tokenloom.data.streams import copied_streams
from tokenloom.data.tokenizers import ENDOFTEXT, Tokenizer, load_tokenizer, make_tokenizer
from tokenloom.data.tokenizers.chunking import split_into_chunks
from tokenloom.data.tokenizers.load import needs_training
from tokenloom.data.worker_pool import encode_jobs
from tokenloom.errors import DataError, TokenizerError
from tokenloom.home import expand_home
from tokenloom.storage import atomic_folder, fsync_tree, replace_folder

TOKENIZER_TRAINING_CHARACTERS = 1 << 23  # training a BPE takes about 50 times as much memory

_LOCK_SECONDS = 1.0  # between reports of waiting


def prepare(
    data: DataConfig, out: str | Path, *, refresh: bool = False, progress: ProgressCallback | None = None
) -> Shards:
    """Read the sources, split them, and write token shards to the folder `out`.

    The folder appears when it is complete. If a call fails or is killed, its finished shards stay next to `out`, and
    the next call continues from them. The same call on a complete folder changes nothing (`already_prepared`), unless
    `refresh`: then the text is prepared again and the folder is replaced.

    Raises `DataError` for text that cannot be read or is empty, and if `out` exists with other content;
    `TokenizerError` for a tokenizer that cannot be made.
    """
    out = _resolved(Path(out))
    for name in data.sources:
        if _is_prepared(name):
            raise DataError(f"{name} is already a folder of token shards. Train on it directly, or pass the text.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with copied_streams(data.sources, out.parent) as streams:
            spec = DatasetSpec(data, streams)
            if not refresh and (existing := _open_existing(spec, out)):  # also where nothing can be written
                return existing
            with _locked(out, progress):
                return _prepare(spec, out, out.with_name(f".{out.name}.partial"), refresh, progress)
    except OSError as error:
        raise cannot_write_shards(out, error) from None


def prepare_cached(
    data: DataConfig, cache: Path | None = None, *, refresh: bool = False, progress: ProgressCallback | None = None
) -> Shards:
    """Token shards of the sources, from the cache if the same text was prepared with the same options before.

    A source that is itself a folder of token shards is opened directly. Raises like `prepare`, and `DataError` if
    such a folder was prepared with another tokenizer than the requested one.
    """
    if prepared := [name for name in data.sources if _is_prepared(name)]:
        if refresh:
            raise DataError(f"{prepared[0]} is a folder of token shards, not text. Omit --refresh, or pass the text.")
        return _open_source(data)
    folder = (cache or cache_folder()) / "prepared"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with copied_streams(data.sources, folder) as streams:
            spec = DatasetSpec(data, streams)
            out, work = folder / spec.cache_key, folder / spec.work_key
            if not refresh and _is_valid(out):
                return replace(open_shards(out), already_prepared=True)
            # `out` depends on the content of the sources, `work` does not: after a file was corrected, `out` is another
            # folder, but the shards that were finished before can still be used.
            with _locked(work, progress), _locked(out, progress):
                if out.exists() and not _is_valid(out):
                    shutil.rmtree(out)
                return _prepare(spec, out, work.with_name(f".{work.name}.partial"), refresh, progress)
    except OSError as error:
        raise cannot_write_shards(folder, error, "set TOKENLOOM_CACHE to another folder") from None


def _resolved(out: Path) -> Path:
    """`out`, or the folder that it stands for: a symbolic link is kept, and its target is written."""
    if out.is_symlink() or not out.name or out.name == "..":
        return Path(os.path.realpath(out))
    return out


@contextlib.contextmanager
def _locked(folder: Path, progress: ProgressCallback | None) -> Generator[None]:
    """Hold the lock of a folder: concurrent calls prepare it once. The lock of a killed process has no effect."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    while True:
        try:
            lock.acquire(timeout=_LOCK_SECONDS)
            break
        except Timeout:
            if progress is not None:
                progress("waiting for another process, which prepares the same text", 0, None)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows does not delete a locked file
            Path(lock.lock_file).unlink()
        lock.release()


def _prepare(spec: DatasetSpec, out: Path, partial: Path, refresh: bool, progress: ProgressCallback | None) -> Shards:
    if not refresh and (existing := _open_existing(spec, out)):
        return existing
    _check_replaceable(out)
    notice = None
    with kept_on_failure(partial, out):
        if not _is_complete(spec, partial):  # after an error while it was moved
            start_partial(partial, spec.to_json())
            notice = _write_shards(spec, partial, progress)
        finish_partial(partial)
        fsync_tree(partial)
        _check_replaceable(out)
        if out.exists() and not is_shards_folder(out):
            out.rmdir()  # empty; rmdir refuses to delete anything that was written since
        replace_folder(partial, out)
    shards = open_shards(out)
    return replace(shards, notices=(notice, *shards.notices)) if notice else shards


def _open_existing(spec: DatasetSpec, out: Path) -> Shards | None:
    """The shards in `out` if they match; None if there is nothing; raises `DataError` for anything else."""
    _check_replaceable(out)
    if not out.exists() or not is_shards_folder(out):
        return None
    shards = replace(open_shards(out), already_prepared=True)
    mismatch = spec.find_mismatch(shards.meta)
    if mismatch is not None:
        raise DataError(
            f"{out} contains other token shards: {mismatch}. Choose another --out, or pass --refresh to replace them."
        )
    return shards


def _check_replaceable(out: Path) -> None:
    """Raise `DataError` if `out` is anything but token shards, an empty folder, or nothing."""
    if not os.path.lexists(out) or (out.is_dir() and (is_shards_folder(out) or not any(out.iterdir()))):
        return
    raise DataError(f"{out} exists and is not a folder of token shards. Choose another --out.")


def _is_complete(spec: DatasetSpec, folder: Path) -> bool:
    return _is_valid(folder) and spec.find_mismatch(open_shards(folder).meta) is None


def _write_shards(spec: DatasetSpec, folder: Path, progress: ProgressCallback | None) -> str | None:
    """Write all shards and the files that complete the folder; returns a notice about the split, if there is one."""
    data = spec.data
    rule = choose_rule(_read_all(spec, spec.new_pass(), "scanning the text", progress), data.val_fraction)
    tokenizer = _saved_tokenizer(spec, rule, folder / TOKENIZER_FOLDER, progress)
    state = spec.new_pass()
    texts = rule.assign(_read_all(spec, state, "encoding", progress))
    jobs = shard_jobs(texts, tokenizer, data.endoftext)
    records = encode_jobs(ShardEncoder(folder, tokenizer, data.endoftext), jobs, data.workers or _available_cores())
    sources = [SourceMeta(s.name, s.size, state.sha256.get(s.name), s.identity) for s in spec.sources]
    spec.check_unchanged(sources)
    if not any(record.tokens for split in SPLITS for record in records[split]):
        raise DataError(f"there is no text in {', '.join(data.sources)}: all documents are empty. Pass another source.")
    finish_shards(folder, tokenizer, records, request=spec.options, sources=sources, replaced=state.replacements)
    return rule.notice


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
