"""The views on a phone: nothing is wider than it, also with a long name, and tokens can be chosen."""

import pytest
from browser import expect, wait_for_address
from small_runs import random_model, save_run

LONG = "a-long-name-of-a-run_without.a-space-and-with-its-date-2026-11-29"
TEXT = "all work and no play\nmakes Jack a dull boy"

# Each view, and what is seen when all of it is drawn.
VIEWS = {
    "runs": (f"runs?run={LONG}&run=short", "h2:text('Differences')"),
    "read": (f"read?m={LONG}", "[data-figure=loss]"),
    "difference": (f"read?m={LONG}&vs={LONG}@first", "[data-figure=loss] >> nth=1"),
    "attention": (f"read?m={LONG}&tab=attention", ".map-frame"),
    "next": (f"next?m={LONG}", ".bars.next li"),
    "write": (f"write?m={LONG}", "textarea"),
    "models": (f"models?m={LONG}", ".facts"),
}

# Elements that are wider than the place for them; the grid of heads scrolls if a model has very many.
TOO_WIDE = """() => [...document.querySelectorAll("html, .scroll, .scroll *")]
  .filter((element) => element.clientWidth && element.scrollWidth > element.clientWidth)
  .map((element) => `${element.outerHTML.slice(0, 80)}: ${element.scrollWidth} > ${element.clientWidth}`)"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with a run of a long name and two checkpoints, and a run of a short name."""
    folder = tmp_path_factory.mktemp("named")
    for name in (LONG, "short"):
        save_run(folder / name, random_model(3), random_model())
    return folder


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_fits(open_page, server, view):
    hash, drawn = VIEWS[view]
    page = open_page(f"#/{hash}", url=server.url, width=390)
    if hash.startswith("read"):
        page.locator("textarea").fill(TEXT)
    expect(page.locator(drawn).first).to_be_visible()
    assert page.evaluate(TOO_WIDE) == []
    page.set_viewport_size({"width": 320, "height": 700})
    assert page.evaluate(TOO_WIDE) == []


def test_a_token_can_be_chosen_where_its_prediction_will_stand(open_page, server):
    page = open_page("#/read?m=short", url=server.url, width=390)
    page.locator("textarea").fill("\n".join([TEXT] * 3))
    page.locator(".tokens [data-index='90']").click()
    wait_for_address(page, "t=90")
    expect(page.locator(".details .bars li").first).to_be_visible()
