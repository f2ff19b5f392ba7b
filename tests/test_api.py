"""The Python API: names of new runs, and errors that need no training."""

import pytest

import tokenloom as tl
from tokenloom import api
from tokenloom.config import Config
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.errors import CheckpointError, UsageError
from tokenloom.weights.checkpoint import save_checkpoint


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("book.txt", "book"),
        ("corpus/", "corpus"),
        ("-", "stdin"),
        ("hf:roneneldan/TinyStories", "TinyStories"),
        ("a b/c d.jsonl.gz", "c-d"),
        ("*.txt", "run"),
    ],
)
def test_a_run_is_named_after_its_data(tmp_path, monkeypatch, source, name):
    monkeypatch.chdir(tmp_path)
    config = Config.of({"data": {"sources": [source]}})
    first = api._new_run_folder(None, config)
    assert first.path.as_posix() == f"runs/{name}"
    assert api._new_run_folder(None, config).path.as_posix() == f"runs/{name}-2"


def test_a_new_run_does_not_use_a_folder_with_files(tmp_path):
    assert api._new_run_folder(tmp_path, Config()).path == tmp_path
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UsageError, match="exists already.*--resume"):
        api._new_run_folder(tmp_path, Config())


def test_resuming_without_a_run_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="there is no run in runs/"):
        tl.resume(quiet=True)


def test_evaluating_a_model_without_a_run_needs_a_text(tmp_path, model_of):
    tokenizer = load_tokenizer("byte")
    model = model_of("gpt2", vocab_size=tokenizer.vocab_size)
    path = save_checkpoint(tmp_path, 1, model, tokenizer, state={}).path
    with pytest.raises(UsageError, match="does not belong to a run. Name a text"):
        tl.evaluate(path, quiet=True)
