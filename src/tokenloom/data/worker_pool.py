"""Encoding of shards by several processes: each receives text and writes whole shards."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import tokenloom
from tokenloom.data import shard_jobs
from tokenloom.data.shard_jobs import ShardEncoder, ShardJob
from tokenloom.data.shards_meta import SPLITS, TOKENIZER_FOLDER, ShardRecord
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.errors import DataError, TokenloomError

WORKER_CODE = "from tokenloom.data.worker_pool import worker_main; worker_main()"


def encode_jobs(encoder: ShardEncoder, jobs: Iterable[ShardJob], workers: int) -> dict[str, list[ShardRecord]]:
    """Encode every job and return the records of each split, in order.

    Processes are started only for text that fills a shard.
    """
    records: dict[tuple[str, int], ShardRecord] = {}
    with WorkerPool(encoder, workers) as pool:
        for job in jobs:
            if workers == 1 or (job.size < shard_jobs.SHARD_BYTES and not pool.started):
                records[job.split, job.index] = encoder.encode(job)
            else:
                pool.submit(job)
        records |= pool.finish()
    return {split: [records[key] for key in sorted(records) if key[0] == split] for split in SPLITS}


class WorkerPool:
    """Processes that encode jobs. It holds one more job than there are processes, so that none waits for text.

    The workers are child processes on pipes, not a `multiprocessing` pool: that would import the caller's script in
    each child, and its children outlive a parent that is killed. These stop when their input ends.
    """

    def __init__(self, encoder: ShardEncoder, count: int) -> None:
        self._encoder, self._count = encoder, count
        self._threads = ThreadPoolExecutor(count)
        self._workers: list[_Worker] = []
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._pending: dict[Future[ShardRecord], tuple[str, int]] = {}
        self._records: dict[tuple[str, int], ShardRecord] = {}

    @property
    def started(self) -> bool:
        return bool(self._workers)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is not None:
            for worker in self._workers:
                worker.process.kill()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.close()

    def submit(self, job: ShardJob) -> None:
        """Queue a job; blocks while every process is busy and one job is already waiting."""
        if not self._workers:
            for _ in range(self._count):
                self._workers.append(_start_worker(self._encoder))
                self._idle.put(self._workers[-1])
        if len(self._pending) > self._count:
            self._collect(FIRST_COMPLETED)
        self._pending[self._threads.submit(self._encode, job)] = (job.split, job.index)

    def finish(self) -> dict[tuple[str, int], ShardRecord]:
        """Wait for all jobs; the records by split and index of the shard."""
        self._collect(ALL_COMPLETED)
        return self._records

    def _collect(self, return_when: str) -> None:
        done, _ = wait(self._pending, return_when=return_when)
        for future in done:
            self._records[self._pending.pop(future)] = future.result()

    def _encode(self, job: ShardJob) -> ShardRecord:
        worker = self._idle.get()
        try:
            return worker.encode(job)
        finally:
            self._idle.put(worker)


@dataclass(frozen=True)
class _Worker:
    """The parent's end of a worker process."""

    process: subprocess.Popen[bytes]
    input: IO[bytes]
    output: IO[bytes]

    def encode(self, job: ShardJob) -> ShardRecord:
        try:
            pickle.dump(job, self.input)
            self.input.flush()
            record, error = pickle.load(self.output)
        except (OSError, EOFError, pickle.UnpicklingError):
            raise DataError(
                f"an encoding process exited with status {self.process.wait()}; it may have run out of memory. "
                "Run the command again with fewer --data.workers."
            ) from None
        if error is not None:
            raise error
        return record

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.input.close()
        self.process.wait()
        self.output.close()


def _start_worker(encoder: ShardEncoder) -> _Worker:
    package = str(Path(tokenloom.__file__).parent.parent)
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"}
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", WORKER_CODE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # Ctrl-C reaches only the parent, which then stops its workers
    )
    assert process.stdin is not None
    assert process.stdout is not None
    pickle.dump((encoder.folder.resolve(), encoder.endoftext), process.stdin)
    return _Worker(process, process.stdin, process.stdout)


def worker_main() -> None:
    """The loop of a worker process: read jobs from standard input until it ends, and write their records."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # so that printed text does not mix with the records
    folder, endoftext = pickle.load(sys.stdin.buffer)
    encoder = ShardEncoder(folder, load_tokenizer(folder / TOKENIZER_FOLDER), endoftext)
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent process has exited
        while True:
            job: ShardJob = pickle.load(sys.stdin.buffer)
            try:
                result = encoder.encode(job), None
            except (TokenloomError, OSError) as error:
                result = None, error
            pickle.dump(result, output)
            output.flush()
