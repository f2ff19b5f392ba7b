"""tokenloom generate: a model continues a text, as it is made."""

from __future__ import annotations

import json as json_format
import sys
import time
from collections import defaultdict
from typing import Annotated

from cyclopts import Parameter

from tokenloom.cli.models import load_model
from tokenloom.cli.stdin import text_or_stdin
from tokenloom.errors import UsageError


def generate(
    model: str,
    *,
    prompt: str = "",
    max_new_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float = 1.0,
    num_samples: int = 1,
    seed: int | None = None,
    stop: Annotated[list[str] | None, Parameter(negative="")] = None,
    device: str = "auto",
    precision: str = "fp32",
    quantize: str | None = None,
    trust: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Let a model write: the text appears as it is made.

    Parameters
    ----------
    model
        A run (or RUN@best, RUN@step-1000), a checkpoint, a Hugging Face GPT-2 folder, or a .pth.
    prompt
        The text to continue; - reads it from stdin, and without one a new document begins.
    max_new_tokens
        Tokens to write at most.
    temperature
        Sharpness of the choice; 0 takes the likeliest token.
    top_k
        Choose among this many likeliest tokens.
    top_p
        Choose among the likeliest tokens that together have this probability.
    min_p
        Leave out tokens less likely than this share of the likeliest one.
    repetition_penalty
        Above 1 makes tokens that were there already less likely.
    num_samples
        Different continuations to write.
    seed
        The same seed gives the same text; without one, each call differs.
    stop
        End before this text; may be given more than once.
    device
        auto, cpu, cuda, cuda:N or mps.
    precision
        fp32, bf16, fp16 or auto.
    quantize
        int8: weights rounded to 255 steps a row; half the memory of bf16, and fastest on a CPU for a single text.
    trust
        Let a .pth that holds more than tensors run its own code while it is read.
    json
        Print one JSON object on stdout when all is written.
    """
    from tokenloom.compute.runtime import choose_runtime
    from tokenloom.generation.inference_weights import for_decoding
    from tokenloom.generation.text import stream_text
    from tokenloom.sampling_params import SamplingParams

    sampling = SamplingParams(temperature, top_k, top_p, min_p, repetition_penalty)
    if num_samples < 1:
        raise UsageError(f"--num-samples must be at least 1, got {num_samples}. Try 1.")
    runtime = choose_runtime(device, precision)
    text = text_or_stdin(prompt)
    loaded = load_model(model, trust=trust)
    chosen_seed = time.time_ns() % 2**31 if seed is None else seed
    pieces = stream_text(
        for_decoding(loaded.model, runtime, quantize),
        loaded.tokenizer,
        [text],
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seed=chosen_seed,
        num_samples=num_samples,
        stop=stop or (),
    )
    streams = not json and num_samples == 1
    if streams:
        _write(text)
    texts: dict[int, str] = defaultdict(str)
    token_ids: dict[int, list[int]] = defaultdict(list)
    reasons: dict[int, str] = {}
    started = time.perf_counter()
    for piece in pieces:
        texts[piece.sample_index] += piece.text
        if piece.token is not None:
            token_ids[piece.sample_index].append(piece.token)
        if piece.finish_reason is not None:
            reasons[piece.sample_index] = piece.finish_reason
        if streams:
            _write(piece.text)
    rate = sum(map(len, token_ids.values())) / max(time.perf_counter() - started, 1e-9)
    if json:
        completions = [
            {"text": texts[i], "token_ids": token_ids[i], "finish_reason": reasons[i]} for i in range(num_samples)
        ]
        answer = {"prompt": text, "completions": completions, "tokens_per_sec": rate, "seed": chosen_seed}
        print(json_format.dumps(answer))
    elif streams:
        print()
    else:
        for i in range(num_samples):
            print(f"--- {i + 1} of {num_samples}\n{text}{texts[i]}")
    if not json and sys.stderr.isatty():
        print(f"{rate:,.0f} tokens/s, seed {chosen_seed}", file=sys.stderr)


def _write(text: str) -> None:
    """Show text at once, also where the terminal's encoding cannot say all of it."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
    sys.stdout.flush()
