"""Evaluation and samples during training."""

import pytest
import torch

from tokenloom.compute.parallel import World
from tokenloom.errors import TrainingError
from tokenloom.evaluation.loss import measure
from tokenloom.training.evaluation import evaluate, generate_samples


def test_a_limited_evaluation_scores_that_many_batches(state):
    measurement = evaluate(state, 2)
    assert measurement is not None
    assert measurement.tokens == 2 * state.config.train.batch_size * state.config.model.block_size


class Share(World):
    """One of several processes, without a group: sums over all of them are those of this one."""

    def sum(self, values):
        return list(values)


@pytest.mark.parametrize("ranks", [1, 2, 5])
@pytest.mark.parametrize("micro_batch_size", [None, 1, 2])
def test_micro_batches_and_ranks_do_not_change_what_is_evaluated(state_of, monkeypatch, micro_batch_size, ranks):
    state = state_of(train={"batch_size": 8, "micro_batch_size": micro_batch_size})
    expected = measure(state.model, state.validation, context=16, batch_size=8, max_windows=3 * 8)
    loss = state.model.loss
    sizes = [[] for _ in range(ranks)]

    def recorded_loss(ids, *arguments):
        sizes[state.world.rank].append(len(ids))
        return loss(ids, *arguments)

    monkeypatch.setattr(state.model, "loss", recorded_loss)
    shares = []
    for rank in range(ranks):
        state.world = Share(rank, ranks)
        shares.append(evaluate(state, 3))
    assert sum(share.tokens for share in shares) == expected.tokens
    nats = sum(share.nats for share in shares)
    assert nats == pytest.approx(expected.nats, rel=1e-6)  # fp32 sums of other batches
    assert max(sizes[0]) == state.micro_batch_size
    assert all(of_rank == sizes[0] for of_rank in sizes), "processes of a sharded model compute each batch together"


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


def test_a_sample_of_a_model_that_diverged_is_refused_with_the_step(state_of):
    state = state_of(sample={"max_new_tokens": 5})
    state.counters.step = 7
    with torch.no_grad():
        state.model.wte.weight.fill_(torch.inf)
    with pytest.raises(TrainingError, match=r"at step 7: the logits of new token 1 are .*"):
        generate_samples(state)
