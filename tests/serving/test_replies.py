"""Replies: long ones in parts, and streams of which an event has the text of several tokens."""

import json
import math

import pytest

from tokenloom.serving.replies import JsonReply, LongJsonReply, event


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        None,
        "a\ud800b\u2028",
        {"a": 1, "é": [1, 2, 3], "b": {"c": [{"d": [1.5, None]}, {}]}},
        [[1, 2], [], [3]],
        [{"a": True}, {"b": [False]}],
        {"a": math.inf, "b": [{"c": math.nan}, {"c": 1.0}], "d": (1, 2)},
    ],
)
def test_a_long_reply_is_the_same_json(value):
    assert json.loads(LongJsonReply(value).body) == json.loads(JsonReply(value).body)


def test_an_event_is_one_line_of_ascii():
    assert event({"text": "é\n\n"}) == b'data: {"text": "\\u00e9\\n\\n"}\n\n'


def test_many_log_probabilities_are_the_same_as_few_at_a_time(http):
    """The first request is answered in another thread, the others are short."""
    ids = [number % 250 for number in range(50)]
    body = {"prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 20}
    found = http.post("/v1/completions", json=body).json()["choices"][0]
    for length in (2, 7):
        part = http.post("/v1/completions", json={**body, "prompt": ids[:length]}).json()["choices"][0]
        for key, values in part["logprobs"].items():
            if key in ("tokens", "token_ids", "token_bytes"):
                assert values == found["logprobs"][key][:length]
        assert part["logprobs"]["token_logprobs"][1:] == pytest.approx(
            found["logprobs"]["token_logprobs"][1:length], abs=1e-5
        )
