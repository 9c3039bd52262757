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


def padded(x, n_rows=64):
    """Rows, and weights of one; then rows of weight zero that hold anything."""
    more = n_rows - len(x)
    rows = np.concatenate([x, np.full((more, x.shape[1]), np.nan, x.dtype)])
    return rows, np.repeat(np.asarray([1, 0], x.dtype), [len(x), more])


@pytest.mark.parametrize(
    ("n_rows", "weight", "min_step"),
    [(64, 1, 0.0), (1, 1, 0.0), (32, 1, 0.0), (32, 2, 0.0), (64, 100, 0.0), (16, 1, 0.9)],
)
def test_a_batch_counts_by_its_weight(dtype, tolerance, n_rows, weight, min_step):
    """Its step size is that of so many rows beside what the earlier ones count for."""
    x = stream(64 + n_rows).astype(dtype)
    state = online.start(start(dtype), x[:64], min_step=min_step)
    for time in (0.0, n_rows * weight / 64):
        rows, weights = padded(x[64:])
        after = online.partial_fit(state, rows, weight * weights)
        full = max((time + 1 + 2) ** -0.6, min_step)
        earlier = 64 * (1 - full) / full
        step = n_rows * weight / (n_rows * weight + earlier)
        mean = jgmm.log_prob(state.mixture, x[64:]).mean()
        expected = state.mean_log_prob + step * (mean - state.mean_log_prob)
        np.testing.assert_allclose(after.mean_log_prob, expected, **tolerance)
        state = after
    if n_rows * weight == 64:  # a full batch: as Cappé and Moulines have it
        np.testing.assert_allclose(step, max(full, min_step), rtol=1e-12)


@pytest.mark.parametrize("sizes", [[64], [1, 63], [21, 21, 21, 1], [40, 24]])
def test_with_alpha_one_every_row_counts_the_same_however_they_are_cut(dtype, tolerance, sizes):
    """The first rows count twice, their offset; one component needs no responsibilities."""
    x, first = stream(64).astype(dtype), stream(20, seed=1).astype(dtype)
    one = jgmm.m_step(first, np.ones((20, 1)), "diag")
    state = online.start(one, first, alpha=1.0, offset=2.0)
    for part in np.split(x, np.cumsum(sizes)[:-1]):
        state = online.partial_fit(state, *padded(part))
    whole, weights = np.concatenate([x, first]), np.repeat([1.0, 2.0], [64, 20])
    mean = np.average(whole, axis=0, weights=weights)
    variance = np.average((whole - mean) ** 2, axis=0, weights=weights)
    np.testing.assert_allclose(state.mixture.means[0], mean, **tolerance)
    np.testing.assert_allclose(state.mixture.variances[0], variance, **tolerance)
    assert int(state.n_batches) == len(sizes)
    np.testing.assert_allclose(state.elapsed, 64 / 20, rtol=1e-6)


def test_batches_need_not_have_the_shape_of_the_first_rows():
    x = stream(201)
    one = jgmm.m_step(x[:100], np.ones((100, 1)), "diag")
    state = online.start(one, x[:100], alpha=1.0, offset=1.0, batch_weight=50)
    state = online.partial_fit(online.partial_fit(state, x[100:200]), x[200:])
    # The first hundred rows count as the 50 of one batch.
    mean = np.average(x, axis=0, weights=np.repeat([0.5, 1.0], [100, 101]))
    np.testing.assert_allclose(state.mixture.means[0], mean, rtol=1e-9)


def test_rows_of_weight_zero_change_nothing(dtype):
    x = stream(64).astype(dtype)
    state = online.start(start(dtype), x)
    rows, weights = padded(x[:0])
    after = online.partial_fit(state, rows, weights)
    for one, other in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_last_batch_of_one_row_counts_as_one_row():
    x = stream(257)
    options = {"batch": 128, "subsample": 128, "init": start()}
    without, found = (online.fit(KEY, x[:n], 3, **options).mixture for n in (256, 257))
    # A whole batch is 128 rows, so one moves a weight by less than 1/128.
    np.testing.assert_allclose(found.weights, without.weights, atol=1 / 128)
    np.testing.assert_allclose(found.means, without.means, atol=0.1)
    weighted = np.ones(384), np.concatenate([x, np.full((127, 2), np.nan)])
    weighted[0][256:] = 0
    same = online.fit(KEY, [weighted[::-1]], 3, **options).mixture
    for one, other in zip(jax.tree.leaves(same), jax.tree.leaves(without), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_units_of_the_weights_do_not_matter():
    x, weights = stream(384), np.random.default_rng(0).uniform(0, 2, 384)
    weights[:200:3] = 0
    options = {"batch": 128, "subsample": 128, "init": start()}
    one, other = (online.fit(KEY, [(x, c * weights)], 3, **options).mixture for c in (1, 1024))
    np.testing.assert_allclose(one.means, other.means, rtol=1e-9)


def test_every_pass_must_read_the_same_rows():
    class Growing:
        n = 300

        def __iter__(self):
            self.n += 1
            return iter([stream(self.n)])

    options = {"batch": 128, "subsample": 128, "init": start()}
    with pytest.raises(DataError, match="303 rows at first and 304 later"):
        online.fit(KEY, Growing(), 3, n_passes=2, **options)
    with pytest.raises(DataError, match="303 rows at first and 304 later"):
        online.fit(KEY, Growing(), 3, **options)  # in the pass of the log-likelihood
    spent = iter([stream(128), stream(128)])
    with pytest.raises(DataError, match="128 rows at first and 0 later"):
        online.fit(KEY, lambda: spent, 3, **options | {"subsample": 300})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch": 0}, "batch must be a whole number of at least 1; it is 0"),
        ({"subsample": 0}, "subsample must be a whole number of at least 1; it is 0"),
        ({"n_passes": -1}, "n_passes must be a whole number of at least 0; it is -1"),
        ({"full_steps": -1}, "full_steps must be a whole number of at least 0; it is -1"),
        ({"max_steps": -1}, "max_steps must be a whole number of at least 0; it is -1"),
        ({"race": -1}, "race"),
    ],
)
def test_counts_that_make_no_sense_are_refused(options, said):
    with pytest.raises(DataError, match=said):
        online.fit(KEY, stream(20), 3, **options)
    nothing = [(stream(20), np.zeros(20))]
    with pytest.raises(DataError, match="zero for every sample"):
        online.fit(KEY, nothing, 3)


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


@pytest.mark.parametrize("batch_weight", [0.0, -1.0, np.nan, np.inf])
def test_a_whole_batch_must_have_a_weight(batch_weight):
    with pytest.raises(DataError, match="batch_weight must be finite and above zero"):
        online.start(start(), stream(20), batch_weight=batch_weight)
