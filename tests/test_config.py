"""Configuration: layers that win over one another, names that are known, and values that fit together."""

import tomllib

import pytest
from pydantic import ValidationError

from tokenloom.config import (
    CONFIG_ALIASES,
    Config,
    ModelConfig,
    TrainConfig,
    known_keys,
    preset_names,
    read_preset,
    read_toml,
    suggest,
)
from tokenloom.errors import ConfigError, TokenloomError, UsageError

PRESETS = {
    "book-124m",
    *(f"gpt2-{size}" for size in ("124m", "355m", "774m", "1558m")),
    *(f"modern-{size}" for size in ("xs", "s", "m", "124m")),
}


def refusal(*layers) -> str:
    """What a user is told; one line, always."""
    with pytest.raises(ConfigError) as refused:
        Config.of(*layers)
    message = str(refused.value)
    assert "\n" not in message
    return message


# Layers


def test_without_layers_everything_is_as_the_classes_say():
    assert Config.of() == Config() == Config.of({}, {"model": {}})


def test_a_later_layer_wins_and_what_it_does_not_name_stays():
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


def test_a_later_layer_may_make_an_earlier_one_fit():
    assert Config.of({"model": {"n_head": 3}}, {"model": {"n_embd": 48}}).model.head_dim == 16


def test_a_copy_with_other_values_leaves_the_original():
    config = Config.of({"train": {"seed": 5}})
    changed = config.with_values(model={"vocab_size": 257}, train={"max_steps": 3})
    assert (changed.model.vocab_size, changed.train.max_steps, changed.train.seed) == (257, 3, 5)
    assert config == Config.of({"train": {"seed": 5}})
    with pytest.raises(ConfigError, match="n_head"):
        config.with_values(model={"n_head": 7})


@pytest.mark.parametrize("section", ["model", "data", "train", "sample"])
def test_nothing_can_be_changed_afterwards(section):
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        setattr(config, section, None)
    part = getattr(config, section)
    for name in type(part).model_fields:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, name, None)


# Off


@pytest.mark.parametrize("word", ["none", "None", None])
def test_none_turns_off_what_may_be_off(word):
    config = Config.of({"train": {"grad_clip": word, "eval_batches": word}, "model": {"softcap": word}})
    assert (config.train.grad_clip, config.train.eval_batches, config.model.softcap) == (None, None, None)


def test_none_is_no_value_where_something_is_needed():
    assert "train.max_steps" in refusal({"train": {"max_steps": "none"}})


def test_none_is_a_word_like_any_other_where_words_are_asked_for():
    assert Config.of({"sample": {"prompts": ["none"]}}).sample.prompts == ("none",)
    assert Config.of({"data": {"tokenizer": "none"}}).data.tokenizer == "none"


# Names


@pytest.mark.parametrize(
    ("layer", "ours"),
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
def test_unknown_names_are_answered_with_ours(layer, ours):
    message = refusal(layer)
    assert message.endswith(f"Did you mean {ours}?")


def test_a_name_that_resembles_nothing_points_to_the_help():
    assert refusal({"train": {"xyzzy": 1}}) == ('unknown configuration key "train.xyzzy". See tokenloom train --help.')
    assert suggest("xyzzy") is None


def test_every_foreign_name_leads_to_a_field_of_ours_and_is_none_itself():
    known = set(known_keys())
    assert set(CONFIG_ALIASES.values()) <= known
    assert not {name for name in CONFIG_ALIASES if any(key.endswith(f".{name}") for key in known)}


def test_a_section_that_is_no_table_is_refused():
    assert refusal({"model": 3}) == "[model] must be a table, got 3. Write [model] and its keys below it."


# Values


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"model": {"n_embd": 100, "n_head": 3}}, "n_embd 100 is not a multiple of model.n_head 3"),
        ({"model": {"n_head": 4, "n_kv_head": 3}}, "n_kv_head 3 does not divide model.n_head 4"),
        ({"model": {"family": "gpt2", "n_kv_head": 2}}, "modern family only"),
        ({"model": {"n_embd": 12, "n_head": 4}}, "even head size, got n_embd / n_head = 3"),
        (
            {"train": {"batch_size": 16, "micro_batch_size": 3}},
            "micro_batch_size 3 does not divide train.batch_size 16",
        ),
        ({"train": {"learning_rate": 1e-4, "min_lr": 1e-3}}, "min_lr 0.001 is above train.learning_rate 0.0001"),
        ({"train": {"max_steps": 0}}, "train.max_steps: input should be greater than 0, got 0"),
        ({"train": {"max_steps": "many"}}, "train.max_steps: .* got 'many'"),
        ({"train": {"beta2": 1.0}}, "train.beta2: input should be less than 1, got 1.0"),
        ({"train": {"schedule": "step"}}, "train.schedule: .*'cosine'.* got 'step'"),
        ({"model": {"family": "llama"}}, "model.family: .* got 'llama'"),
        ({"model": {"dropout": -0.1}}, "model.dropout"),
        ({"data": {"val_fraction": 1.0}}, "data.val_fraction"),
        ({"train": {"seed": -1}}, "train.seed"),
    ],
)
def test_values_that_cannot_be_are_refused_by_name(layer, said):
    with pytest.raises(ConfigError, match=said):
        Config.of(layer)
    refusal(layer)


def test_the_suggested_width_is_one_that_works():
    message = refusal({"model": {"n_embd": 100, "n_head": 6}})
    width = int(message.rpartition("--model.n-embd ")[2].rstrip("."))
    assert Config.of({"model": {"n_embd": width, "n_head": 6}}).model.n_embd == width


def test_an_odd_head_size_is_fine_without_rotary_positions():
    assert Config.of({"model": {"family": "gpt2", "n_embd": 12, "n_head": 4}}).model.head_dim == 3


def test_a_configuration_error_is_a_usage_error():
    assert issubclass(ConfigError, UsageError)
    assert issubclass(UsageError, TokenloomError)
    assert ConfigError.exit_code == 2


def test_derived_values_follow_their_fields():
    model = ModelConfig(n_embd=64, n_head=8, n_kv_head=2, vocab_size=50)
    assert (model.head_dim, model.kv_heads, model.vocabulary) == (8, 2, 50)
    assert ModelConfig(n_embd=64, n_head=8).kv_heads == 8
    with pytest.raises(ConfigError, match=r"model\.vocab_size is not set"):
        _ = ModelConfig().vocabulary


@pytest.mark.parametrize(
    ("max_steps", "eval_every"), [(1, 1), (9, 1), (10, 1), (57, 5), (1000, 100), (10_000, 1000), (10**6, 1000)]
)
def test_evaluations_come_every_tenth_of_the_run_and_checkpoints_with_them(max_steps, eval_every):
    train = TrainConfig(max_steps=max_steps)
    assert (train.eval_every, train.save_every) == (eval_every, eval_every)
    assert TrainConfig(max_steps=max_steps, eval_interval=3).save_every == 3
    assert TrainConfig(max_steps=max_steps, eval_interval=3, save_interval=2).save_every == 2


# Presets and files


def test_all_presets_are_there():
    assert set(preset_names()) == PRESETS


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_valid_and_survives_the_way_through_toml(name):
    config = Config.of(read_preset(name))
    assert Config.of(tomllib.loads(config.to_toml())) == config
    assert config.model.family == {"book": "gpt2"}.get(name.partition("-")[0], name.partition("-")[0])


def test_everything_that_is_off_survives_the_way_through_toml():
    config = Config.of(
        {
            "model": {"softcap": None},
            "data": {"sources": ["a b.txt", 'c"d', "-"], "stride": 7},
            "train": {"grad_clip": None, "eval_batches": None, "learning_rate": 1 / 3, "micro_batch_size": 4},
            "sample": {"prompts": ["Zeile 1\nZeile 2 ✨", ""], "top_k": None},
        }
    )
    assert Config.of(tomllib.loads(config.to_toml())) == config


def test_the_books_preset_is_the_books():
    config = Config.of(read_preset("book-124m"))
    model, train = config.model, config.train
    assert (model.vocab_size, model.block_size, model.n_embd) == (50257, 256, 768)
    assert (model.n_head, model.n_layer, model.dropout) == (12, 12, 0.1)
    assert (model.qkv_bias, model.tie_embeddings, model.init) == (False, False, "book")
    assert (train.learning_rate, train.weight_decay, train.batch_size) == (4e-4, 0.1, 2)
    assert (train.max_steps, train.eval_interval, train.eval_batches, train.seed) == (90, 5, 5, 123)
    assert train.grad_clip is None


def test_an_unknown_preset_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match='no preset "gpt2-124"') as refused:
        read_preset("gpt2-124")
    assert "Did you mean gpt2-124m?" in str(refused.value)
    with pytest.raises(ConfigError, match="All: book-124m, .*modern-xs"):
        read_preset("xyzzy")


def test_a_file_is_read_as_it_stands(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('[train]\nmax_steps = 5\ngrad_clip = "none"\n[sample]\nprompts = ["é"]\n', encoding="utf-8")
    config = Config.of(read_toml(file))
    assert (config.train.max_steps, config.train.grad_clip, config.sample.prompts) == (5, None, ("é",))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist"),
        (b"[train\nmax_steps = 5", "not valid TOML"),
        (b"max_steps = \xff", "not valid TOML"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, content, said):
    file = tmp_path / "run.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as refused:
        read_toml(file)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_is_no_configuration(tmp_path):
    with pytest.raises(ConfigError, match="is a folder"):
        read_toml(tmp_path)


# Help


def test_every_field_explains_itself():
    """The docstrings are the help texts of the command line."""
    for section in Config.model_fields.values():
        for name, field in section.annotation.model_fields.items():
            assert field.description, name
            assert field.description.endswith(".") or field.description.endswith("modern only).")
