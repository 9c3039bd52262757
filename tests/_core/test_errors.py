"""Exceptions of users' mistakes, and suggestions of the nearest known name."""

import numpy as np
import pytest

from jgmm._core.errors import DataError, FitError, UserError, nearest, shown, suggest


def test_exceptions_are_caught_as_what_they_are():
    assert issubclass(DataError, ValueError)
    assert issubclass(FitError, RuntimeError)
    assert not issubclass(UserError, (ValueError, RuntimeError))


def test_the_middle_of_a_long_line_is_left_out():
    text = str(UserError("short\n" + 1001 * "a" + "\n" + 1000 * "b"))
    first, second, third = text.splitlines()
    assert (first, third) == ("short", 1000 * "b")
    assert second == 600 * "a" + " … " + 395 * "a"


def test_no_value_is_written_at_length():
    array = np.zeros((150, 4))
    assert shown(array) == "an array of shape (150, 4)"
    assert shown([array]) == "a list of 1"
    assert shown(np.float64(0.5)) == "np.float64(0.5)"
    assert shown("a" * 100) == "'" + "a" * 79 + "…"
    assert shown({"a": [1]}) == "a dict of 1"


def test_names_are_compared_without_regard_to_case():
    assert nearest("vvi", ["VVI", "VVE", "full"], n=2) == ["VVI", "VVE"]
    assert nearest(7, ["full"]) == []


@pytest.mark.parametrize(
    ("name", "expected"), [("fulll", " Did you mean 'full'?"), ("xyz", ""), (None, "")]
)
def test_a_suggestion_is_made_where_a_name_is_near(name, expected):
    assert suggest(name, ["full", "diag"]) == expected
