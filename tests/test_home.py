"""Paths that begin with "~"."""

from pathlib import Path

import pytest

from tokenloom.errors import UsageError
from tokenloom.home import expand_home


def test_only_a_tilde_at_the_start_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/reader")
    monkeypatch.setenv("USERPROFILE", "/home/reader")
    assert expand_home("~/x") == Path("/home/reader/x")
    assert expand_home("a/~/x") == Path("a/~/x")
    assert expand_home("./~x") == Path("~x")


def test_an_unknown_user_is_a_usage_error():
    with pytest.raises(UsageError, match="home folder ~nosuchuser cannot be determined"):
        expand_home("~nosuchuser/x")
