"""Runs are recorded when they are finished, and only then."""

import json
import math
import shlex

import pytest
import recipe
import result_tables
from recipe_series import GROUPS, SERIES
from texts import TEXTS

from tokenloom.cli.main import main as tokenloom
from tokenloom.config import Config
from tokenloom.data.corpora import CORPUS_NAMES

RUN = {"val_bits_per_byte": 1.6, "train_loss": 2.0, "val_loss": 3.0, "steps": 100}
NAME = "docstrings-2m"


def figures(series, variant, seed, core):
    return RUN


def failing(series, variant, seed, core):
    raise RuntimeError("no such preset")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_run_that_failed_is_printed_and_not_recorded(tmp_path, capsys):
    results = tmp_path / "recipe.jsonl"
    assert recipe.run_missing(NAME, ["rule"], 1, math.inf, results, failing) == 1
    assert "docstrings-2m, rule, seed 1 failed: no such preset" in capsys.readouterr().err
    assert lines(results) == []
    assert recipe.run_missing(NAME, ["rule"], 1, math.inf, results, figures) == 0
    assert [run["steps"] for run in lines(results)] == [100]


def test_finished_runs_are_not_repeated_except_for_the_rule_with_other_constants(tmp_path, monkeypatch):
    results, variants = tmp_path / "recipe.jsonl", ["rule", "3x192 bpe2048 b8x128"]
    for _ in range(2):
        assert recipe.run_missing(NAME, variants, 2, math.inf, results, figures) == 0
    assert len(lines(results)) == 4
    monkeypatch.setattr(recipe.rule, "STEPS", 1)
    recipe.run_missing(NAME, variants, 1, math.inf, results, figures)
    assert len(lines(results)) == 5


def test_a_series_is_repeated_on_another_processor_and_has_a_table_of_each(tmp_path, monkeypatch):
    results = tmp_path / "recipe.jsonl"
    for cpu in ("first", "second", "first"):
        monkeypatch.setattr(recipe.records, "cpu_name", lambda cpu=cpu: cpu)
        recipe.run_missing(NAME, ["rule"], 1, math.inf, results, figures)
    assert [run["cpu"] for run in lines(results)] == ["first", "second"]
    tables = result_tables.recipe_tables(lines(results))
    assert [line for line in tables if line.startswith("`")] == [f"`{NAME}` (first)", f"`{NAME}` (second)"]


def test_no_run_is_started_that_would_end_too_late(tmp_path):
    recipe.run_missing(NAME, ["rule"], 1, recipe.time.time() + SERIES[NAME].seconds - 1, tmp_path / "x", figures)
    assert lines(tmp_path / "x") == []


def test_a_missing_text_is_reported_before_anything_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path))
    monkeypatch.setattr(recipe, "train_on_core", failing)
    with pytest.raises(SystemExit, match="2"):
        recipe.main(["unseen", "--results", str(tmp_path / "x")])
    assert "the text bible-kjv is not in" in capsys.readouterr().err


def test_the_table_has_the_distance_to_the_best_of_the_grid():
    runs = [
        {"series": NAME, "variant": name, "seed": seed, "cpu": "M", **RUN, "val_bits_per_byte": bits}
        for name, seed, bits in (
            (recipe.recorded("rule"), 1, 1.616),
            ("3x192 bpe2048 b8x128", 1, 1.5),
            ("3x192 bpe2048 b8x128", 2, 1.7),
            ("3x192 char b8x256", 1, 2.0),
            ("rule 0000000", 1, 1.0),
        )
    ]
    lines = result_tables.recipe_tables(reversed(runs))
    assert lines[1] == "`docstrings-2m` (M)"
    assert lines[5:] == [
        "| rule 0000000 | 1.000 | -37.5% | 2.000 | 3.000 | 100 | 1 |",
        "| 3x192 bpe2048 b8x128 | 1.600 | +0.0% | 2.000 | 3.000 | 100 | 2 |",
        f"| {recipe.recorded('rule')} | 1.616 | +1.0% | 2.000 | 3.000 | 100 | 1 |",
        "| 3x192 char b8x256 | 2.000 | +25.0% | 2.000 | 3.000 | 100 | 1 |",
    ]


def test_the_table_has_what_the_rule_chose_for_each_seed():
    chosen = {"n_layer": 3, "n_embd": 192, "tokenizer": "bpe:2048", "batch_size": 8, "block_size": 128}
    runs = [
        {"series": NAME, "variant": "rule abcdef0", "seed": seed, "cpu": "M", **RUN, **chosen, "weight_decay": decay}
        for seed, decay in ((1, 0.18), (2, 0.18), (3, 1.0))
    ]
    row = result_tables.recipe_tables(runs)[-1]
    assert row.startswith("| rule abcdef0: 3x192 bpe2048 b8x128 wd.18 or 3x192 bpe2048 b8x128 wd1 | 1.600 |")


def test_the_settings_of_a_run_are_those_of_its_configuration():
    config = Config.of({"model": {"n_layer": 2}, "data": {"tokenizer": "char"}, "train": {"weight_decay": 0.3}})
    chosen = recipe.chosen_settings(config)
    assert (chosen["n_layer"], chosen["tokenizer"], chosen["weight_decay"]) == (2, "char", 0.3)
    assert result_tables.recipe_tables([{"series": NAME, "variant": "rule", "seed": 1, "cpu": "M", **RUN, **chosen}])


def test_groups_and_texts_are_known():
    assert {name for names in GROUPS.values() for name in names} <= set(SERIES)
    assert {series.source for series in SERIES.values()} <= {*CORPUS_NAMES, *TEXTS}


@pytest.mark.parametrize(
    "options", sorted({variant for series in SERIES.values() for variant in series.variants.values()})
)
def test_every_variant_is_accepted_by_the_command(tmp_path, monkeypatch, options, capsys):
    monkeypatch.chdir(tmp_path)
    # The budget is refused after the flags and the configuration are validated.
    with pytest.raises(SystemExit) as exit:
        tokenloom(["train", "x.txt", *shlex.split(options), "--budget", "soon"])
    assert exit.value.code == 2
    assert '"soon" is not a duration' in capsys.readouterr().err
