"""The page in a browser: how tests open it, and wait for what it shows."""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from tokenloom.cli.main import main

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SECONDS = 20  # how long something may take on a busy machine

# Assertions that wait: the page changes some time after what is clicked or typed.
expect = sync_api.expect
expect.set_options(timeout=1000 * SECONDS)


@contextmanager
def launch() -> Iterator[object]:
    """A browser of the machine; skips the test if there is none."""
    path = next((path for name in BROWSERS if (path := shutil.which(name)) is not None), None)
    if path is None:
        pytest.skip(f"no browser is on the PATH, as {' or '.join(BROWSERS)}")
    with sync_api.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=path, args=["--no-sandbox"])  # also as root
        yield browser
        browser.close()


def wait_for_address(page, pattern: str) -> None:
    expect(page).to_have_url(re.compile(f"#.*(?:{pattern})"))


def wait_for_numbers(page, selector: str, expected: Sequence[float], tolerance: float) -> None:
    """Wait until the first number in each of the elements is that expected: the server's weights are prepacked, so that
    the last digit can differ.
    """
    try:
        page.wait_for_function(NUMBERS_ARE, arg=[selector, list(expected), tolerance])
    except sync_api.TimeoutError:
        shown = page.locator(selector).all_text_contents()
        raise AssertionError(f"{selector} shows {shown}, expected {list(expected)}") from None


NUMBERS_ARE = """([selector, expected, tolerance]) => {
  const number = (text) => Number(text.replaceAll(",", "").replace("\u2212", "-").match(/-?[0-9.]+/)?.[0] ?? NaN);
  const shown = [...document.querySelectorAll(selector)].map((element) => number(element.textContent));
  return shown.length === expected.length && shown.every((value, i) => Math.abs(value - expected[i]) <= tolerance);
}"""


def printed(capsys, *arguments: str) -> dict:
    """What a command prints with --json."""
    with pytest.raises(SystemExit):
        main([*arguments, "--json"])
    return json.loads(capsys.readouterr().out)
