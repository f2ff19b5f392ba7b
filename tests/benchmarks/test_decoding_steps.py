"""Steps of two checkouts are timed in turn, in one process."""

import sys
from pathlib import Path

import pytest
import torch
from decoding_steps import main

import tokenloom.generation.engine

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def threads():
    count = torch.get_num_threads()
    yield
    torch.set_num_threads(count)


def test_a_checkout_has_the_tokens_and_about_the_time_of_itself(capsys):
    before = sys.modules["tokenloom.generation.engine"]
    assert main([str(ROOT), "--shapes", "tiny", "--rows", "2", "--steps", "3"]) == 0
    *_, line = capsys.readouterr().out.splitlines()
    assert line.startswith("| tiny | 2 | ")
    assert line.count("→") == 1
    assert sys.modules["tokenloom.generation.engine"] is before is tokenloom.generation.engine


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="is not a checkout"):
        main([str(tmp_path)])
