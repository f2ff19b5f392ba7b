"""The `tokenloom` command: parses arguments, runs a command, and turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import NoReturn

from cyclopts import App
from cyclopts.exceptions import CycloptsError, MissingArgumentError, UnknownOptionError, UnusedCliTokensError
from pydantic import ValidationError

from tokenloom import __version__
from tokenloom.cli.arguments import check_arguments, escape_dashes, unescape_dashes
from tokenloom.cli.output import print_notice
from tokenloom.cli.parameters import ARGUMENTS
from tokenloom.cli.signals import StoppedBySignal, StopSignals
from tokenloom.cli.streams import standard_streams
from tokenloom.config import suggest_key
from tokenloom.config_values import validation_message
from tokenloom.errors import OutputError, TokenloomError, is_out_of_memory, see_page, shortened

COMMANDS = (
    "train",
    "search",
    "plan",
    "prepare",
    "evaluate",
    "generate",
    "inspect",
    "compare",
    "serve",
    "runs",
    "export",
    "bench",
    "chapter5",
    "info",
)
MIN_COLUMNS = 20
JOIN_SECONDS = 0.5
MAX_CAUSE = 300  # characters of an unexpected error: that of a C++ compiler has thousands of lines
REPORT = (
    "This is a bug in Tokenloom: please report it in its issue tracker, with the command and the traceback that "
    "TOKENLOOM_DEBUG=1 prints."
)

app = App(
    name="tokenloom",
    help="Pretrain GPT language models from scratch on your own text, evaluate them, and generate text with them.",
    version=__version__,
    config=check_arguments,
    group_arguments=ARGUMENTS,
    suppress_keyboard_interrupt=False,
)
for position, name in enumerate(COMMANDS):
    # Registered by import path, so that only the module of the command that runs is imported.
    app.command(f"tokenloom.cli.{name}:{name}", name=name, sort_key=position)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with 0 (success), 1 (failure), 2 (usage error) or 128 plus a signal number."""
    tokens = escape_dashes(sys.argv[1:] if argv is None else argv)
    _ignore_narrow_columns()
    others = set(threading.enumerate())
    with standard_streams():
        code = _run(tokens)
    if _is_computing(set(threading.enumerate()) - others) or _was_in_a_group():
        os._exit(code)
    sys.exit(code)


def _run(tokens: list[str]) -> int:
    """Run one command; the exit code. An exception becomes one line on stderr."""
    signals = StopSignals()
    try:
        with signals:
            if not tokens or tokens[0] in app.help_flags:
                _import_commands()
            code = _call(tokens)
            sys.stdout.flush()
        return code
    except BaseException as error:
        if os.environ.get("TOKENLOOM_DEBUG"):
            traceback.print_exc()
        # Code that was interrupted may have raised another exception in its place.
        message, code = _message_of(signals.received or error)
        if message:
            print_notice(message)
        return code


def _is_computing(threads: Collection[threading.Thread]) -> bool:
    """Whether one of these threads is a server's and does not end: within torch, an orderly exit would abort."""
    ours = [thread for thread in threads if thread.name.startswith("tokenloom-")]
    for thread in ours:
        with suppress(RuntimeError):  # it is being started
            thread.join(JOIN_SECONDS)
    return any(thread.is_alive() for thread in ours)


def _was_in_a_group() -> bool:
    """Whether this process has been in a process group, a thread of which may be left and abort an orderly exit."""
    parallel = sys.modules.get("tokenloom.compute.parallel")
    return parallel is not None and parallel.has_joined()


def _ignore_narrow_columns() -> None:
    """Forget a width that is no number, or too narrow for help, which cyclopts would wrap forever."""
    columns = os.environ.get("COLUMNS", "")
    if not columns.isdecimal() or int(columns) < MIN_COLUMNS:
        os.environ.pop("COLUMNS", None)


def _call(tokens: list[str]) -> int:
    try:
        app(tokens, exit_on_error=False, print_error=False)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0
    return 0


def _message_of(error: BaseException) -> tuple[str, int]:
    """The line that describes an exception, if there is anything to say, and the exit code."""
    match error:
        case StoppedBySignal():
            return str(error), error.exit_code
        case KeyboardInterrupt():
            return "interrupted", 130
        case CycloptsError():
            return unescape_dashes(_usage_message(error)), 2
        case OutputError() if isinstance(error.__cause__, BrokenPipeError):
            return "", 0  # the reader of stdout, such as head, has read enough
        case TokenloomError():
            return "" if error.is_reported else f"{error}{see_page(error.topic)}", error.exit_code
        case _ if is_out_of_memory(error):
            return f"out of memory. Use a smaller --preset, or --train.micro-batch-size 1.{see_page('memory')}", 1
        case OSError():
            path = error.filename or "input or output"
            return f"{error.strerror or error}: {path}. Check the path and its permissions.", 1
        case _:
            cause = shortened(f"{type(error).__name__}: {error}", MAX_CAUSE).rstrip(":.")
            return f"unexpected error: {cause}. {REPORT}", 1


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
    if isinstance(error, MissingArgumentError) and error.keyword:
        flag, (count, _) = error.keyword, error.argument.token_count() if error.argument is not None else (1, False)
        if count > 1:
            return (
                f"{flag} needs {count} values, got {len(error.tokens_so_far)}. See tokenloom --help, or COMMAND --help."
            )
        return f"{flag} needs a value. Write one that begins with a dash with an equals sign: {flag}=-VALUE"
    command = " ".join(["tokenloom", *(error.command_chain or ())])
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.argument.name
        needed = name.lstrip("-").upper() if error.argument.field_info.is_positional else name
        return f"{command} needs {needed}. See {command} --help."
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        hint = " A text to continue is passed with --prompt." if command == "tokenloom generate" else ""
        return f'unexpected argument "{shortened(error.unused_tokens[0])}".{hint} See {command} --help.'
    text = " ".join(str(error).split())
    return f"{text[:1].lower()}{text[1:]}"
