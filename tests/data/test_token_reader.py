"""Token ids in memory are read like those of token shards."""

import numpy as np
import pytest

from tokenloom.data.token_reader import TokenArray


def test_tokens_are_read_by_position():
    tokens = TokenArray([5, 6, 7, 8])
    assert len(tokens) == 4
    assert tokens.read(1, 2).tolist() == [6, 7]
    assert tokens.read(4, 0).tolist() == []


def test_reading_does_not_copy():
    ids = np.arange(4, dtype=np.uint16)
    assert np.shares_memory(TokenArray(ids).read(1, 2), ids)


@pytest.mark.parametrize(("start", "count"), [(-1, 1), (0, 5), (4, 1), (1, -1)])
def test_tokens_outside_the_array_are_refused(start, count):
    with pytest.raises(IndexError, match="of an array of 4"):
        TokenArray([5, 6, 7, 8]).read(start, count)
