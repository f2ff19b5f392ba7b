"""The views of the page as axe-core sees them: nothing serious, in the light and in the dark theme."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import pytest

axe = pytest.importorskip("axe_playwright_python.base", reason="axe is missing: pip install axe-playwright-python")

IS_DARK = "dark => matchMedia('(prefers-color-scheme: dark)').matches === dark"
CONTRAST_ONLY = MappingProxyType({"runOnly": ["color-contrast"]})
TEXT = "all work and no play\nmakes Jack a dull boy"


def show_runs(page) -> None:
    page.wait_for_selector("dl.readout [data-key]")
    page.get_by_label("Show story").check()
    page.get_by_text("Differences").wait_for()


def read(page) -> None:
    page.locator("textarea").fill(TEXT)
    page.locator(".tokens .token").nth(5).click()
    page.wait_for_selector(".details .bars li")


def compare(page) -> None:
    page.locator("textarea").fill(TEXT)
    page.locator(".tokens .token").nth(5).click()
    page.wait_for_selector("[data-measure=difference]")


def see_attention(page) -> None:
    page.locator("textarea").fill(TEXT)
    page.locator(".tokens .token").nth(5).click()


def see_the_next_token(page) -> None:
    page.wait_for_selector(".bars.next li.cut")


def see_models(page) -> None:
    page.wait_for_selector(".facts")


def write(page) -> None:
    page.get_by_role("button", name="Write", exact=True).click()
    page.wait_for_selector(".written button:not([disabled])")
    page.locator(".written .tokens .token").first.click()
    page.wait_for_selector(".written .bars li")


STATES: dict[str, tuple[str, Callable]] = {
    "runs": ("#/runs?run=short", show_runs),
    "read": ("#/read?m=short", read),
    "compare": ("#/read?m=story&vs=story@first", compare),
    "attention": ("#/read?m=short&tab=attention", see_attention),
    "next": ("#/next?m=short&k=2", see_the_next_token),
    "write": ("#/write?m=short&len=4", write),
    "models": ("#/models?m=short", see_models),
}


@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing_serious(open_page, state):
    hash, prepare = STATES[state]
    page = open_page(hash)
    prepare(page)
    page.evaluate(axe.AXE_SCRIPT)
    assert serious(page, "light") == []
    assert serious(page, "dark", CONTRAST_ONLY) == []  # all else is the same in both themes


def test_axe_finds_nothing_serious_while_the_page_waits_for_the_server(open_page):
    page = open_page()
    page.wait_for_selector("table.runs")
    page.route("**/api/**", lambda route: None)  # never answered
    page.reload()
    page.wait_for_selector(".skeleton.tall")
    page.evaluate(axe.AXE_SCRIPT)
    assert serious(page, "light") == []


def test_axe_finds_faults(browser):
    with browser.new_context() as context:
        page = context.new_page()
        page.set_content(FAULTY)
        page.evaluate(axe.AXE_SCRIPT)
        assert rules(serious(page, "light")) == ["image-alt"]
        assert rules(serious(page, "dark", CONTRAST_ONLY)) == ["color-contrast"]


# An image without a description, and text that cannot be read in the dark theme.
FAULTY = """<html lang="en"><title>Faults</title>
<style>h1 { color: #222 } @media (prefers-color-scheme: dark) { body { background: #111 } }</style>
<main><h1>Faults</h1><img></main>"""


def rules(faults: list[str]) -> list[str]:
    return [fault.partition(":")[0] for fault in faults]


def serious(page, theme: str, rules: Mapping = MappingProxyType({})) -> list[str]:
    """What a screen reader or a reader with low vision cannot use in a theme."""
    page.emulate_media(color_scheme=theme)
    page.wait_for_function(IS_DARK, arg=theme == "dark")
    options = {"resultTypes": ["violations"], "preload": False, **rules}
    found = page.evaluate("options => axe.run(document, options)", options)["violations"]
    return [
        f"{rule['id']}: {node['html']}: {node['failureSummary']}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]
