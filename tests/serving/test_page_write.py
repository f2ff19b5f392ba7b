"""The Write view in a browser: a text is continued as `generate` does, stopped, changed and kept."""

import re

from browser import expect, printed


def typed(text: str) -> str:
    """A text as a field of the browser has it."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def test_a_text_is_continued_as_generate_does_and_kept(open_page, page_runs, capsys):
    page = open_page("#/write?m=story&temp=0&len=8")
    text = page.locator("textarea")
    text.fill("all")
    page.get_by_role("button", name="Write", exact=True).click()
    keep = page.get_by_role("button", name="Keep")
    expect(keep).to_be_enabled()
    options = ("--prompt", "all", "--max-new-tokens", "8", "--temperature", "0")
    expected = printed(capsys, "generate", str(page_runs / "story"), *options)["completions"][0]
    expect(page.locator(".written .tokens .token")).to_have_count(8)
    page.locator(".written .tokens .token").first.click()
    expect(page.locator(".written .bars li")).to_have_count(10)
    expect(page.locator("details.card pre").last).to_contain_text("tokens=8", use_inner_text=False)
    keep.click()
    expect(text).to_have_value(typed("all" + expected["text"]))


def test_another_token_is_chosen_and_the_text_goes_on_from_it(open_page):
    page = open_page("#/write?m=short&temp=0&len=4")
    page.get_by_role("button", name="Write", exact=True).click()
    keep = page.get_by_role("button", name="Keep")
    expect(keep).to_be_enabled()
    page.locator(".written .tokens .token").first.click()
    other = page.locator(".written .bars li:not(.chosen) button:not([disabled])").first
    chosen = other.inner_text().replace("␣", " ").replace("↵", "\n")
    other.click()
    expect(page.locator(".written .tokens .token")).to_have_count(5)
    expect(keep).to_be_enabled()
    keep.click()
    expect(page.locator("textarea")).to_have_value(re.compile(f"^{re.escape(typed(chosen))}"))


def test_a_prompt_that_is_too_long_is_cut_and_says_so(open_page):
    page = open_page("#/write?m=story&len=16")
    note = page.locator("[data-note=truncated]")
    page.locator("textarea").fill("x" * 100)
    expect(note).to_contain_text("The text has 100 tokens, and the model gets the last 49")
    page.get_by_role("button", name="Write", exact=True).click()
    expect(page.get_by_role("button", name="Keep")).to_be_enabled()
    prompt = re.compile(rf'"prompt":\[{"120," * 48}120\]')
    expect(page.locator("details.card pre").first).to_have_text(prompt, use_inner_text=False)
    page.locator("textarea").fill("x" * 49)
    expect(note).to_have_count(0)


# Stops in the frame in which it can: a model so small has finished soon after.
STOP = """async () => {
  const button = (name) => [...document.querySelectorAll("button")].find((one) => one.textContent === name);
  button("Write").click();
  for (let frame = 0; frame < 600 && !button("Stop"); frame += 1) await new Promise(requestAnimationFrame);
  button("Stop").click();
}"""


def test_writing_is_stopped(open_page):
    page = open_page("#/write?m=story&len=64&n=4")
    write = page.get_by_role("button", name="Write", exact=True)
    expect(write).to_be_enabled()
    page.evaluate(STOP)
    expect(write).to_be_visible()
    expect(page.locator(".written")).to_have_count(4)
    expect(page.locator(".written .tokens .token")).not_to_have_count(4 * 64)
    expect(page.locator("[role=alert]")).to_have_count(0)
