"""Who may ask, how long a body may be, and when a connection is dropped."""

import socket
import threading
import time

import httpx2
import pytest
from small_runs import CONTEXT

from tokenloom.serving.middleware import MAX_BODY_BYTES, is_allowed_host, is_loopback
from tokenloom.serving.server import Timeouts

KEY = "sesame"
HEADERS = "Host: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def locked(runs, server_of):
    """A server with a key."""
    with server_of(runs, api_key=KEY) as server:
        yield server


def exchange(server, request: bytes, *more: bytes) -> bytes:
    """What the server answers on a connection; parts of the request are sent until it does."""
    with socket.create_connection((server.host, server.port), timeout=30) as connection:
        connection.sendall(request)
        for part in more:
            connection.sendall(part)
        reply = b""
        while b"\r\n\r\n" not in reply and (received := connection.recv(65536)):
            reply += received
    return reply


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer"}, {"authorization": KEY}]
)
def test_without_the_key_requests_are_401(locked, headers):
    with httpx2.Client(base_url=locked.url, headers=headers) as http:
        for path in ("/v1/models", "/metrics", "/tokenizer_info", "/openapi.json", "/api/runs", "/nothing"):
            reply = http.get(path)
            assert reply.status_code == 401, path
            assert reply.json()["error"]["code"] == "invalid_api_key"
            assert reply.headers["www-authenticate"] == "Bearer"
        assert http.post("/v1/completions", json={"prompt": "a"}).status_code == 401
        assert http.get("/health").status_code == 200
        assert http.get("/").status_code == 200
        assert http.get("/page/index.html").status_code == 200
        assert http.get("/page/../metrics").status_code == 401


def test_with_the_key_requests_are_answered(locked):
    with httpx2.Client(base_url=locked.url, headers={"authorization": f"Bearer {KEY}"}) as http:
        assert http.get("/v1/models").status_code == 200
        assert http.get("/metrics").status_code == 200
        assert http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1}).status_code == 200


def test_without_a_key_any_authorization_is_accepted(server):
    for value in ("Bearer ", "Bearer", "Bearer anything", "Basic x"):  # clients send the first if their key is empty
        request = f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: {value}\r\n\r\n".encode()
        assert exchange(server, request).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("127.0.0.1:8000", 200),
        ("[::1]:8000", 200),
        ("[::1]", 200),
        ("evil.com", 403),
        ("evil.com:8000", 403),
        ("localhost.evil.com", 403),
        ("127.0.0.1.evil.com", 403),
        ("[::1]evil", 403),
        ("[::1]:evil", 403),
        ("[::1", 403),
        ("::1", 403),
        ("localhost:80:80", 403),
        ("user@localhost", 403),
        ("0.0.0.0", 403),
        ("192.168.0.1", 403),
    ],
)
def test_only_hosts_of_this_machine_are_answered(server, host, status):
    reply = exchange(server, f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert reply.startswith(f"HTTP/1.1 {status} ".encode())


def test_a_server_for_other_machines_accepts_their_names_for_it():
    assert is_allowed_host("server.example:8000", loopback_only=False)
    assert not is_allowed_host("[::1]evil", loopback_only=False)
    assert [is_loopback(host) for host in ("127.9.9.9", "::1", "localhost", "0.0.0.0", "example.com", "")] == [
        True
    ] * 3 + [False] * 3


def test_requests_from_pages_of_other_sites_are_refused(server, http):
    body = {"prompt": "a", "max_tokens": 1}
    for origin in (
        "http://evil.com",
        "null",
        "http://localhost:1",
        f"http://127.0.0.1:{server.port}.evil.com",
        "file://",
    ):
        reply = http.post("/v1/completions", json=body, headers={"origin": origin})
        assert reply.status_code == 403, origin
        assert "Origin" in reply.json()["error"]["message"]
    own = http.post("/v1/completions", json=body, headers={"origin": server.url})
    assert own.status_code == 200
    assert "access-control-allow-origin" not in own.headers
    assert http.options("/v1/completions", headers={"origin": "http://evil.com"}).status_code == 403


def test_a_body_of_9_mb_is_refused_before_it_is_sent(server):
    start = time.monotonic()
    reply = exchange(
        server, f"POST /v1/completions HTTP/1.1\r\n{HEADERS}Content-Length: {9 * 1024**2}\r\n\r\n".encode()
    )
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert time.monotonic() - start < 5


def test_a_body_of_chunks_is_refused_at_the_limit(server):
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    head = f"POST /v1/completions HTTP/1.1\r\n{HEADERS}Transfer-Encoding: chunked\r\n\r\n".encode()
    reply = exchange(server, head, *[chunk] * (MAX_BODY_BYTES // 0x100000 + 1))
    assert reply.startswith(b"HTTP/1.1 413 ")


def test_a_client_that_sends_all_of_a_long_body_gets_the_error_too(http):
    reply = http.post("/v1/completions", json={"prompt": "a" * 9 * 1024**2})
    assert reply.status_code == 413
    assert f"{MAX_BODY_BYTES:,}" in reply.json()["error"]["message"]


def test_a_long_body_within_the_limit_is_read(http):
    reply = http.post("/v1/completions", json={"prompt": "a" * 7 * 1024**2, "max_tokens": 1})
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "context_length_exceeded"


@pytest.fixture(scope="module")
def impatient(runs, server_of):
    """A server that waits for clients for a second or two only, and whose sockets buffer little."""
    server = server_of(runs, timeouts=Timeouts(body=1, reader=2))
    server._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # also that of its connections
    with server:
        yield server


def test_a_body_that_does_not_arrive_is_408(impatient):
    reply = exchange(impatient, f"POST /v1/completions HTTP/1.1\r\n{HEADERS}Content-Length: 100\r\n\r\n{{".encode())
    assert reply.startswith(b"HTTP/1.1 408 ")


def stalled_reader(server) -> socket.socket:
    """A connection that requests more than its buffers hold, and reads nothing."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((server.host, server.port))
    body = f'{{"max_tokens": {CONTEXT}, "n": 4, "logprobs": 20, "stream": true, "logit_bias": {{"256": -100}}}}'
    connection.sendall(f"POST /v1/completions HTTP/1.1\r\n{HEADERS}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    return connection


def seconds_of_stream(http: httpx2.Client) -> float:
    """How long a client needs to read a stream of 50 tokens."""
    start = time.monotonic()
    body = {"prompt": "a", "max_tokens": 50, "stream": True, "logit_bias": {"256": -100}}
    with http.stream("POST", "/v1/completions", json=body) as stream:
        assert list(stream.iter_lines())[-2:] == ["data: [DONE]", ""]
    return time.monotonic() - start


def test_a_stalled_reader_is_dropped_and_others_keep_their_rate(impatient):
    with httpx2.Client(base_url=impatient.url, timeout=30) as http:

        def sequences(kind: str) -> int:
            return http.get("/health").json()[f"{kind}_sequences"]

        alone = min(seconds_of_stream(http) for _ in range(5))
        readers = [stalled_reader(impatient) for _ in range(2)]
        while not sequences("accepted"):
            time.sleep(0.01)
        while sequences("running"):
            time.sleep(0.01)
        beside, deadline = list[float](), time.monotonic() + 20
        while sequences("accepted") and time.monotonic() < deadline:
            beside.append(seconds_of_stream(http))
        assert sequences("accepted") == 0
        # The best of several, since the machine may be busy; a server that waits for a reader takes a second more.
        assert min(beside) < max(3 * alone, 1)
    for reader in readers:
        reader.settimeout(10)
        with reader.makefile("rb") as rest:
            received = rest.read()
        assert received.startswith(b"HTTP/1.1 200 ")
        assert b"[DONE]" not in received
        reader.close()


def test_no_thread_is_left_by_a_server_that_has_stopped(runs, server_of):
    before = set(threading.enumerate())
    with server_of(runs) as server:
        httpx2.post(f"{server.url}/v1/completions", json={"max_tokens": 2})
    deadline = time.monotonic() + 10
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left
