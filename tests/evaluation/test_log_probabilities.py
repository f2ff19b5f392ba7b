"""The most likely tokens: in order, also of equal ones."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenloom.evaluation.log_probabilities import log_probabilities, most_likely

# Few values, so that many are equal.
equal_logits = st.lists(
    st.lists(st.sampled_from([-3.0, 0.0, 1.0, 50.0, -torch.inf]), min_size=8, max_size=8), min_size=1, max_size=3
)


@given(equal_logits, st.integers(0, 8))
def test_equal_ones_are_in_the_order_of_their_ids(logits, count):
    log_probs = torch.tensor(logits)
    log_probs[:, 0] = 60.0  # a row needs a finite logit
    log_probs = log_probabilities(log_probs)
    values, tokens = most_likely(log_probs, count)
    for row, row_values, row_tokens in zip(log_probs.tolist(), values.tolist(), tokens.tolist(), strict=True):
        expected = sorted(enumerate(row), key=lambda pair: (-pair[1], pair[0]))[:count]
        assert [*zip(row_tokens, row_values, strict=True)] == expected


def test_half_precision_is_normalized_in_fp32():
    log_probs = log_probabilities(torch.randn(2, 1000, generator=torch.Generator().manual_seed(0)).bfloat16())
    assert log_probs.dtype == torch.float32
    assert torch.allclose(log_probs.exp().sum(dim=-1), torch.ones(2))
