"""The server from start to stop: its address, its socket, and what happens to requests when it stops."""

import json
import socket
import threading
import time

import httpx2
import pytest
from small_runs import TOKENIZER, random_model, save_run

import tokenloom as tl
from tokenloom.compute.runtime import choose_runtime
from tokenloom.errors import CheckpointError, TokenloomError, UsageError
from tokenloom.serving.models import ModelStore
from tokenloom.serving.server import Server

NO_EOT = {str(TOKENIZER.eot_id): -100}


@pytest.fixture(scope="module")
def store(runs) -> ModelStore:
    return ModelStore((), runs, 10**9, runtime=choose_runtime("cpu", "fp32"))


def test_a_server_from_python(runs):
    with tl.serve(runs / "story", port=0) as server:
        assert server.url == f"http://127.0.0.1:{server.port}"
        reply = httpx2.post(f"{server.url}/v1/completions", json={"prompt": "a", "max_tokens": 2})
        assert reply.status_code == 200
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{server.url}/health")


def test_waiting_for_a_server_that_fails_is_an_error(store, monkeypatch):
    has_started = threading.Event()

    async def fail(_: int) -> bool:
        if has_started.is_set():
            raise RuntimeError("the event loop is broken")
        return False

    server = Server(store, host="127.0.0.1", port=0)
    monkeypatch.setattr(server._uvicorn, "on_tick", fail)
    with server:
        has_started.set()
        with pytest.raises(TokenloomError, match="has failed: the event loop is broken"):
            server.wait()
    server.services.close()


def test_a_model_that_does_not_exist_is_an_error_before_the_server_starts(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        tl.serve(tmp_path / "nothing", port=0)


def test_a_port_that_is_taken_or_no_port_is_an_error(store):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UsageError, match="is in use. Choose another"):
        Server(store, host="127.0.0.1", port=taken.getsockname()[1])
    with pytest.raises(UsageError, match="from 0 to 65535"):
        tl.serve(port=65536)
    with pytest.raises(UsageError, match="cannot listen on no.such.host.invalid"):
        Server(store, host="no.such.host.invalid", port=0, api_key="k")


def test_a_host_that_others_can_reach_needs_a_key(store):
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.com"):
        with pytest.raises(UsageError, match="--api-key"):
            Server(store, host=host, port=0)
    for key in ("", " ", "a b", "é", "a\n"):
        with pytest.raises(UsageError, match="ASCII"):
            Server(store, host="127.0.0.1", port=0, api_key=key)


def test_a_server_for_other_machines_is_reached_by_any_of_its_names(store):
    with Server(store, host="0.0.0.0", port=0, api_key="k") as server:
        assert server.url.startswith("http://127.0.0.1:")
        reply = httpx2.get(f"{server.url}/v1/models", headers={"host": "tower.example", "authorization": "Bearer k"})
        assert reply.status_code == 200


def test_a_reply_does_not_wait_for_acknowledgements(server):
    with httpx2.Client(base_url=server.url) as http:
        assert http.get("/health").status_code == 200
        connections = [one.transport.get_extra_info("socket") for one in server._uvicorn.server_state.connections]
        assert connections
        assert all(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for one in connections)


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_ipv6(store):
    with Server(store, host="::1", port=0) as server:
        assert server.url == f"http://[::1]:{server.port}"
        assert httpx2.get(f"{server.url}/health").status_code == 200


@pytest.fixture
def long_server(tmp_path, server_of):
    save_run(tmp_path / "story", random_model(context=8192))
    return server_of(tmp_path)


def test_requests_that_are_short_end_before_the_server_stops(server_of, runs):
    results: list[httpx2.Response] = []
    with server_of(runs) as server:
        body = {"n": 16, "max_tokens": 60, "logit_bias": NO_EOT}
        request = threading.Thread(
            target=lambda: results.append(httpx2.post(f"{server.url}/v1/completions", json=body))
        )
        request.start()
        while server.services.engine.accepted == 0:
            time.sleep(0.005)
    request.join(10)
    assert results[0].status_code == 200
    assert results[0].json()["usage"]["completion_tokens"] == 16 * 60


@pytest.mark.parametrize("stream", [True, False])
def test_requests_that_are_long_end_with_an_error_within_five_seconds(long_server, stream):
    replies: list[tuple[int, str]] = []

    def request() -> None:
        body = {"n": 16, "max_tokens": 8000, "logit_bias": NO_EOT, "stream": stream}
        reply = httpx2.post(f"{long_server.url}/v1/completions", json=body, timeout=30)
        replies.append((reply.status_code, reply.text))

    thread = threading.Thread(target=request)
    with long_server:
        thread.start()
        while long_server.services.engine.running == 0:
            time.sleep(0.005)
        start = time.monotonic()
    assert time.monotonic() - start < 5
    thread.join(5)
    ((status, text),) = replies
    if stream:
        *_, error, end = [line.removeprefix("data: ") for line in text.splitlines() if line]
        assert end == "[DONE]"
        assert json.loads(error)["error"]["code"] == "stopping"
    else:
        assert status == 503
        assert json.loads(text)["error"]["code"] == "stopping"
