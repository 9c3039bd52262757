"""Fits by gradients: the optimum of EM, reached another way."""

import jax
import numpy as np
import oracle
import pytest
from gradient_cases import ADAM, KEY, LBFGS, SGD, K, samples

import jgmm
from jgmm._core import budget
from jgmm._core.status import Status
from jgmm.gradient.fit import fit


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


@pytest.mark.parametrize("name", ["gradient_tol", "tol", "rtol", "max_passes"])
def test_rules_below_zero_are_refused(name):
    with pytest.raises(jgmm.DataError, match=f"{name} must be at least zero"):
        fit(KEY, samples(), K, optimizer=SGD, **{name: -1.0})


def test_an_unknown_parametrization_is_refused():
    with pytest.raises(jgmm.DataError, match="Known: log, softplus, augmented"):
        fit(KEY, samples(), K, optimizer=SGD, parametrization="exp")


def test_line_searches_are_counted():
    """L-BFGS makes two passes a step at least: one where it is, one where it would go."""
    one = {"init": "points", "n_restarts": 1}
    kept = {"optimizer": LBFGS, "gradient_tol": 1e-4, "max_steps": 2000} | one
    free = fit(KEY, samples(), K, **kept)
    bound = fit(KEY, samples(), K, **kept, max_passes=2 * float(free.n_steps))
    assert free.status == Status.CONVERGED
    assert bound.status == Status.STEPS_RAN_OUT
    assert bound.n_steps < free.n_steps


def test_starts_are_those_of_em_and_do_not_depend_on_how_many():
    x = samples()
    kept = {"optimizer": SGD, "max_steps": 5, "gradient_tol": 0.0, "init": "points"}
    few = fit(KEY, x, K, n_restarts=2, **kept).restarts
    many = fit(KEY, x, K, n_restarts=4, **kept).restarts
    np.testing.assert_allclose(many.log_likelihood[:2], few.log_likelihood, rtol=1e-6)
    start = fit(KEY, x, K, optimizer=SGD, max_steps=0, init="points")
    em = jgmm.fit(KEY, x, K, max_steps=0, init="points")
    np.testing.assert_allclose(start.log_likelihood, em.log_likelihood, rtol=1e-6)


def test_batches_of_starts_do_not_change_the_mini_batches_of_a_restart(monkeypatch):
    kept = {"optimizer": SGD, "max_steps": 5, "batch_size": 16, "init": "points", "n_restarts": 4}
    whole = fit(KEY, samples(), K, **kept).restarts
    monkeypatch.setattr(budget, "MAX_STARTS_AT_ONCE", 2)
    parts = fit(KEY, samples(), K, **kept).restarts
    np.testing.assert_allclose(parts.log_likelihood, whole.log_likelihood, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(set(oracle.NAMES) - set(oracle.FREE)))
def test_a_model_without_free_coordinates_is_refused(name):
    """A step in the numbers of its storage would leave the model."""
    with pytest.raises(jgmm.DataError, match=f"{name!r} has no free coordinates.*full.*jgmm.fit"):
        fit(KEY, samples(), K, optimizer=SGD, covariance=name)


@pytest.mark.parametrize("size", [0, -1])
def test_an_empty_batch_is_refused(size):
    with pytest.raises(jgmm.DataError, match="batch_size"):
        fit(KEY, samples(), K, optimizer=SGD, batch_size=size)
