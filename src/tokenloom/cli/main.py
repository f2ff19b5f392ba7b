"""The `tokenloom` command: parse, call, and turn every error into one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import App
from cyclopts.exceptions import CycloptsError, UnknownOptionError
from pydantic import ValidationError

from tokenloom import __version__
from tokenloom.cli.stdin import hide_dashes
from tokenloom.config import suggest_key, validation_message
from tokenloom.errors import TokenloomError

app = App(
    name="tokenloom",
    help="Pretrain GPT language models from scratch on your own text, measure them honestly, and let them write.",
    version=__version__,
    default_parameter=None,
)
# Named as text: a command's file is imported when it is called. The help says here what its docstring says there.
COMMANDS = {
    "train": "Train a GPT on text.",
    "prepare": "Turn text into token shards.",
    "evaluate": "Measure a model on a text: loss, perplexity, bits per byte.",
    "generate": "Let a model write.",
    "inspect": "Show what a model saw at each token of a text.",
    "compare": "Show how two models read the same text, token by token.",
    "export": "Hand a model on: to Hugging Face, to PyTorch, to the book's code.",
    "bench": "Measure this machine: ours and the peers that are installed, in turn.",
    "chapter5": "Replay chapter 5 of the book and compare every figure.",
    "info": "Show versions, the machine, presets and corpora; or a model's configuration.",
}
for name, summary in COMMANDS.items():
    app.command(f"tokenloom.cli.{name}:{name}", name=name, help=summary)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit: 0, 1 (failed), 2 (usage) or 130 (interrupted)."""
    tokens = hide_dashes(sys.argv[1:] if argv is None else argv)
    try:
        app(tokens, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        _fail(_usage(error), 2)
    except TokenloomError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("stopped", 130)
    except BrokenPipeError:  # whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except MemoryError:
        _fail("out of memory. Use a smaller --preset, or --train.micro-batch-size 1.", 1)
    except OSError as error:
        _fail(f"{error.strerror or error}: {error.filename or 'input or output'}. Check the path and its rights.", 1)
    sys.exit(0)


def _usage(error: CycloptsError) -> str:
    cause = error.__cause__
    if isinstance(cause, TokenloomError):
        return str(cause)
    if isinstance(cause, ValidationError):
        return validation_message(cause, cause.title.removeprefix("nullable[").removesuffix("]"))
    if isinstance(error, UnknownOptionError) and error.token is not None:
        typed = error.token.keyword or error.token.value
        key = suggest_key(typed.lstrip("-"))
        return f"unknown option {typed}. " + (f"Did you mean --{key.replace('_', '-')}?" if key else _see_help())
    text = " ".join(str(error).split())
    return f"{text[0].lower()}{text[1:]}"


def _see_help() -> str:
    return "See tokenloom --help, or the --help of the command."


def _fail(message: str, code: int) -> NoReturn:
    print(f"tokenloom: {message}", file=sys.stderr)
    sys.exit(code)
