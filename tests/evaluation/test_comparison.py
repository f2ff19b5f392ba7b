"""Two models on one text: sums that agree, words aligned across tokenizers, and differences by word."""

import pytest

from tokenloom import api
from tokenloom.data.tokenizers import load_tokenizer
from tokenloom.data.tokenizers.bpe import train_bpe
from tokenloom.weights.load import LoadedModel

TEXT = "It is a dull, dull boy: 👋 Jack.\n\nAll work<|endoftext|>and no play  makes him so.\n"
BYTE = load_tokenizer("byte")
PAIRS = train_bpe(300, ["all work and no play makes Jack a dull, dull boy. " * 5])


@pytest.fixture
def loaded(model_of, tmp_path):
    def make(family, tokenizer, **changes):
        return LoadedModel(model_of(family, vocab_size=tokenizer.vocab_size, **changes), tokenizer, tmp_path)

    return make


def test_models_of_one_tokenizer_are_compared_token_by_token(loaded):
    a, b = loaded("gpt2", BYTE), loaded("modern", BYTE)
    result = api.compare(a, b, TEXT, stride=5)
    assert result.unit == "token"
    assert [part.token.id for part in result.parts] == BYTE.encode(TEXT)[1:]
    for column, model in enumerate((a, b)):
        alone = api.inspect(model, TEXT, stride=5)
        expected = [token.nats for token in alone.tokens]
        assert [(part.nats.a, part.nats.b)[column] for part in result.parts] == expected
        assert result.models[column].measurement == alone.measurement


def test_models_of_different_tokenizers_are_compared_over_the_same_bytes(loaded):
    result = api.compare(loaded("gpt2", BYTE), loaded("gpt2", PAIRS), TEXT)
    assert result.unit == "word"
    assert [part.text for part in result.parts[:5]] == [" is", " a", " dull,", " dull", " boy:"]
    assert result.before + "".join(part.text for part in result.parts) == TEXT
    for column in (0, 1):
        covered = sum((part.nats.a, part.nats.b)[column] for part in result.parts)
        assert 0 < covered < result.models[column].measurement.nats  # all but the first word


def test_occurrences_of_a_word_are_summed_and_words_sorted_by_difference(loaded):
    result = api.compare(loaded("gpt2", BYTE), loaded("gpt2", PAIRS), "a dull dull dull boy")
    words = {total.word: total for total in result.words}
    assert words["dull"].times == 3
    assert words["dull"].nats.difference == pytest.approx(sum(part.nats.difference for part in result.parts[:3]))
    differences = [total.nats.difference for total in result.words]
    assert differences == sorted(differences)


def test_a_model_does_not_differ_from_itself(loaded):
    a = loaded("gpt2", BYTE)
    result = api.compare(a, a, TEXT)
    assert not any(part.nats.difference for part in (*result.parts, *result.words))


def test_a_text_of_one_word_has_no_part_to_compare_between_tokenizers(loaded):
    result = api.compare(loaded("gpt2", BYTE), loaded("gpt2", PAIRS), "dull")
    assert (result.parts, result.before) == ((), "dull")
    assert result.models[0].measurement.tokens == 3
