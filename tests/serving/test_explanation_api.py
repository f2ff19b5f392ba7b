"""Texts explained over HTTP: the numbers are those of the commands, and mistakes are named."""

import json

import numpy as np
import pytest
import torch
from small_runs import CONTEXT, random_model

from tokenloom.cli.main import main
from tokenloom.model.attention_weights import attention_weights
from tokenloom.serving import explanation_replies, services
from tokenloom.serving.explanation_api import MAX_CHARACTERS, MAX_TOKENS

TEXT = "all work and no play makes Jack a dull boy — 語"
# Prepacked matrices are multiplied in another order, and log-probabilities are in fp32.
TOLERANCE = {"rel": 1e-4, "abs": 1e-5}


def post(http, path: str, body: object, status: int = 200) -> dict:
    reply = http.post(path, json=body)
    assert reply.status_code == status, reply.text
    return reply.json()


def printed(capsys, *argv: str) -> dict:
    with pytest.raises(SystemExit) as left:
        main([*argv, "--json"])
    out = capsys.readouterr()
    assert left.value.code == 0, out.err
    return json.loads(out.out)


def assert_alike(a: object, b: object) -> None:
    """Equal, with numbers equal within the tolerance."""
    if isinstance(a, float):
        assert a == pytest.approx(b, **TOLERANCE)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key, value in a.items():
            assert_alike(value, b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_alike(one, other)
    else:
        assert a == b


def test_inspect_gives_what_the_command_prints(http, runs, capsys):
    served = post(http, "/api/inspect", {"model": "story", "text": TEXT, "top": 3})
    assert served.pop("model") == "story@step-2"
    assert_alike(served, printed(capsys, "inspect", str(runs / "story"), "--text", TEXT, "--top", "3"))
    windows = post(http, "/api/inspect", {"text": TEXT * 4, "top": 0, "context": 20, "stride": 10})
    assert windows["context"] == 20
    options = ["--context", "20", "--stride", "10", "--top", "0"]
    assert_alike(windows["loss"], printed(capsys, "inspect", str(runs / "story"), "--text", TEXT * 4, *options)["loss"])


def test_compare_gives_what_the_command_prints(http, runs, capsys):
    served = post(http, "/api/compare", {"a": "story@step-1", "b": "story", "text": TEXT})
    models = [served["models"][column].pop("model") for column in (0, 1)]
    assert models == ["story@step-1", "story@step-2"]
    expected = printed(capsys, "compare", f"{runs / 'story'}@step-1", str(runs / "story"), "--text", TEXT)
    for model in expected["models"]:
        model.pop("model")
    # The words are sorted by differences, which rounding can exchange.
    for result in (served, expected):
        result["words"].sort(key=lambda word: word["word"])
    assert_alike(served, expected)


def test_the_next_token_is_that_of_inspect_and_of_generate(http, runs, capsys):
    served = post(http, "/api/next-token", {"model": "story", "text": "all wor", "top": 257})
    inspected = printed(capsys, "inspect", str(runs / "story"), "--text", "all work", "--top", "0")["tokens"][-1]
    [token] = [token for token in served["tokens"] if token["id"] == ord("k")]
    assert token["log_probability"] == pytest.approx(inspected["log_probability"], **TOLERANCE)
    assert served["entropy"] == pytest.approx(inspected["entropy"], **TOLERANCE)
    assert served["tokens"].index(token) == inspected["rank"] - 1
    greedy = ["--prompt", "all wor", "--max-new-tokens", "1", "--temperature", "0"]
    [completion] = printed(capsys, "generate", str(runs / "story"), *greedy)["completions"]
    assert [served["tokens"][0]["id"]] == completion["token_ids"]
    cut = post(http, "/api/next-token", {"text": "all wor", "temperature": 0.5, "top_k": 2, "min_p": 0.0})
    assert [token["excluded_by"] for token in cut["tokens"][:4]] == [None, None, "top_k", "top_k"]
    assert cut["choices"] == 2


def test_attention_is_that_of_the_head(http, runs):
    served = post(http, "/api/attention", {"model": "story@step-1", "text": "all work", "layer": 1, "head": 1})
    expected = attention_weights(random_model(3), torch.tensor(list(b"all work")), 1, 1).numpy()
    assert (served["layers"], served["heads"], len(served["tokens"])) == (2, 2, 8)
    assert [len(row) for row in served["weights"]] == list(range(1, 9))
    for row, whole in zip(served["weights"], expected, strict=True):
        assert np.allclose(row, whole[: len(row)], atol=1e-5)
        assert sum(row) == pytest.approx(1, abs=1e-5)


def test_a_long_text_is_cut_if_that_is_wanted(http):
    whole = post(http, "/api/attention", {"text": "x" * CONTEXT})
    cut = post(http, "/api/attention", {"text": "x" * 100, "truncate": True})
    assert (cut["text_tokens"], len(cut["tokens"]), cut["weights"]) == (100, CONTEXT, whole["weights"])
    assert post(http, "/api/attention/heads", {"text": "x" * 100, "truncate": True})["text_tokens"] == 100


def test_heads_have_maps_of_their_largest_weights(http):
    short = post(http, "/api/attention/heads", {"text": "all work"})
    assert (short["layers"], short["heads"], len(short["maps"]), len(short["maps"][1])) == (2, 2, 2, 2)
    weights = post(http, "/api/attention", {"text": "all work", "layer": 1, "head": 0})["weights"]
    assert short["maps"][1][0] == [[pytest.approx(100 * weight, abs=0.51) for weight in row] for row in weights]
    text = "all work and no play makes Jack a dull boy, " * 3
    reduced = post(http, "/api/attention/heads", {"text": text, "truncate": True})["maps"][0][1]
    weights = post(http, "/api/attention", {"text": text, "truncate": True, "head": 1})["weights"]
    assert [len(row) for row in reduced] == list(range(1, 33))  # 64 tokens, two in a cell
    expected = 100 * max(weight for row in weights[20:22] for weight in row[6:8])
    assert reduced[10][3] == pytest.approx(expected, abs=0.51)


@pytest.mark.parametrize(
    ("path", "body", "reply"),
    [
        ("inspect", {"text": TEXT, "top": 3}, explanation_replies.InspectReply),
        ("inspect", {"text": "some text", "top": 0}, explanation_replies.InspectReply),
        ("compare", {"a": "story@step-1", "b": "story", "text": TEXT}, explanation_replies.CompareReply),
        ("next-token", {"text": "all wor", "top": 257, "top_p": 0.5}, explanation_replies.NextTokensReply),
        ("attention", {"text": "all work", "layer": 1}, explanation_replies.AttentionReply),
        ("attention/heads", {"text": "all work"}, explanation_replies.AttentionMapsReply),
    ],
)
def test_replies_are_what_the_schema_says(http, path, body, reply):
    served = post(http, f"/api/{path}", body)
    assert served.keys() == reply.model_fields.keys()
    assert json.loads(reply.model_validate(served).model_dump_json()) == served
    operation = http.get("/openapi.json").json()["paths"][f"/api/{path}"]["post"]
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": f"#/components/schemas/{reply.__name__}"}


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("inspect", {"text": "a"}, 400, "text"),
        ("inspect", {"text": ""}, 400, "text"),
        ("inspect", {}, 400, "text"),
        ("inspect", {"text": 5}, 400, "text"),
        ("inspect", {"text": "a\ud800b"}, 400, "text"),
        ("inspect", {"text": "x" * (MAX_CHARACTERS + 1)}, 400, "text"),
        ("inspect", {"text": "x" * (MAX_TOKENS + 1)}, 400, "text"),
        ("inspect", {"text": "some text", "top": 51}, 400, "top"),
        ("inspect", {"text": "some text", "top": True}, 400, "top"),
        ("inspect", {"text": "some text", "context": CONTEXT + 1}, 400, None),
        ("inspect", {"text": "some text", "stride": 10**30}, 400, "stride"),
        ("inspect", {"text": "some text", "modell": "story"}, 400, "modell"),
        ("inspect", {"text": "some text", "model": "none"}, 404, "model"),
        ("inspect", {"text": "some text", "model": "../story"}, 404, "model"),
        ("inspect", ["some text"], 400, None),
        ("compare", {"a": "story", "text": "some text"}, 400, "b"),
        ("compare", {"a": "story", "b": "none", "text": "some text"}, 404, "b"),
        ("next-token", {"temperature": -1}, 400, "temperature"),
        ("next-token", {"temperature": 1e-9}, 400, "temperature"),
        ("next-token", {"top_p": 0}, 400, "top_p"),
        ("next-token", {"top_k": 0}, 400, "top_k"),
        ("next-token", {"top": 0}, 400, "top"),
        ("attention", {"text": ""}, 400, "text"),
        ("attention", {"text": "x" * (CONTEXT + 1)}, 400, "text"),
        ("attention", {"text": "abc", "layer": 2}, 400, "layer"),
        ("attention", {"text": "abc", "head": -1}, 400, "head"),
        ("attention", {"text": "", "truncate": True}, 400, "text"),
        ("attention/heads", {"text": ""}, 400, "text"),
        ("attention/heads", {"text": "x" * (CONTEXT + 1)}, 400, "text"),
        ("attention/heads", {"text": "abc", "layer": 1}, 400, "layer"),
    ],
)
def test_mistakes_are_named(http, path, body, status, param):
    reply = http.post(f"/api/{path}", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert error["message"]
    assert error["param"] == param


def test_an_unknown_field_gets_the_nearest_name(http):
    assert "Did you mean stride?" in post(http, "/api/inspect", {"text": "abc", "strid": 2}, 400)["error"]["message"]


def test_the_model_is_released_after_each_request(http, server):
    for _ in range(3):
        post(http, "/api/next-token", {"text": "a"})
        post(http, "/api/attention", {"text": "abc", "layer": 7}, 400)
    assert [use.users for use in server.store.in_memory()] == [0] * len(server.store.in_memory())


def test_more_work_than_fits_is_refused(http, monkeypatch):
    monkeypatch.setattr(services, "MAX_EXPLAINING", 0)
    reply = http.post("/api/next-token", json={"text": "a"})
    assert (reply.status_code, reply.headers["Retry-After"]) == (503, "1")
    monkeypatch.undo()
    post(http, "/api/next-token", {"text": "a"})
