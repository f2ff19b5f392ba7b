"""Bias and penalties against their definitions, and their effect on the sequences of an engine."""

import math

import pytest
import torch

from tokenloom.errors import UsageError
from tokenloom.generation.engine import Engine, collect
from tokenloom.generation.penalties import TokenPenalties, penalize_frequency, penalize_repetition
from tokenloom.sampling_params import SamplingParams

GREEDY = SamplingParams(temperature=0)


def completed(model, prompts, *, sampling=GREEDY, max_new_tokens=12, **options):
    engine = Engine(model)
    for prompt in prompts:
        engine.add(prompt, max_new_tokens=max_new_tokens, sampling=sampling, seed=0, **options)
    return [completion.token_ids for completion in collect(engine.run())]


def test_the_repetition_penalty_makes_seen_tokens_less_likely_for_either_sign():
    logits = torch.tensor([2.0, -2.0, 1.0])
    assert penalize_repetition(logits, torch.tensor([True, True, False]), 2.0).tolist() == [1.0, -4.0, 1.0]
    assert penalize_repetition(logits, torch.tensor([False, False, True]), 2.0).tolist() == [2.0, -2.0, 0.5]


@pytest.mark.parametrize("penalty", [1e300, 1e-30, 1e-300])
def test_an_extreme_repetition_penalty_leaves_finite_logits_and_excluded_tokens(penalty):
    logits = torch.tensor([-math.inf, 30.0, -30.0, 0.0])
    penalized = penalize_repetition(logits, torch.tensor([True] * 4), penalty)
    assert penalized[0] == -math.inf
    assert (penalized[1:] / 1e-6).isfinite().all()  # the smallest temperature


def test_the_frequency_penalty_counts_and_the_presence_penalty_does_not():
    logits, counts = torch.zeros(3), torch.tensor([0.0, 1.0, 3.0])
    assert penalize_frequency(logits, counts, 0.5, 0.0).tolist() == [0, -0.5, -1.5]
    assert penalize_frequency(logits, counts, 0.0, 0.25).tolist() == [0, -0.25, -0.25]
    assert penalize_frequency(logits, counts, -0.5, 1.0).tolist() == [0, -0.5, 0.5]


def test_frequency_and_presence_ignore_the_prompt_and_repetition_does_not():
    logits = torch.tensor([4.0, 4.0, 4.0])

    def after(**sampling):
        penalties = TokenPenalties([0, 0], SamplingParams(**sampling), {}, 3, torch.device("cpu"))
        penalties.count(1)
        return penalties.apply(logits).tolist()

    assert after(presence_penalty=1.0) == [4, 3, 4]
    assert after(frequency_penalty=1.0) == [4, 3, 4]
    assert after(repetition_penalty=2.0) == [2, 2, 4]


def test_the_bias_is_added_before_the_repetition_penalty():
    penalties = TokenPenalties([0], SamplingParams(repetition_penalty=2.0), {0: 6.0, 1: -1.0}, 2, torch.device("cpu"))
    assert penalties.apply(torch.tensor([2.0, 2.0])).tolist() == [4, 1]


def test_penalties_apply_to_the_own_tokens_of_each_row(model):
    prompts = [[1, 2, 3], [40, 41], [5]]
    for sampling in (
        SamplingParams(temperature=0, presence_penalty=2, frequency_penalty=2),
        SamplingParams(temperature=0.7, frequency_penalty=-2),
        SamplingParams(temperature=0, repetition_penalty=1e6),
    ):
        together = completed(model, prompts, sampling=sampling)
        assert together == [completed(model, [prompt], sampling=sampling)[0] for prompt in prompts]
        assert together != completed(model, prompts, sampling=SamplingParams(temperature=sampling.temperature))


def test_a_strong_repetition_penalty_generates_every_token_once(model):
    strict = SamplingParams(temperature=0, repetition_penalty=1e30)
    (ids,) = completed(model, [[1]], sampling=strict, max_new_tokens=15)
    assert len({1, *ids}) == 16


def test_a_bias_forces_and_excludes_tokens(model):
    (free,) = completed(model, [[1, 2]])
    assert completed(model, [[1, 2]], logit_bias={7: 100}) == [[7] * 12]
    (without,) = completed(model, [[1, 2]], logit_bias=dict.fromkeys(free, -100.0))
    assert not set(without) & set(free)


@pytest.mark.parametrize(
    ("bias", "said"), [({60: 1.0}, "token 60"), ({-1: 1.0}, "token -1"), ({3: 101}, "101"), ({3: math.nan}, "nan")]
)
def test_a_bias_out_of_range_is_refused(model, bias, said):
    with pytest.raises(UsageError, match=said):
        completed(model, [[1]], logit_bias=bias)
