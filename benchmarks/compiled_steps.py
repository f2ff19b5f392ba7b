"""How much faster compiled training steps are, for the factor that the rule of a time budget expects.

    python benchmarks/compiled_steps.py --seconds 30

For each shape that the rule chooses for minutes, times uncompiled and compiled steps in turn, in one process, and
prints the median of the ratios, from which `COMPILED_SPEEDUP` in src/tokenloom/training/compiling.py is set.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from tokenloom.compute.compilation import CompiledFunction
from tokenloom.compute.runtime import choose_runtime, tune_malloc
from tokenloom.config import ModelConfig, TrainConfig
from tokenloom.data.corpora import cache_folder
from tokenloom.model import build
from tokenloom.model.language_model import run_block
from tokenloom.training.optimizer import Optimizer

SHAPES = ((2, 8, 128), (3, 8, 128), (3, 8, 256), (4, 8, 256))  # depth, sequences, context
VOCABULARY = 2048


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="for each shape")
    options = parser.parse_args(arguments)
    tune_malloc()
    print("| shape | batch | uncompiled | compiled | ratio |\n|---|---|---|---|---|")
    for depth, sequences, context in SHAPES:
        uncompiled, compiled = (training_step(depth, sequences, context, compile) for compile in (False, True))
        for step in (uncompiled, compiled, compiled):
            step()  # warm up, and compile
        first, second, ratio = times_in_turn(uncompiled, compiled, options.seconds)
        cells = f"{depth} × {64 * depth} | {sequences} × {context} | {1e3 * first:.1f} ms | {1e3 * second:.1f} ms"
        print(f"| {cells} | {ratio:.2f} |", flush=True)


def training_step(depth: int, sequences: int, context: int, compile: bool) -> Callable[[], None]:
    """A function that trains one step on random tokens."""
    runtime, generator = choose_runtime("auto", "auto"), torch.Generator().manual_seed(0)
    shape = {"n_layer": depth, "n_head": depth, "n_embd": 64 * depth, "block_size": context}
    config = ModelConfig(vocab_size=VOCABULARY, tie_embeddings=False, **shape)
    model = build(config, generator).to(runtime.device).train()
    if compile:
        model.training_block = CompiledFunction(run_block, cache_folder() / "compiled", print)
    optimizer = Optimizer(model, TrainConfig())
    tokens = torch.randint(0, VOCABULARY, (sequences, context + 1), generator=generator).to(runtime.device)

    def step() -> None:
        optimizer.zero_grad()
        with runtime.autocast():
            loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        loss.backward()
        optimizer.step(0)
        runtime.synchronize()

    return step


def times_in_turn(
    first: Callable[[], None],
    second: Callable[[], None],
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, float, float]:
    """Median times of both, called in turn for so many seconds, and the median of the ratios of neighboring calls."""
    pairs: list[tuple[float, float]] = []
    end = clock() + seconds
    while not pairs or clock() < end:
        started = clock()
        first()
        between = clock()
        second()
        pairs.append((between - started, clock() - between))
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(a / b for a, b in pairs),
    )


if __name__ == "__main__":
    main()
