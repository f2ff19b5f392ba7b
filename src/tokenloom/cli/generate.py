"""tokenloom generate: continue a prompt."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from tokenloom.cli.models import load_model
from tokenloom.cli.output import print_json, print_notice, print_progress, print_result, write_text
from tokenloom.cli.parameters import HARDWARE, OUTPUT, SAMPLING, Device, InferencePrecision, Json, ModelArgument, Trust
from tokenloom.cli.stdin import text_argument, text_or_stdin
from tokenloom.errors import UsageError
from tokenloom.reporting.formatting import counted, quoted
from tokenloom.sampling_params import SamplingParams

if TYPE_CHECKING:
    from tokenloom.data.tokenizers import Tokenizer
    from tokenloom.evaluation.copied_text import CopiedText, TrainingText
    from tokenloom.generation.logprobs import TokenLogprobs
    from tokenloom.generation.text import TextPiece
    from tokenloom.weights.load import LoadedModel

DEFAULT_SAMPLING = SamplingParams()
MAX_SAMPLES = 1_000_000  # all of them are held in memory
_QUOTED = 100  # characters of a passage


@dataclass
class Completion:
    """The continuation of one sample."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list[int])
    finish_reason: str | None = None
    logprobs: list[TokenLogprobs] = field(default_factory=list["TokenLogprobs"])
    copied: CopiedText | None = None
    """What of prompt and text is copied, if it was compared with the training text."""

    def to_json(self, tokenizer: Tokenizer, *, logprobs: bool) -> dict[str, object]:
        """The completion as `--json` prints it."""
        result: dict[str, object] = {
            "text": self.text,
            "token_ids": self.token_ids,
            "finish_reason": self.finish_reason,
        }
        if logprobs:
            result["logprobs"] = [_logprobs_json(one, tokenizer) for one in self.logprobs]
        return result if self.copied is None else result | {"copied": self.copied.to_json()}


def generate(
    model: ModelArgument,
    *,
    prompt: Annotated[str, Parameter(group=SAMPLING, show_default=False)] = "",
    max_new_tokens: Annotated[int, Parameter(group=SAMPLING)] = 200,
    num_samples: Annotated[int, Parameter(group=SAMPLING)] = 1,
    stop: Annotated[list[str] | None, Parameter(group=SAMPLING, negative="")] = None,
    seed: Annotated[int | None, Parameter(group=SAMPLING)] = None,
    logprobs: Annotated[int | None, Parameter(group=OUTPUT)] = None,
    copied: Annotated[bool, Parameter(group=OUTPUT, negative="")] = False,
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
    logprobs
        Print the log-probability of each generated token, with so many of the most likely tokens (0 to 20).
    copied
        Print the passages that are copied word for word from the training text of the run.
    quantize
        Quantize the weights to int8: half the memory of bf16, and the fastest choice on a CPU.
    """
    from tokenloom.compute.waiting import sleep_if_busy

    sleep_if_busy()
    from tokenloom.compute.runtime import choose_runtime
    from tokenloom.generation.inference_weights import copy_for_inference
    from tokenloom.generation.text import stream_text

    if not 1 <= num_samples <= MAX_SAMPLES:
        raise UsageError(f"--num-samples must be from 1 to {MAX_SAMPLES:,}, got {num_samples}. Try 1.")
    runtime = choose_runtime(device, precision)
    text = text_or_stdin(prompt, "--prompt")
    loaded = load_model(model, trust=trust)
    training_text = _training_text(loaded) if copied else None
    seed = time.time_ns() % 2**31 if seed is None else seed
    _announce_truncation(len(loaded.tokenizer.encode(text)), loaded.model.config.block_size)
    pieces = stream_text(
        copy_for_inference(loaded.model, runtime, quantize),
        loaded.tokenizer,
        [text],
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seed=seed,
        num_samples=num_samples,
        stop=[text_argument(one, "--stop") for one in stop or ()],
        logprobs=logprobs,
    )
    streaming = not json and num_samples == 1
    if streaming:
        write_text(text)
    started = time.perf_counter()
    completions = _collect(pieces, num_samples, streaming)
    rate = sum(len(one.token_ids) for one in completions) / max(time.perf_counter() - started, 1e-9)
    if training_text is not None:
        for one in completions:
            one.copied = training_text.find_copied(text + one.text).after(len(text))
    if json:
        results = [one.to_json(loaded.tokenizer, logprobs=logprobs is not None) for one in completions]
        print_json({"prompt": text, "completions": results, "tokens_per_sec": rate, "seed": seed})
        return
    for number, completion in enumerate(completions, start=1):
        write_text("\n" if streaming else f"--- {number} of {num_samples}\n{text}{completion.text}\n")
        if logprobs is not None:
            _print_table(completion.logprobs, loaded.tokenizer)
        if completion.copied is not None:
            _print_copied(completion.copied, text + completion.text)
    if sys.stderr.isatty():
        print_progress(f"{rate:,.0f} tokens/s, seed {seed}")


def _collect(pieces: Iterable[TextPiece], num_samples: int, streaming: bool) -> list[Completion]:
    completions = [Completion() for _ in range(num_samples)]
    for piece in pieces:
        completion = completions[piece.sample_index]
        completion.text += piece.text
        if piece.token is not None:
            completion.token_ids.append(piece.token)
        if piece.logprobs is not None:
            completion.logprobs.append(piece.logprobs)
        if piece.finish_reason is not None:
            completion.finish_reason = piece.finish_reason
        if streaming:
            write_text(piece.text)
    return completions


def _training_text(loaded: LoadedModel) -> TrainingText:
    from tokenloom.evaluation.copied_text import training_text_of
    from tokenloom.run_folder import RunFolder

    run = RunFolder.of_checkpoint(loaded.path)
    if run is None:
        raise UsageError(f"--copied needs a run, whose training text is known; {loaded.path} is not in one. Omit it.")
    return training_text_of(run)


def _announce_truncation(tokens: int, block_size: int) -> None:
    if tokens > block_size:
        print_notice(
            f"the prompt has {tokens:,} tokens; only the last {block_size:,}, the context of the model, are used"
        )


def _logprobs_json(logprobs: TokenLogprobs, tokenizer: Tokenizer) -> dict[str, object]:
    """Log-probabilities under the keys of `tokenloom inspect --json`."""

    def entry(token: int, logprob: float) -> dict[str, object]:
        from tokenloom.evaluation.inspection import Token

        probabilities = {"log_probability": logprob, "probability": math.exp(logprob)}
        return Token(token, tokenizer.token_bytes[token]).to_json() | probabilities

    return entry(logprobs.token, logprobs.logprob) | {"top": [entry(*one) for one in logprobs.top]}


def _print_table(logprobs: Iterable[TokenLogprobs], tokenizer: Tokenizer) -> None:
    def text(token: int, width: int) -> str:
        return quoted(tokenizer.token_bytes[token].decode("utf-8", "replace"), width)

    print_result(f"{'token':20} {'id':>6} {'nats':>7} {'probability':>11}  most likely")
    for token, logprob, top in logprobs:
        others = "  ".join(f"{text(other, 12)} {math.exp(value):.2f}" for other, value in top)
        print_result(
            f"{text(token, 20):20} {token:>6} {abs(logprob):>7.3f} {math.exp(logprob):>11.3e}  {others}".rstrip()
        )


def _print_copied(copied: CopiedText, text: str) -> None:
    whole = copied.compared_tokens == copied.training_tokens
    source = "the training text" if whole else f"the first {copied.compared_tokens:,} tokens of the training text"
    print_result(
        f"copied from {source}: {counted(copied.characters, 'character')}, "
        f"in passages of at least {copied.shortest_tokens:,} tokens"
    )
    for passage in copied.passages:
        print_result(f"  token {passage.position:,}: {quoted(text[passage.start : passage.end], _QUOTED)}")
