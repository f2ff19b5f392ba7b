"""Batches are a pure function of seed and step, and use every window once per epoch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenloom.data.batches import Batches, count_windows
from tokenloom.data.token_reader import TokenArray
from tokenloom.errors import DataError

ORDERS = ["windows", "shifted", "offsets"]


def positions(length: int) -> TokenArray:
    """A text whose tokens are their own positions."""
    return TokenArray(np.arange(length, dtype=np.uint16))


def batches_of(length=103, *, block_size=8, batch_size=4, seed=1, **options) -> Batches:
    return Batches(positions(length), block_size=block_size, batch_size=batch_size, seed=seed, **options)


def starts_of(batches: Batches, steps: range) -> list[int]:
    return [int(start) for step in steps for start in batches.starts(step)]


# Figures from the book


def test_rows_15_and_16_the_story_gives_nine_batches_to_train_and_one_to_validate(verdict, verdict_tokens):
    assert int(0.9 * len(verdict)) == 18_431
    assert {name: len(tokens) for name, tokens in verdict_tokens.items()} == {"train": 4_612, "val": 534}
    for name, n_batches in (("train", 9), ("val", 1)):
        data = Batches(verdict_tokens[name], block_size=256, batch_size=2, seed=123)
        assert data.n_windows // 2 == n_batches
        for step in range(n_batches):
            ids, targets = data.batch(step)
            assert ids.shape == targets.shape == (2, 256)
            assert torch.equal(ids[:, 1:], targets[:, :-1])


def test_row_16_the_windows_are_the_books(verdict_tokens):
    tokens = verdict_tokens["train"]
    book = [tokens.ids[i : i + 257].tolist() for i in range(0, len(tokens) - 256, 256)]
    data = Batches(tokens, block_size=256, batch_size=2, seed=123)
    windows = [
        [*ids.tolist(), targets[-1].item()] for step in range(9) for ids, targets in zip(*data.batch(step), strict=True)
    ]
    assert sorted(windows) == sorted(book)
    assert windows != book  # shuffled


def test_row_17_a_context_of_1024_leaves_four_windows_to_train_and_none_to_validate(verdict_tokens):
    assert count_windows(4_612, 1024, 1024) == 4
    assert count_windows(534, 1024, 1024) == 0
    with pytest.raises(DataError, match=r"534 tokens are too few for a context of 1,024"):
        Batches(verdict_tokens["val"], block_size=1024, batch_size=2, seed=123)


def test_row_18_the_story_is_5120_tokens_an_epoch(verdict_tokens):
    n_tokens = {}
    for name, n_batches in (("train", 9), ("val", 1)):
        data = Batches(verdict_tokens[name], block_size=256, batch_size=2, seed=123)
        n_tokens[name] = sum(data.batch(step)[0].numel() for step in range(n_batches))
    assert n_tokens == {"train": 4_608, "val": 512}
    assert sum(n_tokens.values()) == 5_120


# Windows


@given(tokens=st.integers(0, 60), block_size=st.integers(1, 20), stride=st.integers(1, 25))
def test_windows_are_counted_as_in_the_book(tokens, block_size, stride):
    assert count_windows(tokens, block_size, stride) == len(range(0, tokens - block_size, stride))


@pytest.mark.parametrize("order", ORDERS)
def test_targets_are_the_next_tokens(order):
    ids, targets = batches_of(order=order).batch(3)
    assert ids.dtype == targets.dtype == torch.int64
    assert ids.shape == (4, 8)
    assert torch.equal(targets, ids + 1)


@pytest.mark.parametrize(("length", "stride", "batch_size"), [(97, None, 4), (103, None, 5), (103, 3, 7), (60, 11, 2)])
def test_every_window_is_used_once_per_epoch_in_a_different_order_each_epoch(length, stride, batch_size):
    batches = batches_of(length, stride=stride, batch_size=batch_size)
    windows = list(range(0, length - 8, stride or 8))
    assert batches.n_windows == len(windows)
    epochs = 5
    starts = starts_of(batches, range(-(-epochs * len(windows) // batch_size)))
    by_epoch = [starts[i * len(windows) : (i + 1) * len(windows)] for i in range(epochs)]
    assert all(sorted(epoch) == windows for epoch in by_epoch)  # also if a batch spans two epochs
    assert len({tuple(epoch) for epoch in [windows, *by_epoch]}) == 1 + epochs


def test_shifted_windows_start_at_other_positions_in_each_epoch_after_the_first():
    plain, shifted = batches_of(order="windows", batch_size=1), batches_of(order="shifted", batch_size=1)
    n, epochs = plain.n_windows, 6
    assert shifted.n_windows == n
    assert starts_of(shifted, range(n)) == starts_of(plain, range(n))
    offsets = set()
    for epoch in range(1, epochs):
        starts = sorted(starts_of(shifted, range(epoch * n, (epoch + 1) * n)))
        offset = starts[0]
        assert 0 <= offset < 8
        assert starts == [min(start + offset, 103 - 8 - 1) for start in range(0, 103 - 8, 8)]
        offsets.add(offset)
    assert len(offsets) > 2
    assert starts_of(batches_of(order="shifted", batch_size=1, seed=2), range(n, 2 * n)) != starts_of(
        shifted, range(n, 2 * n)
    )


def test_a_batch_larger_than_the_text_repeats_it():
    starts = starts_of(batches_of(20, batch_size=7), range(1))  # two windows
    assert sorted(starts[:2]) == sorted(starts[2:4]) == sorted(starts[4:6]) == [0, 8]


def test_the_last_token_of_a_text_is_a_target():
    _, targets = batches_of(17, batch_size=2).batch(0)
    assert targets.max() == 16


@pytest.mark.parametrize(("batch_size", "step", "epoch"), [(4, 0, 0), (4, 3, 1), (6, 5, 2.5)])
def test_epochs_count_windows(batch_size, step, epoch):
    assert batches_of(97, batch_size=batch_size).epoch(step) == epoch  # twelve windows


# A pure function of seed and step


@pytest.mark.parametrize("order", ORDERS)
def test_any_step_can_be_resumed_without_those_before_it(order):
    whole = [batches_of(order=order).batch(step) for step in range(12)]
    for step in (11, 0, 7):
        for actual, expected in zip(batches_of(order=order).batch(step), whole[step], strict=True):
            assert torch.equal(actual, expected)


@pytest.mark.parametrize("order", ORDERS)
def test_batches_neither_use_nor_change_global_random_state(order):
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.random.get_rng_state()
    first = batches_of(order=order).starts(5)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(1)
    np.random.seed(1)
    assert (batches_of(order=order).starts(5) == first).all()


@pytest.mark.parametrize("order", ORDERS)
def test_another_seed_gives_another_order(order):
    orders = {tuple(starts_of(batches_of(order=order, seed=seed), range(3))) for seed in range(6)}
    assert len(orders) == 6


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_the_batch_of_a_single_process(order, world_size):
    for step in (0, 2, 9):
        batches = batches_of(order=order)
        expected = batches.batch(step)
        shares = [batches.batch(step, rank, world_size) for rank in range(world_size)]
        assert all(len(ids) == 4 // world_size for ids, _ in shares)
        for parts, whole in zip(zip(*shares, strict=True), expected, strict=True):
            assert torch.equal(torch.cat(parts), whole)


def test_a_batch_size_not_divisible_by_the_world_size_is_an_assertion_error():
    with pytest.raises(AssertionError, match="divisible by the world size"):
        batches_of().batch(0, 0, 3)


# Offsets


def test_offsets_are_uniform_and_within_the_text():
    starts = starts_of(batches_of(40, order="offsets", batch_size=50), range(40))
    assert set(starts) == set(range(32))  # the last target of the last window is the last token
    # 2,000 samples of 32 positions: 62.5 of each, standard deviation 8; the limits are six deviations away.
    assert np.bincount(starts).min() > 14
    assert np.bincount(starts).max() < 111


def test_offsets_of_different_steps_are_different():
    batches = batches_of(10_000, order="offsets")
    assert len({tuple(batches.starts(step)) for step in range(50)}) == 50


# Too little text


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("length", [2, 5, 8])
def test_a_text_too_short_for_a_window_is_refused_with_a_context_length_that_works(order, length):
    with pytest.raises(DataError, match=f"^{length} tokens are too few for a context of 8") as refused:
        batches_of(length, order=order)
    block_size = int(str(refused.value).rpartition("--model.block-size ")[2].rstrip("."))
    assert batches_of(length, order=order, block_size=block_size).batch(0)[0].shape == (4, block_size)


def test_one_token_more_than_the_context_is_enough():
    assert batches_of(9).batch(0)[0].tolist() == [list(range(8))] * 4


@pytest.mark.parametrize("length", [0, 1])
def test_a_text_with_nothing_to_predict_is_refused(length):
    with pytest.raises(DataError, match="too few"):
        batches_of(length)
