"""Log-probabilities of sampled tokens and prompts: those of the model, for any sampling parameters and any batch."""

import pytest
import torch

from tokenloom.errors import UsageError, WeightsError
from tokenloom.generation.engine import Engine, collect
from tokenloom.sampling_params import SamplingParams

GREEDY = SamplingParams(temperature=0)
PROMPT = [9, 8, 7, 6, 5, 4, 3]
ROUNDING = 1e-5  # fp32 sums of different order; logits here are up to 10


def steps_of(model, prompt=PROMPT, *, engine=None, sampling=GREEDY, max_new_tokens=5, top_logprobs=3, **options):
    engine = Engine(model) if engine is None else engine
    row = engine.add(
        prompt, max_new_tokens=max_new_tokens, sampling=sampling, seed=1, top_logprobs=top_logprobs, **options
    )
    return [step for step in engine.run() if step.row == row]


def log_probs_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids]))[0].double().log_softmax(dim=-1)


def values(entries):
    return [entry.logprob for entry in entries]


def test_every_token_has_its_log_probability_and_the_most_likely_tokens(model):
    steps = steps_of(model, sampling=SamplingParams(temperature=1.5))
    ids = PROMPT + [step.token for step in steps]
    expected = log_probs_of(model, ids)[len(PROMPT) - 1 :]
    for step, row in zip(steps, expected, strict=False):
        assert step.logprobs.token == step.token
        assert step.logprobs.logprob == pytest.approx(row[step.token].item(), abs=ROUNDING)
        assert [token for token, _ in step.logprobs.top] == row.topk(3).indices.tolist()
        assert [value for _, value in step.logprobs.top] == pytest.approx(row.topk(3).values.tolist(), abs=ROUNDING)


def test_the_end_of_text_token_has_an_entry_and_no_token(model):
    free = steps_of(model)
    end = free[2].token
    engine = Engine(model, eot_id=end)
    *before, last = steps_of(model, engine=engine)
    assert [step.token for step in before] == [step.token for step in free[: len(before)]]
    assert (last.token, last.finish_reason, last.logprobs.token) == (None, "stop", end)
    assert last.logprobs == free[len(before)].logprobs


def test_sampling_parameters_do_not_change_the_values(model):
    forced = {11: 100.0}  # the same ids for all
    plain = steps_of(model, logit_bias=forced)
    for sampling in (
        SamplingParams(temperature=2.0),
        SamplingParams(temperature=1.0, top_k=1),
        SamplingParams(temperature=0, repetition_penalty=1.1, presence_penalty=1, frequency_penalty=-1),
    ):
        assert steps_of(model, sampling=sampling, logit_bias=forced) == plain
    assert plain[0].logprobs.logprob == pytest.approx(log_probs_of(model, PROMPT)[-1, 11].item(), abs=ROUNDING)


def test_the_number_of_top_tokens_does_not_change_the_values(model):
    longest = steps_of(model, top_logprobs=20, prompt_logprobs=True)
    for top in (0, 1, 5):
        steps = steps_of(model, top_logprobs=top, prompt_logprobs=True)
        for short, long in zip(
            [*(step.logprobs for step in steps), *steps[0].prompt_logprobs[1:]],
            [*(step.logprobs for step in longest), *longest[0].prompt_logprobs[1:]],
            strict=True,
        ):
            assert short == long._replace(top=long.top[:top])


def test_the_chosen_token_is_the_same_float_where_it_is_among_the_top(model):
    for step in steps_of(model, top_logprobs=20):
        assert dict(step.logprobs.top)[step.token] == step.logprobs.logprob


@pytest.mark.parametrize("max_new_tokens", [0, 1, 4])
@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
@pytest.mark.parametrize("prefill_chunk", [1, 2, None])
def test_a_prompt_is_scored_with_the_first_step(model, max_new_tokens, use_cache, prefill_chunk):
    engine = Engine(model, use_cache=use_cache, prefill_chunk=prefill_chunk)
    steps = steps_of(model, engine=engine, max_new_tokens=max_new_tokens, top_logprobs=2, prompt_logprobs=True)
    assert len(steps) == max(1, max_new_tokens)
    assert steps[-1].finish_reason == "length"
    assert all(step.prompt_logprobs is None for step in steps[1:])
    first, *entries = steps[0].prompt_logprobs
    expected = log_probs_of(model, PROMPT)
    assert first is None
    assert [entry.token for entry in entries] == PROMPT[1:]
    assert values(entries) == pytest.approx([expected[i, PROMPT[i + 1]].item() for i in range(6)], abs=ROUNDING)
    for entry, row in zip(entries, expected, strict=False):
        assert [token for token, _ in entry.top] == row.topk(2).indices.tolist()


def test_a_prompt_of_one_token_has_one_entry_which_is_none(model):
    (step,) = steps_of(model, [5], max_new_tokens=0, prompt_logprobs=True)
    assert step == (0, None, "length", None, (None,))


def test_prompt_and_new_tokens_fill_the_context_and_one_more_without_a_slide(model):
    whole = [*range(17)]
    (scored,) = steps_of(model, whole, max_new_tokens=0, prompt_logprobs=True)
    assert len(scored.prompt_logprobs) == 17
    assert len(steps_of(model, whole[:16], max_new_tokens=1, prompt_logprobs=True)) == 1
    for prompt, new in ((whole, 1), ([*whole, 1], 0)):
        for options in ({}, {"truncate_prompt": True}):
            with pytest.raises(UsageError, match="block_size is 16"):
                steps_of(model, prompt, max_new_tokens=new, prompt_logprobs=True, **options)


def test_samples_of_a_prompt_are_scored_once_with_the_same_values(model):
    engine, calls = Engine(model), []
    append = engine._batch._rows.append
    engine._batch._rows.append = lambda row, tokens: calls.append(tokens) or append(row, tokens)
    wild = SamplingParams(temperature=1.0)
    for sample in range(3):
        engine.add(
            PROMPT, max_new_tokens=sample, sampling=wild, seed=0, sample=sample, top_logprobs=2, prompt_logprobs=True
        )
    engine.add(PROMPT, max_new_tokens=2, sampling=wild, seed=0)
    first = {}
    for step in engine.run():
        first.setdefault(step.row, step.prompt_logprobs)
    assert first[0] == first[1] == first[2] == steps_of(model, top_logprobs=2, prompt_logprobs=True)[0].prompt_logprobs
    assert first[3] is None
    assert calls == [PROMPT[:-1]] * 2


def test_rows_that_do_not_request_log_probabilities_get_none(model):
    engine = Engine(model)
    for top in (None, 2, None, 0):
        engine.add(PROMPT, max_new_tokens=3, sampling=GREEDY, seed=0, top_logprobs=top)
    steps = list(engine.run())
    assert {step.row for step in steps if step.logprobs is None} == {0, 2}
    assert {len(step.logprobs.top) for step in steps if step.row == 3} == {0}


def test_tokens_that_pad_the_vocabulary_are_counted_but_not_listed(model):
    padded = steps_of(model, engine=Engine(model, vocab_size=50), top_logprobs=20, max_new_tokens=1)[0].logprobs
    expected = log_probs_of(model, PROMPT)[-1]
    assert [token for token, _ in padded.top] == expected[:50].topk(20).indices.tolist()
    assert padded.logprob == pytest.approx(expected[padded.token].item(), abs=ROUNDING)


@pytest.mark.parametrize("top", [-1, 21])
def test_a_number_of_top_tokens_out_of_range_is_refused(model, top):
    with pytest.raises(UsageError, match=f"logprobs must be from 0 to 20, got {top}"):
        steps_of(model, top_logprobs=top)


def test_a_prompt_without_probabilities_is_refused(model):
    with torch.no_grad():
        model.wte.weight.fill_(torch.nan)
    with pytest.raises(WeightsError, match="NaN"):
        collect(steps_of(model, max_new_tokens=0, prompt_logprobs=True))
