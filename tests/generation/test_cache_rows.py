"""Rows of a cache are filled in parts, shared, moved and continued together."""

import torch

from tokenloom.generation.cache_rows import CacheRows

# fp32 rounds to 1e-7; logits are up to about 50, after two layers of sums over 16 to 64 terms.
CLOSE = {"rtol": 0, "atol": 1e-4}


def ids_of(length, seed):
    return torch.randint(0, 60, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def expected_logits(model, ids):
    return model(torch.tensor([ids]))[0, -1]


@torch.no_grad()
def test_a_prompt_is_appended_in_parts_and_gives_the_hidden_states_of_all_of_its_tokens(model):
    rows, ids = CacheRows(model, 4), ids_of(9, seed=0)
    rows.clear(2)
    parts = [rows.append(2, ids[:4]), rows.append(2, ids[4:5]), rows.append(2, ids[5:])]
    torch.testing.assert_close(torch.cat(parts, dim=1), model.hidden(torch.tensor([ids])), **CLOSE)
    assert [rows.length(row) for row in range(4)] == [0, 0, 9, 0]


@torch.no_grad()
def test_rows_are_shared_moved_and_continued_together(model):
    rows, first, second = CacheRows(model, 3), ids_of(6, seed=1), ids_of(10, seed=2)
    rows.append(0, first)
    rows.append(1, second)
    rows.copy(0, 2)
    torch.testing.assert_close(
        rows.next_logits([7, 8, 9]),
        torch.stack([expected_logits(model, ids) for ids in ([*first, 7], [*second, 8], [*first, 9])]),
        **CLOSE,
    )
    rows.remove(0, last=2)
    rows.remove(1, last=1)
    torch.testing.assert_close(rows.next_logits([5])[0], expected_logits(model, [*first, 9, 5]), **CLOSE)


@torch.no_grad()
def test_rows_that_are_allocated_later_keep_the_tokens_of_earlier_ones(model):
    """As on a GPU, where rows take up memory before they hold tokens."""
    rows, prompts = CacheRows(model, 5), [ids_of(length, seed=length) for length in (3, 8, 1, 5, 2)]
    rows._cache = model.new_cache(1)
    sizes = []
    for row, prompt in enumerate(prompts):
        rows.clear(row)
        rows.append(row, prompt)
        sizes.append(len(rows._cache.lengths))
    assert sizes == [1, 2, 4, 4, 5]
    expected = torch.stack([expected_logits(model, [*prompt, 11]) for prompt in prompts])
    torch.testing.assert_close(rows.next_logits([11] * 5), expected, **CLOSE)
