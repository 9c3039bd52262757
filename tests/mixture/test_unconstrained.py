"""The bijection between mixtures and free parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import jgmm
from jgmm.mixture.unconstrained import LOG, SOFTPLUS, Free, from_free, to_free

K, D = 3, 2


def given(name, dtype):
    truth = oracle.parameters(2, k=K, d=D, model=name)
    return jgmm.make_mixture(*(a.astype(dtype) for a in truth), name)


@pytest.mark.parametrize("name", oracle.FREE)
def test_there_and_back(name, dtype, tolerance):
    mixture = given(name, dtype)
    for by in (LOG, SOFTPLUS):
        back = by.mixture(by.point(mixture), name)
        for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(mixture), strict=True):
            assert a.dtype == dtype
            np.testing.assert_allclose(a, b, **tolerance)


@pytest.mark.parametrize("name", oracle.FREE)
def test_any_numbers_are_a_mixture(name, dtype):
    rng = np.random.default_rng(0)
    free = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 3, dtype),
        to_free(given(name, dtype)),
    )
    mixture = from_free(free, name)
    np.testing.assert_allclose(mixture.weights.sum(), 1, rtol=1e-6)
    assert np.isfinite(jgmm.log_prob(mixture, np.zeros((1, D), dtype))).all()
    # A covariance is positive definite: its factor has a positive diagonal and nothing above it.
    cholesky = np.asarray(mixture.cholesky)
    assert (np.diagonal(cholesky, axis1=1, axis2=2) > 0).all()
    np.testing.assert_array_equal(cholesky, np.tril(cholesky))


@pytest.mark.parametrize("name", sorted(set(oracle.NAMES) - set(oracle.FREE)))
def test_a_model_that_ties_its_numbers_is_refused(name):
    with pytest.raises(jgmm.DataError, match=f"{name!r} has no free coordinates; .*EII, spherical"):
        to_free(given(name, np.float64))
    truth = oracle.parameters(2, k=1, d=D, model=name)
    to_free(jgmm.make_mixture(*truth, name))  # one component is one Gaussian


def test_logits_are_free_up_to_a_constant(dtype, tolerance):
    free = to_free(given("full", dtype))
    moved = Free(free.logits + 7, free.means, free.scale)
    np.testing.assert_allclose(
        from_free(moved, "full").weights, from_free(free, "full").weights, **tolerance
    )


def test_above_the_diagonal_nothing_happens_however_large():
    free = to_free(given("full", np.float64))
    spoiled = Free(free.logits, free.means, free.scale + jnp.triu(jnp.full((K, D, D), 1e4), 1))
    x = np.ones((4, D))

    def total(free):
        return jgmm.log_prob(from_free(free, "full"), x).sum()

    assert total(spoiled) == total(free)
    gradient = jax.grad(total)(spoiled)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    np.testing.assert_array_equal(jnp.triu(gradient.scale, 1), 0)
