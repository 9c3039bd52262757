"""Marginals, conditionals, mean and covariance of a mixture."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import jgmm
from jgmm._core.errors import DataError
from jgmm.mixture.conditioning import cov, mean

K, D, N = 3, 3, 50


of_every_model = pytest.mark.parametrize("name", oracle.NAMES, indirect=True, scope="module")


# Moments, samples, marginals, conditionals.


def test_moments_by_hand(dtype, tolerance):
    """Half at -1, half at 1, unit variance: mean zero, variance two."""
    two = jgmm.make_mixture([0.5, 0.5], np.array([[-1], [1]], dtype), [1.0, 1.0], "spherical")
    np.testing.assert_allclose(mean(two), [0], **tolerance)
    np.testing.assert_allclose(cov(two), [[2]], **tolerance)


@of_every_model
@pytest.mark.parametrize("dims", [[2, 0]])
def test_marginal_is_the_mixture_of_marginals(mixture, truth, name, x, dims, tolerance):
    weights, means, covariances = truth
    found = jgmm.marginal(mixture, dims)
    assert found.covariance == jgmm.covariance.model(name).marginal_model.name
    sub = x[:, dims].astype(np.float64)
    expected = oracle.e_step(sub, weights, means[:, dims], covariances[:, dims][:, :, dims])[0]
    np.testing.assert_allclose(jgmm.log_prob(found, x[:, dims]), expected, **tolerance)


@pytest.mark.parametrize("known", [[1], [2, 0]])
def test_conditional_times_marginal_is_joint(mixture, name, x, known, tolerance):
    """log p(x_a | x_b) + log p(x_b) = log p(x), at points that reweight the components."""
    rest = [d for d in range(D) if d not in known]

    @jax.jit
    def product(row):
        conditional = jgmm.condition(mixture, known, row[jnp.asarray(known)])
        assert conditional.covariance == jgmm.covariance.model(name).marginal_model.name
        given = jgmm.marginal(mixture, known)
        a = jgmm.log_prob(conditional, row[None, jnp.asarray(rest)])
        b = jgmm.log_prob(given, row[None, jnp.asarray(known)])
        return a[0] + b[0], conditional.weights.sum()

    joint = jgmm.log_prob(mixture, x)
    for row, expected in zip(x[:8], joint[:8], strict=True):
        total, mass = product(row)
        np.testing.assert_allclose(total, expected, **tolerance)
        np.testing.assert_allclose(mass, 1, **tolerance)


def test_conditioning_far_away_keeps_a_distribution(mixture, dtype):
    """Where every component's density underflows, the weights are still a distribution."""
    found = jgmm.condition(mixture, [0], np.array([1e5], dtype))
    chex.assert_tree_all_finite((found.weights, found.means, found.scale))
    np.testing.assert_allclose(found.weights.sum(), 1, rtol=1e-5)


@pytest.mark.parametrize("dims", [[], [3], [-1], [1, 1]])
def test_coordinates_must_exist(full, dims):
    for ask in (jgmm.marginal, lambda m, d: jgmm.condition(m, d, np.zeros(len(d)))):
        with pytest.raises(DataError, match="distinct coordinates from 0 to 2"):
            ask(full, dims)


def test_conditions_must_make_sense(full):
    with pytest.raises(DataError, match=r"shape \(1,\)"):
        jgmm.condition(full, [0], [1.0, 2.0])
    with pytest.raises(DataError, match="none is left"):
        jgmm.condition(full, [0, 1, 2], [1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="nan"):
        jgmm.condition(full, [0], [np.nan])
