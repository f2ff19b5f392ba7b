"""Passages that are in the training text are found exactly, and nothing else is."""

import json
import random

import numpy as np
import pytest

import tokenloom as tl
from tokenloom.cli.main import main
from tokenloom.config import Config
from tokenloom.data.shards import open_shards
from tokenloom.data.token_reader import TokenArray
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.errors import DataError
from tokenloom.evaluation import copied_text
from tokenloom.evaluation.copied_text import MAX_OCCURRENCES, STEP, TrainingText, training_text_of
from tokenloom.run_folder import RunFolder
from tokenloom.run_records import RunIdentity
from tokenloom.weights.checkpoint import save_checkpoint

BYTES = load_tokenizer("byte")
SOURCE = "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness."


def training_text(text: str, tokenizer=BYTES, **options) -> TrainingText:
    return TrainingText(TokenArray(tokenizer.encode_array(text)), tokenizer, **({"shortest_bytes": 20} | options))


def copied(text: str, source: TrainingText) -> list[str]:
    return [text[passage.start : passage.end] for passage in source.find_copied(text).passages]


def test_a_copied_passage_is_found_with_its_exact_ends():
    text = "He said: the worst of times, it was not."
    found = training_text(SOURCE).find_copied(text)
    (passage,) = found.passages
    assert text[passage.start : passage.end] == "the worst of times, it was"
    assert SOURCE[passage.position :].startswith(" the worst of times, it was ")
    assert (passage.before[-6:], passage.after[:8]) == ("it was", "the age ")
    assert found.characters == len("the worst of times, it was")


def test_a_passage_that_is_too_short_is_not_found_at_any_place():
    source = training_text(SOURCE)
    assert source.shortest == 20
    for start in range(len(SOURCE) - 20):
        part = SOURCE[start : start + 20]
        assert copied(f"#{part}#", source) == [part.strip()]
        assert copied(f"#{part[:19]}#", source) == []


def matches(text: str, source: str, shortest: int) -> set[str]:
    """Every passage of at least so many characters that is in both texts and cannot be extended."""
    found = set()
    for start in range(len(text)):
        for stop in range(start + shortest, len(text) + 1):
            if text[start:stop] not in source:
                break
            is_longest = stop == len(text) or text[start : stop + 1] not in source
            if is_longest and (start == 0 or text[start - 1 : stop] not in source):
                found.add(text[start:stop])
    return found


@pytest.mark.parametrize("seed", range(20))
def test_the_passages_are_those_of_a_search_through_every_substring(seed):
    generator = random.Random(seed)
    source = "".join(generator.choices("ab", k=300))
    pieces = [source[start : start + generator.randrange(5, 40)] for start in generator.choices(range(280), k=5)]
    text = "c".join(["".join(generator.choices("ab", k=10)), *pieces])
    index = TrainingText(TokenArray(BYTES.encode_array(source)), BYTES, shortest_bytes=14)
    assert {passage for passage in copied(text, index) if passage} == matches(text, source, 14)


def test_hashes_that_collide_are_compared_with_the_text(monkeypatch):
    monkeypatch.setattr(copied_text, "_hash_ngrams", lambda ids, n, step: np.zeros(max(0, (len(ids) - n) // step + 1)))
    assert copied("Nothing of this sentence is in the other text.", training_text(SOURCE)) == []


def test_only_the_first_tokens_are_compared():
    text = "The quick brown fox jumps over the lazy dog, while seven wizards mix a very potent drink."
    source = training_text(text, limit=60)
    found = source.find_copied(text)
    assert (found.training_tokens, found.compared_tokens) == (len(text), 60)
    assert copied(text, source) == [text[:60].strip()]
    assert copied(text[60:], source) == []


def test_an_ngram_that_is_everywhere_is_compared_a_bounded_number_of_times(monkeypatch):
    calls = []
    common = copied_text._common
    monkeypatch.setattr(copied_text, "_common", lambda a, b: calls.append(1) or common(a, b))
    assert copied("-" * 400, training_text("-" * 5000)) == ["-" * 400]
    assert len(calls) <= 2 * STEP * (MAX_OCCURRENCES + 400 / STEP)


def test_no_passage_continues_in_another_document():
    end = BYTES.eot_text
    source = training_text(f"The first document ends here.{end}And the second one begins here.")
    text = f"The first document ends here.{end}And the second one begins here."
    (first, second) = source.find_copied(text).passages
    assert text[first.start : first.end] == "The first document ends here."
    assert (first.after, second.before) == ("", "")


def test_positions_are_in_characters_also_where_these_are_several_tokens():
    source = training_text("Fünf Bäume stehen über dem grünen Fluß 語語語.")
    text = "🙂 ü: fünf Bäume stehen über dem grünen Fluß 語語語語"
    assert copied(text, source) == ["ünf Bäume stehen über dem grünen Fluß 語語語"]


def test_white_space_is_not_a_passage():
    text = "first line" + "\n" * 60 + "and the last line of them"
    source = training_text(text)
    assert copied("other" + "\n" * 60 + "text", source) == []
    assert copied(text, source) == [text]


def test_words_are_compared_in_tokens_of_any_tokenizer():
    source = training_text(SOURCE, load_tokenizer("gpt2"), shortest_bytes=40)
    assert 8 <= source.shortest <= 12
    text = "And so it was the age of wisdom, it was the age of foolishness. Then"
    assert copied(text, source) == ["it was the age of wisdom, it was the age of foolishness."]


@pytest.mark.parametrize("text", ["", "short"])
def test_texts_shorter_than_a_passage_are_not_copied(text):
    assert copied(text, training_text(SOURCE)) == []
    assert copied(SOURCE, training_text(text)) == []


def test_the_training_text_of_a_run_is_that_of_its_shards(run):
    text = "so all work and no play makes Jack a dull boy!"
    found = tl.find_copied(run.path, text)
    assert found.compared_tokens == found.training_tokens == len(open_shards(run.identity().shards).train)
    assert found.characters == len("all work and no play makes Jack a dull boy")
    assert found == training_text_of(run).find_copied(text)


def test_shards_that_are_gone_or_of_another_text_are_an_error(run, tmp_path):
    identity = run.identity()
    run.write_identity(RunIdentity(**vars(identity) | {"dataset": "0" * 64}))
    with pytest.raises(DataError, match="prepared again from another text"):
        training_text_of(run)
    run.write_identity(RunIdentity(**vars(identity) | {"shards": str(tmp_path / "nothing")}))
    with pytest.raises(DataError, match="no longer at .*nothing"):
        training_text_of(run)
    run.write_identity(RunIdentity(**vars(identity) | {"shards": None}))
    with pytest.raises(DataError, match="no longer known"):
        training_text_of(run)


def test_passages_of_the_prompt_alone_are_left_out():
    found = training_text(SOURCE).find_copied("it was the age of wisdom# and it was the age of foolishness")
    assert [len(found.after(prompt).passages) for prompt in (0, 23, 24, 60)] == [2, 2, 1, 0]


def test_generate_prints_what_it_copied(run, capsys):
    prompt = "all work and no play makes Jack a dull boy\nall work and no play"
    options = ["generate", str(run.path), "--prompt", prompt, "--max-new-tokens", "6", "--seed", "1", "--copied"]
    with pytest.raises(SystemExit):
        main([*options, "--json"])
    [completion] = json.loads(capsys.readouterr().out)["completions"]
    expected = tl.find_copied(run.path, prompt + completion["text"]).after(len(prompt))
    assert completion["copied"] == json.loads(json.dumps(expected.to_json()))
    with pytest.raises(SystemExit):
        main(options)
    assert "\ncopied from the training text: " in capsys.readouterr().out


def test_generate_refuses_to_compare_without_a_run(tmp_path, capsys, model_of):
    path = save_checkpoint(tmp_path, 1, model_of("gpt2", vocab_size=BYTES.vocab_size), BYTES, state={}).path
    with pytest.raises(SystemExit) as left:
        main(["generate", str(path), "--copied"])
    assert left.value.code == 2
    assert "--copied needs a run" in capsys.readouterr().err


@pytest.fixture
def run(tmp_path, model_of) -> RunFolder:
    """A run with one checkpoint."""
    (tmp_path / "text.txt").write_text("all work and no play makes Jack a dull boy\n" * 100)
    shards = tl.prepare(tmp_path / "text.txt", out=tmp_path / "shards", tokenizer="byte", quiet=True)
    model = model_of("gpt2", vocab_size=BYTES.vocab_size)
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.write_config(Config.of({"model": model.config.model_dump()}))
    identity = {"dataset": shards.fingerprint, "tokenizer": BYTES.fingerprint, "shards": str(shards.path)}
    run.write_identity(RunIdentity(**identity, model={}, seed=1, order=[], optimizer="muon"))
    save_checkpoint(run.checkpoints, 1, model, BYTES, state={})
    return run
