"""Mean and scatter from blocks are those of the whole."""

import numpy as np
from summary_cases import data, look

from jgmm.streaming.moments import Moments


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
