"""The public Python API: each command as a function."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tokenloom.compute.parallel import launched_processes, launched_rank
from tokenloom.compute.runtime import choose_runtime
from tokenloom.config import Config, Settings
from tokenloom.config_files import read_preset, read_toml
from tokenloom.data.prepare import prepare as prepare_shards
from tokenloom.data.prepare import prepare_cached
from tokenloom.data.shards import Shards, shards_of_run
from tokenloom.data.sources import folder_name, source_notices
from tokenloom.errors import UsageError
from tokenloom.evaluation.baselines import baselines
from tokenloom.evaluation.comparison import Comparison, compare_inspections
from tokenloom.evaluation.evaluation_text import read_text, text_of_split
from tokenloom.evaluation.inspection import Inspection, inspect_tokens
from tokenloom.evaluation.loss import default_context, measure
from tokenloom.evaluation.measurement import Evaluation
from tokenloom.generation.inference_weights import copy_for_inference
from tokenloom.generation.text import TextCompletion, generate_text
from tokenloom.reporting.console import TrainingDisplay
from tokenloom.reporting.notebook_display import NotebookDisplay
from tokenloom.reporting.progress import byte_progress, window_progress
from tokenloom.reporting.terminal import in_notebook
from tokenloom.run_folder import RunFolder
from tokenloom.run_records import RunSummary
from tokenloom.sampling_params import SamplingParams
from tokenloom.training.automatic import automatic_settings, default_settings, is_automatic
from tokenloom.training.budget import Limit, parse_budget
from tokenloom.training.claim import refuse_if_used, refuse_unwritable
from tokenloom.training.display import Display, QuietDisplay
from tokenloom.training.init_from import configure_init_from
from tokenloom.training.restarting import run_before_restart
from tokenloom.training.resuming import newest_run, resumed_config, with_limit
from tokenloom.training.run import train_run
from tokenloom.weights.export import export_model
from tokenloom.weights.load import LoadedModel, load

DEFAULT_BUDGET = "2m"
RUNS = Path("runs")
"""Parent of the run folders that are not named by `out`."""

ModelReference = str | Path | LoadedModel
"""A run, a checkpoint, a folder or file of weights, the name of a model, or a model loaded with `tokenloom.load`."""


def prepare(
    *sources: str | Path,
    out: str | Path,
    tokenizer: str | None = None,
    settings: Settings | None = None,
    refresh: bool = False,
    quiet: bool = False,
) -> Shards:
    """Tokenize text into token shards in the folder `out`; repeating the call does nothing unless `refresh`.

    `settings` as in `train`. Raises `TokenloomError`.
    """
    data = Config.of(settings or {}, _data_settings(sources, tokenizer)).data
    with _data_progress(quiet) as progress:
        return prepare_shards(data, Path(out), refresh=refresh, progress=progress)


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
    refresh: bool = False,
    quiet: bool = False,
) -> RunSummary | None:
    """Train a model on text and write the run to the folder `out`; returns the summary of the run.

    Settings are taken from `preset`, then the TOML file `config`, then `settings`, nested like the file:
    `{"train": {"max_steps": 100}}`; later ones take precedence. As many steps are made as fit `budget` ("5m", or
    seconds; default: two minutes unless `max_steps` is set), measured from `started` (`time.time`; default: now), but
    not more than `max_steps` if that is set.

    `init_from` names a pretrained model to start from. It determines the architecture and the tokenizer; `preset` then
    applies to the other settings only. Token shards of the same text are taken from the cache unless `refresh`. Under
    torchrun, only rank 0 returns a summary, and processes that it restarts resume their run. Raises `TokenloomError`.
    """
    if refresh and launched_processes() > 1:
        raise UsageError(
            "--refresh cannot be used with torchrun, whose processes share the cache. "
            "Run tokenloom prepare --refresh first, and train on its folder."
        )
    started = started or time.time()
    overrides = [
        read_toml(Path(config)) if config else {},
        settings or {},
        _data_settings(sources, tokenizer),
        {"train": {"init_from": str(init_from)}} if init_from is not None else {},
    ]
    layers = [read_preset(preset) if preset else default_settings(overrides), *overrides]
    resolved, notices = Config.of(*layers), list[str]()
    if resolved.train.init_from is not None:
        layers = [read_preset(preset) if preset else {}, *overrides]
        resolved, notices = configure_init_from(resolved.train.init_from, layers[0], overrides)
    if run := run_before_restart(RUNS.glob("*") if out is None else [Path(out)], resolved.train):
        return resume(run.path, quiet=quiet)
    has_steps = any("max_steps" in layer.get("train", {}) for layer in layers)
    if budget is None and not has_steps:
        budget = DEFAULT_BUDGET
    seconds = parse_budget(str(budget)) if budget is not None else None
    if out is not None:
        refuse_if_used(RunFolder(Path(out)))
    refuse_unwritable(Path(out) if out is not None else RUNS / "new")
    with _display(quiet) as display, _data_progress(quiet) as progress:
        if preset is None and seconds is not None and is_automatic(resolved):
            choice = automatic_settings(resolved, overrides, started + seconds)
            resolved, notices = Config.of(layers[0], choice.settings, *overrides), [*choice.reasons]
            has_steps = has_steps or "max_steps" in choice.settings["train"]
        for notice in [*notices, *source_notices(resolved.data.sources)]:
            display.notice(notice)
        shards = prepare_cached(resolved.data, refresh=refresh, progress=progress)
        for notice in shards.notices:
            display.notice(notice)
        limit = Limit(started + seconds, seconds, resolved.train.max_steps if has_steps else None) if seconds else None
        return train_run(resolved, shards, lambda: _new_run_folder(out, resolved), limit=limit, display=display)


def resume(
    run: str | Path | None = None,
    *,
    budget: str | float | None = None,
    started: float | None = None,
    settings: Settings | None = None,
    quiet: bool = False,
) -> RunSummary | None:
    """Resume a run (default: the newest one in runs/) from its newest valid checkpoint, bit for bit.

    `settings` can change how training continues (`{"train": {"max_steps": 2000}}`), but not the model, the data or the
    optimizer. A notice names each change that makes the result differ from that of an uninterrupted run.

    With a `budget`, measured from `started` as in `train`, the steps that fit replace those of the run's plan, also if
    it is finished; `max_steps` in `settings` is an upper limit. Processes that torchrun restarts have no budget.

    Returns the summary as `train` does. Raises `TokenloomError`.
    """
    started = started or time.time()
    folder = RunFolder(Path(run)) if run is not None else newest_run(RUNS)
    config = resumed_config(folder, settings or {})
    limit = None
    if budget is not None and not run_before_restart([folder.path], config.train):
        config, limit = with_limit(folder, config, parse_budget(str(budget)), started, settings or {})
    with _display(quiet) as display, _data_progress(quiet) as progress:
        shards = shards_of_run(folder) or prepare_cached(config.data, progress=progress)
        return train_run(config, shards, lambda: folder, resume=True, limit=limit, display=display)


def evaluate(
    model: ModelReference,
    *sources: str | Path,
    stride: int | None = None,
    context: int | None = None,
    batch_size: int = 8,
    device: str = "auto",
    precision: str = "fp32",
    settings: Settings | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Evaluate a model on a text: loss, perplexity and bits per byte, with the settings they were computed with.

    The default text is the validation text of the model's run. `context` defaults to the model's block size and
    `stride` to `context`; a smaller stride gives each token more context and takes longer. The baselines are the
    unigram entropy of the text and its compressed size with xz and zstd, given the training text of the run, if any.
    `settings` configures how sources are read: `{"data": {"text_key": "body"}}`. Raises `TokenloomError`.
    """
    loaded = _load(model)
    runtime = choose_runtime(device, precision)
    run = RunFolder.of_checkpoint(loaded.path)
    shards = shards_of_run(run) if run else None
    if sources:
        data = Config.of(settings or {}, _data_settings(sources, None)).data
        text = read_text(data, loaded.tokenizer)
    elif shards is not None:
        text = text_of_split(shards.val, loaded.tokenizer)
    else:
        raise UsageError(f"{loaded.path} has no validation text, because it does not belong to a run. Name a text.")
    with window_progress("evaluating", quiet=quiet) as progress, runtime.autocast():
        measured = measure(
            loaded.model.to(runtime.device),
            text.tokens,
            context=default_context(loaded.model.config.block_size, len(text.tokens)) if context is None else context,
            stride=stride,
            batch_size=batch_size,
            byte_lengths=loaded.tokenizer.byte_lengths,
            progress=progress,
        )
    measured = dataclasses.replace(measured, words=text.words)
    return Evaluation(
        **vars(measured),
        precision=runtime.precision,
        baselines=baselines(shards.train if shards else None, text.tokens, loaded.tokenizer),
    )


def generate(
    model: ModelReference,
    prompt: str | Sequence[str] = "",
    *,
    max_new_tokens: int = 200,
    sampling: SamplingParams | None = None,
    num_samples: int = 1,
    seed: int = 0,
    stop: Sequence[str] = (),
    logprobs: int | None = None,
    device: str = "auto",
    precision: str = "fp32",
    quantize: str | None = None,
) -> list[list[TextCompletion]]:
    """Generate `num_samples` continuations of each prompt; the same seed gives the same text.

    Of a prompt longer than the model's context, only the end is used. `logprobs` requests the log-probability of each
    generated token with so many of the most likely tokens, 0 to 20: those that `inspect` gives.

    `quantize="int8"` quantizes the weights: half the memory of bf16, and the fastest choice on a CPU.
    Raises `TokenloomError`.
    """
    loaded = _load(model)
    prompts = [prompt] if isinstance(prompt, str) else prompt
    return generate_text(
        copy_for_inference(loaded.model, choose_runtime(device, precision), quantize),
        loaded.tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seed=seed,
        num_samples=num_samples,
        stop=stop,
        logprobs=logprobs,
    )


def inspect(
    model: ModelReference,
    text: str,
    *,
    top: int = 10,
    context: int | None = None,
    stride: int | None = None,
    device: str = "auto",
    precision: str = "fp32",
) -> Inspection:
    """Compute a model's prediction at each token of a text (section 5.1.2); the loss equals that of `evaluate`.

    `tokens` contains the log probability and rank of each token, the entropy of the prediction, and the `top` most
    likely tokens. The first token of the text is not predicted and not included. Raises `TokenloomError`.
    """
    loaded = _load(model)
    runtime = choose_runtime(device, precision)
    ids = loaded.tokenizer.encode_array(text)
    with runtime.autocast():
        return inspect_tokens(
            loaded.model.to(runtime.device), ids, loaded.tokenizer, top=top, context=context, stride=stride
        )


def compare(
    a: ModelReference,
    b: ModelReference,
    text: str,
    *,
    context: int | None = None,
    stride: int | None = None,
    device: str = "auto",
    precision: str = "fp32",
) -> Comparison:
    """Compare two models or two checkpoints on the same text.

    `models` contains the figures of A and B, each with its own block size as context unless `context` is given;
    `parts` the text token by token, or word by word if the tokenizers differ; `words` is sorted from the largest
    improvement of B over A to the largest regression. A difference is B's nats minus A's. Raises `TokenloomError`.
    """
    loaded = [_load(model) for model in (a, b)]
    inspection_a, inspection_b = (
        inspect(model, text, top=0, context=context, stride=stride, device=device, precision=precision)
        for model in loaded
    )
    return compare_inspections(text, (str(loaded[0].path), str(loaded[1].path)), inspection_a, inspection_b)


def export(
    model: ModelReference,
    out: str | Path,
    *,
    format: str | None = None,
    license: str | None = None,
    quantization: str | None = None,
) -> list[str]:
    """Export a model as hf (a folder for transformers), gguf (for llama.cpp), pth or book; returns notices.

    `format` defaults to that of the suffix of `out` (.gguf, .pth), otherwise hf. `quantization` is the data type of
    the matrices in a gguf file: f32, f16 (default) or q8_0. Existing files are never overwritten. Raises
    `TokenloomError`.
    """
    loaded = _load(model)
    return export_model(loaded, Path(out), format, license=license, quantization=quantization)


def _load(model: ModelReference) -> LoadedModel:
    return model if isinstance(model, LoadedModel) else load(model)


def _data_settings(sources: Sequence[str | Path], tokenizer: str | None) -> Settings:
    """The arguments that set fields of [data]."""
    values: dict[str, object] = {}
    if sources:
        values["sources"] = [str(source) for source in sources]
    if tokenizer:
        values["tokenizer"] = tokenizer
    return {"data": values}


def _new_run_folder(out: str | Path | None, config: Config) -> RunFolder:
    """The folder `out`, which must not exist or be empty; by default a new one in runs/ named after the data."""
    if out is None:
        return RunFolder.new(RUNS, folder_name(config.data.sources[0]) or "run")
    run = RunFolder(Path(out))
    refuse_if_used(run)
    return run


def _display(quiet: bool) -> contextlib.AbstractContextManager[Display]:
    if quiet or launched_rank() > 0:
        return QuietDisplay()
    return NotebookDisplay() if in_notebook() else TrainingDisplay()


def _data_progress(quiet: bool) -> contextlib.AbstractContextManager[Callable[[str, int, int | None], None] | None]:
    return contextlib.nullcontext() if quiet or launched_rank() > 0 else byte_progress()
