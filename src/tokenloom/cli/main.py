"""The `tokenloom` command: parses arguments, runs a command, and turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import App
from cyclopts.exceptions import CycloptsError, UnknownOptionError
from pydantic import ValidationError

from tokenloom import __version__
from tokenloom.cli.parameters import ARGUMENTS
from tokenloom.cli.stdin import escape_dashes
from tokenloom.config import suggest_key, validation_message
from tokenloom.errors import TokenloomError

COMMANDS = (
    "train",
    "prepare",
    "evaluate",
    "generate",
    "inspect",
    "compare",
    "export",
    "bench",
    "chapter5",
    "info",
)

app = App(
    name="tokenloom",
    help="Pretrain GPT language models from scratch on your own text, evaluate them, and generate text with them.",
    version=__version__,
    group_arguments=ARGUMENTS,
    suppress_keyboard_interrupt=False,
)
for position, name in enumerate(COMMANDS):
    # Registered by import path, so that only the module of the command that runs is imported.
    app.command(f"tokenloom.cli.{name}:{name}", name=name, sort_key=position)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with 0 (success), 1 (failure), 2 (usage error) or 128 plus a signal number."""
    tokens = escape_dashes(sys.argv[1:] if argv is None else argv)
    if not tokens or tokens[0] in app.help_flags:
        _import_commands()
    try:
        app(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _fail(_usage_message(error), 2)
    except TokenloomError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:  # The reader of stdout, such as head, has exited.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except MemoryError:
        _fail("out of memory. Use a smaller --preset, or --train.micro-batch-size 1.", 1)
    except OSError as error:
        path = error.filename or "input or output"
        _fail(f"{error.strerror or error}: {path}. Check the path and its permissions.", 1)
    sys.exit(0)


def _import_commands() -> None:
    """Import all commands, whose docstrings are the summaries in the help of `tokenloom` itself."""
    for name in COMMANDS:
        _ = app[name]


def _usage_message(error: CycloptsError) -> str:
    cause = error.__cause__
    if isinstance(cause, TokenloomError):
        return str(cause)
    if isinstance(cause, ValidationError):
        return validation_message(cause, cause.title.removeprefix("nullable[").removesuffix("]"))
    if isinstance(error, UnknownOptionError):
        option = error.token.keyword or error.token.value
        key = suggest_key(option.lstrip("-"))
        hint = f"Did you mean --{key.replace('_', '-')}?" if key else "See tokenloom --help, or COMMAND --help."
        return f"unknown option {option}. {hint}"
    text = " ".join(str(error).split())
    return f"{text[0].lower()}{text[1:]}"


def _fail(message: str, code: int) -> NoReturn:
    print(f"tokenloom: {message}", file=sys.stderr)
    sys.exit(code)
