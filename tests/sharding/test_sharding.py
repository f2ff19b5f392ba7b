"""Two processes under FSDP2 train the model of one process; Muon and checkpoints are exact."""

import json

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from sharded_processes import MODELS, ROUNDING, Training, new_model, run_processes

from tokenloom.compute.agreement import together
from tokenloom.compute.compilation import CompiledFunction, can_compile
from tokenloom.compute.parallel import World
from tokenloom.compute.runtime import has_fast_bf16
from tokenloom.compute.sharded_tensors import local, whole
from tokenloom.errors import DistributedError
from tokenloom.model.language_model import run_block
from tokenloom.training import muon as muon_module
from tokenloom.training.muon import Muon

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")

STEPS, MANY_STEPS = 6, 50


def gradients(model):
    return {name: whole(parameter.grad).clone() for name, parameter in model.named_parameters()}


def trains(world: World, folder) -> None:
    """Everything that is compared below, in one group of processes, because starting one takes seconds."""
    figures = {}
    for family in MODELS:
        training = Training(new_model(family), world)
        weights = {name: whole(parameter.detach()).clone() for name, parameter in training.model.named_parameters()}
        figures[f"{family}/first"] = training.gradient(0)
        tensors = gradients(training.model)
        training.model.activation_checkpointing = True
        training.gradient(0)
        recomputed = gradients(training.model)
        training.model.activation_checkpointing = False
        figures[f"{family}/recomputing is exact"] = all(
            torch.equal(recomputed[name], tensors[name]) for name in tensors
        )
        if world.is_main:
            save_file(tensors, folder / f"{family}-gradients.safetensors")
            save_file(weights, folder / f"{family}-weights.safetensors")
        for optimizer in ("adamw", "muon"):
            training = Training(new_model(family), world, optimizer=optimizer)
            figures[f"{family}/{optimizer}"] = training.steps(0, STEPS)
        figures[f"{family}/muon is exact"] = [one_muon_update_is_exact(training, is_fast) for is_fast in (False, True)]
    figures["errors"] = errors_of_processes(world)
    (folder / f"trained-{world.rank}.json").write_text(json.dumps(figures))


def one_muon_update_is_exact(training: Training, bf16_is_fast: bool = False) -> bool:
    """Whether one update equals that of the whole matrices, gathered in every process."""
    muon_module.has_fast_bf16 = lambda _: bf16_is_fast
    muon = training.optimizer.parts["muon"]
    training.gradient(STEPS)
    sharded_weights = muon.param_groups[0]["params"]
    copies = [torch.nn.Parameter(whole(weight.detach()).clone()) for weight in sharded_weights]
    options = {"weight_decay": muon.param_groups[0]["weight_decay"], "adjust_lr_fn": "original"}
    reference = Muon(copies, lr=muon.param_groups[0]["lr"], **options)
    for copy, weight in zip(copies, sharded_weights, strict=True):
        copy.grad = whole(weight.grad).clone()
        reference.state[copy]["momentum_buffer"] = whole(muon.state[weight]["momentum_buffer"]).clone()
    before = [local(weight.detach()).clone() for weight in sharded_weights]
    muon.step()
    reference.step()
    assert not any(torch.equal(local(weight), old) for weight, old in zip(sharded_weights, before, strict=True))
    muon_module.has_fast_bf16 = has_fast_bf16
    return all(torch.equal(whole(weight), copy) for weight, copy in zip(sharded_weights, copies, strict=True))


def errors_of_processes(world: World) -> list[str]:
    def fails_in_one():
        if world.rank == 1:
            raise ValueError("no disk")
        return world.rank

    errors = []
    try:
        together(world, fails_in_one)
    except (ValueError, DistributedError) as error:
        errors = [type(error).__name__, str(error)]
    assert together(world, lambda: world.rank) == list(range(world.world_size))
    return errors


@pytest.fixture(scope="module")
def results(two_processes):
    """The folder of what two processes have written, and the figures of each."""
    return two_processes, [json.loads((two_processes / f"trained-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("family", MODELS)
def test_weights_are_those_of_the_first_process(results, family):
    folder, _ = results
    weights = load_file(folder / f"{family}-weights.safetensors")
    for name, parameter in new_model(family).named_parameters():
        assert torch.equal(weights[name], parameter), name


@pytest.mark.parametrize("family", MODELS)
def test_two_processes_have_the_gradient_of_one(results, family):
    folder, figures = results
    training = Training(new_model(family), World())
    loss, norm = training.gradient(0)
    for rank in range(2):
        # The same sums in a different order.
        assert figures[rank][f"{family}/first"] == pytest.approx([loss, norm], rel=1e-6)
    gathered = load_file(folder / f"{family}-gradients.safetensors")
    for name, gradient in gradients(training.model).items():
        assert (gathered[name] - gradient).norm() <= 1e-6 * gradient.norm(), name
        assert gradient.norm() > 0


@pytest.mark.parametrize("family", MODELS)
def test_recomputed_activations_give_the_same_gradient(results, family):
    assert [figures[f"{family}/recomputing is exact"] for figures in results[1]] == [True, True]


@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_losses_are_those_of_one_process(results, family, optimizer):
    assert_losses_of_one_process([figures[f"{family}/{optimizer}"] for figures in results[1]], family, optimizer)


@pytest.mark.slow
def test_many_losses_are_those_of_one_process(tmp_path):
    run_processes(2, tmp_path, trains_long)
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for family in MODELS:
        for optimizer in ("adamw", "muon"):
            assert_losses_of_one_process([losses[f"{family}/{optimizer}"] for losses in results], family, optimizer)


@pytest.mark.slow
def test_groups_of_two_processes_that_hold_a_model_each_have_the_results_of_one(tmp_path):
    run_processes(4, tmp_path, trains_in_groups)
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(4)]
    for family in MODELS:
        assert_losses_of_one_process([losses[family] for losses in results], family, "muon")


def trains_in_groups(world: World, folder) -> None:
    losses = {}
    for family in MODELS:
        training = Training(new_model(family), world, replicas=2, optimizer="muon")
        losses[family] = training.steps(0, STEPS)
        assert one_muon_update_is_exact(training)
    (folder / f"{world.rank}.json").write_text(json.dumps(losses))


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(torch.device("cpu")), reason="needs a C++ compiler and the headers of Python")
def test_compiled_blocks_have_the_losses_of_one_process(tmp_path):
    run_processes(2, tmp_path, trains_compiled)
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [figures["notices"] for figures in results] == [[], []]
    assert [figures["graphs"] for figures in results] == [1, 1]  # one for all blocks
    assert_losses_of_one_process([figures["losses"] for figures in results], "modern", "adamw")


def trains_compiled(world: World, folder) -> None:
    from torch._dynamo.utils import counters

    notices: list[str] = []
    training = Training(new_model("modern"), world, optimizer="adamw")
    training.model.training_block = CompiledFunction(run_block, folder / f"compiled-{world.rank}", notices.append)
    losses = training.steps(0, STEPS)
    figures = {"losses": losses, "notices": notices, "graphs": counters["stats"]["unique_graphs"]}
    (folder / f"{world.rank}.json").write_text(json.dumps(figures))


def trains_long(world: World, folder) -> None:
    losses = {}
    for family in MODELS:
        for optimizer in ("adamw", "muon"):
            losses[f"{family}/{optimizer}"] = Training(new_model(family), world, optimizer=optimizer).steps(
                0, MANY_STEPS
            )
    (folder / f"{world.rank}.json").write_text(json.dumps(losses))


def assert_losses_of_one_process(losses_of_ranks, family, optimizer) -> None:
    assert all(losses == losses_of_ranks[0] for losses in losses_of_ranks)
    single = Training(new_model(family), World(), optimizer=optimizer).steps(0, len(losses_of_ranks[0]))
    assert single[-1] < single[0]
    assert losses_of_ranks[0] == pytest.approx(single, abs=ROUNDING[optimizer])


@pytest.mark.parametrize("family", MODELS)
def test_one_update_of_muon_is_that_of_the_gathered_matrices_bit_for_bit(results, family):
    in_fp32, in_bf16 = zip(*(figures[f"{family}/muon is exact"] for figures in results[1]), strict=True)
    assert all(in_fp32)
    assert all(in_bf16)


def test_an_error_in_one_process_is_raised_in_all(results):
    first, second = (figures["errors"] for figures in results[1])
    assert first == ["DistributedError", "rank 1 has stopped with an error: no disk"]
    assert second == ["ValueError", "no disk"]
