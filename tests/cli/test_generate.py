"""tokenloom generate: log-probabilities, in the table and as JSON, and the notice about a long prompt."""

import json
import math

import numpy as np
import pytest
import torch

import tokenloom as tl
from tokenloom.cli.main import main
from tokenloom.config import ModelConfig
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.evaluation.inspection import inspect_tokens
from tokenloom.model.modern import Modern
from tokenloom.weights.checkpoint import save_checkpoint

PROMPT = "Jack ate "
ROUNDING = 1e-5  # fp32 sums of different order: prepacked matrices and single tokens, against whole windows


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    tokenizer = load_tokenizer("byte")
    config = ModelConfig(vocab_size=tokenizer.vocab_size, block_size=32, n_layer=2, n_head=2, n_embd=16)
    weights = Modern(config, torch.Generator().manual_seed(7))
    with torch.no_grad():
        for parameter in weights.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(8))
    return str(save_checkpoint(tmp_path_factory.mktemp("model"), 1, weights, tokenizer, state={}).path)


def run(capsys, *argv):
    with pytest.raises(SystemExit) as exit_info:
        main(["generate", *argv])
    assert exit_info.value.code == 0
    return capsys.readouterr()


def generated(capsys, model, *options):
    argv = [model, "--prompt", PROMPT, "--max-new-tokens", "12", "--seed", "3", *options]
    return run(capsys, *argv)


def test_log_probabilities_are_those_of_inspect(capsys, model):
    result = json.loads(generated(capsys, model, "--logprobs", "3", "--temperature", "1.3", "--json").out)
    (completion,) = result["completions"]
    ids = [*PROMPT.encode(), *completion["token_ids"]]
    assert len(completion["logprobs"]) == 12
    [[ours]] = tl.generate(
        model, PROMPT, max_new_tokens=12, seed=3, logprobs=3, sampling=tl.SamplingParams(temperature=1.3)
    )
    assert ours.token_ids == completion["token_ids"]
    for entry, mine in zip(completion["logprobs"], ours.logprobs, strict=True):
        assert (entry["id"], entry["log_probability"]) == (mine.token, mine.logprob)
        assert [(one["id"], one["log_probability"]) for one in entry["top"]] == list(mine.top)
    loaded = tl.load(model)
    inspected = inspect_tokens(loaded.model, np.array(ids, dtype=np.uint16), loaded.tokenizer, top=3).tokens
    for entry, token in zip(completion["logprobs"], inspected[len(PROMPT) - 1 :], strict=True):
        assert (entry["id"], entry["text"], entry["bytes"]) == (token.id, token.text, token.content.hex())
        assert entry["log_probability"] == pytest.approx(token.log_probability, abs=ROUNDING)
        assert [one["id"] for one in entry["top"]] == [one.id for one in token.top]
        assert [one["probability"] for one in entry["top"]] == pytest.approx(
            [one.probability for one in token.top], abs=ROUNDING
        )


def test_the_table_has_a_line_for_each_token(capsys, model):
    out = generated(capsys, model, "--logprobs", "2").out
    text, _, table = out.partition("\ntoken ")
    assert text.startswith(PROMPT)
    header, *lines = ("token " + table).splitlines()
    assert header.split() == ["token", "id", "nats", "probability", "most", "likely"]
    assert len(lines) == 12
    result = json.loads(generated(capsys, model, "--logprobs", "2", "--json").out)
    for line, entry in zip(lines, result["completions"][0]["logprobs"], strict=True):
        assert f" {entry['id']} " in line
        assert f"{-entry['log_probability']:.3f}" in line
        assert f" {entry['top'][0]['probability']:.2f}" in line


def test_every_sample_has_its_table(capsys, model):
    out = generated(capsys, model, "--logprobs", "0", "--num-samples", "2").out
    assert out.count("most likely") == 2


def test_json_has_no_log_probabilities_unless_they_are_requested(capsys, model):
    (completion,) = json.loads(generated(capsys, model, "--json").out)["completions"]
    assert set(completion) == {"text", "token_ids", "finish_reason"}


def test_the_log_probability_of_the_end_of_text_is_the_last(capsys, model):
    options = ("--temperature", "100", "--max-new-tokens", "2000", "--logprobs", "0", "--json")
    (completion,) = json.loads(run(capsys, model, "--seed", "1", *options).out)["completions"]
    assert completion["finish_reason"] == "stop"
    last = completion["logprobs"][-1]
    assert (last["id"], len(completion["logprobs"])) == (256, len(completion["token_ids"]) + 1)
    assert last["probability"] == math.exp(last["log_probability"])


@pytest.mark.parametrize("number", ["21", "-1"])
def test_a_number_of_log_probabilities_out_of_range_is_refused(capsys, model, number):
    with pytest.raises(SystemExit) as exit_info:
        main(["generate", model, f"--logprobs={number}"])
    assert exit_info.value.code == 2
    assert f"logprobs must be from 0 to 20, got {number}" in capsys.readouterr().err


def test_a_prompt_longer_than_the_context_is_announced(capsys, model):
    long = run(capsys, model, "--prompt", "x" * 40, "--max-new-tokens", "1").err
    assert long == "tokenloom: the prompt has 40 tokens; only the last 32, the context of the model, are used\n"
    assert run(capsys, model, "--prompt", "x" * 32, "--max-new-tokens", "1").err == ""
