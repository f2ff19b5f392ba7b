"""The rule chooses settings that are valid, change in the right direction, and can be overridden one by one."""

import os
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tokenloom.compute.runtime import choose_runtime
from tokenloom.config import Config
from tokenloom.reporting.formatting import counted
from tokenloom.training import automatic, compiling
from tokenloom.training.automatic import automatic_settings, default_settings, is_automatic, training_speed
from tokenloom.training.compiling import COMPILE_MIN_SECONDS, COMPILED_SPEEDUP
from tokenloom.training.rule import BYTES_PER_TOKEN, MAX_EPOCHS, VOCABULARY_EPOCHS, Situation, choose

BASE = default_settings([])
TWO_CORES = 4e11  # FLOP/s


def chosen(seconds=300, speed=TWO_CORES, size=None, vocabulary=None, **overrides):
    """The configuration and the reasons for a situation."""
    base = default_settings([overrides])
    before = Config.of(base, overrides)
    fixed = {name for values in overrides.values() for name in values}
    choice = choose(Situation(seconds, speed, size, vocabulary), before, fixed)
    assert not fixed & {name for values in choice.settings.values() for name in values}
    config = Config.of(base, choice.settings, overrides)
    assert_reasons_are_those_of(config, choice.reasons)
    return config, choice.reasons


def assert_reasons_are_those_of(config, reasons):
    model, train = config.model, config.train
    assert len(reasons) == 3
    assert all(len(reason) < 100 and "\n" not in reason for reason in reasons)
    assert reasons[0].startswith(f"size      {counted(model.n_layer, 'layer')}, {model.n_embd} wide: ")
    assert f" {train.batch_size} × {model.block_size} tokens, weight decay {train.weight_decay:g}" in reasons[2]


def epochs_of(reasons) -> float:
    (number, unit) = re.search(r"([\d.]+)(%| times)", reasons[1]).groups()
    return float(number) / (100 if unit == "%" else 1)


def steps_of(reasons) -> int:
    return int(reasons[2].split()[2].replace(",", ""))


@given(
    seconds=st.floats(-1e6, 1e6),
    speed=st.floats(1e8, 1e15),
    size=st.one_of(st.none(), st.integers(1, 10**12)),
    vocabulary=st.one_of(st.none(), st.integers(0, 300_000)),
)
def test_any_situation_gives_a_valid_configuration_and_three_lines(seconds, speed, size, vocabulary):
    config, _ = chosen(seconds, speed, size, vocabulary)
    assert config.model.head_size == 64
    assert 0 < config.train.weight_decay <= 10


def some(**values):
    """Any of these settings, each with any of its values."""
    return st.fixed_dictionaries({}, optional={name: st.sampled_from(choices) for name, choices in values.items()})


def contradict(n_embd=0, n_head=0, head_dim=None, n_kv_head=1, batch_size=0, micro_batch_size=1, **_) -> bool:
    """Whether settings are refused whatever the others are."""
    uneven = n_head and head_dim is None and n_embd % (2 * n_head)
    return bool(uneven or n_head % n_kv_head or batch_size % micro_batch_size)


@given(
    size=st.sampled_from([None, 300, 20_000, 10**6, 10**9]),
    model=some(
        n_layer=[1, 6, 24],
        n_embd=[8, 96, 97, 128, 1000],
        n_head=[1, 3, 8],
        n_kv_head=[1, 2, 3],
        head_dim=[32, 128],
        n_inner=[100],
        block_size=[16, 100, 1024],
    ),
    train=some(
        batch_size=[1, 3, 64],
        micro_batch_size=[1, 3, 16],
        weight_decay=[0.0, 0.7],
        max_steps=[1, 300, 10**6],
        optimizer=["adamw"],
    ),
)
def test_every_choice_can_be_overridden_and_the_others_adapt(size, model, train):
    assume(not contradict(**model, **train))
    overrides = {"model": model, "train": train}
    config, reasons = chosen(120, TWO_CORES, size, **overrides)
    for section, values in overrides.items():
        for name, value in values.items():
            assert getattr(getattr(config, section), name) == value
    assert steps_of(reasons) <= train.get("max_steps", steps_of(reasons))


def test_more_time_never_means_a_smaller_model():
    depths = [chosen(s, size=10**9)[0].model.n_layer for s in (30, 120, 600, 3600, 36_000, 360_000)]
    assert depths == sorted(depths)
    assert depths[0] < depths[-1]


def test_a_text_that_would_be_repeated_often_is_read_as_characters():
    tokenizers = [chosen(size=size)[0].data.tokenizer for size in (3 * 10**5, 10**9)]
    assert tokenizers[0] == "char"
    assert tokenizers[1].startswith("bpe:")


@pytest.mark.parametrize("seconds", [60, 600, 6000])
@pytest.mark.parametrize("size", [10**6, 10**7, 10**8])
def test_a_learned_vocabulary_does_not_repeat_the_text_too_often(seconds, size):
    config, reasons = chosen(seconds, size=size)
    assert config.data.tokenizer == "char" or epochs_of(reasons) <= VOCABULARY_EPOCHS + 0.1  # batches are rounded


def test_the_reasons_name_a_tokenizer_that_was_chosen():
    lines = [chosen(size=size, vocabulary=vocabulary)[1][1] for size, vocabulary in ((10**9, None), (10**6, 0))]
    assert re.match(r"tokens    bpe:\d+, learned from the text; ", lines[0])
    assert lines[1].startswith("tokens    the tokenizer is set; the text is read about ")  # bytes, for example
    assert chosen(size=3 * 10**5)[1][1].startswith("tokens    characters; ")


def test_the_reason_for_the_size_is_what_limits_it():
    assert chosen(size=10**9)[1][0].endswith("the size for this machine and time")
    assert chosen(1200, size=18_000)[1][0].endswith(
        "the largest size for this text, which a larger model would memorize"
    )
    assert chosen(model={"n_layer": 6})[1][0].endswith("the shape is set in part, and the rest fits it")


def test_weight_decay_grows_with_the_number_of_epochs():
    decays = [chosen(300, size=size, vocabulary=0)[0].train.weight_decay for size in (10**8, 10**6, 3 * 10**5)]
    assert decays[0] < decays[1] < decays[2]


def test_an_unknown_size_counts_as_a_large_text():
    assert chosen(size=None)[0] == chosen(size=10**12)[0]
    assert "the size of the text is unknown" in chosen(size=None)[1][1]


def test_fewer_steps_mean_fewer_epochs_and_their_weight_decay():
    config, reasons = chosen(300, size=10**6, train={"max_steps": 200})
    assert "about 200 steps" in reasons[2]
    assert epochs_of(reasons) < epochs_of(chosen(300, size=10**6)[1]) / 2
    assert config.train.weight_decay == pytest.approx(max(2.5, epochs_of(reasons) ** 1.3) / (0.02 * 200), rel=0.1)


def test_a_very_short_text_gets_a_small_model_a_limit_of_epochs_and_says_so():
    config, reasons = chosen(1200, size=18_000)
    assert config.model.n_layer == 2
    assert (config.train.batch_size, config.model.block_size) == (8, 128)
    assert epochs_of(reasons) == pytest.approx(MAX_EPOCHS, rel=0.02)
    assert "then training ends: more would not help" in reasons[1]
    assert config.train.max_steps == steps_of(reasons) < steps_of(chosen(1200, size=180_000)[1])
    assert config.train.weight_decay > 4
    all_the_time, reasons = chosen(1200, size=18_000, train={"max_steps": 10**6})
    assert all_the_time.train.max_steps == 10**6
    assert epochs_of(reasons) > MAX_EPOCHS


def test_a_run_of_a_few_steps_does_not_get_a_large_weight_decay():
    assert chosen(2, size=10**6)[0].train.weight_decay <= 1


def test_weight_decay_is_that_for_the_learning_rate_of_the_optimizer():
    decays = [
        chosen(300, size=10**8, train=train)[0].train.weight_decay
        for train in ({}, {"muon_learning_rate": 0.04}, {"optimizer": "adamw", "learning_rate": 0.01})
    ]
    assert decays[0] == pytest.approx(2 * decays[1], abs=2e-3) == pytest.approx(decays[2] / 2, abs=2e-3)


def test_a_longer_context_means_fewer_sequences_in_a_batch():
    short, long = (chosen(120, size=10**9, model={"block_size": size})[0] for size in (64, 512))
    assert short.train.batch_size == 8 * long.train.batch_size


@pytest.mark.parametrize("size", [60, 300, 2000, 20_000])
def test_the_context_fits_into_a_short_text(size):
    config, _ = chosen(60, size=size)
    validation = size / 9
    assert config.model.block_size <= validation or config.model.block_size == 1
    assert config.train.batch_size * config.model.block_size <= size


def test_a_batch_is_a_multiple_of_the_processes():
    choice = choose(Situation(120, TWO_CORES, 10**6, processes=3), Config.of(BASE))
    assert choice.settings["train"]["batch_size"] % 3 == 0


def test_characters_are_the_smallest_vocabulary():
    assert min(BYTES_PER_TOKEN) == 0


@pytest.mark.parametrize(
    "overrides",
    [
        {"model": {"n_embd": 128}},
        {"model": {"n_layer": 6}},
        {"model": {"n_head": 8}},
        {"model": {"n_kv_head": 2}},
        {"model": {"family": "gpt2", "n_embd": 128}},
        {"train": {"micro_batch_size": 3}},
    ],
)
def test_without_a_budget_the_default_is_completed(overrides):
    config = Config.of(default_settings([overrides]), overrides)
    for section, values in overrides.items():
        assert {name: getattr(getattr(config, section), name) for name in values} == values


@pytest.mark.parametrize("overrides", [{}, {"train": {"max_steps": 5}}, {"model": {"n_layer": "many"}}, {"train": 3}])
def test_otherwise_the_default_is_the_preset(overrides):
    assert default_settings([overrides]) == BASE


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.setattr(automatic, "training_speed", lambda runtime, seconds: TWO_CORES)
    monkeypatch.setattr(compiling, "can_compile", lambda device: True)
    monkeypatch.setattr(automatic.time, "time", lambda: 1000.0)
    (tmp_path / "text.txt").write_text("all work and no play\n" * 50_000)
    return tmp_path / "text.txt"


def settings_of(text, seconds=100.0, **overrides):
    layers = [overrides, {"data": {"sources": [str(text)]}}]
    config = Config.of(default_settings(layers), *layers)
    return automatic_settings(config, layers, deadline=1000.0 + seconds).settings


def rule_for(seconds=100.0, speed=TWO_CORES, size=None):
    return choose(Situation(seconds, speed, size), Config.of(BASE)).settings


def test_the_size_of_the_text_is_that_of_its_training_part(text):
    assert settings_of(text) == rule_for(size=int(0.9 * text.stat().st_size))


def test_what_the_user_sets_is_not_chosen(text):
    before = settings_of(text)
    settings = settings_of(text, model={"block_size": 64}, train={"weight_decay": 0.5})
    assert "block_size" not in settings["model"]
    assert "weight_decay" not in settings["train"]
    assert settings["train"]["batch_size"] * 64 == before["train"]["batch_size"] * before["model"]["block_size"]


@pytest.mark.parametrize(
    ("seconds", "compile", "factor"),
    [
        (COMPILE_MIN_SECONDS - 1, None, 1),
        (COMPILE_MIN_SECONDS, None, COMPILED_SPEEDUP),
        (COMPILE_MIN_SECONDS, False, 1),
        (60.0, True, COMPILED_SPEEDUP),
    ],
)
def test_the_rule_expects_the_speed_of_compiled_steps_where_they_will_be_compiled(
    text, monkeypatch, seconds, compile, factor
):
    situations = []
    monkeypatch.setattr(
        automatic, "choose", lambda situation, *_: situations.append(situation) or choose(situation, *_)
    )
    settings_of(text, seconds, train={"compile": compile})
    assert situations[0].flops_per_second == factor * TWO_CORES
    assert situations[0].seconds == seconds


@pytest.mark.parametrize("tokenizer", ["bpe:300", "byte", "gpt2"])
def test_a_tokenizer_that_the_user_names_is_taken_into_account(text, tokenizer):
    assert not settings_of(text, data={"tokenizer": tokenizer})["data"]


def test_standard_input_has_no_known_size(text):
    assert settings_of("-") == rule_for()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_has_no_known_size(text, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert settings_of(tmp_path / "pipe") == rule_for()


def test_the_size_of_the_default_corpus_is_known(text):
    assert settings_of("python-docs") == rule_for(size=1_440_000)


def test_the_rule_applies_to_new_modern_models():
    assert is_automatic(Config())
    assert not is_automatic(Config.of({"model": {"family": "gpt2"}}))
    assert not is_automatic(Config.of({"train": {"init_from": "gpt2"}}))


def test_the_speed_of_training_is_measured():
    assert 1e8 < training_speed(choose_runtime("cpu", "fp32"), 0.0) < 1e14
