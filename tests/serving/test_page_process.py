"""The page in a process of its own: it answers, gives way to a port in use, says what is wrong, and never outlives."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import psutil
import pytest
from small_runs import random_model, save_run

from tokenloom.errors import TokenloomError
from tokenloom.serving import launch, page_process
from tokenloom.serving.page_process import PageProcess

STARTS_A_PAGE = """
import sys, time
from pathlib import Path
from tokenloom.serving.page_process import PageProcess
page = PageProcess(Path(sys.argv[1]))
print(page.url(60), page._process.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("beside")
    save_run(folder / "story", random_model())
    return folder


def has_ended(number: int) -> bool:
    """Whether a process ends within some seconds; one that nobody has waited for counts as ended."""
    try:
        process = psutil.Process(number)
        deadline = time.monotonic() + 20
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
    except psutil.NoSuchProcess:
        pass
    return True


@pytest.mark.skipif(os.name == "nt", reason="the process is ended by a signal")
def test_the_page_answers_and_ends_with_a_process_that_is_killed(folder):
    command = [sys.executable, "-c", STARTS_A_PAGE, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        url, number = process.stdout.readline().split()
        assert [row["run"] for row in httpx2.get(f"{url}/api/runs").json()["runs"]] == ["story"]
        assert httpx2.get(url).headers["content-type"].startswith("text/html")
        process.send_signal(signal.SIGKILL)
    assert has_ended(int(number))


@pytest.mark.parametrize("end", ["sys.stdin.read()", "import time; time.sleep(600)"], ids=["ends", "is ended"])
def test_the_process_is_gone_when_the_context_is_left(folder, monkeypatch, end):
    monkeypatch.setattr(page_process, "_END_SECONDS", 2 if "stdin" in end else 0.1)
    monkeypatch.setattr(page_process, "_CODE", f"""import sys; print('{{"url": "http://x"}}', flush=True); {end}""")
    with PageProcess(folder) as page:
        assert page.url() == "http://x"
        number = page._process.pid
        assert psutil.pid_exists(number)
    assert not psutil.pid_exists(number)


def test_a_port_in_use_is_replaced_by_a_free_one(folder, monkeypatch, server_of):
    with server_of(folder) as other:
        monkeypatch.setattr(launch.serve, "__kwdefaults__", {**launch.serve.__kwdefaults__, "port": other.port})
        with page_process.start_server(folder) as server:
            assert server.port != other.port
            assert httpx2.get(f"{server.url}/health").status_code == 200


def test_a_missing_package_is_named(folder, tmp_path, monkeypatch):
    (tmp_path / "fastapi.py").write_text("raise ModuleNotFoundError('no', name='fastapi')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    with (
        PageProcess(folder) as page,
        pytest.raises(TokenloomError, match=r'"fastapi".*pip install "tokenloom\[serve\]"'),
    ):
        page.url(60)


def test_a_process_that_fails_or_is_slow_is_told(folder, monkeypatch):
    with PageProcess(folder) as page, pytest.raises(TokenloomError, match=r"did not start within 0\.01 s"):
        page.url(0.01)
    monkeypatch.setattr(page_process, "_CODE", "raise SystemExit(3)")
    with PageProcess(folder) as page, pytest.raises(TokenloomError, match="TOKENLOOM_DEBUG=1"):
        page.url(60)
