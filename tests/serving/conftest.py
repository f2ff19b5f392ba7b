"""A server with a small run, on a real socket, for each module of tests."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import pytest
from small_runs import random_model, save_run

from tokenloom.compute.runtime import choose_runtime
from tokenloom.serving.models import ModelStore
from tokenloom.serving.server import Server


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with the run "story", which has two checkpoints."""
    folder = tmp_path_factory.mktemp("runs")
    save_run(folder / "story", random_model(3), random_model())
    return folder


@pytest.fixture(scope="module")
def server_of():
    """Create a server that listens on a free port: `with server_of(runs, limits=…) as server:`."""

    def create(runs: Path, **options: object) -> Server:
        store = ModelStore((), runs, 10**9, runtime=choose_runtime("cpu", "fp32"))
        return Server(store, host="127.0.0.1", port=0, **options)

    return create


@pytest.fixture(scope="module")
def server(runs, server_of) -> Iterator[Server]:
    with server_of(runs) as server:
        yield server


@pytest.fixture(scope="module")
def http(server) -> Iterator[httpx2.Client]:
    """A client that checks nothing."""
    with httpx2.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def client(server) -> Iterator[openai.OpenAI]:
    """OpenAI's client, which would repeat failed requests by itself."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=30) as client:
        yield client
