"""Samples, weights, frames, and sums over blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jgmm.samples import (
    Samples,
    as_samples,
    as_weights,
    check_key,
    column_names,
    fold,
    framed,
    identity_frame,
    make_samples,
    map_columns,
    whitened,
)
from jgmm.status import DataError

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
def test_the_largest_usable_value_has_a_finite_square_sum(dtype, fraction):
    limit = np.sqrt(np.finfo(dtype).max) / 2  # two columns
    x = np.full((3, 2), fraction * limit, dtype)
    if fraction < 1:
        assert np.isfinite((as_samples(x) ** 2).sum(axis=1)).all()
    else:
        with pytest.raises(DataError, match="3 row"):
            as_samples(x)


def test_a_row_of_weight_zero_may_hold_anything(dtype):
    x = X.astype(dtype)
    x[1] = [np.nan, np.inf]
    samples = make_samples(x, [1, 0, 2, 1, 1])
    found, weights = samples.rows(0, 5)
    np.testing.assert_array_equal(found[1], 0)
    np.testing.assert_array_equal(weights, [1, 0, 2, 1, 1])
    assert weights.dtype == dtype
    assert float(samples.total_weight()) == 5


@pytest.mark.parametrize("make", [list, np.asarray, jnp.asarray, pandas.Series])
def test_weights_from_every_container(make, dtype):
    found = as_weights(make([1, 0, 2]), 3, dtype)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, [1, 0, 2])


def test_no_weights_are_none():
    assert as_weights(None, 3, np.float64) is None


@pytest.mark.parametrize("key", [0, None, np.zeros(2, np.uint32), "key"])
def test_a_key_must_be_typed(key):
    with pytest.raises(TypeError, match=r"jax\.random\.key"):
        check_key(key)


def test_a_raw_key_is_refused():
    with pytest.raises(TypeError, match=r"jax\.random\.key"):
        check_key(jax.random.PRNGKey(0))


def test_frame_has_mean_zero_and_variance_one(dtype, tolerance):
    samples = framed(make_samples(X.astype(dtype)), per_column=True)
    x, _ = samples.rows(0, 5)
    np.testing.assert_allclose(x.mean(axis=0), 0, **tolerance)
    np.testing.assert_allclose(x.std(axis=0), 1, **tolerance)
    np.testing.assert_allclose(samples.frame.log_volume(), np.log(X.std(axis=0)).sum(), **tolerance)


def test_one_scale_for_all_columns(dtype, tolerance):
    samples = framed(make_samples(X.astype(dtype)), per_column=False)
    expected = np.sqrt(X.var(axis=0).mean())
    np.testing.assert_allclose(samples.frame.scale, [expected, expected], **tolerance)


def test_frame_of_weighted_samples_is_that_of_repeated_ones(dtype, tolerance):
    weights = np.array([2, 0, 1, 3, 1])
    x = X.astype(dtype)
    weighted = framed(make_samples(x, weights), per_column=True).frame
    repeated = framed(make_samples(np.repeat(x, weights, axis=0)), per_column=True).frame
    np.testing.assert_allclose(weighted.shift, repeated.shift, **tolerance)
    np.testing.assert_allclose(weighted.scale, repeated.scale, **tolerance)


def test_a_constant_column_is_scaled_by_one():
    samples = framed(make_samples([[3.0, 1.0], [3.0, 2.0]]), per_column=True)
    np.testing.assert_array_equal(samples.frame.scale, [1, 0.5])
    assert np.isfinite(samples.rows(0, 2)[0]).all()


def test_an_offset_does_not_show_in_the_frame(dtype, tolerance):
    """A million standard deviations in float32, a hundred million in float64."""
    offset = {4: 1e6, 8: 1e8}[dtype.itemsize]
    x = (np.random.default_rng(0).normal(size=(300, 2)) + offset).astype(dtype)
    inside, _ = framed(make_samples(x), per_column=True).rows(0, 300)
    exact = x.astype(np.float64) - offset  # exact: the offset is a whole number nearby
    exact -= exact.mean(axis=0)
    # The shift itself is rounded to the grid of numbers of the size of the offset.
    grid = offset * np.finfo(dtype).eps
    np.testing.assert_allclose(inside, exact / exact.std(axis=0), rtol=tolerance["rtol"], atol=grid)


def test_take_gives_framed_rows(dtype):
    samples = framed(make_samples(X.astype(dtype)), per_column=True)
    rows, _ = samples.rows(0, 5)
    np.testing.assert_array_equal(samples.take(jnp.asarray([3, 0])), rows[jnp.asarray([3, 0])])


def correlated(dtype, n=200):
    """Three columns of very different units that nearly determine each other, far from zero."""
    rng = np.random.default_rng(3)
    z = rng.normal(size=(n, 3))
    z[:, 2] = z[:, 0] - z[:, 1] + 0.1 * z[:, 2]
    return (z * [1e-3, 1.0, 1e3] + [0.1, 100.0, -1e5]).astype(dtype)


def seen_whole(x):
    return whitened(framed(make_samples(x), per_column=True))


# The least eigenvalue of the correlations is about 2e-3, and what makes them invertible, 24
# roundings, is added to it; offsets of a hundred deviations cost a factor of 100 in the data.
LOST = 1e5


def test_whitened_samples_have_the_unit_covariance(dtype):
    x = correlated(dtype)
    samples, atol = seen_whole(x), LOST * np.finfo(dtype).eps
    rows, _ = samples.rows(0, 200)
    np.testing.assert_allclose(np.cov(rows.T, bias=True), np.eye(3), atol=atol)
    log_det = np.linalg.slogdet(np.cov(x.astype(np.float64).T, bias=True))[1]
    np.testing.assert_allclose(samples.frame.log_volume(), 0.5 * log_det, atol=atol)


def test_a_frame_that_turns_is_undone(dtype):
    x = correlated(dtype)
    frame, unit = seen_whole(x).frame, x.astype(np.float64).std(axis=0)
    assert frame.turns
    np.testing.assert_array_equal(np.triu(frame.scale, 1), np.zeros((3, 3)))
    back = np.asarray(frame.scale, np.float64) @ np.asarray(frame.inverse, np.float64)
    atol = LOST * np.finfo(dtype).eps
    np.testing.assert_allclose(back * unit / unit[:, None], np.eye(3), atol=atol)


def test_unit_variances_are_what_a_ridge_is_a_multiple_of(dtype):
    """Seen in the frame, the diagonal matrix of the columns' variances."""
    x = correlated(dtype)
    frame, unit = seen_whole(x).frame, x.astype(np.float64).std(axis=0)
    scale, inner = (np.asarray(a, np.float64) for a in (frame.scale, frame.unit_variances()))
    back = scale @ inner @ scale.T / unit / unit[:, None]
    np.testing.assert_allclose(back, np.eye(3), atol=LOST * np.finfo(dtype).eps)
    scaling = framed(make_samples(x), per_column=True).frame
    np.testing.assert_array_equal(scaling.unit_variances(), np.eye(3))


def test_columns_that_determine_each_other_are_whitened_without_harm(dtype):
    """A copy, a constant, few samples: the frame is finite, and what has no extent keeps none."""
    x = np.random.default_rng(0).normal(size=(40, 2))
    copied = np.column_stack([x, x[:, 0], np.full(40, 7.0)]).astype(dtype)
    for few in (copied, copied[:3]):
        rows, _ = seen_whole(few).rows(0, len(few))
        assert np.isfinite(rows).all()
        np.testing.assert_array_equal(rows[:, 3], 0)
        assert np.abs(rows[:, 2]).max() < 0.1


@pytest.mark.parametrize("turns", [False, True])
def test_columns_are_rows_turned(turns, dtype, tolerance):
    weights = np.array([1.0, 0.0, 2.0, 1.0, 1.0])
    x = X.astype(dtype)
    x[1] = np.nan  # missing
    samples = framed(make_samples(x, weights), per_column=True)
    samples = whitened(samples) if turns else samples
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
    samples = Samples(jnp.asarray(x), None, identity_frame(1, dtype))
    total = jax.jit(lambda s: fold(s, 1, lambda x, w, _: w @ x))(samples)
    exact = n * float(x[0, 0])
    assert abs(float(total[0]) - exact) <= 2 * np.finfo(dtype).eps * exact


@pytest.mark.parametrize("block", [1, 2, 3, 5, 8])
def test_what_is_found_for_each_sample_comes_back_in_order(block):
    samples = make_samples(X)
    doubled, total = map_columns(samples, block, lambda x: (2 * x.T, x.sum(axis=0)))
    np.testing.assert_array_equal(doubled, 2 * X)
    np.testing.assert_array_equal(total, X.sum(axis=1))
