"""The pages of the settings: every field of the configuration, and what each preset sets."""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic.fields import FieldInfo
from reference_text import code, plain, table

from tokenloom.cli.flags import NOT_FLAGS, SHORT_NAMES
from tokenloom.config import Config, config_keys, config_sections
from tokenloom.config_files import preset_names, read_preset

CONFIGURATION = """\
# Configuration

Settings are taken from the defaults, then a preset (`--preset`), then a TOML file (`--config`), then flags; later ones
take precedence. The same key is written in three ways:

| where | how |
|---|---|
| flag | `--train.max-steps 100` |
| TOML file | `max_steps = 100` in the table `[train]` |
| Python | `settings={"train": {"max_steps": 100}}` |

An optional setting is switched off, or set back to the default that its description gives, by `none` (in TOML `"none"`,
in Python `None`). The settings of a run are in its `config.toml`, which `--config` reads. An unknown key is an error
that names the nearest one.

With a time budget and without a preset, the size of the model, the tokenizer, the batch size and the weight decay are
chosen for the text and the machine, unless they are set; see [Train within a time budget](../how-to/budgets.md).
"""
PRESETS = """\
# Presets

`--preset NAME` starts from these settings, which a file and flags override. What a preset does not set has its
[default](configuration.md). `tokenloom info` lists the presets.
"""
_TYPES = {"NoneType": "None", "<class '": "", "'>": "", "typing.": ""}


def configuration_page() -> str:
    parts = [CONFIGURATION]
    for section, kind in config_sections().items():
        rows = [_row(section, name, field) for name, field in kind.model_fields.items()]
        parts += [f"## {section}\n", f"{plain(inspect.getdoc(kind) or '')}\n"]
        parts.append(table(("setting", "type", "default", "meaning"), rows) + "\n")
    return "\n".join(parts)


def presets_page() -> str:
    parts = [PRESETS]
    for name in preset_names():
        values = read_preset(name)
        set_keys = [key for key in config_keys() if key.split(".")[1] in values.get(key.split(".")[0], {})]
        config = Config.of(values)
        rows = [(code(key), code(_shown(_value(config, key)))) for key in set_keys]
        parts += [f"## {name}\n", f"{_comment(name)}\n", table(("setting", "value"), rows) + "\n"]
    return "\n".join(parts)


def _row(section: str, name: str, field: FieldInfo) -> tuple[str, str, str, str]:
    key = f"{section}.{name}"
    short = f" (`{SHORT_NAMES[key]}`)" if key in SHORT_NAMES else ""
    instead = f" {NOT_FLAGS[key]}" if key in NOT_FLAGS else ""
    meaning = plain(field.description or "") + _limits(field) + instead
    return code(key) + short, code(_type(field.annotation)), code(_shown(field.default)), meaning


def _type(annotation: object) -> str:
    text = str(annotation)
    for before, after in _TYPES.items():
        text = text.replace(before, after)
    return re.sub(r"Literal\[([^]]*)\]", lambda found: found[1].replace(", ", " | "), text).replace("'", "")


def _limits(field: FieldInfo) -> str:
    """The range of a number, from its validators."""
    signs = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    found = [
        f"{word} {getattr(item, sign):g}"
        for item in field.metadata
        for sign, word in signs.items()
        if hasattr(item, sign)
    ]
    return f" ({', '.join(found)})" if found else ""


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ", ".join(f'"{item}"' for item in value) or "()"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _value(config: Config, key: str) -> object:
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


def _comment(name: str) -> str:
    """The comment at the start of a preset's file."""
    from importlib import resources

    text = resources.files("tokenloom").joinpath(f"presets/{name}.toml").read_text(encoding="utf-8")
    return " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
