"""Several processes train like one with the whole batch, and stop together."""

import json
import math
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from two_ranks import FAMILIES, measure, start

from tokenloom.compute.parallel import World
from tokenloom.config import DataConfig
from tokenloom.data.prepare import prepare
from tokenloom.run_folder import RunFolder

pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="torch was built without gloo"
)


def write_text(folder: Path) -> Path:
    path = folder / "text.txt"
    path.write_text("".join(f"{n} green bottles hanging on the wall, and {n * n} more.\n" for n in range(200)))
    return path


def wait(processes: list[subprocess.Popen], seconds: float) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each process, which has to end within some seconds."""
    try:
        outputs = [process.communicate(timeout=seconds) for process in processes]
        return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """What each of two processes has measured, and what one process measures."""
    folder = tmp_path_factory.mktemp("two-ranks")
    sources = (str(write_text(folder)),)
    prepare(DataConfig(tokenizer="byte", sources=sources), folder / "shards")
    processes = start(folder, [str(Path(__file__).with_name("two_ranks.py")), str(folder)])
    single = {family: measure(folder, World(), family) for family in FAMILIES}
    for code, _, errors in wait(processes, 120):
        assert code == 0, errors
    results = [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]
    gradients = [load_file(folder / f"{rank}.safetensors") for rank in (0, 1)]
    return results, gradients, single


@pytest.mark.parametrize("family", FAMILIES)
def test_the_clipped_gradient_of_the_first_step_is_that_of_one_process(two_ranks, family):
    results, gradients, single = two_ranks
    expected_results, expected = single[family]
    assert expected_results["grad_norm"] > 0.1  # it was clipped
    assert results[0][family]["grad_norm"] == results[1][family]["grad_norm"]
    assert results[0][family]["grad_norm"] == pytest.approx(expected_results["grad_norm"], rel=1e-6)
    for name, gradient in expected.items():
        assert torch.equal(gradients[0][name], gradients[1][name]), name
        # The same terms in fp32, added in another order.
        assert torch.dist(gradients[0][name], gradient) <= 1e-6 * gradient.norm(), name


@pytest.mark.parametrize("family", FAMILIES)
def test_fifty_losses_are_those_of_one_process(two_ranks, family):
    results, _, single = two_ranks
    assert results[0][family]["losses"] == results[1][family]["losses"]
    assert results[0][family]["losses"] == pytest.approx(single[family][0]["losses"], abs=1e-5)
    assert single[family][0]["losses"][-1] < single[family][0]["losses"][0] - 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_processes_share_an_evaluation_and_all_get_the_result_of_one_process(two_ranks, family):
    results, _, single = two_ranks
    for key in ("val_loss", "val_loss_of_part", "val_tokens", "val_bytes"):
        assert results[0][family][key] == results[1][family][key]
        # The weights differ by the rounding of fifty steps.
        assert results[0][family][key] == pytest.approx(single[family][0][key], rel=1e-5)


def test_a_signal_to_one_process_stops_all_of_them_at_the_same_step_with_a_checkpoint(two_ranks):
    expected = {"step": 4, "exit_code": 128 + signal.SIGTERM, "checkpoints": ["step-00000004"]}
    assert [results["stopped"] for results in two_ranks[0]] == [expected, expected]


def test_a_loss_that_is_not_finite_in_one_process_stops_all_of_them(two_ranks):
    first, second = (results["diverged"]["message"] for results in two_ranks[0])
    assert first == second
    assert "step 1: the loss is not finite" in first


def test_an_overflow_in_fp16_in_one_process_repeats_the_step_in_all_of_them(two_ranks):
    first, second = (results["overflow"] for results in two_ranks[0])
    assert first == second
    assert first["scale"] == 0.5
    assert all(map(math.isfinite, [*first["losses"], *first["norms"], first["weights"]]))


def test_a_checkpoint_that_cannot_be_written_is_an_error_in_all_processes_and_printed_by_one(two_ranks):
    first, second = (results["failing save"] for results in two_ranks[0])
    assert first["message"] == second["message"]
    assert (first["is_reported"], second["is_reported"]) == (False, True)


def test_the_number_of_steps_of_a_budget_is_changed_by_rank_0_for_all(two_ranks):
    expected = [[20 + 97], [20, 50]]
    assert [results["changed number of steps"] for results in two_ranks[0]] == [expected, expected]


def test_a_killed_process_ends_the_others_with_a_line_that_names_it(tmp_path):
    write_text(tmp_path)
    command = ["-m", "tokenloom", "train", "text.txt", "--out", "run", "--tokenizer", "byte", "--device", "cpu"]
    command += ["--train.max-steps", "1000000", "--train.log-interval", "1", "--train.batch-size", "4"]
    command += ["--model.n-layer", "1", "--model.n-head", "2", "--model.n-embd", "16", "--model.block-size", "16"]
    processes = start(tmp_path, [*command, "--no-compile", "--train.eval-interval", "1000000"])
    first, second = processes
    log = RunFolder(tmp_path / "run").metrics_file
    try:
        while not (log.exists() and log.stat().st_size > 0):
            assert first.poll() is None, first.stderr.read()
            time.sleep(0.01)
        second.kill()
        (code, _, errors), _ = wait(processes, 60)
    finally:
        for process in processes:
            process.kill()
    assert code == 1
    named = rf"tokenloom: rank 1 \(process {second.pid} on \S+\) of 2 has ended without a message, .* --resume RUN\."
    assert re.search(named, errors), errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_three_processes_resume_bit_for_bit(tmp_path):
    write_text(tmp_path)
    shape = ["--model.n-layer", "1", "--model.n-head", "2", "--model.n-embd", "16", "--model.block-size", "16"]
    train = ["-m", "tokenloom", "train", "text.txt", "--tokenizer", "byte", "--device", "cpu", *shape]
    train += ["--train.batch-size", "6", "--sample.max-new-tokens", "0"]
    resume = ["-m", "tokenloom", "train", "--resume", "stopped", "--train.max-steps", "8"]
    constant = ["--train.schedule", "constant"]  # the learning rate does not depend on the number of steps
    commands = [
        [*train, *constant, "--out", "whole", "--train.max-steps", "8"],
        [*train, *constant, "--out", "stopped", "--train.max-steps", "4"],
        resume,
    ]
    for command in commands:
        for code, _, errors in wait(start(tmp_path, command, size=3), 200):
            assert code == 0, errors
    for name in ("model.safetensors", "optimizer.safetensors"):
        whole, stopped = (tmp_path / run / "checkpoints" / "step-00000008" / name for run in ("whole", "stopped"))
        assert whole.read_bytes() == stopped.read_bytes(), name
