"""Which sequences start in a step, how many tokens of prompts it computes, and that neither changes the results."""

import pytest
import torch

from tokenloom.errors import UsageError, WeightsError
from tokenloom.generation.engine import Engine, collect
from tokenloom.sampling_params import SamplingParams

GREEDY = SamplingParams(temperature=0)
WILD = SamplingParams(temperature=1.0, top_k=20)
PROMPTS = [[5], [1, 2, 3], [9, 8, 7, 6, 5, 4, 3], [1, 2, 3], [*range(40, 54)], [7, 7], [3, *range(11)]]


def add(engine, prompt, max_new_tokens=4, **options):
    options = {"sampling": GREEDY, "seed": 3, **options}
    return engine.add(prompt, max_new_tokens=max_new_tokens, **options)


def completed_alone(model, prompt, **options):
    engine = Engine(model, prefill_chunk=None)
    add(engine, prompt, **options)
    return collect(engine.run())[0]


def passes_of(model):
    """Rows and tokens (B, T) of every forward pass from now on."""
    passes = []
    model.wte.register_forward_pre_hook(lambda _, args: passes.append(tuple(args[0].shape)))
    return passes


@pytest.mark.parametrize("prefill_chunk", [1, 3, 5, None])
@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
def test_chunks_and_other_rows_do_not_change_ids_nor_log_probabilities(model, prefill_chunk, use_cache):
    options = {"sampling": WILD, "max_new_tokens": 20, "top_logprobs": 2}
    engine, steps = Engine(model, max_rows=4, prefill_chunk=prefill_chunk, use_cache=use_cache), []
    for prompt in PROMPTS:
        add(engine, prompt, **options)
        steps += engine.step()
    steps += list(engine.run())
    for row, prompt in enumerate(PROMPTS):
        alone = Engine(model, prefill_chunk=None)
        add(alone, prompt, **options)
        for step, expected in zip([step for step in steps if step.row == row], alone.run(), strict=True):
            assert (step.token, step.finish_reason) == (expected.token, expected.finish_reason)
            # fp32 sums of different order; logits here are up to 10
            assert step.logprobs.logprob == pytest.approx(expected.logprobs.logprob, abs=1e-5)


def test_among_64_that_join_at_different_times_every_sequence_gets_the_ids_it_gets_alone(model):
    random = torch.Generator().manual_seed(0)
    prompts = [torch.randint(60, (1 + number % 14,), generator=random).tolist() for number in range(64)]
    kinds = [
        {"sampling": GREEDY},
        {"sampling": SamplingParams(temperature=1.0)},
        {"sampling": SamplingParams(temperature=1.3, top_k=30, top_p=0.8)},
        {"sampling": SamplingParams(temperature=0, repetition_penalty=1.3), "logit_bias": {7: 2.0}},
        {"sampling": SamplingParams(temperature=0.7, min_p=0.05, presence_penalty=1.0, frequency_penalty=0.5)},
    ]
    options = [{**kinds[number % 5], "seed": number, "max_new_tokens": 3 + number % 7} for number in range(64)]
    engine, steps = Engine(model, max_rows=16, max_tokens=150, prefill_chunk=4), []
    for prompt, one in zip(prompts, options, strict=True):
        add(engine, prompt, **one)
        steps += engine.step()
    steps += list(engine.run())
    alone = [completed_alone(model, prompt, **one) for prompt, one in zip(prompts, options, strict=True)]
    assert collect(steps) == alone


def test_a_long_prompt_does_not_stop_the_rows_that_run(model):
    engine = Engine(model, prefill_chunk=4)
    running = [add(engine, [1], 12), add(engine, [2], 12)]
    engine.step()
    long = add(engine, [*range(15)], 2)
    passes = passes_of(model)
    rows = [[step.row for step in engine.step()] for _ in range(5)]
    assert rows == [running, running, running, [*running, long], [*running, long]]
    assert passes[:7] == [(1, 4), (2, 1), (1, 4), (2, 1), (1, 4), (2, 1), (1, 2)]


def test_a_chunk_is_shared_by_short_prompts(model):
    engine = Engine(model, prefill_chunk=8)
    add(engine, [1])
    engine.step()
    for prompt in ([1, 2, 3], [4, 5, 6, 7], [8, 9, 8, 9, 8, 9], [1]):
        add(engine, prompt)
    passes = passes_of(model)
    assert [step.row for step in engine.step()] == [0, 1, 2]
    assert passes == [(1, 2), (1, 3), (1, 3), (3, 1)]
    assert [step.row for step in engine.step()] == [0, 1, 2, 3, 4]


def test_a_chunk_is_twice_as_long_if_no_row_runs(model):
    engine = Engine(model, prefill_chunk=3)
    add(engine, [*range(15)], 2)
    passes = passes_of(model)
    list(engine.run())
    assert passes == [(1, 6), (1, 6), (1, 2), (1, 1), (1, 1)]


def test_without_chunks_all_prompts_are_computed_in_one_step(model):
    engine = Engine(model, prefill_chunk=None)
    for prompt in PROMPTS:
        add(engine, prompt)
    assert [step.row for step in engine.step()] == [0, 1, 3, 2, 4, 5, 6]  # 3 is filled like 1


def test_a_window_that_has_slid_is_filled_in_chunks_too(model):
    engine = Engine(model, prefill_chunk=2)
    add(engine, [1, 2, 3], 40)
    add(engine, [9, 8], 60)
    passes = passes_of(model)
    completions = collect(engine.run())
    assert max(length for _, length in passes) == 4  # 2, or 4 while both rows are filled
    assert completions[0] == completed_alone(model, [1, 2, 3], max_new_tokens=40)
    assert completions[1] == completed_alone(model, [9, 8], max_new_tokens=60)


def test_sequences_start_in_order_while_their_tokens_suffice(model):
    engine = Engine(model, max_tokens=20)
    for prompt, new in (([1, 2, 3], 8), ([4], 10), ([5, 6], 10), ([7], 1)):
        add(engine, prompt, new)
    steps = engine.step()
    # 10 + 10 tokens; the third needs 11 and waits, and the fourth, which needs 1, does not overtake it.
    assert (engine.reserved_tokens, engine.waiting, len(engine)) == (20, 2, 4)
    while len(engine):
        steps += engine.step()
        assert engine.reserved_tokens <= 20
    assert [len(completion.token_ids) for completion in collect(steps)] == [8, 10, 10, 1]


def test_the_sequences_that_start_are_bounded_by_rows(model):
    engine = Engine(model, max_rows=2, prefill_chunk=2)
    for prompt in ([1, 2, 3], [*range(9)], [4]):
        add(engine, prompt)
    assert (engine.free_rows, engine.waiting) == (2, 3)
    engine.step()
    assert (engine.free_rows, engine.waiting) == (0, 1)
    list(engine.run())
    assert (engine.free_rows, engine.waiting, len(engine)) == (2, 0, 0)


def test_a_sequence_that_would_never_start_is_refused(model):
    engine = Engine(model, max_tokens=8)
    add(engine, [1, 2, 3], 6)
    with pytest.raises(UsageError, match="need 9 tokens in the cache, but max_tokens is 8"):
        add(engine, [1, 2, 3], 7)
    add(Engine(model, max_tokens=16), [1, 2, 3], 1000)  # its window slides


@pytest.mark.parametrize("removed", range(5))
def test_a_sequence_can_be_removed_in_any_state(model, removed):
    engine = Engine(model, max_rows=4, prefill_chunk=3)
    prompts = [[1, 2], [3], [*range(12)], [*range(20, 30)], [4, 5]]  # running, running, in parts, not yet, waiting
    for prompt in prompts:
        add(engine, prompt, 9)
    steps = engine.step() + engine.step()
    engine.remove(removed)
    engine.remove(removed)
    steps += list(engine.run())
    finished = {step.row for step in steps if step.finish_reason is not None}
    assert finished == set(range(5)) - {removed}
    expected = [
        completed_alone(model, prompt, max_new_tokens=9) for row, prompt in enumerate(prompts) if row in finished
    ]
    assert collect(step for step in steps if step.row in finished) == expected
    assert (engine.free_rows, engine.reserved_tokens) == (4, 0)


def test_the_row_that_is_filled_moves_with_the_rows_that_leave(model):
    engine = Engine(model, prefill_chunk=2)
    for new in (4, 2, 3):
        add(engine, [new], new)
    long = [*range(15)]
    add(engine, long, 3)  # filled in parts, in row 3, then 2, 1 and 0
    assert collect(engine.run())[3] == completed_alone(model, long, max_new_tokens=3)


def test_generation_continues_after_an_error_while_a_prompt_is_scored_in_parts(model):
    engine = Engine(model, prefill_chunk=3)
    options = {"top_logprobs": 1, "prompt_logprobs": True}
    add(engine, [1, 2, 3], 6)
    add(engine, [*range(9)], 6, **options)
    steps = engine.step() + engine.step()
    hook = model.h[0].register_forward_hook(lambda module, inputs, output: output * torch.nan)
    with pytest.raises(WeightsError, match="NaN"):
        engine.step()
    hook.remove()
    steps += list(engine.run())
    assert collect(steps) == [completed_alone(model, prompt, max_new_tokens=6) for prompt in ([1, 2, 3], [*range(9)])]
    assert [len(step.prompt_logprobs) for step in steps if step.prompt_logprobs] == [9]


def test_a_prompt_longer_than_the_context_is_refused_or_truncated(model):
    with pytest.raises(UsageError, match="the prompt has 17 tokens, but the model's block_size is 16"):
        add(Engine(model), [*range(17)])
    engine = Engine(model)
    add(engine, [*range(17)], truncate_prompt=True)
    assert collect(engine.run()) == [completed_alone(model, [*range(1, 17)])]


def test_callers_that_share_an_engine_get_the_steps_of_their_own_rows(model):
    engine = Engine(model, max_rows=2)
    mine, yours = ([add(engine, prompt, 5) for prompt in prompts] for prompts in ([[1], [2, 3]], [[4, 5], [6]]))
    first, second = engine.run_rows(mine), engine.run_rows(yours)
    steps = {"first": [next(first)], "second": [next(second)]}
    steps["first"] += first
    steps["second"] += second
    for name, rows, prompts in (("first", mine, [[1], [2, 3]]), ("second", yours, [[4, 5], [6]])):
        assert {step.row for step in steps[name]} == set(rows)
        assert collect(steps[name]) == [completed_alone(model, prompt, max_new_tokens=5) for prompt in prompts]
