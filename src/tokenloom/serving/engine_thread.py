"""The engine thread: the only thread that computes, with an engine for each model that has requests.

The event loop submits tickets; the thread generates a token for every running sequence in turn, and sends the results
of a step back in one call. Between two steps it starts and stops sequences.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tokenloom.compute.runtime import available_memory
from tokenloom.errors import SequenceError, TokenloomError, UsageError
from tokenloom.generation.engine import Engine, Step
from tokenloom.model import GPT
from tokenloom.serving.errors import RequestError
from tokenloom.serving.tickets import Outcome, Ticket
from tokenloom.weights.load import LoadedModel

_logger = logging.getLogger(__name__)

_CACHE_SHARE = 0.25
_CACHE_ITEM_BYTES = 4


@dataclass(frozen=True)
class Limits:
    """What the server accepts at once; a request is accepted as a whole or not at all."""

    max_rows: int = 64
    """Sequences of a model that generate at the same time; others wait."""
    max_sequences: int = 1024
    """Sequences of all requests together, running and waiting."""
    max_tokens: int = 4 * 1024**2
    """Tokens of all sequences together, those of the prompts and those to generate."""


class EngineThread:
    """Runs tickets; the methods are called in the event loop of `start`."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.failure: str | None = None
        """Why the last step failed; None if it did not."""
        self.is_draining = False
        self._tickets: set[Ticket] = set()
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._sessions: dict[int, _Session] = {}
        self._thread = threading.Thread(target=self._run, name="tokenloom-engine", daemon=True)
        self._is_running = True
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End the thread after its present step; waits for at most that long."""
        self._commands.put(self._stop_running)
        self._thread.join(seconds)

    def drain(self) -> None:
        """Accept nothing more; what was accepted continues."""
        self.is_draining = True

    def fail_all(self, error: RequestError) -> None:
        """End all tickets with an error."""
        for ticket in self._tickets:
            ticket.deliver(error)

    @property
    def running(self) -> int:
        """Sequences that generate now."""
        return sum(session.running for session in list(self._sessions.values()))

    @property
    def accepted(self) -> int:
        """Sequences that generate or wait."""
        return sum(ticket.sequences for ticket in self._tickets)

    def submit(self, ticket: Ticket) -> None:
        """Accept all sequences of a ticket, which has to be released; raises `RequestError` if it is full."""
        limits = self.limits
        if ticket.sequences > limits.max_sequences or ticket.tokens > limits.max_tokens:
            raise RequestError(
                f"the request has {ticket.sequences:,} sequences of {ticket.tokens:,} tokens in total, but at most "
                f"{limits.max_sequences:,} sequences and {limits.max_tokens:,} tokens are allowed. "
                "Send several smaller requests.",
                param="prompt",
            )
        if self.is_draining:
            raise RequestError("the server is stopping. Try again when it has restarted.", status=503, code="stopping")
        if (
            self.accepted + ticket.sequences > limits.max_sequences
            or sum(other.tokens for other in self._tickets) + ticket.tokens > limits.max_tokens
        ):
            raise RequestError("the queue of the server is full. Try again later.", status=503, code="overloaded")
        self._tickets.add(ticket)
        self._commands.put(partial(self._begin, ticket))

    def release(self, ticket: Ticket) -> None:
        """Stop what is left of a ticket."""
        self._tickets.discard(ticket)
        self._commands.put(partial(self._end, ticket))

    def stop_sequence(self, ticket: Ticket, number: int) -> None:
        """Stop a sequence of a ticket; steps of it may still arrive."""
        self._commands.put(partial(self._end, ticket, number))

    # What follows runs in the thread.

    def _run(self) -> None:
        while self._is_running:
            try:
                self._execute_commands()
                for key, session in list(self._sessions.items()):
                    self._step(key, session)
            except Exception as error:  # outside of a step: without this thread, every request would wait forever
                for key in list(self._sessions):
                    self._send(self._drop(key, error))

    def _step(self, key: int, session: _Session) -> None:
        """Let sequences of a model start, generate a token for each that runs, and send the results."""
        results = session.start_waiting(self._failed)
        try:
            results += session.step()
            self.failure = None
        except SequenceError as error:  # the other requests continue
            results += session.fail(error.row, self._failed(error))
        except Exception as error:  # whatever it is, other models and later requests continue
            results += self._drop(key, error)
        if not len(session):
            self._sessions.pop(key, None)
        if results:
            self._send(results)

    def _drop(self, key: int, error: Exception) -> list[_Result]:
        """Drop the session of a model, whose cache may be in any state; the failure of each of its tickets."""
        session, failure = self._sessions.pop(key), self._failed(error)
        return [(ticket, failure) for ticket in session.tickets]

    def _execute_commands(self) -> None:
        """Wait for a command if there is nothing else to do, and execute all that were sent."""
        if not self._sessions:
            self._commands.get()()
        while not self._commands.empty():
            self._commands.get()()

    def _stop_running(self) -> None:
        self._is_running = False

    def _begin(self, ticket: Ticket) -> None:
        key = id(ticket.loaded.model)
        try:
            if key not in self._sessions:
                self._sessions[key] = _Session(ticket.loaded, self.limits.max_rows)
            self._sessions[key].add(ticket)
        except Exception as error:  # such as too little memory for the cache
            self._send([(ticket, self._failed(error))])

    def _end(self, ticket: Ticket, number: int | None = None) -> None:
        session = self._sessions.get(id(ticket.loaded.model))
        if session is not None:
            session.remove(ticket, number)

    def _failed(self, error: Exception) -> RequestError:
        """Note an error of a model; the error for those who wait for it."""
        if not isinstance(error, TokenloomError):
            _logger.error("the engine failed", exc_info=error)
        self.failure = " ".join(f"the model failed: {error}".split())
        return RequestError(self.failure, status=500, code="engine_error")

    def _send(self, results: list[_Result]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(_deliver, results)
        except RuntimeError:  # the loop has ended
            self._is_running = False


_Result = tuple[Ticket, Outcome]


def _deliver(results: list[_Result]) -> None:
    for ticket, outcome in results:
        ticket.deliver(outcome)


class _Session:
    """The engine of a model, and the tickets that it works on."""

    def __init__(self, loaded: LoadedModel, max_rows: int) -> None:
        tokenizer = loaded.tokenizer
        self._engine = Engine(
            loaded.model,
            eot_id=tokenizer.eot_id,
            vocab_size=tokenizer.vocab_size,
            max_rows=max_rows,
            max_tokens=_cache_tokens(loaded.model),
        )
        self._max_rows = max_rows
        self._waiting: dict[Ticket, deque[int]] = {}
        self._rows: dict[int, tuple[Ticket, int]] = {}

    def __len__(self) -> int:
        """Number of sequences, running and waiting."""
        return len(self._rows) + sum(map(len, self._waiting.values()))

    @property
    def running(self) -> int:
        """Number of sequences that have a row."""
        return len(self._rows)

    @property
    def tickets(self) -> set[Ticket]:
        return {*self._waiting, *(ticket for ticket, _ in self._rows.values())}

    def add(self, ticket: Ticket) -> None:
        self._waiting[ticket] = deque(range(ticket.sequences))

    def remove(self, ticket: Ticket, number: int | None) -> None:
        """Stop a sequence of a ticket, or all of them."""
        if number is None:
            self._waiting.pop(ticket, None)
        elif number in self._waiting.get(ticket, ()):
            self._waiting[ticket].remove(number)
        for row, (owner, running) in list(self._rows.items()):
            if owner is ticket and number in (None, running):
                self._engine.remove(row)
                del self._rows[row]

    def start_waiting(self, failed: Callable[[Exception], RequestError]) -> list[_Result]:
        """Start sequences in free rows, always of the ticket that has the fewest of them.

        So a request with many sequences does not delay those that arrive after it. Returns errors of tickets that the
        engine refuses, or that `failed` gives for any other error.
        """
        refused: list[_Result] = []
        running = dict.fromkeys(self._waiting, 0)
        for ticket, _ in self._rows.values():
            if ticket in running:
                running[ticket] += 1
        while len(self._rows) < self._max_rows and self._waiting:
            ticket = min(self._waiting, key=running.__getitem__)
            try:
                self._start(ticket, self._waiting[ticket].popleft())
            except Exception as error:
                self.remove(ticket, None)
                refused.append((ticket, RequestError(str(error)) if isinstance(error, UsageError) else failed(error)))
                continue
            running[ticket] += 1
            if not self._waiting[ticket]:
                del self._waiting[ticket]
        return refused

    def step(self) -> list[_Result]:
        """Generate a token for each sequence that has started; the results of every ticket."""
        results: dict[Ticket, list[Step]] = {}
        for step in self._engine.step():
            ticket, number = self._rows[step.row]
            results.setdefault(ticket, []).append(step._replace(row=number))
            if step.finish_reason is not None:
                del self._rows[step.row]
        return list(results.items())

    def fail(self, row: int, error: RequestError) -> list[_Result]:
        """End the ticket that has the sequence in a row of the engine."""
        ticket, _ = self._rows[row]
        self.remove(ticket, None)
        return [(ticket, error)]

    def _start(self, ticket: Ticket, number: int) -> None:
        prompt, sample = divmod(number, ticket.n)
        options = ticket.options
        row = self._engine.add(
            ticket.prompts[prompt],
            max_new_tokens=options.max_new_tokens,
            sampling=options.sampling,
            seed=options.seed,
            sample=sample,
            top_logprobs=options.top_logprobs,
            prompt_logprobs=options.prompt_logprobs,
            logit_bias=options.logit_bias,
        )
        self._rows[row] = ticket, number


def _cache_tokens(model: GPT) -> int:
    """Tokens that the key-value cache may hold: a whole context, or what fits in a share of the free memory."""
    config = model.config
    token_bytes = 2 * config.n_layer * config.kv_heads * config.head_size * _CACHE_ITEM_BYTES
    device = next(model.parameters()).device
    return max(config.block_size, int(_CACHE_SHARE * available_memory(device) / token_bytes))
