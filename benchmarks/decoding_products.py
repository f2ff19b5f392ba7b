"""How long the matrix products of a decoding step take, by themselves, in fp32, bf16 and int8.

    python benchmarks/decoding_products.py --threads 2
    python benchmarks/decoding_products.py --kinds fp32 "fp32, plain" "fp32, for one row" --rows 1 2 4 --threads 1

Every weight is read once in each round, as in decoding, so that no cache holds them; the kinds take turns. Prints the
shortest times for all products and for the output head alone, and the rates at which weights are read. With one
thread it is the CPU time of the thread, which does not count the time that other processes get.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor, nn

from tokenloom.generation.inference_weights import DynamicInt8Linear, Int8Linear, PrepackedLinear

VOCABULARY = 50257
SHAPES = {"small": (4, 256), "124M": (12, 768)}  # layers and width
Convert = Callable[[nn.Linear], Callable[[Tensor], Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="124M")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--rows", nargs="*", type=int, default=[1])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    layers, width = SHAPES[options.shape]
    shapes = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)] * layers
    products: dict[str, list[Callable[[Tensor], Tensor]]] = {}
    for kind in options.kinds:
        convert, _ = KINDS[kind]
        head = nn.Linear(width, VOCABULARY, bias=False)
        products[kind] = [convert(linear) for linear in [*(nn.Linear(*shape) for shape in shapes), head]]
    print("| | rows | all products | output head | blocks |\n|---|---|---|---|---|")
    for rows in options.rows:
        inputs = [torch.randn(rows, inputs) for inputs, _ in [*shapes, (width, VOCABULARY)]]
        for kind, (all_seconds, head_seconds) in measure(products, inputs, options.repeats).items():
            _, bytes_per_weight = KINDS[kind]
            head_rate = width * VOCABULARY * bytes_per_weight / head_seconds / 1e9
            block_rate = sum(map(math.prod, shapes)) * bytes_per_weight / (all_seconds - head_seconds) / 1e9
            print(
                f"| {kind} | {rows} | {1e3 * all_seconds:.2f} ms | {1e3 * head_seconds:.2f} ms, {head_rate:.0f} GB/s "
                f"| {1e3 * (all_seconds - head_seconds):.2f} ms, {block_rate:.0f} GB/s |"
            )


@torch.inference_mode()
def measure(
    products: dict[str, list[Callable[[Tensor], Tensor]]], inputs: Sequence[Tensor], repeats: int
) -> dict[str, tuple[float, float]]:
    """Seconds of all products of each kind, and of the last one: sums of the shortest of each product."""
    shortest = {kind: [math.inf] * len(inputs) for kind in products}
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    for _ in range(repeats):
        for kind, layers in products.items():
            for number, (product, x) in enumerate(zip(layers, inputs, strict=True)):
                started = clock()
                product(x)
                shortest[kind][number] = min(shortest[kind][number], clock() - started)
    return {kind: (sum(seconds), seconds[-1]) for kind, seconds in shortest.items()}


def for_one_row(linear: nn.Linear) -> Callable[[Tensor], Tensor]:
    """A product with the layout that oneDNN chooses for one row."""
    weight, bias = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), 1), linear.bias
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def packed_by_mkl(linear: nn.Linear) -> Callable[[Tensor], Tensor]:
    """A product with the layout that MKL chooses for the number of rows."""
    weight, bias = linear.weight.detach(), linear.bias

    @cache
    def packed(rows: int) -> Tensor:
        return torch.ops.mkl._mkl_reorder_linear_weight(weight, rows)

    return lambda x: torch.ops.mkl._mkl_linear(x, packed(len(x)), weight, bias, len(x))


def transposed(linear: nn.Linear) -> Callable[[Tensor], Tensor]:
    """A product with a weight of (inputs, outputs)."""
    weight, bias = linear.weight.detach().t().contiguous(), linear.bias
    return lambda x: torch.mm(x, weight) if bias is None else torch.addmm(bias, x, weight)


# How a layer is converted, and the bytes of a weight.
KINDS: dict[str, tuple[Convert, int]] = {
    "fp32": (lambda linear: PrepackedLinear(linear, torch.float32), 4),
    "fp32, plain": (lambda linear: linear, 4),
    "fp32, for one row": (for_one_row, 4),
    "fp32, MKL": (packed_by_mkl, 4),
    "fp32, transposed": (transposed, 4),
    "bf16": (lambda linear: PrepackedLinear(linear, torch.bfloat16), 2),
    "int8, FBGEMM": (DynamicInt8Linear, 1),
    "int8, torch": (Int8Linear, 1),
}


if __name__ == "__main__":
    main()
