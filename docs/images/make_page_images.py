"""Renew the images of the page, of which the documentation shows some, from the newest run of a folder.

    pip install playwright
    python docs/images/make_page_images.py RUNS OUT

Needs Chromium.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

import tokenloom

TEXT = "I had always thought Jack Gisburn rather a cheap genius, though a good fellow enough.\n"
THEMES = ("light", "dark")


def main(runs: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with tokenloom.serve(runs=runs, port=0) as server, sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        run = next(iter(server.store.runs()))
        for theme in THEMES:
            page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme=theme)
            for name, hash, wait in (
                ("runs", "#/runs", ".readout [data-key]"),
                ("read", f"#/read?m={run}", "textarea"),
                ("compare", f"#/read?m={run}@best&vs={run}", "textarea"),
                ("next", f"#/next?m={run}&k=8&p=0.9", "textarea"),
                ("attention", f"#/read?m={run}&tab=attention&layer=1", "textarea"),
                ("models", f"#/models?m={run}", ".facts"),
            ):
                page.goto("about:blank")
                page.goto(f"{server.url}/{hash}")
                page.wait_for_selector(wait)
                fill(page, name)
                page.wait_for_timeout(500)
                page.screenshot(path=out / f"page-{name}-{theme}.png")
        browser.close()


def fill(page: Page, name: str) -> None:
    """What a view needs to show something."""
    if name == "runs":
        page.locator(".plot").focus()
        page.keyboard.press("PageUp")
        return
    if name == "models":
        return
    page.locator("textarea").fill("I had always thought" if name == "next" else TEXT)
    page.wait_for_timeout(800)
    if name == "next":
        page.wait_for_selector(".bars.next li")
    else:
        page.locator(".tokens [data-index='9']").click()
        page.mouse.move(5, 5)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
