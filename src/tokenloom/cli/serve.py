"""tokenloom serve: models over HTTP, through OpenAI's API."""

from __future__ import annotations

import gc
import shlex
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

from cyclopts import Group, Parameter

from tokenloom.cli.models import fetch_if_named
from tokenloom.cli.output import flush_results, print_json, print_notice, print_progress, print_result
from tokenloom.cli.parameters import ARGUMENTS, MODEL_HELP, Json
from tokenloom.reporting.formatting import counted
from tokenloom.serving.launch import DEFAULT_HOST, DEFAULT_PORT
from tokenloom.serving.launch import serve as start_server
from tokenloom.strict_json import dump_json

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVER = Group("Server", sort_key=4)
_NAMED = 5  # ids
EXAMPLE = {"prompt": "Once upon a time"}


def serve(
    *models: Annotated[str, Parameter(group=ARGUMENTS, help=f"{MODEL_HELP} Defaults to the runs in runs/.")],
    runs: Annotated[Path | None, Parameter(group=SERVER)] = None,
    host: Annotated[str, Parameter(group=SERVER)] = DEFAULT_HOST,
    port: Annotated[int, Parameter(group=SERVER)] = DEFAULT_PORT,
    api_key: Annotated[str | None, Parameter(group=SERVER)] = None,
    open: Annotated[bool, Parameter(group=SERVER, negative="", show_default=False)] = False,
    json: Json = False,
) -> None:
    """Serve models through OpenAI's API and on a page for the browser, also those of a run that is training.

    Parameters
    ----------
    runs
        Folder of runs to serve; those that begin later are added.
    host
        Address to listen on. One that other machines can reach requires --api-key.
    port
        Port to listen on; 0 chooses a free one.
    api_key
        Key that clients must send: Authorization: Bearer KEY.
    open
        Open the page in the browser.
    """
    from tokenloom.compute.waiting import sleep_if_busy, spin_briefly

    sleep_if_busy()
    spin_briefly()  # under load, threads that spin for long take the cores from the event loop and the clients
    for model in models:
        fetch_if_named(model)
    with start_server(*models, runs=runs, host=host, port=port, api_key=api_key) as server:
        page, ids = _page_url(server.url, api_key), [ref.id for ref in server.store.list()]
        if json:
            print_json({"url": server.url, "models": ids})
        else:
            print_result(f"Serving {_described(ids)} at {page}\n\n{_curl(server.url, api_key)}\n")
        flush_results()
        if open and not webbrowser.open(page):
            print_notice(f"no browser was found. Open {page} in one.")
        print_progress("Ctrl-C stops the server.")
        # A collection of all objects of torch stops every thread for a tenth of a second; they never become garbage.
        gc.collect()
        gc.freeze()
        try:
            server.wait()
        finally:
            gc.unfreeze()


def _described(ids: Sequence[str]) -> str:
    if not ids:
        return "no model yet"
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return f"{counted(len(ids), 'model')} ({', '.join(ids[:_NAMED])}{more})"


def _page_url(url: str, api_key: str | None) -> str:
    """The address of the page. A browser does not send what follows the #, where the page finds the key."""
    return f"{url}/#key={quote(api_key, safe='')}" if api_key else url


def _curl(url: str, api_key: str | None) -> str:
    """A command that completes a text, as it is typed in a shell."""
    headers = ["Content-Type: application/json", *([f"Authorization: Bearer {api_key}"] if api_key else [])]
    options = [option for header in headers for option in ("-H", header)]
    return shlex.join(["curl", f"{url}/v1/completions", *options, "-d", dump_json(EXAMPLE)])
