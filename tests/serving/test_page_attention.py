"""The attention tab in a browser: the weights are those of Python, and heads and tokens are chosen by keys too."""

import re

import pytest
import torch
from browser import expect, wait_for_address, wait_for_numbers

from tokenloom.model.attention_weights import attention_weights
from tokenloom.weights.load import load

TEXT = "all work and no play"


@pytest.fixture(scope="module")
def model(page_runs):
    return load(page_runs / "story").model


def weights_of(model, text: str, layer: int, head: int) -> torch.Tensor:
    return attention_weights(model, torch.tensor(list(text.encode())), layer, head)


def open_text(open_page, hash: str, text: str):
    page = open_page(hash)
    page.locator("textarea").fill(text)
    return page


def test_a_token_shows_the_weights_of_the_head(open_page, model):
    page = open_text(open_page, "#/read?m=story&tab=attention&layer=1&head=1", TEXT)
    expected = weights_of(model, TEXT, 1, 1)
    expect(page.locator(".tokens .token")).to_have_count(len(TEXT))
    page.locator(".tokens [data-index='7']").click()
    wait_for_address(page, "t=7")
    largest = expected[7].sort(descending=True).values[:8]
    wait_for_numbers(page, ".attended [data-weight]", (100 * largest).tolist(), 0.06)
    for index in range(8):
        level = round(12 * float(expected[7, index]) ** 0.5)
        expect(page.locator(f".tokens [data-index='{index}']")).to_have_class(re.compile(rf"\bheat-{level}\b"))
    expect(page.locator(".tokens .later")).to_have_count(len(TEXT) - 8)
    previous = expected[1:].diagonal(dim1=0, dim2=1).mean()
    wait_for_numbers(page, "[data-mean=previous]", [100 * float(previous)], 0.06)


def test_heads_are_chosen_by_clicks_and_arrow_keys(open_page, model):
    page = open_text(open_page, "#/read?m=story&tab=attention", TEXT)
    page.get_by_label("Layer 1, head 0", exact=True).click()
    wait_for_address(page, "layer=1.*head=0")
    expect(page.get_by_role("heading", name="Layer 1, head 0")).to_be_visible()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    wait_for_address(page, "layer=0.*head=1")
    expect(page.get_by_label("Layer 0, head 1", exact=True)).to_be_focused()
    largest = weights_of(model, TEXT, 0, 1)[-1].sort(descending=True).values[:8]
    wait_for_numbers(page, ".attended [data-weight]", (100 * largest).tolist(), 0.06)
    page.go_back()
    expect(page).not_to_have_url(re.compile("layer="))


def test_arrow_keys_step_through_the_tokens_and_the_link_restores_them(open_page):
    page = open_text(open_page, "#/read?m=story&tab=attention&layer=1", TEXT)
    last = len(TEXT) - 1
    expect(page.locator(f".tokens [data-index='{last}']")).to_have_attribute("aria-selected", "true")
    page.locator(f".tokens [data-index='{last}']").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    wait_for_address(page, f"t={last - 2}")
    wait_for_address(page, "z=")
    other = open_page(re.sub("^[^#]*", "", page.url))
    expect(other.locator(f".tokens [data-index='{last - 2}']")).to_have_attribute("aria-selected", "true")
    expect(other.get_by_role("heading", name="Layer 1, head 0")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page).not_to_have_url(re.compile("[?&]t="))


def test_pointing_at_the_map_shows_the_token_of_the_row(open_page):
    page = open_text(open_page, "#/read?m=story&tab=attention", TEXT)
    frame = page.locator(".map-frame")
    expect(frame.locator("canvas")).to_be_visible()
    frame.scroll_into_view_if_needed()
    box = frame.bounding_box()
    frame.click(position={"x": box["width"] / 2, "y": box["height"] * 3.5 / len(TEXT)})
    wait_for_address(page, "t=3")
    drawn = "() => [...document.querySelectorAll('canvas.map')].map((canvas) => canvas.width)"
    assert page.evaluate(drawn) == [len(TEXT)] * 5


def test_a_long_text_is_cut_and_says_so(open_page):
    page = open_text(open_page, "#/read?m=story&tab=attention", "x" * 100)
    expect(page.locator("[data-note=truncated]")).to_have_text(
        re.compile(r"The text has 100 tokens: attention is shown for the first 64\.")
    )
    expect(page.locator(".tokens .token")).to_have_count(64)
    page.get_by_role("button", name="Predictions").click()
    expect(page.locator(".tokens .token")).to_have_count(100)
