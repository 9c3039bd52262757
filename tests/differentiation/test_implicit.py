"""Derivatives of a fit: against refits, and none where there are none."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from differentiation_cases import KEY, RIDGE, STEP, D, K, N, fitted, refits, samples
from jax.flatten_util import ravel_pytree

import jgmm
from jgmm._core.errors import DataError, FitError
from jgmm.differentiation import implicit
from jgmm.differentiation.influence import influence
from jgmm.uncertainty.intervals import dense_parameters_of


def said_of(mixture):
    """One number that depends on all parameters."""
    found, _ = ravel_pytree(dense_parameters_of(mixture))
    return found @ jnp.cos(1 + jnp.arange(found.size, dtype=found.dtype))


@functools.cache
def gradient(name, dtype):
    x, weight, start = jax.tree.map(lambda a: jnp.asarray(a, dtype), fitted(name))

    def value(x, weight, ridge):
        return said_of(implicit.optimum(start, x, weight, ridge))

    ridge = jnp.asarray(RIDGE, dtype)
    return jax.jit(jax.grad(value, argnums=(0, 1, 2)))(x, weight, ridge)


@pytest.mark.parametrize("name", ["full", "tied", "diag"])
def test_gradient_is_that_of_refits(name):
    moves, mixtures = refits(name)
    found = gradient(name, "float64")
    values = jax.vmap(said_of)(mixtures)
    for i, move in enumerate(moves):
        slope = sum((g * m).sum() for g, m in zip(found, move, strict=True))
        difference = (values[1 + 2 * i] - values[2 + 2 * i]) / (2 * STEP)
        np.testing.assert_allclose(slope, difference, rtol=1e-5)


def test_float32_keeps_half_of_its_digits():
    for one, other in zip(gradient("diag", "float32"), gradient("diag", "float64"), strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=3e-4 * float(np.abs(other).max()))


def test_forwards_backwards_and_under_vmap():
    """jvp and vjp are transposes, and data sets side by side do not mix."""
    x, weight, start = fitted("diag")
    direction = jnp.asarray(np.random.default_rng(3).normal(size=x.shape))

    @jax.jit
    @jax.vmap
    def forwards(x):
        return jax.jvp(
            lambda x: said_of(implicit.optimum(start, x, weight, RIDGE)), (x,), (direction,)
        )[1]

    backwards = (gradient("diag", "float64")[0] * direction).sum()
    both = forwards(jnp.stack([x, x + 0.3]))
    # What does not move with the samples is a function of them all the same.
    np.testing.assert_allclose(both[0], backwards, rtol=1e-9)
    assert both[1] != both[0]


def test_merged_components_have_no_derivatives():
    x = samples()
    one = jgmm.m_step(x, np.ones((N, 1)))
    twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), one)
    twice = jgmm.make_mixture([0.5, 0.5], twice.means, twice.covariances)
    assert not implicit.regularity(twice, x).is_regular
    with pytest.raises(FitError, match="two components have merged"):
        influence(twice, x)
    slope = jax.jit(jax.grad(lambda x: said_of(implicit.optimum(twice, x))))(jnp.asarray(x))
    assert np.isnan(slope).all()


@pytest.mark.parametrize("option", [{"equal_weights": True}, {"floor": 1e-3}])
def test_options_whose_derivatives_are_others_are_refused(option):
    with pytest.raises(DataError, match=next(iter(option))):
        implicit.fit(jax.random.key(0), np.eye(4), 2, **option)


def test_models_without_free_coordinates_are_refused():
    x = samples()
    mixture = jgmm.m_step(x, np.eye(K)[np.arange(N) % K], "EVI")
    with pytest.raises(DataError, match="no free coordinates"):
        implicit.optimum(mixture, x)


def test_missing_rows_have_no_derivative():
    x, weight, mixture = fitted("diag")
    x, weight = np.append(x, [[np.nan, 0.0]], axis=0), np.append(weight, 0.0)

    @jax.jit
    @jax.grad
    def slope(weight):
        return said_of(implicit.optimum(mixture, x, weight, RIDGE))

    found = slope(jnp.asarray(weight))
    assert found[-1] == 0
    np.testing.assert_allclose(found[:-1], gradient("diag", "float64")[1], rtol=1e-9)


def test_derivative_by_the_strength_of_a_prior():
    """Against central differences of fixed points, with a prior made of the samples."""
    x = jnp.asarray(samples())
    start = jgmm.make_mixture(*oracle.parameters(4, k=K, d=D))

    def belief(strength, shift):
        return jgmm.mixture.conjugate(x + shift, K, strength=strength, dof=3.0 + strength)

    @jax.jit
    @jax.vmap
    def refit(strength, shift):
        data, prior = x + shift, belief(strength, shift)
        near = jgmm.fitting.run_em(start, data, prior=prior, tol=1e-12, max_steps=3000).mixture
        # EM rests where a step gains less than a rounding, 1e-7 from the fixed point.
        return implicit.optimum(near, data, prior=prior)

    offsets = STEP * jnp.asarray([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    at = jnp.asarray([[2.0, 0.0]]) + offsets
    fits = refit(at[:, 0], at[:, 1])
    ends = jax.vmap(said_of)(fits)
    expected = [(ends[1] - ends[2]) / (2 * STEP), (ends[3] - ends[4]) / (2 * STEP)]
    end = jax.tree.map(lambda leaf: leaf[0], fits)

    def value(strength, shift):
        prior = belief(strength, shift)
        return said_of(implicit.optimum(end, x + shift, prior=prior))

    found = jax.jit(jax.grad(value, argnums=(0, 1)))(2.0, 0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    result = implicit.fit(KEY, x, K, init="points", prior="conjugate")
    again = jgmm.mixture.prior.log_density(jgmm.mixture.conjugate(x, K), result.mixture)
    np.testing.assert_allclose(result.log_prior, again, rtol=1e-9)
