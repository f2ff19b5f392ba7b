"""The Read view in a browser: the tokens of a text have the numbers of `inspect` and `compare`."""

import re

from browser import expect, printed, wait_for_address, wait_for_numbers

TEXT = "all work and no play\nmakes Jack a dull boy"


def test_a_text_shows_the_numbers_of_inspect(open_page, page_runs, capsys):
    page = open_page("#/read?m=story")
    page.locator("textarea").fill(TEXT)
    expected = printed(capsys, "inspect", str(page_runs / "story"), "--text", TEXT)
    expect(page.locator(".tokens .token")).to_have_count(len(expected["tokens"]) + 1)
    wait_for_numbers(page, "[data-figure=loss]", [expected["loss"]], 0.001)
    number = 5
    token = expected["tokens"][number - 1]
    page.locator(f".tokens [data-index='{number}']").click()
    wait_for_address(page, "t=5")
    expect(page.locator(".details .bars li")).to_have_count(len(token["top"]))
    wait_for_numbers(page, ".details [data-measure=nats]", [-token["log_probability"]], 0.006)
    wait_for_numbers(page, ".details [data-measure=rank]", [token["rank"]], 0)
    wait_for_numbers(page, ".details [data-measure=entropy]", [token["entropy"]], 0.006)
    level = min(12, round(-token["log_probability"]))
    expect(page.locator(f".tokens [data-index='{number}']")).to_have_class(re.compile(rf"\bheat-{level}\b"))

    page.keyboard.press("ArrowRight")
    wait_for_address(page, "t=6")
    page.get_by_role("button", name="entropy", exact=True).click()
    wait_for_address(page, "scale=entropy")


def test_a_comparison_shows_the_numbers_of_compare_and_its_link_restores_it(open_page, page_runs, capsys):
    page = open_page("#/read?m=story")
    page.locator("textarea").fill(TEXT)
    page.get_by_role("button", name="Difference").click()
    wait_for_address(page, "vs=story@first")
    expect(page.get_by_label("compare with")).to_have_value("story@first")
    expected = printed(capsys, "compare", str(page_runs / "story"), "--text", TEXT)
    wait_for_numbers(page, "[data-figure=loss]", [model["loss"] for model in expected["models"]], 0.001)
    page.locator(".tokens [data-index='3']").click()
    difference = expected["parts"][2]["difference"]
    wait_for_numbers(page, "[data-measure=difference]", [difference], 0.006)
    wait_for_address(page, "z=.*t=3|t=3.*z=")

    other = open_page(re.sub("^[^#]*", "", page.url))
    expect(other.locator("textarea")).to_have_value(TEXT)
    wait_for_numbers(other, "[data-measure=difference]", [difference], 0.006)

    page.get_by_label("compare with").select_option("short")
    page.get_by_role("button", name="Predictions").click()
    wait_for_numbers(page, "[data-figure=loss]", [expected["models"][1]["loss"]], 0.001)
    page.go_back()
    wait_for_address(page, "vs=short")
    page.go_back()
    wait_for_numbers(page, "[data-figure=loss]", [model["loss"] for model in expected["models"]], 0.001)
