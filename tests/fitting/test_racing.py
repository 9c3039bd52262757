"""Racing: which runs go on, and that they end as they would without a race."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

import jgmm
from jgmm._core import budget
from jgmm._core.status import Status
from jgmm._data.samples import make_samples
from jgmm._data.standardization import center_and_scale
from jgmm.em.algorithm import EM
from jgmm.em.options import make_control
from jgmm.fitting import racing, restarts
from jgmm.initialization.draw import draw_numbered

N, K, D, R = 90, 3, 2, 21
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def data():
    return oracle.draw(0, N, *oracle.parameters(6, k=K, d=D))


@pytest.fixture(scope="module")
def raced(data):
    return jgmm.fit(jax.random.key(1), data, K, n_restarts=R, init="kmeans", race=3)


@pytest.fixture(scope="module")
def unraced(data):
    return jgmm.fit(jax.random.key(1), data, K, n_restarts=R, init="kmeans")


def test_every_round_costs_about_the_same_and_ends_with_the_finalists():
    for n_restarts in (9, 64, 100, 4096):
        plan = racing.rounds(n_restarts, 3)
        assert [running for running, _, _ in plan] == [
            n_restarts,
            *(stay for *_, stay in plan[:-1]),
        ]
        assert plan[-1][2] == racing.FINALISTS
        assert all(steps * running <= 2 * 3 * n_restarts for running, steps, _ in plan[:-1])
    assert racing.rounds(8, 3) == []


def test_the_best_is_found_and_other_runs_are_dropped(raced, unraced):
    assert raced.status == Status.CONVERGED
    np.testing.assert_allclose(raced.log_likelihood, unraced.log_likelihood, rtol=1e-9)
    status = np.asarray(raced.restarts.status)
    outrun = status == Status.OUTRUN
    ended = np.isin(status, [Status.CONVERGED, Status.STEPS_RAN_OUT, Status.COLLAPSED])
    assert (outrun | ended).all()
    assert 0 < ended.sum() < R
    # Dropped after the first round, or the second.
    assert set(np.asarray(raced.restarts.n_steps)[outrun].tolist()) <= {3, 15}


def test_runs_that_stay_end_as_they_do_without_a_race(raced, unraced):
    stayed = np.asarray(raced.restarts.status) == Status.CONVERGED
    for name in ("status", "n_steps", "collapsed"):
        own, other = (np.asarray(getattr(each.restarts, name)) for each in (raced, unraced))
        np.testing.assert_array_equal(own[stayed], other[stayed])
    np.testing.assert_allclose(
        raced.restarts.log_likelihood[stayed], unraced.restarts.log_likelihood[stayed], rtol=1e-10
    )
    best, steps = int(raced.restarts.best), int(raced.n_steps) + 1
    assert stayed[best]
    if best == int(unraced.restarts.best):
        np.testing.assert_allclose(raced.history[:steps], unraced.history[:steps], rtol=1e-10)


def test_runs_that_are_dropped_have_lower_log_likelihoods(raced, unraced):
    """The log-likelihood of a run that was dropped is the one it had after as many steps."""
    outrun = np.flatnonzero(np.asarray(raced.restarts.status) == Status.OUTRUN)
    assert (raced.restarts.log_likelihood[outrun] <= raced.log_likelihood).all()
    assert np.isfinite(np.asarray(raced.restarts.log_likelihood)[outrun]).all()


def test_few_starts_run_to_their_ends(data):
    few = jgmm.fit(KEY, data, K, n_restarts=racing.FINALISTS, init="points", race=3)
    assert (np.asarray(few.restarts.status) != Status.OUTRUN).all()


def test_groups_do_not_change_the_race(data):
    """Twenty-one runs in groups of eight, the last of them filled up, or all in one.

    No two starts are the same, so that rounding does not decide which of two copies goes on.
    """
    samples = center_and_scale(make_samples(data), True)
    starts = draw_numbered(KEY, jnp.arange(R), samples, np.ones(K, bool), "full", "points")
    control = make_control(jnp.float64, None, None, 0.0)
    tables = []
    for width in (8, R):
        work = budget.BATCH_WORK // width
        tables.append(racing.race(EM(1000), starts, samples, control, work, 3).outcomes)
    for name in ("status", "n_steps", "collapsed", "best"):
        np.testing.assert_array_equal(*(getattr(outcomes, name) for outcomes in tables))
    np.testing.assert_allclose(*(outcomes.log_likelihood for outcomes in tables), rtol=1e-10)


def test_a_race_inside_a_transformation(data, raced):
    def best(x):
        return jgmm.fit(KEY, x, K, n_restarts=R, init="kmeans", race=3).log_likelihood

    both = jax.jit(jax.vmap(best))(np.stack([data, 2 * data]))
    shift = N * D * np.log(2)
    expected = [raced.log_likelihood, raced.log_likelihood - shift]
    np.testing.assert_allclose(both, expected, rtol=1e-8)  # EM stops a step apart


@pytest.mark.parametrize("steps", [1, 2, -4])
def test_too_short_a_round_is_refused(data, steps):
    with pytest.raises(jgmm.DataError, match=r"race must be 0 .* or at least 3"):
        jgmm.fit(KEY, data, K, n_restarts=R, race=steps)


@pytest.fixture(scope="module")
def batch(data):
    """A batch of six runs; ``with_history`` sets their states."""
    samples = center_and_scale(make_samples(data), True)
    starts = draw_numbered(KEY, jnp.arange(6), samples, np.ones(K, bool), "full", "points")
    return restarts.open_batch(EM(10), starts, 6)


def with_history(batch, rows, status):
    history = jnp.full_like(batch.history, jnp.nan).at[:, :4].set(jnp.asarray(rows))
    held = replace(
        batch.states,
        n_steps=jnp.full(6, 4),
        status=jnp.asarray([int(code) for code in status]),
        log_likelihood=history[:, 3],
    )
    return replace(batch, states=held, history=history)


def test_the_limit_of_geometric_gains_is_exact(batch):
    ratio = np.array([0.5, 0.9, 0.0, 0.98, 0.5, 0.5])
    gains = np.stack([ratio**step for step in range(1, 4)], axis=1)
    rows = np.concatenate([np.zeros((6, 1)), np.cumsum(gains, axis=1)], axis=1)
    found = racing.extrapolated_limit(with_history(batch, rows, [Status.RUNNING] * 6))
    np.testing.assert_allclose(found, ratio / (1 - ratio), rtol=1e-10)


def test_the_limit_of_a_run_that_has_ended_is_its_log_likelihood(batch):
    rows = np.array([[0.0, 1.0, 1.5, 1.75]] * 6)
    status = [Status.CONVERGED] + [Status.RUNNING] * 5
    found = racing.extrapolated_limit(with_history(batch, rows, status))
    np.testing.assert_allclose(found, [1.75, *[2.0] * 5])


def test_ranking_puts_copies_and_failures_behind(batch):
    best = np.array([1.0, 9.0, 5.0, 9.0, 7.0, 20.0])
    rows = best[:, None] * np.ones(4)  # without gains: each is at its limit
    running, collapsed = Status.RUNNING, Status.COLLAPSED
    held = with_history(batch, rows, [running] * 5 + [collapsed])
    order = np.asarray(racing.ranking(held, jnp.asarray(float(N)))).tolist()
    assert order == [1, 4, 2, 0, 3, 5]
