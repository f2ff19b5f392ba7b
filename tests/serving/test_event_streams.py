"""Streams of completions, stop strings and text that is not whole characters."""

import json

import pytest
from small_runs import TOKENIZER

EOT = TOKENIZER.eot_id
NO_EOT = {str(EOT): -100}
VARIANTS = [
    {"temperature": 0},
    {"seed": 11},
    {"seed": 11, "n": 3},
    {"seed": 4, "logprobs": 2},
    {"seed": 4, "logprobs": 2, "echo": True},
    {"temperature": 0, "echo": True},
    {"seed": 5, "stop": ["a", "\ufffd\ufffd"], "logprobs": 0},
    {"seed": 9, "prompt": ["The sea", "", "é"], "n": 2, "echo": True, "logprobs": 1},
]


def events_of(http, **body) -> list[dict]:
    """The events of a stream, which ends with [DONE]; every one is UTF-8 by itself."""
    with http.stream("POST", "/v1/completions", json={"prompt": "The sea", **body, "stream": True}) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        raw = b"".join(reply.iter_raw())
    *events, end = raw.split(b"\n\n")
    assert end == b""
    assert events.pop() == b"data: [DONE]"
    return [json.loads(event.removeprefix(b"data: ").decode("utf-8")) for event in events]


def joined(events: list[dict]) -> list[dict]:
    """The choices of a stream, put together by their indexes."""
    choices: dict[int, dict] = {}
    for event in events:
        for choice in event["choices"]:
            whole = choices.setdefault(choice["index"], {"index": choice["index"], "text": "", "logprobs": None})
            whole["text"] += choice["text"]
            if choice["logprobs"] is not None:
                whole["logprobs"] = whole["logprobs"] or {key: [] for key in choice["logprobs"]}
                for key, values in choice["logprobs"].items():
                    whole["logprobs"][key] += values
            assert "finish_reason" not in whole, "an event after the end of its choice"
            if choice["finish_reason"] is not None:
                whole["finish_reason"] = choice["finish_reason"]
    return [choices[index] for index in sorted(choices)]


@pytest.mark.parametrize("options", VARIANTS, ids=json.dumps)
def test_a_stream_gives_what_the_whole_reply_gives(http, options):
    options = {"max_tokens": 20, **options}
    whole = http.post("/v1/completions", json={"prompt": "The sea", **options}).json()
    events = events_of(http, **options)
    assert joined(events) == whole["choices"]
    assert {event["id"] for event in events} == {events[0]["id"]}
    assert {event["model"] for event in events} == {whole["model"]}
    assert all("usage" not in event for event in events)


def test_usage_comes_in_an_event_of_its_own_that_has_no_choices(http):
    options = {"max_tokens": 9, "temperature": 0}
    *events, last = events_of(http, **options, stream_options={"include_usage": True})
    assert last["choices"] == []
    assert last["usage"] == http.post("/v1/completions", json={"prompt": "The sea", **options}).json()["usage"]
    assert all(event["usage"] is None for event in events)


def test_openai_s_client_reads_a_stream(client):
    stream = client.completions.create(
        model="story",
        prompt="The sea",
        max_tokens=10,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    events = list(stream)
    whole = client.completions.create(model="story", prompt="The sea", max_tokens=10, temperature=0)
    assert "".join(choice.text for event in events for choice in event.choices) == whole.choices[0].text
    assert events[-1].usage.completion_tokens == 10


def bias(text: str) -> dict[str, float]:
    """A bias with which only the bytes of a text are generated, in any order."""
    return {str(byte): 100.0 for byte in set(text.encode())}


def forced(http, **options) -> dict:
    """A choice of the bytes a, b and c, in an order that depends on the seed."""
    reply = http.post(
        "/v1/completions",
        json={"prompt": "q", "max_tokens": 40, "seed": 3, "temperature": 2, "logit_bias": bias("abc"), **options},
    )
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]


def test_a_stop_string_of_several_tokens_never_shows(http):
    text = forced(http)["text"]
    assert set(text) == set("abc")
    stop = text[10:14]
    choice = forced(http, stop=stop, logprobs=0)
    assert choice["text"] == text[: text.index(stop)]
    assert choice["finish_reason"] == "stop"
    shown = ""
    for event in events_of(http, prompt="q", max_tokens=40, seed=3, temperature=2, logit_bias=bias("abc"), stop=stop):
        shown += "".join(one["text"] for one in event["choices"])
        assert text.startswith(shown)
    assert shown == choice["text"]


def test_of_stop_strings_that_end_together_the_longest_is_cut(http):
    text = forced(http)["text"]
    stop = text[10:14]
    end = text.index(stop) + len(stop)
    longest = text[end - 6 : end]
    assert text.index(longest) == end - 6
    assert forced(http, stop=[stop, longest, stop[1:]][:2])["text"] == text[: end - 6]


def test_twenty_stop_strings(http):
    text = forced(http)["text"]
    others = [f"never {number}" for number in range(19)]
    assert forced(http, stop=[*others, text[5:8]])["text"] == text[: text.index(text[5:8])]


def test_a_stop_string_in_the_echoed_prompt_does_not_count(http):
    choice = forced(http, prompt="stop here", stop="stop", echo=True)
    assert choice["text"].startswith("stop here")
    assert len(choice["text"]) == len("stop here") + 40


def test_a_stop_string_is_not_found_across_prompt_and_text(http):
    choice = forced(http, prompt="q", stop=["qa", "qb", "qc"], echo=True)
    assert choice["finish_reason"] == "length"


def test_the_end_of_text_token_is_counted_and_not_shown(http):
    reply = http.post("/v1/completions", json={"prompt": "a", "max_tokens": 5, "logit_bias": {str(EOT): 100}}).json()
    assert reply["choices"][0] == {"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}
    assert reply["usage"]["completion_tokens"] == 1


def test_a_character_that_the_prompt_begins_is_completed(http):
    first, *rest = "€".encode()
    body = {"prompt": [first], "max_tokens": 1, "logit_bias": {str(rest[0]): 100}, "temperature": 0}
    assert http.post("/v1/completions", json=body).json()["choices"][0]["text"] == "\ufffd"
    body |= {"prompt": [first, rest[0]], "logit_bias": {str(rest[1]): 100}}
    assert http.post("/v1/completions", json=body).json()["choices"][0]["text"] == "€"
    echoed = http.post("/v1/completions", json=body | {"echo": True}).json()["choices"][0]["text"]
    assert echoed == "€"


def test_an_echoed_prompt_that_ends_inside_a_character_is_valid_text(http):
    ids = [*"né".encode(), 0xE2, 0x82]
    reply = http.post("/v1/completions", json={"prompt": ids, "max_tokens": 0, "echo": True})
    assert reply.json()["choices"][0]["text"] == "né\ufffd"
    reply = http.post(
        "/v1/completions",
        json={"prompt": ids, "max_tokens": 1, "echo": True, "temperature": 0, "logit_bias": {str(ord("x")): 100}},
    )
    assert reply.json()["choices"][0]["text"] == "né\ufffdx"
