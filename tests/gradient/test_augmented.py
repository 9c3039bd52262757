"""The reformulation with augmented samples: the same densities, and the same optima."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import jgmm
from jgmm._core.errors import DataError
from jgmm._data.samples import make_samples
from jgmm.gradient.augmented import AugmentedSpd
from jgmm.gradient.optimizer import objective

K, D = 2, 2
AUGMENTED = AugmentedSpd()
mixture_at = jax.jit(lambda point: AUGMENTED.mixture(point, "full"))


def given():
    return jgmm.make_mixture(*oracle.parameters(2, k=K, d=D))


def test_there_and_back():
    mixture = given()
    back = mixture_at(AUGMENTED.point(mixture))
    for one, other in zip(jax.tree.leaves(back), jax.tree.leaves(mixture), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_density_is_that_of_augmented_samples():
    """At any point: √2π exp(1/2) N((x, 1) | 0, S), by another route, summed over components."""
    rng = np.random.default_rng(0)
    point = jax.tree.map(lambda leaf: leaf + 0.3 * rng.normal(size=leaf.shape),
                         AUGMENTED.point(given()))  # fmt: skip
    x = rng.normal(size=(5, D))
    factor = np.tril(point.factor)
    factor[:, range(D + 1), range(D + 1)] = np.exp(factor[:, range(D + 1), range(D + 1)])
    pi = np.exp(point.logits) / np.exp(point.logits).sum()
    expected = [
        oracle.logsumexp(
            [
                np.log(p * np.sqrt(2 * np.pi)) + 0.5
                + oracle.log_gaussian(np.append(row, 1), np.zeros(D + 1), c @ c.T)
                for p, c in zip(pi, factor, strict=True)
            ]
        )
        for row in x
    ]  # fmt: skip
    found = mixture_at(point)
    assert found.weights.sum() < 1
    np.testing.assert_allclose(jgmm.log_prob(found, x), expected, rtol=1e-12)


def test_an_optimum_of_em_is_one_of_the_reformulation():
    x = oracle.draw(0, 90, *oracle.parameters(4, k=K, d=D))
    start = jgmm.make_mixture(*oracle.parameters(5, k=K, d=D))
    end = jgmm.fitting.run_em(start, x, tol=1e-15, rtol=0.0, max_steps=500)
    loss = objective(lambda point: AUGMENTED.mixture(point, "full"), make_samples(x))
    value, slope = jax.jit(jax.value_and_grad(loss))(AUGMENTED.point(end.mixture))
    np.testing.assert_allclose(-90 * value, end.log_likelihood, rtol=1e-12)
    for leaf in jax.tree.leaves(slope):
        np.testing.assert_allclose(leaf, 0, atol=1e-6)


@pytest.mark.parametrize("name", ["tied", "diag", "EVV"])
def test_other_models_are_refused(name):
    with pytest.raises(DataError, match=f"cannot hold {name!r}"):
        jgmm.gradient.fit(
            jax.random.key(0), jnp.eye(4), 2, optimizer=jgmm.gradient.NewtonCG(), covariance=name,
            parametrization="augmented",
        )  # fmt: skip
