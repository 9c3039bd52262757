"""The gradient path: the same likelihood, maximised another way."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracle
import pytest
from marks import in_double

import jgmm
from jgmm._core.status import Status
from jgmm._data.samples import make_samples
from jgmm.gradient.fit import fit
from jgmm.gradient.optimizer import Evaluation, Optax, objective
from jgmm.mixture.unconstrained import LOG, from_free, to_free

N, K, D = 90, 2, 2
KEY = jax.random.key(0)
ADAM, SGD, LBFGS = optax.adam(5e-2), optax.sgd(0.3), optax.lbfgs()
# What most fits share, so that they are one program.
PLAIN = {"optimizer": SGD, "max_steps": 40, "gradient_tol": 0.0, "init": "points"}


@functools.cache
def samples():
    truth = oracle.parameters(4, k=K, d=D)
    return oracle.draw(0, N, *truth)


@pytest.fixture(scope="module")
def x(dtype):
    return samples().astype(dtype)


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


@pytest.mark.parametrize(
    ("optimizer", "precision"), [(ADAM, "float32"), (LBFGS, "float64")], ids=["adam", "lbfgs"]
)
def test_ends_where_em_ends(optimizer, precision):
    dtype = np.dtype(precision)
    x = samples().astype(dtype)
    key = jax.random.key(3)  # from here all climb to the higher one of two optima
    em = jgmm.fit(key, x, K, init="points")
    kept = {"gradient_tol": 1e-4, "max_steps": 2000, "init": "points"}
    found = fit(key, x, K, optimizer=optimizer, **kept)
    assert found.status == Status.CONVERGED
    assert found.log_likelihood.dtype == dtype
    # A gradient of 1e-4 leaves its square over the curvature, about 1e-6 nats a sample; in float32
    # EM itself stops when a step gains 1e-6 a sample, some ten steps from the end.
    limit = 1e-3 if dtype == np.float64 else 1e-2
    np.testing.assert_allclose(found.log_likelihood, em.log_likelihood, atol=limit)


@in_double
def test_result_is_of_the_parameters_returned(x):
    found = fit(KEY, x, K, **PLAIN)
    assert found.status == Status.STEPS_RAN_OUT
    assert found.n_steps == 40
    np.testing.assert_allclose(
        jgmm.log_prob(found.mixture, x).sum(), found.log_likelihood, rtol=1e-5
    )
    np.testing.assert_allclose(found.history[40], found.log_likelihood, rtol=1e-7)
    assert found.history[0] < found.history[40]


@in_double
def test_rules_to_stop(x):
    """Passes, the change of the log-likelihood, and the gradient's length: none compiles anew."""
    few = fit(KEY, x, K, **PLAIN, max_passes=9)
    assert few.status == Status.STEPS_RAN_OUT
    assert few.n_steps == 8  # the ninth pass finds where the eighth step has led
    slow = fit(KEY, x, K, **PLAIN, tol=1e-3)
    assert slow.status == Status.CONVERGED
    gain = np.diff(np.asarray(slow.history)) / N
    last = int(slow.n_steps) - 1
    assert 0 < last < 39
    assert (gain[:last] > 1e-3).all()
    assert 0 < gain[last] <= 1e-3
    flat = fit(KEY, x, K, **(PLAIN | {"gradient_tol": 0.03}))
    assert flat.status == Status.CONVERGED
    again = fit(KEY, x, K, **(PLAIN | {"gradient_tol": 0.031}))
    assert again.n_steps <= flat.n_steps < 40


@pytest.mark.parametrize("name", ["gradient_tol", "tol", "rtol", "max_passes"])
def test_rules_below_zero_are_refused(name):
    with pytest.raises(jgmm.DataError, match=f"{name} must be at least zero"):
        fit(KEY, samples(), K, optimizer=SGD, **{name: -1.0})


@pytest.mark.parametrize("given", ["adam", optax.adam, object(), Optax])
def test_what_is_no_optimiser_is_refused(given):
    with pytest.raises(jgmm.DataError, match="have the methods init and step"):
        fit(KEY, samples(), K, optimizer=given)


def test_an_unknown_parametrization_is_refused():
    with pytest.raises(jgmm.DataError, match="Known: log, softplus, augmented"):
        fit(KEY, samples(), K, optimizer=SGD, parametrization="exp")


def test_line_searches_are_counted():
    """L-BFGS makes two passes a step at least: one where it is, one where it would go."""
    kept = {"optimizer": LBFGS, "gradient_tol": 1e-4, "max_steps": 2000, "init": "points"}
    free = fit(KEY, samples(), K, **kept)
    bound = fit(KEY, samples(), K, **kept, max_passes=2 * float(free.n_steps))
    assert free.status == Status.CONVERGED
    assert bound.status == Status.STEPS_RAN_OUT
    assert bound.n_steps < free.n_steps


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


def test_starts_are_those_of_em_and_do_not_depend_on_how_many():
    x = samples()
    kept = {"optimizer": SGD, "max_steps": 5, "gradient_tol": 0.0, "init": "points"}
    few = fit(KEY, x, K, n_restarts=2, **kept).restarts
    many = fit(KEY, x, K, n_restarts=4, **kept).restarts
    np.testing.assert_allclose(many.log_likelihood[:2], few.log_likelihood, rtol=1e-6)
    start = fit(KEY, x, K, optimizer=SGD, max_steps=0, init="points")
    em = jgmm.fit(KEY, x, K, max_steps=0, init="points")
    np.testing.assert_allclose(start.log_likelihood, em.log_likelihood, rtol=1e-6)


def test_mini_batches_climb_and_report_the_whole():
    x = samples()
    kept = {"optimizer": optax.adam(2e-2), "batch_size": 16, "init": "points"}
    found = fit(KEY, x, K, max_steps=150, **kept)
    assert found.status == Status.STEPS_RAN_OUT
    np.testing.assert_allclose(
        jgmm.log_prob(found.mixture, x).sum(), found.log_likelihood, rtol=1e-5
    )
    start = fit(KEY, x, K, optimizer=SGD, max_steps=0, init="points")
    assert found.log_likelihood > start.log_likelihood


def test_a_spike_is_no_optimum():
    """Three samples are one point, on which a component stands."""
    x = samples()
    x = np.concatenate([x[:1], x[:1], x[:1], x[3:]])
    spike = jgmm.make_mixture([0.96, 0.04], np.stack([x.mean(0), x[0]]), [1.5, 1e-6], "spherical")
    with pytest.raises(jgmm.FitError, match="Component 1 collapsed after 12 steps"):
        fit(KEY, x, 2, optimizer=SGD, init=spike, max_steps=12, covariance="spherical")


def test_a_step_that_is_too_large_is_a_status():
    x = samples().astype(np.float32)
    with pytest.raises(jgmm.FitError, match="step size that is too large"):
        fit(KEY, x, K, optimizer=optax.sgd(1e30), max_steps=20, init="points")


def test_weights_of_two_are_doubled_rows():
    half = N // 2
    x = np.tile(samples()[:half], (2, 1))
    kept = PLAIN | {"init": np.arange(N) % half % 2}
    counts = np.repeat([2.0, 0.0], half)
    weighted, doubled = (
        fit(KEY, x, K, sample_weight=weight, **kept) for weight in (counts, np.ones(N))
    )
    np.testing.assert_allclose(weighted.log_likelihood, doubled.log_likelihood, rtol=1e-12)


@pytest.mark.parametrize("name", sorted(set(oracle.NAMES) - set(oracle.FREE)))
def test_a_model_without_free_coordinates_is_refused(name):
    """A step in the numbers of its storage would leave the model."""
    with pytest.raises(jgmm.DataError, match=f"{name!r} has no free coordinates.*full.*jgmm.fit"):
        fit(KEY, samples(), K, optimizer=SGD, covariance=name)


@pytest.mark.parametrize("size", [0, -1])
def test_an_empty_batch_is_refused(size):
    with pytest.raises(jgmm.DataError, match="batch_size"):
        fit(KEY, samples(), K, optimizer=SGD, batch_size=size)
