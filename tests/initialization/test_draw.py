"""The R starts of a fit: how they are drawn, and what is refused as one."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import jgmm
from jgmm._data.samples import make_samples
from jgmm.initialization.draw import draw
from jgmm.initialization.methods import PORTFOLIO

KEY = jax.random.key(0)
N, K, D, R = 60, 3, 2, 12


@pytest.fixture(scope="module")
def x(dtype):
    return oracle.draw(1, N, *oracle.parameters(5, k=K, d=D)).astype(dtype)


def fit(x, n_restarts=R, **options):
    options = {"covariance": "diag", "init": "points", "max_steps": 5} | options
    return jgmm.fit(KEY, x, K, n_restarts=n_restarts, **options)


def test_each_restart_has_a_start_of_its_own_however_many_there_are(x):
    few, many = (
        draw(KEY, make_samples(x), K, covariance="diag", init="points", n_restarts=n)
        for n in (R // 2, R)
    )
    np.testing.assert_array_equal(few.means, many.means[: R // 2])
    assert len(np.unique(np.asarray(many.means), axis=0)) == R


def test_starts_given_back_lead_where_the_fit_went(x, tolerance):
    starts = draw(
        jax.random.key(0), make_samples(x), K, covariance="diag", init="points", n_restarts=R
    )
    assert starts.means.shape == (R, K, D)
    result, again = fit(x), fit(x, init=starts)
    np.testing.assert_allclose(
        again.restarts.log_likelihood, result.restarts.log_likelihood, **tolerance
    )
    np.testing.assert_array_equal(again.restarts.status, result.restarts.status)


def test_a_portfolio_takes_its_methods_in_turn(x, tolerance):
    def drawn(init):
        return draw(KEY, make_samples(x), K, covariance="diag", init=init, n_restarts=R)

    whole = drawn("portfolio")
    for i, name in enumerate(PORTFOLIO):
        turn = slice(i, None, len(PORTFOLIO))
        # Of short runs of EM that lead to one optimum, rounding chooses: they differ in the order
        # of their components, and in what ten steps leave to do.
        near = {"atol": 1e-2} if name == "short_em" else tolerance
        mine, other = (np.sort(each.means[turn], axis=1) for each in (whole, drawn(name)))
        np.testing.assert_allclose(mine, other, **near)


def test_a_fit_of_a_portfolio_is_that_of_its_starts(x, tolerance):
    """The fit draws in groups of one method each, and puts them where they belong."""
    starts = draw(KEY, make_samples(x), K, covariance="diag", init="portfolio", n_restarts=R)
    found, given = fit(x, init="portfolio"), fit(x, init=starts)
    few = fit(x, init="portfolio", n_restarts=R // 2)
    values = found.restarts.log_likelihood
    np.testing.assert_allclose(values, given.restarts.log_likelihood, **tolerance)
    np.testing.assert_allclose(values[: R // 2], few.restarts.log_likelihood, **tolerance)


def test_starts_see_columns_as_they_are_if_asked(dtype):
    """Two clusters in a column of large numbers, two more in one of small numbers."""
    x = np.asarray([[a, b] for a in (0, 100) for b in (0, 1) for _ in range(4)], dtype)
    x += oracle.draw(0, 16, [1.0], [[0.0, 0.0]], [0.01 * np.eye(2)]).astype(dtype)

    def means(scaled):
        options = {"init": "kmeans", "n_restarts": 20, "scaled": scaled}
        found = draw(jax.random.key(0), make_samples(x), 2, **options)
        return np.sort(np.asarray(found.means), axis=1)

    np.testing.assert_allclose(np.abs(means(False)[:, :, 0] - [0, 100]), 0, atol=1)
    by_small = np.abs(means(True)[:, :, 1] - [0, 1]).max(axis=1) < 0.2
    assert 0 < by_small.sum() < 20


def test_as_many_restarts_as_starts_are_given(x):
    one = fit(x, 1, max_steps=0).mixture
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), one)
    with pytest.raises(jgmm.DataError, match=r"init is 2 start\(s\).*it is 3"):
        fit(x, 3, init=two)
