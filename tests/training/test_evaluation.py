"""Evaluation and samples during training."""

import pytest

from tokenloom.evaluation.loss import measure
from tokenloom.training.evaluation import evaluate, generate_samples


def test_a_limited_evaluation_scores_that_many_batches(state):
    measurement = evaluate(state, 2)
    assert measurement is not None
    assert measurement.tokens == 2 * state.micro_batch_size * state.config.model.block_size


def test_the_full_evaluation_scores_the_whole_validation_text(state):
    measurement = evaluate(state)
    assert measurement is not None
    assert measurement.tokens == len(state.validation) - 1
    direct = measure(state.model, state.validation, context=16, batch_size=3)
    assert measurement.loss == pytest.approx(direct.loss, rel=1e-6)  # fp32 sums of other batches


def test_without_validation_text_there_is_no_evaluation(state):
    state.validation = None
    assert evaluate(state) is None


def test_samples_are_the_same_at_every_call(state_of):
    state = state_of(sample={"max_new_tokens": 5, "prompts": ["all ", "work"], "seed": 3})
    samples = generate_samples(state)
    assert [sample.prompt for sample in samples] == ["all ", "work"]
    assert {(sample.step, sample.tokens, sample.seed) for sample in samples} == {(0, 0, 3)}
    assert samples == generate_samples(state)


def test_samples_can_be_disabled(state):
    assert generate_samples(state) == []
