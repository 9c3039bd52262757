"""Compilation: matrix products in full precision, and quick programs for little work."""

import os

import jax
import numpy as np
import optax
import oracle
import pytest

import jgmm
from jgmm._core import compilation

N, K, D = 60, 2, 3
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def x():
    return oracle.draw(0, N, *oracle.parameters(6, k=K, d=D))


def products(function, *args):
    """The precisions of all matrix products in the program of a function, inner programs too."""
    found = []

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "dot_general":
                found.append(equation.params["precision"])
            for inner in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
            ):
                walk(getattr(inner, "jaxpr", inner)) if hasattr(inner, "eqns") else None

    walk(jax.make_jaxpr(function)(*args).jaxpr)
    return found


HIGHEST = (jax.lax.Precision.HIGHEST,) * 2
PROGRAMS = {
    "fit": lambda x: jgmm.fit(KEY, x, K, n_restarts=2, max_steps=2).log_likelihood,
    "race": lambda x: jgmm.fit(KEY, x, K, n_restarts=9, race=3, max_steps=9).log_likelihood,
    "tied": lambda x: jgmm.fit(KEY, x, K, covariance="tied", max_steps=2).log_likelihood,
    "gradient": lambda x: (
        jgmm.gradient.fit(KEY, x, K, optimizer=optax.sgd(0.1), max_steps=2).log_likelihood
    ),
    "kmeans": lambda x: jgmm.kmeans.fit(KEY, x, K).inertia,
    "m_step": lambda x: jgmm.m_step(x, np.full((N, K), 0.5)).scale,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_products_are_exact_unless_asked_otherwise(name, x):
    jax.clear_caches()  # a program traced before would be taken as it is
    found = products(PROGRAMS[name], x)
    assert found
    assert set(found) == {HIGHEST}


def test_the_user_may_ask_for_less(x):
    with jax.default_matmul_precision("bfloat16"):
        found = products(PROGRAMS["m_step"], x)
    low = [precision for precision in found if precision != HIGHEST]
    assert low  # all but the product that only transposes
    assert set(low) == {(jax.lax.Precision.DEFAULT,) * 2}


@pytest.mark.parametrize("flags", ["", os.environ["XLA_FLAGS"]])
def test_little_work_is_compiled_quickly_and_much_with_care(monkeypatch, flags):
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert bool(compilation._quick_options()) == (flags == "")  # what the user has set stays
    square = compilation.JitByWork(lambda x, n: n * x @ x.T, static_argnums=1)
    x = np.random.default_rng(0).normal(size=(5, 3))
    for work, used, unused in ((1, "quick", "usual"), (10**12, "usual", "quick")):
        before = [getattr(square, name)._cache_size() for name in (used, unused)]
        np.testing.assert_allclose(square(work, x, 2), 2 * x @ x.T, rtol=1e-14)
        after = [getattr(square, name)._cache_size() for name in (used, unused)]
        assert after == [before[0] + 1, before[1]]


def test_inside_a_transformation_work_does_not_matter():
    square = compilation.JitByWork(lambda x: (x**2).sum())
    x = np.arange(3.0)
    np.testing.assert_array_equal(jax.jit(lambda x: square(1, x))(x), 5)
    np.testing.assert_array_equal(jax.grad(lambda x: square(1, x))(x), 2 * x)
    np.testing.assert_array_equal(jax.vmap(lambda x: square(1, x))(np.stack([x, x])), [5, 5])
