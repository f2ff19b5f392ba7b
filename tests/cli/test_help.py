"""The help of the command: complete, in terminals of any width, and without loading torch."""

import inspect
import subprocess
import sys
from dataclasses import fields
from importlib import import_module

import pytest
from cyclopts import App

from tokenloom.cli.flags import NOT_FLAGS
from tokenloom.cli.main import COMMANDS, app, main
from tokenloom.config import config_sections
from tokenloom.sampling_params import SamplingParams


def forget_consoles(monkeypatch):
    """Consoles are kept from earlier calls, with their widths."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")  # a dumb terminal has 80 columns, whatever COLUMNS says
    for known in (app, *(app[name] for name in COMMANDS)):
        monkeypatch.setattr(known, "_fallback_console", None)


def help_of(capsys, monkeypatch, *command):
    monkeypatch.setenv("COLUMNS", "400")
    forget_consoles(monkeypatch)
    with pytest.raises(SystemExit) as exit_info:
        main([*command, "--help"])
    assert exit_info.value.code == 0
    return capsys.readouterr().out


def summary(name):
    command = getattr(import_module(f"tokenloom.cli.{name}"), name)
    if isinstance(command, App):
        return command.help
    return inspect.getdoc(command).splitlines()[0]


def test_the_help_lists_every_command_with_the_first_line_of_its_docstring(capsys, monkeypatch):
    text = help_of(capsys, monkeypatch)
    for name in COMMANDS:
        assert summary(name) in text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_starts_with_its_docstring(capsys, monkeypatch, name):
    assert summary(name) in help_of(capsys, monkeypatch, name)


def test_the_help_of_train_says_what_it_does_without_arguments(capsys, monkeypatch):
    assert "Without arguments, trains on the docstrings" in help_of(capsys, monkeypatch, "train")


def test_the_help_of_train_shows_every_docstring_of_the_configuration(capsys, monkeypatch):
    text = help_of(capsys, monkeypatch, "train")
    for section, kind in config_sections().items():
        for name, field in kind.model_fields.items():
            assert f"{section}.{name}" in NOT_FLAGS or field.description in text


def test_the_help_of_generate_has_a_flag_for_every_sampling_parameter(capsys, monkeypatch):
    text = help_of(capsys, monkeypatch, "generate")
    for field in fields(SamplingParams):
        assert f"--{field.name.replace('_', '-')} " in text


@pytest.mark.timeout(60)
@pytest.mark.parametrize("columns", ["0", "1", "30", "x", "-1", "²"])
def test_the_help_is_complete_in_terminals_of_any_width(capsys, monkeypatch, columns):
    forget_consoles(monkeypatch)
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as exit_info:
        main(["export", "--help"])
    assert exit_info.value.code == 0
    assert "--quantiz" in capsys.readouterr().out  # the rest may be on the next line


@pytest.mark.parametrize("command", [[], ["train"], ["generate"], ["evaluate"]], ids=str)
def test_help_does_not_import_torch(command):
    code = f"""
import sys
from tokenloom.cli.main import main
try:
    main({[*command, "--help"]!r})
finally:
    assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
