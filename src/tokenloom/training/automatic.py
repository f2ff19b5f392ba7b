"""Automatic settings: the rule of a time budget, applied to the sources, the machine and the time that is left."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import torch

from tokenloom.compute.parallel import init_process_group
from tokenloom.compute.runtime import Runtime, choose_runtime, tune_malloc
from tokenloom.config import Config, DataConfig, ModelConfig, Settings, TrainConfig
from tokenloom.data.corpora import PYTHON_DOCS
from tokenloom.data.shards import open_shards
from tokenloom.data.shards_meta import is_shards_folder
from tokenloom.data.sources import STDIN, find_sources
from tokenloom.data.streams import is_pipe
from tokenloom.home import expand_home
from tokenloom.model import build
from tokenloom.model.flops import training_flops_per_token
from tokenloom.training.optimizer import Optimizer
from tokenloom.training.rule import HEAD_SIZE, Choice, choose

# The models whose training steps are timed, by depth, until a step takes long enough to occupy the device: a GPU does
# not reach its speed with the small ones.
PROBE_DEPTHS, PROBE_SECONDS = (3, 6, 12), 0.03
PROBE_SEQUENCES, PROBE_TOKENS, PROBE_STEPS = 8, 256, 3
# The size of named corpora that is not known without reading them, for the rule only.
APPROXIMATE_BYTES = {PYTHON_DOCS: 1_600_000}
SHAPE = ("n_layer", "n_head", "n_kv_head", "n_embd", "head_dim", "n_inner")


def is_automatic(config: Config) -> bool:
    """Whether the rule applies: to new models of the modern family."""
    return config.model.family == "modern" and config.train.init_from is None


def automatic_settings(config: Config, overrides: Sequence[Settings], deadline: float) -> Choice:
    """The rule's choice for the sources of `config` until `deadline` (`time.time`), without what `overrides` set.

    A shape that is set in part is not completed: the parts would not fit. Under torchrun, rank 0 decides.
    """
    world = init_process_group()
    runtime = choose_runtime(config.train.device, config.train.precision, world.local_rank)
    given: dict[str, set[str]] = {"data": set(), "model": set(), "train": set()}
    for layer in overrides:
        for section, values in layer.items():
            given.setdefault(section, set()).update(values)
    has_tokenizer = "tokenizer" in given["data"]
    text_bytes, vocabulary = _text(config.data, config.data.tokenizer if has_tokenizer else None)
    choice = choose(deadline - time.time(), training_speed(runtime), text_bytes, vocabulary)
    has_shape = not given["model"].isdisjoint(SHAPE)
    settings = {
        section: {
            name: value
            for name, value in values.items()
            if name not in given[section] and not (has_shape and section == "model" and name in SHAPE)
        }
        for section, values in choice.settings.items()
    }
    if vocabulary is not None:
        settings.pop("data")
    return world.broadcast(Choice(settings, choice.reasons))


def training_speed(runtime: Runtime) -> float:
    """FLOP/s that training steps reach on random tokens."""
    tune_malloc()
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
        seconds = _step_seconds(model, runtime)
        speed = max(speed, training_flops_per_token(model) * PROBE_SEQUENCES * PROBE_TOKENS / seconds)
        if seconds >= PROBE_SECONDS:
            break
    return speed


def _step_seconds(config: ModelConfig, runtime: Runtime) -> float:
    """Median time of a training step, without the first one, which warms up."""
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
    sizes = [source.size or APPROXIMATE_BYTES.get(source.name) for source in find_sources(data.sources)]
    if None in sizes:
        return None, vocabulary
    return int((1 - data.val_fraction) * sum(size or 0 for size in sizes)), vocabulary


def _vocabulary_size(tokenizer: str) -> int:
    """As the rule counts it: 0 for characters and bytes. Others than bpe:N are as large as GPT-2's."""
    if tokenizer in ("char", "byte"):
        return 0
    size = tokenizer.removeprefix("bpe:")
    return int(size) if size.isdecimal() else 50_257
