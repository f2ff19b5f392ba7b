"""Log-probabilities over HTTP: one entry for every token, raw, and equal to those of `tokenloom inspect`."""

import math

import httpx2
import numpy as np
import pytest
import torch
from small_runs import TOKENIZER, random_model, save_run

from tokenloom.data.tokenizers import make_tokenizer
from tokenloom.evaluation.inspection import inspect_tokens

EOT = TOKENIZER.eot_id
TEXT = "The sea 🚢, née"


def complete(http, **body) -> dict:
    reply = http.post("/v1/completions", json={"max_tokens": 1, "temperature": 0, **body})
    assert reply.status_code == 200, reply.text
    return reply.json()


def logprobs(http, **body) -> dict:
    return complete(http, **body)["choices"][0]["logprobs"]


def scored(ids: list[int]) -> list[float]:
    """What the model predicts for every token but the first."""
    model = random_model()
    return [token.log_probability for token in inspect_tokens(model, np.array(ids), TOKENIZER, top=0).tokens]


def test_echo_with_logprobs_gives_an_entry_for_each_token_of_prompt_and_text(http):
    found = logprobs(http, prompt=TEXT, echo=True, logprobs=1)
    assert {len(values) for values in found.values()} == {len(TEXT.encode()) + 1}
    assert found["token_logprobs"][0] is None
    assert found["top_logprobs"][0] is None
    assert all(value <= 0 for value in found["token_logprobs"][1:])


def test_the_end_of_text_token_has_an_entry_of_its_own(http):
    reply = complete(http, prompt="abc", echo=True, logprobs=1, logit_bias={str(EOT): 100})
    (choice,) = reply["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("abc", "stop")
    assert choice["logprobs"]["token_ids"] == [*b"abc", EOT]
    assert choice["logprobs"]["tokens"] == ["a", "b", "c", "<|endoftext|>"]
    assert choice["logprobs"]["text_offset"] == [0, 1, 2, 3]
    assert len(choice["logprobs"]["token_logprobs"]) == 4


def test_the_values_are_those_of_inspect(http):
    ids = TOKENIZER.encode(TEXT)
    found = logprobs(http, prompt=ids, echo=True, logprobs=5, max_tokens=10, logit_bias={str(EOT): -100})
    expected = scored(found["token_ids"])
    assert found["token_ids"][: len(ids)] == ids
    assert len(expected) == len(ids) + 9
    assert found["token_logprobs"][1:] == pytest.approx(expected, abs=1e-5)  # another order of sums


def test_the_values_do_not_depend_on_sampling_nor_on_their_number(http):
    found = [
        logprobs(http, prompt=TEXT, echo=True, logprobs=number, max_tokens=0, **options)["token_logprobs"]
        for options in (
            {},
            {"temperature": 1, "seed": 1},
            {"temperature": 2, "seed": 1},
            {"logit_bias": {"97": 50}},
            {"presence_penalty": 2, "repetition_penalty": 3},
        )
        for number in (0, 1, 5)
    ]
    assert all(values == found[0] for values in found)


def test_generated_values_are_raw_at_every_temperature_and_with_bias(http):
    for options in ({"temperature": 0}, {"temperature": 2, "seed": 3}, {"logit_bias": {"120": 100, "121": 100}}):
        found = logprobs(http, prompt="abc", logprobs=3, max_tokens=8, **options)
        ids = [*b"abc", *found["token_ids"]]
        assert found["token_logprobs"] == pytest.approx(scored(ids)[2:], abs=1e-5)


def test_logprobs_null_0_and_20(http):
    assert logprobs(http, prompt="abc") is None
    assert logprobs(http, prompt="abc", logprobs=None) is None
    (only,) = logprobs(http, prompt="abc", logprobs=0)["top_logprobs"]
    assert len(only) == 1
    (most,) = logprobs(http, prompt="abc", logprobs=20)["top_tokens"]
    assert len(most) == 20
    values = [token["logprob"] for token in most]
    assert values == sorted(values, reverse=True)


def test_the_chosen_token_is_among_the_most_likely_with_the_same_value(http):
    found = logprobs(http, prompt=TEXT, echo=True, logprobs=1, max_tokens=20, temperature=2, seed=1)
    entries = list(zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True))[1:]
    assert all(top[token] == value for token, value, top in entries)
    assert any(len(top) == 2 for _, _, top in entries)


def test_tokens_of_the_same_text_stay_apart(tmp_path, server_of):
    tokenizer = make_tokenizer("char", ["abc"])  # has a token for the character a, and one for the byte
    character, byte = (token for token, content in enumerate(tokenizer.token_bytes) if content == b"a")
    model = random_model(tokenizer=tokenizer)
    with torch.no_grad():
        model.lm_head.weight[byte] = 2 * model.lm_head.weight[character]
    save_run(tmp_path / "twins", model, tokenizer=tokenizer)
    with server_of(tmp_path) as server, httpx2.Client(base_url=server.url) as http:
        options = {"max_tokens": 60, "logprobs": 20, "logit_bias": {str(character): 100, str(byte): -100}}
        found = logprobs(http, prompt="b", **options)
    both = [
        (top, {token["id"]: token["logprob"] for token in tokens})
        for top, tokens in zip(found["top_logprobs"], found["top_tokens"], strict=True)
        if {character, byte} <= {token["id"] for token in tokens}
    ]
    assert both
    for top, tokens in both:
        assert len(top) == len(tokens) - 1
        assert top["a"] == max(tokens[character], tokens[byte])


def test_tokens_that_are_not_whole_characters_have_names_of_their_own(http):
    found = logprobs(http, prompt="🚢", echo=True, logprobs=0, max_tokens=0)
    assert found["tokens"] == ["bytes:\\xf0", "bytes:\\x9f", "bytes:\\x9a", "bytes:\\xa2"]
    assert found["token_bytes"] == [[0xF0], [0x9F], [0x9A], [0xA2]]


def test_offsets_point_at_characters_and_never_decrease(http):
    options = {"temperature": 2, "seed": 2, "logit_bias": {str(EOT): -100}}
    choice = complete(http, prompt=TEXT, echo=True, logprobs=0, max_tokens=30, **options)["choices"][0]
    offsets = choice["logprobs"]["text_offset"]
    assert offsets == sorted(offsets)
    ship = TEXT.index("🚢")
    start = len(TEXT[:ship].encode())
    assert offsets[start : start + 5] == [ship] * 4 + [ship + 1]
    assert offsets[len(TEXT.encode())] == len(TEXT)
    for offset, content in zip(offsets, choice["logprobs"]["token_bytes"], strict=True):
        if content[0] < 128:
            assert choice["text"][offset] == chr(content[0])


def test_offsets_without_echo_begin_at_the_text(http):
    choice = complete(http, prompt=TEXT, logprobs=0, max_tokens=10, logit_bias={"120": 100})["choices"][0]
    assert choice["text"] == "x" * 10
    assert choice["logprobs"]["text_offset"] == list(range(10))


def test_a_request_of_lm_eval(http):
    context, continuation = TOKENIZER.encode("The sea"), TOKENIZER.encode(" is")
    reply = complete(
        http, prompt=[context + continuation], max_tokens=1, logprobs=1, echo=True, seed=1234, temperature=0
    )
    values = reply["choices"][0]["logprobs"]["token_logprobs"][len(context) : -1]
    expected = scored(context + continuation)[-len(continuation) :]
    assert math.fsum(values) == pytest.approx(math.fsum(expected), abs=1e-4)
