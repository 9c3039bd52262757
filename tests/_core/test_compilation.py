"""Compilation: matrix products in full precision, and quick programs for little work."""

import concurrent.futures
import os
import pathlib

import jax
import numpy as np
import optax
import oracle
import pytest

import jgmm
from jgmm._core import budget, compilation

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
def test_little_work_is_compiled_quickly_and_what_the_user_set_stays(monkeypatch, flags):
    monkeypatch.setenv("XLA_FLAGS", flags)
    compilation._options.cache_clear()
    quick, usual = compilation._options(True), compilation._options(False)
    compilation._options.cache_clear()
    assert bool(quick) == (flags == "")  # what the user has set stays
    assert usual is None
    asked = []
    monkeypatch.setattr(compilation, "_options", lambda quick: asked.append(quick))
    square = compilation.JitByWork(lambda x, n: n * x @ x.T, static_argnums=1)
    x = np.random.default_rng(0).normal(size=(5, 3))
    for work in (1, 10**12):
        np.testing.assert_allclose(square(work, x, 2), 2 * x @ x.T, rtol=1e-14)
    assert asked == [True, False]


def test_inside_a_transformation_options_do_not_matter():
    """JAX refuses options there, for arguments that are not traced, too."""
    square = compilation.JitByWork(lambda x: (x**2).sum())
    x = np.arange(3.0)
    np.testing.assert_array_equal(jax.jit(lambda x: square(1, x))(x), 5)
    np.testing.assert_array_equal(jax.jit(lambda: square(1, x))(), 5)
    np.testing.assert_array_equal(jax.grad(lambda x: square(1, x))(x), 2 * x)
    np.testing.assert_array_equal(jax.vmap(lambda x: square(1, x))(np.stack([x, x])), [5, 5])
    np.testing.assert_array_equal(jax.vmap(lambda _: square(1, x))(x), [5, 5, 5])


@pytest.fixture
def few(monkeypatch):
    """Room for eight programs; none kept before."""
    monkeypatch.setattr(compilation, "_programs", compilation.Programs())
    monkeypatch.setattr(budget, "MAX_PROGRAMS", 8)
    return compilation._programs


def softly(x):
    return jax.lax.while_loop(lambda y: y.sum() > 1, lambda y: y * 0.5, jax.numpy.tanh(x))


def maps():
    found = pathlib.Path("/proc/self/maps")
    if not found.exists():
        pytest.skip("this system does not list the memory maps of a process")
    return len(found.read_text().splitlines())


def test_a_session_of_many_shapes_keeps_few_programs(few):
    maps()
    compiled, counts = compilation.jit(softly), []
    first = compiled(np.ones(1))
    for n in range(2, 50):
        compiled(np.ones(n))
        counts.append(maps())
    assert len(few) == 8
    assert max(counts[20:]) <= max(counts[8:20]) + 40  # of other threads and of the heap
    np.testing.assert_array_equal(compiled(np.ones(1)), first)  # compiled once more


def test_what_is_used_is_kept(few):
    traced = []

    def watched(x, name):
        traced.append((len(x), name))
        return x.sum()

    compiled = compilation.jit(watched, static_argnums=1)
    for n in range(1, 30):
        compiled(np.ones(n), "a")
        compiled(np.ones(1), "a")
        compiled(np.ones(1), "b")
    assert traced.count((1, "a")) == traced.count((1, "b")) == 1
    compiled(np.ones(2), "a")  # dropped long ago
    assert traced.count((2, "a")) == 2
    assert len(few) == 8


def test_the_programs_of_the_user_stay(few):
    traced = []
    own = jax.jit(lambda x: traced.append(len(x)) or x + 1)
    compiled = compilation.jit(softly)
    for n in range(1, 30):
        own(np.ones(1 + n % 12))
        compiled(np.ones(n))
    assert sorted(traced) == list(range(1, 13))
    assert len(few) == 8


def test_threads_and_functions_that_call_others_lose_no_program(few):
    inner = compilation.jit(lambda x: x.sum())
    outer = compilation.jit(lambda x: inner(x) + inner(2 * x))

    def work(seed):
        order = np.random.default_rng(seed).permutation(40) + 1
        return [float(outer(np.ones(n))) == 3 * n == 3 * float(inner(np.ones(n))) for n in order]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(map(all, pool.map(work, range(4))))
    assert len(few) == 8
