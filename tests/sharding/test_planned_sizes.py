"""What two processes allocate, send and write is what the plan says."""

import json
from contextlib import contextmanager

import pytest
import torch.distributed as dist
from sharded_processes import BATCH, MICRO_BATCH, MODELS, TOKENS, Training, new_model, run_processes
from test_sharded_checkpoint import SAVED

from tokenloom.compute.parallel import World
from tokenloom.compute.replicas import Replicas
from tokenloom.compute.sharded_tensors import local
from tokenloom.config import Config
from tokenloom.data.batches import Batches
from tokenloom.training.memory import state_bytes
from tokenloom.training.plan import Ranks, make_plan
from tokenloom.training.tensors import run_tensors

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")

OPTIMIZERS = ("adamw", "muon")
CASES = [(family, optimizer) for family in MODELS for optimizer in OPTIMIZERS]
PROCESSES = 2


def settings_of(family, optimizer, strategy):
    return {
        "model": MODELS[family].model_dump(),
        "train": {
            "batch_size": BATCH,
            "micro_batch_size": MICRO_BATCH,
            "optimizer": optimizer,
            "strategy": strategy,
            "device": "cpu",
            "precision": "fp32",
        },
    }


def plan_of(family, optimizer, strategy):
    return make_plan(Ranks(1, PROCESSES), 10**9, settings=settings_of(family, optimizer, strategy))


@contextmanager
def counted_bytes():
    """The bytes that this process receives from the other one, by collective operation, while the context is active."""
    counts = dict.fromkeys(("all_gather", "reduce_scatter", "all_reduce", "muon"), 0)
    originals = {
        name: getattr(dist, name)
        for name in ("all_gather_single", "reduce_scatter_single", "all_reduce", "all_to_all_single")
    }

    def size_of(tensor) -> int:
        return tensor.numel() * tensor.itemsize

    def all_gather(output_tensor, input_tensor, **options):
        counts["all_gather"] += size_of(output_tensor) - size_of(input_tensor)
        return originals["all_gather_single"](output_tensor, input_tensor, **options)

    def reduce_scatter(output, input, **options):
        counts["reduce_scatter"] += size_of(input) - size_of(output)
        return originals["reduce_scatter_single"](output, input, **options)

    def all_reduce(tensor, **options):
        if tensor.numel() > 1:  # not the loss and the norm
            counts["all_reduce"] += 2 * (PROCESSES - 1) * size_of(tensor) // PROCESSES
        return originals["all_reduce"](tensor, **options)

    def all_to_all(output, input, output_splits, input_splits, **options):
        rank = dist.get_rank(options["group"])
        received, sent = (sum(splits) - splits[rank] for splits in (output_splits, input_splits))
        counts["muon"] += max(received, sent) * output.itemsize
        return originals["all_to_all_single"](output, input, output_splits, input_splits, **options)

    try:
        for name, replacement in zip(originals, (all_gather, reduce_scatter, all_reduce, all_to_all), strict=True):
            setattr(dist, name, replacement)
        yield counts
    finally:
        for name, original in originals.items():
            setattr(dist, name, original)


def storage_bytes(tensors) -> int:
    """The bytes of memory that tensors have, those that several of them share once."""
    storages = {local(tensor).untyped_storage().data_ptr(): local(tensor).untyped_storage() for tensor in tensors}
    return sum(storage.nbytes() for storage in storages.values())


def allocates_and_sends(world: World, folder) -> None:
    """Figures of one step of each case, with fsdp and with ddp."""
    figures = {}
    for family, optimizer in CASES:
        training = Training(new_model(family), world, optimizer=optimizer)
        training.steps(0, 1)  # before the first step there is no state
        with counted_bytes() as counts:
            training.steps(1, 2)
        figures[f"{family}/{optimizer}/fsdp"] = figures_of(training.model, training.optimizer, counts)
        figures[f"{family}/{optimizer}/ddp"] = replicated_figures(family, optimizer, world)
    (folder / f"allocated-{world.rank}.json").write_text(json.dumps(figures))


def figures_of(model, optimizer, counts) -> dict[str, int]:
    parameters = list(model.parameters())
    state = [
        tensor for part in optimizer.parts.values() for values in part.state.values() for tensor in values.values()
    ]
    return {
        "weights": storage_bytes(parameters),
        "gradients": storage_bytes(parameter.grad for parameter in parameters),
        "optimizer_state": storage_bytes(state),
        **counts,
    }


def replicated_figures(family, optimizer, world) -> dict[str, int]:
    training = Training(new_model(family), World(), optimizer=optimizer)
    replicas = Replicas(training.model, world)
    batches = Batches(TOKENS, block_size=training.model.config.block_size, batch_size=BATCH, seed=1)
    ids, targets = batches.batch(0, world.rank, world.world_size)
    with counted_bytes() as counts, replicas.micro_batch(is_last=True):
        training.model.loss(ids, targets).backward()
    training.optimizer.step(0)
    return figures_of(training.model, training.optimizer, counts)


@pytest.fixture(scope="module")
def allocated(two_processes):
    """The figures of each process."""
    return [json.loads((two_processes / f"allocated-{rank}.json").read_text()) for rank in range(PROCESSES)]


@pytest.mark.parametrize(("family", "optimizer"), CASES)
@pytest.mark.parametrize("strategy", ["fsdp", "ddp"])
def test_weights_gradients_and_optimizer_state_have_the_planned_bytes(allocated, family, optimizer, strategy):
    memory = plan_of(family, optimizer, strategy).memory
    tensors = run_tensors(Config.of(settings_of(family, optimizer, strategy)))
    for rank, figures in enumerate(figures[f"{family}/{optimizer}/{strategy}"] for figures in allocated):
        assert figures["weights"] == memory.weights
        assert figures["gradients"] == memory.gradients
        planned = state_bytes(tensors, PROCESSES, rank) if strategy == "fsdp" else state_bytes(tensors)
        assert figures["optimizer_state"] == planned
    assert allocated[0][f"{family}/{optimizer}/{strategy}"]["optimizer_state"] == memory.optimizer_state


@pytest.mark.parametrize(("family", "optimizer"), CASES)
@pytest.mark.parametrize("strategy", ["fsdp", "ddp"])
def test_a_step_sends_the_planned_bytes(allocated, family, optimizer, strategy):
    traffic = plan_of(family, optimizer, strategy).traffic
    measured = [figures[f"{family}/{optimizer}/{strategy}"] for figures in allocated]
    for figures in measured:
        assert figures["all_gather"] == traffic.all_gather
        assert figures["reduce_scatter"] == traffic.reduce_scatter
        assert figures["all_reduce"] == traffic.all_reduce
    assert max(figures["muon"] for figures in measured) == traffic.muon_gather + traffic.muon_scatter
    assert (traffic.muon_gather > 0) == ((optimizer, strategy) == ("muon", "fsdp"))


def trains_two_replicas(world: World, folder) -> None:
    figures = {}
    for family, optimizer in CASES:
        training = Training(new_model(family), world, replicas=2, optimizer=optimizer)
        training.steps(0, 1)
        with counted_bytes() as counts:
            training.steps(1, 2)
        figures[f"{family}/{optimizer}"] = figures_of(training.model, training.optimizer, counts)
    (folder / f"{world.rank}.json").write_text(json.dumps(figures))


@pytest.mark.slow
def test_two_replicas_in_four_processes_allocate_and_send_the_planned_bytes(tmp_path):
    run_processes(4, tmp_path, trains_two_replicas)
    measured = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(4)]
    for family, optimizer in CASES:
        settings = settings_of(family, optimizer, "fsdp")
        settings["train"]["replicas"] = 2
        plan = make_plan(Ranks(1, 4), 10**9, settings=settings)
        figures = [of_rank[f"{family}/{optimizer}"] for of_rank in measured]
        for name in ("weights", "gradients"):
            assert {of_rank[name] for of_rank in figures} == {getattr(plan.memory, name)}
        assert max(of_rank["optimizer_state"] for of_rank in figures) == plan.memory.optimizer_state
        for name in ("all_gather", "reduce_scatter", "all_reduce"):
            assert {of_rank[name] for of_rank in figures} == {getattr(plan.traffic, name)}
        muon = plan.traffic.muon_gather + plan.traffic.muon_scatter
        assert max(of_rank["muon"] for of_rank in figures) == muon


@pytest.mark.parametrize("family", MODELS)
def test_a_sharded_checkpoint_has_the_planned_files(two_processes, family):
    assert_has_the_planned_files(two_processes / family / f"step-{SAVED:08d}", family, "fsdp")


@pytest.mark.parametrize("family", MODELS)
def test_a_checkpoint_of_one_process_has_the_planned_files(two_processes, family):
    assert_has_the_planned_files(two_processes / "single" / family / f"step-{SAVED:08d}", family, "ddp")


def assert_has_the_planned_files(path, family, strategy) -> None:
    planned = plan_of(family, "muon", strategy).checkpoint
    sizes = {file.name: file.stat().st_size for file in sorted(path.iterdir())}
    written = {
        kind: [size for name, size in sizes.items() if name.startswith(kind) and name.endswith(".safetensors")]
        for kind in ("model", "optimizer")
    }
    assert sum(written["model"]) == planned.weights
    assert sum(written["optimizer"]) == planned.optimizer
    assert max(map(sum, zip(*written.values(), strict=True))) == planned.largest_share
    assert [len(files) for files in written.values()] == [planned.shards, planned.shards]
    assert len(sizes) == planned.files
