"""Arguments as they are typed: dashes, numbers and home folders, through a small command."""

from pathlib import Path
from typing import Annotated

import pytest
from cyclopts import App, Parameter

from tokenloom.cli.arguments import check_arguments, escape_dashes, unescape_dashes
from tokenloom.errors import UsageError


def parse(*argv: str) -> dict[str, object]:
    """The arguments of a command after conversion."""
    app = App(config=check_arguments)

    @app.default
    def command(
        *names: str,
        text: str = "",
        stop: list[str] | None = None,
        count: int = 1,
        limit: int | None = 1,
        share: Annotated[float | None, Parameter(name=["--share", "-s"])] = None,
        out: Path | None = None,
        flag: bool = False,
    ) -> None: ...

    _, bound, _ = app.parse_args(escape_dashes(argv), exit_on_error=False, print_error=False)
    return bound.arguments


@pytest.mark.parametrize("value", ["-", "- item", "---", "-5 apples", "–", "-.5", "-1"])
def test_a_value_that_begins_with_a_dash_and_is_no_option_is_taken_as_it_is(value):
    assert parse("--text", value) == {"text": value}
    assert parse(f"--text={value}") == {"text": value}
    assert parse("--stop", value, "--stop", "x") == {"stop": [value, "x"]}
    assert parse(value, "--flag", value) == {"names": (value, value), "flag": True}
    assert unescape_dashes(escape_dashes([value])[0]) == value


def test_options_stay_options():
    assert escape_dashes(["-s", "--share", "--", "-x", "a-b"]) == ["-s", "--share", "--", "-x", "a-b"]
    assert parse("--", "-x", "-") == {"names": ("-x", "-")}


@pytest.mark.parametrize("value", ["2.7", "2.0", "1e3", "0x10", "many", "nan", "inf"])
def test_an_integer_is_never_rounded(value):
    for flag in ("--count", "--limit"):
        with pytest.raises(UsageError, match=f"{flag} must be an integer, got {value}"):
            parse(flag, value)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "much"])
def test_a_number_is_finite(value):
    with pytest.raises(UsageError, match=f"--share must be a finite number, got {value}"):
        parse(f"--share={value}")


def test_numbers_and_none_are_converted():
    assert parse("--count", "-3", "--limit", "none", "--share", "1e-3") == {"count": -3, "limit": None, "share": 1e-3}


def test_a_home_folder_is_expanded_in_both_forms_of_a_flag(monkeypatch):
    monkeypatch.setenv("HOME", "/home/reader")
    monkeypatch.setenv("USERPROFILE", "/home/reader")
    assert parse("--out=~/x") == parse("--out", "~/x") == {"out": Path("/home/reader/x")}
    assert parse("--text=~/x") == {"text": "~/x"}


def test_an_unknown_home_folder_is_a_usage_error():
    with pytest.raises(UsageError, match="~nosuchuser"):
        parse("--out", "~nosuchuser/x")
