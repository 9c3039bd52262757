"""Standard errors and intervals as a record: its shapes and its text."""

import numpy as np
import pytest

import jgmm
from jgmm._core.arguments import check_level
from jgmm.uncertainty.intervals import (
    OBSERVED,
    Parameters,
    Uncertainty,
    fraction_of,
    parameters_of,
)


def uncertainty():
    estimate = Parameters(np.array([1.0]), np.array([[2.0, 3.0]]), np.array([[4.0, 5.0]]))
    moved = [Parameters(*(part + by for part in estimate)) for by in (10, 20, 30)]
    observed = Parameters(*(part / 10 for part in estimate))
    return Uncertainty(estimate, *moved, level=0.9, method="by hand", observed_fraction=observed)


def test_a_row_for_each_parameter():
    rows = uncertainty().rows(["width", "height"])
    assert [(row["parameter"], row["component"], row["column"]) for row in rows] == [
        ("weight", 0, ""),
        ("mean", 0, "width"),
        ("mean", 0, "height"),
        ("variance", 0, "width"),
        ("variance", 0, "height"),
    ]
    for value, row in enumerate(rows, 1):
        numbers = [row[name] for name in ("estimate", "standard_error", "low", "high")]
        assert numbers == [value, value + 10, value + 20, value + 30]
        assert row["observed_fraction"] == value / 10


def test_as_text():
    lines = str(uncertainty()).splitlines()
    assert lines[0].split() == ["estimate", "std.", "error", "low", "high", "observed"]
    assert lines[1].split() == ["weight", "0", "1", "11", "21", "31", "0.10"]
    assert lines[-3].split() == ["variance", "0", "x1", "5", "15", "25", "35", "0.50"]
    assert lines[-2] == "by hand; intervals of 90 %"
    assert lines[-1] == OBSERVED
    assert all(len(line) == len(lines[0]) for line in lines[:-2])


def test_without_an_error_nothing_is_missing():
    known, error = (Parameters(np.array([0.0, 1.0]), np.ones((2, 1)), each) for each in (0.5, 2.0))
    found = fraction_of(known, error)
    np.testing.assert_array_equal(found.weights, [1, 1])
    assert found.variances == 0.25 / 4


def test_parameters_of_a_mixture_whatever_its_storage():
    mixture = jgmm.make_mixture([0.4, 0.6], [[0.0, 1.0], [2.0, 3.0]], [4.0], "EII")
    found = parameters_of(mixture)
    np.testing.assert_allclose(found.weights, [0.4, 0.6], rtol=1e-6)
    np.testing.assert_array_equal(found.means, mixture.means)
    np.testing.assert_allclose(found.variances, [[4, 4], [4, 4]], rtol=1e-6)


@pytest.mark.parametrize("level", [0.0, 1.0, 1.5])
def test_a_level_is_a_probability(level):
    with pytest.raises(jgmm.DataError, match="level must lie strictly between 0 and 1"):
        check_level(level)
