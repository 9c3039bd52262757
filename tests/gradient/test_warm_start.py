"""A warm start: EM's steps as they are, then another optimiser in EM's metric."""

import jax
import numpy as np
import optax
import oracle
import pytest

import jgmm
from jgmm._core.errors import DataError
from jgmm._core.status import Status
from jgmm.gradient.fit import fit
from jgmm.gradient.warm_start import WarmStart

N, K, D, FIRST = 90, 2, 2, 5
KEY = jax.random.key(0)


def test_begins_as_em_and_goes_on_in_its_metric():
    """Gradient steps of size one are EM's there, to first order; momentum makes them fewer."""
    x = oracle.draw(0, N, *oracle.parameters(4, k=K, d=D))
    start = jgmm.make_mixture(*oracle.parameters(5, k=K, d=D))
    em = jgmm.fitting.run_em(start, x, tol=1e-13, rtol=0.0, max_steps=500)
    then = optax.sgd(1.0, momentum=0.5)
    found = fit(KEY, x, K, optimizer=WarmStart(then, FIRST), init=start, max_steps=500)
    assert found.status == Status.CONVERGED
    np.testing.assert_allclose(found.history[: FIRST + 1], em.history[: FIRST + 1], rtol=1e-12)
    next_gain, em_gain = (h.history[FIRST + 1] - h.history[FIRST] for h in (found, em))
    np.testing.assert_allclose(next_gain, em_gain, rtol=0.2)
    assert found.n_steps < em.n_steps
    np.testing.assert_allclose(found.log_likelihood, em.log_likelihood, atol=1e-7)


def test_bad_arguments():
    with pytest.raises(DataError, match="first_steps must be at least zero"):
        WarmStart(optax.lbfgs(), -1)
    with pytest.raises(DataError, match="neither"):
        WarmStart("lbfgs")
    with pytest.raises(DataError, match="coordinates of its own"):
        WarmStart(optax.lbfgs()).init({"of another parametrization": np.zeros(4)})
