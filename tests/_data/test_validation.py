"""Validation of samples: arrays of every kind are read, or refused with place and reason."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import polars
import pytest

from jgmm._core.errors import DataError
from jgmm._data.validation import as_samples, as_weights, column_names

X = np.array([[1.0, 2.0], [3.0, 5.0], [-2.0, 0.5], [0.0, 7.0], [4.0, -1.0]])


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.tolist(),
        lambda x: [tuple(row) for row in x.tolist()],
        lambda x: x,
        lambda x: np.asfortranarray(x),
        jnp.asarray,
        lambda x: pandas.DataFrame(x, columns=["a", "b"]),
        lambda x: polars.DataFrame({"a": x[:, 0], "b": x[:, 1]}),
    ],
    ids=["lists", "tuples", "numpy", "fortran", "jax", "pandas", "polars"],
)
def test_the_same_from_every_container(make):
    found = as_samples(make(X))
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, X)


def test_dtype_is_kept(dtype):
    assert as_samples(X.astype(dtype)).dtype == dtype
    assert as_samples(jnp.asarray(X, dtype)).dtype == dtype


@pytest.mark.parametrize("given", [np.int8, np.int64, np.uint16, bool])
def test_whole_numbers_become_the_default_float(given):
    found = as_samples(X.astype(given))
    assert found.dtype == jnp.asarray(0.0).dtype
    np.testing.assert_array_equal(found, X.astype(given))


def test_half_precision_becomes_single():
    assert as_samples(X.astype(np.float16)).dtype == np.float32


def test_numbers_as_text_are_read():
    np.testing.assert_array_equal(as_samples(X.astype(str)), X)


def test_column_names():
    assert column_names(pandas.DataFrame(X, columns=["a", 7])) == ["a", "7"]
    assert column_names(X) == ["x0", "x1"]
    assert column_names(X[:, 0]) == ["x0"]


def test_inside_a_transformation_values_are_not_inspected():
    nan = np.full((2, 2), np.nan)
    assert bool(jnp.isnan(jax.jit(as_samples)(nan)).all())
    with pytest.raises(DataError, match="two-dimensional"):
        jax.jit(as_samples)(nan[0])


@pytest.mark.parametrize("fraction", [0.4, 2.0])
def test_the_largest_usable_value_has_a_finite_range(dtype, fraction):
    x = np.full((3, 2), fraction * (np.finfo(dtype).max / 16), dtype)
    if fraction < 1:
        found = as_samples(x)
        assert np.isfinite(found - 7 * -found).all()
    else:
        with pytest.raises(DataError, match="3 row"):
            as_samples(x)


@pytest.mark.parametrize("make", [list, np.asarray, jnp.asarray, pandas.Series])
def test_weights_from_every_container(make, dtype):
    found = as_weights(make([1, 0, 2]), 3, dtype)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, [1, 0, 2])


def test_masked_weights_are_missing():
    with pytest.raises(DataError, match="sample_weight holds nan in row 2"):
        as_weights(np.ma.masked_equal([1.0, 2.0, 9.0], 9.0), 3, np.float64)


def test_no_weights_are_none():
    assert as_weights(None, 3, np.float64) is None
