"""Peak memory and time of loading a model with random weights from a Hugging Face folder."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from tokenloom.bench.harness import Implementation, Metrics, run_task, worker_main

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
IMPLEMENTATIONS = (
    Implementation("transformers fp32", requires=("transformers",)),
    Implementation("transformers bf16", requires=("transformers",)),
    Implementation("tokenloom fp32"),
    Implementation("tokenloom bf16"),
)


def write_model(folder: Path, preset: str) -> None:
    """Write a model of a preset's shape in fp32."""
    run_task("loading", "write", {"folder": str(folder), "preset": preset})


def tokenloom(folder: str, precision: str) -> Metrics:
    from tokenloom.weights.folder import read_folder

    return _measure(lambda: read_folder(Path(folder)).read(DTYPES[precision]))


def transformers(folder: str, precision: str) -> Metrics:
    model_class = import_module("transformers").AutoModelForCausalLM
    return _measure(lambda: model_class.from_pretrained(folder, dtype=DTYPES[precision]))


def _measure(load: Callable[[], nn.Module]) -> Metrics:
    """Memory is measured above what the interpreter used before, as a multiple of the size of the weights."""
    before, started = _peak_bytes(), time.perf_counter()
    model = load()
    seconds = time.perf_counter() - started
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return {
        "memory_ratio": (_peak_bytes() - before) / weights,
        "load_seconds": seconds,
        "weights_mb": weights / 1e6,
    }


def _peak_bytes() -> float:
    from tokenloom.compute.runtime import peak_memory_mb

    if sys.platform == "linux":
        # Unlike ru_maxrss, VmHWM does not include the parent process's memory.
        status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(line for line in status if line.startswith("VmHWM")).split()[1])
    return 1e6 * peak_memory_mb(torch.device("cpu"))


def _write(folder: str, preset: str) -> Metrics:
    from tokenloom.config import Config
    from tokenloom.config_files import read_preset
    from tokenloom.model.gpt2 import GPT2
    from tokenloom.weights.folder import write_folder

    config = Config.of(read_preset(preset)).model
    model = GPT2(config.model_copy(update={"vocab_size": config.vocab_size or 50257}))
    write_folder(Path(folder), model, eot_id=0)
    return {}


TASKS = {
    "write": _write,
    **{f"transformers {p}": partial(transformers, precision=p) for p in DTYPES},
    **{f"tokenloom {p}": partial(tokenloom, precision=p) for p in DTYPES},
}

if __name__ == "__main__":
    worker_main(TASKS)
