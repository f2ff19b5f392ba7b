"""Parity with transformers in both directions: logits, losses, and two hundred greedy tokens."""

import os

import pytest
import torch

from tokenloom.config import ModelConfig
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.generation.engine import collect, generate
from tokenloom.model.gpt2 import GPT2
from tokenloom.sampling_params import SamplingParams
from tokenloom.weights.export import export_model
from tokenloom.weights.folder import read_folder
from tokenloom.weights.load import LoadedModel, load

os.environ["HF_HUB_OFFLINE"] = "1"  # transformers reads only local files
transformers = pytest.importorskip("transformers")

TOKENS = 200
SHAPES = [
    pytest.param({"vocab_size": 2000, "block_size": 256, "n_layer": 3, "n_head": 4, "n_embd": 64}, id="small"),
    pytest.param({"vocab_size": 2000, "block_size": 208, "n_layer": 2, "n_head": 12, "n_embd": 96}, id="many heads"),
    pytest.param(
        {"vocab_size": 50257, "block_size": 1024, "n_layer": 12, "n_head": 12, "n_embd": 768},
        id="124M",
        marks=pytest.mark.slow,
    ),
]


def perturbed(model, scale):
    """Perturb the weights so that attention matters and few tokens have almost equal probabilities."""
    random = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=random)
    return model.eval()


@torch.no_grad()
def assert_parity(model, reference, distinct):
    config = model.config
    T = min(config.block_size, 256)
    ids = torch.randint(0, config.vocab_size, (2, T + 1), generator=torch.Generator().manual_seed(3))
    logits, expected = model(ids[:, :-1]), reference(ids[:, :-1]).logits
    assert expected.std() > 0.3
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)

    loss = model.loss(ids[:, :-1], ids[:, 1:]).item()
    # transformers shifts the labels itself, so its last id has no target.
    same = model.loss(ids[:, :-2], ids[:, 1:-1]).item()
    assert same == pytest.approx(reference(ids[:, :-1], labels=ids[:, :-1]).loss.item(), rel=1e-6)
    expected_loss = torch.nn.functional.cross_entropy(expected.double().flatten(0, 1), ids[:, 1:].flatten())
    assert loss == pytest.approx(expected_loss.item(), rel=1e-6)

    prompt = ids[:1, :8]
    expected_ids = {
        cached: reference.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=TOKENS,
            min_new_tokens=TOKENS,
            do_sample=False,
            use_cache=cached,
        )[0, 8:].tolist()
        for cached in (True, False)
    }
    for cached in (True, False):
        steps = generate(
            model,
            prompt.tolist(),
            max_new_tokens=TOKENS,
            sampling=SamplingParams(temperature=0.0),
            seed=0,
            use_cache=cached,
        )
        (completion,) = collect(steps)
        assert completion.token_ids == expected_ids[cached]
    assert len(set(expected_ids[True])) >= distinct, "a repetitive text tests little"


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_exported_to_transformers(shape, tmp_path):
    config = ModelConfig(family="gpt2", tie_embeddings=False, **shape)
    model = perturbed(GPT2(config, torch.Generator().manual_seed(7)), 0.05)
    export_model(LoadedModel(model, load_tokenizer("byte"), tmp_path), tmp_path / "out", "hf", license="mit")
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    reference.generation_config.eos_token_id = None  # generate all two hundred tokens
    assert_parity(model, reference, distinct=20)
    again = load(tmp_path / "out").model.state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_saved_by_transformers(shape, tied, tmp_path):
    torch.manual_seed(5)
    sizes = {"n_positions": shape["block_size"]} | {k: v for k, v in shape.items() if k != "block_size"}
    sizes["tie_word_embeddings"] = tied
    reference = perturbed(transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)), 0.05)
    reference.generation_config.eos_token_id = None
    reference.save_pretrained(tmp_path / "reference")
    # With tied random weights, the last token tends to be repeated.
    assert_parity(read_folder(tmp_path / "reference").read(), reference, distinct=2 if tied else 20)
