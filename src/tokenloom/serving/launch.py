"""`tokenloom.serve`: models over HTTP, from Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tokenloom.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from tokenloom.serving.server import Server

RUNS = Path("runs")
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000


def serve(
    *models: str | Path,
    runs: str | Path | None = None,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    api_key: str | None = None,
) -> Server:
    """Serve models, and all runs in the folder `runs`, through OpenAI's API; returns the server, which has started.

    It runs in threads of this process until its `stop` is called, `with serve(…) as server:` is left, or the process
    ends; `server.url` is its address. Port 0 chooses a free port. Without models, `runs` is runs/. A host that other
    machines can reach requires an `api_key`. Raises `TokenloomError`.
    """
    try:
        from tokenloom.serving.server import Server  # isort: skip # first, to miss a package before torch is imported
        from tokenloom.serving.models import ModelStore
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), "serve", "serve") from None
    if not 0 <= port < 2**16:
        raise UsageError(f"port must be from 0 to 65535, got {port}. Try {DEFAULT_PORT}.")
    if runs is None and not models:
        runs = RUNS
    server = Server(ModelStore(models, None if runs is None else Path(runs)), host=host, port=port, api_key=api_key)
    server.start()
    return server
