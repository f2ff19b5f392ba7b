"""How long a step of generation takes with fp32 weights, in this checkout and in an older one, in turn in one process.

    git worktree add /tmp/before COMMIT
    python benchmarks/decoding_steps.py /tmp/before --shapes small 6x192 --rows 1 4

Random weights, greedy, one thread. Prints the shortest CPU times of the thread, which do not count the time that other
processes get, and fails if the tokens differ. Without a folder, times this checkout alone.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch

ROOT = Path(__file__).parents[1]
PACKAGE = "tokenloom"
SHAPES = {
    "tiny": {"family": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 256, "vocab_size": 256},
    "6x192": {"family": "gpt2", "n_layer": 6, "n_head": 6, "n_embd": 192, "block_size": 256, "vocab_size": 256},
    "6x192 modern": {
        "family": "modern",
        "n_layer": 6,
        "n_head": 6,
        "n_embd": 192,
        "block_size": 256,
        "vocab_size": 256,
    },
    "small": {"family": "gpt2", "n_layer": 4, "n_head": 4, "n_embd": 256, "block_size": 256, "vocab_size": 50257},
    "124M": {"family": "gpt2", "n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024, "vocab_size": 50257},
}
MODULES = (
    "config",
    "model",
    "generation.inference_weights",
    "generation.engine",
    "compute.runtime",
    "sampling_params",
)
WARMUP = 3
Step = Callable[[], list[int | None]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", nargs="?", type=Path, help="a folder with the older checkout")
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=["tiny", "6x192", "6x192 modern", "small"])
    parser.add_argument("--rows", nargs="*", type=int, default=[1, 4])
    parser.add_argument("--steps", type=int, default=100)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    checkouts = [ROOT] if options.before is None else [options.before.absolute(), ROOT]
    packages = [imported(checkout) for checkout in checkouts]
    print("| shape | rows | shortest step |\n|---|---|---|")
    is_equal = True
    for shape in options.shapes:
        for rows in options.rows:
            sides = [generation(package, SHAPES[shape], rows, WARMUP + options.steps) for package in packages]
            shortest, tokens = in_turn(sides, options.steps)
            is_equal &= all(side == tokens[0] for side in tokens)
            print(f"| {shape} | {rows} | {' → '.join(f'{1e3 * seconds:.2f}' for seconds in shortest)} ms |", flush=True)
    if not is_equal:
        print("the tokens differ", file=sys.stderr)
    return 0 if is_equal else 1


def generation(package: Sequence[ModuleType], shape: dict, rows: int, tokens: int) -> Step:
    """A function that generates a token for each of several sequences, with the modules of a checkout."""
    config, model, weights, engine, runtime, sampling = package
    settings = config.Config.of({"model": shape}).model
    built = model.build(settings, torch.Generator().manual_seed(1)).eval()
    running = engine.Engine(weights.copy_for_inference(built, runtime.choose_runtime("cpu", "fp32")), max_rows=rows)
    for row in range(rows):
        running.add([1, 2, 3 + row], max_new_tokens=tokens, sampling=sampling.SamplingParams(temperature=0), seed=0)
    return lambda: [step.token for step in running.step()]


def imported(checkout: Path) -> list[ModuleType]:
    """The `MODULES` of a checkout. What this process has imported of another one stays imported for it."""
    others = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == PACKAGE}
    sys.path.insert(0, str(checkout / "src"))
    try:
        if not (checkout / "src" / PACKAGE).is_dir():
            raise SystemExit(f"{checkout} is not a checkout of {PACKAGE}: it has no src/{PACKAGE}.")
        return [import_module(f"{PACKAGE}.{name}") for name in MODULES]
    finally:
        sys.path.remove(str(checkout / "src"))
        for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
            del sys.modules[name]
        sys.modules.update(others)


def in_turn(sides: Sequence[Step], steps: int) -> tuple[list[float], list[list[int | None]]]:
    """The shortest seconds of a step of each side, and the tokens of all of its steps."""
    seconds: list[list[float]] = [[] for _ in sides]
    tokens: list[list[int | None]] = [[] for _ in sides]
    for step in range(WARMUP + steps):
        order = range(len(sides)) if step % 2 else reversed(range(len(sides)))
        for side in order:
            started = time.thread_time()
            tokens[side] += sides[side]()
            seconds[side].append(time.thread_time() - started)
    return [min(times[WARMUP:]) for times in seconds], tokens


if __name__ == "__main__":
    sys.exit(main())
