"""Starts from labels or from a given mixture."""

import chex
import jax
import numpy as np
import oracle
import pytest
from marks import in_double

import jgmm
from jgmm._data.samples import make_samples
from jgmm._data.standardization import center_and_scale
from jgmm.em.options import Options, make_control
from jgmm.initialization import given
from jgmm.mixture.mixture import to_original

N, K, D = 60, 3, 2


@pytest.fixture(scope="module")
def x(dtype):
    return oracle.draw(0, N, *oracle.parameters(0, k=K, d=D)).astype(dtype)


def inside(x, weight=None, per_column=True):
    return center_and_scale(make_samples(x, weight), per_column)


# Labels and mixtures.


@in_double
@pytest.mark.parametrize("covariance", [*oracle.FREE, "VVE"])
def test_labels_are_one_m_step(covariance, x, dtype, tolerance):
    labels = np.resize([0, 2, 1, 1], N)
    samples = inside(x, per_column=jgmm.covariance.model(covariance).per_column)
    control = make_control(dtype, None, None, 0.0)
    mixture = given.from_labels(labels, samples, K, covariance, control)
    found = to_original(mixture, samples.frame)
    expected = oracle.m_step(x.astype(np.float64), np.eye(K)[labels], covariance)
    if covariance in oracle.ITERATED:  # see em_cases.py
        tolerance = {"rtol": 3e-2, "atol": 3e-2} if dtype == np.float32 else {"rtol": 1e-4}
    np.testing.assert_allclose(found.weights, expected[0], **tolerance)
    np.testing.assert_allclose(found.means, expected[1], **tolerance)
    np.testing.assert_allclose(found.covariances, expected[2], **tolerance)


@pytest.mark.parametrize("help_for_small_classes", [{"prior": "conjugate"}, {"floor": 1e-3}])
def test_a_class_of_two_rows_starts_with_the_prior_and_the_floor_of_the_fit(help_for_small_classes):
    # Two rows span no covariance in two columns: the start once was singular, and the fit failed.
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, (50, 2)), rng.normal(6, 1, (50, 2))])
    labels = np.repeat([0, 1], 50)
    labels[:2] = 2
    result = jgmm.fit(jax.random.key(0), x, 3, init=labels, **help_for_small_classes)
    assert int(result.n_steps) > 0
    assert np.isfinite(float(result.log_likelihood))
    samples = inside(x)
    control = Options(**help_for_small_classes).control(samples, 3)
    start = given.from_labels(labels, samples, 3, "full", control)
    assert np.linalg.eigvalsh(start.covariances[2])[0] > 0.99e-3


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros(N, int), r"every value from 0 to 2; they take \[0\]"),
        (np.resize([0, 1, 3], N), r"they take \[0, 1, 3\]"),
        (np.resize([0, 1, -1], N), r"they take \[-1, 0, 1\]"),
        (np.resize([0.0, 1.0, 2.0], N), "60 whole numbers.*float64"),
        (np.resize([0, 1, 2], N - 1), r"shape \(59,\)"),
        (["a"] * N, "60 whole numbers.*<U1"),
    ],
)
def test_labels_must_make_sense(labels, message, x):
    with pytest.raises(jgmm.DataError, match=message):
        jgmm.fit(jax.random.key(0), x, K, init=labels)


def test_a_label_that_only_missing_rows_have_is_refused(x, dtype):
    """It would be a component without samples."""
    labels, weight = np.resize([0, 1], N), np.ones(N, dtype)
    labels[:4], weight[:4] = 2, 0
    with pytest.raises(jgmm.DataError, match=r"they take \[0, 1\]"):
        jgmm.fit(jax.random.key(0), x, K, init=labels, sample_weight=weight)


@in_double
def test_labels_may_be_traced(x, dtype):
    labels, weight = np.resize([0, 2, 1, 1], N), np.ones(N, dtype)

    def means(labels, weight):
        few = {"covariance": "spherical", "max_steps": 2, "sample_weight": weight}
        return jgmm.fit(jax.random.key(0), x, K, init=labels, **few).mixture.means

    expected = means(labels, weight)
    tolerance = {"rtol": 1e-4, "atol": 1e-4}
    every = jax.vmap(lambda labels: means(labels, weight))(np.stack([labels, K - 1 - labels]))
    np.testing.assert_allclose(every[0], expected, **tolerance)
    np.testing.assert_allclose(every[1], expected[::-1], **tolerance)
    # Where the weights are traced, any row may be missing, and its label anything.
    spare, held = np.where(np.arange(N) == 4, 9, labels), weight * (np.arange(N) != 4)
    found = jax.jit(lambda weight: means(spare, weight))(held)
    np.testing.assert_allclose(found, means(spare, held), **tolerance)
    with pytest.raises(jgmm.DataError, match=r"they take \[0, 1\]"):
        jax.jit(lambda weight: means(labels % 2, weight))(held)


@in_double
def test_a_mixture_is_where_the_fit_starts(x, dtype, tolerance):
    truth = oracle.parameters(0, k=K, d=D, model="diag")
    start = jgmm.make_mixture(*(a.astype(dtype) for a in truth), "diag")
    result = jgmm.fit(jax.random.key(0), x, K, covariance="VVI", init=start, max_steps=5)
    np.testing.assert_allclose(result.history[0], jgmm.log_prob(start, x).sum(), **tolerance)
    ran = jgmm.fitting.run_em(start, x, max_steps=5)
    chex.assert_trees_all_close(result.mixture, ran.mixture, **tolerance)


def test_a_mixture_is_cast_to_the_samples_precision(x, dtype):
    other = np.dtype({4: np.float64, 8: np.float32}[dtype.itemsize])
    truth = oracle.parameters(0, k=K, d=D, model="diag")
    start = jgmm.make_mixture(*(a.astype(other) for a in truth), "diag")
    result = jgmm.fit(jax.random.key(0), x, K, covariance="diag", init=start, max_steps=5)
    assert result.mixture.means.dtype == dtype


@pytest.mark.parametrize(
    ("k", "d", "covariance"), [(2, D, "full"), (K, D + 1, "full"), (K, D, "diag")]
)
def test_a_mixture_must_fit_the_problem(k, d, covariance, x, dtype):
    truth = oracle.parameters(0, k=k, d=d, model=covariance)
    start = jgmm.make_mixture(*(a.astype(dtype) for a in truth), covariance)
    with pytest.raises(jgmm.DataError, match=r"asked for is \(3, 2, 'full'\)"):
        jgmm.fit(jax.random.key(0), x, K, init=start)


def test_a_given_start_is_one_start(x):
    with pytest.raises(jgmm.DataError, match="n_restarts must be 1"):
        jgmm.fit(jax.random.key(0), x, 2, init=np.resize([0, 1], N), n_restarts=2)
