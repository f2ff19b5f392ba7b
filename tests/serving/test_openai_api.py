"""Models and completions through OpenAI's own client, as OpenAI's API defines them."""

import json

import openai
import pytest
from small_runs import CONTEXT, TOKENIZER, random_model, save_run

from tokenloom.compute.runtime import choose_runtime
from tokenloom.serving.models import ModelStore
from tokenloom.serving.server import Server

VOCABULARY = TOKENIZER.vocab_size
EOT = TOKENIZER.eot_id
GREEDY = {"model": "story", "temperature": 0, "max_tokens": 12}
SMALL_PROMPT = "The sea"


def rejected(client, **body) -> dict:
    """The error object of a request that is refused with 400."""
    raw = client.completions.with_raw_response.create if "extra_body" in body else client.completions.create
    with pytest.raises(openai.BadRequestError) as refusal:
        raw(**{"model": "story", "prompt": "a", **body})
    return refusal.value.body


def rejected_json(http, text: str) -> dict:
    """The error object for a body that no client would send."""
    reply = http.post("/v1/completions", content=text, headers={"content-type": "application/json"})
    assert reply.status_code == 400, reply.text
    return reply.json()["error"]


def test_models_are_listed_and_described(client):
    listed = list(client.models.list())
    assert [model.id for model in listed] == ["story", "story@first", "story@step-2", "story@step-1"]
    assert all(model.object == "model" and model.owned_by == "tokenloom" and model.created > 0 for model in listed)
    pinned = client.models.retrieve("story@step-1")
    assert (pinned.id, pinned.max_model_len) == ("story@step-1", CONTEXT)
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("story@step-9")
    assert missing.value.code == "model_not_found"
    assert "story@step-2" in missing.value.message


def test_an_id_with_a_slash_is_a_model_too(tmp_path):
    for folder in ("a", "b"):
        save_run(tmp_path / folder / "story", random_model())
    store = ModelStore(
        [tmp_path / "a" / "story", tmp_path / "b" / "story"], runtime=choose_runtime("cpu", "fp32"), memory_bytes=10**9
    )
    with (
        Server(store, host="127.0.0.1", port=0) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client,
    ):
        assert client.models.retrieve("b/story@step-1").id == "b/story@step-1"
        assert client.completions.create(model="b/story", prompt="a", max_tokens=1).model == "b/story@step-1"


def test_an_unknown_model_is_404(client):
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="../story", prompt="a")
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")


def test_a_request_without_a_model_gets_the_first_one(http):
    reply = http.post("/v1/completions", json={"prompt": "a", "max_tokens": 1})
    assert reply.json()["model"] == "story@step-2"


def test_the_reply_names_the_step_and_counts_tokens(client):
    reply = client.completions.create(**GREEDY, prompt=SMALL_PROMPT)
    assert reply.object == "text_completion"
    assert reply.model == "story@step-2"
    assert "story@step-2" in reply.system_fingerprint
    assert reply.usage.prompt_tokens == len(SMALL_PROMPT)
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.completion_tokens == 12


def test_the_ids_of_a_text_give_the_same_text(client):
    text = client.completions.create(**GREEDY, prompt=SMALL_PROMPT).choices[0].text
    assert client.completions.create(**GREEDY, prompt=TOKENIZER.encode(SMALL_PROMPT)).choices[0].text == text


def test_choices_of_several_prompts_are_numbered_prompt_by_prompt(client):
    prompts = ["The sea", "A ship", "No"]
    options = {"model": "story", "max_tokens": 8, "seed": 5, "temperature": 1.0}
    together = client.completions.create(**options, prompt=prompts, n=2)
    assert [choice.index for choice in together.choices] == list(range(6))
    for number, prompt in enumerate(prompts):
        alone = client.completions.create(**options, prompt=prompt, n=2)
        assert [choice.text for choice in alone.choices] == [
            choice.text for choice in together.choices[2 * number : 2 * number + 2]
        ]
    assert together.usage.prompt_tokens == sum(map(len, prompts))


def test_a_list_of_id_lists_equals_separate_calls(client):
    prompts = [TOKENIZER.encode(text) for text in ("The sea", "A")]
    together = client.completions.create(**GREEDY, prompt=prompts)
    for prompt, choice in zip(prompts, together.choices, strict=True):
        assert client.completions.create(**GREEDY, prompt=prompt).choices[0].text == choice.text


def test_null_omitted_and_empty_prompts_begin_a_new_text(http):
    bodies = [{}, {"prompt": None}, {"prompt": ""}, {"prompt": [""]}, {"prompt": [EOT]}, {"prompt": "<|endoftext|>"}]
    replies = [http.post("/v1/completions", json={**GREEDY, **body}).json() for body in bodies]
    assert len({reply["choices"][0]["text"] for reply in replies}) == 1
    assert {reply["usage"]["prompt_tokens"] for reply in replies} == {1}
    echoed = http.post("/v1/completions", json={**GREEDY, "echo": True}).json()["choices"][0]["text"]
    assert echoed == replies[0]["choices"][0]["text"]  # an empty prompt has no text to echo


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ([], "prompt is an empty list"),
        ([[]], "prompt[0] is an empty list"),
        ([VOCABULARY], f"token {VOCABULARY}"),
        ([-1], "prompt[0]"),
        ([1, True], "prompt[1]"),
        ([1, 1.5], "prompt[1]"),
        ([1, "a"], "prompt[1]"),
        (["a", 1], "prompt[1]"),
        ([[1], 1], "prompt[1]"),
        ([[1], [None]], "prompt[1][0]"),
        ([10**30], "prompt[0]"),
        ({"a": 1}, "prompt must be"),
        (5, "prompt must be"),
        (True, "prompt must be"),
    ],
)
def test_an_invalid_prompt_is_refused_and_named(http, prompt, named):
    error = rejected_json(http, json.dumps({"prompt": prompt}))
    assert error["param"] == "prompt"
    assert named in error["message"]


def test_a_lone_surrogate_is_refused_everywhere(http):
    for body in (
        '{"prompt": "\\ud800"}',
        '{"prompt": ["a", "\\udfff"]}',
        '{"prompt": "a", "stop": "\\ud800"}',
        '{"prompt": "a", "stop": ["b", "\\ud800"]}',
        '{"prompt": "a", "user": "\\ud800"}',
        '{"prompt": "a", "model": "\\ud800"}',
        '{"prompt": "a", "logit_bias": {"\\ud800": 1}}',
        '{"prompt": "a", "\\ud800": 1}',
    ):
        assert rejected_json(http, body)["message"]
    for path, body in (("/tokenize", '{"prompt": "\\ud800"}'), ("/detokenize", '{"tokens": [1], "model": "\\ud800"}')):
        assert http.post(path, content=body, headers={"content-type": "application/json"}).status_code == 400


def test_no_tokens_can_be_requested(client):
    for stream in (False, True):
        options = {"model": "story", "prompt": "Hé", "max_tokens": 0}
        assert text_of(client, stream, **options) == ""
        assert text_of(client, stream, **options, echo=True) == "Hé"
    reply = client.completions.create(model="story", prompt="Hé", max_tokens=0)
    assert (reply.usage.completion_tokens, reply.choices[0].finish_reason) == (0, "length")


def text_of(client, stream: bool, **options) -> str:
    """The text of the first choice, whole or streamed."""
    if not stream:
        return client.completions.create(**options).choices[0].text
    return "".join(
        choice.text for event in client.completions.create(**options, stream=True) for choice in event.choices
    )


def test_without_a_number_of_tokens_there_are_16_or_as_many_as_fit(client):
    assert (
        client.completions.create(
            model="story", prompt="a", temperature=0, logit_bias={EOT: -100}
        ).usage.completion_tokens
        == 16
    )
    reply = client.completions.create(model="story", prompt="a" * (CONTEXT - 2), temperature=0, logit_bias={EOT: -100})
    assert reply.usage.completion_tokens == 3


def test_prompt_and_tokens_may_reach_the_context_and_one(client):
    options = {"model": "story", "prompt": "a" * (CONTEXT - 1), "logit_bias": {EOT: -100}}
    assert client.completions.create(**options, max_tokens=2).usage.total_tokens == CONTEXT + 1
    for prompt, tokens in (("a" * (CONTEXT - 1), 3), ("a" * (CONTEXT + 1), None), ("a" * 1000, 0)):
        error = rejected(client, prompt=prompt, max_tokens=tokens)
        assert error["code"] == "context_length_exceeded"
        assert str(CONTEXT) in error["message"]
        assert str(len(prompt) + (1 if tokens is None else tokens)) in error["message"]


def test_a_whole_context_and_one_can_be_scored(client):
    prompt = [index % 250 for index in range(CONTEXT + 1)]
    reply = client.completions.create(model="story", prompt=prompt, max_tokens=0, echo=True, logprobs=0)
    assert len(reply.choices[0].logprobs.token_logprobs) == CONTEXT + 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", -1),
        ("max_tokens", 1.5),
        ("max_tokens", "5"),
        ("max_tokens", True),
        ("temperature", -0.1),
        ("temperature", "1"),
        ("temperature", 1e-9),
        ("temperature", 1e300),
        ("top_p", 0),
        ("top_p", 1.1),
        ("top_k", -2),
        ("top_k", 1.5),
        ("min_p", -0.1),
        ("min_p", 2),
        ("repetition_penalty", 0),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("n", 0),
        ("n", 129),
        ("n", "1"),
        ("best_of", 3),
        ("suffix", "end"),
        ("suffix", ""),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", ["a"] * 257),
        ("stop", 5),
        ("logprobs", 21),
        ("logprobs", -1),
        ("logprobs", True),
        ("logit_bias", {"a": 1}),
        ("logit_bias", {str(VOCABULARY): 1}),
        ("logit_bias", {"-1": 1}),
        ("logit_bias", {"1.5": 1}),
        ("logit_bias", {"9" * 5000: 1}),
        ("logit_bias", {"²": 1}),
        ("logit_bias", {"1": 101}),
        ("logit_bias", {"1": None}),
        ("logit_bias", [1]),
        ("seed", 2**64),
        ("seed", -(2**63) - 1),
        ("seed", 1.5),
        ("stream", "yes"),
        ("stream", 1),
        ("echo", 0),
        ("stream_options", {"include_usage": True}),
        ("user", 5),
        ("model", 5),
    ],
)
def test_a_value_out_of_range_is_refused_and_named(http, field, value):
    error = rejected_json(http, json.dumps({"prompt": "a", field: value}))
    assert error["param"] == field
    assert field in error["message"]
    assert len(error["message"]) < 300


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "1" + "0" * 30])
@pytest.mark.parametrize("field", ["temperature", "max_tokens", "n", "seed", "logprobs", "top_p", "presence_penalty"])
def test_numbers_beyond_all_bounds_are_refused(http, field, number):
    assert rejected_json(http, f'{{"prompt": "a", "{field}": {number}}}')["param"] == field
    assert rejected_json(http, f'{{"prompt": [{number}]}}')["param"] == "prompt"
    assert rejected_json(http, f'{{"prompt": "a", "logit_bias": {{"1": {number}}}}}')["param"] == "logit_bias"


def test_fields_that_are_null_have_their_defaults(http):
    fields = ["max_tokens", "temperature", "top_p", "n", "best_of", "stream", "stream_options", "stop", "logprobs",
              "echo", "logit_bias", "presence_penalty", "frequency_penalty", "user", "suffix", "top_k", "min_p",
              "repetition_penalty", "model"]  # fmt: skip
    plain = http.post("/v1/completions", json={"prompt": "a", "seed": 1}).json()
    nulls = http.post("/v1/completions", json={"prompt": "a", "seed": 1, **dict.fromkeys(fields)}).json()
    assert nulls["choices"] == plain["choices"]


def test_a_seed_repeats_a_text_and_seeds_differ(client):
    def text(**options) -> str:
        return client.completions.create(model="story", prompt="a", max_tokens=20, **options).choices[0].text

    assert text(seed=1) == text(seed=1)
    assert text(seed=1) != text(seed=2)
    assert text(seed=-1) == text(seed=2**64 - 1)


def test_without_a_seed_texts_differ_and_the_returned_seed_repeats_one(client):
    first, second = (client.completions.create(model="story", prompt="a", max_tokens=20) for _ in range(2))
    assert first.choices[0].text != second.choices[0].text
    repeated = client.completions.create(model="story", prompt="a", max_tokens=20, seed=first.seed)
    assert repeated.choices[0].text == first.choices[0].text


def test_top_k_1_is_greedy_and_0_and_minus_1_are_off(client):
    def text(**options) -> str:
        return client.completions.create(model="story", prompt="a", max_tokens=20, seed=3, **options).choices[0].text

    assert text(extra_body={"top_k": 1}) == text(temperature=0)
    assert text(extra_body={"top_k": 0}) == text(extra_body={"top_k": -1}) == text()
    assert text(extra_body={"min_p": 1.0}) == text(temperature=0)


def test_logit_bias_forces_and_excludes_tokens(client):
    forced = client.completions.create(**GREEDY, prompt="a", logit_bias={"120": 100})
    assert forced.choices[0].text == "x" * 12
    greedy = client.completions.create(**GREEDY, prompt="a", logprobs=0)
    first = greedy.choices[0].logprobs.token_ids[0]
    excluded = client.completions.create(**GREEDY, prompt="a", logprobs=0, logit_bias={str(first): -100})
    assert first not in excluded.choices[0].logprobs.token_ids


def test_frequency_and_presence_ignore_the_prompt_and_repetition_does_not(client):
    # With this bias the token of the prompt is repeated, by a margin that a penalty of 2 does not exceed.
    bias = {"120": 20.0}
    options = {**GREEDY, "max_tokens": 1, "prompt": "x", "logprobs": 0, "logit_bias": bias}
    repeated = client.completions.create(**options)
    assert repeated.choices[0].logprobs.token_ids == [120]
    for penalty in ({"frequency_penalty": 2}, {"presence_penalty": 2}):
        unchanged = client.completions.create(**options, **penalty)
        assert unchanged.choices[0].logprobs.token_ids == [120]
    penalized = client.completions.create(**options, extra_body={"repetition_penalty": 100})
    assert penalized.choices[0].logprobs.token_ids != [120]
    # Of generated tokens all of them count: with a large enough bias x is repeated, and a penalty ends it.
    longer = {**options, "max_tokens": 30, "logit_bias": {"120": 40.0, str(EOT): -100}}
    assert client.completions.create(**longer).choices[0].text == "x" * 30
    assert client.completions.create(**longer, frequency_penalty=2).choices[0].text != "x" * 30


def test_unused_fields_are_accepted(client):
    client.completions.create(model="story", prompt="a", max_tokens=1, user="someone", best_of=1)
    client.completions.create(model="story", prompt="a", max_tokens=1, n=2, best_of=2)
