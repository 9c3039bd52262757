"""Class labels and priors: read from every container, or refused."""

import jax.numpy as jnp
import numpy as np
import pandas
import polars
import pytest

from jgmm._core.errors import DataError
from jgmm.classifier.labels import class_indices, read_labels, read_priors

ALL = np.ones(4, bool)
TEXT = ["b", "c", "a", "b"]


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        np.array,
        lambda labels: np.array(labels, object),
        lambda labels: np.array(labels, np.dtypes.StringDType()),
        pandas.Series,
        lambda labels: pandas.Series(labels, dtype="category"),
        polars.Series,
    ],
    ids=["list", "tuple", "numpy", "object", "string", "pandas", "category", "polars"],
)
def test_text_from_every_container(make):
    indices, names = read_labels(make(TEXT), 4, ALL)
    assert names == ("a", "b", "c")
    assert indices.tolist() == [1, 2, 0, 1]
    assert class_indices(make(TEXT), names).tolist() == [1, 2, 0, 1]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([7, -1, 7, 7], (-1, 7)),
        (np.array([7, 3, 7, 7], np.uint8), (3, 7)),
        (np.array([7, 3, 7, 7], object), (3, 7)),
        (jnp.array([7, 3, 7, 7]), (3, 7)),
        ([True, False, True, True], (False, True)),
        (np.array([True, False, True, True], object), (False, True)),
    ],
)
def test_numbers_and_truth_values(labels, expected):
    indices, names = read_labels(labels, 4, ALL)
    assert names == expected
    assert [type(name) for name in names] == [type(name) for name in expected]
    assert indices.tolist() == [1, 0, 1, 1]


def test_labels_of_missing_rows_are_not_read():
    indices, names = read_labels(["b", None, "a", "z"], 4, np.array([True, False, True, False]))
    assert names == ("a", "b")
    assert indices.tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (TEXT[:3], r"shape \(4,\); they have shape \(3,\)"),
        ([TEXT] * 4, r"they have shape \(4, 4\)"),
        (["a", "b", None, "a"], "the label in row 2 is missing"),
        ([0.0, 1.0, 1.5, 0.0], "the label in row 0 is 0.0"),
        (np.array([1, "a", 2, 3], object), "mix numbers, text and truth values"),
    ],
)
def test_labels_that_are_refused(labels, said):
    with pytest.raises(DataError, match=said):
        read_labels(labels, 4, ALL)


def test_a_name_that_is_not_known():
    with pytest.raises(DataError, match=r"label 'd' in row 1 is none of \['a', 'b'\]"):
        class_indices(["a", "d"], ("a", "b"))


def test_priors_are_normalised(dtype):
    found = read_priors([0.25, 0.75003], ("a", "b"), dtype)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.sum(), 1, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("priors", "said"),
    [
        ([1.0], r"shape \(2,\), one for each of the classes \['a', 'b'\]"),
        ([0.5, 0.6], "nonnegative and sum to one"),
        ([-0.5, 1.5], "nonnegative and sum to one"),
        ([np.nan, 1.0], "nonnegative and sum to one"),
    ],
)
def test_priors_that_are_no_distribution(priors, said):
    with pytest.raises(DataError, match=said):
        read_priors(priors, ("a", "b"), np.float64)
