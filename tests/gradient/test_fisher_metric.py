"""EM's metric: coordinates in which the information of the complete data is the unit matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from jax.flatten_util import ravel_pytree

import jgmm
from jgmm.em.statistics import expected_log_likelihood, expected_statistics
from jgmm.gradient import fisher_metric

N, K, D = 90, 2, 2


def mixture(name, seed=2):
    return jgmm.make_mixture(*oracle.parameters(seed, k=K, d=D, model=name), name)


@pytest.mark.parametrize("name", ["full", "tied", "diag", "EII"])
def test_information_of_the_complete_data_is_the_unit_matrix(name):
    """Minus the curvature of what a mixture expects of itself, but for the logits' constant."""
    here = mixture(name)
    zero, unravel = ravel_pytree(fisher_metric.zero_tangent(here))

    @jax.jit
    def information(zero):
        own = expected_statistics(here, jnp.asarray(1.0), here.means + 0.3)

        def expected(vector):
            return expected_log_likelihood(fisher_metric.retract(here, unravel(vector)), own)

        return -jax.hessian(expected)(zero)

    root = jnp.sqrt(here.weights)
    logits = jnp.eye(K) - root[:, None] * root[None, :]
    # What lies above the diagonal of a factor has no effect.
    shape = here.scale.shape
    used = np.tril(np.ones(shape)) if len(shape) == 3 else np.ones(shape)
    rest = np.diag(np.concatenate([np.ones(here.means.size), used.ravel()]))
    unit = jax.scipy.linalg.block_diag(logits, rest)
    np.testing.assert_allclose(information(zero), unit, atol=1e-12)


@pytest.mark.parametrize("name", ["full", "EII"])
def test_there_and_back(name):
    here, other = mixture(name), mixture(name, 3)
    again = jax.jit(
        lambda one: fisher_metric.retract(here, fisher_metric.inverse_retract(here, one))
    )(other)
    for one, two in zip(jax.tree.leaves(again), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-12, atol=1e-12)


def test_half_the_square_of_the_gradient_is_what_a_step_gains():
    x = oracle.draw(0, N, *oracle.parameters(4, k=K, d=D))
    # Near its end.
    at = jgmm.fitting.run_em(mixture("full", 5), x, tol=1e-4, rtol=0.0, max_steps=500).mixture

    @jax.jit
    def compare(at):
        statistics = jgmm.accumulate(at, x)
        slope = fisher_metric.gradient(at, statistics, jnp.asarray(float(N)))
        updated = jgmm.em.maximize(statistics, "full")
        ahead, here = (expected_log_likelihood(one, statistics) for one in (updated, at))
        # To first order EM's step is the gradient.
        away = fisher_metric.retract(at, slope)
        return fisher_metric.length(slope), (ahead - here) / N, updated, away

    length, gain, updated, away = compare(at)
    assert 1e-4 < length < 0.1
    np.testing.assert_allclose(length**2 / 2, gain, rtol=0.1)
    step = np.abs(updated.means - at.means).max()
    np.testing.assert_allclose(updated.means, away.means, atol=0.1 * float(step))


def test_a_component_that_is_switched_off_stays_off():
    here = mixture("full")
    off = jgmm.Mixture(jnp.asarray([0.0, -jnp.inf]), here.means, here.scale, "full")
    moved = fisher_metric.retract(off, jax.tree.map(jnp.ones_like, fisher_metric.zero_tangent(off)))
    assert moved.log_weights.tolist() == [0.0, -np.inf]
    np.testing.assert_array_equal(moved.means[1], here.means[1])
