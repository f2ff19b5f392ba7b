"""tokenloom info: this machine, the libraries in use, the presets and corpora; or what is known of a model."""

from __future__ import annotations

import json as json_format
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

from cyclopts import Parameter

from tokenloom import __version__
from tokenloom.config import Config
from tokenloom.config_files import preset_names, read_preset

LIBRARIES = ("torch", "numpy", "tiktoken", "tokenizers", "safetensors", "pydantic", "matplotlib", "pyarrow", "datasets")


def info(
    model: str | None = None,
    *,
    trust: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Show versions, the machine, presets and named corpora; with a model, its configuration and size.

    Parameters
    ----------
    model
        A run, a checkpoint, a Hugging Face GPT-2 folder or a .pth.
    trust
        Let a .pth that holds more than tensors run its own code while it is read.
    json
        Print one JSON object on stdout.
    """
    facts = _of_installation() if model is None else _of_model(model, trust)
    print(json_format.dumps(facts) if json else "\n".join(_lines(facts)))


def _of_installation() -> dict[str, Any]:
    import os

    from tokenloom.data.corpora import CORPUS_NAMES

    return {
        "tokenloom": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "presets": {name: _shape(Config.of(read_preset(name))) for name in preset_names()},
        "corpora": list(CORPUS_NAMES),
    }


def _of_model(reference: str, trust: bool) -> dict[str, Any]:
    from tokenloom.model.flops import count_parameters, training_flops_per_token
    from tokenloom.weights.load import load

    loaded = load(reference, trust=trust)
    config = loaded.model.config
    return {
        "path": str(loaded.path),
        "parameters": count_parameters(config),
        "training_flops_per_token": training_flops_per_token(config),
        "tokenizer": loaded.tokenizer.kind,
        "model": config.model_dump(),
        "notices": loaded.notices,
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _shape(config: Config) -> str:
    model = config.model
    return (
        f"{model.family}, {model.n_layer} layers, {model.n_head} heads, {model.n_embd} wide, "
        f"context {model.block_size:,}, {config.data.tokenizer}"
    )


def _lines(facts: dict[str, Any]) -> list[str]:
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{name}:", *(f"  {key:20} {'-' if known is None else known}" for key, known in value.items())]
        else:
            lines.append(f"{name:22} {', '.join(map(str, value)) if isinstance(value, list) else value}")
    return lines
