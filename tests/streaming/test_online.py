"""Online EM: after one pass it is nearer to the optimum than EM after one step."""

import jax
import numpy as np
import pytest

import jgmm
from jgmm._core.errors import DataError
from jgmm._core.status import Status
from jgmm.streaming import online

KEY = jax.random.key(2)


def stream(n, seed=0):
    rng = np.random.default_rng(seed)
    centers = np.asarray([[0, 0], [3, 0], [0, 3.0]])
    return centers[rng.integers(3, size=n)] + rng.normal(size=(n, 2)) * [1, 0.7]


def start(dtype=np.float64):
    means = np.asarray([[0.5, 0.5], [1.5, 0.5], [0.5, 1.5]])
    made = jgmm.make_mixture(np.ones(3) / 3, means, np.stack([np.eye(2) * 2] * 3), "full")
    return jax.tree.map(lambda leaf: leaf.astype(dtype), made)


def test_one_pass_is_worth_more_than_one_step_of_em():
    x = stream(4000)
    em = jgmm.fitting.run_em(start(), x)
    found = online.fit(KEY, x, 3, batch=125, init=start(), subsample=125)
    assert Status(int(found.status)) is Status.STEPS_RAN_OUT
    reached = em.history[1], found.log_likelihood
    lost = [float(em.log_likelihood - each) / len(x) for each in reached]
    assert lost[1] < lost[0] / 2


def test_the_start_is_made_of_the_first_rows():
    options = {"covariance": "EII", "n_restarts": 2, "init": "points"}
    found = online.fit(KEY, stream(1000), 3, batch=125, subsample=125, **options)
    truth = [[0, 0], [0, 3], [3, 0]]
    distances = np.linalg.norm(np.asarray(found.mixture.means)[:, None] - truth, axis=2)
    assert distances.min(axis=0).max() < 0.5  # a thousand samples in all


def test_the_first_step_is_that_of_em_where_the_batch_is_all(dtype, tolerance):
    x = stream(400).astype(dtype)
    state = online.start(start(dtype), x)
    np.testing.assert_allclose(
        state.mean_log_prob, jgmm.log_prob(start(dtype), x).mean(), **tolerance
    )
    learned = online.partial_fit(state, x)  # the same statistics, however blended
    expected, _ = jgmm.em_step(start(dtype), x)
    for one, other in zip(jax.tree.leaves(learned.mixture), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=tolerance["rtol"], atol=20 * tolerance["atol"])
    assert int(learned.n_batches) == 1
    assert int(state.n_batches) == 0


def test_a_smallest_step_follows_a_stream_that_moves():
    x = stream(6000)
    x[3000:] += 2
    ends = []
    for min_step in (0.0, 0.3):
        state = online.start(start(), x[:200], alpha=1.0, min_step=min_step)
        for batch in x[200:].reshape(-1, 200, 2):
            state = online.partial_fit(state, batch)
        ends.append(float(jgmm.log_prob(state.mixture, x[5000:]).mean()))
    assert ends[1] > ends[0] + 0.1


def test_a_component_that_collapses_is_reported_and_the_state_kept():
    x = np.concatenate([np.zeros((150, 1)), stream(50)[:, :1] + 20])
    narrow = jgmm.make_mixture([0.5, 0.5], [[0.0], [20.0]], [[[1e-3]], [[1.0]]], "full")
    state = online.start(narrow, x, alpha=0.51)
    for _ in range(400):
        state = online.partial_fit(state, x)
    assert Status(int(state.status)) is Status.COLLAPSED
    assert np.isfinite(state.mixture.means).all()


@pytest.mark.parametrize(
    "options", [{"alpha": 0.5}, {"alpha": 1.1}, {"offset": 0.5}, {"min_step": 1.0}, {"ridge": -1.0}]
)
def test_a_schedule_out_of_bounds_is_refused(options):
    with pytest.raises(DataError, match="alpha must be above 1/2"):
        online.start(start(), stream(20), **options)
