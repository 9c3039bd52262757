"""Influence of each sample, leave-one-out densities and jackknife standard errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from differentiation_cases import KEY, fitted
from jax.flatten_util import ravel_pytree

import jgmm
from jgmm._core.errors import FitError
from jgmm.differentiation.influence import influence, jackknife_standard_errors, leave_one_out
from jgmm.mixture.unconstrained import Free, from_free, to_free
from jgmm.workbench.readers import datasets


@pytest.fixture(scope="module")
def faithful():
    x = jnp.asarray(np.asarray(datasets.load("faithful").x[::2], np.float64))
    return x, jgmm.fit(KEY, x, 2, n_restarts=8).mixture


@pytest.fixture(scope="module")
def influences(faithful):
    x, mixture = faithful
    return influence(mixture, x)


def test_influences_add_up_to_nothing(faithful, influences):
    """Counting every sample twice changes no parameter."""
    for leaf in influences:
        assert leaf.shape[0] == len(faithful[0])
        np.testing.assert_allclose(leaf.sum(axis=0), 0, atol=1e-9 * np.abs(leaf).max() * len(leaf))


def test_standard_errors_are_those_of_the_sandwich(faithful):
    x, mixture = faithful
    found = jackknife_standard_errors(mixture, x)
    # The gauge of the logits is fixed: the last is zero. What lies above a diagonal is left out.
    free = to_free(mixture)
    vector, unravel = ravel_pytree((free.logits[:-1] - free.logits[-1], free.means, free.scale))
    used = np.flatnonzero(np.asarray(ravel_pytree(
        (jnp.ones(1), jnp.ones((2, 2)), jnp.tril(jnp.ones((2, 2, 2))))
    )[0]))  # fmt: skip

    def at(part):
        logits, means, scale = unravel(vector.at[used].set(part))
        return from_free(Free(jnp.append(logits, 0.0), means, scale), "full")

    def each(part):
        return jgmm.log_prob(at(part), x)

    here = vector[used]
    scores = jax.jit(jax.jacfwd(each))(here)
    information = -jax.jit(jax.jacfwd(jax.grad(lambda part: each(part).sum())))(here)
    bread = jnp.linalg.inv(information)
    sandwich = bread @ (scores.T @ scores) @ bread
    slopes = jax.jit(jax.jacfwd(lambda part: at(part).means))(here)
    expected = jnp.sqrt(jnp.einsum("kdp,pq,kdq->kd", slopes, sandwich, slopes))
    # The fit ends where a step gains 1e-8, some 1e-5 of a standard error from the optimum.
    np.testing.assert_allclose(found.means, expected, rtol=1e-4)


def test_leave_one_out_is_that_of_refits(faithful):
    x, mixture = faithful
    found = leave_one_out(mixture, x)
    weights = 1 - jnp.eye(len(x))

    @jax.jit
    @jax.vmap
    def without(weight, row):
        left = jgmm.fitting.run_em(mixture, x, weight, tol=1e-12, rtol=0.0)
        return jgmm.log_prob(left.mixture, row[None])[0]

    real = without(weights, x)
    inside = jgmm.log_prob(mixture, x)
    assert np.corrcoef(real, found)[0, 1] > 0.999
    # Nor is it only the density itself that agrees, but what leaving out changes.
    assert np.corrcoef(real - inside, found - inside)[0, 1] > 0.99
    # The rest is second order in the influence of a sample; the whole change is -12 nats.
    np.testing.assert_allclose(found.sum(), real.sum(), atol=1.0)


def test_what_is_not_the_end_of_a_fit_has_no_derivatives():
    x, _, mixture = fitted("diag")
    elsewhere = jgmm.Mixture(
        mixture.log_weights, mixture.means + 1.0, mixture.scale, mixture.covariance
    )
    with pytest.raises(FitError, match="away from the nearest optimum"):
        jackknife_standard_errors(elsewhere, x)
    empty = jgmm.Mixture(
        jnp.asarray([0.0, -jnp.inf]), mixture.means, mixture.scale, mixture.covariance
    )
    with pytest.raises(FitError, match="a component is empty"):
        leave_one_out(empty, x)
