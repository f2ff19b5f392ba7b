"""Whether training runs compiled, and how much faster its steps are then."""

from __future__ import annotations

from collections.abc import Callable

from tokenloom.compute.compilation import CompiledFunction, can_compile
from tokenloom.compute.runtime import Runtime
from tokenloom.data.corpora import cache_folder
from tokenloom.model.language_model import run_block
from tokenloom.training.step import TrainState

# Compiling a block takes about 20 s on two CPU cores the first time, and 3 s when it is in the cache.
COMPILE_MIN_SECONDS = 150.0
# Of steps of 2 × 128 to 4 × 256 against uncompiled ones: 1.21 to 1.27 in benchmarks/compiled_steps.py.
COMPILED_SPEEDUP = 1.22


def pays_to_compile(runtime: Runtime, seconds: float) -> bool:
    """Whether to compile a model that is trained for `seconds`."""
    return seconds >= COMPILE_MIN_SECONDS and can_compile(runtime.device)


def compile_if_configured(state: TrainState, notify: Callable[[str], None]) -> None:
    """Let the blocks of the model run compiled in training; `notify` is called if compiling fails."""
    if state.config.train.compile:
        state.model.training_block = CompiledFunction(run_block, cache_folder() / "compiled", notify)
