"""Sampling: each filter against its definition, and the figures of chapter 5."""

import math
from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokenloom.errors import WeightsError
from tokenloom.generation.sampling import (
    FILTERS,
    apply_temperature,
    has_finite_maximum,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    probabilities,
    sample_from_probabilities,
    sample_tokens,
)
from tokenloom.sampling_params import SamplingParams

GREEDY = SamplingParams(temperature=0)
# CHAPTER 5, "Temperature": closer every effort forward inches moves pizza toward you.
CHAPTER_LOGITS = torch.tensor([[4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79]])
FORWARD, PIZZA, TOWARD = 3, 6, 7

rows_of_logits = st.integers(2, 12).flatmap(
    lambda width: st.lists(
        st.lists(st.floats(-20, 20, width=32), min_size=width, max_size=width), min_size=1, max_size=4
    )
).map(torch.tensor)  # fmt: skip


def kept(logits: torch.Tensor) -> list[set[int]]:
    return [set(row.isfinite().nonzero().flatten().tolist()) for row in logits]


def chapter_counts(temperature: float) -> list[int]:
    """Counts of each word in the chapter's 1,000 samples from torch's default generator."""
    torch.manual_seed(123)
    samples = [sample_tokens(CHAPTER_LOGITS, SamplingParams(temperature=temperature)).item() for _ in range(1000)]
    return torch.tensor(samples).bincount(minlength=9).tolist()


def test_temperature_counts_are_the_chapters():
    # The second line is the result on platforms with a different implementation of `exponential_`.
    assert chapter_counts(1.0) in (
        [73, 0, 0, 582, 2, 0, 0, 343, 0],
        [71, 2, 0, 544, 2, 1, 0, 376, 4],
    )
    assert chapter_counts(0.1) == [0, 0, 0, 985, 0, 0, 0, 15, 0]
    assert chapter_counts(5.0) == [165, 75, 42, 239, 71, 46, 32, 227, 103]


def test_pizza_has_the_chapters_probability_at_temperature_five():
    assert probabilities(CHAPTER_LOGITS, SamplingParams(temperature=5.0))[0, PIZZA].item() == pytest.approx(
        0.0430, abs=5e-5
    )


def test_temperature_zero_is_greedy_decoding():
    assert sample_tokens(CHAPTER_LOGITS, GREEDY).tolist() == [FORWARD]
    assert probabilities(CHAPTER_LOGITS, GREEDY)[0].tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0]


def test_top_three_leaves_the_chapters_logits_and_probabilities():
    left = keep_top_k(CHAPTER_LOGITS, 3)
    assert left[0, [3, 7, 0]].tolist() == pytest.approx([6.75, 6.28, 4.51])
    assert left.softmax(-1)[0].tolist() == pytest.approx([0.0615, 0, 0, 0.5775, 0, 0, 0, 0.3610, 0], abs=5e-5)


@given(rows_of_logits, st.integers(1, 15))
def test_top_k_keeps_logits_not_below_the_kth_largest_of_their_row(logits, k):
    expected = []
    for row in logits.tolist():
        smallest = sorted(row, reverse=True)[min(k, len(row)) - 1]
        expected.append({token for token, logit in enumerate(row) if logit >= smallest})
    assert kept(keep_top_k(logits, k)) == expected


@given(rows_of_logits, st.floats(0.01, 0.99))
def test_top_p_keeps_the_fewest_tokens_that_reach_p_in_each_row(logits, p):
    for row, tokens in zip(logits, kept(keep_top_p(logits, p)), strict=True):
        chances = row.double().softmax(-1)
        inside, outside = chances[list(tokens)], [i for i in range(len(row)) if i not in tokens]
        # 1e-6: the sum is taken in float32 there and in float64 here.
        assert inside.sum() >= p - 1e-6
        assert inside.sum() - inside.min() < p + 1e-6
        assert not outside or chances[outside].max() <= inside.min() + 1e-6


@given(rows_of_logits)
def test_top_p_of_one_keeps_everything(logits):
    assert torch.equal(keep_top_p(logits, 1.0), logits)


@given(rows_of_logits, st.floats(0.001, 1))
def test_min_p_keeps_tokens_by_their_share_of_the_most_likely(logits, p):
    for row, tokens in zip(logits, kept(keep_min_p(logits, p)), strict=True):
        shares = (row.double() - row.double().max()).exp()
        # A share within 1e-5 of p may fall on either side in float32.
        assert all(token in tokens for token in range(len(row)) if shares[token] > p * (1 + 1e-5))
        assert all(shares[token] >= p * (1 - 1e-5) for token in tokens)


@given(rows_of_logits, st.integers(1, 12), st.floats(0.05, 1), st.floats(0, 1), st.floats(0.1, 3))
def test_each_row_is_filtered_independently(logits, top_k, top_p, min_p, temperature):
    sampling = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    together = probabilities(logits, sampling)
    alone = torch.cat([probabilities(row[None], sampling) for row in logits])
    assert torch.equal(together, alone)
    assert together.sum(-1).tolist() == pytest.approx([1.0] * len(logits), abs=1e-5)  # float32 sums of up to 12 terms


@given(rows_of_logits, st.integers(1, 12), st.floats(0.1, 5))
def test_top_k_before_or_after_the_temperature_is_the_same(logits, k, temperature):
    after = keep_top_k(apply_temperature(logits, temperature), k)
    before = apply_temperature(keep_top_k(logits, k), temperature)
    # Logits that differ may become equal by division, and then both stay: never fewer, and none that is less likely.
    assert torch.equal(after[before.isfinite()], before[before.isfinite()])
    assert all(more >= less for more, less in zip(kept(after), kept(before), strict=True))


def test_a_row_is_sampled_from_its_own_generator_in_any_batch():
    chances = torch.rand(3, 50, generator=torch.Generator().manual_seed(0))
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6, 7)]
    alone = torch.multinomial(chances[1], 1, generator=torch.Generator().manual_seed(6))
    assert sample_from_probabilities(chances, generators)[1] == alone[0]


def test_one_row_is_sampled_as_by_multinomial_with_the_default_generator():
    torch.manual_seed(3)
    expected = [torch.multinomial(CHAPTER_LOGITS.softmax(-1), 1).item() for _ in range(20)]
    torch.manual_seed(3)
    assert [sample_tokens(CHAPTER_LOGITS, SamplingParams(temperature=1.0)).item() for _ in range(20)] == expected


def test_every_sampling_parameter_but_the_penalties_has_a_filter():
    params = {field.name for field in fields(SamplingParams)}
    assert {filter.param for filter in FILTERS} == {name for name in params if not name.endswith("penalty")}


@given(rows_of_logits, st.integers(1, 12), st.floats(0.05, 1), st.floats(0, 1))
def test_filters_do_not_change_greedy_decoding(logits, top_k, top_p, min_p):
    sampling = SamplingParams(temperature=0, top_k=top_k, top_p=top_p, min_p=min_p)
    assert torch.equal(sample_tokens(logits, sampling), logits.argmax(dim=-1))


def test_half_precision_logits_are_filtered_in_float32():
    assert probabilities(CHAPTER_LOGITS.bfloat16(), SamplingParams()).dtype == torch.float32


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    "row", [[NAN, 1.0], [1.0, NAN], [INF, 1.0], [INF, INF], [-INF, -INF], [INF, -INF, NAN]], ids=str
)
@pytest.mark.parametrize("sampling", [{}, {"temperature": 0}, {"top_k": 1}, {"top_p": 0.5}, {"min_p": 0.5}], ids=str)
def test_logits_without_probabilities_are_refused_and_never_sampled(row, sampling, monkeypatch):
    monkeypatch.setattr(torch, "multinomial", lambda *_, **__: pytest.fail("reached multinomial"))
    logits = torch.tensor([[0.0] * len(row), row])
    with pytest.raises(WeightsError, match="not finite"):
        sample_tokens(logits, SamplingParams(**sampling))


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 1e-6},
        {"temperature": 1e300},
        {"temperature": 1e300, "min_p": 1.0},
        {"top_k": 10**12},
        {"top_k": 1, "top_p": 1e-300, "min_p": 1.0},
        {"top_p": 1e-300},
        {"top_p": 1 - 1e-16},
        {"min_p": 1e-300},
    ],
    ids=str,
)
@pytest.mark.parametrize("row", [[0.0, 0.0, 0.0], [-INF, 3.0, -INF], [-1e4, 2.0, 30.0], [5.0, 5.0, -INF]], ids=str)
def test_extreme_parameters_leave_at_least_one_token(row, sampling):
    logits = torch.tensor([row, [1.0, 2.0, 3.0]])
    probs = probabilities(logits, SamplingParams(**sampling))
    assert probs.isfinite().all()
    assert probs.sum(dim=-1).tolist() == pytest.approx([1, 1])
    assert (probs[logits == -INF] == 0).all()
    assert sample_tokens(logits, SamplingParams(**sampling)).shape == (2,)


def test_a_very_high_temperature_is_uniform_over_the_tokens_that_are_not_excluded():
    assert probabilities(torch.tensor([[9.0, -INF, 1.0]]), SamplingParams(temperature=1e300)).tolist() == [
        [0.5, 0, 0.5]
    ]


def test_rows_of_different_parameters_are_sampled_together_as_alone():
    logits = 3 * torch.randn(8, 3000, generator=torch.Generator().manual_seed(0))
    params = [
        SamplingParams(temperature=0),
        SamplingParams(temperature=1.0),
        SamplingParams(temperature=0.5, top_k=1),
        SamplingParams(temperature=1.5, top_k=40, top_p=0.9),
        SamplingParams(temperature=1.0, top_p=0.3),
        SamplingParams(temperature=1.0, top_p=0.999),
        SamplingParams(temperature=0.9, min_p=0.1),
        SamplingParams(temperature=2.0, top_k=7, min_p=0.01, top_p=1.0),
    ]
    together = probabilities(logits, params)
    for row, one in enumerate(params):
        assert torch.equal(together[row], probabilities(logits[row : row + 1], one)[0])
    for seed in range(20):
        tokens = sample_tokens(logits, params, [torch.Generator().manual_seed(seed + row) for row in range(8)])
        for row, one in enumerate(params):
            alone = sample_tokens(logits[row : row + 1], one, [torch.Generator().manual_seed(seed + row)])
            assert tokens[row] == alone[0]


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0, 4.0], ids="spread={}".format)
def test_top_p_among_many_tokens_is_that_of_a_sort_of_all(p, spread):
    logits = spread * torch.randn(4, 5000, generator=torch.Generator().manual_seed(1))
    logits[1] = logits[1].round()  # many equal logits, of which those of lower ids come first
    descending, order = torch.sort(logits, dim=-1, descending=True, stable=True)
    preceding = descending.double().softmax(-1).cumsum(-1) - descending.double().softmax(-1)
    found = keep_top_p(logits, p).isfinite()
    for row in range(4):
        size = int((preceding[row] < p).sum())
        # The sums are taken in float32 there and in float64 here, which may move the end by a token or, where tokens
        # are very unlikely, by a few: a float32 sum of 5,000 probabilities has an error of some 1e-6.
        differing = set(order[row, :size].tolist()) ^ set(found[row].nonzero()[:, 0].tolist())
        assert len(differing) <= 1 or logits[row].double().softmax(-1)[list(differing)].sum() < 1e-5
        assert found[row, order[row, : int(found[row].sum())]].all()


def test_top_p_searches_further_only_for_rows_that_need_it(monkeypatch):
    logits = torch.zeros(3, 4000)
    logits[0, 7], logits[1, :2] = 50.0, torch.tensor([50.0, 50.0])
    searched, topk = [], torch.Tensor.topk
    monkeypatch.setattr(
        torch.Tensor, "topk", lambda self, k, dim: searched.append((len(self), k)) or topk(self, k, dim=dim)
    )
    assert kept(keep_top_p(logits, 0.4)) == [{7}, {0}, set(range(1600))]
    assert searched == [(3, 64), (1, 2048)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rows_without_probabilities_are_found_in_any_precision(dtype):
    inf, nan = math.inf, math.nan
    rows = [[0, 1, 2], [-inf, 3, -inf], [nan, 1, 2], [1, nan, inf], [0, inf, 1], [-inf, -inf, -inf]]
    logits = torch.tensor(rows, dtype=dtype)
    assert has_finite_maximum(logits).tolist() == [True, True, False, False, False, False]
    assert has_finite_maximum(logits[:, :2]).tolist() == [True, True, False, False, False, False]  # not contiguous
