"""tokenloom evaluate: loss, perplexity and bits per byte of a model on a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tokenloom.cli.flags import ReadingFlags, given
from tokenloom.cli.models import load_model
from tokenloom.cli.output import print_json, print_notice, print_result
from tokenloom.cli.parameters import (
    EVALUATION,
    TEXT_SOURCES_HELP,
    Context,
    Device,
    InferencePrecision,
    Json,
    ModelArgument,
    Stride,
    Trust,
)

if TYPE_CHECKING:
    from tokenloom.evaluation.measurement import Evaluation
    from tokenloom.run_records import Baselines


def evaluate(
    model: ModelArgument,
    *sources: Annotated[str, Parameter(help=f"{TEXT_SOURCES_HELP} Defaults to the validation text of the run.")],
    context: Context = None,
    stride: Stride = None,
    batch_size: Annotated[int, Parameter(group=EVALUATION)] = 8,
    device: Device = "auto",
    precision: InferencePrecision = "fp32",
    trust: Trust = False,
    json: Json = False,
    data: ReadingFlags | None = None,
) -> None:
    """Evaluate a model on a text: loss, perplexity, bits per byte, and word perplexity.

    Parameters
    ----------
    batch_size
        Windows per forward pass.
    """
    from tokenloom.compute.waiting import sleep_if_busy

    sleep_if_busy()
    from tokenloom import api
    from tokenloom.data.sources import source_notices

    for notice in source_notices(sources):
        print_notice(notice)
    result = api.evaluate(
        load_model(model, trust=trust),
        *sources,
        stride=stride,
        context=context,
        batch_size=batch_size,
        device=device,
        precision=precision,
        settings={"data": given(data)},
    )
    if json:
        print_json(result.to_json())
    else:
        print_result(_table(result))


def _table(result: Evaluation) -> str:
    baselines = result.baselines
    rows = [
        ("loss", result.loss, "nats per token"),
        ("perplexity", result.perplexity, "tokens"),
        ("bits per byte", result.bits_per_byte, ""),
        ("word perplexity", result.word_perplexity, "words"),
        ("unigram entropy", baselines.unigram_bits_per_byte, "bits per byte, from token frequencies"),
        ("xz", baselines.xz_bits_per_byte, f"bits per byte{_given(baselines)}"),
        ("zstd", baselines.zstd_bits_per_byte, f"bits per byte{_given(baselines)}"),
    ]
    lines = [f"{name:16} {value:12,.4f}  {unit}".rstrip() for name, value, unit in rows if value is not None]
    conditions = (
        f"on {result.tokens:,} tokens ({result.bytes:,} bytes), context {result.context:,}, "
        f"stride {result.stride:,}, {result.precision}"
    )
    return "\n".join([*lines, conditions])


def _given(baselines: Baselines) -> str:
    return ", given the training text" if baselines.compressed_train_bytes else ", given no other text"
