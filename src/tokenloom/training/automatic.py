"""Automatic settings: the rule of a time budget, applied to the sources, the machine and the time that is left."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch

from tokenloom.compute.parallel import join_processes
from tokenloom.compute.runtime import Runtime, tune_malloc
from tokenloom.config import Config, DataConfig, ModelConfig, Settings, TrainConfig
from tokenloom.config_files import read_preset
from tokenloom.data.corpora import PYTHON_DOCS
from tokenloom.data.shards import open_shards
from tokenloom.data.shards_meta import is_shards_folder
from tokenloom.data.sources import STDIN, find_sources
from tokenloom.data.streams import is_pipe
from tokenloom.home import expand_home
from tokenloom.model import build
from tokenloom.model.flops import training_flops_per_token
from tokenloom.training.compiling import COMPILED_SPEEDUP, pays_to_compile
from tokenloom.training.optimizer import Optimizer
from tokenloom.training.rule import Choice, Situation, choose, nearest_multiple
from tokenloom.training.shape import HEAD_SIZE, PARTS, weights_at_depth, whole_shape

DEFAULT_PRESET = "modern-xs"
# The models whose training steps are timed, by depth, until a step takes long enough to occupy the device: a GPU does
# not reach its speed with the small ones.
PROBE_DEPTHS, PROBE_SECONDS = (3, 6, 12), 0.03
PROBE_SEQUENCES, PROBE_TOKENS, PROBE_STEPS = 8, 256, 3
PROBE_SHARE = 0.03  # of the time; no further step is timed after it
# The size of named corpora that is not known without reading them, for the rule only.
APPROXIMATE_BYTES = {PYTHON_DOCS: 1_600_000}


def default_settings(overrides: Sequence[Settings]) -> Settings:
    """The default preset; a shape or a batch that `overrides` set in part is completed to about the preset's size."""
    preset = read_preset(DEFAULT_PRESET)
    given: dict[str, dict[str, object]] = {"model": {}, "train": {}}
    try:
        for layer in overrides:
            for section in given:
                given[section].update(layer.get(section, {}))
        model, train = ModelConfig.model_validate(given["model"]), TrainConfig.model_validate(given["train"])
    except (TypeError, ValueError):  # a section that is no table, or a value out of range
        return preset  # reported when the whole configuration is validated
    completed = {section: dict(values) for section, values in preset.items()}
    if not model.model_fields_set.isdisjoint((*PARTS, "n_kv_head")):
        size = weights_at_depth(preset["model"]["n_layer"])
        completed["model"].update(whole_shape(model, model.model_fields_set, size))
    if train.micro_batch_size is not None:
        completed["train"]["batch_size"] = nearest_multiple(preset["train"]["batch_size"], train.micro_batch_size)
    return completed


def is_automatic(config: Config) -> bool:
    """Whether the rule applies: to new models of the modern family."""
    return config.model.family == "modern" and config.train.init_from is None


def automatic_settings(config: Config, overrides: Sequence[Settings], deadline: float) -> Choice:
    """The rule's choice for the sources of `config` until `deadline` (`time.time`), without what `overrides` set.

    Under torchrun, rank 0 decides.
    """
    world, runtime = join_processes(config.train.device, config.train.precision)
    fixed = {name for layer in overrides for values in layer.values() for name in values}
    text_bytes, vocabulary = _text(config.data, config.data.tokenizer if "tokenizer" in fixed else None)
    seconds = deadline - time.time()
    speed = training_speed(runtime, PROBE_SHARE * seconds) * world.world_size
    if pays_to_compile(runtime, seconds) if config.train.compile is None else config.train.compile:
        speed *= COMPILED_SPEEDUP
    situation = Situation(seconds, speed, text_bytes, vocabulary, world.world_size)
    return world.broadcast(choose(situation, config, fixed))


def training_speed(runtime: Runtime, seconds: float) -> float:
    """FLOP/s that training steps reach on random tokens, timed for about so many seconds or two steps."""
    tune_malloc()
    end = time.perf_counter() + seconds
    speed = 0.0
    for depth in PROBE_DEPTHS:
        model = ModelConfig(
            vocab_size=1024,
            block_size=PROBE_TOKENS,
            n_layer=depth,
            n_head=depth,
            n_embd=HEAD_SIZE * depth,
            tie_embeddings=False,
        )
        step_seconds = _step_seconds(model, runtime, end)
        speed = max(speed, training_flops_per_token(model) * PROBE_SEQUENCES * PROBE_TOKENS / step_seconds)
        if step_seconds >= PROBE_SECONDS or time.perf_counter() > end:
            break
    return speed


def _step_seconds(config: ModelConfig, runtime: Runtime, end: float) -> float:
    """Median time of a training step, without the first one, which warms up; none starts after `end` but the second."""
    generator = torch.Generator().manual_seed(0)
    model = build(config, generator).to(runtime.device).train()
    optimizer = Optimizer(model, TrainConfig())
    shape = (PROBE_SEQUENCES, PROBE_TOKENS + 1)
    tokens = torch.randint(0, config.vocabulary, shape, generator=generator).to(runtime.device)
    times: list[float] = []
    for step in range(1 + PROBE_STEPS):
        before = time.perf_counter()
        optimizer.zero_grad()
        with runtime.autocast():
            loss = model.loss(tokens[:, :-1], tokens[:, 1:])
        loss.backward()  # pyright: ignore  # torch does not annotate it
        optimizer.step(step)
        runtime.synchronize()
        times.append(time.perf_counter() - before)
        if step > 0 and time.perf_counter() > end:
            break
    return statistics.median(times[1:])


def _text(data: DataConfig, tokenizer: str | None) -> tuple[int | None, int | None]:
    """The size of the training text in bytes, and that of a vocabulary that is already chosen; None if unknown."""
    vocabulary = None if tokenizer is None else _vocabulary_size(tokenizer)
    paths = [expand_home(name) for name in data.sources]
    if len(paths) == 1 and paths[0].is_dir() and is_shards_folder(paths[0]):
        shards = open_shards(paths[0])
        return shards.meta.splits["train"].bytes, shards.tokenizer.vocab_size
    if STDIN in data.sources or any(is_pipe(path) for path in paths):  # read once, later
        return None, vocabulary
    sizes = [
        APPROXIMATE_BYTES.get(source.name) if source.size is None else source.size
        for source in find_sources(data.sources)
    ]
    if None in sizes:
        return None, vocabulary
    return int((1 - data.val_fraction) * sum(size or 0 for size in sizes)), vocabulary


def _vocabulary_size(tokenizer: str) -> int:
    """As the rule counts it: 0 for characters and bytes. Others than bpe:N are as large as GPT-2's."""
    if tokenizer in ("char", "byte"):
        return 0
    size = tokenizer.removeprefix("bpe:")
    return int(size) if size.isdecimal() else 50_257
