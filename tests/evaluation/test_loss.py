"""Loss over a text: every token is scored once and weighted equally, for any windows and batches."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from tokenloom.config import ModelConfig
from tokenloom.data.token_reader import TokenArray
from tokenloom.errors import DataError, UsageError
from tokenloom.evaluation.loss import loss_over_batches, measure
from tokenloom.model.gpt2 import GPT2

VOCABULARY, BLOCK_SIZE = 30, 12
TOKENS = np.random.default_rng(0).integers(0, VOCABULARY, 59).astype(np.uint16)
# Sums of about fifty float32 losses in a different order: errors of a few units in the seventh digit.
CLOSE = {"rel": 3e-6}


@pytest.fixture
def model():
    shape = {"vocab_size": VOCABULARY, "block_size": BLOCK_SIZE, "n_layer": 2, "n_head": 2, "n_embd": 16}
    built = GPT2(ModelConfig(family="gpt2", dropout=0.5, **shape), torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=random)
    return built.eval()


def token_nats(model, tokens, start: int, target: int) -> float:
    """-log p of the token at `target`, given those from `start`."""
    with torch.no_grad():
        logits = model(torch.tensor(tokens[start:target].astype(np.int64))[None])
    return -logits[0, -1].double().log_softmax(-1)[int(tokens[target])].item()


def reference_nats(model, tokens, context: int, stride: int) -> list[float]:
    """Token by token: each is scored by the first window that contains it."""
    nats = []
    for target in range(1, len(tokens)):
        start = 0
        while start + context < target:
            start += stride
        nats.append(token_nats(model, tokens, start, target))
    return nats


@pytest.mark.parametrize(("context", "stride"), [(12, 12), (12, 5), (12, 1), (7, 3), (1, 1), (10, 9)])
@pytest.mark.parametrize("length", [2, 3, 12, 13, 14, 25, 59])
def test_every_token_but_the_first_is_scored_once_with_the_documented_context(model, context, stride, length):
    tokens = TOKENS[:length]
    measured = measure(model, TokenArray(tokens), context=context, stride=stride, batch_size=4)
    expected = reference_nats(model, tokens, context, stride)
    assert measured.tokens == length - 1 == len(expected)
    assert measured.nats == pytest.approx(sum(expected), **CLOSE)
    assert (measured.context, measured.stride) == (context, stride)


@pytest.mark.parametrize("stride", [12, 5])
def test_the_batch_size_does_not_change_the_result(model, stride):
    sums = [
        measure(model, TokenArray(TOKENS), context=12, stride=stride, batch_size=size).nats for size in (1, 2, 3, 100)
    ]
    assert sums == pytest.approx([sums[0]] * 4, **CLOSE)


def test_the_mean_is_over_tokens_and_not_windows(model):
    tokens = TOKENS[:15]  # a window of 12 scored tokens, and one of 2
    first, last = (
        measure(model, TokenArray(tokens[:13]), context=12),
        measure(model, TokenArray(tokens[12:]), context=12),
    )
    whole = measure(model, TokenArray(tokens), context=12)
    assert (first.tokens, last.tokens, whole.tokens) == (12, 2, 14)
    assert whole.loss == pytest.approx((12 * first.loss + 2 * last.loss) / 14, **CLOSE)
    assert whole.loss != pytest.approx((first.loss + last.loss) / 2, rel=1e-3)


def test_a_smaller_stride_gives_more_context():
    """For a model that predicts tokens of its context, more context means a lower loss."""
    repeated = np.tile(np.arange(6), 10)
    losses = [measure(ContextModel(), TokenArray(repeated), context=8, stride=stride).loss for stride in (8, 4, 2)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1]


def test_bytes_are_those_of_the_scored_tokens(model):
    byte_lengths = np.arange(VOCABULARY)
    measured = measure(model, TokenArray(TOKENS), context=12, byte_lengths=byte_lengths)
    assert measured.bytes == TOKENS[1:].sum()
    assert measured.bits_per_byte == pytest.approx(measured.nats / math.log(2) / TOKENS[1:].sum())
    assert measure(model, TokenArray(TOKENS), context=12).bits_per_byte is None


def test_a_subset_is_spread_evenly_and_always_the_same(model):
    tokens = TOKENS[:49]  # four windows of 12
    subset = measure(model, TokenArray(tokens), context=12, max_windows=2)
    windows = [measure(model, TokenArray(tokens[start : start + 13]), context=12) for start in (0, 24)]
    assert subset.tokens == 24
    assert subset.nats == pytest.approx(sum(window.nats for window in windows), **CLOSE)
    assert subset == measure(model, TokenArray(tokens), context=12, max_windows=2)


def test_a_limit_above_the_number_of_windows_is_no_limit(model):
    assert measure(model, TokenArray(TOKENS), context=12, max_windows=99) == measure(
        model, TokenArray(TOKENS), context=12
    )


def test_progress_is_reported_in_windows(model):
    reports = []
    measure(
        model, TokenArray(TOKENS), context=12, batch_size=2, progress=lambda done, total: reports.append((done, total))
    )
    assert reports == [(2, 5), (4, 5), (5, 5)]


def test_dropout_and_gradients_are_off_and_the_training_mode_is_restored(model):
    expected = measure(model, TokenArray(TOKENS), context=12)
    model.train()
    model.h[0].eval()
    before = [module.training for module in model.modules()]
    assert measure(model, TokenArray(TOKENS), context=12) == expected
    assert [module.training for module in model.modules()] == before
    assert all(parameter.grad is None for parameter in model.parameters())


def test_training_mode_is_restored_after_an_error(model):
    model.train()
    with pytest.raises(ZeroDivisionError):
        measure(model, TokenArray(TOKENS), context=12, progress=lambda done, total: 1 // 0)
    assert all(module.training for module in model.modules())


def test_the_callers_autocast_is_used(model):
    exact = measure(model, TokenArray(TOKENS), context=12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = measure(model, TokenArray(TOKENS), context=12)
    assert rounded.loss != exact.loss
    assert rounded.loss == pytest.approx(exact.loss, rel=0.02)  # bf16 keeps 8 bits, over two layers


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"context": 13}, "block_size 12, got 13"),
        ({"context": 0}, "context"),
        ({"context": 8, "stride": 9}, "stride .* 8, got 9"),
        ({"context": 8, "stride": 0}, "stride"),
        ({"context": 8, "batch_size": 0}, "batch_size"),
        ({"context": 8, "max_windows": 0}, "max_windows"),
    ],
)
def test_options_out_of_range_are_refused_in_one_line(model, options, said):
    with pytest.raises(UsageError, match=said) as refused:
        measure(model, TokenArray(TOKENS), **options)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("length", [0, 1])
def test_a_text_without_a_token_to_score_is_refused(model, length):
    with pytest.raises(DataError, match=f"at least 2 tokens, got {length}"):
        measure(model, TokenArray(TOKENS[:length]), context=12)


def test_tokens_outside_the_vocabulary_are_refused(model):
    with pytest.raises(DataError, match="token 30 .* outside the model's vocabulary, 0 to 29"):
        measure(model, TokenArray(np.array([1, 2, 30])), context=12)


def batches(*sizes):
    windows = torch.from_numpy(TOKENS.astype(np.int64)).unfold(0, 5, 1)
    return [(windows[:size, :-1], windows[:size, 1:]) for size in sizes]


def test_the_books_loader_loss_is_the_mean_of_batch_means(model):
    means = [model.loss(ids, targets).item() for ids, targets in batches(2, 5, 1)]
    assert loss_over_batches(model, batches(2, 5, 1)) == pytest.approx(sum(means) / 3)
    assert loss_over_batches(model, batches(2, 5, 1), num_batches=2) == pytest.approx(sum(means[:2]) / 2)
    assert loss_over_batches(model, batches(2, 5, 1), num_batches=9) == pytest.approx(sum(means) / 3)


def test_the_books_loader_loss_of_nothing_is_not_a_number(model):
    assert math.isnan(loss_over_batches(model, []))
    assert math.isnan(loss_over_batches(model, batches(2), num_batches=0))


class ContextModel(nn.Module):
    """Predicts the tokens that its context contains with a higher probability."""

    def __init__(self) -> None:
        super().__init__()
        self.config = ModelConfig(vocab_size=6, block_size=8)
        self.logit = nn.Parameter(torch.tensor(3.0))

    def loss(self, ids, targets, reduction="mean"):
        in_context = nn.functional.one_hot(ids, 6).cumsum(1).clamp(max=1)
        logits = self.logit * in_context.float()
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=reduction)
