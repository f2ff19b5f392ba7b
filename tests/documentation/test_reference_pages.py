"""The generated reference is complete: every command, option, setting, public name, file and metric is on its page."""

import dataclasses
import re

import pytest
from documentation_pages import ROOT, all_pages

import tokenloom
from tokenloom.cli.main import COMMANDS, app
from tokenloom.config import config_keys, config_sections
from tokenloom.config_files import preset_names, read_preset
from tokenloom.metrics import METRICS
from tokenloom.run_folder import RunFolder
from tokenloom.run_records import Baselines, RunIdentity, RunPlan, RunSummary, SampleRecord


def section(page: str, title: str) -> str:
    """The part of a page below a heading, up to the next one of the same level."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^\1 |\Z)", all_pages()[page], flags=re.DOTALL | re.MULTILINE)
    assert found, title
    return found[2]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "bench"])
def test_a_command_has_all_its_options_with_their_help(name):
    text = section("reference/commands", f"tokenloom {name}")
    for argument in app[name].assemble_argument_collection(parse_docstring=True):
        if argument.show:
            assert not argument.name.startswith("--") or f"`{argument.name}" in text
            words = " ".join((argument.parameter.help or "").split())
            assert re.split(r"[`<*]", words)[0] in text


def test_every_benchmark_is_on_the_page():
    benchmarks = [name for name in app["bench"].resolved_commands() if not name.startswith("-")]
    assert len(benchmarks) > 3
    for name in benchmarks:
        assert section("reference/commands", f"tokenloom bench {name}")


@pytest.mark.parametrize("key", config_keys())
def test_a_setting_has_its_type_default_and_docstring(key):
    name, field_name = key.split(".")
    field = config_sections()[name].model_fields[field_name]
    (row,) = [line for line in section("reference/configuration", name).splitlines() if line.startswith(f"| `{key}`")]
    _, _, kind, default, meaning, _ = (cell.strip() for cell in re.split(r"(?<!\\)\|", row))
    assert kind
    assert default
    assert (field.description or "?").split("<")[0] in meaning


def test_a_preset_has_every_setting_of_its_file():
    for name in preset_names():
        text = section("reference/presets", name)
        for part, values in read_preset(name).items():
            assert [key for key in values if f"`{part}.{key}`" not in text] == []


@pytest.mark.parametrize("name", tokenloom.__all__)
def test_a_public_name_is_documented(name):
    if name == "__version__":
        assert "tokenloom.__version__" in all_pages()["reference/python"]
        return
    first = (getattr(tokenloom, name).__doc__ or "?").strip().splitlines()[0].split("`")[0]
    assert first in section("reference/python", name)


def test_every_file_of_a_run_is_named(tmp_path):
    run = RunFolder(tmp_path)
    files = [getattr(run, name) for name, value in vars(RunFolder).items() if isinstance(value, property)]
    names = [path.name for entry in files for path in (entry if isinstance(entry, tuple) else (entry,))]
    assert len(names) > 10
    assert [name for name in names if name not in all_pages()["reference/files"]] == []


def test_every_metric_and_every_field_of_a_record_is_described():
    text = all_pages()["reference/files"]
    assert [metric.key for metric in METRICS.values() if f"`{metric.key}`" not in text] == []
    for kind in (RunIdentity, RunPlan, Baselines, SampleRecord, RunSummary):
        assert [field.name for field in dataclasses.fields(kind) if f"`{field.name}`" not in text] == []


def test_figures_of_the_comparison_are_in_the_results():
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in section("comparison", "Figures").splitlines() if line.startswith("| ")][2:]
    numbers = [number for row in rows for number in re.findall(r"(?<![\w.])\d[\d,.]*\d(?![\w.])", row[2])]
    assert len(numbers) > 15
    assert [number for number in numbers if number not in results] == []
