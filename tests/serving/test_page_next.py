"""The Next view in a browser: the next tokens are those of sampling, and keys add them to the text."""

from browser import expect, wait_for_address, wait_for_numbers

from tokenloom.generation.next_token import next_tokens
from tokenloom.sampling_params import SamplingParams
from tokenloom.weights.load import load


def test_the_next_tokens_are_those_of_sampling_and_number_keys_add_them(open_page, page_runs):
    page = open_page("#/next?m=story&k=2")
    expect(page.locator(".bars.next li.cut").first).to_be_visible()
    page.locator("textarea").fill("all")
    loaded = load(page_runs / "story")
    expected = next_tokens(loaded.model, loaded.tokenizer, "all", SamplingParams(temperature=1.0, top_k=2), 20)
    wait_for_numbers(page, "[data-before]", [100 * token.probability for token in expected.tokens], 0.06)
    after = page.locator("[data-after]")
    expect(after.nth(2)).to_have_text("cut by top-k")
    expect(after.nth(3)).to_have_text("cut by top-k")
    sampled = [100 * token.sampled_probability for token in expected.tokens[:2]]
    wait_for_numbers(page, ".bars.next li:not(.cut) [data-after]", sampled, 0.06)
    expect(page.locator(".pair")).to_have_attribute("aria-busy", "false")

    text = page.locator("textarea")
    page.locator("h2").first.click()
    texts = [token.text for token in expected.tokens]
    pickable = next(i for i, one in enumerate(texts) if len(one) == 1 and one.isprintable() and one != "\ufffd")
    assert pickable < 9
    page.keyboard.press(str(pickable + 1))
    expect(text).to_have_value("all" + texts[pickable])
    wait_for_address(page, "tree=")  # a token that is taken back before that is not in the history
    chosen = page.url
    page.keyboard.press("Backspace")
    expect(text).to_have_value("all")
    expect(page).not_to_have_url(chosen)
    page.go_back()
    expect(text).to_have_value("all" + texts[pickable])
