"""The tokenizers of the models over HTTP, as lm-evaluation-harness uses them."""

import json

import pytest
from small_runs import CONTEXT, TOKENIZER

TEXT = "The sea 🚢, née\n<|endoftext|> and a\0byte"


def refused(http, path: str, content: str) -> dict:
    reply = http.post(path, content=content, headers={"content-type": "application/json"})
    assert reply.status_code == 400, reply.text
    return reply.json()["error"]


def test_tokens_of_a_text_decode_to_it(http):
    reply = http.post("/tokenize", json={"prompt": TEXT}).json()
    assert reply == {"tokens": TOKENIZER.encode(TEXT), "count": len(reply["tokens"]), "max_model_len": CONTEXT}
    assert http.post("/detokenize", json={"tokens": reply["tokens"]}).json() == {"prompt": TEXT}


def test_the_end_of_text_is_one_token_and_no_others_are_added(http):
    for added in (True, False, None):
        reply = http.post("/tokenize", json={"prompt": "<|endoftext|>", "add_special_tokens": added})
        assert reply.json()["tokens"] == [TOKENIZER.eot_id]
    assert http.post("/tokenize", json={"prompt": ""}).json()["tokens"] == []
    assert http.post("/detokenize", json={"tokens": []}).json()["prompt"] == ""


def test_the_tokens_are_those_that_completions_count(http):
    count = http.post("/tokenize", json={"prompt": "née"}).json()["count"]
    reply = http.post("/v1/completions", json={"prompt": "née", "max_tokens": 1}).json()
    assert reply["usage"]["prompt_tokens"] == count


def test_bytes_that_are_no_character_become_a_replacement(http):
    assert http.post("/detokenize", json={"tokens": [0xE2, 0x82]}).json()["prompt"] == "\ufffd"


def test_the_tokenizer_is_described_with_its_end_of_text(http):
    info = http.get("/tokenizer_info").json()
    assert info["eos_token"] == "<|endoftext|>"
    assert info["tokenizer_class"]
    assert http.get("/tokenizer_info", params={"model": "story@step-1"}).json() == info


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"prompt": ["a"]}, "prompt"),
        ("/tokenize", {"prompt": "a", "add_special_tokens": 1}, "add_special_tokens"),
        ("/tokenize", {"prompt": "a", "texts": 1}, "texts"),
        ("/detokenize", {}, "tokens"),
        ("/detokenize", {"tokens": "a"}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": [True]}, "tokens"),
        ("/detokenize", {"tokens": [TOKENIZER.vocab_size]}, "tokens"),
        ("/detokenize", {"tokens": [10**30]}, "tokens"),
    ],
)
def test_an_invalid_request_is_refused_and_named(http, path, body, param):
    assert refused(http, path, json.dumps(body))["param"] == param


def test_an_unknown_model_is_404(http):
    for reply in (
        http.post("/tokenize", json={"prompt": "a", "model": "none"}),
        http.post("/detokenize", json={"tokens": [1], "model": "none"}),
        http.get("/tokenizer_info", params={"model": "none"}),
    ):
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")


def test_an_unknown_field_is_400_and_named_with_those_of_the_request(http):
    for path, body, part in (
        ("/tokenize", {"prompt": "a", "add_special_token": True}, "Did you mean add_special_tokens?"),
        ("/detokenize", {"tokens": [1], "zzz": 1}, "There are: model, tokens."),
    ):
        error = http.post(path, json=body).json()["error"]
        assert error["param"] in body
        assert part in error["message"]
