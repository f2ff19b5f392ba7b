"""Texts that are compared with the training text of a run over HTTP."""

import json

import pytest
from small_runs import random_model, save_run

from tokenloom import api
from tokenloom.evaluation.copied_text import training_text_of
from tokenloom.run_folder import RunFolder
from tokenloom.run_records import RunIdentity
from tokenloom.serving import training_texts
from tokenloom.serving.copied_api import MAX_TEXTS
from tokenloom.serving.run_replies import CopiedReply
from tokenloom.serving.training_texts import TrainingTexts

LINE = "all work and no play makes Jack a dull boy\n"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with the runs "story" and "second", whose training texts are known, and "other", whose is not."""
    folder = tmp_path_factory.mktemp("runs")
    for name, lines in (("story", 50), ("second", 60), ("other", 0)):
        run = RunFolder(save_run(folder / name, random_model()))
        if lines:
            (folder / f"{name}.txt").write_text(LINE * lines)
            shards = api.prepare(folder / f"{name}.txt", out=folder / f"{name}-shards", tokenizer="byte", quiet=True)
            changed = {"dataset": shards.fingerprint, "shards": str(shards.path)}
            run.write_identity(RunIdentity(**vars(run.identity()) | changed))
    return folder


def post(http, run: str, body: object, status: int = 200) -> dict:
    headers = {"Content-Type": "application/json"}
    reply = http.post(f"/api/runs/{run}/copied", content=json.dumps(body), headers=headers)
    assert reply.status_code == status, reply.text
    return reply.json()


def test_the_passages_are_those_of_the_training_text(http, runs):
    texts = [f"So 🙂 {LINE}", "nothing of this", ""]
    reply = post(http, "story", {"texts": texts})
    source = training_text_of(RunFolder(runs / "story"))
    assert reply == {"problem": None, "texts": [source.find_copied(text).to_json() for text in texts]}
    assert json.loads(CopiedReply.model_validate(reply).model_dump_json()) == reply
    (passage,) = reply["texts"][0]["passages"]
    assert texts[0][passage["start"] : passage["end"]] == LINE.strip()
    assert reply["texts"][0]["copied_characters"] == len(LINE.strip())
    assert reply["texts"][0]["compared_tokens"] == reply["texts"][0]["training_tokens"] == source.n_tokens


def test_a_run_whose_training_text_is_not_known_says_so(http):
    reply = post(http, "other", {"texts": [LINE]})
    CopiedReply.model_validate(reply)
    assert "no longer known" in reply["problem"]
    assert reply["texts"] == []


@pytest.mark.parametrize(
    ("run", "body", "status", "param"),
    [
        ("none", {"texts": [LINE]}, 404, None),
        ("story", {"texts": []}, 400, "texts"),
        ("story", {"texts": ["a"] * (MAX_TEXTS + 1)}, 400, "texts"),
        ("story", {"texts": ["a" * 150_000] * 2}, 400, "texts"),
        ("story", {"texts": ["a\ud800"]}, 400, "texts"),
        ("story", {"text": "a"}, 400, "text"),
        ("story", [], 400, None),
    ],
)
def test_mistakes_are_named(http, run, body, status, param):
    error = post(http, run, body, status)["error"]
    assert error["message"]
    assert error["param"] == param


def test_training_texts_are_read_once_and_few_are_kept(runs, monkeypatch):
    monkeypatch.setattr(training_texts, "MAX_IN_MEMORY", 1)
    texts = TrainingTexts()
    story, second = RunFolder(runs / "story"), RunFolder(runs / "second")
    first = texts.of_run(story)
    assert texts.of_run(story) is first
    assert texts.of_run(second).n_tokens != first.n_tokens
    assert texts.of_run(story) is not first
