"""Many clients at once, some of which disconnect or do not read: every reply is right, and nobody waits for another.

The long form, a minute with 200 connections, prints what it measured:
`pytest -m slow tests/serving/test_server_under_load.py -s`.
"""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx2
import psutil
import pytest
from small_runs import TOKENIZER, random_model, save_run

CONTEXT = 512
TOKENS = 32
NO_EOT = {str(TOKENIZER.eot_id): -100}
PROMPTS = [f"prompt {number} {'and more ' * (number % 7)}" for number in range(16)]


@pytest.fixture(scope="module")
def loaded_server(tmp_path_factory, server_of):
    runs = tmp_path_factory.mktemp("load")
    save_run(runs / "story", random_model(context=CONTEXT))
    with server_of(runs) as server:
        yield server


def body_of(prompt: str, **options: object) -> dict:
    return {"prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "logit_bias": NO_EOT, **options}


@dataclass
class Load:
    """Clients of a server, and what they observe."""

    server: object
    free_seconds: float
    """How long the sequences of a client that has disconnected may go on."""
    expected: dict[str, str] = field(default_factory=dict)
    results: Counter = field(default_factory=Counter)
    health_seconds: list[float] = field(default_factory=list)
    is_over: bool = False

    async def run(self, *, connections: int, disconnecting: int, stalled: int, seconds: float) -> None:
        async with self.client() as client:
            for prompt in PROMPTS:
                reply = await client.post("/v1/completions", json=body_of(prompt))
                self.expected[prompt] = reply.json()["choices"][0]["text"]
        watch = asyncio.create_task(self.watch_health())
        stalls = [await self.stall() for _ in range(stalled)]
        end = time.monotonic() + seconds
        await asyncio.gather(
            *(self.request(number, end) for number in range(connections)),
            *(self.disconnect(number) for number in range(disconnecting)),
        )
        freed = time.monotonic()
        for writer in stalls:
            writer.close()
        async with self.client() as client:
            while (await client.get("/health")).json()["accepted_sequences"]:
                assert time.monotonic() - freed < self.free_seconds, "disconnected clients still have sequences"
                await asyncio.sleep(0.02)
        self.is_over = True
        await watch

    def client(self) -> httpx2.AsyncClient:
        """A client with a connection of its own. Certificates, which it does not need, would take time to load."""
        return httpx2.AsyncClient(base_url=self.server.url, timeout=120, verify=False)

    async def request(self, number: int, end: float) -> None:
        """Request texts one after the other, whole and streamed, until the time is over; at least one."""
        choices = random.Random(number)
        async with self.client() as client:
            while True:
                prompt, is_stream = choices.choice(PROMPTS), choices.random() < 0.5
                try:
                    status, text = await (self.streamed if is_stream else self.whole)(client, prompt)
                except httpx2.HTTPError:
                    status, text = 200, None
                kind = "lost" if text is None else "right" if text == self.expected[prompt] else "wrong"
                self.results[kind if status == 200 else status] += 1
                if status == 503:
                    await asyncio.sleep(0.1)
                elif time.monotonic() > end:
                    return

    async def whole(self, client: httpx2.AsyncClient, prompt: str) -> tuple[int, str | None]:
        reply = await client.post("/v1/completions", json=body_of(prompt))
        return reply.status_code, reply.json()["choices"][0]["text"] if reply.status_code == 200 else ""

    async def streamed(self, client: httpx2.AsyncClient, prompt: str) -> tuple[int, str | None]:
        text, has_ended = "", False
        async with client.stream("POST", "/v1/completions", json=body_of(prompt, stream=True)) as reply:
            async for line in reply.aiter_lines():
                if line == "data: [DONE]":
                    has_ended = True
                elif line.startswith("data: "):
                    text += "".join(choice["text"] for choice in json.loads(line.removeprefix("data: "))["choices"])
        return reply.status_code, text if has_ended else None

    async def disconnect(self, number: int) -> None:
        """Leave in the middle of a stream."""
        await asyncio.sleep(random.Random(number).random() / 2)
        body = body_of("a", max_tokens=CONTEXT - 10, n=2, stream=True)
        async with self.client() as client, client.stream("POST", "/v1/completions", json=body) as reply:
            async for _ in reply.aiter_lines():
                break
        self.results["disconnected"] += 1

    async def stall(self) -> asyncio.StreamWriter:
        """A client that requests a long stream and reads nothing."""
        _, writer = await asyncio.open_connection(self.server.host, self.server.port, limit=1)
        content = json.dumps(body_of("a", max_tokens=CONTEXT - 10, logprobs=20, stream=True))
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n{content}".encode())
        await writer.drain()
        return writer

    async def watch_health(self) -> None:
        async with self.client() as client:
            while not self.is_over:
                start = time.monotonic()
                assert (await client.get("/health")).status_code == 200
                self.health_seconds.append(time.monotonic() - start)
                await asyncio.sleep(0.02)


def test_every_reply_is_right_with_many_clients(loaded_server):
    load = Load(loaded_server, free_seconds=5)  # the machine may be busy
    asyncio.run(load.run(connections=48, disconnecting=8, stalled=4, seconds=0))
    assert load.results == {"right": 48, "disconnected": 8}
    assert sorted(load.health_seconds)[len(load.health_seconds) // 2] < 0.5


# Prints how long /health took, in seconds, until its standard input is closed.
WATCH = """
import http.client, select, sys, time
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]))
while not select.select([sys.stdin], [], [], 0.02)[0]:
    start = time.monotonic()
    connection.request("GET", "/health")
    reply = connection.getresponse()
    reply.read()
    print(time.monotonic() - start if reply.status == 200 else 1e9)
"""


@dataclass
class Address:
    """A server in another process."""

    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


def cpu_seconds(process: int) -> float:
    """The CPU time that a process has used."""
    times = psutil.Process(process).cpu_times()
    return times.user + times.system


@pytest.mark.slow
def test_a_minute_of_200_connections(tmp_path):
    """Server, clients and the clock of /health are separate processes, so that they do not share an interpreter."""
    save_run(tmp_path / "story", random_model(context=CONTEXT))
    command = [sys.executable, "-m", "tokenloom", "serve", "--runs", str(tmp_path), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = json.loads(process.stdout.readline())["url"]
            address = Address("127.0.0.1", int(url.rpartition(":")[2]))
            watch = subprocess.Popen(
                [sys.executable, "-c", WATCH, address.host, str(address.port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            load = Load(address, free_seconds=1)
            start, clients_used, server_used = time.monotonic(), time.process_time(), cpu_seconds(process.pid)
            asyncio.run(load.run(connections=200, disconnecting=50, stalled=50, seconds=60))
            seconds = time.monotonic() - start
            clients_used = time.process_time() - clients_used
            server_used = cpu_seconds(process.pid) - server_used
            health = sorted(1000 * float(line) for line in watch.communicate("", timeout=30)[0].split())
        finally:
            process.terminate()
    replies, p99 = load.results, health[int(0.99 * len(health))]
    print(
        f"\nin {seconds:.0f} s: {replies['right']:,} replies right, {replies['wrong']} wrong, {replies['lost']} lost, "
        f"{replies['disconnected']} disconnected, {replies[503]} refused; {replies['right'] * TOKENS / seconds:,.0f} "
        f"tokens/s; {server_used / seconds:.2f} cores used by the server, {clients_used / seconds:.2f} by the clients; "
        f"/health {len(health):,} times: median {health[len(health) // 2]:.1f} ms, 99 % within {p99:.1f} ms, "
        f"longest {health[-1]:.1f} ms"
    )
    assert set(replies) <= {"right", "disconnected", 503}
    assert replies["right"] >= 200
    assert p99 < 100
