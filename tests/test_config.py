"""Configuration: precedence of layers, names of keys, validation of values."""

import math
import re
import tomllib

import pytest
from pydantic import ValidationError

from tokenloom.config import Config, ModelConfig, TrainConfig, config_keys, config_sections, suggest_key
from tokenloom.config_aliases import CONFIG_ALIASES
from tokenloom.config_files import preset_names, read_preset
from tokenloom.errors import ConfigError, TokenloomError, UsageError


def refusal(*layers) -> str:
    """The error message, which is always one line."""
    with pytest.raises(ConfigError) as refused:
        Config.of(*layers)
    message = str(refused.value)
    assert "\n" not in message
    return message


# Layers


def test_without_layers_the_defaults_of_the_classes_apply():
    assert Config.of() == Config() == Config.of({}, {"model": {}})


def test_a_later_layer_takes_precedence_and_other_values_stay():
    preset = {"model": {"n_layer": 2, "n_embd": 64}, "train": {"max_steps": 5}}
    file = {"model": {"n_layer": 3}, "train": {"seed": 9}}
    flags = {"train": {"max_steps": 7}}
    config = Config.of(preset, file, flags)
    assert (config.model.n_layer, config.model.n_embd) == (3, 64)
    assert (config.train.max_steps, config.train.seed) == (7, 9)
    assert config.data == Config().data


def test_layers_are_not_changed_by_merging_them():
    first, second = {"model": {"n_layer": 2}}, {"model": {"n_layer": 3}}
    Config.of(first, second)
    assert (first, second) == ({"model": {"n_layer": 2}}, {"model": {"n_layer": 3}})


def test_a_later_layer_can_make_an_earlier_one_consistent():
    assert Config.of({"model": {"n_head": 3}}, {"model": {"n_embd": 48}}).model.head_size == 16


def test_a_copy_with_other_values_leaves_the_original():
    config = Config.of({"train": {"seed": 5}})
    changed = config.with_values(model={"vocab_size": 257}, train={"max_steps": 3})
    assert (changed.model.vocab_size, changed.train.max_steps, changed.train.seed) == (257, 3, 5)
    assert config == Config.of({"train": {"seed": 5}})
    with pytest.raises(ConfigError, match="n_head"):
        config.with_values(model={"n_head": 7})


def test_another_number_of_steps_applies_from_the_first_step_on():
    config = Config.of({"train": {"max_steps": 90, "earlier_max_steps": [[50, 100]]}})
    assert config.with_values(train={"max_steps": 90, "seed": 3}).train.earlier_max_steps == ((50, 100),)
    assert config.with_values(train={"max_steps": 80}).train.earlier_max_steps == ()
    changed = config.with_values(train={"max_steps": 80, "earlier_max_steps": [[50, 90]]})
    assert changed.train.earlier_max_steps == ((50, 90),)


@pytest.mark.parametrize("section", ["model", "data", "train", "sample"])
def test_a_configuration_is_immutable(section):
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(config, section, None)
    part = getattr(config, section)
    for name in type(part).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, name, None)


# None


@pytest.mark.parametrize("value", ["none", "None", None])
def test_none_is_read_as_none_for_optional_fields(value):
    config = Config.of({"train": {"grad_clip": value, "eval_batches": value}, "model": {"n_inner": value}})
    assert (config.train.grad_clip, config.train.eval_batches, config.model.n_inner) == (None, None, None)


def test_none_is_rejected_for_required_fields():
    assert "train.max_steps" in refusal({"train": {"max_steps": "none"}})


def test_none_is_an_ordinary_text_for_text_fields():
    assert Config.of({"sample": {"prompts": ["none"]}}).sample.prompts == ("none",)
    assert Config.of({"data": {"tokenizer": "none"}}).data.tokenizer == "none"


# Names


@pytest.mark.parametrize(
    ("layer", "key"),
    [
        ({"train": {"max_iters": 5}}, "train.max_steps"),
        ({"train": {"lr": 5}}, "train.learning_rate"),
        ({"train": {"gradient_accumulation_steps": 5}}, "train.batch_size"),
        ({"model": {"context_length": 256}}, "model.block_size"),
        ({"model": {"emb_dim": 768}}, "model.n_embd"),
        ({"model": {"drop_rate": 0.1}}, "model.dropout"),
        ({"model": {"n_layers": 12}}, "model.n_layer"),
        ({"model": {"max_steps": 12}}, "train.max_steps"),
        ({"train": {"max_step": 12}}, "train.max_steps"),
        ({"train": {"learning-rate": 1}}, "train.learning_rate"),
        ({"train": {"grad_clp": 1}}, "train.grad_clip"),
        ({"max_iters": 5}, "train.max_steps"),
    ],
)
def test_unknown_keys_are_answered_with_a_suggestion(layer, key):
    message = refusal(layer)
    assert message.endswith(f"Did you mean {key}?")


def test_a_name_without_a_similar_key_points_to_the_help():
    assert refusal({"train": {"xyzzy": 1}}) == ('unknown configuration key "train.xyzzy". See tokenloom train --help.')
    assert suggest_key("xyzzy") is None


def test_every_alias_leads_to_a_key_and_is_not_a_key_itself():
    keys = set(config_keys())
    assert set(CONFIG_ALIASES.values()) <= keys
    assert not {name for name in CONFIG_ALIASES if any(key.endswith(f".{name}") for key in keys)}


def test_a_section_that_is_not_a_table_is_rejected():
    assert refusal({"model": 3}) == "[model] must be a table, got 3. Write [model] and its keys below it."


# Values


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"model": {"n_embd": 100, "n_head": 3}}, "n_embd 100 is not a multiple of model.n_head 3"),
        ({"model": {"n_head": 4, "n_kv_head": 3}}, "n_kv_head 3 does not divide model.n_head 4"),
        ({"model": {"family": "gpt2", "n_kv_head": 2}}, "modern family only"),
        ({"model": {"n_embd": 12, "n_head": 4}}, "even head size, got 3"),
        (
            {"train": {"batch_size": 16, "micro_batch_size": 3}},
            "micro_batch_size 3 does not divide train.batch_size 16",
        ),
        ({"train": {"learning_rate": 1e-4, "min_lr": 1e-3}}, "min_lr 0.001 is above train.learning_rate 0.0001"),
        (
            {"train": {"max_steps": 90, "earlier_max_steps": [[50, 100], [95, 90]]}},
            "max_steps cannot have changed from 90 to 90 at step 95, after step 50. Remove train.earlier_max_steps",
        ),
        ({"train": {"earlier_max_steps": [[50, 100], [50, 90]]}}, "cannot have changed from 90 to 1,000 at step 50"),
        ({"train": {"earlier_max_steps": [[50, 100.5]]}}, "train.earlier_max_steps.0.1: .* got 100.5"),
        ({"train": {"max_steps": 0}}, "train.max_steps: input should be greater than 0, got 0"),
        ({"train": {"max_steps": "many"}}, "train.max_steps: .* got 'many'"),
        ({"train": {"beta2": 1.0}}, "train.beta2: input should be less than 1, got 1.0"),
        ({"train": {"schedule": "step"}}, "train.schedule: .*'cosine'.* got 'step'"),
        ({"model": {"family": "llama"}}, "model.family: .* got 'llama'"),
        ({"model": {"dropout": -0.1}}, "model.dropout"),
        ({"data": {"val_fraction": 1.0}}, "data.val_fraction"),
        ({"train": {"seed": -1}}, "train.seed"),
        ({"train": {"seed": 1.9}}, "train.seed: must be an integer, got 1.9"),
        ({"train": {"seed": 2.0}}, "train.seed: must be an integer, got 2.0"),
        ({"train": {"seed": "1.0"}}, "train.seed: must be an integer, got '1.0'"),
        ({"train": {"seed": True}}, "train.seed: must be a number, got True"),
        ({"train": {"seed": 2**64}}, "train.seed: must be below 2\\^64, got 18446744073709551616"),
        ({"train": {"patience": 2.5}}, "train.patience: must be an integer, got 2.5"),
        ({"train": {"learning_rate": True}}, "train.learning_rate: must be a number, got True"),
        ({"train": {"learning_rate": math.inf}}, "train.learning_rate: input should be a finite number, got inf"),
        ({"train": {"grad_clip": math.nan}}, "train.grad_clip: input should be a finite number, got nan"),
    ],
)
def test_invalid_values_are_rejected_by_name(layer, message):
    with pytest.raises(ConfigError, match=message):
        Config.of(layer)
    refusal(layer)


def test_the_suggested_width_is_valid():
    message = refusal({"model": {"n_embd": 100, "n_head": 6}})
    width = int(message.rpartition("--model.n-embd ")[2].rstrip("."))
    assert Config.of({"model": {"n_embd": width, "n_head": 6}}).model.n_embd == width


def test_an_odd_head_size_is_valid_without_rotary_embeddings():
    assert Config.of({"model": {"family": "gpt2", "n_embd": 12, "n_head": 4}}).model.head_size == 3


def test_a_configuration_error_is_a_usage_error():
    assert issubclass(ConfigError, UsageError)
    assert issubclass(UsageError, TokenloomError)
    assert ConfigError.exit_code == 2


def test_derived_values_follow_their_fields():
    model = ModelConfig(n_embd=64, n_head=8, n_kv_head=2, vocab_size=50)
    assert (model.head_size, model.kv_heads, model.vocabulary) == (8, 2, 50)
    assert ModelConfig(n_embd=64, n_head=8).kv_heads == 8
    with pytest.raises(ConfigError, match=r"model\.vocab_size is not set"):
        _ = ModelConfig().vocabulary


@pytest.mark.parametrize(
    ("max_steps", "eval_every"), [(1, 1), (9, 1), (10, 1), (57, 6), (1000, 100), (10_000, 1000), (10**6, 1000)]
)
def test_evaluations_and_checkpoints_default_to_every_tenth_of_a_run(max_steps, eval_every):
    train = TrainConfig(max_steps=max_steps)
    assert (train.eval_every, train.save_every) == (eval_every, eval_every)
    assert TrainConfig(max_steps=max_steps, eval_interval=3).save_every == 3
    assert TrainConfig(max_steps=max_steps, eval_interval=3, save_interval=2).save_every == 2


def test_a_run_has_no_evaluation_just_before_that_of_its_end():
    for max_steps in range(200, 10_000, 7):
        every = TrainConfig(max_steps=max_steps).eval_every
        assert (max_steps - 1) % every + 1 > every / 2, max_steps


# Presets and TOML


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid_and_round_trips_through_toml(name):
    config = Config.of(read_preset(name))
    assert Config.of(tomllib.loads(config.to_toml())) == config
    assert config.model.family == {"book": "gpt2"}.get(name.partition("-")[0], name.partition("-")[0])


def test_none_round_trips_through_toml():
    config = Config.of(
        {
            "model": {"n_inner": None},
            "data": {"sources": ["a b.txt", 'c"d', "-"], "stride": 7},
            "train": {"grad_clip": None, "eval_batches": None, "learning_rate": 1 / 3, "micro_batch_size": 4},
            "sample": {"prompts": ["Zeile 1\nZeile 2 ✨", ""], "top_k": None},
        }
    )
    assert Config.of(tomllib.loads(config.to_toml())) == config


def test_the_preset_of_the_book_has_its_figures():
    config = Config.of(read_preset("book-124m"))
    model, train = config.model, config.train
    assert (model.vocab_size, model.block_size, model.n_embd) == (50257, 256, 768)
    assert (model.n_head, model.n_layer, model.dropout) == (12, 12, 0.1)
    assert (model.qkv_bias, model.tie_embeddings, model.init) == (False, False, "book")
    assert (train.learning_rate, train.weight_decay, train.batch_size) == (4e-4, 0.1, 2)
    assert (train.max_steps, train.eval_interval, train.eval_batches, train.seed) == (90, 5, 5, 123)
    assert train.grad_clip is None


# Help


def test_every_field_has_a_help_text():
    for kind in config_sections().values():
        for name, field in kind.model_fields.items():
            assert field.description, name
            assert field.description.endswith((".", "…")), name


def test_help_texts_name_only_existing_fields():
    fields = {key.partition(".")[2] for key in config_keys()}
    for kind in config_sections().values():
        for name, field in kind.model_fields.items():
            named = set(re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", field.description or ""))
            assert named <= fields, name
