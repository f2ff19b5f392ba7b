"""The figures of the chapter, by cell: a build fails if a cell prints anything else.

The classes are those of `tokenloom.book.comparison`: D is equal everywhere, F within the tolerance of fp32 sums, R only
on Linux on an x86-64 CPU, where the random numbers of torch are the book's. Results of our own have no class.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from scripts.chapter.cells import Cell
from tokenloom.book import expected
from tokenloom.book.comparison import RELATIVE_TOLERANCE

EXACT = (platform.system(), platform.machine()) == ("Linux", "x86_64")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")
_STEPS_PER_EPOCH = 9


@dataclass(frozen=True)
class Figure:
    """What a cell prints."""

    text: str
    row_class: str


def _training_log() -> str:
    """The lines of section 5.2: a line for each evaluation, and a sample after each epoch."""
    losses = {step: text.split() for step, _, text in expected.LOSSES}
    lines: list[str] = []
    for step in range(_STEPS_PER_EPOCH * len(expected.SAMPLES)):
        epoch = step // _STEPS_PER_EPOCH
        if step in losses:
            train, val = losses[step]
            lines.append(f"Ep {epoch + 1} (Step {step:06d}): Train loss {train}, Val loss {val}")
        if step % _STEPS_PER_EPOCH == _STEPS_PER_EPOCH - 1:
            lines.append(expected.SAMPLES[epoch])
    return "\n".join(lines)


def _toy_counts() -> str:
    return "\n".join(
        f"temperature {temperature}: [{', '.join(counts.split())}]"
        for temperature, counts in expected.TOY_COUNTS.items()
    )


_WORDS = ("closer", "every", "effort", "forward", "inches", "moves", "pizza", "toward", "you")
_CROSS_ENTROPY = "10.7940"
FIGURES = {
    # 5.1.1
    "untrained-model": Figure(
        "162,419,712 parameters\n"
        "163,009,536 with a context of 1,024 tokens\n"
        "124,412,160 if input and output share one embedding",
        "D",
    ),
    "prompt-ids": Figure("tensor([[6109, 3626, 6100,  345]])\n[1, 4]", "D"),
    "round-trip": Figure("tensor([[15496, 50256,  5832]])\nHello<|endoftext|>you", "D"),
    "untrained-text": Figure(expected.UNTRAINED_SAMPLE, "D"),
    # 5.1.2
    "probabilities": Figure("[2, 3, 50257]", "D"),
    "most-likely-tokens": Figure(
        "[[16657, 339, 42826], [49906, 29669, 41751]]\ntarget:  effort moves you\noutput:  Armed heNetflix", "D"
    ),
    "target-probabilities": Figure("7.4541e-05 3.1061e-05 1.1563e-05\n1.0337e-05 5.6776e-05 4.7559e-06", "F"),
    "log-probabilities": Figure("-9.5042 -10.3796 -11.3677 -11.4798 -9.7764 -12.2561", "D"),
    "mean-log-probability": Figure(
        f"mean log-probability  -{_CROSS_ENTROPY}\nloss                   {_CROSS_ENTROPY}", "D"
    ),
    "flat-shapes": Figure("[2, 3, 50257] -> [6, 50257]\n[2, 3] -> [6]", "D"),
    "cross-entropy": Figure(_CROSS_ENTROPY, "D"),
    "perplexity": Figure("48725.8203", "F"),
    # 5.1.3
    "read-text": Figure("20,479 characters\n5,145 tokens", "D"),
    "text-ends": Figure(expected.TEXT_ENDS.replace(" ... ", "\n"), "D"),
    "cost-of-llama": Figure("691,200 dollars", "D"),
    "split": Figure("18,431 characters for training\n4,612 tokens for training, 534 for validation", "D"),
    "loaders": Figure("training: 9 batches, shapes {(2, 256)}\nvalidation: 1 batches, shapes {(2, 256)}", "D"),
    "token-totals": Figure("4,608 + 512 = 5,120 tokens", "D"),
    "long-context": Figure("training: 4 windows of 1,024 tokens\nvalidation: 0 windows of 1,024 tokens", "D"),
    "losses-before-training": Figure("training   {}\nvalidation {}".format(*expected.UNTRAINED_LOSSES), "F"),
    "uniform-loss": Figure("10.8249", "D"),
    # 5.2
    "train": Figure(_training_log(), "R"),
    "best-validation": Figure(
        "lowest validation loss 6.134 at step 55\nat the end: training 0.391, validation 6.452", "R"
    ),
    # 5.3
    "greedy": Figure("forward", "D"),
    "sample-counts": Figure(
        "\n".join(f"{count} x {word}" for count, word in zip(expected.TOY_COUNTS[1].split(), _WORDS, strict=True)),
        "R",
    ),
    "temperature-counts": Figure(_toy_counts(), "R"),
    "pizza": Figure("0.0430", "D"),
    "top-k": Figure("[6.75, 6.28, 4.51]\n[3, 7, 0]", "D"),
    "top-k-probabilities": Figure("0.0615 0.0000 0.0000 0.5775 0.0000 0.0000 0.0000 0.3610 0.0000", "D"),
    "deterministic": Figure("True", "D"),
    # 5.4
    "save-weights": Figure("same logits: True", "D"),
    "load-both": Figure("learning rate: 0.001", "D"),
    "continue-training": Figure("same weights with the optimizer's state: True", "D"),
    "without-optimizer-state": Figure("same weights without it: False", "D"),
    # 5.5; the last three as the chapter prints them
    "split-qkv": Figure(
        "[4, 12] -> [[4, 4], [4, 4], [4, 4]]\n"
        "tensor([[ 0, 12, 24, 36],\n        [ 1, 13, 25, 37],\n        [ 2, 14, 26, 38],\n        [ 3, 15, 27, 39]])",
        "D",
    ),
    "wrong-shape": Figure(
        "Shape mismatch. Left: (768, 768), Right: (1024, 1024). Load weights of the model's size.", "D"
    ),
    "download": Figure(
        "{'n_vocab': 50257, 'n_ctx': 1024, 'n_embd': 768, 'n_head': 12, 'n_layer': 12}\n-0.11010301", "D"
    ),
    "load-weights": Figure(
        "Every effort moves you toward finding an ideal new way to practice something!\n\n"
        "What makes us want to be on top of that?",
        "R",
    ),
    "pretrained-losses": Figure("training 3.7547\nvalidation 3.5596", "F"),
    # Appendix D
    "warmup-and-cosine": Figure("step   0: 4.67e-05\nstep  26: 1.00e-03\nstep  81: 5.05e-04\nstep 135: 1.00e-05", "D"),
    "clip-gradients": Figure("norm before 5.0, after 1.0\ngradient [0.6, 0.8]", "D"),
}
UNCOMPARED = {
    "versions": "depend on the installation",
    "one-step": "an experiment of our own, whose figures depend on the processor",
    "memorized": "an experiment of our own",
    "toy-logits": "given values",
    "device": "depends on the machine",
    "generate": "an experiment of our own",
    "search": "an experiment of our own",
    "inspect-numbers": "an experiment of our own",
}


def problems(cells: Iterable[Cell], outputs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """What differs from the figures, one line for each cell."""
    found: list[str] = []
    for cell in cells:
        printed = printed_text(outputs[cell.name])
        # A display that fails is an output, not an exception.
        found += [
            f"{cell.name}: {output['evalue']}" for output in outputs[cell.name] if output["output_type"] == "error"
        ]
        figure = FIGURES.get(cell.name)
        if figure is None:
            if printed.strip() and cell.name not in UNCOMPARED:
                found.append(f"{cell.name}: prints {printed!r}, which no figure is compared with")
        elif cell.kind != "network" and not matches(printed, figure):
            found.append(f"{cell.name}: expected {figure.text!r}, got {printed!r}")
    return found


def printed_text(outputs: Iterable[dict[str, Any]]) -> str:
    """What a cell printed to stdout."""
    return "".join(output["text"] for output in outputs if output.get("name") == "stdout")


def matches(printed: str, figure: Figure) -> bool:
    """Whether a text is that of a figure, as far as its class demands."""
    if figure.row_class == "R" and not EXACT:
        return True
    if figure.row_class != "F":
        return printed.rstrip("\n") == figure.text.rstrip("\n")
    words = NUMBER.sub("#", printed).split(), NUMBER.sub("#", figure.text).split()
    numbers = zip(NUMBER.findall(printed), NUMBER.findall(figure.text), strict=False)
    return words[0] == words[1] and all(_close(_value(a), _value(b)) for a, b in numbers)


def unsupported_numbers(prose: str, known: str) -> list[str]:
    """Numbers of a prose that are not in `known`, the code and outputs of its cells.

    A number with fewer digits counts as known if a known one rounds to it. Whole numbers below 1,000 are not checked.
    """
    values = [_value(number) for number in NUMBER.findall(known)]
    return [number for number in _numbers_of_prose(prose) if not _is_known(number, values)]


def _numbers_of_prose(prose: str) -> list[str]:
    text = re.sub(r"```.*?```|<!--.*?-->|\]\([^)]*\)|`[^`\n]*`", " ", prose, flags=re.DOTALL)
    text = re.sub(r"(?<![0-9.])5\.\d(?:\.\d)?(?![\d%])", " ", text)  # sections
    numbers = re.findall(r"(?<![A-Za-z0-9_.])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?", text)
    return [number.rstrip(",") for number in numbers if "." in number or _value(number.rstrip(",")) >= 1000]


def _is_known(number: str, values: list[float]) -> bool:
    decimals = len(number.partition(".")[2])
    value = _value(number)
    return any(abs(abs(known) - value) <= 0.5000001 * 10.0**-decimals for known in values)


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= RELATIVE_TOLERANCE * abs(b)
