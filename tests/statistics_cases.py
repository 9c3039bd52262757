"""Samples, mixtures and comparisons for the tests of expected statistics."""

import jax
import numpy as np
import oracle
import pytest

import jgmm

N, K, D = 60, 3, 3
accumulate = jax.jit(jgmm.accumulate, static_argnums=(3, 4))
# Whole numbers, a fraction, and zeros.
WEIGHT = np.resize([1.0, 2.0, 0.0, 0.5, 3.0, 1.0, 0.0], N)
X = oracle.draw(0, N, *oracle.parameters(0, k=K, d=D))


def mixture(name, dtype):
    truth = oracle.parameters(1, k=K, d=D, model=name)
    return jgmm.make_mixture(*(a.astype(dtype) for a in truth), name)


@pytest.fixture(scope="module")
def x(dtype):
    return X.astype(dtype)


@pytest.fixture(scope="module")
def weight(dtype):
    return WEIGHT.astype(dtype)


@pytest.fixture(scope="module")
def full(dtype):
    return mixture("full", dtype)


def close(found, expected, tolerance):
    """Sums of N terms: relative to the largest entry of each leaf."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = max(1.0, float(np.abs(b).max()))
        np.testing.assert_allclose(a, b, rtol=tolerance["rtol"], atol=tolerance["atol"] * scale)
