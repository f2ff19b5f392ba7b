"""Text into token shards by many processes: each receives text and writes whole shards, tokens never travel."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tokenloom
from tokenloom import errors
from tokenloom.data.shards import SPLITS, ShardRecord, ShardWriter, sha256_of, shard_files, token_dtype, write_durably
from tokenloom.data.splitting import Part
from tokenloom.data.tokenizers import EndOfText, Tokenizer, load_tokenizer
from tokenloom.data.tokenizers.chunking import stretches
from tokenloom.errors import DataError

SHARD_BYTES = 1 << 24  # of text: what each process holds at once
RECEIPTS = "receipts"
CHILD = "from tokenloom.data.encoding import serve; serve()"


@dataclass
class Job:
    """The text of one shard: stretches of UTF-8, each with whether a new document begins there."""

    split: str
    index: int
    stretches: list[tuple[bool, bytes]] = field(default_factory=list)
    size: int = 0

    def digest(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for begins, text in self.stretches:
            digest.update(b"%d %d " % (begins, len(text)) + text)
        return digest.hexdigest()


@dataclass(frozen=True)
class Encoder:
    """What turns a job into a shard, the same in every process."""

    folder: Path
    tokenizer: Tokenizer
    endoftext: EndOfText

    def encode(self, job: Job) -> ShardRecord:
        """Write the shard and, last, its receipt; or find that an earlier, interrupted call has done so."""
        receipt = self.folder / RECEIPTS / f"{job.split}-{job.index:05d}.json"
        digest = job.digest()
        if (record := self._written(receipt, job, digest)) is not None:
            return record
        writer = ShardWriter(self.folder / job.split, job.index, self.tokenizer)
        try:
            for begins, text in job.stretches:
                if begins:
                    writer.separate()
                writer.append(self.tokenizer.encode_array(text.decode("utf-8"), self.endoftext))
            record = writer.close()
        except BaseException:
            writer.abandon()
            raise
        write_durably(receipt, json.dumps({"text": digest, "shard": asdict(record)}).encode())
        return record

    def _written(self, receipt: Path, job: Job, digest: str) -> ShardRecord | None:
        try:
            written = json.loads(receipt.read_bytes())
            record = ShardRecord(**written["shard"])
            tokens, documents = shard_files(self.folder / job.split, job.index)
            whole = tokens.stat().st_size == record.tokens * token_dtype(self.tokenizer.vocab_size).itemsize
            same = written["text"] == digest and sha256_of(documents) == record.documents_sha256
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return record if whole and same else None


def jobs(parts: Iterable[Part], tokenizer: Tokenizer, endoftext: EndOfText) -> Iterator[Job]:
    """The parts of each split, packed into shards in their order; the same text always gives the same shards.

    Raises `DataError` for a written <|endoftext|> where that is to be refused.
    """
    eot_text = tokenizer.eot_text
    filling = {split: Job(split, 0) for split in SPLITS}
    for part in parts:
        job = filling[part.split]
        begins = job.index > 0 or job.size > 0  # the first document of a split has none before it
        for text in stretches(part.texts, (eot_text, *tokenizer.added)):
            if endoftext == "refuse" and eot_text in text:
                raise DataError(
                    f'{part.source} contains {eot_text}. Remove it, or pass --data.endoftext "token" or "text".'
                )
            data = text.encode("utf-8")
            job.stretches.append((begins, data))
            job.size += len(data)
            begins = False
            if job.size >= SHARD_BYTES:
                yield job
                job = filling[part.split] = Job(part.split, job.index + 1)
    yield from (job for job in filling.values() if job.stretches)


def encode_jobs(encoder: Encoder, todo: Iterable[Job], workers: int) -> dict[str, list[ShardRecord]]:
    """Encode every job, in this process where there is less than a shard's worth, and tell what was written."""
    records: dict[tuple[str, int], ShardRecord] = {}
    with _Pool(encoder, workers) as pool:
        for job in todo:
            if workers == 1 or (job.size < SHARD_BYTES and not pool.started):
                records[job.split, job.index] = encoder.encode(job)
            else:
                pool.submit(job)
        records |= pool.finish()
    return {split: [records[key] for key in sorted(records) if key[0] == split] for split in SPLITS}


class _Pool:
    """Processes that encode jobs; as many jobs are held as keep them busy.

    They are plain child processes on pipes. A pool of `multiprocessing` would import the caller's script in each
    child, and its children outlive a parent that is killed; these meet the end of their input and stop.
    """

    def __init__(self, encoder: Encoder, count: int) -> None:
        self._encoder, self._count = encoder, count
        self._threads = ThreadPoolExecutor(count)
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._pending: dict[Future[ShardRecord], tuple[str, int]] = {}
        self._records: dict[tuple[str, int], ShardRecord] = {}

    @property
    def started(self) -> bool:
        return bool(self._processes)

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is not None:
            for process in self._processes:
                process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            with contextlib.suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr]
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]

    def submit(self, job: Job) -> None:
        """Hand a job to a process; waits while all are busy and one more job lies ready."""
        if not self._processes:
            for _ in range(self._count):
                self._start()
        if len(self._pending) > self._count:
            self._collect(FIRST_COMPLETED)
        self._pending[self._threads.submit(self._encode, job)] = (job.split, job.index)

    def finish(self) -> dict[tuple[str, int], ShardRecord]:
        """Wait for the last jobs; returns what was written for each split and shard."""
        self._collect("ALL_COMPLETED")
        return self._records

    def _collect(self, when: str) -> None:
        done, _ = wait(self._pending, return_when=when)
        for future in done:
            self._records[self._pending.pop(future)] = future.result()

    def _start(self) -> None:
        package = str(Path(tokenloom.__file__).parent.parent)
        paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"}
        # A session of its own: Ctrl-C reaches the parent alone, which then stops its children.
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self._processes.append(process)
        self._idle.put(process)
        pickle.dump((self._encoder.folder.resolve(), self._encoder.endoftext), process.stdin)  # type: ignore[arg-type]

    def _encode(self, job: Job) -> ShardRecord:
        process = self._idle.get()
        try:
            pickle.dump(job, process.stdin)  # type: ignore[arg-type]
            process.stdin.flush()  # type: ignore[union-attr]
            record, error = pickle.load(process.stdout)  # type: ignore[arg-type]
        except (OSError, EOFError, pickle.UnpicklingError):
            raise DataError(
                f"a process that encodes text has ended with status {process.wait()}; it may have run out of memory. "
                "Run it again with fewer --data.workers: what is done stays done."
            ) from None
        finally:
            self._idle.put(process)
        if error is not None:
            raise getattr(errors, error[0])(error[1])
        return record


def serve() -> None:
    """What a child process does: read jobs from standard input until it ends, and answer with records."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that is printed by accident may mix with the answers
    folder, endoftext = pickle.load(sys.stdin.buffer)
    encoder = Encoder(folder, load_tokenizer(folder / "tokenizer"), endoftext)
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent has gone
        while True:
            job = pickle.load(sys.stdin.buffer)
            try:
                answer = encoder.encode(job), None
            except errors.TokenloomError as error:
                answer = None, (type(error).__name__, str(error))
            except OSError as error:
                answer = None, ("DataError", cannot_write(folder, error))
            pickle.dump(answer, answers)
            answers.flush()


def cannot_write(folder: Path, error: OSError) -> str:
    return f"cannot write token shards to {folder}: {error.strerror}. Make room there, or choose another folder."
