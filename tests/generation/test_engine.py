"""The engine gives the same ids with and without the cache, alone and in a batch."""

import numpy as np
import pytest
import torch

from tokenloom.errors import SequenceError, UsageError, WeightsError
from tokenloom.generation.engine import Completion, Engine, collect, generate, make_generator
from tokenloom.sampling_params import SamplingParams

BLOCK_SIZE = 16  # as in conftest.py
PROMPTS = [[5], [1, 2, 3], [9, 8, 7, 6, 5, 4, 3], [1, 2, 3], list(range(40))]
GREEDY = SamplingParams(temperature=0)
WILD = SamplingParams(temperature=1.0, top_k=20)


def generated(model, prompts, **options):
    options = {"max_new_tokens": 12, "sampling": GREEDY, "seed": 3, **options}
    return [completion.token_ids for completion in collect(generate(model, prompts, **options))]


def book_generate(model, prompt, count):
    """Greedy continuation as chapter 5 writes it: the whole of the last block_size tokens for every token."""
    ids = torch.tensor([prompt])
    for _ in range(count):
        with torch.no_grad():
            logits = model(ids[:, -BLOCK_SIZE:])[:, -1]
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    return ids[0, len(prompt) :].tolist()


@pytest.mark.parametrize("sampling", [GREEDY, WILD], ids=["greedy", "sampled"])
def test_a_batch_gives_the_ids_of_each_prompt_alone(model, sampling):
    together = generated(model, PROMPTS, sampling=sampling)
    assert together == [generated(model, [prompt], sampling=sampling)[0] for prompt in PROMPTS]
    assert together[1] == together[3]
    assert len({tuple(ids) for ids in together}) == 4  # the prompts do not all give the same ids


@pytest.mark.parametrize("slide", [None, 1, 7, BLOCK_SIZE])
@pytest.mark.parametrize("sampling", [GREEDY, WILD], ids=["greedy", "sampled"])
def test_cached_and_uncached_ids_are_equal_also_past_the_context(model, sampling, slide):
    options = {"sampling": sampling, "slide": slide, "max_new_tokens": 3 * BLOCK_SIZE}
    cached = generated(model, PROMPTS, **options)
    assert cached == generated(model, PROMPTS, **options, use_cache=False)
    assert [len(ids) for ids in cached] == [3 * BLOCK_SIZE] * len(PROMPTS)


@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
def test_a_slide_of_one_gives_the_ids_of_the_book(model, use_cache):
    for prompt in PROMPTS:
        ids = generated(model, [prompt], slide=1, max_new_tokens=30, use_cache=use_cache)[0]
        assert ids == book_generate(model, prompt, 30)


def test_the_window_of_a_long_prompt_is_its_last_tokens(model):
    prompt = list(range(40))
    assert generated(model, [prompt]) == generated(model, [prompt[-BLOCK_SIZE:]])


def test_a_quarter_slide_prefills_the_window_once_in_a_quarter_of_its_tokens(model, monkeypatch):
    prefills = []
    engine = Engine(model)
    rows = engine._batch._rows
    append = rows.append
    monkeypatch.setattr(rows, "append", lambda row, tokens: prefills.append(len(tokens)) or append(row, tokens))
    engine.add([1], max_new_tokens=33, sampling=GREEDY, seed=0)
    collect(engine.run())
    # 16 tokens fill the window; 12 are kept with the new one, and all but the last are prefilled: 12 + 1 - 1.
    assert prefills == [12, 12, 12, 12, 12]


def test_a_prompt_may_be_an_array_as_shards_hold_it(model):
    penalised = SamplingParams(temperature=0, repetition_penalty=1.5)
    array = np.array([1, 2, 3], dtype=np.uint16)
    assert generated(model, [array], sampling=penalised) == generated(model, [[1, 2, 3]], sampling=penalised)


def test_samples_differ_and_the_first_is_that_of_the_plain_seed(model):
    samples = generated(model, [[1, 2, 3], [4, 5]], sampling=WILD, num_samples=3)
    assert len({tuple(ids) for ids in samples}) == 6
    assert samples[0] == generated(model, [[1, 2, 3]], sampling=WILD)[0]
    assert samples[3:] == generated(model, [[4, 5]], sampling=WILD, num_samples=3)


def test_another_seed_gives_other_ids(model):
    assert generated(model, [[1]], sampling=WILD, seed=1) != generated(model, [[1]], sampling=WILD, seed=2)


def test_a_sample_is_that_of_torch_with_the_same_seed(model):
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        chances = model(torch.tensor([[1, 2, 3]]))[0, -1].softmax(-1)
    expected = torch.multinomial(chances, 1, generator=generator).tolist()
    assert (
        generated(model, [[1, 2, 3]], sampling=SamplingParams(temperature=1.0), seed=11, max_new_tokens=1)[0]
        == expected
    )


def test_generators_of_samples_are_fixed_and_distinct():
    seeds = [make_generator(5, sample).initial_seed() for sample in range(4)]
    assert seeds[0] == 5
    assert len(set(seeds)) == 4
    assert seeds == [make_generator(5, sample).initial_seed() for sample in range(4)]


@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
def test_a_row_ends_at_the_end_of_text_token_and_the_others_continue(model, use_cache):
    plain = generated(model, PROMPTS, sampling=WILD)
    eot = next(token for token in plain[1] if any(token not in ids for ids in plain))
    options = {"max_new_tokens": 12, "sampling": WILD, "seed": 3, "eot_id": eot, "use_cache": use_cache}
    for completion, ids in zip(collect(generate(model, PROMPTS, **options)), plain, strict=True):
        if eot in ids:
            assert completion == Completion(ids[: ids.index(eot)], "stop")
        else:
            assert completion == Completion(ids, "length")


def test_steps_stream_the_tokens_of_every_row(model):
    steps = list(generate(model, [[1], [2]], max_new_tokens=2, sampling=GREEDY, seed=0))
    assert [(step.row, step.finish_reason) for step in steps] == [(0, None), (1, None), (0, "length"), (1, "length")]


def test_no_new_tokens_is_an_empty_completion(model):
    assert collect(generate(model, [[1], [2]], max_new_tokens=0, sampling=GREEDY, seed=0)) == [
        Completion([], "length"),
        Completion([], "length"),
    ]


def test_no_prompts_give_no_completions(model):
    assert collect(generate(model, [], max_new_tokens=5, sampling=GREEDY, seed=0)) == []


@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
def test_waiting_for_a_free_row_does_not_change_the_ids(model, use_cache):
    assert generated(model, PROMPTS, sampling=WILD, max_rows=2, use_cache=use_cache) == generated(
        model, PROMPTS, sampling=WILD
    )


def test_a_sequence_that_joins_a_running_batch_gets_the_ids_it_gets_alone(model):
    engine = Engine(model)
    engine.add([1, 2, 3], max_new_tokens=12, sampling=GREEDY, seed=3)
    engine.add([5], max_new_tokens=3, sampling=GREEDY, seed=3)
    steps = [step for _ in range(5) for step in engine.step()]
    assert engine.add([9, 8, 7, 6], max_new_tokens=12, sampling=WILD, seed=3) == 2
    steps += list(engine.run())
    first, short, late = (completion.token_ids for completion in collect(steps))
    assert first == generated(model, [[1, 2, 3]])[0]
    assert short == generated(model, [[5]], max_new_tokens=3)[0]
    assert late == generated(model, [[9, 8, 7, 6]], sampling=WILD)[0]


def test_a_removed_sequence_leaves_the_others_as_they_were(model):
    engine = Engine(model, max_rows=2)
    rows = [engine.add(prompt, max_new_tokens=12, sampling=GREEDY, seed=3) for prompt in ([1], [2], [3])]
    steps = engine.step() + engine.step()
    engine.remove(rows[0])
    engine.remove(rows[0])
    steps += list(engine.run())
    assert [completion.token_ids for completion in collect(steps)] == generated(model, [[2], [3]])
    assert len(engine) == 0


def test_sequences_that_join_and_leave_in_any_order_get_the_ids_they_get_alone(model):
    prompts = [[5], [1, 2, 3], [9, 8, 7, 6, 5, 4, 3], [1, 2, 3], list(range(40)), [7, 7], [3]]
    lengths = [2, 30, 9, 4, 1, 40, 5]
    engine, steps = Engine(model, max_rows=3), []
    for number, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
        engine.add(prompt, max_new_tokens=length, sampling=WILD, seed=number, truncate_prompt=True)
        steps += engine.step()
    steps += list(engine.run())
    alone = [
        generated(model, [prompt], max_new_tokens=length, sampling=WILD, seed=number)[0]
        for number, (prompt, length) in enumerate(zip(prompts, lengths, strict=True))
    ]
    assert [completion.token_ids for completion in collect(steps)] == alone


def test_generation_continues_after_a_step_with_logits_that_are_not_finite(model):
    engine = Engine(model)
    for prompt in ([1, 2, 3], [9, 8]):
        engine.add(prompt, max_new_tokens=12, sampling=GREEDY, seed=0)
    steps = engine.step() + engine.step()
    hook = model.h[0].register_forward_hook(lambda module, inputs, output: output * torch.nan)
    with pytest.raises(WeightsError, match="NaN"):
        engine.step()
    hook.remove()
    steps += list(engine.run())
    assert [completion.token_ids for completion in collect(steps)] == generated(model, [[1, 2, 3], [9, 8]])


@pytest.mark.parametrize("options", [{}, {"top_logprobs": 1, "prompt_logprobs": True}], ids=["generated", "scored"])
@pytest.mark.parametrize("use_cache", [True, False])
def test_a_sequence_with_logits_that_are_not_finite_can_be_removed_and_the_others_continue(model, options, use_cache):
    with torch.no_grad():
        model.wte.weight[9] = torch.nan
    prompts = [[1, 2, 3], [8, 9, 10], [4], [5]]
    engine, failed, steps = Engine(model, use_cache=use_cache), [], []
    never_9 = {"logit_bias": {9: -100.0}, "sampling": WILD, "seed": 3}
    for number, prompt in enumerate(prompts):
        scored = {"top_logprobs": 1, "prompt_logprobs": True} if number == 2 else options
        engine.add(prompt, max_new_tokens=0 if number == 2 else 6, **never_9, **scored)
    while len(engine):
        try:
            steps += engine.step()
        except SequenceError as error:
            failed.append(error.row)
            engine.remove(error.row)
    assert failed == [1]
    alone = {}
    for number in (0, 2, 3):
        single = Engine(model, use_cache=use_cache)
        single.add(prompts[number], max_new_tokens=0 if number == 2 else 6, **never_9)
        [alone[number]] = collect(single.run())
    assert collect(steps) == list(alone.values())


def test_a_repetition_penalty_applies_to_the_prompt_and_each_rows_own_tokens(model):
    strict = SamplingParams(temperature=0, repetition_penalty=1e6)
    prompts = [[1, 2, 3], [40, 41]]
    together = generated(model, prompts, sampling=strict)
    assert together == [generated(model, [prompt], sampling=strict)[0] for prompt in prompts]
    assert together != generated(model, prompts)


def test_ids_past_the_tokenizers_vocabulary_are_never_sampled(model):
    wild = SamplingParams(temperature=100.0)
    assert max(generated(model, [[1]], sampling=wild, max_new_tokens=200)[0]) >= 50
    assert max(generated(model, [[1]], sampling=wild, max_new_tokens=200, vocab_size=50)[0]) < 50


def test_the_model_is_in_eval_mode_during_a_step_only(model):
    model.train()
    model.drop.p = 0.9  # with dropout the ids would differ
    modes = []
    model.drop.register_forward_hook(lambda module, *_: modes.append(module.training))
    ids = []
    for step in generate(model, [[1, 2]], max_new_tokens=6, sampling=GREEDY, seed=0):
        assert all(module.training for module in model.modules())
        ids.append(step.token)
    assert not any(modes)
    model.eval()
    assert ids == generated(model, [[1, 2]], max_new_tokens=6)[0]


def test_training_mode_is_restored_after_an_error(model):
    model.train()
    model.h[0].eval()
    before = [module.training for module in model.modules()]
    model.lm_head.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    model.drop.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        collect(generate(model, [[1, 2]], max_new_tokens=6, sampling=GREEDY, seed=0))
    assert [module.training for module in model.modules()] == before


def test_nan_weights_are_reported(model):
    with torch.no_grad():
        model.wte.weight.fill_(torch.nan)
    with pytest.raises(WeightsError, match="NaN"):
        generated(model, [[1, 2]])


@pytest.mark.parametrize(("value", "said"), [("nan", "NaN"), ("inf", "infinite"), ("-inf", "infinite")])
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("sampling", [GREEDY, WILD, SamplingParams(top_p=0.5)], ids=["greedy", "top_k", "top_p"])
def test_logits_that_are_not_finite_are_reported_with_their_position(model, value, said, use_cache, sampling):
    calls = 0

    def invalid_from_the_third_token(module, inputs, logits):
        nonlocal calls
        calls += 1
        return logits if calls < 3 else torch.cat([logits[:1], torch.full_like(logits[1:], float(value))])

    model.lm_head.register_forward_hook(invalid_from_the_third_token)
    with pytest.raises(WeightsError, match=rf"logits of new token 3 are {said}: .*earlier checkpoint"):
        generated(model, [[1, 2], [3]], use_cache=use_cache, sampling=sampling)


@pytest.mark.parametrize(
    ("prompts", "options", "said"),
    [
        ([[]], {}, "no tokens"),
        ([[1, 60]], {}, "token 60"),
        ([[-1]], {}, "token -1"),
        ([[1, 55]], {"vocab_size": 50}, "0 to 49"),
        ([[1]], {"max_new_tokens": -1}, "max_new_tokens"),
        ([[1]], {"num_samples": 0}, "num_samples"),
        ([[1]], {"slide": 0}, "slide"),
        ([[1]], {"slide": 17}, "block_size 16"),
        ([[1]], {"max_rows": 0}, "max_rows"),
        ([[1]], {"vocab_size": 61}, "tokenizer has 61"),
        ([[1]], {"seed": -1}, "seed"),
        ([[1]], {"seed": 2**64}, "seed"),
    ],
)
def test_invalid_options_raise_at_once_a_message_of_one_line(model, prompts, options, said):
    with pytest.raises(UsageError, match=said) as refused:
        generate(model, prompts, **{"max_new_tokens": 3, "sampling": GREEDY, "seed": 0, **options})
    assert "\n" not in str(refused.value)
