"""Figures derived from the sums of a measurement, and the JSON of an evaluation."""

import math

import pytest

from tokenloom.evaluation.measurement import Evaluation, Measurement
from tokenloom.run_records import Baselines


def test_a_measurement_gives_every_number_from_its_sums():
    measured = Measurement(nats=20.0, tokens=10, context=8, stride=8, bytes=40, words=4)
    assert measured.loss == 2.0
    assert measured.perplexity == pytest.approx(math.e**2)
    assert measured.bits_per_byte == pytest.approx(0.5 / math.log(2))
    assert measured.word_perplexity == pytest.approx(math.e**5)


def test_a_perplexity_past_all_floats_is_infinite():
    assert Measurement(nats=5000.0, tokens=1, context=8, stride=8, words=1).perplexity == math.inf
    assert Measurement(nats=5000.0, tokens=2, context=8, stride=8, words=1).word_perplexity == math.inf


def test_without_bytes_and_words_their_figures_are_none():
    measured = Measurement(nats=20.0, tokens=10, context=8, stride=8)
    assert measured.bits_per_byte is measured.word_perplexity is None


def test_the_json_of_an_evaluation_has_these_keys_in_this_order():
    evaluation = Evaluation(
        nats=20.0, tokens=10, context=8, stride=4, bytes=40, words=4, precision="fp32", baselines=Baselines()
    )
    assert list(evaluation.to_json()) == [
        "loss",
        "perplexity",
        "bits_per_byte",
        "word_perplexity",
        "tokens",
        "bytes",
        "context",
        "stride",
        "precision",
        "baselines",
    ]
