"""tokenloom evaluate: how well a model predicts a text, and what that was measured on."""

from __future__ import annotations

import json as json_format
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tokenloom.cli.flags import DataFlags, given
from tokenloom.cli.models import load_model
from tokenloom.cli.stdin import source_names

if TYPE_CHECKING:
    from tokenloom.evaluation.measurement import Evaluation
    from tokenloom.run_records import Baselines


def evaluate(
    model: str,
    *sources: str,
    stride: int | None = None,
    context: int | None = None,
    batch_size: int = 8,
    device: str = "auto",
    precision: str = "fp32",
    trust: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
    data: DataFlags | None = None,  # type: ignore[valid-type]
) -> None:
    """Measure a model on a text: nats per token, perplexity, bits per byte, word perplexity.

    Parameters
    ----------
    model
        A run (or RUN@best, RUN@step-1000), a checkpoint, a Hugging Face GPT-2 folder, or a .pth.
    sources
        What to measure on; the run's own validation text if left out.
    stride
        Tokens between windows; a smaller one gives each token more context and takes longer.
    context
        Tokens in a window; the model's own context if left out.
    batch_size
        Windows at once.
    device
        auto, cpu, cuda, cuda:N or mps.
    precision
        fp32, bf16, fp16 or auto.
    trust
        Let a .pth that holds more than tensors run its own code while it is read.
    json
        Print one JSON object on stdout.
    """
    from tokenloom import api

    result = api.evaluate(
        load_model(model, trust=trust),
        *source_names(sources),
        stride=stride,
        context=context,
        batch_size=batch_size,
        device=device,
        precision=precision,
        settings={"data": given(data)},
    )
    print(json_format.dumps(result.to_json()) if json else _table(result))


def _table(result: Evaluation) -> str:
    baselines = result.baselines
    rows = [
        ("loss", result.loss, "nats per token"),
        ("perplexity", result.perplexity, "tokens"),
        ("bits per byte", result.bits_per_byte, ""),
        ("word perplexity", result.word_perplexity, "words"),
        ("unigram entropy", baselines.unigram_bits_per_byte, "bits per byte, by counting tokens"),
        ("xz", baselines.xz_bits_per_byte, f"bits per byte{_given(baselines)}"),
        ("zstd", baselines.zstd_bits_per_byte, f"bits per byte{_given(baselines)}"),
    ]
    lines = [f"{name:16} {value:12,.4f}  {unit}".rstrip() for name, value, unit in rows if value is not None]
    measured_on = (
        f"on {result.tokens:,} tokens ({result.bytes:,} bytes), context {result.context:,}, "
        f"stride {result.stride:,}, {result.precision}"
    )
    return "\n".join([*lines, measured_on])


def _given(baselines: Baselines) -> str:
    return ", given the training text" if baselines.compressed_train_bytes else ", given no other text"
