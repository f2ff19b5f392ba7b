"""tokenloom plan: the needs of a run in many processes, without any of them."""

import json
import time

import pytest

from tokenloom.cli.main import main

SMALL = ("--model.n-layer", "2", "--model.n-head", "2", "--model.n-embd", "16", "--model.block-size", "16",
         "--tokenizer", "byte", "--device", "cpu", "--precision", "fp32")  # fmt: skip


def run(capsys, *argv) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_info:
        main(["plan", *argv])
    printed = capsys.readouterr()
    return exit_info.value.code, printed.out, printed.err


def planned(capsys, *argv):
    code, out, err = run(capsys, *argv, "--json")
    assert code == 0, err
    return json.loads(out)


def error(capsys, *argv) -> str:
    code, out, err = run(capsys, *argv)
    assert (code, out) in ((1, ""), (2, ""))
    (line,) = err.splitlines()
    return line


def test_gpt2_xl_on_128_machines_is_planned_in_seconds(capsys):
    started = time.monotonic()
    plan = planned(capsys, "--preset", "gpt2-1558m", "--ranks", "128x8", "--strategy", "fsdp")
    assert time.monotonic() - started < 60  # a few seconds, and the machine may be busy
    assert (plan["ranks"], plan["machines"], plan["parameters"]) == (1024, 128, 1_557_611_200)
    memory = plan["memory"]
    # 4 bytes for each weight, divided by 1,024 after the rows of every tensor are rounded up: 1,600 rows to 2,048.
    assert 4 * 1_557_611_200 / 1024 < memory["weights"] < 2048 / 1600 * 4 * 1_557_611_200 / 1024
    assert memory["optimizer_state"] == pytest.approx(2 * memory["weights"], rel=0.01)
    assert plan["shards"]["empty"] > 0
    assert plan["checkpoint"]["total"] == pytest.approx(12 * 1_557_611_200, rel=1e-4)
    assert plan["checkpoint"]["files"] == 2 * 1024 + 7
    # Every parameter twice, but those outside the blocks once; with the same padding.
    assert 1.9 * memory["weights"] * 1023 < plan["traffic"]["all_gather"] < 2 * memory["weights"] * 1023
    assert plan["traffic"]["machine"] < plan["traffic"]["total"]


def test_the_batch_of_a_preset_is_replaced_by_one_that_can_be_divided(capsys):
    plan = planned(capsys, "--preset", "gpt2-1558m", "--ranks", "128x8")
    assert plan["batch"] == {
        "size": 1024,
        "per_rank": 1,
        "micro_batch": 1,
        "accumulation": 1,
        "tokens": 1024 * 1024,
        "multiple_of": 1024,
        "sizes": [1024, 2048, 3072, 4096],
    }
    _, out, _ = run(capsys, "--preset", "gpt2-1558m", "--ranks", "128x8")
    assert "the preset's 32 cannot be divided by 1,024 processes: train with --train.batch-size 1024" in out


def test_auto_chooses_by_memory(capsys):
    whole = planned(capsys, *SMALL, "--ranks", "4")
    assert whole["strategy"] == "ddp"
    needed = whole["memory"]["total"]
    assert whole["memory"]["ddp"] == needed
    little = planned(capsys, *SMALL, "--ranks", "4", "--memory", f"{(needed - 1) / 1000}kB")
    assert little["strategy"] == "fsdp"
    assert little["memory"]["weights"] < whole["memory"]["weights"] / 3
    assert planned(capsys, *SMALL)["strategy"] is None


def test_replicas_are_planned(capsys):
    plan = planned(capsys, *SMALL, "--ranks", "2x2", "--train.replicas", "2")
    whole = planned(capsys, *SMALL, "--ranks", "2x2", "--strategy", "fsdp")
    assert (plan["strategy"], plan["replicas"], whole["replicas"]) == ("fsdp", 2, 1)
    assert plan["memory"]["weights"] == pytest.approx(2 * whole["memory"]["weights"], rel=0.01)
    # Weights are gathered within a machine, and parts of gradients summed with the other one.
    assert plan["traffic"]["all_reduce"] == plan["memory"]["gradients"]
    assert plan["traffic"]["machine"] == 2 * plan["traffic"]["all_reduce"]
    assert whole["traffic"]["all_reduce"] == 0


def test_activation_checkpointing_is_shown_in_either_case(capsys):
    kept = planned(capsys, *SMALL)["memory"]
    recomputed = planned(capsys, *SMALL, "--train.activation-checkpointing")["memory"]
    assert kept["total_recomputed"] == recomputed["total"] == recomputed["total_recomputed"]
    assert kept["activations"] == recomputed["activations"] > recomputed["activations_recomputed"]


def test_a_plan_that_does_not_fit_says_so(capsys):
    code, out, err = run(capsys, *SMALL, "--ranks", "2", "--memory", "1kB")
    assert code == 0
    assert "fsdp: a process with the whole model needs" in out
    assert "does not fit into 1.00 kB" in out
    assert "it does not fit" in err


def test_the_text_has_the_figures_of_the_json(capsys):
    _, out, _ = run(capsys, *SMALL, "--ranks", "2x4", "--strategy", "fsdp")
    assert "8 on 2 machines, 4 on each, for cpu in fp32" in out
    for row in ("weights", "optimizer state", "gathered", "activations", "Muon's gather", "all-gather", "a machine"):
        assert f"\n  {row} " in out
    assert "all-reduce" not in out
    _, out, _ = run(capsys, *SMALL, "--ranks", "2", "--train.optimizer", "adamw")
    assert "all-reduce" in out
    assert "Muon" not in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--ranks", "many"], '--ranks "many" is not a number of processes from 1 to 100,000'),
        (["--ranks", "0x8"], "Write it as 8, or as machines x processes on each: 128x8"),
        (["--ranks", "8x"], "is not a number of processes"),
        (["--ranks", "9999x9999"], "is not a number of processes"),
        (["--memory", "much"], '--memory "much" is not a size'),
        (["--memory", "0GB"], "is not a size"),
        (["--ranks", "3", "--train.batch-size", "8"], "Use --train.batch-size 6 or 9, or 1 or 2 processes."),
        (["--strategy", "fsdp"], "--strategy fsdp needs several processes"),
        (["--ranks", "4", "--train.replicas", "3"], "Use --train.replicas 1 or 2."),
        (["--ranks", "4", "--strategy", "ddp", "--train.replicas", "2"], "train.replicas 2 is for fsdp"),
        (["--ranks", "2", "--strategy", "fsdp", "--precision", "fp16"], "does not support fp16"),
        (["--ranks", "2", "--device", "mps"], "does not support several processes"),
        (["--device", "abacus"], 'device "abacus" is not supported'),
        (["--device", "cpu", "--precision", "fp16"], "fp16 is not supported on a CPU"),
        (["--tokenizer", "char"], "Pass --model.vocab-size"),
        (["--preset", "gpt5"], 'there is no preset "gpt5"'),
        (["--model.n-head", "0"], "model.n_head"),
    ],
)
def test_a_mistake_is_one_line(capsys, argv, message):
    assert message in error(capsys, *argv)
