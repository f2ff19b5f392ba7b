"""The views of the page as axe-core sees them: nothing serious, in the light and in the dark theme."""

from collections.abc import Callable

import pytest

axe = pytest.importorskip("axe_playwright_python.base", reason="axe is missing: pip install axe-playwright-python")

IS_DARK = "dark => matchMedia('(prefers-color-scheme: dark)').matches === dark"
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
    "compare": ("#/read?m=story@step-1&vs=story@step-2", compare),
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
    faults = {theme: serious(page, theme) for theme in ("light", "dark")}
    assert faults == {"light": [], "dark": []}


def test_axe_finds_nothing_serious_while_the_page_waits_for_the_server(open_page):
    page = open_page()
    page.wait_for_selector("table.runs")
    page.route("**/api/**", lambda route: None)  # never answered
    page.reload()
    page.wait_for_selector(".skeleton.tall")
    page.evaluate(axe.AXE_SCRIPT)
    assert serious(page, "light") == []


def test_axe_finds_a_fault(open_page):
    page = open_page()
    page.wait_for_selector("table.runs")
    page.evaluate(axe.AXE_SCRIPT)
    page.evaluate("document.querySelector('main').append(document.createElement('img'))")
    assert [fault.partition(":")[0] for fault in serious(page, "light")] == ["image-alt"]


def serious(page, theme: str) -> list[str]:
    """What a screen reader or a reader with low vision cannot use in a theme."""
    page.emulate_media(color_scheme=theme)
    page.wait_for_function(IS_DARK, arg=theme == "dark")
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    return [
        f"{rule['id']}: {node['html']}: {node['failureSummary']}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]
