"""tokenloom generate: continue a prompt."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from tokenloom.cli.models import load_model
from tokenloom.cli.output import print_json, print_progress, write_text
from tokenloom.cli.parameters import HARDWARE, SAMPLING, Device, InferencePrecision, Json, ModelArgument, Trust
from tokenloom.cli.stdin import text_argument, text_or_stdin
from tokenloom.errors import UsageError
from tokenloom.sampling_params import SamplingParams

if TYPE_CHECKING:
    from tokenloom.generation.text import TextPiece

DEFAULT_SAMPLING = SamplingParams()
MAX_SAMPLES = 1_000_000  # all of them are held in memory


@dataclass
class Completion:
    """The continuation of one sample, as `--json` prints it."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list[int])
    finish_reason: str | None = None


def generate(
    model: ModelArgument,
    *,
    prompt: Annotated[str, Parameter(group=SAMPLING, show_default=False)] = "",
    max_new_tokens: Annotated[int, Parameter(group=SAMPLING)] = 200,
    num_samples: Annotated[int, Parameter(group=SAMPLING)] = 1,
    stop: Annotated[list[str] | None, Parameter(group=SAMPLING, negative="")] = None,
    seed: Annotated[int | None, Parameter(group=SAMPLING)] = None,
    sampling: Annotated[SamplingParams, Parameter(name="*", group=SAMPLING)] = DEFAULT_SAMPLING,
    quantize: Annotated[Literal["int8"] | None, Parameter(group=HARDWARE)] = None,
    device: Device = "auto",
    precision: InferencePrecision = "fp32",
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Generate text, printed token by token.

    Parameters
    ----------
    prompt
        Text to continue, or - to read it from stdin. Defaults to an empty prompt, which starts a new document.
    max_new_tokens
        Max tokens to generate per sample.
    num_samples
        Number of samples; more than one are printed when all are complete.
    stop
        Stop before this text. Can be repeated.
    seed
        Random seed; the same seed generates the same text. Defaults to a new seed for every call.
    quantize
        Quantize the weights to int8: half the memory of bf16, and the fastest choice for one sample on a CPU.
    """
    from tokenloom.compute.runtime import choose_runtime
    from tokenloom.generation.inference_weights import copy_for_inference
    from tokenloom.generation.text import stream_text

    if not 1 <= num_samples <= MAX_SAMPLES:
        raise UsageError(f"--num-samples must be from 1 to {MAX_SAMPLES:,}, got {num_samples}. Try 1.")
    runtime = choose_runtime(device, precision)
    text = text_or_stdin(prompt, "--prompt")
    loaded = load_model(model, trust=trust)
    seed = time.time_ns() % 2**31 if seed is None else seed
    pieces = stream_text(
        copy_for_inference(loaded.model, runtime, quantize),
        loaded.tokenizer,
        [text],
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seed=seed,
        num_samples=num_samples,
        stop=[text_argument(one, "--stop") for one in stop or ()],
    )
    streaming = not json and num_samples == 1
    if streaming:
        write_text(text)
    started = time.perf_counter()
    completions = _collect(pieces, num_samples, streaming)
    rate = sum(len(one.token_ids) for one in completions) / max(time.perf_counter() - started, 1e-9)
    if json:
        result = {"prompt": text, "completions": [asdict(one) for one in completions]}
        print_json({**result, "tokens_per_sec": rate, "seed": seed})
        return
    if streaming:
        write_text("\n")
    else:
        for number, completion in enumerate(completions, start=1):
            write_text(f"--- {number} of {num_samples}\n{text}{completion.text}\n")
    if sys.stderr.isatty():
        print_progress(f"{rate:,.0f} tokens/s, seed {seed}")


def _collect(pieces: Iterable[TextPiece], num_samples: int, streaming: bool) -> list[Completion]:
    completions = [Completion() for _ in range(num_samples)]
    for piece in pieces:
        completion = completions[piece.sample_index]
        completion.text += piece.text
        if piece.token is not None:
            completion.token_ids.append(piece.token)
        if piece.finish_reason is not None:
            completion.finish_reason = piece.finish_reason
        if streaming:
            write_text(piece.text)
    return completions
