"""With the cache, logits are those without it: for any split of the tokens, and for rows of different lengths."""

import mmap
from itertools import combinations

import psutil
import pytest
import torch

from tokenloom.config import ModelConfig
from tokenloom.errors import is_out_of_memory
from tokenloom.model.kv_cache import KVCache

T = 8
# Every way to split T tokens into consecutive parts.
SPLITS = [(0, *cuts, T) for count in range(T) for cuts in combinations(range(1, T), count)]
# Sums in a different order: relative rounding of 1e-15 in double precision, over two layers, for logits up to about 50.
CLOSE = {"rtol": 0, "atol": 1e-12}


@pytest.fixture
def precise(model):
    return model.double()


def ids_of(*shape, seed=0):
    return torch.randint(0, 60, shape, generator=torch.Generator().manual_seed(seed))


def cached_logits(model, ids, cuts, cache):
    return torch.cat([model(ids[:, a:b], cache) for a, b in zip(cuts, cuts[1:], strict=False)], dim=1)


@torch.no_grad()
def test_cached_logits_equal_uncached_ones_for_every_split_of_the_tokens(precise):
    ids = ids_of(2, T)
    expected = precise(ids)
    assert len(SPLITS) == 2 ** (T - 1)
    for cuts in SPLITS:
        logits = cached_logits(precise, ids, cuts, precise.new_cache(2))
        torch.testing.assert_close(logits, expected, **CLOSE)


@torch.no_grad()
def test_cached_logits_in_single_precision_differ_only_by_rounding(model):
    ids = ids_of(3, 16)
    logits = cached_logits(model, ids, range(17), model.new_cache(3))
    # fp32 rounds to 1e-7; logits are up to about 50, after two layers of sums over 16 to 64 terms.
    torch.testing.assert_close(logits, model(ids), rtol=0, atol=1e-4)
    assert torch.equal(logits.argmax(-1), model(ids).argmax(-1))


@torch.no_grad()
@pytest.mark.parametrize("parts", [(1, 1, 1), (2, 3, 1), (5,)])
def test_rows_of_different_lengths_continue_together(precise, parts):
    """Each row has the logits it has alone, whether tokens are fed one by one or in parts."""
    lengths = (3, 7, 1, 7)
    rows = [ids_of(1, length + sum(parts), seed=length) for length in lengths]
    together = precise.new_cache(len(rows))
    for row, (ids, length) in enumerate(zip(rows, lengths, strict=True)):
        precise(ids[:, :length], together.row(row))
    assert together.lengths.tolist() == list(lengths)
    done = 0
    for count in parts:
        new = [ids[:, n + done : n + done + count] for ids, n in zip(rows, lengths, strict=True)]
        logits = precise(torch.cat(new), together)
        for row, (ids, n) in enumerate(zip(rows, lengths, strict=True)):
            expected = precise(ids[:, : n + done + count])[0, -count:]
            torch.testing.assert_close(logits[row], expected, **CLOSE)
        done += count


@torch.no_grad()
def test_a_row_moves_within_a_cache_and_from_another(precise):
    ids, other_ids = ids_of(3, 10), ids_of(2, 10, seed=9)
    cache, other = precise.new_cache(3), precise.new_cache(2)
    precise(ids[:, :6], cache)
    precise(other_ids[:, :4], other)
    cache.copy_row(0, cache, 2)
    cache.copy_row(1, other, 1)
    logits = precise(torch.cat([ids[2:, 6:7], other_ids[1:, 4:5]]), cache)  # the first two rows
    torch.testing.assert_close(logits[0, 0], precise(ids[2:, :7])[0, -1], **CLOSE)
    torch.testing.assert_close(logits[1, 0], precise(other_ids[1:, :5])[0, -1], **CLOSE)
    assert cache.lengths.tolist() == [7, 5, 6]


@torch.no_grad()
def test_a_pass_over_the_first_rows_leaves_the_others_as_they_are(precise):
    ids = ids_of(3, 8)
    cache = precise.new_cache(3)
    precise(ids[:, :4], cache)
    precise(ids[:1, 4:6], cache)
    precise(ids[2:, 4:7], cache.row(2))
    assert cache.lengths.tolist() == [6, 4, 7]
    torch.testing.assert_close(precise(ids[1:2, 4:], cache.row(1)), precise(ids[1:2])[:, 4:], **CLOSE)


@torch.no_grad()
def test_nan_in_an_erased_row_does_not_reach_other_tokens(precise):
    ids = ids_of(2, 8)
    cache = precise.new_cache(2)
    precise(ids[:, :7], cache)
    for stored in (*cache.keys, *cache.values):
        stored[0, :, 2:7] = torch.nan
    cache.erase_row(0)
    precise(ids[:1, :2], cache.row(0))  # shorter than the other row, so that slots that held NaN are masked
    logits = precise(torch.stack([ids[0, 2:3], ids[1, 7:8]]), cache)
    torch.testing.assert_close(logits[0, 0], precise(ids[:1, :3])[0, -1], **CLOSE)


@torch.no_grad()
def test_ids_may_be_overwritten_after_the_forward_pass(precise):
    ids = ids_of(1, 6)
    cache, given = precise.new_cache(1), ids[:, :1].clone()
    for t in range(6):
        given.copy_(ids[:, t : t + 1])
        logits = precise(given, cache)
        given.zero_()
    torch.testing.assert_close(logits[0, 0], precise(ids)[0, -1], **CLOSE)


@torch.no_grad()
def test_a_cache_holds_exactly_one_context(precise):
    ids, cache = ids_of(1, 17), precise.new_cache(1)
    assert cache.block_size == 16
    precise(ids[:, :15], cache)
    torch.testing.assert_close(precise(ids[:, 15:16], cache)[0, 0], precise(ids[:, :16])[0, -1], **CLOSE)
    with pytest.raises(AssertionError, match="slides the window"):
        precise(ids[:, 16:], cache)


def test_storage_is_allocated_once_for_the_key_and_value_heads():
    config = ModelConfig(vocab_size=9, n_layer=3, n_head=4, n_kv_head=2, n_embd=32, block_size=5)
    cache = KVCache(config, 7, torch.device("cpu"), torch.bfloat16)
    assert [tensor.shape for tensor in (*cache.keys, *cache.values)] == [(7, 2, 5, 8)] * 6
    assert cache.keys[0].dtype == torch.float32  # always on a CPU
    assert cache.lengths.tolist() == [0] * 7


@torch.no_grad()
def test_under_autocast_the_cache_has_the_models_precision(model):
    ids = ids_of(2, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cache = model.new_cache(2)
        logits = cached_logits(model, ids, (0, 3, 4, 6), cache)
        expected = model(ids)
    assert cache.keys[0].dtype == torch.float32
    # bf16 has 8 bits: logits up to about 50 are rounded to tenths.
    torch.testing.assert_close(logits.float(), expected.float(), rtol=0.05, atol=0.5)


def test_a_cpu_cache_takes_up_memory_for_the_tokens_that_are_stored_not_for_all_its_slots():
    config = ModelConfig(family="gpt2", vocab_size=16, block_size=4096, n_layer=1, n_head=16, n_embd=1024)
    before = psutil.Process().memory_info().rss
    cache = KVCache(config, 4, torch.device("cpu"), torch.float32)  # 128 MiB, 2 KiB a token and row
    cache.next_positions(4, 1)
    cache.append(0, torch.ones(4, 16, 1, 64), torch.ones(4, 16, 1, 64))
    assert psutil.Process().memory_info().rss - before < 16 * 2**20


def test_a_cpu_cache_needs_no_kernel_with_huge_pages(monkeypatch, precise):
    monkeypatch.setattr(mmap, "MADV_NOHUGEPAGE", 1 << 20, raising=False)  # such a kernel does not know it
    assert not precise.new_cache(1).keys[0].any()


def test_a_cpu_cache_that_does_not_fit_is_reported_as_too_little_memory():
    config = ModelConfig(family="gpt2", vocab_size=16, block_size=1 << 40, n_layer=1, n_head=16, n_embd=1024)
    with pytest.raises(OSError) as error:
        KVCache(config, 1, torch.device("cpu"), torch.float32)
    assert is_out_of_memory(error.value)
