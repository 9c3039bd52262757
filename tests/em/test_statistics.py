"""Sufficient statistics: they add up, and follow a change of their centers."""

import jax
import numpy as np
import oracle
import pytest

import jgmm
from jgmm.covariance.models import model
from jgmm.em.statistics import recentred

N, K, D = 60, 3, 3
accumulate = jax.jit(jgmm.accumulate, static_argnums=(3, 4))


@pytest.fixture(scope="module")
def x(dtype):
    return oracle.draw(0, N, *oracle.parameters(0, k=K, d=D)).astype(dtype)


@pytest.fixture(scope="module")
def weight(dtype):
    """Whole numbers, a fraction, and zeros."""
    return np.resize([1.0, 2.0, 0.0, 0.5, 3.0, 1.0, 0.0], N).astype(dtype)


def mixture(name, dtype):
    truth = oracle.parameters(1, k=K, d=D, model=name)
    return jgmm.make_mixture(*(a.astype(dtype) for a in truth), name)


@pytest.fixture(scope="module")
def full(dtype):
    return mixture("full", dtype)


def close(found, expected, tolerance):
    """Sums of N terms: relative to the largest entry of each leaf."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = max(1.0, float(np.abs(b).max()))
        np.testing.assert_allclose(a, b, rtol=tolerance["rtol"], atol=tolerance["atol"] * scale)


def test_log_likelihood_is_the_sum_of_log_densities(full, x, weight, tolerance):
    found = accumulate(full, x, weight).log_likelihood
    np.testing.assert_allclose(found, (weight * jgmm.log_prob(full, x)).sum(), **tolerance)


def test_counts_add_up_to_the_samples(full, x, weight, tolerance):
    np.testing.assert_allclose(accumulate(full, x).counts.sum(), N, **tolerance)
    np.testing.assert_allclose(accumulate(full, x, weight).counts.sum(), weight.sum(), **tolerance)


@pytest.mark.parametrize("name", ["full", "tied", "diag", "spherical"])
def test_statistics_add_up(name, x, weight, dtype, tolerance):
    given, cut = mixture(name, dtype), N // 2
    parts = [accumulate(given, x[rows], weight[rows]) for rows in (slice(0, cut), slice(cut, N))]
    close(parts[0] + parts[1], accumulate(given, x, weight), tolerance)


def stream(n, seed=0):
    rng = np.random.default_rng(seed)
    centers = np.asarray([[0, 0], [3, 0], [0, 3.0]])
    return centers[rng.integers(3, size=n)] + rng.normal(size=(n, 2)) * [1, 0.7]


@pytest.mark.parametrize("name", ["full", "tied"])
def test_statistics_about_other_centers_lead_to_the_same_m_step(name):
    x = stream(200)
    mixture = jgmm.m_step(x, np.eye(3)[np.arange(200) % 3], name)
    found = jgmm.accumulate(mixture, x, form="difference")
    moved = recentred(found, found.center + 0.7, model(name))
    for one, other in zip(
        jax.tree.leaves(jgmm.em.maximize(found, name)),
        jax.tree.leaves(jgmm.em.maximize(moved, name)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
