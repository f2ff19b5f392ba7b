"""tokenloom serve: what it prints, and how it stops."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import webbrowser
from pathlib import Path

import pytest
from small_runs import random_model, save_run

from tokenloom.cli.main import main
from tokenloom.cli.serve import _curl, _described
from tokenloom.serving.server import Server


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    save_run(folder / "runs" / "story", random_model())
    return folder


@pytest.mark.skipif(os.name == "nt", reason="the command is that of a POSIX shell")
@pytest.mark.timeout(60)
def test_the_curl_line_works_as_pasted_and_ctrl_c_stops_the_server(folder):
    command = [sys.executable, "-m", "tokenloom", "serve", "--port", "0"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        lines = [process.stdout.readline() for _ in range(3)]
        assert "story" in lines[0]
        assert lines[2].startswith("curl http://127.0.0.1:")
        reply = subprocess.run(["sh", "-c", lines[2].replace("curl", "curl -s", 1)], capture_output=True, text=True)
        assert json.loads(reply.stdout)["choices"][0]["text"]
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert time.monotonic() - start < 5
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.splitlines() == ["Ctrl-C stops the server.", "tokenloom: interrupted by SIGINT"]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_server_stopped_within_a_long_computation_ends_with_the_code_of_the_signal(folder):
    code = """
import sys, torch
from tokenloom.cli.main import main
from tokenloom.generation.engine import Engine
torch.set_num_threads(1)
def step(self):
    print("computing", file=sys.stderr, flush=True)
    x = torch.ones(9000, 9000)
    return x @ x
Engine.step = step
main(["serve", "--port", "0"])
"""
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        lines = [process.stdout.readline() for _ in range(3)]
        client = subprocess.Popen(["sh", "-c", lines[2].replace("curl", "curl -s", 1)], stdout=subprocess.DEVNULL)
        while "computing" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        client.wait(10)
    finally:
        process.kill()
    assert (errors.splitlines(), process.returncode) == (["tokenloom: interrupted by SIGTERM"], 143)


def test_the_curl_line_sends_the_key_and_is_quoted_for_a_shell():
    line = _curl("http://127.0.0.1:8000", "it's")
    assert "Authorization: Bearer it" in line
    assert shlex.split(line)[shlex.split(line).index("-H") + 3] == "Authorization: Bearer it's"


def test_many_models_are_counted_and_the_first_named():
    assert _described([]) == "no model yet"
    assert _described(["a"]) == "1 model (a)"
    assert _described([str(number) for number in range(8)]) == "8 models (0, 1, 2, 3, 4 and 3 more)"


@pytest.mark.parametrize("found", [True, False])
def test_open_opens_the_page_with_the_key_or_names_its_address(folder, monkeypatch, capsys, found):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or found)
    monkeypatch.setattr(Server, "wait", lambda server: None)
    with pytest.raises(SystemExit) as ended:
        main(["serve", str(folder / "runs" / "story"), "--port", "0", "--api-key", "a+b", "--open"])
    printed = capsys.readouterr()
    assert ended.value.code in (0, None)
    assert len(opened) == 1
    assert opened[0].endswith("/#key=a%2Bb")
    assert f"at {opened[0]}\n" in printed.out
    assert (f"no browser was found. Open {opened[0]} in one." in printed.err) == (not found)


def test_no_browser_is_opened_unasked(folder, monkeypatch):
    monkeypatch.setattr(webbrowser, "open", lambda url: pytest.fail("opened"))
    monkeypatch.setattr(Server, "wait", lambda server: None)
    with pytest.raises(SystemExit):
        main(["serve", str(folder / "runs" / "story"), "--port", "0"])
