"""Fits from many starts: batches of starts, the best valid restart, the outcomes of all."""

import jax
import numpy as np
import oracle

import jgmm
from jgmm._core import budget

N, K, D = 80, 3, 2


def test_batches_of_starts_do_not_change_restarts(monkeypatch):
    x = oracle.draw(0, N, *oracle.parameters(6, k=K, d=D))
    monkeypatch.setattr(budget, "SMALL_WORK", 1)  # small problems have room for more starts at once
    whole = jgmm.fit(jax.random.key(1), x, K, n_restarts=7, init="points")
    monkeypatch.setattr(budget, "MAX_STARTS_AT_ONCE", 3)
    batches = jgmm.fit(jax.random.key(1), x, K, n_restarts=7, init="points")
    np.testing.assert_array_equal(batches.restarts.best, whole.restarts.best)
    np.testing.assert_allclose(
        batches.restarts.log_likelihood, whole.restarts.log_likelihood, rtol=1e-10
    )
    np.testing.assert_allclose(batches.log_likelihood, whole.log_likelihood, rtol=1e-10)
    assert batches.restarts.status.shape == (7,)
