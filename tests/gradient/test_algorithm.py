"""Gradient ascent as an algorithm: when it stops, and what its result is of."""

import numpy as np
import optax
import pytest
from gradient_cases import KEY, PLAIN, SGD, K, N, samples
from marks import in_double

import jgmm
from jgmm._core.status import Status
from jgmm.gradient.fit import fit


@pytest.fixture(scope="module")
def x(dtype):
    return samples().astype(dtype)


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
    flat = fit(KEY, x, K, **(PLAIN | {"gradient_tol": 0.1}))
    assert flat.status == Status.CONVERGED
    again = fit(KEY, x, K, **(PLAIN | {"gradient_tol": 0.103}))
    assert again.n_steps <= flat.n_steps < 40


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
