"""Derivatives through the steps: against differences, and against those of the optimum."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import jgmm
from jgmm._core.errors import DataError
from jgmm.differentiation import implicit, unrolled
from jgmm.uncertainty.intervals import dense_parameters_of

N, K, D = 60, 2, 2
RIDGE = 0.05


def samples():
    return oracle.draw(0, N, *oracle.parameters(4, k=K, d=D))


def start(name="diag"):
    return jgmm.make_mixture(*oracle.parameters(4, k=K, d=D, model=name), name)


def said_of(mixture):
    """One number that depends on all parameters."""
    leaves = jax.tree.leaves(dense_parameters_of(mixture))
    return sum((leaf * jnp.cos(1 + jnp.arange(leaf.size)).reshape(leaf.shape)).sum()
               for leaf in leaves)  # fmt: skip


def slopes(n_steps):
    def value(mixture, x, weight, ridge):
        return said_of(unrolled.run_unrolled(mixture, x, weight, ridge, n_steps=n_steps))

    return jax.jit(jax.grad(value, argnums=(0, 1, 2, 3)))


def test_a_few_steps_against_differences():
    """By the start, the samples, the weights and the ridge, along one direction in all."""
    rng = np.random.default_rng(1)
    at = (start(), jnp.asarray(samples()), jnp.asarray(rng.uniform(0.5, 2, N)), jnp.asarray(RIDGE))
    along = jax.tree.map(lambda leaf: jnp.asarray(0.1 * rng.normal(size=leaf.shape)), at)

    def three(sign):
        moved = jax.tree.map(lambda a, b: a + sign * 1e-5 * b, at, along)
        mixture, x, weight, ridge = moved
        for _ in range(3):
            mixture, _ = jgmm.em_step(mixture, x, weight, float(ridge))
        return said_of(mixture)

    found = slopes(3)(*at)
    slope = sum((a * b).sum() for a, b in zip(
        jax.tree.leaves(found), jax.tree.leaves(along), strict=True
    ))  # fmt: skip
    np.testing.assert_allclose(slope, (three(1) - three(-1)) / 2e-5, rtol=1e-7)


def test_near_the_end_they_are_those_of_the_optimum():
    x, weight = jnp.asarray(samples()), np.ones(N)
    weight[-1] = 0.0  # a row that is missing
    weight, ridge = jnp.asarray(weight), jnp.asarray(RIDGE)

    def optimum(x, weight, ridge):
        return said_of(implicit.optimum(ended, x, weight, ridge))

    ended = jgmm.fitting.run_em(start(), x, weight, ridge=RIDGE, tol=0.0, rtol=0.0).mixture
    exact = jax.jit(jax.grad(optimum, argnums=(0, 1, 2)))(x, weight, ridge)
    by_start, *found = slopes(200)(start(), x, weight, ridge)
    assert max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(by_start)) < 1e-9
    assert found[1][-1] == exact[1][-1] == 0
    for one, other in zip(found, exact, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-8)


def test_a_component_that_collapses_spoils_everything():
    x = jnp.asarray([[0.0], [0.0], [0.0], [3.0], [4.0], [6.0]])
    begun = jgmm.make_mixture([0.5, 0.5], [[0.0], [4.0]], [1e-4, 1.0], "spherical")
    spoilt = unrolled.run_unrolled(begun, x, n_steps=3)
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(spoilt))


def test_bad_arguments():
    with pytest.raises(DataError, match="n_steps must be a whole number of at least 0"):
        unrolled.run_unrolled(start(), samples(), n_steps=-1)
    mixture = jgmm.m_step(samples(), np.eye(K)[np.arange(N) % K], "EVI")
    with pytest.raises(DataError, match="no free coordinates"):
        unrolled.run_unrolled(mixture, samples(), n_steps=1)
