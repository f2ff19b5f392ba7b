"""References to models: runs, steps, checkpoints, and errors that list what is available."""

import shutil
from pathlib import Path

import pytest
import torch

from tokenloom.data.tokenizers import make_tokenizer
from tokenloom.errors import CheckpointError
from tokenloom.weights.checkpoint import MANIFEST, save_checkpoint
from tokenloom.weights.load import load

TEXT = "the quick brown fox jumps over the lazy dog. 0123456789"


def flip_last_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


@pytest.fixture
def run(tmp_path, model):
    """A run folder with steps 1, 2 and 3, and a best checkpoint of step 2; the first weight identifies each."""
    tokenizer = make_tokenizer("char", [TEXT])
    config = model.config.model_copy(update={"vocab_size": tokenizer.vocab_size})
    resized = type(model)(config, torch.Generator().manual_seed(0))
    for step, kind in ((1, "step"), (2, "step"), (2, "best"), (3, "step")):
        with torch.no_grad():
            resized.wte.weight[0, 0] = step if kind == "step" else 99
        save_checkpoint(tmp_path / "run" / "checkpoints", step, resized, tokenizer, state={}, kind=kind)
    return tmp_path / "run"


def loaded_step(reference) -> float:
    return load(reference).model.wte.weight[0, 0].item()


def test_a_run_stands_for_its_newest_checkpoint(run):
    loaded = load(run)
    assert loaded.model.wte.weight[0, 0] == 3
    assert loaded.path == run / "checkpoints" / "step-00000003"
    assert loaded.notices == []
    assert loaded.tokenizer.decode(loaded.tokenizer.encode(TEXT)) == TEXT
    assert loaded_step(str(run)) == 3
    assert loaded_step(f"{run}/") == 3


def test_a_corrupt_newest_checkpoint_is_skipped_with_a_notice(run):
    flip_last_bit(run / "checkpoints" / "step-00000003" / "model.safetensors")
    loaded = load(run)
    assert loaded.model.wte.weight[0, 0] == 2
    assert len(loaded.notices) == 1
    assert "step-00000003 is corrupt" in loaded.notices[0]


def test_a_reference_may_name_the_best_a_step_or_a_checkpoint(run):
    assert loaded_step(f"{run}@best") == 99
    assert loaded_step(f"{run}@step-1") == 1
    assert loaded_step(f"{run}@step-00000002") == 2
    assert loaded_step(run / "checkpoints" / "step-00000002") == 2
    assert loaded_step(run / "checkpoints" / "best-00000002") == 99


def test_a_step_may_be_that_of_a_best_checkpoint(run):
    shutil.rmtree(run / "checkpoints" / "step-00000002")
    assert loaded_step(f"{run}@step-2") == 99


def test_the_first_is_the_valid_checkpoint_of_the_lowest_step(run):
    assert loaded_step(f"{run}@first") == 1
    shutil.rmtree(run / "checkpoints" / "step-00000001")
    assert loaded_step(f"{run}@first") == 2  # step-00000002, and best-00000002 is another model here
    flip_last_bit(run / "checkpoints" / "step-00000002" / "model.safetensors")
    loaded = load(f"{run}@first")
    assert loaded.path == run / "checkpoints" / "best-00000002"
    assert [notice.endswith("using the next one") for notice in loaded.notices] == [True]


def test_a_folder_name_may_contain_an_at_sign(run):
    moved = run.rename(run.with_name("me@home"))
    assert loaded_step(moved) == 3
    assert loaded_step(f"{moved}@best") == 99


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("{run}@step-7", r"no checkpoint of step 7\. Available: @step-1, @step-2, @step-3\."),
        ("{run}/absent", "absent does not exist"),
        ("{run}@worst", "@worst does not exist"),
        ("{run}/checkpoints/step-00000001@best", "is not a run folder, so it has no @best"),
        ("{run}/checkpoints/step-00000001/config.json", "is neither a folder nor a file"),
        ("{run}/..", "has no config.json"),
    ],
)
def test_an_invalid_reference_lists_what_is_available(run, reference, message):
    with pytest.raises(CheckpointError, match=message) as refused:
        load(reference.format(run=run))
    assert "\n" not in str(refused.value)


def test_a_run_without_a_valid_checkpoint_is_refused(run):
    for path in (run / "checkpoints").iterdir():
        flip_last_bit(path / "model.safetensors")
    for selector in ("", "@best"):
        with pytest.raises(CheckpointError, match="has no valid checkpoint"):
            load(f"{run}{selector}")
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match="Train the model first"):
        load(run)


@pytest.mark.parametrize("reference", ["{run}@step-2", "{run}/checkpoints/step-00000002"])
def test_a_corrupt_checkpoint_that_is_named_explicitly_is_refused(run, reference):
    flip_last_bit(run / "checkpoints" / "step-00000002" / "model.safetensors")
    with pytest.raises(CheckpointError, match="step-00000002 is corrupt: model.safetensors does not match"):
        load(reference.format(run=run))


def test_a_step_without_a_manifest_is_refused(run):
    (run / "checkpoints" / "step-00000002" / MANIFEST).unlink()
    with pytest.raises(CheckpointError, match=f"{MANIFEST} is missing"):
        load(f"{run}@step-2")


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path, model):
    path = save_checkpoint(tmp_path, 1, model, make_tokenizer("byte"), state={}).path
    with pytest.raises(CheckpointError, match="has 257 tokens, but the model's vocabulary is 60"):
        load(path)
