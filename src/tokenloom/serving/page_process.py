"""The page in a process of its own, which takes nothing from the process that started it and ends with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import tokenloom
from tokenloom.errors import TokenloomError, UsageError
from tokenloom.serving.launch import serve

if TYPE_CHECKING:
    from tokenloom.serving.server import Server

START_SECONDS = 20.0
"""How long the page may take to start."""
_END_SECONDS = 2.0
_CODE = "from tokenloom.serving.page_process import page_main; page_main()"
# Training needs the GPU's memory and the cores: the page computes on one core, and its thread does not spin.
_ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


class PageProcess:
    """The page with the runs in a folder, from its creation until its context is left or this process ends.

    It listens on port 8000, or on a free one if that is in use. A signal of the terminal does not reach it, and it ends
    when its standard input ends, so also if this process is killed.
    """

    def __init__(self, runs: Path) -> None:
        paths = [str(Path(tokenloom.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        debug = bool(os.environ.get("TOKENLOOM_DEBUG"))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _CODE, str(runs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if debug else subprocess.DEVNULL,  # its lines would break the progress of the training
            env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
        )
        self._reply = b""
        self._reader = threading.Thread(target=self._read, name="tokenloom-page", daemon=True)
        self._reader.start()

    def url(self, seconds: float = START_SECONDS) -> str:
        """The address of the page, which answers when this returns; raises `TokenloomError` if it does not start."""
        self._reader.join(seconds)
        if self._reader.is_alive():
            raise TokenloomError(f"it did not start within {seconds:g} s.")
        try:
            reply: dict[str, str] = json.loads(self._reply)
        except ValueError:
            raise TokenloomError(
                "its process failed. TOKENLOOM_DEBUG=1 in the environment shows why, and so does tokenloom serve."
            ) from None
        if "problem" in reply:
            raise TokenloomError(reply["problem"])
        return reply["url"]

    def wait(self) -> None:
        """Wait until the process has ended."""
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # the process has ended
            self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            self._reply = output.readline()


def page_main() -> None:
    """The process: serves the page, writes its address or a problem as one line, and ends with its standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # so that nothing else is taken for the reply
    try:
        reply = {"url": start_server(Path(sys.argv[1])).url}
    except TokenloomError as error:
        reply = {"problem": str(error)}
    with suppress(OSError), output:  # the other process has ended
        output.write(json.dumps(reply) + "\n")
    sys.stdin.buffer.read()
    os._exit(0)  # requests in progress are not waited for


def start_server(runs: Path) -> Server:
    """Serve the runs in a folder from threads of this process, on the default port if that is free."""
    try:
        return serve(runs=runs)
    except UsageError:  # the port is in use
        return serve(runs=runs, port=0)
