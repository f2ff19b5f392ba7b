"""The model has the weights and names of the book's class, and loads OpenAI's weights."""

import numpy as np
import pytest
import torch

from tokenloom.book import GPTModel, assign, load_weights_into_gpt
from tokenloom.errors import CheckpointError, UsageError, WeightsError


def test_the_state_dict_has_the_books_names_and_order(model):
    block = ["att.mask", "att.W_query.weight", "att.W_key.weight", "att.W_value.weight", "att.out_proj.weight",
             "att.out_proj.bias", "ff.layers.0.weight", "ff.layers.0.bias", "ff.layers.2.weight", "ff.layers.2.bias",
             "norm1.scale", "norm1.shift", "norm2.scale", "norm2.shift"]  # fmt: skip
    blocks = [f"trf_blocks.{i}.{name}" for i in range(2) for name in block]
    head = ["final_norm.scale", "final_norm.shift", "out_head.weight"]
    assert list(model.state_dict()) == ["tok_emb.weight", "pos_emb.weight", *blocks, *head]
    assert model.pos_emb.weight.shape[0] == 32
    assert model.tok_emb.weight.shape == model.out_head.weight.shape == (50257, 48)


def test_a_saved_model_is_restored_by_load_state_dict(model, config, tmp_path):
    torch.save(model.state_dict(), tmp_path / "model.pth")
    loaded = GPTModel(config)
    loaded.load_state_dict(torch.load(tmp_path / "model.pth", map_location="cpu", weights_only=True))
    ids = torch.arange(20)[None]
    assert torch.equal(loaded.eval()(ids), model(ids))
    with pytest.raises(RuntimeError, match="ln_f"):
        loaded.load_state_dict({n: t for n, t in model.state_dict().items() if n != "final_norm.scale"})


def test_the_books_own_class_gives_the_same_logits(config):
    ch04 = pytest.importorskip("llms_from_scratch.ch04", reason="the book's package is not installed")
    torch.manual_seed(5)
    book_model = ch04.GPTModel(config).eval()
    torch.manual_seed(5)
    tokenloom_model = GPTModel(config).eval()
    ids = torch.arange(30).view(2, 15)
    torch.testing.assert_close(
        tokenloom_model(ids), book_model(ids), rtol=0, atol=1e-5
    )  # fused products sum in another order
    book_model.load_state_dict(tokenloom_model.state_dict())
    assert list(tokenloom_model.state_dict()) == list(book_model.state_dict())


@pytest.mark.parametrize("change", [{"emb_dims": 3}, {"n_heads": None}])
def test_a_missing_or_unsupported_configuration_key_is_named(config, change):
    changed = {key: value for key, value in {**config, **change}.items() if value is not None}
    with pytest.raises(UsageError, match=next(iter(change))):
        GPTModel(changed)


def test_assign_rejects_another_shape():
    assert torch.equal(assign(torch.zeros(2, 3), np.ones((2, 3))), torch.ones(2, 3))
    with pytest.raises(WeightsError, match="Shape mismatch"):
        assign(torch.zeros(2, 3), np.ones((3, 2)))


def openai_parameters(width=48, layers=2, vocabulary=50257, context=32):
    random = np.random.default_rng(0)

    def array(*shape):
        return random.standard_normal(shape).astype(np.float32) * 0.1

    def linear(inputs, outputs):
        return {"w": array(inputs, outputs), "b": array(outputs)}

    blocks = [
        {
            "attn": {"c_attn": linear(width, 3 * width), "c_proj": linear(width, width)},
            "mlp": {"c_fc": linear(width, 4 * width), "c_proj": linear(4 * width, width)},
            "ln_1": {"g": array(width), "b": array(width)},
            "ln_2": {"g": array(width), "b": array(width)},
        }
        for _ in range(layers)
    ]
    return {"wte": array(vocabulary, width), "wpe": array(context, width), "g": array(width), "b": array(width),
            "blocks": blocks}  # fmt: skip


def test_openai_weights_are_copied_to_the_corresponding_layers(config):
    gpt = GPTModel({**config, "qkv_bias": True})
    params = openai_parameters()
    load_weights_into_gpt(gpt, params)
    state = gpt.state_dict()
    _, k, _ = np.split(params["blocks"][1]["attn"]["c_attn"]["w"], 3, axis=-1)
    assert torch.equal(state["trf_blocks.1.att.W_key.weight"], torch.from_numpy(k.T.copy()))
    assert torch.equal(state["trf_blocks.0.norm1.scale"], torch.from_numpy(params["blocks"][0]["ln_1"]["g"]))
    assert torch.equal(state["out_head.weight"], torch.from_numpy(params["wte"]))


def test_openai_weights_of_another_size_are_rejected(config):
    gpt = GPTModel({**config, "qkv_bias": True})
    with pytest.raises(CheckpointError, match=r"wpe.weight"):
        load_weights_into_gpt(gpt, openai_parameters(context=64))
