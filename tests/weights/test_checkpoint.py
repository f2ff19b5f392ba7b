"""Checkpoints: complete or absent, restored bit for bit, verified before use."""

import json
from pathlib import Path

import pytest
import torch
from checkpoints import STATE, NamelessTokenizer, contents, save, tiny_gpt2
from torch import nn

from tokenloom import storage
from tokenloom.config import TrainConfig
from tokenloom.data.tokenizers import load_tokenizer, make_tokenizer
from tokenloom.errors import CheckpointError
from tokenloom.training.optimizer import Optimizer
from tokenloom.weights.checkpoint import (
    MANIFEST,
    Checkpoint,
    checkpoint_path,
    find_corruption,
    list_checkpoints,
    newest_checkpoint,
    open_checkpoint,
    rotate_best,
    rotate_checkpoints,
    save_checkpoint,
    write_manifest,
)
from tokenloom.weights.folder import read_folder

FILES = {
    "config.json",
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "tokenizer.json",
    "tokenizer_config.json",
    MANIFEST,
}


def trained_optimizer(model, **options) -> Optimizer:
    optimizer = Optimizer(model, TrainConfig(**options))
    ids = torch.randint(0, 50, (2, 2, 8), generator=torch.Generator().manual_seed(3))
    for step in range(2):
        optimizer.zero_grad()
        model.loss(*ids).backward()
        optimizer.step(step)
    return optimizer


def flip(file: Path, position: int = -1, bit: int = 1) -> None:
    data = bytearray(file.read_bytes())
    data[position] ^= bit
    file.write_bytes(data)


# Round trip


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("family", ["gpt2", "modern"])
def test_everything_is_restored_bit_for_bit(tmp_path, model_of, family, tied, optimizer):
    model = model_of(family, tie_embeddings=tied).train()
    tensors = trained_optimizer(model, optimizer=optimizer).state_tensors()
    saved = save_checkpoint(tmp_path, 7, model, NamelessTokenizer(), state=STATE, optimizer=tensors)
    opened = open_checkpoint(saved.path)
    assert saved.path == tmp_path / "step-00000007"
    assert opened.step == 7
    assert opened.state() == {"format": 1, "step": 7, **STATE}

    again = opened.model()
    assert again.config == model.config
    assert not again.training
    assert again.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert (again.lm_head.weight is again.wte.weight) == tied
    ids = torch.arange(16)[None]
    assert torch.equal(again(ids), model.eval()(ids))

    restored = opened.optimizer_tensors()
    assert restored.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(restored[name], tensor), name
        assert restored[name].dtype == tensor.dtype


@pytest.mark.parametrize("family", ["gpt2", "modern"])
def test_a_model_without_query_biases_is_restored_without(tmp_path, model_of, family):
    model = model_of(family, qkv_bias=False) if family == "gpt2" else model_of(family)
    again = read_folder(save(tmp_path, model=model).path).read()
    assert again.state_dict().keys() == model.state_dict().keys()
    assert again.config == model.config


def test_a_loaded_model_can_be_trained(tmp_path, model):
    again = read_folder(save(tmp_path, model=model).path).read().train()
    trained_optimizer(again)
    assert any(not torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_a_saved_model_is_not_changed_by_saving(tmp_path, model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save(tmp_path, model=model.train())
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_checkpoint_may_have_no_optimizer_state(tmp_path):
    saved = save(tmp_path, kind="best")
    assert saved.path.name == "best-00001000"
    assert saved.step == 1000
    assert saved.optimizer_tensors() == {}
    assert list_checkpoints(tmp_path) == []
    assert list_checkpoints(tmp_path, "best") == [saved.path]


# What is in the folder


def test_a_checkpoint_is_safetensors_and_json_and_nothing_else(tmp_path, model):
    tokenizer = make_tokenizer("byte")
    tensors = trained_optimizer(model).state_tensors()
    path = save_checkpoint(tmp_path, 1, model, tokenizer, state=STATE, optimizer=tensors).path
    assert set(contents(path)) == FILES
    for name, data in contents(path).items():
        if name.endswith(".json"):
            json.loads(data)
        else:  # safetensors: the length of a JSON header, then the header
            length = int.from_bytes(data[:8], "little")
            json.loads(data[8 : 8 + length])
    assert load_tokenizer(path).fingerprint == tokenizer.fingerprint


def test_the_manifest_lists_size_and_digest_of_every_other_file_and_is_written_last(tmp_path, monkeypatch):
    flushed = []
    fsync = storage.fsync
    monkeypatch.setattr(storage, "fsync", lambda path: (flushed.append(path.name), fsync(path)))
    path = save(tmp_path).path
    manifest = json.loads((path / MANIFEST).read_text())
    assert set(manifest["files"]) == set(contents(path)) - {MANIFEST}
    assert max(path.iterdir(), key=lambda file: file.stat().st_mtime_ns).name == MANIFEST
    assert {name for name in flushed if (path / name).is_file()} == set(contents(path))
    assert flushed[-2:] == [".step-00001000.tmp", tmp_path.name]  # the folders too
    assert find_corruption(path) is None


# Corruption


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("corruption", ["removed", "truncated", "emptied", "flipped", "lengthened"])
def test_corruption_of_any_file_is_detected_and_the_previous_checkpoint_is_used(tmp_path, name, corruption):
    model = tiny_gpt2()
    tokenizer = make_tokenizer("byte")
    tensors = trained_optimizer(model).state_tensors()
    for step in (1, 2):
        save_checkpoint(tmp_path, step, model, tokenizer, state=STATE, optimizer=tensors)
    file = tmp_path / "step-00000002" / name
    data = file.read_bytes()
    corruptions = {
        "removed": file.unlink,
        "truncated": lambda: file.write_bytes(data[: len(data) // 2]),
        "emptied": lambda: file.write_bytes(b""),
        "flipped": lambda: flip(file, len(data) // 2),
        "lengthened": lambda: file.write_bytes(data + b"x"),
    }
    corruptions[corruption]()
    problem = find_corruption(file.parent)
    assert problem
    assert name == MANIFEST or name in problem
    with pytest.raises(CheckpointError, match="is corrupt"):
        open_checkpoint(file.parent)
    newest, (notice,) = newest_checkpoint(tmp_path)
    assert newest.step == 1
    assert str(file.parent) in notice
    assert problem in notice


def test_every_flipped_bit_of_the_manifest_is_detected(tmp_path):
    """Except where it changes only white space."""
    path = save(tmp_path).path
    file = path / MANIFEST
    parsed, original = json.loads(file.read_text()), file.read_bytes()
    for position in range(len(original)):
        for bit in (1, 2, 4, 32, 128):
            flip(file, position, bit)
            problem = find_corruption(path)
            assert problem or json.loads(file.read_text()) == parsed, (position, bit)
            file.write_bytes(original)


@pytest.mark.parametrize(
    "content", ["[]", "{}", "3", '{"files": []}', '{"files": {"a": 1}}', '{"format": 99, "files": {}}']
)
def test_a_manifest_of_another_form_is_corrupt(tmp_path, content):
    path = save(tmp_path).path
    (path / MANIFEST).write_text(content)
    assert find_corruption(path)


def test_without_a_valid_checkpoint_there_is_a_notice_for_each(tmp_path):
    for step in (1, 2, 3):
        (save(tmp_path, step).path / MANIFEST).unlink()
    newest, notices = newest_checkpoint(tmp_path)
    assert newest is None
    assert [f"{step:08d}" in notice for step, notice in zip((3, 2, 1), notices, strict=True)] == [True] * 3


def test_an_empty_or_missing_folder_has_no_checkpoint(tmp_path):
    assert newest_checkpoint(tmp_path) == (None, [])
    assert newest_checkpoint(tmp_path / "absent") == (None, [])


def test_checkpoints_are_ordered_by_number_and_other_folders_ignored(tmp_path):
    steps = (99_999_999, 100_000_000, 5)
    for step in steps:
        save(tmp_path, step)
    for name in ("step-", "step-12", "step-0000000x", ".step-00000009.tmp", "best-00000001"):
        (tmp_path / name).mkdir()
    assert [int(path.name[5:]) for path in list_checkpoints(tmp_path)] == sorted(steps)
    assert newest_checkpoint(tmp_path)[0].step == 100_000_000


# Rotation


def remaining_steps(folder: Path) -> list[int]:
    return [int(path.name[5:]) for path in list_checkpoints(folder)]


def test_rotation_keeps_the_newest(tmp_path):
    for step in range(1, 6):
        save(tmp_path, step)
        save(tmp_path, step, kind="best")
    rotate_checkpoints(tmp_path, 2)
    assert remaining_steps(tmp_path) == [4, 5]
    assert len(list_checkpoints(tmp_path, "best")) == 5
    rotate_checkpoints(tmp_path, 2)
    assert remaining_steps(tmp_path) == [4, 5]


@pytest.mark.parametrize(("best", "kept"), [(1, [1]), (2, [1, 2]), (4, [1, 4])])
def test_of_the_best_checkpoints_the_first_and_the_one_that_is_named_are_kept(tmp_path, best, kept):
    for step in range(1, 5):
        save(tmp_path, step, kind="best")
    rotate_best(tmp_path, checkpoint_path(tmp_path, best, "best"))
    assert [Checkpoint(path).step for path in list_checkpoints(tmp_path, "best")] == kept


def test_rotation_never_removes_the_newest_valid_one(tmp_path):
    for step in range(1, 6):
        save(tmp_path, step)
    for step in (3, 4, 5):
        flip(tmp_path / f"step-{step:08d}" / "model.safetensors")
    rotate_checkpoints(tmp_path, 1)
    assert remaining_steps(tmp_path) == [2, 5]
    assert newest_checkpoint(tmp_path)[0].step == 2


def test_a_manifest_verifies_any_folder(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_text("x")
    write_manifest(tmp_path)
    assert find_corruption(tmp_path) is None
    (tmp_path / "deep" / "file").write_text("y")
    assert find_corruption(tmp_path) == "deep/file does not match its sha256"


def test_weights_that_are_not_contiguous_are_saved(tmp_path, model):
    """Weights that are not contiguous, such as transposed ones, are written in full."""
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().T.contiguous().T)
    again = read_folder(save(tmp_path, model=model).path).read()
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
