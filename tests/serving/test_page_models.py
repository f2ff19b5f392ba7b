"""The Models view in a browser: shapes, checkpoints and memory are those of the API, and links name the step."""

import re

from browser import expect, wait_for_address, wait_for_numbers
from small_runs import random_model, save_run

from tokenloom.run_folder import RunFolder
from tokenloom.weights.checkpoint import Checkpoint


def row(page, step: int):
    """The row of a checkpoint of the chosen run."""
    return page.locator(f".checkpoints tr[data-name$='@step-{step}']")


def test_checkpoints_have_the_validation_figures_of_their_steps(open_page, page_runs):
    page = open_page("#/models?m=short")
    run = RunFolder(page_runs / "short")
    records = {record.step: record for record in run.metrics()}
    steps = sorted({Checkpoint(path).step for path in run.checkpoints.iterdir()}, reverse=True)
    assert steps[:2] == [12, 8]
    expect(page.locator(".checkpoints tbody tr")).to_have_count(len(steps))
    figures = ".checkpoints [data-figure={}]"
    wait_for_numbers(page, figures.format("val_loss"), [records[step].val_loss for step in steps], 0.0006)
    bits = [records[step].val_bits_per_byte for step in steps]
    wait_for_numbers(page, figures.format("val_bits_per_byte"), bits, 0.0006)
    expect(row(page, 12).locator(".tag").first).to_have_text("newest")
    expect(page.locator(".tag.best")).to_have_count(1)
    expect(row(page, run.summary().best_step).locator(".tag.best")).to_be_visible()


def test_the_shape_is_that_of_the_model(open_page, page_runs):
    page = open_page("#/models?m=short")
    parameters = RunFolder(page_runs / "short").plan().parameters
    facts = page.locator(".facts")
    for label, value in {
        "Parameters": f"{parameters:,}",
        "Layers": "1",
        "Heads": "2 8 wide",
        "Width": "16 MLP 64",
        "Context": "16",
        "Vocabulary": "257 byte",
    }.items():
        fact = facts.locator("dt", has_text=label).locator("xpath=following-sibling::dd[1]")
        expect(fact).to_contain_text(value)


def test_choosing_a_step_pins_it_and_links_keep_it(open_page):
    page = open_page("#/models?m=short")
    expect(row(page, 12)).to_have_class("selected")
    row(page, 8).get_by_role("button").click()
    wait_for_address(page, "m=short@step-8")
    expect(row(page, 8)).to_have_class("selected")
    expect(row(page, 8).locator(".tag.pinned")).to_be_visible()
    page.locator("table.models").get_by_role("button", name="story").click()
    wait_for_address(page, "m=story$")
    expect(page.locator(".checkpoints tbody tr")).to_have_count(2)
    page.go_back()
    expect(row(page, 8).locator(".tag.pinned")).to_be_visible()
    row(page, 12).get_by_role("link", name="Next").click()
    wait_for_address(page, "next.*m=short@step-12")
    expect(page.locator(".bars.next li").first).to_be_visible()
    expect(page.get_by_label("Model").locator("option:checked")).to_have_text(re.compile("@ 12, newest, .*pinned$"))
    page.go_back()
    page.get_by_role("link", name="Compare the first").click()
    wait_for_address(page, "read.*m=short&vs=short@first")


def test_what_is_used_is_in_memory(open_page, start_server, page_runs):
    server = start_server(page_runs)
    page = open_page("#/models?m=story", url=server.url)
    memory = page.get_by_role("region", name="Memory")
    expect(memory).to_contain_text("Nothing is loaded")
    expect(memory).to_contain_text("0 B of 1 GB for models, on cpu in fp32")
    row(page, 1).get_by_role("link", name="Read").click()
    page.locator("textarea").fill("all work")
    expect(page.locator(".tokens .token").first).to_be_visible()
    page.get_by_role("link", name="Models").click()
    expect(page.locator(".in-memory li")).to_have_count(1)
    expect(page.locator(".in-memory a")).to_have_text("story@step-1")
    expect(row(page, 1)).to_contain_text("kB")


def test_checkpoints_that_appear_are_listed_and_leave_the_focus(open_page, start_server, tmp_path):
    run = save_run(tmp_path / "growing", random_model(3))
    page = open_page("#/models", url=start_server(tmp_path).url)
    row(page, 1).get_by_role("link", name="Write").focus()
    save_run(run, random_model(), first_step=2)
    expect(page.locator(".checkpoints tbody tr")).to_have_count(2)
    expect(row(page, 1).get_by_role("link", name="Write")).to_be_focused()
    page.keyboard.press("Enter")
    wait_for_address(page, "write.*m=growing@step-1")
    save_run(run, random_model(5), first_step=3)
    expect(page.get_by_label("Model").locator("option")).to_have_count(3)


def test_a_run_without_a_checkpoint_and_a_missing_model_are_named(open_page, start_server, tmp_path):
    save_run(tmp_path / "begun")
    server = start_server(tmp_path)
    page = open_page("#/models", url=server.url)
    expect(page.locator("table.models")).to_contain_text("begun")
    expect(page.locator(".empty")).to_contain_text("The first checkpoint of a run appears here")
    save_run(tmp_path / "begun", random_model())
    expect(page.locator(".checkpoints tbody tr")).to_have_count(1)
    page.goto(f"{server.url}/#/models?m=gone")
    expect(page.get_by_role("alert")).to_have_text(re.compile("gone is not served"))
