"""Configuration files: TOML files of the user and the presets of the package, as nested mappings, not yet validated."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, cast

import tomli_w

from tokenloom.errors import ConfigError

_ESCAPED = re.compile(r"\\u(dc[89a-f][0-9a-f]|005c)")
_TO_ESCAPE = re.compile(rf"\\(?={_ESCAPED.pattern[2:]})|[\udc80-\udcff]")


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file; raises `ConfigError` if it does not exist or is not valid TOML."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows write a byte order mark
        return _unescaped(tomllib.loads(text))
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


def dump_toml(sections: Mapping[str, Mapping[str, object]]) -> str:
    """A TOML document that `read_toml` reads, with "none" for None."""
    escaped = {name: {key: _escaped(value) for key, value in keys.items()} for name, keys in sections.items()}
    return tomli_w.dumps(escaped)


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


def _escaped(value: object) -> object:
    r"""A value that TOML can express: an undecodable byte of a file name, such as 0xe9, becomes the text \udce9.

    Python holds it as a lone surrogate of that number, for which TOML has no notation. If a name contains such text,
    its backslash is written as \u005c.
    """
    match value:
        case None:
            return "none"
        case str():
            return _TO_ESCAPE.sub(lambda found: f"\\u{ord(found.group()):04x}", value)
        case list():
            return [_escaped(item) for item in cast("list[object]", value)]
        case _:
            return value


def _unescaped(value: Any) -> Any:
    match value:
        case str():
            return _ESCAPED.sub(lambda found: chr(int(found.group(1), 16)), value)
        case list():
            return [_unescaped(item) for item in cast("list[object]", value)]
        case dict():
            return {key: _unescaped(item) for key, item in cast("dict[str, object]", value).items()}
        case _:
            return value
