"""The figures of every token against a direct computation, and their sum against `measure`."""

import math
import tracemalloc

import numpy as np
import pytest
import torch

from tokenloom.data.token_reader import TokenArray
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.errors import DataError, UsageError
from tokenloom.evaluation import inspection
from tokenloom.evaluation.inspection import Token, inspect_tokens
from tokenloom.evaluation.loss import measure

BYTE = load_tokenizer("byte")
TEXT = "All work, no play: 👋 makes<|endoftext|>Jack a dull boy.\n"


@pytest.fixture(params=["gpt2", "modern"])
def model(request, model_of):
    return model_of(request.param, vocab_size=BYTE.vocab_size + 3)


@pytest.mark.parametrize(("context", "stride"), [(None, None), (16, 16), (16, 5), (7, 7), (1, 1)])
def test_the_losses_of_the_tokens_add_up_to_the_measured_one(model, context, stride):
    ids = BYTE.encode_array(TEXT)
    total = inspect_tokens(model, ids, BYTE, context=context, stride=stride).measurement
    measured = measure(model, TokenArray(ids), context=total.context, stride=total.stride)
    assert total.tokens == measured.tokens == len(ids) - 1
    # The documented tolerance: fp32 logits, summed in a different order.
    assert total.nats == pytest.approx(measured.nats, rel=1e-6)
    assert total.perplexity == pytest.approx(measured.perplexity, rel=1e-5)


def test_in_bf16_the_losses_of_the_tokens_add_up_as_well(model):
    ids = BYTE.encode_array(TEXT * 20)
    with torch.autocast("cpu", torch.bfloat16):
        total = inspect_tokens(model, ids, BYTE).measurement
        alike, in_batches = (measure(model, TokenArray(ids), context=16, batch_size=size) for size in (1, 8))
    # As in fp32: matrix products are in bf16 in both, and everything after the logits is in fp32.
    assert total.nats == pytest.approx(alike.nats, rel=1e-6)
    # Products of other shapes are rounded to bf16 from other sums.
    assert total.nats == pytest.approx(in_batches.nats, rel=1e-5)


def test_the_logits_of_a_few_tokens_are_computed_at_a_time(model_of, monkeypatch):
    model = model_of("modern", vocab_size=BYTE.vocab_size, block_size=100)
    ids = BYTE.encode_array(TEXT * 4)
    whole = inspect_tokens(model, ids, BYTE, top=3, context=100, stride=40)
    monkeypatch.setattr(inspection, "ROWS_AT_ONCE", 7)
    rows = []
    model.lm_head.register_forward_hook(lambda module, inputs, logits: rows.append(len(logits)))
    in_parts = inspect_tokens(model, ids, BYTE, top=3, context=100, stride=40)
    assert max(rows) == 7
    assert sum(rows) == len(ids) - 1
    for token, expected in zip(in_parts.tokens, whole.tokens, strict=True):
        assert (token.id, token.rank, [one.id for one in token.top]) == (
            expected.id, expected.rank, [one.id for one in expected.top],
        )  # fmt: skip
        # Products of other shapes are summed in a different order.
        assert token.log_probability == pytest.approx(expected.log_probability, abs=1e-5)
        assert token.entropy == pytest.approx(expected.entropy, abs=1e-5)


@pytest.mark.parametrize("top", [0, 10])
def test_a_token_takes_few_bytes(model, top):
    ids = BYTE.encode_array(TEXT * 100)
    inspect_tokens(model, ids[:20], BYTE, top=top)  # torch allocates buffers of its own once
    tracemalloc.start()
    try:
        tokens = inspect_tokens(model, ids, BYTE, top=top).tokens
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size / len(tokens) < 40 + 8 * top
    assert len(tokens[3].top) == top


def test_tokens_are_a_sequence(model):
    tokens = inspect_tokens(model, BYTE.encode_array(TEXT), BYTE, top=2).tokens
    assert list(tokens) == tokens[:] == [tokens[index] for index in range(len(tokens))]
    assert tokens[-1] == list(tokens)[-1]
    assert tokens[2:4] == list(tokens)[2:4]
    with pytest.raises(IndexError):
        tokens[len(tokens)]


def test_each_figure_is_computed_from_the_logits(model):
    ids = BYTE.encode_array("dull boy")
    tokens = inspect_tokens(model, ids, BYTE, top=4).tokens
    with torch.no_grad():
        probs = model(torch.from_numpy(ids[None, :-1].astype(np.int64)))[0].double().softmax(dim=-1)
    for row, target, token in zip(probs, ids[1:], tokens, strict=True):
        assert (token.id, token.text) == (target, chr(target))
        # fp32 against float64
        assert token.probability == pytest.approx(row[int(target)].item(), rel=1e-4)
        assert token.log_probability == pytest.approx(math.log(token.probability), rel=1e-9)
        assert token.rank == 1 + (row > row[int(target)]).sum().item()
        assert token.entropy == pytest.approx(-(row * row.log()).sum().item(), rel=1e-4)
        assert [other.id for other in token.top] == row.topk(4).indices.tolist()


def test_tokens_that_are_a_part_of_a_character_keep_their_bytes(model):
    result = inspect_tokens(model, BYTE.encode_array("a👋"), BYTE)
    assert [token.content.hex() for token in result.tokens] == ["f0", "9f", "91", "8b"]
    assert result.first == Token(97, b"a")
    assert result.to_json()["first"] == {"id": 97, "text": "a", "bytes": "61"}


@pytest.mark.parametrize("text", ["", "x"])
def test_a_text_without_a_token_to_score_is_refused(model, text):
    with pytest.raises(DataError, match="at least 2 tokens"):
        inspect_tokens(model, BYTE.encode_array(text), BYTE)


@pytest.mark.parametrize("wrong", [{"top": -1}, {"context": 17}, {"context": 4, "stride": 5}])
def test_numbers_out_of_range_are_refused(model, wrong):
    with pytest.raises(UsageError):
        inspect_tokens(model, BYTE.encode_array(TEXT), BYTE, **wrong)
