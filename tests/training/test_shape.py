"""A shape is completed from any of its parts, has about the wanted size, and is always valid."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenloom.config import Config, ModelConfig
from tokenloom.model.flops import count_parameters
from tokenloom.training.shape import HEAD_SIZE, weights_at_depth, whole_shape

XS = weights_at_depth(3)


def shape_of(weights=XS, **fixed):
    values = {**fixed, **whole_shape(ModelConfig(**fixed), fixed, weights)}
    Config.of({"model": values})
    return values


@pytest.mark.parametrize(
    ("fixed", "expected"),
    [
        ({}, {"n_layer": 3, "n_embd": 192, "n_head": 3}),
        ({"n_layer": 6}, {"n_embd": 128, "n_head": 2}),
        ({"n_layer": 1}, {"n_embd": 320, "n_head": 5}),
        ({"n_embd": 128}, {"n_layer": 4, "n_head": 2}),
        ({"n_embd": 512}, {"n_layer": 2, "n_head": 8}),
        ({"n_embd": 96}, {"n_layer": 3, "n_head": 2}),  # heads of 48
        ({"n_embd": 97}, {"n_layer": 3, "n_head": 2, "head_dim": 64}),  # 97 is a prime
        ({"n_embd": 33}, {"n_layer": 2, "n_head": 1, "head_dim": 34}),
        ({"n_head": 6}, {"n_layer": 3, "n_embd": 192}),
        ({"n_head": 5}, {"n_layer": 3, "n_embd": 190}),
        ({"head_dim": 128}, {"n_layer": 3, "n_embd": 192, "n_head": 2}),
        ({"n_kv_head": 2}, {"n_layer": 3, "n_embd": 256, "n_head": 4}),
        ({"n_kv_head": 3, "n_embd": 128}, {"n_layer": 4, "n_head": 3, "head_dim": 64}),
        ({"family": "gpt2", "n_embd": 100}, {"n_layer": 3, "n_head": 2}),
        ({"family": "gpt2", "n_embd": 10**18 - 1}, {"n_layer": 2, "n_head": 1001}),
        ({"family": "gpt2", "n_embd": 97}, {"n_layer": 3, "n_head": 1}),
    ],
)
def test_a_shape_that_is_fixed_in_part_is_completed(fixed, expected):
    assert shape_of(**fixed) == {**fixed, **expected}


@given(
    weights=st.floats(1e3, 1e10),
    fixed=st.fixed_dictionaries(
        {},
        optional={
            "n_layer": st.integers(1, 48),
            "n_embd": st.integers(1, 3000),
            "n_head": st.integers(1, 40),
            "n_kv_head": st.integers(1, 12),
            "head_dim": st.sampled_from([None, 2, 48, 128]),
            "family": st.sampled_from(["gpt2", "modern"]),
        },
    ),
)
def test_every_part_can_be_fixed(weights, fixed):
    model = ModelConfig(**fixed)
    if fixed.get("family") == "gpt2":
        fixed = {name: value for name, value in fixed.items() if name not in ("n_kv_head", "head_dim")}
    elif fixed.get("head_dim", 0) is None:
        del fixed["head_dim"]
    if {"n_head", "n_embd"} <= fixed.keys() and not fixed.get("head_dim"):
        fixed["n_embd"] = 2 * model.n_head * max(1, model.n_embd // model.n_head)
    if {"n_head", "n_kv_head"} <= fixed.keys():
        fixed["n_kv_head"] = 1
    values = shape_of(weights, **fixed)
    assert all(values[name] == value for name, value in fixed.items())


@pytest.mark.parametrize("weights", [1e6, 1e7, 1e8])
def test_the_size_is_about_the_wanted_one_whichever_part_is_fixed(weights):
    for fixed in ({}, {"n_layer": 4}, {"n_layer": 8}, {"n_head": 4}):
        model = ModelConfig(vocab_size=1, tie_embeddings=True, **shape_of(weights, **fixed))
        assert 0.5 < count_parameters(model) / weights < 2, fixed


def test_heads_are_64_wide_where_the_width_allows_it():
    for width, depth in itertools.product((64, 128, 192, 640, 1600), (1, 12)):
        assert ModelConfig(**shape_of(n_embd=width, n_layer=depth)).head_size == HEAD_SIZE
