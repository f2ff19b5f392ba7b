"""The tree of the Next view in a browser: branches, undo, redo, and the way from logits to perplexity."""

import math
import re

import pytest
from browser import expect, wait_for_address

from tokenloom.generation.next_token import next_tokens
from tokenloom.sampling_params import SamplingParams
from tokenloom.weights.load import load


@pytest.fixture(scope="module")
def predicted(page_runs):
    """What the model predicts after a text."""
    loaded = load(page_runs / "story")
    return lambda text: next_tokens(loaded.model, loaded.tokenizer, text, SamplingParams(temperature=1.0), 20)


def pickable(found) -> list[tuple[int, str]]:
    """The key and the text of the tokens that a number key adds: visible ones, which the field does not change."""
    texts = enumerate([token.text for token in found.tokens[:9]], start=1)
    return [(key, text) for key, text in texts if len(text) == 1 and text.isascii() and text.isprintable()]


def press(page, key: str) -> None:
    """Press a key outside the text, when the prediction is that of the text, and wait for the step in the history."""
    expect(page.locator(".pair")).to_have_attribute("aria-busy", "false")
    address = page.url
    page.keyboard.press(key)
    expect(page).not_to_have_url(address)


def test_tokens_are_chosen_taken_back_and_branched_by_keys(open_page, predicted):
    page = open_page("#/next?m=story")
    text = page.locator("textarea")
    (first, first_text), (second, second_text) = pickable(predicted(""))[:2]
    expect(page.locator(".bars.next li")).to_have_count(20)
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    press(page, str(first))
    expect(text).to_have_value(first_text)
    nodes = page.locator(".branches [data-node]")
    expect(nodes).to_have_count(2)
    probability = predicted("").tokens[first - 1].probability
    shown = nodes.last.locator("small").inner_text()
    assert float(shown.removesuffix(" %").removeprefix("< ")) == pytest.approx(100 * probability, abs=0.06)

    press(page, "Backspace")
    expect(text).to_have_value("")
    expect(page.get_by_role("button", name="Undo")).to_be_disabled()
    press(page, "Control+y")
    expect(text).to_have_value(first_text)
    press(page, "Control+z")
    expect(text).to_have_value("")
    press(page, str(second))
    expect(text).to_have_value(second_text)
    expect(page.locator(".branches > li > ul > li")).to_have_count(2)

    page.get_by_role("button", name="Undo").click()
    expect(text).to_have_value("")
    page.get_by_role("button", name="Redo").click()
    expect(text).to_have_value(second_text)
    expect(page.locator(".branches [aria-current]")).to_have_attribute("data-node", "2")
    expect(page.locator(".branches [aria-current]")).to_be_in_viewport()
    page.locator(".branches [aria-current]").focus()
    page.keyboard.press("ArrowUp")
    expect(page.locator(".branches [data-node='1']")).to_be_focused()
    page.keyboard.press("Enter")
    expect(text).to_have_value(first_text)
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(text).to_have_value("")


def test_back_and_a_link_restore_the_tree(open_page, predicted):
    page = open_page("#/next?m=story")
    text = page.locator("textarea")
    text.fill("all")
    wait_for_address(page, "z=")
    page.locator("h1").click(force=True)
    (first, first_text), (second, second_text) = pickable(predicted("all"))[:2]
    press(page, str(first))
    expect(text).to_have_value("all" + first_text)
    press(page, "Backspace")
    expect(text).to_have_value("all")
    press(page, str(second))
    expect(text).to_have_value("all" + second_text)
    wait_for_address(page, "tree=")

    other = open_page(page.url[page.url.index("#") :])
    expect(other.locator("textarea")).to_have_value("all" + second_text)
    expect(other.locator(".branches [data-node]")).to_have_count(3)
    other.locator(".branches [data-node='1']").click()
    expect(other.locator("textarea")).to_have_value("all" + first_text)

    page.go_back()
    expect(text).to_have_value("all")
    expect(page.locator(".branches [data-node]")).to_have_count(2)
    page.go_back()
    expect(text).to_have_value("all" + first_text)
    page.go_back()
    expect(text).to_have_value("all")
    expect(page.locator(".branches")).to_have_count(0)
    for _ in range(3):
        page.go_forward()
    expect(text).to_have_value("all" + second_text)
    expect(page.locator(".branches [data-node]")).to_have_count(3)

    text.fill("other")
    expect(page.locator(".branches")).to_have_count(0)
    page.wait_for_function("() => !location.hash.includes('tree=')")
    page.go_back()
    expect(page.locator(".branches [data-node]")).to_have_count(3)


def test_the_way_from_logits_to_perplexity_is_that_of_the_model(open_page, predicted):
    page = open_page("#/next?m=story&k=5&temp=0.5")
    page.locator("textarea").fill("all")
    found = predicted("all")
    likeliest = found.tokens[0]
    for index in (0, 3):
        token = found.tokens[index]
        page.locator(".bars.next li").nth(index).hover()
        loss = -token.log_probability
        total = likeliest.logit - likeliest.log_probability
        expected = {
            "logit": token.logit,
            "softmax": 100 * math.exp(token.logit - total),
            "log-probability": -loss,
            "cross-entropy": loss,
            "perplexity": math.exp(loss),
        }
        assert 100 * token.probability == pytest.approx(expected["softmax"])
        for name, value in expected.items():
            shown = page.locator(f"[data-step='{name}'] .value")
            expect(shown).to_have_text(about(value))
        expect(page.locator("[data-step=argmax] .value")).to_have_text("yes" if index == 0 else "no")
    expect(page.locator("[data-step=argmax]")).to_contain_text("rank 4")
    assert page.locator("[data-step]").evaluate_all("all => all.map((one) => one.dataset.step)") == [
        "logit",
        "softmax",
        "argmax",
        "log-probability",
        "cross-entropy",
        "perplexity",
    ]


def about(value: float):
    """Texts that begin with the number, whose last digit can differ: the weights of the server are prepacked."""
    numbers = {
        f"{value + change:.{decimals}f}".replace("-", "\N{MINUS SIGN}")
        for decimals in (1, 2, 3)
        for change in (-0.001, 0, 0.001)
    }
    return re.compile("^(" + "|".join(map(re.escape, numbers)) + r")( nats| %)?$")
