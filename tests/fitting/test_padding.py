"""Sizes that many problems share: one program for all of them, and the same results."""

import jax
import numpy as np
import pytest

import jgmm
from jgmm._core import budget
from jgmm._core.compilation import programs_of
from jgmm._data.samples import make_samples
from jgmm.em.algorithm import EM
from jgmm.em.options import Options
from jgmm.fitting import in_memory, padding, restarts
from jgmm.initialization import methods

KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(2)
    means = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 7.0]])
    return means[rng.integers(3, size=120)] + rng.normal(size=(120, 2))


def compiled():
    """Return the number of programs of each kind that fits have compiled so far."""
    programs = restarts._compiled_iterate, methods._kmeans_centers, methods._assign
    return [programs_of(each.quick) + programs_of(each.usual) for each in programs]


def test_one_program_serves_other_numbers_of_samples_components_and_starts(data, dtype):
    x = data.astype(dtype)
    jgmm.fit(KEY, x, 3, n_restarts=2, ridge=1e-3)
    before = compiled()
    for n, k, r in ((120, 2, 2), (90, 3, 2), (120, 9, 1), (77, 4, 20), (120, 1, 9)):
        result = jgmm.fit(jax.random.key(n), x[:n], k, n_restarts=r, ridge=1e-3)
        assert result.mixture.means.shape == (k, 2)
        assert result.restarts.status.shape == (r,)
    jgmm.fit(KEY, x, 3, sample_weight=np.arange(120.0), ridge=1e-2)
    assert compiled() == before


@pytest.mark.parametrize(
    ("covariance", "init"),
    [("full", "kmeans"), ("tied", "kmeans"), ("spherical", "kmeans"), ("diag", "points")],
)
def test_padding_does_not_change_a_fit(data, covariance, init):
    """Inside ``jit`` nothing is padded, and the draws are the same."""

    def fit(key, x):
        return jgmm.fit(key, x, 3, covariance=covariance, init=init, n_restarts=3)

    padded, exact = fit(KEY, data), jax.jit(fit)(KEY, data)
    found, expected = padded.restarts, exact.restarts
    # EM stops where a step gains 1e-8 a sample: two programs stop that far apart.
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, atol=120 * 1e-6)
    np.testing.assert_array_equal(found.status, expected.status)
    np.testing.assert_allclose(padded.mixture.means, exact.mixture.means, atol=1e-2)


def test_a_restart_does_not_depend_on_their_number(data):
    few, many = (jgmm.fit(KEY, data, 4, n_restarts=r).restarts for r in (3, 20))
    np.testing.assert_array_equal(few.log_likelihood, many.log_likelihood[:3])
    np.testing.assert_array_equal(few.n_steps, many.n_steps[:3])


def test_labels_noise_and_given_starts_are_padded_with_the_samples(data):
    groups = (data[:, 0] > 3) + 2 * (data[:, 1] > 3.5)
    known = np.where(np.arange(120) % 3 == 0, groups, -1)
    by_key = jgmm.fit(KEY, data, 3, labels=known, noise="box", n_restarts=4)
    by_labels = jgmm.fit(KEY, data, 3, labels=known, noise="box", init=groups)
    np.testing.assert_allclose(by_key.log_likelihood, by_labels.log_likelihood, rtol=1e-6)
    np.testing.assert_allclose(by_key.mixture.means, by_labels.mixture.means, atol=1e-3)


def test_large_problems_keep_their_numbers(data, monkeypatch):
    samples, options = make_samples(data), Options(n_restarts=4)
    assert padding.shapes_for(samples, 3, options) == padding.Shapes(True, 9, 256)
    monkeypatch.setattr(budget, "SMALL_WORK", 1)
    assert padding.shapes_for(samples, 3, options) == padding.Shapes(True, 3, None)
    result = in_memory.fit_unchecked(KEY, samples, 3, options)
    assert result.mixture.means.shape == (3, 2)
    assert result.restarts.status.shape == (4,)


def test_there_is_room_for_all_starts():
    samples = make_samples(np.arange(20.0)[:, None])
    room = [padding.shapes_for(samples, 2, Options(n_restarts=r)).room for r in (1, 300, 9000)]
    assert room == [256, 1024, 4096]


def test_labels_as_a_start_keep_their_length_where_samples_do(data, monkeypatch):
    groups = (data[:, 0] > 3) + 2 * (data[:, 1] > 3.5)
    monkeypatch.setattr(budget, "MAX_PADDED_BYTES", 1)  # as if there were too many samples to copy
    result = jgmm.fit(KEY, data, 3, init=groups)
    assert result.mixture.means.shape == (3, 2)


def test_runs_without_a_start_take_no_steps(data):
    samples, starts = make_samples(data), jgmm.initialization.draw(KEY, data, 3, n_restarts=8)
    options = Options()
    batch = restarts.run_restarts(
        EM(5), starts, samples, options.control(samples, 3), 1, n_starts=3
    )
    n_steps = np.asarray(batch.states.n_steps)
    assert (n_steps[:3] > 0).all()
    assert (n_steps[3:] == 0).all()
    assert (np.asarray(batch.outcomes.status)[3:] == -1).all()
