"""Renew the images of the page from the newest run of a folder: every view, in both themes.

    pip install playwright
    python docs/images/make_page_images.py RUNS OUT                   # at 1440, 1024 and 390 pixels, to look at
    python docs/images/make_page_images.py RUNS docs/images --readme  # those of the README and the documentation

Needs Chromium.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

import tokenloom

TEXT = "I had always thought Jack Gisburn rather a cheap genius, though a good fellow enough.\n"
HEIGHT = 900
WIDTHS = (1440, 1024, 390)
THEMES = ("light", "dark")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def scrub(page: Page) -> None:
    page.wait_for_selector("dl.readout [data-key]")
    page.locator(".plot").focus()
    page.keyboard.press("PageUp")


def choose_token(page: Page) -> None:
    page.locator("textarea").fill(TEXT)
    page.locator(".tokens [data-index='9']").click()
    page.wait_for_selector(".details h2")
    page.mouse.move(5, 5)


def see_attention(page: Page) -> None:
    page.locator("textarea").fill(TEXT)
    page.locator(".tokens [data-index='9']").click()
    page.mouse.move(5, 5)


def add_tokens(page: Page) -> None:
    page.locator("textarea").fill("I had always thought")
    page.wait_for_selector(".pair[aria-busy=false] .bars.next li")
    page.locator("textarea").blur()
    for key in ("1", "2", "Backspace", "3", "1", "1"):
        page.keyboard.press(key)
        page.wait_for_timeout(600)


def write(page: Page) -> None:
    page.locator("textarea").fill("I had always thought")
    page.get_by_role("button", name="Write", exact=True).click()
    page.wait_for_selector(".written button:not([disabled])")
    page.locator(".written .tokens .token").nth(4).click()


def wait(page: Page) -> None:
    page.wait_for_selector(".facts")


@dataclass(frozen=True)
class Shot:
    """A view to be photographed: its address, for a run, and what is done before."""

    hash: str
    prepare: Callable[[Page], None]


SHOTS = {
    "runs": Shot("#/runs?run={run}", scrub),
    "read": Shot("#/read?m={run}", choose_token),
    "compare": Shot("#/read?m={run}&vs={run}@first", choose_token),
    "attention": Shot("#/read?m={run}&tab=attention", see_attention),
    "next": Shot("#/next?m={run}&k=8&p=0.9", add_tokens),
    "write": Shot("#/write?m={run}&len=48", write),
    "models": Shot("#/models?m={run}", wait),
}
README = {
    "page-runs": ("runs", "light"),
    "page-read": ("read", "light"),
    "page-compare": ("compare", "light"),
    "page-attention": ("attention", "dark"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--readme", action="store_true")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    everything = {
        f"{name}-{theme}-{width}": (name, theme, width) for width in WIDTHS for theme in THEMES for name in SHOTS
    }
    wanted = {name: (*shot, WIDTHS[0]) for name, shot in README.items()} if options.readme else everything
    with tokenloom.serve(runs=options.runs, port=0) as server, sync_playwright() as tool:
        executable = next((path for name in BROWSERS if (path := shutil.which(name))), None)
        browser = tool.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        run = next(iter(server.store.runs()))
        for file, (name, theme, width) in wanted.items():
            page = browser.new_page(viewport={"width": width, "height": HEIGHT}, color_scheme=theme)
            page.goto(f"{server.url}/{SHOTS[name].hash.format(run=run)}")
            SHOTS[name].prepare(page)
            page.wait_for_timeout(500)
            page.screenshot(path=options.out / f"{file}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
