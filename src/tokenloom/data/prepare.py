"""Text to token shards, once: whole or not at all, picked up where it was stopped."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from tokenloom.config import DataConfig
from tokenloom.data import shards
from tokenloom.data.corpora import cache_folder
from tokenloom.data.encoding import RECEIPTS, Encoder, cannot_write, encode_jobs, jobs
from tokenloom.data.readers import Piece, Reading
from tokenloom.data.shards import SPLITS, Shards, finish_shards, open_shards, read_meta, write_durably
from tokenloom.data.sources import STDIN, Source, find_sources
from tokenloom.data.splitting import SplitRule, choose_rule
from tokenloom.data.tokenizers import ENDOFTEXT, Tokenizer, load_tokenizer, make_tokenizer
from tokenloom.data.tokenizers.chunking import stretches
from tokenloom.data.tokenizers.load import learns
from tokenloom.errors import DataError, Interrupted, TokenizerError

ProgressCallback = Callable[[str, int, int | None], None]
"""Called with what is being done, the bytes read for it so far, and how many there are, or None."""

SAMPLE_CHARACTERS = 1 << 23  # of training text that a tokenizer learns from: learning takes 50 times that in memory


def prepare(data: DataConfig, out: str | Path, *, progress: ProgressCallback | None = None) -> Shards:
    """Read the sources, split them, and write token shards to the folder `out`.

    The folder appears when all is done. A call that was killed leaves its finished shards beside `out`, and the same
    call takes them up; the same call on a finished folder changes nothing (`already_prepared`).

    Raises `DataError` for text that cannot be read or is empty, and for an `out` that exists with other content;
    `TokenizerError` for a tokenizer that cannot be made.
    """
    out = Path(out)
    for name in data.sources:
        if _is_shards(name):
            raise DataError(f"{name} is a folder of token shards already. Train on it as it is, or name the text.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with _kept_stdin(data.sources, out.parent) as stdin:
            return _prepare(_Request(data, stdin), out, progress)
    except OSError as error:
        raise DataError(cannot_write(out, error)) from None


def prepare_cached(data: DataConfig, cache: Path | None = None, progress: ProgressCallback | None = None) -> Shards:
    """Token shards of the sources, from the cache where the same text was prepared in the same way before.

    A source that is a folder of token shards is opened as it stands. Raises as `prepare`, and `DataError` where such
    a folder was made with another tokenizer than is asked for.
    """
    if any(_is_shards(name) for name in data.sources):
        return _open_as_it_stands(data)
    folder = (cache or cache_folder()) / "prepared"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _kept_stdin(data.sources, folder) as stdin:
            request = _Request(data, stdin)
            out = folder / request.key
            if out.exists() and not _is_sound(out):
                shutil.rmtree(out)
            return _prepare(request, out, progress)
    except OSError as error:
        raise DataError(cannot_write(folder, error)) from None


class _Request:
    """What is asked for, comparable with what an existing folder holds."""

    def __init__(self, data: DataConfig, stdin: BinaryIO | None) -> None:
        self.data, self._stdin = data, stdin
        # One that needs no text is made first: a misspelt name shall not cost an hour.
        self.fixed_tokenizer = None if learns(data.tokenizer) else make_tokenizer(data.tokenizer, added=data.add_tokens)
        self.sources = find_sources(data.sources, stdin)
        self.options = {
            "tokenizer": data.tokenizer,
            "add_tokens": list(data.add_tokens),
            "val_fraction": data.val_fraction,
            "text_key": data.text_key,
            "encoding_errors": data.encoding_errors,
            "endoftext": data.endoftext,
        }

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result, known without reading the text."""
        fingerprint = self.fixed_tokenizer and self.fixed_tokenizer.fingerprint
        identities = [source.identity for source in self.sources]
        return {"version": shards.VERSION, **self.options, "fingerprint": fingerprint, "sources": identities}

    @property
    def key(self) -> str:
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:32]

    def reading(self) -> Reading:
        return Reading(self.data.text_key, self.data.encoding_errors)

    def refuse_if_changed(self) -> None:
        """Raises `DataError` where a source is not what it was at the start: splits and text would not fit together."""
        before = {source.identity: source.name for source in self.sources}
        now = {source.identity: source.name for source in find_sources(self.data.sources, self._stdin)}
        for identity in before.keys() ^ now.keys():
            name = before.get(identity) or now[identity]
            raise DataError(f"{name} changed while the text was read. Run it again when nothing writes to it.")

    def difference(self, meta: dict[str, Any]) -> str | None:
        """How a finished folder differs from what is asked for, in words; None where it is the same."""
        for option, asked in self.options.items():
            made = meta["request"].get(option, [])  # nothing could be added by versions that do not tell
            if made != asked:
                return f"they were made with {option} {made!r}, not {asked!r}"
        if self.fixed_tokenizer and self.fixed_tokenizer.fingerprint != meta["tokenizer"]["fingerprint"]:
            return f"tokenizer {self.data.tokenizer} has changed since"
        if len(meta["sources"]) != len(self.sources):
            return f"they were made of {len(meta['sources'])} sources, not {len(self.sources)}"
        changed = (s.name for s, made in zip(self.sources, meta["sources"], strict=True) if not self._same(s, made))
        name = next(changed, None)
        return None if name is None else f"{name} is not what they were made of"

    def _same(self, source: Source, made: dict[str, Any]) -> bool:
        if source.identity == made["identity"]:
            return True
        if source.size != made["bytes"]:
            return False
        reading = self.reading()  # moved, copied or touched: the content decides
        for _ in source.pieces(reading):
            pass
        return reading.hashes.get(source.name) == made["sha256"]


def _prepare(request: _Request, out: Path, progress: ProgressCallback | None) -> Shards:
    from filelock import FileLock

    lock = FileLock(out.with_name(f".{out.name}.lock"))
    with lock:  # two runs that start on the same text prepare it once
        try:
            existing = _existing(request, out)
            if existing is not None:
                return existing
            unfinished = out.with_name(f".{out.name}.partial")
            _write_unfinished(request, unfinished, progress)
            if out.exists():
                out.rmdir()  # empty, as was seen above
            os.replace(unfinished, out)
            _sync(out.parent)
        finally:
            Path(lock.lock_file).unlink(missing_ok=True)
    return open_shards(out)


def _existing(request: _Request, out: Path) -> Shards | None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    meta = read_meta(out) if out.is_dir() else None
    if meta is None:
        raise DataError(f"{out} exists and is not a folder of token shards. Choose another --out.")
    found = replace(open_shards(out), already_prepared=True)
    difference = request.difference(meta)
    if difference is not None:
        raise DataError(f"{out} holds other token shards: {difference}. Choose another --out, or delete the folder.")
    return found


def _write_unfinished(request: _Request, folder: Path, progress: ProgressCallback | None) -> None:
    """Everything but the last renaming; what an earlier call of the same request finished is kept."""
    plan = folder / "plan.json"
    wanted = json.dumps(request.identity, sort_keys=True).encode()
    if folder.exists() and not (plan.is_file() and plan.read_bytes() == wanted):
        shutil.rmtree(folder)
    for name in (*SPLITS, RECEIPTS):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_durably(plan, wanted)
    try:
        _write_shards(request, folder, progress)
        shutil.rmtree(folder / RECEIPTS)
        plan.unlink()
        for stray in folder.rglob("*.tmp"):  # of processes that were killed
            stray.unlink()
        _sync(folder)
    except (KeyboardInterrupt, SystemExit, Interrupted):
        if not any((folder / RECEIPTS).glob("*.json")):
            shutil.rmtree(folder)
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write_shards(request: _Request, folder: Path, progress: ProgressCallback | None) -> None:
    data = request.data
    rule = choose_rule(_pieces(request, request.reading(), "looking at the text", progress), data.val_fraction)
    tokenizer = _tokenizer(request, rule, folder / "tokenizer", progress)
    reading = request.reading()
    parts = rule.parts(_pieces(request, reading, "encoding", progress))
    workers = data.workers or _cores()
    todo = jobs(parts, tokenizer, data.endoftext)
    records = encode_jobs(Encoder(folder, tokenizer, data.endoftext), todo, workers)
    request.refuse_if_changed()
    if not any(record.tokens for split in SPLITS for record in records[split]):
        raise DataError(f"there is no text in {', '.join(data.sources)}: all of it is empty. Name a text.")
    sources = [
        {"name": s.name, "bytes": s.size, "sha256": reading.hashes.get(s.name), "identity": s.identity}
        for s in request.sources
    ]
    description = {"request": request.options, "sources": sources, "replaced": reading.replaced}
    finish_shards(folder, tokenizer, records, description)


def _pieces(request: _Request, reading: Reading, what: str, progress: ProgressCallback | None) -> Iterator[Piece]:
    """All documents of all sources, in order."""
    total = _total_bytes(request.sources)
    told = -1
    for source in request.sources:
        for piece in source.pieces(reading):
            if progress is not None and reading.bytes_read != told:
                told = reading.bytes_read
                progress(what, told, total)
            yield piece


def _tokenizer(request: _Request, rule: SplitRule, folder: Path, progress: ProgressCallback | None) -> Tokenizer:
    """The tokenizer, saved where the encoding processes find it; what an interrupted call learned is not lost."""
    if folder.is_dir():
        with contextlib.suppress(TokenizerError):
            return load_tokenizer(folder)
        shutil.rmtree(folder)
    tokenizer = request.fixed_tokenizer or make_tokenizer(
        request.data.tokenizer, _sample(request, rule, progress), request.data.add_tokens
    )
    unfinished = folder.with_suffix(".tmp")
    tokenizer.save(unfinished)
    os.replace(unfinished, folder)
    return tokenizer


def _sample(request: _Request, rule: SplitRule, progress: ProgressCallback | None) -> Iterator[str]:
    """Training text to learn from: all of it, or of a large corpus the beginning of every file, by size."""
    total = _total_bytes(request.sources)
    reading = request.reading()
    for source in request.sources:
        share = source.size / total if total and source.size else 1 / len(request.sources)
        yield from _at_most(
            int(SAMPLE_CHARACTERS * share) + 1, _training_texts(rule, source.pieces(reading), request.data.add_tokens)
        )
        if progress is not None:
            progress("learning the tokenizer", reading.bytes_read, total)


def _training_texts(rule: SplitRule, pieces: Iterator[Piece], added: Sequence[str]) -> Iterator[str]:
    parts = (part for part in rule.parts(pieces) if part.split == "train")
    return itertools.chain.from_iterable(stretches(part.texts, (ENDOFTEXT, *added)) for part in parts)


def _at_most(characters: int, texts: Iterator[str]) -> Iterator[str]:
    for text in texts:
        yield text[:characters]
        characters -= len(text)
        if characters <= 0:
            return


def _total_bytes(sources: Sequence[Source]) -> int | None:
    sizes = [source.size for source in sources]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _kept_stdin(names: Sequence[str], folder: Path) -> Iterator[BinaryIO | None]:
    """Standard input in a file without a name, which lasts as long as the process: it is read more than once."""
    if STDIN not in names:
        yield None
        return
    if sys.stdin is None:
        raise DataError('there is no standard input to read ("-"). Name a file instead.')
    with tempfile.TemporaryFile(dir=folder) as kept:
        shutil.copyfileobj(sys.stdin.buffer, kept, 1 << 20)
        yield kept  # type: ignore[misc]


def _is_shards(name: str) -> bool:
    path = Path(name).expanduser()
    return path.is_dir() and read_meta(path) is not None


def _is_sound(folder: Path) -> bool:
    try:
        open_shards(folder)
    except DataError:
        return False
    return True


def _open_as_it_stands(data: DataConfig) -> Shards:
    if len(data.sources) != 1:
        raise DataError(
            "a folder of token shards cannot be mixed with other sources. Prepare all of the text together."
        )
    found = replace(open_shards(Path(data.sources[0]).expanduser()), already_prepared=True)
    made, asked = found.meta["request"].get("tokenizer"), data.tokenizer
    if data.add_tokens and data.add_tokens != found.tokenizer.added:
        raise DataError(
            f"token shards {found.path} were made with the added tokens {list(found.tokenizer.added)}, "
            f"not {list(data.add_tokens)}. Leave --add-token out, or prepare the text again."
        )
    # The default is no wish: a folder of shards brings its tokenizer.
    if asked in (made, DataConfig().tokenizer):
        return found
    if (
        learns(asked)
        or make_tokenizer(asked, added=data.add_tokens).fingerprint != found.meta["tokenizer"]["fingerprint"]
    ):
        raise DataError(
            f"token shards {found.path} were made with tokenizer {made or found.meta['tokenizer']['kind']}, "
            f"not {asked}. Leave --data.tokenizer out, or prepare the text again."
        )
    return found


def _sync(folder: Path) -> None:
    """Make sure that the files of a folder, and their names, are on the disk."""
    for parent, _, names in os.walk(folder):
        for path in [Path(parent, name) for name in names] + ([Path(parent)] if os.name == "posix" else []):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
