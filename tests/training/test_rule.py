"""The rule chooses settings that are valid, change in the right direction, and can be overridden one by one."""

import itertools
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenloom.compute.runtime import choose_runtime
from tokenloom.config import Config
from tokenloom.config_files import read_preset
from tokenloom.training import automatic
from tokenloom.training.automatic import automatic_settings, is_automatic, training_speed
from tokenloom.training.rule import BYTES_PER_TOKEN, MAX_EPOCHS, Choice, choose

BASE = read_preset("modern-xs")
TWO_CORES = 4e11  # FLOP/s


def config_of(choice: Choice, *overrides) -> Config:
    return Config.of(BASE, choice.settings, *overrides)


@given(
    seconds=st.floats(-1e6, 1e6),
    speed=st.floats(1e8, 1e15),
    size=st.one_of(st.none(), st.integers(1, 10**12)),
    vocabulary=st.one_of(st.none(), st.integers(0, 300_000)),
)
def test_any_situation_gives_a_valid_configuration_and_three_lines(seconds, speed, size, vocabulary):
    choice = choose(seconds, speed, size, vocabulary)
    config = config_of(choice)
    assert config.model.head_size == 64
    assert config.train.batch_size >= 1
    assert 0 < config.train.weight_decay <= 1
    assert len(choice.reasons) == 3
    assert all(len(reason) < 100 and "\n" not in reason for reason in choice.reasons)


def test_more_time_never_means_a_smaller_model():
    depths = [config_of(choose(s, TWO_CORES, 10**9)).model.n_layer for s in (30, 120, 600, 3600, 36_000, 360_000)]
    assert depths == sorted(depths)
    assert depths[0] < depths[-1]


def test_a_text_that_would_be_repeated_often_is_read_as_characters():
    tokenizers = [config_of(choose(300, TWO_CORES, size)).data.tokenizer for size in (3 * 10**5, 10**9)]
    assert tokenizers[0] == "char"
    assert tokenizers[1].startswith("bpe:")


def test_a_learned_vocabulary_does_not_repeat_the_text_too_often():
    for seconds, size in itertools.product((60, 600, 6000), (10**6, 10**7, 10**8)):
        choice = choose(seconds, TWO_CORES, size)
        if config_of(choice).data.tokenizer != "char":
            (epochs,) = (float(word) for word in choice.reasons[1].split() if word.replace(".", "").isdecimal())
            assert epochs <= MAX_EPOCHS


def test_weight_decay_grows_with_the_number_of_epochs():
    decays = [config_of(choose(300, TWO_CORES, size, 0)).train.weight_decay for size in (10**8, 10**6, 3 * 10**5)]
    assert decays[0] < decays[1] < decays[2]


def test_an_unknown_size_counts_as_a_large_text():
    assert choose(300, TWO_CORES, None).settings == choose(300, TWO_CORES, 10**12).settings
    assert "at most once" in choose(300, TWO_CORES, None).reasons[1]


def test_characters_are_the_smallest_vocabulary():
    assert min(BYTES_PER_TOKEN) == 0


@pytest.fixture
def text(tmp_path, monkeypatch):
    monkeypatch.setattr(automatic, "training_speed", lambda runtime: TWO_CORES)
    monkeypatch.setattr(automatic.time, "time", lambda: 1000.0)
    (tmp_path / "text.txt").write_text("all work and no play\n" * 50_000)
    return tmp_path / "text.txt"


def settings_of(text, **overrides):
    layers = [overrides, {"data": {"sources": [str(text)]}}]
    return automatic_settings(Config.of(BASE, *layers), layers, deadline=1300.0).settings


def test_the_size_of_the_text_is_that_of_its_training_part(text):
    assert settings_of(text) == choose(300, TWO_CORES, int(0.9 * text.stat().st_size)).settings


@pytest.mark.parametrize(
    ("override", "without"),
    [
        ({"train": {"batch_size": 3}}, {"train": ["batch_size"]}),
        ({"train": {"weight_decay": 0.5}}, {"train": ["weight_decay"]}),
        ({"model": {"block_size": 64}}, {"model": ["block_size"]}),
        ({"model": {"n_embd": 96}}, {"model": ["n_layer", "n_head", "n_embd"]}),
    ],
)
def test_what_the_user_sets_is_not_chosen(text, override, without):
    expected = settings_of(text)
    actual = settings_of(text, **override)
    for section, values in expected.items():
        kept = {name: value for name, value in values.items() if name not in without.get(section, ())}
        assert actual[section] == kept


@pytest.mark.parametrize("tokenizer", ["bpe:300", "byte", "gpt2"])
def test_a_tokenizer_that_the_user_names_is_taken_into_account(text, tokenizer):
    assert "data" not in settings_of(text, data={"tokenizer": tokenizer})


def test_standard_input_has_no_known_size(text):
    assert settings_of("-") == choose(300, TWO_CORES, None).settings


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_has_no_known_size(text, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert settings_of(tmp_path / "pipe") == choose(300, TWO_CORES, None).settings


def test_the_size_of_the_default_corpus_is_known(text):
    assert settings_of("python-docs") == choose(300, TWO_CORES, 1_440_000).settings


def test_the_rule_applies_to_new_modern_models():
    assert is_automatic(Config())
    assert not is_automatic(Config.of({"model": {"family": "gpt2"}}))
    assert not is_automatic(Config.of({"train": {"init_from": "gpt2"}}))


def test_the_speed_of_training_is_measured():
    assert 1e8 < training_speed(choose_runtime("cpu", "fp32")) < 1e14
