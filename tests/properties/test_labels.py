"""Known labels of some samples: clamped responsibilities, and components with their numbers."""

import jax
import numpy as np
import oracle
import pytest
from marks import in_double

import jgmm
from jgmm._core.errors import DataError
from jgmm._core.status import Status
from jgmm._data.samples import make_samples
from jgmm.em.e_step import accumulate

N, K, D = 90, 3, 2
CENTERS = np.array([[-4.0, 0.0], [4.0, 0.0], [0.0, 5.0]])


def draw(seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(K, size=N)
    return CENTERS[truth] + rng.normal(size=(N, D)), truth


X, TRUTH = draw()
# One of four is known.
SOME = np.where(np.arange(N) % 4 == 0, TRUTH, -1)


@pytest.fixture(scope="module")
def x(dtype):
    return X.astype(dtype)


@pytest.fixture(scope="module")
def mixture(dtype):
    parameters = oracle.parameters(4, k=K, d=D)
    return jgmm.make_mixture(*(a.astype(dtype) for a in parameters))


@in_double
@pytest.mark.parametrize("form", ["product", "difference"])
def test_e_step_gives_known_samples_to_their_components(form, x, mixture, tolerance):
    found = accumulate(mixture, make_samples(x, labels=SOME), form=form)
    weights, means, covariances = oracle.parameters(4, k=K, d=D)
    each = zip(means, covariances, strict=True)
    joint = np.array([[oracle.log_gaussian(row, *one) for row in x.astype(float)] for one in each])
    joint = joint.T + np.log(weights)
    joint[(SOME >= 0)[:, None] & (SOME[:, None] != np.arange(K))] = -np.inf
    log_prob = np.logaddexp.reduce(joint, axis=1)
    resp = np.exp(joint - log_prob[:, None])
    np.testing.assert_allclose(found.log_likelihood, log_prob.sum(), **tolerance)
    np.testing.assert_allclose(found.counts, resp.sum(axis=0), **tolerance)
    first = resp.T @ x - resp.sum(axis=0)[:, None] * np.asarray(found.center)
    np.testing.assert_allclose(
        found.first, first, rtol=tolerance["rtol"], atol=1e3 * tolerance["atol"]
    )


FEW = {"n_restarts": 4, "init": "points"}


def fit(seed=0, labels=SOME, **options):
    return jgmm.fit(jax.random.key(seed), X, K, labels=labels, **FEW, **options)


@pytest.mark.parametrize("accelerate", [None, "anderson"])
def test_components_have_the_numbers_of_their_labels(accelerate):
    for seed in range(4):
        result = fit(seed, accelerate=accelerate)
        assert Status(int(result.status)) is Status.CONVERGED
        # The standard error of a mean is 0.2.
        np.testing.assert_allclose(result.mixture.means, CENTERS, atol=0.8)


def test_one_known_sample_of_one_component_numbers_it():
    for number in range(K):
        only = np.full(N, -1)
        only[0] = number
        result = fit(labels=only)
        np.testing.assert_allclose(result.mixture.means[number], CENTERS[TRUTH[0]], atol=0.8)


def test_log_likelihood_is_of_samples_and_labels():
    result = fit()
    each = np.asarray(jgmm.log_prob(result.mixture, X))
    resp = np.asarray(jgmm.responsibilities(result.mixture, X))
    known = SOME >= 0
    joint = each[known] + np.log(resp[known, SOME[known]])
    expected = each[~known].sum() + joint.sum()
    np.testing.assert_allclose(result.log_likelihood, expected, rtol=1e-9)
    history = np.asarray(result.history)[: int(result.n_steps) + 1]
    assert (np.diff(history) >= -1e-9).all()


def test_all_known_is_the_m_step_of_the_labels():
    result = fit(labels=TRUTH, equal_weights=False)
    expected = jgmm.m_step(X, np.eye(K)[TRUTH])
    np.testing.assert_allclose(result.mixture.means, expected.means, rtol=1e-9)
    np.testing.assert_allclose(result.mixture.covariances, expected.covariances, rtol=1e-9)
    np.testing.assert_allclose(result.mixture.weights, expected.weights, rtol=1e-9)


def test_none_known_is_no_labels():
    mixture = jgmm.make_mixture(*oracle.parameters(4, k=K, d=D))
    here = accumulate(mixture, make_samples(X, labels=np.full(N, -1)))
    there = accumulate(mixture, make_samples(X))
    for one, other in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("label", [(TRUTH[0] + 1) % K, K, 2**40, -7, None])
def test_a_missing_row_has_no_label(label):
    wrong = [label, *SOME[1:].tolist()]
    weight = np.ones(N)
    weight[0] = 0
    here = fit(labels=wrong, sample_weight=weight)
    there = fit(labels=np.where(np.arange(N) == 0, -1, SOME), sample_weight=weight)
    np.testing.assert_allclose(here.mixture.means, there.mixture.means, rtol=1e-9)


def test_labels_may_be_traced():
    def one(labels):
        return jgmm.fit(jax.random.key(0), X, K, labels=labels, **FEW).mixture.means

    found = jax.vmap(one)(np.stack([SOME, np.where(SOME < 0, -1, (SOME + 1) % K)]))
    np.testing.assert_allclose(found[0], CENTERS, atol=0.8)
    np.testing.assert_allclose(found[1], np.roll(CENTERS, 1, axis=0), atol=0.8)


def test_labels_of_missing_rows_may_be_anything_inside_jit():
    """Which rows are missing is not known there before the program runs."""
    wrong, weight = np.where(np.arange(N) == 0, 7, SOME), np.where(np.arange(N) == 0, 0.0, 1.0)
    found = jax.jit(lambda weight: fit(labels=wrong, sample_weight=weight).mixture.means)(weight)
    expected = fit(labels=wrong, sample_weight=weight).mixture.means
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_select_uses_labels():
    found = jgmm.select(jax.random.key(0), X, [3, 4], "VVV", labels=SOME, **FEW, ridge=1e-6)
    assert found.best.n_components == 3
    np.testing.assert_allclose(found.result.mixture.means, CENTERS, atol=0.8)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        (SOME[:-1], "90 whole numbers"),
        (SOME.astype(float), "whole numbers"),
        (np.where(SOME == 0, -2, SOME), "-2 in row"),
        (np.where(SOME == 0, 7, SOME), "labels hold 7; with 3 components"),
    ],
)
def test_labels_that_are_none_are_refused(labels, match):
    with pytest.raises(DataError, match=match):
        fit(labels=labels)
