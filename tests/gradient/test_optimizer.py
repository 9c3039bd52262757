"""The objective of a gradient fit, its gradient and curvature, and what is an optimiser."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from gradient_cases import KEY, D, K, samples

import jgmm
from jgmm._data.samples import make_samples
from jgmm.gradient.fit import fit
from jgmm.gradient.optimizer import Evaluation, Optax, objective
from jgmm.mixture.unconstrained import LOG, from_free, to_free


@pytest.mark.parametrize("name", oracle.FREE)
def test_gradient_is_that_of_the_mean_log_likelihood(name):
    """Fisher's identity against differences of an independent loop, weights included."""
    x, rng = samples()[:20], np.random.default_rng(0)
    weight = rng.integers(0, 3, size=20).astype(float)
    truth = oracle.parameters(5, k=K, d=D, model=name)
    free = to_free(jgmm.make_mixture(*truth, name))
    loss = objective(lambda free: from_free(free, name), make_samples(x, weight))

    def slow(leaves):
        mixture = from_free(jax.tree.unflatten(jax.tree.structure(free), leaves), name)
        parameters = (np.asarray(a) for a in (mixture.weights, mixture.means, mixture.covariances))
        return -oracle.log_likelihood(x, *parameters, weight) / weight.sum()

    leaves = jax.tree.leaves(free)
    value, found = jax.jit(jax.value_and_grad(loss))(free)
    np.testing.assert_allclose(value, slow(leaves), rtol=1e-12)
    for _ in range(3):
        direction = [jnp.asarray(rng.normal(size=leaf.shape)) for leaf in leaves]
        ahead, behind = (
            slow([leaf + h * step for leaf, step in zip(leaves, direction, strict=True)])
            for h in (1e-5, -1e-5)
        )
        slope = sum((g * s).sum() for g, s in zip(jax.tree.leaves(found), direction, strict=True))
        # A central difference of step h is good to h² and to rounding over h.
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("given", ["adam", optax.adam, object(), Optax])
def test_what_is_no_optimiser_is_refused(given):
    with pytest.raises(jgmm.DataError, match="have the methods init and step"):
        fit(KEY, samples(), K, optimizer=given)


def test_curvature_is_the_derivative_of_the_gradient():
    x, here = make_samples(samples()[:20]), jgmm.make_mixture(*oracle.parameters(5, k=K, d=D))
    point = to_free(here)
    found = jgmm.accumulate(here, x)

    def chart(point):
        return LOG.mixture(point, "full")

    told = Evaluation(point, found.log_likelihood, None, here, found, x, chart, LOG.point)
    along = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), point)

    @jax.jit
    def both(point, along):
        ahead, behind = (
            jax.grad(told.loss)(jax.tree.map(lambda a, b, h=h: a + h * b, point, along))
            for h in (1e-5, -1e-5)
        )
        return told.curvature(along), jax.tree.map(lambda a, b: (a - b) / 2e-5, ahead, behind)

    for one, other in zip(*map(jax.tree.leaves, both(point, along)), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-8)
