"""The Runs view in a browser: curves and samples at the cursor are the records of the runs."""

import json
import re
from pathlib import Path

from browser import expect, wait_for_address
from small_runs import random_model, save_run

from tokenloom.metrics import METRICS, MetricsRecord
from tokenloom.run_folder import JsonlWriter, RunFolder


def readout(page):
    """The values under the chart."""
    return page.locator("dl.readout").first


def value(page, label: str):
    """One of the values under the chart."""
    named = page.get_by_text(label, exact=True)
    return readout(page).locator("div", has=named).locator("dd")


def records_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in RunFolder(run).metrics_file.read_text().splitlines()]


def samples_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in RunFolder(run).samples_file.read_text().splitlines()]


def test_the_table_and_the_cursor_show_the_records_and_samples(open_page, page_runs):
    page = open_page("#/runs?run=short")
    records, samples = records_of(page_runs / "short"), samples_of(page_runs / "short")
    expect(value(page, "step")).to_have_text("12")
    expect(value(page, "training loss")).to_have_text(f"{records[-1]['train/loss']:.3f}")
    expect(page.locator("table.runs tr", has_text="short")).to_contain_text("finished")

    page.locator(".plot").focus()
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    wait_for_address(page, "at=6")
    at_six = next(record for record in records if record["step"] == 6)
    latest_evaluation = next(record for record in records if record["step"] == 4)
    expect(value(page, "step")).to_have_text("6")
    expect(value(page, "training loss")).to_have_text(f"{at_six['train/loss']:.3f}")
    expect(value(page, "validation loss")).to_have_text(f"{latest_evaluation['val/loss']:.3f}")
    expected = [sample["prompt"] + sample["text"] for sample in samples if sample["step"] == 4]
    expect(page.locator(".sample pre")).to_have_text(expected)
    expect(page.locator(".plot")).to_have_attribute("aria-valuetext", re.compile("^step 6, training loss"))

    page.get_by_label("Step of the sample").fill("2")
    expect(page.locator(".sample .soft").first).to_have_text(re.compile("^step 12"))


def test_pointing_at_the_chart_moves_the_cursor_and_dragging_selects_a_range(open_page):
    page = open_page("#/runs?run=short")
    expect(value(page, "step")).to_have_text("12")
    box = page.locator(".plot .u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 5 / 11, box["y"] + 20)
    wait_for_address(page, "at=6")
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 40, steps=4)
    page.mouse.up()
    wait_for_address(page, "range=")
    page.get_by_role("button", name="Show all").click()
    expect(page).not_to_have_url(re.compile("range="))


def test_runs_are_drawn_over_one_another_with_their_differences(open_page):
    page = open_page("#/runs?run=short")
    expect(value(page, "step")).to_have_text("12")
    page.get_by_label("Show story").check()
    wait_for_address(page, "run=short.*run=story")
    expect(page.locator(".card", has_text="Differences")).to_contain_text("train.max_steps")
    expect(page.locator(".note.stopped")).to_contain_text("It can be resumed")
    page.get_by_role("button", name="Bits per byte").click()
    wait_for_address(page, "y=bits")
    page.go_back()
    expect(page).not_to_have_url(re.compile("y=bits"))
    expect(page.get_by_role("button", name="Loss")).to_have_attribute("aria-pressed", "true")


def test_a_run_without_records_says_so_and_is_drawn_when_another_one_is_added(open_page):
    page = open_page("#/runs?run=story")
    expect(page.get_by_text("Nothing was measured yet")).to_be_visible()
    page.wait_for_function("() => document.querySelector('.plot').clientHeight === 0")
    page.get_by_label("Show short").check()
    page.wait_for_function("() => document.querySelector('.plot canvas').clientHeight > 200")


def test_records_that_are_appended_appear(open_page, start_server, tmp_path):
    run = RunFolder(save_run(tmp_path / "growing", random_model()))
    metrics = JsonlWriter(run.metrics_file)
    metrics.write(MetricsRecord(step=1, tokens=8, epoch=0.1, seconds=1, train_loss=5.0).to_json())
    server = start_server(tmp_path)
    page = open_page("#/runs?run=growing", url=server.url)
    expect(value(page, "training loss")).to_have_text("5.000")
    appended = MetricsRecord(step=2, tokens=16, epoch=0.2, seconds=2, train_loss=4.25, val_loss=float("nan"))
    metrics.write(appended.to_json())
    metrics.close()
    expect(value(page, "training loss")).to_have_text("4.250")
    expect(page.locator(".notes")).to_contain_text("not finite")


def test_a_server_that_has_stopped_is_told_and_the_drawing_stays(open_page, server_of, page_runs):
    server = server_of(page_runs)
    server.start()
    page = open_page("#/runs?run=short", url=server.url, strict=False)  # the browser logs failed requests
    expect(value(page, "step")).to_have_text("12")
    shown = readout(page).text_content()
    server.stop()
    expect(page.locator(".banner")).to_contain_text("Disconnected")
    page.set_viewport_size({"width": 390, "height": 844})
    expect(page.get_by_label("Model")).to_be_visible()
    page.get_by_label("Model").click(trial=True)  # the banner does not cover it
    expect(readout(page)).to_have_text(shown)
    expect(page.locator(".plot canvas")).to_have_count(1)


def test_the_metrics_that_the_page_draws_exist():
    from tokenloom.serving.page_files import FOLDER

    text = (FOLDER / "run_drawing.js").read_text()
    keys = set(re.findall(r'\["([\w/]+)", "[^"]+", (?:\d|null)\]', text))
    assert keys <= {metric.key for metric in METRICS.values()}
    assert len(keys) == 7
