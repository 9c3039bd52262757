"""Many data sets as one batch of restarts, against each fitted alone."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
from marks import in_double

import jgmm
from jgmm._core import budget
from jgmm.em.algorithm import EM
from jgmm.em.options import make_control
from jgmm.fitting import many_data_sets

SEARCH = many_data_sets.Search("EII", "points", n_restarts=1, algorithm=EM(100))


@in_double
def test_every_data_set_gets_its_own_fit(dtype, tolerance, monkeypatch):
    """One Gaussian is known in closed form; six runs, two at a time, so that some wait."""
    monkeypatch.setattr(budget, "MAX_DATA_SET_RUNS", 1)
    monkeypatch.setattr(budget, "MIN_BATCH", 2)
    rng = np.random.default_rng(0)
    sets = (rng.normal(size=(3, 20, 1)) * [[[1]], [[3]], [[1]]] + [[[0]], [[2]], [[0]]]).astype(
        dtype
    )
    sets[2] = 4  # without variance it cannot be fitted
    given = jgmm.make_mixture([1.0], np.zeros((1, 1), dtype), [1.0], "EII")
    keys = jax.random.split(jax.random.key(0), 3)
    control = make_control(dtype, None, None, 0.0)
    found = many_data_sets.best_log_likelihoods(keys, jnp.asarray(sets), given, SEARCH, control)
    for x, log_likelihood in zip(sets[:2], found, strict=False):
        inside = (x - x.mean()) / x.std()  # the frame
        expected = oracle.log_likelihood(inside.astype(float), [1.0], [[0.0]], [[[1.0]]])
        np.testing.assert_allclose(log_likelihood, expected, **tolerance)
    assert np.isnan(found[2])


def test_one_start_more():
    one = jgmm.make_mixture([1.0], [[7.0]], [2.0], "EII")
    many = many_data_sets.draw_starts(jax.random.key(0), jnp.arange(6.0)[:, None], 1, SEARCH)
    found = many_data_sets.append_start(many, one)
    assert found.means.shape == (2, 1, 1)
    np.testing.assert_array_equal(found.means[1], one.means)
