"""Configuration files: TOML files of the user and the presets of the package, as nested mappings, not yet validated."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from tokenloom.errors import ConfigError


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file; raises `ConfigError` if it does not exist or is not valid TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows write a byte order mark
    except FileNotFoundError:
        raise ConfigError(f"configuration {path} does not exist. Check the path.") from None
    except IsADirectoryError:
        raise ConfigError(f"configuration {path} is a folder. Name a TOML file.") from None
    except OSError as error:
        raise ConfigError(f"cannot read configuration {path}: {error.strerror}. Check its permissions.") from None
    except UnicodeDecodeError as error:
        byte = f"byte 0x{error.object[error.start]:02x} at offset {error.start:,}"
        raise ConfigError(f"configuration {path} is not UTF-8: {byte}. Save it as UTF-8.") from None
    except (ValueError, RecursionError) as error:  # also for numbers and nesting past the limits of Python
        raise ConfigError(f"configuration {path} is not valid TOML: {error}. Fix that line.") from None


def preset_names() -> list[str]:
    """The names of all presets, sorted."""
    files = resources.files("tokenloom").joinpath("presets").iterdir()
    return sorted(Path(file.name).stem for file in files if file.name.endswith(".toml"))


def read_preset(name: str) -> Mapping[str, Any]:
    """The content of a preset; raises `ConfigError` if there is none of that name."""
    names = preset_names()
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError(f'there is no preset "{name}".{hint} Available: {", ".join(names)}.')
    return tomllib.loads(resources.files("tokenloom").joinpath(f"presets/{name}.toml").read_text(encoding="utf-8"))
