"""The next token: the probabilities of generation, and which sampling parameter excludes a token."""

import math

import pytest
import torch

from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.errors import UsageError
from tokenloom.evaluation.inspection import inspect_tokens
from tokenloom.generation.next_token import next_tokens
from tokenloom.generation.sampling import probabilities
from tokenloom.generation.text import generate_text
from tokenloom.sampling_params import SamplingParams

BYTES = load_tokenizer("byte")
OFF = SamplingParams(temperature=1.0)


@pytest.fixture(params=["gpt2", "modern"])
def model(request, model_of):
    return model_of(request.param, vocab_size=300)  # more than the tokenizer has


def test_without_sampling_parameters_they_are_the_predictions_of_inspect(model):
    found = next_tokens(model, BYTES, "all w", OFF, top=257)
    [*_, last] = inspect_tokens(model, BYTES.encode_array("all wo"), BYTES).tokens
    assert found.entropy == pytest.approx(last.entropy, rel=1e-5)
    probability = {token.id: token.probability for token in found.tokens}
    assert probability[ord("o")] == pytest.approx(last.probability, rel=1e-5)
    assert sum(token.sampled_probability for token in found.tokens) == pytest.approx(1, rel=1e-5)
    assert [token.logit for token in found.tokens] == sorted((token.logit for token in found.tokens), reverse=True)
    assert all(math.exp(token.log_probability) == pytest.approx(token.probability) for token in found.tokens)
    assert all(token.excluded_by is None for token in found.tokens)
    assert found.choices == 257


@pytest.mark.parametrize(
    "params",
    [{"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.6}, {"min_p": 0.2}, {"top_k": 9, "top_p": 0.7, "min_p": 0.1}],
)
def test_the_sampled_probabilities_are_those_of_sampling(model, params):
    sampling = SamplingParams(**{"temperature": 1.0, **params})
    found = next_tokens(model, BYTES, "all w", sampling, top=257)
    with torch.no_grad():
        logits = model(torch.tensor([list(b"all w")]))[:, -1, :257]
    expected = probabilities(logits, sampling)[0]
    for token in found.tokens:
        assert token.sampled_probability == pytest.approx(expected[token.id].item(), rel=1e-5)
        assert (token.excluded_by is None) == (token.sampled_probability > 0)
    assert found.choices == int((expected > 0).sum())


def test_the_parameter_that_excludes_a_token_first_is_named(model):
    found = next_tokens(model, BYTES, "all w", SamplingParams(temperature=1.0, top_k=9, top_p=0.5, min_p=0.9), top=257)
    assert found.tokens[0].excluded_by is None
    assert {token.excluded_by for token in found.tokens[9:]} == {"top_k"}
    reasons = [token.excluded_by for token in found.tokens[:9]]
    order = [None, "min_p", "top_p", "top_k"]
    assert reasons == sorted(reasons, key=order.index)
    assert "top_p" in reasons


def test_greedy_decoding_excludes_all_but_the_most_likely(model):
    found = next_tokens(model, BYTES, "all w", SamplingParams(temperature=0, top_k=5))
    assert [token.excluded_by for token in found.tokens] == [None] + ["temperature"] * 49
    [[completion]] = generate_text(model, BYTES, ["all w"], max_new_tokens=1, sampling=SamplingParams(temperature=0))
    assert found.choices == 1
    assert [found.tokens[0].id] == (completion.token_ids or [BYTES.eot_id])


def test_an_empty_text_is_the_start_of_a_new_one_and_a_long_one_is_cut(model):
    assert next_tokens(model, BYTES, "", OFF).context == [BYTES.eot_id]
    assert len(next_tokens(model, BYTES, "all work and no play makes Jack", OFF).context) == model.config.block_size


def test_what_has_no_meaning_is_refused(model):
    with pytest.raises(UsageError, match="top must be"):
        next_tokens(model, BYTES, "a", OFF, top=0)
    with pytest.raises(UsageError, match="repetition penalty"):
        next_tokens(model, BYTES, "a", SamplingParams(repetition_penalty=1.1))
