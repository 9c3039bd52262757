"""Cross-validation: folds, and held-out likelihood against one fit a fold."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import in_double

import jgmm
from jgmm.selection.cross_validation import assign_folds, held_out

KEY = jax.random.key(0)
N = 30
RNG = np.random.default_rng(5)
X = np.concatenate([RNG.normal(size=(15, 2)), 12 + RNG.normal(size=(15, 2))])
WEIGHTS = np.array([1.0, 2.0, 0.0, 1.0, 0.5] * 6)


def folds_of(key, n_folds, weights=None):
    """The folds that ``held_out`` deals."""
    deal, _ = jax.random.split(key)
    return np.asarray(assign_folds(deal, N, n_folds, sample_weight=weights))


@settings(max_examples=20)
@given(
    n_folds=st.integers(2, 6),
    labels=st.lists(st.integers(0, 3), min_size=N, max_size=N),
    missing=st.lists(st.booleans(), min_size=N, max_size=N),
    seed=st.integers(0, 2**31),
)
def test_folds_are_even(n_folds, labels, missing, seed):
    labels, present = np.array(labels), ~np.array(missing)
    folds = np.asarray(
        assign_folds(
            jax.random.key(seed),
            N,
            n_folds,
            sample_weight=jnp.asarray(present, float),
            labels=jnp.asarray(labels),
        )
    )
    groups = [np.ones(N, bool), *(labels == c for c in range(4))]
    for group in groups:
        sizes = np.bincount(folds[group & present], minlength=n_folds)
        assert sizes.max() - sizes.min() <= 1


def test_folds_follow_the_key():
    again, other = folds_of(KEY, 5), folds_of(jax.random.key(1), 5)
    np.testing.assert_array_equal(folds_of(KEY, 5), again)
    assert (other != again).any()


@in_double
def test_one_gaussian_matches_the_textbook(dtype, tolerance):
    """One component needs no start, so NumPy can follow fold by fold."""
    found = held_out(
        KEY, X.astype(dtype), 1, "spherical", n_restarts=1, init="points", sample_weight=WEIGHTS
    )
    folds = folds_of(KEY, 5, jnp.asarray(WEIGHTS))
    ell, total = np.zeros(5), np.zeros(5)
    for f in range(5):
        train, test = folds != f, folds == f
        fitted = oracle.m_step(X[train], np.ones((train.sum(), 1)), "spherical", WEIGHTS[train])
        ell[f] = oracle.log_likelihood(X[test], *fitted, WEIGHTS[test])
        total[f] = WEIGHTS[test].sum()
    assert found.log_likelihood.dtype == dtype
    np.testing.assert_allclose(found.per_fold, ell / total, **tolerance)
    np.testing.assert_allclose(found.log_likelihood, ell.sum() / total.sum(), **tolerance)
    assert found.status.tolist() == [jgmm.Status.CONVERGED] * 5


def test_two_components_match_fits_without_the_rows():
    """Clusters twelve standard deviations apart have one optimum, whatever the start."""
    found = held_out(KEY, X, 2, "spherical", n_folds=3, n_restarts=4, init="points", tol=1e-12)
    folds = folds_of(KEY, 3)
    for f in range(3):
        alone = jgmm.fit(
            KEY, X[folds != f], 2, covariance="spherical", n_restarts=4, init="points", tol=1e-12
        )
        mean = jgmm.log_prob(alone.mixture, X[folds == f]).mean()
        # The steps stop at 1e-12 nats a sample, so the parameters are off by about its root.
        np.testing.assert_allclose(found.per_fold[f], mean, atol=1e-5)


def test_a_missing_row_may_hold_anything():
    weights = np.ones(N)
    weights[4] = 0
    damaged = X.copy()
    damaged[4] = np.nan
    a = held_out(
        KEY, X, 2, "spherical", n_folds=3, n_restarts=4, init="points", sample_weight=weights
    )
    b = held_out(
        KEY, damaged, 2, "spherical", n_folds=3, n_restarts=4, init="points", sample_weight=weights
    )
    assert a.log_likelihood == b.log_likelihood


SPIKE = np.zeros((N, 2))  # without its last row it has no variance
SPIKE[-1] = [1.0, 2.0]


def test_a_fold_that_fails_is_named():
    fold = folds_of(KEY, 5)[-1]
    with pytest.raises(jgmm.FitError, match=f"Without fold {fold} of 5 .* collapsed"):
        held_out(KEY, SPIKE, 1, "spherical", n_restarts=1, init="points")


def test_nothing_is_raised_under_jit():
    found = jax.jit(lambda x: held_out(KEY, x, 1, "spherical", n_restarts=1, init="points"))(
        jnp.asarray(SPIKE)
    )
    assert jnp.isnan(found.log_likelihood)
    assert sorted(found.status.tolist()) == [1, 1, 1, 1, int(jgmm.Status.COLLAPSED)]
    assert int(jnp.isnan(found.per_fold).sum()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"n_folds": 1}, "n_folds must be a whole number from 2 to 30"),
        ({"n_folds": 31}, "n_folds must be a whole number from 2 to 30"),
        ({"n_components": 25}, "without one of 5 folds 24 are left"),
        ({"sample_weight": [1] * 4 + [0] * 26}, "n_folds must be a whole number from 2 to 4"),
        ({"init": "nearest"}, "unknown init 'nearest'"),
    ],
)
def test_refuses(arguments, said):
    with pytest.raises(jgmm.DataError, match=said):
        held_out(KEY, SPIKE, **{"n_components": 1, "n_restarts": 1, "init": "points", **arguments})
