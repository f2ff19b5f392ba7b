"""Each class of rows has its rule of comparison."""

import pytest

from tokenloom.book.comparison import Comparison


@pytest.fixture
def comparison() -> Comparison:
    return Comparison(exact=True, progress=lambda line: None)


def test_deterministic_results_are_compared_as_printed(comparison):
    comparison.equal("4", "ids", [1, 2], [1, 2])
    comparison.equal("4", "ids", [1, 2], [2, 1])
    assert [row.ok for row in comparison.rows] == [True, False]
    assert {row.row_class for row in comparison.rows} == {"D"}


def test_floating_point_results_may_differ_by_rounding(comparison):
    comparison.close("11", "perplexity", ["48725.8203"], [48725.9])  # 1.6e-6 away
    comparison.close("11", "perplexity", ["48725.8203"], [48728.0])  # 4.5e-5 away
    assert [row.ok for row in comparison.rows] == [True, False]


def test_values_are_printed_like_the_book(comparison):
    comparison.close("8", "probabilities", ["7.4541e-05", "0.0430"], [7.4541234e-05, 0.0430123])
    assert comparison.rows[0].actual == "7.4541e-05 0.0430"


@pytest.mark.parametrize(("exact", "ok"), [(True, False), (False, None)])
def test_results_with_dropout_are_compared_only_where_random_numbers_are_equal(exact, ok):
    comparison = Comparison(exact=exact, progress=lambda line: None)
    comparison.random("5.2", "loss", "9.781", "9.782")
    comparison.check("5.2", "loss below 10", True)
    assert [row.ok for row in comparison.rows] == [ok, True]
