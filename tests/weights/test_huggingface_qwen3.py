"""Qwen3 folders that transformers wrote load with the same logits, and transformers opens what Tokenloom writes."""

import json

import pytest
import tokenizers
import torch
import transformers

from tokenloom import api
from tokenloom.data.tokenizers import make_tokenizer
from tokenloom.errors import CheckpointError, WeightsError
from tokenloom.generation.engine import collect, generate
from tokenloom.sampling_params import SamplingParams
from tokenloom.weights.folder import read_folder, write_folder
from tokenloom.weights.gguf_tokenizer import _QWEN2_PATTERN
from tokenloom.weights.load import LoadedModel, load

gguf = pytest.importorskip("gguf")
IDS = torch.arange(16)[None]
SHAPE = {
    "vocab_size": 60,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 64,
    "rope_parameters": {"rope_type": "default", "rope_theta": 50_000.0},
}
TEXTS = ["all work and no play makes Jack a dull boy. Grüße! "] * 9


def new_qwen3(**changes):
    torch.manual_seed(0)
    model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**{**SHAPE, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # large enough that every weight affects the logits
            parameter += 0.3 * torch.randn(parameter.shape)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "changes",
    [{}, {"tie_word_embeddings": True}, {"num_key_value_heads": 4}, {"num_key_value_heads": 1}, {"rms_norm_eps": 1e-5}],
)
def test_a_folder_of_transformers_has_the_same_logits(tmp_path, changes, dtype):
    new_qwen3(**changes).to(dtype).save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    torch.testing.assert_close(read_folder(tmp_path).read()(IDS), theirs(IDS).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe:300", "gpt2"])
def test_transformers_opens_a_checkpoint_and_generates_the_same(model_of, tmp_path, tokenizer, tied):
    tokenizer = make_tokenizer(tokenizer, TEXTS)
    model = model_of("modern", vocab_size=tokenizer.vocab_size, block_size=256, tie_embeddings=tied)
    api.export(LoadedModel(model, tokenizer, tmp_path), tmp_path / "out", license="mit")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    torch.testing.assert_close(theirs(IDS).logits, model(IDS), rtol=0, atol=1e-4)
    prompt = tokenizer.encode("all work")
    ours = collect(generate(model, [prompt], max_new_tokens=200, sampling=SamplingParams(temperature=0.0), seed=0))
    ids = theirs.generate(torch.tensor([prompt]), max_new_tokens=200, do_sample=False, eos_token_id=None)
    assert ours[0].token_ids == ids[0, len(prompt) :].tolist()
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in ("all work. Grüße!", " two  spaces\n\nand lines\n"):
        assert opened(text).input_ids == tokenizer.encode(text)
        assert opened.decode(tokenizer.encode(text), clean_up_tokenization_spaces=False) == text
    assert load(tmp_path / "out").tokenizer.fingerprint == tokenizer.fingerprint


def test_training_continues_from_a_folder_made_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKENLOOM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("".join(TEXTS) * 20)
    tokenizer = make_tokenizer("bpe:300", TEXTS)
    theirs = new_qwen3(vocab_size=tokenizer.vocab_size)
    theirs.save_pretrained(tmp_path / "qwen3", max_shard_size="10KB")
    tokenizer.save(tmp_path / "qwen3")
    settings = {"train": {"max_steps": 2, "batch_size": 2, "device": "cpu"}, "model": {"block_size": 32}}
    api.train(tmp_path / "text.txt", out=tmp_path / "run", init_from=tmp_path / "qwen3", settings=settings, quiet=True)
    assert api.evaluate(tmp_path / "run", quiet=True).loss > 0
    assert api.generate(tmp_path / "run", "all", max_new_tokens=3)
    opened = transformers.AutoModelForCausalLM.from_pretrained(load(tmp_path / "run").path)
    assert isinstance(opened, transformers.Qwen3ForCausalLM)


@pytest.fixture(scope="module")
def qwen_tokenizer():
    """A small tokenizer of Qwen3's kind: its pattern, NFC, and special tokens after the vocabulary."""
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.normalizer = tokenizers.normalizers.NFC()
    core.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(_QWEN2_PATTERN), "isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(TEXTS, trainer)
    core.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )


def test_qwen3s_tokenizer_has_the_same_ids_in_every_format(tmp_path, qwen_tokenizer):
    new_qwen3(vocab_size=320).save_pretrained(tmp_path / "qwen3")
    qwen_tokenizer.save_pretrained(tmp_path / "qwen3")
    loaded = load(tmp_path / "qwen3")
    assert "NFC" in loaded.notices[0]
    api.export(loaded, tmp_path / "out", license="mit")
    api.export(loaded, tmp_path / "model.gguf", quantization="f32")
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    assert fields["tokenizer.ggml.pre"].contents() == "qwen2"
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    others = [load(tmp_path / "out").tokenizer, load(tmp_path / "model.gguf").tokenizer]
    for text in ("all work 123 boy's\n\n  Grüße, 世界\r\n", "<|im_start|>user\nno play<|im_end|>"):
        expected = qwen_tokenizer(text).input_ids
        assert loaded.tokenizer.encode(text) == expected
        assert opened(text).input_ids == expected
        assert [other.encode(text) for other in others] == [expected, expected]
    assert {other.eot_text for other in others} == {"<|im_end|>"}
    decomposed = "u\u0308"
    assert loaded.tokenizer.decode(loaded.tokenizer.encode(decomposed)) == decomposed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"attention_bias": True}, "attention_bias True"),
        ({"use_sliding_window": True}, "use_sliding_window True"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, 'rotary positions of type "yarn"'),
        (
            {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}},
            'rotary positions of type "linear"',
        ),
    ],
)
def test_settings_that_change_the_computation_are_refused(tmp_path, changes, message):
    new_qwen3().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(WeightsError, match=message):
        read_folder(tmp_path)


def test_a_missing_setting_and_another_architecture_are_named(tmp_path):
    new_qwen3().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["hidden_size"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="config.json has no 'hidden_size'"):
        read_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "llama"}))
    with pytest.raises(CheckpointError, match='contains a "llama", which is not supported. Use a GPT-2 or a Qwen3'):
        read_folder(tmp_path)


def test_settings_without_rope_parameters_have_their_defaults(tmp_path):
    """As files of transformers 4 have them."""
    theirs = new_qwen3(rope_parameters={"rope_type": "default", "rope_theta": 10_000.0})
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["rope_parameters"]
    for changes in ({"rope_theta": 10_000.0}, {}):
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
        torch.testing.assert_close(read_folder(tmp_path).read()(IDS), theirs(IDS).logits, rtol=0, atol=1e-4)


def test_dropout_is_kept(model_of, tmp_path):
    write_folder(tmp_path, model_of("modern", dropout=0.1), eot_id=0)
    assert read_folder(tmp_path).config.dropout == 0.1
