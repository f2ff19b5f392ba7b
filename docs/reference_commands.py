"""The page of the commands: what `--help` prints, for every command, from the same declarations."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

from cyclopts import App
from cyclopts.help import HelpEntry, create_parameter_help_panel
from reference_text import code, plain, table

from tokenloom.cli.main import COMMANDS, app

INTRODUCTION = """\
# Commands

Every command has `--help`, which prints what is listed here, and `--json` prints one JSON object on stdout. Progress,
notices and errors go to stderr.

`-` as DATA, FILE or `--prompt` is standard input. A value that begins with a dash is written with an equals sign:
`--prompt=--x`.

| exit code | meaning |
|---|---|
| 0 | success |
| 1 | failure: a file, the data, the model or the machine |
| 2 | usage error: an unknown option, or a value that is not allowed |
| 129, 130, 143 | stopped by SIGHUP, Ctrl-C or SIGTERM, after a checkpoint was saved |

| environment variable | meaning |
|---|---|
| `TOKENLOOM_CACHE` | folder of prepared data and downloads; defaults to the platform's cache folder |
| `TOKENLOOM_DEBUG` | if set, an error also shows its traceback |

MODEL is a run (`RUN`, `RUN@best`, `RUN@first`, `RUN@step-1000`), a checkpoint, a folder of GPT-2 or Qwen3 from
Hugging Face or of GPT-2 from OpenAI, a `.gguf` or `.pth` file, or a name: `gpt2` to `gpt2-xl`, or `openai:124M` to
`openai:1558M`.
"""


def page() -> str:
    parts = [INTRODUCTION]
    for name in COMMANDS:
        parts += _command([name], app[name])
    return "\n".join(parts)


def _command(path: list[str], command: App) -> Iterator[str]:
    """The section of a command, and those of the commands below it."""
    yield f"{'#' * (len(path) + 1)} tokenloom {' '.join(path)}\n"
    if command.default_command is None:
        yield f"{plain(command.help)}\n"
        for name, below in command.resolved_commands().items():
            if not name.startswith("-"):
                yield from _command([*path, name], below)
        return
    yield f"{plain(_description(command.default_command))}\n"
    collection = command.assemble_argument_collection(parse_docstring=True)
    for group in sorted(collection.groups, key=lambda group: (group.sort_key is None, group.sort_key or 0)):
        panel = create_parameter_help_panel(group, collection.filter_by(group=group), "plaintext")
        if panel.entries:
            yield f"**{group.name}**\n"
            yield table(("argument", "default", "meaning"), [_row(entry) for entry in panel.entries]) + "\n"


def _description(function: object) -> str:
    """The docstring without its list of parameters."""
    return re.split(r"\n+Parameters\n-+\n", inspect.getdoc(function) or "")[0]


def _row(entry: HelpEntry) -> tuple[str, str, str]:
    names = ", ".join(code(name) for name in entry.display_labels_with_metavar)
    choices = f" One of {', '.join(code(choice) for choice in entry.choices)}." if entry.choices else ""
    description = "" if entry.description is None else str(entry.description.primary_renderable)
    return names, "required" if entry.required else code(entry.default or ""), plain(description) + choices
