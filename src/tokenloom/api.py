"""What `import tokenloom` offers: each command as a function."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenloom.compute.runtime import choose_runtime
from tokenloom.config import Config
from tokenloom.config_files import read_preset, read_toml
from tokenloom.data.prepare import prepare as prepare_shards
from tokenloom.data.prepare import prepare_cached
from tokenloom.data.shards import Shards, open_shards
from tokenloom.errors import CheckpointError, TokenloomError, UsageError
from tokenloom.evaluation.baselines import baselines
from tokenloom.evaluation.comparison import compare_inspected
from tokenloom.evaluation.loss import measure
from tokenloom.evaluation.text import read_text, text_of_split
from tokenloom.evaluation.tokens import inspect_tokens
from tokenloom.generation.inference_weights import for_decoding
from tokenloom.generation.sampling import SamplingParams
from tokenloom.generation.text import TextCompletion, generate_text
from tokenloom.reporting.console import QuietDisplay, TrainingDisplay, progress_bar, progress_counter
from tokenloom.training.budget import parse_budget
from tokenloom.training.init_from import configure_init_from
from tokenloom.training.run import CONFIG, IDENTITY, read_run_config, train_run
from tokenloom.weights.export import export_model
from tokenloom.weights.gguf import GGUF
from tokenloom.weights.load import LoadedModel, load
from tokenloom.weights.torch_files import TORCH_SUFFIXES

DEFAULT_PRESET = "modern-xs"
DEFAULT_BUDGET = "2m"
RUNS = Path("runs")

Settings = Mapping[str, Mapping[str, Any]]


def prepare(
    *sources: str | Path,
    out: str | Path,
    tokenizer: str | None = None,
    settings: Settings | None = None,
    quiet: bool = False,
) -> Shards:
    """Turn text into token shards in `out`; the same call again does nothing. `settings` as in `train`."""
    shortcuts = _data_settings(sources, tokenizer)
    data = Config.of(settings or {}, shortcuts).data
    with _data_progress(quiet) as progress:
        return prepare_shards(data, Path(out), progress=progress)


def train(
    *sources: str | Path,
    preset: str | None = None,
    config: str | Path | None = None,
    out: str | Path | None = None,
    budget: str | float | None = None,
    started: float | None = None,
    tokenizer: str | None = None,
    init_from: str | Path | None = None,
    settings: Settings | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train a model on text and leave everything about it in the folder `out`; gives the headline figures.

    Settings come from `preset` (modern-xs), then the TOML file `config`, then `settings`, nested like the file:
    `{"train": {"max_steps": 100}}`. Without a number of steps anywhere, `budget` ("5m", or seconds) fixes it, counted
    from `started` (`time.time`; the call, if None); two minutes if that is not given either.

    `init_from` names a model to go on from: weights, shape and tokenizer are its own, and `preset` counts for the rest
    only. Raises `TokenloomError`.
    """
    started = started or time.time()
    wishes = [
        read_toml(Path(config)) if config else {},
        settings or {},
        _data_settings(sources, tokenizer),
        {"train": {"init_from": str(init_from)}} if init_from is not None else {},
    ]
    layers = [read_preset(preset or DEFAULT_PRESET), *wishes]
    chosen, notices = Config.of(*layers), []
    if chosen.train.init_from is not None:
        layers = [read_preset(preset) if preset else {}, *wishes]
        chosen, notices = configure_init_from(chosen.train.init_from, layers[0], wishes)
    has_steps = any("max_steps" in layer.get("train", {}) for layer in layers)
    if budget is None and not has_steps:
        budget = DEFAULT_BUDGET
    deadline = started + parse_budget(str(budget)) if budget is not None else None
    run = _new_run_folder(out, chosen)
    with _display(quiet) as display, _data_progress(quiet) as progress:
        for notice in notices:
            display.notice(notice)
        shards = prepare_cached(chosen.data, progress=progress)
        return train_run(chosen, shards, run, deadline=deadline, display=display)


def resume(run: str | Path | None = None, *, settings: Settings | None = None, quiet: bool = False) -> dict[str, Any]:
    """Go on with a run (the newest one in runs/ if None) from its newest valid checkpoint, bit for bit.

    `settings` may change how training goes on (`{"train": {"max_steps": 2000}}`), not what is trained on what.
    """
    folder = Path(run) if run is not None else _newest_run()
    config = Config.of(read_run_config(folder).model_dump(), settings or {})
    with _display(quiet) as display, _data_progress(quiet) as progress:
        shards = _shards_of(folder) or prepare_cached(config.data, progress=progress)
        return train_run(config, shards, folder, resume=True, display=display)


def evaluate(
    model: str | Path | LoadedModel,
    *sources: str | Path,
    stride: int | None = None,
    context: int | None = None,
    batch_size: int = 8,
    device: str = "auto",
    precision: str = "fp32",
    settings: Settings | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """How well a model predicts a text: loss, perplexity, bits per byte, and what they were measured on.

    Without sources, the validation text of the model's run. `context` is the model's block size and `stride` the
    context if not given; a smaller stride gives every token more to look back on, and takes longer. Beside the model's
    figures stand the text's unigram entropy and what xz and zstd need, given the run's training text if there is one.
    `settings` says how to read the sources: `{"data": {"text_key": "body"}}`. Raises `TokenloomError`.
    """
    loaded = model if isinstance(model, LoadedModel) else load(model)
    runtime = choose_runtime(device, precision)
    shards = _shards_of(loaded.path.parent.parent)  # RUN/checkpoints/step-…
    if sources:
        data = Config.of(settings or {}, _data_settings(sources, None)).data
        text = read_text(data, loaded.tokenizer)
    elif shards is not None:
        text = text_of_split(shards.val, loaded.tokenizer)
    else:
        raise UsageError(f"{loaded.path} does not belong to a run, so there is no validation text. Name a text.")
    with progress_counter("evaluating", quiet) as progress, runtime.autocast():
        measured = measure(
            loaded.model.to(runtime.device),
            text.ids,
            context=context or min(loaded.model.config.block_size, max(1, len(text.ids) - 1)),
            stride=stride,
            batch_size=batch_size,
            byte_lengths=loaded.tokenizer.byte_lengths,
            progress=progress,
        )
    measured = dataclasses.replace(measured, words=text.words)
    return {
        "loss": measured.loss,
        "perplexity": measured.perplexity,
        "bits_per_byte": measured.bits_per_byte,
        "word_perplexity": measured.word_perplexity,
        "tokens": measured.tokens,
        "bytes": measured.bytes,
        "context": measured.context,
        "stride": measured.stride,
        "precision": runtime.precision,
        "baselines": dataclasses.asdict(baselines(shards.train if shards else None, text.ids, loaded.tokenizer)),
    }


def generate(
    model: str | Path | LoadedModel,
    prompt: str | Sequence[str] = "",
    *,
    max_new_tokens: int = 200,
    sampling: SamplingParams | None = None,
    num_samples: int = 1,
    seed: int = 0,
    stop: Sequence[str] = (),
    device: str = "auto",
    precision: str = "fp32",
    quantize: str | None = None,
) -> list[list[TextCompletion]]:
    """Continue each prompt `num_samples` times; the same seed gives the same text.

    `quantize` "int8" rounds the weights: half the memory of bf16, and on a CPU the fastest for a single text. Raises
    `TokenloomError`.
    """
    loaded = model if isinstance(model, LoadedModel) else load(model)
    return generate_text(
        for_decoding(loaded.model, choose_runtime(device, precision), quantize),
        loaded.tokenizer,
        [prompt] if isinstance(prompt, str) else prompt,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seed=seed,
        num_samples=num_samples,
        stop=stop,
    )


def inspect(
    model: str | Path | LoadedModel,
    text: str,
    *,
    top: int = 10,
    context: int | None = None,
    stride: int | None = None,
    device: str = "auto",
    precision: str = "fp32",
) -> dict[str, Any]:
    """What a model saw at each token of a text, and the loss that `evaluate` gives for it (section 5.1.2).

    `tokens` holds id, text, bytes, log_probability (nats), probability, rank (1 is the likeliest), entropy (nats) and
    the `top` likeliest tokens; the first token of a text is not among them, for nothing predicts it. Raises
    `TokenloomError`.
    """
    loaded = model if isinstance(model, LoadedModel) else load(model)
    runtime = choose_runtime(device, precision)
    ids = loaded.tokenizer.encode_array(text)
    with runtime.autocast():
        return inspect_tokens(
            loaded.model.to(runtime.device), ids, loaded.tokenizer, top=top, context=context, stride=stride
        )


def compare(
    a: str | Path | LoadedModel,
    b: str | Path | LoadedModel,
    text: str,
    *,
    context: int | None = None,
    stride: int | None = None,
    device: str = "auto",
    precision: str = "fp32",
) -> dict[str, Any]:
    """The same text under two models or two checkpoints: the loss of each, and where they differ.

    `models` holds the figures of A and B, each in its own context if none is given; `parts` the text token by token,
    or word by word where their tokens differ; `words` those that B gained most on first, and lost most on last. A
    difference is B's nats less A's. Raises `TokenloomError`.
    """
    loaded = [model if isinstance(model, LoadedModel) else load(model) for model in (a, b)]
    seen = [
        {"model": str(model.path)}
        | inspect(model, text, top=0, context=context, stride=stride, device=device, precision=precision)
        for model in loaded
    ]
    return compare_inspected(text, *seen)


def export(
    model: str | Path | LoadedModel,
    out: str | Path,
    *,
    format: str | None = None,
    license: str | None = None,
    quantization: str | None = None,
) -> list[str]:
    """Hand a model on: hf (a folder for transformers), gguf (for llama.cpp), pth or book; gives what should be told.

    Without a format, what the end of `out` says (.gguf, .pth), else hf. A gguf has its matrices in f32, f16 (if None)
    or q8_0. Nothing is overwritten. Raises `TokenloomError`.
    """
    loaded = model if isinstance(model, LoadedModel) else load(model)
    suffix = Path(out).suffix.lower()
    guessed = "pth" if suffix in TORCH_SUFFIXES else "gguf" if suffix == GGUF else "hf"
    return export_model(loaded, Path(out), format or guessed, license=license, quantization=quantization)


def _data_settings(sources: Sequence[str | Path], tokenizer: str | None) -> Settings:
    """The shortcuts for [data], as a layer of settings."""
    named = {"sources": [str(source) for source in sources]} if sources else {}
    return {"data": named | ({"tokenizer": tokenizer} if tokenizer else {})}


def _new_run_folder(out: str | Path | None, config: Config) -> Path:
    """A folder for a new run: the one asked for, if nothing is in it, or a free name in runs/."""
    if out is not None:
        folder = Path(out)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(
                f"{folder} exists already. Choose another --out, or go on with it: tokenloom train --resume {folder}"
            )
        return folder
    stem = (
        Path(config.data.sources[0].removeprefix("hf:")).name.split(".")[0]
        if config.data.sources[0] != "-"
        else "stdin"
    )
    name = re.sub(r"[^\w-]+", "-", stem).strip("-") or "run"
    numbered = (RUNS / (name if number == 1 else f"{name}-{number}") for number in itertools.count(1))
    return next(folder for folder in numbered if not folder.exists())


def _newest_run() -> Path:
    runs = [config.parent for config in RUNS.glob(f"*/{CONFIG}")]
    if not runs:
        raise CheckpointError(f"there is no run in {RUNS}/ to resume. Name one: tokenloom train --resume RUN")
    return max(runs, key=lambda run: (run / CONFIG).stat().st_mtime)


def _shards_of(run: Path) -> Shards | None:
    """The token shards that a run was trained on, if it is one and they are still there."""
    identity = run / IDENTITY
    if not identity.exists():
        return None
    saved = json.loads(identity.read_text())
    try:
        shards = open_shards(saved["shards"])
    except TokenloomError:
        return None
    return shards if shards.fingerprint == saved["dataset"] else None


def _display(quiet: bool) -> QuietDisplay | TrainingDisplay:
    return QuietDisplay() if quiet else TrainingDisplay()


def _data_progress(quiet: bool) -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext() if quiet else progress_bar()
