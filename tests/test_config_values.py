"""Numbers in a configuration: exact integers, also as text."""

import pytest

from tokenloom.config_values import check_number


@pytest.mark.parametrize("value", [0, -3, "12", 2**64 - 1, None])
def test_integers_and_none_are_accepted(value):
    check_number(value, int | None)


@pytest.mark.parametrize("value", [2.0, "2.0", "1e3", True, 2**64, "9" * 30, "many", [1]])
def test_anything_else_is_refused_for_an_integer(value):
    with pytest.raises(ValueError, match="must be"):
        check_number(value, int)


def test_other_fields_are_not_checked():
    check_number("2.5", str)
    check_number(True, bool)
    check_number(2.5, float | None)
