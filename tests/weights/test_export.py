"""Exported models open in other libraries, and load back unchanged."""

import os

import pytest
import torch

from tokenloom import api
from tokenloom.book import GPTModel
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.errors import CheckpointError, TokenizerError, UsageError, WeightsError
from tokenloom.weights.export import export_model
from tokenloom.weights.load import LoadedModel, load

os.environ["HF_HUB_OFFLINE"] = "1"  # transformers reads only local files
transformers = pytest.importorskip("transformers")
IDS = torch.arange(16)[None]


@pytest.fixture
def loaded(model_of, tmp_path):
    tokenizer = load_tokenizer("byte")
    return LoadedModel(model_of("gpt2", vocab_size=tokenizer.vocab_size + 7), tokenizer, tmp_path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    (place / "good.txt").write_text("all work and no play makes Jack a dull boy\n" * 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENLOOM_CACHE", str(place / "cache"))
        shape = {"family": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 8}
        train = {"max_steps": 2, "batch_size": 2, "seed": 99}
        settings = {"model": shape, "train": train}
        summary = api.train(place / "good.txt", out=place / "run", quiet=True, tokenizer="byte", settings=settings)
    return place / "run", summary


def test_a_folder_for_hugging_face_opens_there(loaded, tmp_path):
    export_model(loaded, tmp_path / "out", "hf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    # The documented tolerance in fp32: the same products are computed in another layout.
    torch.testing.assert_close(theirs(IDS).logits, loaded.model(IDS), rtol=0, atol=1e-4)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("Grüße, 世界").input_ids == loaded.tokenizer.encode("Grüße, 世界")
    again = load(tmp_path / "out")
    assert again.tokenizer.fingerprint == loaded.tokenizer.fingerprint
    assert torch.equal(again.model(IDS), loaded.model(IDS))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("name", ["gpt2", "modern"])
def test_a_pth_loads_back_unchanged(model_of, tmp_path, name):
    tokenizer = load_tokenizer("byte")
    model = model_of(name, vocab_size=tokenizer.vocab_size)
    (notice,) = export_model(LoadedModel(model, tokenizer, tmp_path), tmp_path / "model.pth", "pth")
    assert "contains no tokenizer. Copy " in notice
    with pytest.raises(TokenizerError, match=r"the 257 tokens of model\.pth are not those of gpt2\. Copy"):
        load(tmp_path / "model.pth")
    tokenizer.save(tmp_path)
    again = load(tmp_path / "model.pth")
    assert again.model.config == model.config
    assert torch.equal(again.model(IDS), model(IDS))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_the_books_model_loads_it_strictly(model_of, tmp_path, tied, qkv_bias):
    tokenizer = load_tokenizer("gpt2")
    shape = {"vocab_size": 50257, "tie_embeddings": tied, "qkv_bias": qkv_bias}
    model = model_of("gpt2", **shape)
    assert export_model(LoadedModel(model, tokenizer, tmp_path), tmp_path / "model.pth", "book") == []
    settings = {"vocab_size": 50257, "context_length": 16, "emb_dim": 16, "n_heads": 2, "n_layers": 2}
    classes = [GPTModel]
    try:
        from llms_from_scratch.ch04 import GPTModel as BookGPTModel

        classes.append(BookGPTModel)
    except ImportError:
        pass  # the book's package is optional: `tokenloom.book` has the same names and order
    for cls in classes:
        book = cls({**settings, "drop_rate": 0.0, "qkv_bias": qkv_bias})
        book.load_state_dict(torch.load(tmp_path / "model.pth", weights_only=True))
        # One fused product sums in another order than the book's three.
        torch.testing.assert_close(book.eval()(IDS), model(IDS), rtol=0, atol=1e-4)


def test_a_model_without_a_run_is_not_said_to_be_trained_here(loaded, tmp_path):
    export_model(loaded, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "A GPT-2 exported with Tokenloom" in card
    assert "trained with Tokenloom" not in card


def test_the_model_card_reports_the_training_run(run, tmp_path):
    folder, summary = run
    api.export(folder, tmp_path / "out", license="apache-2.0")
    card = (tmp_path / "out" / "README.md").read_text()
    for fact in (
        "apache-2.0",
        "good.txt",
        "| seed | 99 |",
        "| steps | 2 |",
        f"{summary.val_loss:.4f}",
        "`tokenloom",
        "A GPT-2 trained with Tokenloom",
    ):
        assert fact in card
    assert "initialized from" not in card
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.n_ctx == 8


def test_existing_files_are_not_overwritten(loaded, tmp_path):
    (tmp_path / "model.pth").write_text("the only copy")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("the only copy")
    for out, format in (("model.pth", "pth"), ("model.pth", "book"), ("full", "hf")):
        with pytest.raises(UsageError, match="already exists"):
            export_model(loaded, tmp_path / out, format)
    assert (tmp_path / "model.pth").read_text() == "the only copy"


def test_a_failed_export_leaves_no_files(loaded, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    monkeypatch.setattr("safetensors.torch.save_file", full)
    for out, format in (("model.pth", "pth"), ("out", "hf")):
        with pytest.raises(CheckpointError, match="No space left"):
            export_model(loaded, tmp_path / out, format)
    assert list(tmp_path.iterdir()) == []


def test_the_books_format_is_refused_for_a_modern_model(model_of, tmp_path):
    tokenizer = load_tokenizer("byte")
    loaded = LoadedModel(model_of("modern", vocab_size=tokenizer.vocab_size), tokenizer, tmp_path)
    with pytest.raises(WeightsError, match="modern family cannot be exported as book"):
        export_model(loaded, tmp_path / "out.pth", "book")
