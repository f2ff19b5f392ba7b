"""The engine thread: what it accepts, whom it serves next, and what happens when a client or a model fails."""

import asyncio
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
import torch
from small_runs import TOKENIZER, random_model, save_run

from tokenloom.data.tokenizers import make_tokenizer
from tokenloom.generation.engine import Step
from tokenloom.sampling_params import SamplingParams
from tokenloom.serving import engine_thread
from tokenloom.serving.engine_thread import EngineThread, Limits
from tokenloom.serving.errors import RequestError
from tokenloom.serving.tickets import SequenceOptions, Ticket
from tokenloom.serving.turns import Turns
from tokenloom.weights.checkpoint import rotate_checkpoints
from tokenloom.weights.load import LoadedModel

NO_EOT = {str(TOKENIZER.eot_id): -100}
LONG_CONTEXT = 2048


@pytest.fixture(scope="module")
def long_runs(tmp_path_factory) -> Path:
    """A folder with a run whose context is long enough for requests that last."""
    folder = tmp_path_factory.mktemp("long")
    save_run(folder / "story", random_model(context=LONG_CONTEXT))
    return folder


@pytest.fixture(scope="module")
def slow_server(long_runs, server_of):
    """A server of a model with a long context, that accepts eight sequences and runs two at once."""
    with server_of(long_runs, limits=Limits(max_rows=2, max_sequences=8)) as server:
        yield server


@pytest.fixture
def slow(slow_server):
    with httpx2.Client(base_url=slow_server.url, timeout=60) as client:
        yield client
    until(lambda: state(slow_server)["accepted_sequences"] == 0)


def until(condition, seconds: float = 30.0) -> float:
    """Wait for a condition; the seconds that it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "the condition did not come true"
        time.sleep(0.01)
    return time.monotonic() - start


def state(server) -> dict:
    return httpx2.get(f"{server.url}/health").json()


def begin(server, **body) -> socket.socket:
    """A connection that has sent a long request, and reads what it likes."""
    connection = socket.create_connection((server.host, server.port), timeout=30)
    text = json.dumps({"prompt": "a", "max_tokens": 2000, "logit_bias": NO_EOT, **body})
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(text)}\r\n\r\n{text}".encode())
    return connection


def test_a_full_queue_is_503_with_retry_after_and_recovers(slow_server, slow):
    holders = [begin(slow_server, n=4) for _ in range(2)]
    until(lambda: state(slow_server)["accepted_sequences"] == 8)
    reply = slow.post("/v1/completions", json={"prompt": "a", "max_tokens": 1})
    assert reply.status_code == 503
    assert reply.headers["retry-after"] == "1"
    assert reply.json()["error"]["code"] == "overloaded"
    for holder in holders:
        holder.close()
    until(lambda: state(slow_server)["accepted_sequences"] == 0)
    assert slow.post("/v1/completions", json={"prompt": "a", "max_tokens": 1}).status_code == 200


def test_a_request_that_can_never_fit_is_400(slow):
    for body in ({"n": 9}, {"prompt": ["a"] * 9}, {"prompt": ["a", "b", "c"], "n": 3}):
        reply = slow.post("/v1/completions", json=body)
        assert reply.status_code == 400
        assert "at most 8 sequences" in reply.json()["error"]["message"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_disconnection_frees_running_and_waiting_sequences_within_a_second(slow_server, slow, stream):
    connections = [begin(slow_server, n=3, stream=stream) for _ in range(2)]
    until(lambda: state(slow_server)["accepted_sequences"] == 6)
    until(lambda: state(slow_server)["running_sequences"] > 0)
    for connection in connections:
        connection.close()
    assert until(lambda: state(slow_server)["accepted_sequences"] == 0) < 1
    assert until(lambda: state(slow_server)["running_sequences"] == 0) < 1


def test_a_disconnection_while_the_prompt_is_computed_frees_its_sequence(slow_server, slow):
    connections = [begin(slow_server, prompt=[1] * 2000, max_tokens=1, echo=True, logprobs=5) for _ in range(4)]
    until(lambda: state(slow_server)["accepted_sequences"] == 4)
    for connection in connections:
        connection.close()
    assert until(lambda: state(slow_server)["accepted_sequences"] == 0) < 1


def test_a_stop_string_frees_its_sequence(slow_server, slow):
    bias = {str(ord("x")): 100}
    start = time.monotonic()
    reply = slow.post("/v1/completions", json={"max_tokens": 2000, "stop": "xxx", "logit_bias": bias, "temperature": 0})
    assert reply.json()["choices"][0]["finish_reason"] == "stop"
    assert reply.json()["usage"]["completion_tokens"] == 3
    until(lambda: state(slow_server)["running_sequences"] == 0)
    assert time.monotonic() - start < 5


def test_a_request_with_many_sequences_does_not_delay_a_later_one(slow_server, slow):
    """With two rows, six sequences of 300 tokens are in progress: a later request gets the first row that is free."""
    with ThreadPoolExecutor() as threads:
        many = threads.submit(
            lambda: slow.post("/v1/completions", json={"n": 6, "max_tokens": 300, "logit_bias": NO_EOT})
        )
        until(lambda: state(slow_server)["running_sequences"] == 2)
        single = slow.post("/v1/completions", json={"max_tokens": 5, "temperature": 0})
        assert single.status_code == 200
        assert not many.done()
        assert len(many.result().json()["choices"]) == 6


@pytest.mark.parametrize("options", [{"temperature": 0}, {"seed": 12, "temperature": 1}], ids=["greedy", "seeded"])
def test_a_text_is_the_same_alone_and_among_64_that_join_at_different_times(http, options):
    prompts = [f"{number} and {'so on ' * (number % 5)}" for number in range(64)]

    def text(prompt: str) -> str:
        body = {"prompt": prompt, "max_tokens": 24, "logit_bias": NO_EOT, **options}
        reply = http.post("/v1/completions", json=body)
        return reply.json()["choices"][0]["text"]

    def text_later(number: int) -> str:
        time.sleep(number * 0.003)
        return text(prompts[number])

    chosen = range(0, 64, 7)
    alone = [text(prompts[number]) for number in chosen]
    with ThreadPoolExecutor(64) as threads:
        together = list(threads.map(text_later, range(64)))
    assert [together[number] for number in chosen] == alone


def test_a_new_checkpoint_serves_the_next_request_and_a_stream_ends_on_the_old_one(tmp_path, server_of):
    run = save_run(tmp_path / "story", random_model(3, context=LONG_CONTEXT))
    with server_of(tmp_path) as server, httpx2.Client(base_url=server.url, timeout=30) as http:
        body = {"model": "story", "max_tokens": 800, "logit_bias": NO_EOT, "stream": True}
        with http.stream("POST", "/v1/completions", json=body) as stream:
            lines = stream.iter_lines()
            names = {json.loads(next(lines).removeprefix("data: "))["model"]}
            save_run(run, random_model(4, context=LONG_CONTEXT), first_step=2)
            assert (
                http.post("/v1/completions", json={"model": "story", "max_tokens": 1}).json()["model"] == "story@step-2"
            )
            events = [line.removeprefix("data: ") for line in lines if line]
        assert events.pop() == "[DONE]"
        assert names | {json.loads(event)["model"] for event in events} == {"story@step-1"}
        assert http.post("/v1/completions", json={"model": "story@step-1", "max_tokens": 1}).status_code == 200


def test_a_pinned_step_that_was_removed_is_404_and_names_what_remains(tmp_path, server_of):
    run = save_run(tmp_path / "story", random_model(3), random_model(4))
    with server_of(tmp_path) as server, httpx2.Client(base_url=server.url, timeout=30) as http:
        pinned = {"model": "story@step-1", "prompt": "a", "max_tokens": 1}
        assert http.post("/v1/completions", json=pinned).json()["model"] == "story@step-1"
        rotate_checkpoints(run / "checkpoints", 1)
        for reply in (
            http.post("/v1/completions", json=pinned),
            http.post("/v1/completions", json={**pinned, "stream": True}),
            http.get("/v1/models/story@step-1"),
            http.post("/tokenize", json={"model": "story@step-1", "prompt": "a"}),
        ):
            assert reply.status_code == 404
            error = reply.json()["error"]
            assert (error["code"], error["param"]) == ("model_not_found", "model")
            assert "Available: story, story@first, story@step-2." in error["message"]
        assert http.post("/v1/completions", json={**pinned, "model": "story"}).json()["model"] == "story@step-2"


def test_a_model_that_fails_ends_streams_with_an_error_and_others_continue(tmp_path, server_of):
    save_run(tmp_path / "good", random_model())
    broken = random_model()
    with torch.no_grad():
        broken.lm_head.weight[:] = float("nan")
    save_run(tmp_path / "broken", broken)
    with server_of(tmp_path) as server, httpx2.Client(base_url=server.url, timeout=30) as http:
        with http.stream("POST", "/v1/completions", json={"model": "broken", "stream": True}) as stream:
            events = [line.removeprefix("data: ") for line in stream.iter_lines() if line]
        assert stream.status_code == 200
        assert events.pop() == "[DONE]"
        error = json.loads(events.pop())["error"]
        assert error["code"] == "engine_error"
        assert "NaN" in error["message"]
        assert http.get("/health").status_code == 503
        assert http.get("/health").json()["status"] == "failed"
        assert http.post("/v1/completions", json={"model": "broken"}).status_code == 500
        assert http.post("/v1/completions", json={"model": "good"}).status_code == 200
        assert http.get("/health").status_code == 200


def test_a_sequence_with_logits_that_are_not_finite_fails_its_own_request_only(tmp_path, server_of):
    """The embedding of one byte is NaN, so that only texts with this byte fail."""
    model = random_model(context=LONG_CONTEXT)
    with torch.no_grad():
        model.wte.weight[ord("x")] = float("nan")
    save_run(tmp_path / "story", model)
    with server_of(tmp_path) as server, httpx2.Client(base_url=server.url, timeout=60) as http:
        body = {"prompt": "a", "max_tokens": 300, "temperature": 0, "logit_bias": {**NO_EOT, str(ord("x")): -100}}
        alone = http.post("/v1/completions", json=body).json()["choices"][0]["text"]
        with ThreadPoolExecutor() as threads:
            beside = threads.submit(lambda: http.post("/v1/completions", json=body))
            until(lambda: state(server)["running_sequences"] > 0)
            for failing in ({"prompt": "ax"}, {"prompt": "axb", "echo": True, "logprobs": 1, "max_tokens": 0}):
                reply = http.post("/v1/completions", json={**body, **failing})
                assert reply.status_code == 500
                assert "NaN" in reply.json()["error"]["message"]
            assert beside.result().json()["choices"][0]["text"] == alone
        assert state(server)["accepted_sequences"] == 0
        assert http.post("/v1/completions", json={**body, "max_tokens": 1}).status_code == 200
        assert http.get("/health").status_code == 200


def test_a_model_that_cannot_start_fails_its_requests_and_the_thread_continues():
    """The tokenizer has more tokens than the model."""
    model, larger = random_model(), make_tokenizer("char", ["ab"])
    assert larger.vocab_size > model.config.vocabulary

    async def run() -> None:
        engine = EngineThread()
        engine.start()
        failing = Ticket(LoadedModel(model, larger, Path("bad")), [[1]], 1, options(1))
        engine.submit(failing)
        with pytest.raises(RequestError, match="vocabulary"):
            await asyncio.wait_for(anext(failing.results(Turns(1))), 10)
        working = Ticket(LoadedModel(random_model(), TOKENIZER, Path("good")), [[1]], 1, options(4))
        engine.submit(working)
        assert len(await asyncio.wait_for(steps_of(working), 10)) == 4
        engine.stop(5)

    asyncio.run(run())


def test_an_error_between_two_steps_fails_the_requests_in_progress_and_the_thread_continues():
    loaded = LoadedModel(random_model(context=LONG_CONTEXT), TOKENIZER, Path("model"))

    def fail(*_) -> None:
        raise RuntimeError("the cache is broken")

    async def run() -> None:
        engine = EngineThread()
        engine.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine_thread._Session, "remove", fail)
            failing = Ticket(loaded, [[1]], 1, options(2000))
            engine.submit(failing)
            engine.stop_sequence(failing, 0)
            with pytest.raises(RequestError, match="the cache is broken"):
                await asyncio.wait_for(steps_of(failing), 10)
        working = Ticket(loaded, [[1]], 1, options(4))
        engine.submit(working)
        assert len(await asyncio.wait_for(steps_of(working), 10)) == 4
        engine.stop(5)

    asyncio.run(run())


def options(max_new_tokens: int) -> SequenceOptions:
    return SequenceOptions(max_new_tokens, SamplingParams(temperature=0), 0, None, False, {})


async def steps_of(ticket: Ticket) -> list[Step]:
    """The steps of a ticket with one sequence, to its end."""
    all_steps: list[Step] = []
    async for steps in ticket.results(Turns(1)):
        all_steps += steps
        if steps[-1].finish_reason is not None:
            break
    return all_steps


def test_steps_that_arrive_before_they_are_read_come_together_and_before_an_error():
    ticket = Ticket(LoadedModel(random_model(), TOKENIZER, Path("model")), [[1]], 1, options(4))

    async def run() -> None:
        for token in range(3):
            ticket.deliver([Step(0, token, None)])
        ticket.deliver(RequestError("it failed"))
        results = ticket.results(Turns(1))
        assert [step.token for step in await anext(results)] == [0, 1, 2]
        with pytest.raises(RequestError, match="it failed"):
            await anext(results)

    asyncio.run(run())


def test_free_rows_go_to_the_request_with_the_fewest():
    """Driven without a server: the numbers of sequences that each of two requests has in the rows, step by step."""
    loaded = LoadedModel(random_model(), TOKENIZER, Path("model"))

    async def run() -> list[int]:
        engine = EngineThread(Limits(max_rows=4))
        first, second = (Ticket(loaded, [[1]], n, options(40)) for n in (16, 2))
        engine.submit(first)
        engine.start()
        finished: list[int] = []

        async def follow(ticket: Ticket, then: Ticket | None) -> None:
            """Note which sequences finish, until all have; submit another ticket when this one has begun."""
            remaining = ticket.sequences
            async for steps in ticket.results(Turns(1)):
                if then is not None:
                    engine.submit(then)
                    then = None
                ended = sum(step.finish_reason is not None for step in steps)
                finished.extend([ticket.n] * ended)
                remaining -= ended
                if not remaining:
                    return

        await asyncio.gather(follow(first, second), follow(second, None))
        engine.stop(5)
        return finished

    finished = asyncio.run(run())
    assert len(finished) == 18
    # The second request waits for the rows that the first one had before, then gets its share at once.
    assert max(number for number, n in enumerate(finished) if n == 2) < 10


def test_an_idle_engine_thread_uses_no_time():
    async def run() -> float:
        others = set(threading.enumerate())
        engine = EngineThread()
        engine.start()
        (thread,) = set(threading.enumerate()) - others
        await asyncio.sleep(0.1)
        clock = time.pthread_getcpuclockid(thread.ident)
        before = time.clock_gettime(clock)
        await asyncio.sleep(0.5)
        used = time.clock_gettime(clock) - before
        engine.stop(5)
        return used

    assert asyncio.run(run()) < 0.005


def test_a_sequence_that_the_engine_refuses_fails_alone():
    loaded = LoadedModel(random_model(), TOKENIZER, Path("model"))

    async def run() -> None:
        engine = EngineThread()
        engine.start()
        good, bad = Ticket(loaded, [[1]], 1, options(40)), Ticket(loaded, [[TOKENIZER.vocab_size]], 1, options(1))
        engine.submit(good)
        engine.submit(bad)
        with pytest.raises(RequestError) as refused:
            await asyncio.wait_for(anext(bad.results(Turns(1))), 10)
        assert refused.value.status == 400
        assert len(await asyncio.wait_for(steps_of(good), 10)) == 40
        assert engine.failure is None
        engine.stop(5)

    asyncio.run(run())
