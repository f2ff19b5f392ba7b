"""Sharded checkpoints: to every reader those of one process, whatever the number of processes that wrote them."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from sharded_processes import MODELS, ROUNDING, Training, new_model, run_processes

from tokenloom.compute.parallel import World
from tokenloom.compute.sharded_tensors import described_by_main, whole_on_main
from tokenloom.data.tokenizers import make_tokenizer
from tokenloom.errors import CheckpointError
from tokenloom.weights import sharded_checkpoint
from tokenloom.weights.checkpoint import find_corruption, list_checkpoints, open_checkpoint, save_checkpoint
from tokenloom.weights.export import export_model
from tokenloom.weights.load import LoadedModel, load_optimizer
from tokenloom.weights.sharded_checkpoint import save_sharded_checkpoint

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")

TOKENIZER = make_tokenizer("byte")
SETTINGS = {"optimizer": "muon"}
SAVED, LAST = 3, 6
STATE = {"tokens": 640}


def start(family, world, checkpoint=None) -> Training:
    """A sharded model and its optimizer, new or from a checkpoint that only the main process reads."""
    model = new_model(family) if checkpoint is None or not world.is_main else checkpoint.model()
    training = Training(model, world, **SETTINGS)
    if checkpoint is not None:
        tensors = checkpoint.optimizer_tensors() if world.is_main else None
        training.optimizer.load_state_tensors(described_by_main(tensors, world))
    return training


def tensors_of(training: Training, world: World) -> dict[str, torch.Tensor]:
    """All tensors, whole, in the main process."""
    named = training.model.state_dict() | training.optimizer.state_tensors()
    return {name: tensor.clone() for name, tensor in whole_on_main(named, world).items()}


def save(folder: Path, training: Training, world: World, step: int = SAVED) -> None:
    optimizer = training.optimizer.state_tensors()
    save_sharded_checkpoint(folder, step, training.model, TOKENIZER, world, state=STATE, optimizer=optimizer)


def saves_and_trains_on(world: World, folder: Path) -> None:
    """Two processes train, save and train on; then the same from the checkpoint."""
    figures = {}
    for family in MODELS:
        training = start(family, world)
        training.steps(0, SAVED)
        saved = tensors_of(training, world)
        save(folder / family, training, world)
        losses = training.steps(SAVED, LAST)
        resumed = start(family, world, open_checkpoint(folder / family / f"step-{SAVED:08d}"))
        figures[family] = losses, resumed.steps(SAVED, LAST)
        figures[f"{family}/from one file"] = reads_one_file(folder, family, world)
        last, again = tensors_of(training, world), tensors_of(resumed, world)
        if world.is_main:
            save_file(saved, folder / f"{family}-saved.safetensors")
            save_file(last, folder / f"{family}-last.safetensors")
            save_file(again, folder / f"{family}-resumed.safetensors")
    figures["full disk"] = error_of_a_full_disk(folder / "full", training, world)
    (folder / f"saved-{world.rank}.json").write_text(json.dumps(figures))


def reads_one_file(folder: Path, family: str, world: World) -> bool:
    """Whether the processes get the tensors of a checkpoint that one process has written."""
    checkpoint = open_checkpoint(folder / family / f"step-{SAVED:08d}")
    if world.is_main:
        tensors, single = checkpoint.optimizer_tensors(), folder / "single" / family
        save_checkpoint(single, SAVED, checkpoint.model(), TOKENIZER, state=STATE, optimizer=tensors)
    world.barrier()
    checkpoint = open_checkpoint(folder / "single" / family / f"step-{SAVED:08d}")
    read = tensors_of(start(family, world, checkpoint), world)
    written = checkpoint.model().state_dict() | checkpoint.optimizer_tensors()
    return all(torch.equal(tensor, written[name]) for name, tensor in read.items())


def error_of_a_full_disk(folder: Path, training: Training, world: World) -> list[str]:
    def full_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write = sharded_checkpoint.save_tensors
    if world.rank == 1:
        sharded_checkpoint.save_tensors = full_disk
    try:
        save(folder, training, world)
    except CheckpointError as error:
        return [type(error).__name__, str(error)]
    finally:
        sharded_checkpoint.save_tensors = write
    return []


def saves_what_two_have_saved(world: World, folder: Path) -> None:
    for family in MODELS:
        checkpoint = open_checkpoint(folder / family / f"step-{SAVED:08d}")
        training = start(family, world, checkpoint)
        save(folder / "four" / family, training, world)
        losses = training.steps(SAVED, LAST)
        (folder / "four" / f"{family}-{world.rank}.json").write_text(json.dumps(losses))


@pytest.fixture(scope="module")
def written(two_processes):
    """The folder with a checkpoint of each family, written by two processes, and the figures of each process."""
    return two_processes, [json.loads((two_processes / f"saved-{rank}.json").read_text()) for rank in range(2)]


def checkpoint_of(folder, family):
    return open_checkpoint(folder / family / f"step-{SAVED:08d}")


@pytest.mark.parametrize("family", MODELS)
def test_one_process_reads_what_two_have_written(written, family):
    folder, _ = written
    saved = load_file(folder / f"{family}-saved.safetensors")
    checkpoint = checkpoint_of(folder, family)
    names = {file.name for file in checkpoint.path.iterdir()}
    assert {"model-00001-of-00002.safetensors", "optimizer-00002-of-00002.safetensors"} <= names
    assert "model.safetensors" not in names
    read = checkpoint.model().state_dict() | checkpoint.optimizer_tensors()
    assert read.keys() == saved.keys()
    for name, tensor in saved.items():
        assert torch.equal(read[name], tensor), name
    assert load_optimizer(checkpoint.path).keys() == checkpoint.optimizer_tensors().keys()
    assert checkpoint.state() == {"format": 1, "step": SAVED, **STATE}


@pytest.mark.parametrize("family", MODELS)
def test_shards_have_about_the_same_size(written, family):
    first, second = (
        file.stat().st_size for file in sorted(checkpoint_of(written[0], family).path.glob("model-*.safetensors"))
    )
    assert 0.5 < first / second < 2


@pytest.mark.parametrize("family", MODELS)
def test_the_same_processes_resume_bit_for_bit(written, family):
    folder, figures = written
    for losses, resumed in (figure[family] for figure in figures):
        assert resumed == losses
    last, resumed = (load_file(folder / f"{family}-{when}.safetensors") for when in ("last", "resumed"))
    assert last.keys() == resumed.keys()
    for name, tensor in last.items():
        assert torch.equal(resumed[name], tensor), name


@pytest.mark.parametrize("family", MODELS)
def test_two_processes_read_what_one_has_written(written, family):
    assert [figures[f"{family}/from one file"] for figures in written[1]] == [True, True]


@pytest.mark.parametrize("family", MODELS)
def test_one_process_resumes_what_two_have_trained(written, family):
    folder, figures = written
    checkpoint = checkpoint_of(folder, family)
    training = Training(checkpoint.model(), World(), **SETTINGS)
    training.optimizer.load_state_tensors(checkpoint.optimizer_tensors())
    assert training.steps(SAVED, LAST) == pytest.approx(figures[0][family][0], abs=ROUNDING["muon"])


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("format", ["hf", "pth"])
def test_the_export_is_that_of_a_checkpoint_of_one_process(written, tmp_path, family, format):
    folder, _ = written
    sharded = checkpoint_of(folder, family)
    single = save_checkpoint(tmp_path, SAVED, sharded.model(), TOKENIZER, state=STATE)
    exported = []
    for name, checkpoint in (("a", sharded), ("b", single)):
        out = tmp_path / (name if format == "hf" else f"{name}.pth")
        export_model(LoadedModel(checkpoint.model(), TOKENIZER, Path("run")), out, format)
        exported.append(
            {file.name: file.read_bytes() for file in out.iterdir()}
            if format == "hf"
            else torch.load(out, weights_only=True)
        )
    if format == "hf":
        assert exported[0] == exported[1]
    else:
        states = [content["model_state_dict"] for content in exported]
        assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_a_change_of_any_file_is_found(written):
    path = checkpoint_of(written[0], "gpt2").path
    for file in sorted(path.glob("*.safetensors*")):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        original = file.read_bytes()
        file.write_bytes(content)
        assert find_corruption(path) == f"{file.name} does not match its sha256"
        file.unlink()
        assert find_corruption(path) == f"{file.name} is missing"
        file.write_bytes(original)
    assert find_corruption(path) is None


def test_a_full_disk_in_one_process_is_an_error_in_all_and_leaves_nothing(written):
    folder, figures = written
    first, second = (figure["full disk"] for figure in figures)
    path = folder / "full" / f"step-{SAVED:08d}"
    message = (
        f"could not write {path}: No space left on device. "
        "Free some space or choose another --out; earlier checkpoints are untouched."
    )
    assert first == second == ["CheckpointError", message]
    assert list((folder / "full").iterdir()) == []
    assert list_checkpoints(folder / "full") == []


@pytest.mark.slow
def test_four_processes_read_and_write_what_two_have_written(written):
    folder, figures = written
    (folder / "four").mkdir()
    run_processes(4, folder, saves_what_two_have_saved)
    for family in MODELS:
        saved = load_file(folder / f"{family}-saved.safetensors")
        checkpoint = checkpoint_of(folder / "four", family)
        assert len(list(checkpoint.path.glob("model-*.safetensors"))) == 4
        read = checkpoint.model().state_dict() | checkpoint.optimizer_tensors()
        for name, tensor in saved.items():
            assert torch.equal(read[name], tensor), name
        for rank in range(4):
            losses = json.loads((folder / "four" / f"{family}-{rank}.json").read_text())
            assert losses == pytest.approx(figures[0][family][0], abs=ROUNDING["muon"])
