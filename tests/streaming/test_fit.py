"""A fit to blocks of samples is the fit to the same samples in memory."""

import dataclasses

import jax
import numpy as np
import pytest
from clouds import data, from_rows

import jgmm
from jgmm._core.errors import DataError, FitError
from jgmm._core.status import Status
from jgmm.fitting import single_run
from jgmm.streaming.fit import fit

KEY = jax.random.key(1)
ROUNDING = {"rtol": 6e-5, "atol": 6e-5}  # 500 in float32, as in ``tolerance``
SHORT = {"covariance": "diag", "block_rows": 256, "max_steps": 4}  # tests that share a program


@pytest.fixture(scope="module")
def start():
    return from_rows(data(np.float32)[0])


def same(one, other, tolerance):
    assert int(one.status) == int(other.status)
    assert int(one.n_steps) == int(other.n_steps)
    for a, b in zip(jax.tree.leaves(one.mixture), jax.tree.leaves(other.mixture), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance["rtol"], atol=10 * tolerance["atol"])
    np.testing.assert_allclose(one.log_likelihood, other.log_likelihood, **tolerance)
    np.testing.assert_allclose(one.history, other.history, **tolerance)


def test_steps_are_those_of_samples_in_memory(dtype, tolerance):
    x, weights = data(dtype)
    start = from_rows(x, "full")
    options = {"max_steps": 6, "tol": 0.0, "rtol": 0.0, "ridge": 1e-4}
    expected = single_run.run_em(start, x, weights, **options)
    given = [(x[:250], weights[:250]), (x[250:], weights[250:])]
    found = fit(KEY, given, 3, init=start, block_rows=256, **options)
    assert Status(int(found.status)) is Status.STEPS_RAN_OUT
    same(found, expected, tolerance)


def test_a_prior_and_a_floor_are_those_of_a_fit_in_memory(start):
    x, weights = data(np.float32)
    known = {"prior": "conjugate", "floor": 0.2, "max_steps": 3}
    expected = single_run.run_em(start, x, weights, **known)
    found = fit(KEY, x, 3, init=start, sample_weight=weights, **SHORT | known)
    assert found.log_prior < 0
    assert Status(int(found.status)) is Status.DEGENERATE  # it rests on the floor
    same(found, expected, ROUNDING)
    np.testing.assert_allclose(found.log_prior, expected.log_prior, **ROUNDING)


@pytest.mark.parametrize("options", [{"subsample": 200}, {"subsample": 200, "coreset": True}])
def test_a_fit_ends_where_one_in_memory_ends(options, in_memory):
    x, _ = data(np.float64)
    given = {"covariance": "diag", "n_restarts": 4, "block_rows": 256, **options}
    found = fit(KEY, x, 3, **given)
    assert Status(int(found.status)) is Status.CONVERGED
    assert float(found.log_likelihood) == pytest.approx(float(in_memory.log_likelihood), abs=0.01)


@pytest.fixture(scope="module")
def in_memory():
    return jgmm.fit(KEY, data(np.float64)[0], 3, covariance="diag", n_restarts=4)


def test_several_runs_share_the_reading(start):
    x, _ = data(np.float32)
    both = jax.tree.map(lambda leaf: jax.numpy.stack([leaf, leaf]), start)
    moved = dataclasses.replace(both, means=both.means.at[1].add(0.5))
    counted = Counted([x])
    found = fit(KEY, counted, 3, init=moved, **SHORT)
    assert found.restarts.status.shape == (2,)
    assert int(found.restarts.best) == int(np.argmax(found.restarts.log_likelihood))
    assert counted.passes == 1 + 1 + 5  # the first block, the moments, five E-steps


class Counted:
    def __init__(self, blocks):
        self.blocks, self.passes = blocks, 0

    def __iter__(self):
        self.passes += 1
        return iter(self.blocks)


def test_progress_tells_where_a_fit_is(start):
    x, _ = data(np.float32)
    told = []
    fit(KEY, x, 3, init=start, progress=told.append, **SHORT)
    assert [(pass_progress.step, pass_progress.n_rows) for pass_progress in told] == [
        (step, n) for step in range(-1, 5) for n in (256, 512, 768, 900)
    ]
    assert np.isnan(told[4].log_likelihood) or told[4].log_likelihood == -np.inf
    assert told[-1].log_likelihood < 0
    assert told[-1].timings.computing > 0


def test_bad_problems_are_refused():
    x, weights = data(np.float32)
    for options, text in (
        ({"subsample": 0}, "subsample must be a whole number of at least 1"),
        ({"block_rows": -1}, "block_rows"),
        ({"sample_weight": weights * 0}, "zero for every sample"),
        ({"accelerate": "andersen"}, "Did you mean 'anderson'"),
        (
            {"init": jgmm.make_mixture([1.0], x[:1], np.eye(3)[None], "full")},
            "init is a mixture with",
        ),
        ({"init": from_rows(x), "covariance": "tied"}, r"init is .*'diag'\); asked for .*'tied'"),
        ({"floor": 0.1, "covariance": "VVE"}, "VVE takes no floor"),
        ({"max_steps": -1}, "max_steps must be a whole number of at least 0; it is -1"),
    ):
        with pytest.raises(DataError, match=text):
            fit(KEY, x, 3, **options)
    with pytest.raises(DataError, match="no samples"):
        fit(KEY, [], 3)


def test_a_run_that_collapses_on_the_whole_says_so(start):
    x = np.repeat(np.asarray([[0, 0, 0], [1, 2, 1], [5, 1, 9]], np.float32), 50, axis=0)
    narrow = dataclasses.replace(start, means=jax.numpy.asarray(x[[0, 50, 100]]))
    with pytest.raises(FitError, match="collapsed"):
        fit(KEY, x, 3, init=narrow, **SHORT)


class Early:
    """A source of which only a part is left from some pass on."""

    def __init__(self, x, pass_number):
        self.x, self.left = x, pass_number

    def __iter__(self):
        self.left -= 1
        return iter([self.x[:500], self.x[500:]] if self.left >= 0 else [self.x[:500]])


# The first pass finds the columns; the next takes the moments; a coreset takes one more.
@pytest.mark.parametrize(("pass_number", "coreset"), [(2, False), (2, True), (4, False)])
def test_rows_that_are_missing_in_a_later_pass_are_noticed(start, pass_number, coreset):
    x, _ = data(np.float32)
    options = {"init": "points", "n_restarts": 1} if coreset else {"init": start}
    options |= {"subsample": 200, "coreset": coreset, **SHORT}
    with pytest.raises(DataError, match="900 rows at first and 500 later"):
        fit(KEY, Early(x, pass_number), 3, **options)


def test_an_iterator_that_is_spent_is_noticed(start):
    x, _ = data(np.float32)
    spent = iter([x[:300], x[300:600], x[600:]])
    with pytest.raises(DataError, match=r"600 rows at first and 0 later\..*makes a new iterator"):
        fit(KEY, lambda: spent, 3, init=start, **SHORT)
    spent = iter([x])
    with pytest.raises(DataError, match="first pass over the source found no rows"):
        fit(KEY, lambda: spent, 3, init=start, **SHORT)


def test_an_array_that_changes_during_the_fit_is_noticed(start):
    x, weights = data(np.float32)

    def change(progress):
        if progress.step == 2:
            x[3] += 1

    with pytest.raises(DataError, match="900 rows each time, but with other values or weights"):
        fit(KEY, x, 3, init=start, sample_weight=weights, progress=change, **SHORT)
