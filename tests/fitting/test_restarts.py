"""Batched restarts: results do not depend on how many run at once."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from jgmm._core import budget, compilation
from jgmm._data.samples import make_samples
from jgmm._data.standardization import center_and_scale
from jgmm.em.algorithm import EM
from jgmm.em.options import make_control
from jgmm.fitting import restarts
from jgmm.initialization.draw import draw_numbered

N, K, D, R = 80, 3, 2, 13


@pytest.fixture(scope="module")
def problem():
    x = oracle.draw(0, N, *oracle.parameters(6, k=K, d=D))
    samples = center_and_scale(make_samples(x), True)
    starts = draw_numbered(
        jax.random.key(0), jnp.arange(R), samples, np.ones(K, bool), "full", "points"
    )
    return samples, starts, make_control(jnp.float64, None, None, 0.0)


def ran(problem, work, progress=None):
    samples, starts, control = problem
    return restarts.run_restarts(EM(2000), starts, samples, control, work, progress)


@pytest.fixture(scope="module")
def together(problem):
    """All starts side by side."""
    return ran(problem, work=1)


@pytest.mark.parametrize("width", [1, 4])
def test_starts_that_wait_give_the_same_results(problem, together, width, monkeypatch):
    monkeypatch.setattr(budget, "MIN_BATCH", width)
    in_turn = ran(problem, work=budget.BATCH_WORK // width)
    assert in_turn.states.status.shape == (width,)
    for name in ("status", "n_steps", "collapsed", "best"):
        np.testing.assert_array_equal(
            getattr(in_turn.outcomes, name), getattr(together.outcomes, name)
        )
    np.testing.assert_allclose(
        in_turn.outcomes.log_likelihood, together.outcomes.log_likelihood, rtol=1e-10
    )
    steps = int(together.best.n_steps) + 1
    np.testing.assert_allclose(
        in_turn.best_history[:steps], together.best_history[:steps], rtol=1e-10
    )
    np.testing.assert_allclose(in_turn.best.mixture.means, together.best.mixture.means, atol=1e-6)


def test_narrowing_changes_nothing(problem, together, monkeypatch):
    monkeypatch.setattr(budget, "MIN_BATCH", 2)
    monkeypatch.setattr(budget, "NARROWING_WORK", 1)
    narrowed = ran(problem, work=budget.BATCH_WORK // 8)
    assert narrowed.states.status.shape == (2,)  # it did narrow, from 8
    np.testing.assert_array_equal(narrowed.outcomes.n_steps, together.outcomes.n_steps)
    np.testing.assert_allclose(
        narrowed.outcomes.log_likelihood, together.outcomes.log_likelihood, rtol=1e-10
    )
    np.testing.assert_array_equal(narrowed.outcomes.best, together.outcomes.best)


def test_progress_ends_with_the_result_and_nothing_running(problem, together):
    reports, compiled = [], compilation.programs_of(restarts._compiled_iterate.quick)
    found = ran(problem, work=1, progress=reports.append)
    # With progress, too, there is one program.
    assert compilation.programs_of(restarts._compiled_iterate.quick) == compiled > 0
    np.testing.assert_array_equal(found.outcomes.n_steps, together.outcomes.n_steps)
    assert len(reports) == -(-int(together.iterations) // budget.CHUNK_STEPS)
    assert reports[-1].n_running == 0
    assert reports[-1].n_restarts == R
    assert all(after.n_running <= before.n_running for before, after in itertools.pairwise(reports))
