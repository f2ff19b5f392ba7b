"""A server with small runs, on a real socket, for each module of tests, and its page in a browser."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import openai
import pytest
from small_runs import random_model, save_run

from tokenloom import api
from tokenloom.compute.runtime import choose_runtime
from tokenloom.serving.models import ModelStore
from tokenloom.serving.server import Server

TINY = {
    "model": {"family": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16},
    "train": {"max_steps": 12, "batch_size": 2, "log_interval": 1, "eval_interval": 4, "save_interval": 4},
    "sample": {"prompts": ["all ", "no "], "max_new_tokens": 8},
}


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


@pytest.fixture(scope="session")
def page_runs(tmp_path_factory) -> Path:
    """A folder with the finished run "short", and with "story", which was stopped and has two checkpoints."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "text.txt").write_text("all work and no play makes Jack a dull boy\n" * 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENLOOM_CACHE", str(folder / "cache"))
        api.train(folder / "text.txt", out=folder / "runs" / "short", tokenizer="byte", settings=TINY, quiet=True)
    save_run(folder / "runs" / "story", random_model(3), random_model())
    return folder / "runs"


@pytest.fixture(scope="module")
def page_server(page_runs, server_of) -> Iterator[Server]:
    with server_of(page_runs) as server:
        yield server


@pytest.fixture(scope="session")
def launched() -> Iterator[tuple[object, asyncio.AbstractEventLoop]]:
    """A browser for all modules, and the event loop of Playwright, which is the running one only during their tests."""
    from browser import launch

    with launch() as browser:
        loop = asyncio.get_running_loop()
        asyncio._set_running_loop(None)
        yield browser, loop
        asyncio._set_running_loop(loop)


@pytest.fixture
def browser(launched) -> Iterator[object]:
    """The browser. Other tests have event loops of their own, and a thread has one that runs."""
    browser, loop = launched
    asyncio._set_running_loop(loop)
    yield browser
    asyncio._set_running_loop(None)


@pytest.fixture
def start_server(server_of) -> Iterator[Callable]:
    """Start a server that stops after the pages of the test are closed: they would log that it is gone."""
    with ExitStack() as servers:
        yield lambda runs, **options: servers.enter_context(server_of(runs, **options))


@pytest.fixture
def open_page(browser, page_server, start_server) -> Iterator[Callable]:
    """Opens the page at a hash. At the end of the test, nothing may have gone wrong or to another site."""
    contexts, faults = [], []

    def open_at(
        hash: str = "", *, url: str = page_server.url, width: int = 1440, dark: bool = False, strict: bool = True
    ):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(url) else faults.append(request.url))
        if strict:
            page.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
        page.goto(f"{url}/{hash}")
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert faults == []
