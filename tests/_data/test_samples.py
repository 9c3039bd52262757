"""Samples block by block, and sums over blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jgmm._data.samples import Samples, fold, identity, make_samples, map_columns
from jgmm._data.standardization import center_and_scale, whiten

X = np.array([[1.0, 2.0], [3.0, 5.0], [-2.0, 0.5], [0.0, 7.0], [4.0, -1.0]])


def test_a_row_of_weight_zero_may_hold_anything(dtype):
    x = X.astype(dtype)
    x[1] = [np.nan, np.inf]
    samples = make_samples(x, [1, 0, 2, 1, 1])
    found, weights = samples.rows(0, 5)
    np.testing.assert_array_equal(found[1], 0)
    np.testing.assert_array_equal(weights, [1, 0, 2, 1, 1])
    assert weights.dtype == dtype
    assert float(samples.total_weight()) == 5


def test_take_gives_standardized_rows(dtype):
    samples = center_and_scale(make_samples(X.astype(dtype)), per_column=True)
    rows, _ = samples.rows(0, 5)
    np.testing.assert_array_equal(samples.take(jnp.asarray([3, 0])), rows[jnp.asarray([3, 0])])


@pytest.mark.parametrize("turns", [False, True])
def test_columns_are_rows_turned(turns, dtype, tolerance):
    weights = np.array([1.0, 0.0, 2.0, 1.0, 1.0])
    x = X.astype(dtype)
    x[1] = np.nan  # missing
    samples = center_and_scale(make_samples(x, weights), per_column=True)
    samples = whiten(samples) if turns else samples
    (rows, first), (columns, second) = samples.rows(1, 3), samples.columns(1, 3)
    np.testing.assert_allclose(columns.T, rows, **tolerance)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(rows[0], 0)


def sums(samples, block_size):
    return fold(samples, block_size, lambda x, w, rows: (w.sum(), w @ x, w @ rows.astype(x.dtype)))


@settings(max_examples=10)
@given(block=st.integers(1, 5))
def test_every_row_enters_one_block(block, dtype, tolerance):
    """With row n counted 2ⁿ times, a row left out or counted twice cannot cancel."""
    weights = 2.0 ** np.arange(5)
    samples = make_samples(X.astype(dtype), weights)
    total, first, index = sums(samples, block)
    np.testing.assert_allclose(total, 31, **tolerance)
    np.testing.assert_allclose(first, weights @ X, **tolerance)
    np.testing.assert_allclose(index, weights @ np.arange(5), **tolerance)


def test_the_rounding_of_a_sum_does_not_grow_with_the_number_of_blocks(dtype):
    """50,000 blocks of one row; a plain running sum of tenths is off by 1e-4 in float32."""
    n = 50_000
    x = np.full((n, 1), 0.1, dtype)
    samples = Samples(jnp.asarray(x), None, identity(1, dtype))
    total = jax.jit(lambda s: fold(s, 1, lambda x, w, _: w @ x))(samples)
    exact = n * float(x[0, 0])
    assert abs(float(total[0]) - exact) <= 2 * np.finfo(dtype).eps * exact


@pytest.mark.parametrize("block", [1, 2, 3, 5, 8])
def test_what_is_found_for_each_sample_comes_back_in_order(block):
    samples = make_samples(X)
    doubled, total = map_columns(samples, block, lambda x: (2 * x.T, x.sum(axis=0)))
    np.testing.assert_array_equal(doubled, 2 * X)
    np.testing.assert_array_equal(total, X.sum(axis=1))
