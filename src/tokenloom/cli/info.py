"""tokenloom info: the installation, the presets and corpora; or the configuration and size of a model."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, cast

from cyclopts import Parameter

from tokenloom import __version__
from tokenloom.cli.output import print_json, print_result
from tokenloom.cli.parameters import ARGUMENTS, MODEL_HELP, Json, Trust
from tokenloom.config import Config
from tokenloom.config_files import preset_names, read_preset

LIBRARIES = ("torch", "numpy", "tiktoken", "tokenizers", "safetensors", "pydantic", "matplotlib", "pyarrow", "datasets")


@dataclass(frozen=True, kw_only=True)
class Installation:
    """This installation of Tokenloom and the machine it runs on."""

    tokenloom: str
    python: str
    platform: str
    cores: int | None
    libraries: Mapping[str, str | None]
    """Version of each library; None if it is not installed."""
    presets: Mapping[str, str]
    corpora: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class ModelDescription:
    """Configuration and size of a model."""

    path: str
    parameters: int
    training_flops_per_token: float
    tokenizer: str
    model: Mapping[str, object]
    """The [model] section of its configuration."""
    notices: Sequence[str]
    """Assumptions made and problems found while it was loaded."""


def info(
    model: Annotated[str | None, Parameter(group=ARGUMENTS, help=MODEL_HELP)] = None,
    *,
    trust: Trust = False,
    json: Json = False,
) -> None:
    """Show versions, presets and corpora; or the configuration and size of a model."""
    described = _describe_installation() if model is None else _describe_model(model, trust)
    values = asdict(described)
    if json:
        print_json(values)
    else:
        print_result("\n".join(_lines(values)))


def _describe_installation() -> Installation:
    from tokenloom.data.corpora import CORPUS_NAMES

    return Installation(
        tokenloom=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        cores=os.cpu_count(),
        libraries={name: _version(name) for name in LIBRARIES},
        presets={name: _describe_preset(name) for name in preset_names()},
        corpora=list(CORPUS_NAMES),
    )


def _describe_model(reference: str, trust: bool) -> ModelDescription:
    from tokenloom.model.flops import count_parameters, training_flops_per_token
    from tokenloom.weights.load import load

    loaded = load(reference, trust=trust)
    config = loaded.model.config
    return ModelDescription(
        path=str(loaded.path),
        parameters=count_parameters(config),
        training_flops_per_token=training_flops_per_token(config),
        tokenizer=loaded.tokenizer.kind,
        model=config.model_dump(),
        notices=loaded.notices,
    )


def _describe_preset(name: str) -> str:
    config = Config.of(read_preset(name))
    model = config.model
    return (
        f"{model.family}, {model.n_layer} layers, {model.n_head} heads, {model.n_embd} wide, "
        f"context {model.block_size:,}, {config.data.tokenizer}"
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _lines(values: Mapping[str, object]) -> list[str]:
    lines: list[str] = []
    for name, value in values.items():
        label = name.replace("_", " ")
        if isinstance(value, Mapping):
            items = cast(Mapping[str, object], value).items()
            lines += [f"{label}:", *(f"  {key:22} {_text(entry)}" for key, entry in items)]
        elif value != []:
            lines.append(f"{label:24} {_text(value)}")
    return lines


def _text(value: object) -> str:
    """A value as people read it: 664,448 rather than 664448.0."""
    match value:
        case None:
            return "-"
        case bool():
            return str(value).lower()
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.0f}" if value.is_integer() else f"{value:g}"
        case list():
            return ", ".join(map(str, cast("list[object]", value)))
        case _:
            return str(value)
