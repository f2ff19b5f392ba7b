"""Commands that compute with a model look at the load first: how threads wait is decided before torch starts."""

import pytest

from tokenloom.cli.main import main
from tokenloom.compute import waiting
from tokenloom.errors import UsageError


@pytest.mark.parametrize(
    "command",
    [
        ["train", "text.txt"],
        ["search", "text.txt", "--try", "train.learning-rate=1e-3..1e-2"],
        ["chapter5"],
        ["generate", "run"],
        ["evaluate", "run"],
        ["inspect", "run"],
        ["compare", "run", "run"],
        ["serve", "run"],
    ],
    ids=lambda command: command[0],
)
def test_the_load_is_looked_at_before_anything_else(monkeypatch, capsys, command):
    def looked_at():
        raise UsageError("the load was looked at")

    monkeypatch.setattr(waiting, "sleep_if_busy", looked_at)
    with pytest.raises(SystemExit) as exit_info:
        main(command)
    assert (exit_info.value.code, capsys.readouterr().err) == (2, "tokenloom: the load was looked at\n")
