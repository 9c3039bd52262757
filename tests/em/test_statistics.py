"""Sufficient statistics: they add up, and follow a change of their centers."""

import jax
import numpy as np
import pytest
import statistics_cases
from statistics_cases import N, accumulate, close, mixture

import jgmm
from jgmm._data.distinct_rows import with_distinct_rows
from jgmm._data.samples import make_samples
from jgmm.covariance.models import model
from jgmm.em.statistics import recentred

x, weight, full = statistics_cases.x, statistics_cases.weight, statistics_cases.full  # fixtures


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


@pytest.mark.parametrize("scale", [1, 1e-6, 1e6])
def test_effective_rows_are_counted_for_each_component_by_itself(scale, dtype):
    """Fifty copies of one row are one row, and fifty rows elsewhere stay fifty."""
    apart = np.concatenate([np.zeros(50), 100 + np.random.default_rng(0).normal(size=50)])
    x, weight = apart[:, None].astype(dtype), np.full(100, scale, dtype)
    two = jgmm.make_mixture(
        *(np.asarray(a, dtype) for a in ([0.5] * 2, [[0], [100]], [1, 1])), "spherical"
    )
    compared = accumulate(two, with_distinct_rows(make_samples(x, weight)))
    np.testing.assert_allclose(compared.effective_counts(), [1, 50], rtol=1e-4)
    np.testing.assert_allclose(accumulate(two, x, weight).effective_counts(), [50, 50], rtol=1e-4)
    weight[50:75] *= 3  # Kish: (25 · 3 + 25)² / (25 · 9 + 25)
    uneven = accumulate(two, with_distinct_rows(make_samples(x, weight)))
    np.testing.assert_allclose(uneven.effective_counts(), [1, 40], rtol=1e-4)


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
