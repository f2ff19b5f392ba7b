"""How long the matrix products of a decoding step take, by themselves: GPT-2 124M with one row, in bf16 and int8.

    python benchmarks/decoding_products.py --threads 2

Every weight is read once for each measurement, as in decoding, so that no cache holds them. Prints the medians for all
49 products and for the output head alone, and the rates at which weights are read.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tokenloom.generation.inference_weights import DynamicInt8Linear, Int8Linear, PrepackedLinear

LAYERS, WIDTH, VOCABULARY = 12, 768, 50257
SHAPES = ((WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH))
KINDS: dict[str, tuple[Callable[[nn.Linear], nn.Module], int]] = {
    "bf16": (lambda linear: PrepackedLinear(linear, torch.bfloat16), 2),
    "int8, FBGEMM": (DynamicInt8Linear, 1),
    "int8, torch": (Int8Linear, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| | all products | output head | blocks |\n|---|---|---|---|")
    for name, (convert, bytes_per_weight) in KINDS.items():
        blocks = [convert(nn.Linear(*shape)) for _ in range(LAYERS) for shape in SHAPES]
        inputs = [torch.randn(1, shape[0]) for _ in range(LAYERS) for shape in SHAPES]
        head = convert(nn.Linear(WIDTH, VOCABULARY, bias=False))
        all_seconds, head_seconds = measure([*blocks, head], [*inputs, torch.randn(1, WIDTH)], options.repeats)
        head_rate = WIDTH * VOCABULARY * bytes_per_weight / head_seconds / 1e9
        block_weights = LAYERS * sum(rows * columns for rows, columns in SHAPES)
        block_rate = block_weights * bytes_per_weight / (all_seconds - head_seconds) / 1e9
        print(
            f"| {name} | {1e3 * all_seconds:.2f} ms | {1e3 * head_seconds:.2f} ms, {head_rate:.0f} GB/s "
            f"| {1e3 * (all_seconds - head_seconds):.2f} ms, {block_rate:.0f} GB/s |"
        )


@torch.inference_mode()
def measure(layers: list[nn.Module], inputs: list[Tensor], repeats: int) -> tuple[float, float]:
    """Median seconds of all layers, and of the last one."""
    totals: list[float] = []
    lasts: list[float] = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        for layer, x in zip(layers[:-1], inputs[:-1], strict=True):
            layer(x)
        last = time.perf_counter()
        layers[-1](inputs[-1])
        totals.append(time.perf_counter() - started)
        lasts.append(time.perf_counter() - last)
    return statistics.median(totals[1:]), statistics.median(lasts[1:])  # the first one warms up


if __name__ == "__main__":
    main()
