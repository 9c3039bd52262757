"""Mean and scatter from blocks are those of the whole."""

import jax
import numpy as np

from jgmm.streaming import subsample
from jgmm.streaming.moments import Moments
from jgmm.streaming.sources import rebatch

KEY = jax.random.key(3)


def look(x, weights=None, size=100, first_row=0, most=50):
    source = [x] if weights is None else [(x, weights)]
    blocks = rebatch(source, size, x.shape[1], x.dtype)
    return subsample.summarize(KEY, blocks, first_row, most, x.shape[1], x.dtype)


def data(dtype, offset=0.0, n=700):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3)) @ np.asarray([[1, 0.5, 0], [0, 2, 0.3], [0, 0, 0.1]])
    return (x + offset).astype(dtype), rng.integers(0, 4, n).astype(dtype)


def test_an_offset_costs_no_digits(dtype, tolerance):
    offset = 1e4 if dtype == np.float32 else 1e7
    x, weights = data(dtype, offset)
    exact = x.astype(np.longdouble) - offset
    expected = np.cov(exact.astype(float).T, aweights=weights, ddof=0)
    found = look(x, weights).moments
    # Means of blocks are put together in double precision, which at 1e7 has steps of 2e-9.
    limits = {"rtol": tolerance["rtol"], "atol": max(tolerance["atol"], 1e-8)}
    variance = found.unit[:, None] * (found.scatter / found.total) * found.unit
    np.testing.assert_allclose(variance, expected, **limits)


def test_moments_of_parts_are_those_of_the_whole():
    x, weights = data(np.float64)
    parts = [look(x[a:b], weights[a:b]).moments for a, b in ((0, 10), (10, 400), (400, 700))]
    whole = look(x, weights, size=700).moments
    for found, expected in zip(sum(parts[1:], parts[0]), whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    none = Moments(np.zeros(()), np.zeros(3), np.zeros((3, 3)), np.ones(3))
    assert whole + none is whole
    assert none + whole is whole
