"""The page in a browser: what is clicked, typed and scrubbed shows the numbers of the commands."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_runs import random_model, save_run

from tokenloom import api
from tokenloom.cli.main import main
from tokenloom.generation.next_token import next_tokens
from tokenloom.metrics import METRICS, MetricsRecord
from tokenloom.run_folder import JsonlWriter, RunFolder
from tokenloom.sampling_params import SamplingParams
from tokenloom.weights.load import load

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((path for name in BROWSERS if (path := shutil.which(name)) is not None), None)
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no browser is on the PATH, as {' or '.join(BROWSERS)}")

TINY = {
    "model": {"family": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16},
    "train": {"max_steps": 12, "batch_size": 2, "log_interval": 1, "eval_interval": 4, "save_interval": 4},
    "sample": {"prompts": ["all ", "no "], "max_new_tokens": 8},
}
TEXT = "all work and no play\nmakes Jack a dull boy"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with the finished run "short", and with "story", which was stopped and has two checkpoints."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "text.txt").write_text("all work and no play makes Jack a dull boy\n" * 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENLOOM_CACHE", str(folder / "cache"))
        api.train(folder / "text.txt", out=folder / "runs" / "short", tokenizer="byte", settings=TINY, quiet=True)
    save_run(folder / "runs" / "story", random_model(3), random_model())
    return folder / "runs"


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])  # also as root
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, server) -> Iterator[Callable]:
    """Opens the page at a hash. At the end of the test, nothing may have gone wrong or to another site."""
    contexts, faults = [], []

    def open_at(hash: str = "", *, url: str = server.url, width: int = 1440, dark: bool = False, strict: bool = True):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith(url) else faults.append(request.url))
        if strict:
            page.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
        page.goto(f"{url}/{hash}")
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert faults == []


def printed(capsys, *arguments: str) -> dict:
    """What a command prints with --json."""
    with pytest.raises(SystemExit):
        main([*arguments, "--json"])
    return json.loads(capsys.readouterr().out)


def readout(page) -> dict[str, str]:
    """The values under the chart."""
    page.wait_for_selector("dl.readout [data-key]")
    return dict(
        zip(
            page.locator("dl.readout >> nth=0 >> dt").all_inner_texts(),
            page.locator("dl.readout >> nth=0 >> dd").all_inner_texts(),
            strict=True,
        )
    )


def records_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in RunFolder(run).metrics_file.read_text().splitlines()]


def samples_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in RunFolder(run).samples_file.read_text().splitlines()]


def wait_for_address(page, pattern: str) -> None:
    page.wait_for_function("pattern => new RegExp(pattern).test(location.hash)", arg=pattern)


def test_the_table_and_the_cursor_show_the_records_and_samples(open_page, runs):
    page = open_page("#/runs?run=short")
    row = page.locator("table.runs tr", has_text="short")
    records, samples = records_of(runs / "short"), samples_of(runs / "short")
    shown = readout(page)
    assert shown["step"] == "12"
    assert shown["training loss"] == f"{records[-1]['train/loss']:.3f}"
    assert "finished" in row.inner_text()

    page.locator(".plot").focus()
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    wait_for_address(page, "at=6")
    at_six = next(record for record in records if record["step"] == 6)
    shown = readout(page)
    assert (shown["step"], shown["training loss"]) == ("6", f"{at_six['train/loss']:.3f}")
    latest_evaluation = next(record for record in records if record["step"] == 4)
    assert shown["validation loss"] == f"{latest_evaluation['val/loss']:.3f}"
    assert page.locator(".sample pre").all_text_contents() == [
        sample["prompt"] + sample["text"] for sample in samples if sample["step"] == 4
    ]
    assert page.locator(".plot").get_attribute("aria-valuetext").startswith("step 6, training loss")

    page.get_by_label("Step of the sample").fill("2")
    page.wait_for_function("() => document.querySelector('.sample .soft').textContent.startsWith('step 12')")


def test_pointing_at_the_chart_moves_the_cursor_and_dragging_selects_a_range(open_page):
    page = open_page("#/runs?run=short")
    readout(page)
    box = page.locator(".plot .u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 5 / 11, box["y"] + 20)
    wait_for_address(page, "at=6")
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 40, steps=4)
    page.mouse.up()
    wait_for_address(page, "range=")
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function("() => !location.hash.includes('range=')")


def test_runs_are_drawn_over_one_another_with_their_differences(open_page):
    page = open_page("#/runs?run=short")
    readout(page)
    page.get_by_label("Show story").check()
    wait_for_address(page, "run=short.*run=story")
    differences = page.locator(".card", has_text="Differences")
    assert "train.max_steps" in differences.inner_text()
    assert "It can be resumed" in page.locator(".note.stopped").inner_text()
    page.get_by_role("button", name="Bits per byte").click()
    wait_for_address(page, "y=bits")
    page.go_back()
    page.wait_for_function("() => !location.hash.includes('y=bits')")
    assert page.get_by_role("button", name="Loss").get_attribute("aria-pressed") == "true"


def test_a_run_without_records_says_so_and_is_drawn_when_another_one_is_added(open_page):
    page = open_page("#/runs?run=story")
    page.get_by_text("Nothing was measured yet").wait_for()
    assert page.locator(".plot").bounding_box()["height"] == 0
    page.get_by_label("Show short").check()
    readout(page)
    page.wait_for_function("() => document.querySelector('.plot canvas').clientHeight > 200")


def test_records_that_are_appended_appear(open_page, runs):
    run = RunFolder(save_run(runs / "growing", random_model()))
    metrics = JsonlWriter(run.metrics_file)
    metrics.write(MetricsRecord(step=1, tokens=8, epoch=0.1, seconds=1, train_loss=5.0).to_json())
    page = open_page("#/runs?run=growing")
    assert readout(page)["training loss"] == "5.000"
    appended = MetricsRecord(step=2, tokens=16, epoch=0.2, seconds=2, train_loss=4.25, val_loss=float("nan"))
    metrics.write(appended.to_json())
    metrics.close()
    page.wait_for_function("() => document.querySelector('dl.readout').textContent.includes('4.250')")
    assert "not finite" in page.locator(".notes").inner_text()
    shutil.rmtree(run.path)


def test_a_text_shows_the_numbers_of_inspect(open_page, runs, capsys):
    page = open_page("#/read?m=story")
    page.locator("textarea").fill(TEXT)
    expected = printed(capsys, "inspect", str(runs / "story"), "--text", TEXT)
    page.wait_for_selector(".tokens .token")
    assert page.locator("[data-figure=loss]").inner_text() == f"{expected['loss']:.3f}"
    assert page.locator(".tokens .token").count() == len(expected["tokens"]) + 1
    number = 5
    token = expected["tokens"][number - 1]
    page.locator(f".tokens [data-index='{number}']").click()
    wait_for_address(page, "t=5")
    shown = page.locator(".details")
    assert shown.locator("[data-measure=nats]").inner_text() == f"{-token['log_probability']:.2f} nats"
    assert shown.locator("[data-measure=rank]").inner_text() == f"{token['rank']:,}"
    assert shown.locator("[data-measure=entropy]").inner_text() == f"{token['entropy']:.2f} nats"
    assert shown.locator(".bars li").count() == len(token["top"])
    level = min(12, round(-token["log_probability"]))
    assert f"heat-{level}" in page.locator(f".tokens [data-index='{number}']").get_attribute("class").split()

    page.keyboard.press("ArrowRight")
    wait_for_address(page, "t=6")
    page.get_by_role("button", name="entropy", exact=True).click()
    wait_for_address(page, "scale=entropy")


def test_a_comparison_shows_the_numbers_of_compare_and_its_link_restores_it(open_page, runs, capsys):
    page = open_page("#/read?m=story@step-1")
    page.locator("textarea").fill(TEXT)
    page.wait_for_selector(".tokens .token")
    page.get_by_label("compare with").select_option("story@step-2")
    page.wait_for_selector(".figures tr >> nth=2")
    checkpoints = [str(runs / f"story@step-{step}") for step in (1, 2)]
    expected = printed(capsys, "compare", *checkpoints, "--text", TEXT)
    losses = page.locator("[data-figure=loss]").all_inner_texts()
    assert losses == [f"{model['loss']:.3f}" for model in expected["models"]]
    page.locator(".tokens [data-index='3']").click()
    difference = expected["parts"][2]["difference"]
    shown = page.locator("[data-measure=difference]").inner_text()
    assert float(shown.split()[0].replace("−", "-")) == pytest.approx(difference, abs=0.006)
    wait_for_address(page, "z=.*t=3|t=3.*z=")

    other = open_page(re.sub("^[^#]*", "", page.url))
    other.wait_for_selector("[data-measure=difference]")
    assert other.locator("textarea").input_value() == TEXT
    assert other.locator("[data-measure=difference]").inner_text() == shown


def test_the_next_tokens_are_those_of_sampling_and_number_keys_add_them(open_page, runs):
    page = open_page("#/next?m=story&k=2")
    page.wait_for_selector(".bars.next li.cut")
    with page.expect_response(lambda reply: '"text":"all"' in (reply.request.post_data or "")):
        page.locator("textarea").fill("all")
    page.wait_for_selector(".pair[aria-busy=false]")
    loaded = load(runs / "story")
    expected = next_tokens(loaded.model, loaded.tokenizer, "all", SamplingParams(temperature=1.0, top_k=2), 20)

    def percent(probability: float) -> float:
        return pytest.approx(100 * probability, abs=0.06)

    before = page.locator("[data-before]").all_inner_texts()
    assert [float(text.removesuffix(" %").removeprefix("< ")) for text in before[:5]] == [
        percent(token.probability) for token in expected.tokens[:5]
    ]
    after = page.locator("[data-after]").all_inner_texts()
    assert [float(text.removesuffix(" %")) for text in after[:2]] == [
        percent(token.sampled_probability) for token in expected.tokens[:2]
    ]
    assert after[2:4] == ["cut by top-k", "cut by top-k"]

    text = page.locator("textarea")
    page.locator("h2").first.click()
    texts = [token.text for token in expected.tokens]
    pickable = next(i for i, one in enumerate(texts) if len(one) == 1 and one.isprintable() and one != "\ufffd")
    assert pickable < 9
    page.keyboard.press(str(pickable + 1))
    page.wait_for_function("() => document.querySelector('textarea').value.length === 4")
    assert text.input_value() == "all" + expected.tokens[pickable].text
    page.keyboard.press("Backspace")
    page.wait_for_function("() => document.querySelector('textarea').value.length === 3")
    page.go_back()
    page.wait_for_function("() => document.querySelector('textarea').value.length === 4")


def typed(text: str) -> str:
    """A text as a field of the browser has it."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def test_a_text_is_continued_as_generate_does_and_kept(open_page, runs, capsys):
    page = open_page("#/write?m=story&temp=0&len=8")
    text = page.locator("textarea")
    text.fill("all")
    page.get_by_role("button", name="Write", exact=True).click()
    page.wait_for_selector(".written button:not([disabled])")
    options = ("--prompt", "all", "--max-new-tokens", "8", "--temperature", "0")
    expected = printed(capsys, "generate", str(runs / "story"), *options)["completions"][0]
    assert page.locator(".written .tokens .token").count() == 8
    page.locator(".written .tokens .token").first.click()
    page.wait_for_selector(".written .bars li >> nth=9")
    assert "tokens=8" in page.locator("details.card pre").last.text_content()
    page.get_by_role("button", name="Keep").click()
    wait_for_address(page, "z=")
    assert text.input_value() == typed("all" + expected["text"])


def test_another_token_is_chosen_and_the_text_goes_on_from_it(open_page):
    page = open_page("#/write?m=short&temp=0&len=4")
    page.get_by_role("button", name="Write", exact=True).click()
    page.wait_for_selector(".written button:not([disabled])")
    page.locator(".written .tokens .token").first.click()
    other = page.locator(".written .bars li:not(.chosen) button:not([disabled])").first
    chosen = other.inner_text().replace("␣", " ").replace("↵", "\n")
    other.click()
    page.wait_for_function("() => document.querySelectorAll('.written .tokens .token').length === 5")
    page.get_by_role("button", name="Keep").click()
    wait_for_address(page, "z=")
    assert page.locator("textarea").input_value().startswith(typed(chosen))


# Stops in the frame in which it can: a model so small has finished soon after.
STOP = """async () => {
  const button = (name) => [...document.querySelectorAll("button")].find((one) => one.textContent === name);
  button("Write").click();
  for (let frame = 0; frame < 600 && !button("Stop"); frame += 1) await new Promise(requestAnimationFrame);
  button("Stop").click();
}"""


def test_writing_is_stopped(open_page):
    page = open_page("#/write?m=story&len=64&n=4")
    page.wait_for_selector("button.primary:not([disabled])")
    page.evaluate(STOP)
    page.get_by_role("button", name="Write", exact=True).wait_for()
    assert page.locator(".written").count() == 4
    assert page.locator(".written .tokens .token").count() < 4 * 64
    assert page.locator("[role=alert]").count() == 0


def test_without_runs_the_page_names_the_command(open_page, server_of, tmp_path):
    with server_of(tmp_path) as server:
        page = open_page(url=server.url)
        assert "tokenloom train" in page.locator(".empty").inner_text()
        page.get_by_role("link", name="Read").click()
        assert "No model yet" in page.locator(".empty").inner_text()


def test_a_server_that_has_stopped_is_told_and_the_drawing_stays(open_page, server_of, runs):
    server = server_of(runs)
    server.start()
    page = open_page("#/runs?run=short", url=server.url, strict=False)  # the browser logs failed requests
    shown = readout(page)
    server.stop()
    page.wait_for_selector(".banner")
    assert "Disconnected" in page.locator(".banner").inner_text()
    assert readout(page) == shown
    assert page.locator(".plot canvas").count() == 1


def test_a_key_is_taken_from_the_address_or_asked_for(open_page, server_of, runs):
    with server_of(runs, api_key="se+cret") as server:
        page = open_page("#key=se%2Bcret", url=server.url)
        page.wait_for_selector("table.runs")
        assert "key" not in page.url
        asked = open_page(url=server.url, strict=False)
        asked.get_by_label("Key").fill("se+cret")
        asked.get_by_role("button", name="Use it").click()
        asked.wait_for_selector("table.runs")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("view", ["runs", "read", "next", "write"])
def test_nothing_is_wider_than_the_screen_and_text_has_contrast(open_page, view, width, dark):
    page = open_page(f"#/{view}?m=short", width=width, dark=dark)
    page.wait_for_selector(".card, table.runs")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    colors = page.evaluate(CONTRASTS)
    assert {name: ratio for name, ratio in colors.items() if ratio < 4.5} == {}


# The contrast of text on every color of a token, as WCAG 2 defines it.
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const luminance = (color) => {
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const linear = [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((byte) => {
      const value = byte / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const names = [...Array(13).keys()].map((level) => `heat-${level}`);
  for (const level of [1, 2, 3, 4, 5]) names.push(`better-${level}`, `worse-${level}`);
  const host = document.body.appendChild(document.createElement("p"));
  const found = {};
  for (const name of names) {
    const token = host.appendChild(document.createElement("span"));
    token.className = `token ${name}`;
    const style = getComputedStyle(token);
    const [a, b] = [luminance(style.color), luminance(style.backgroundColor)].sort((x, y) => y - x);
    found[name] = (a + 0.05) / (b + 0.05);
  }
  host.remove();
  return found;
}"""


def test_the_metrics_that_the_page_draws_exist():
    from tokenloom.serving.page_files import FOLDER

    text = (FOLDER / "run_drawing.js").read_text()
    keys = set(re.findall(r'\["([\w/]+)", "[^"]+", (?:\d|null)\]', text))
    assert keys <= {metric.key for metric in METRICS.values()}
    assert len(keys) == 7
