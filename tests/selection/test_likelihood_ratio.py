"""The bootstrap likelihood-ratio test, against fits made by hand."""

import os

import jax
import numpy as np
import oracle
import pytest

import jgmm
from jgmm.selection import likelihood_ratio
from jgmm.selection.likelihood_ratio import bootstrap_test, p_value, sequential_test

KEY = jax.random.key(5)
RNG = np.random.default_rng(1)
CLOUD = RNG.normal(size=(60, 1))
CLOUDS = CLOUD + 8.0 * (np.arange(60) % 2)[:, None]
B = 19
# Of one variance, so that no spike has a high likelihood.
OPTIONS = {"covariance": "EII", "n_replicates": B, "n_restarts": 3, "init": "points"}


@pytest.fixture(scope="module")
def sequence():
    return sequential_test(KEY, CLOUDS, **OPTIONS)


def test_two_clouds_are_two_components(sequence):
    """One is rejected as strongly as B replicates allow; two are not."""
    assert sequence.n_components == 2
    assert [test.n_components for test in sequence.tests] == [1, 2]
    assert sequence.tests[0].p_value == 1 / (B + 1)
    assert sequence.tests[1].p_value > sequence.level


def test_the_statistic_is_that_of_the_fits(sequence):
    """One component is known in closed form; two of each other far apart nearly so."""
    first, second = sequence.tests
    np.testing.assert_allclose(first.null.means[0], CLOUDS.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(first.null.variances[0], CLOUDS.var(axis=0), rtol=1e-12)
    for test in (first, second):
        ell = [
            oracle.log_likelihood(CLOUDS, *(np.asarray(part) for part in parts))
            for parts in (
                (m.weights, m.means, m.covariances) for m in (test.null, test.alternative)
            )
        ]
        # A difference of numbers of about 150, in float64.
        np.testing.assert_allclose(test.statistic, 2 * (ell[1] - ell[0]), atol=1e-10)
        assert test.p_value == p_value(test.statistic, test.replicates)
        assert test.replicates.shape == (B,)
        assert test.n_failed == np.isnan(test.replicates).sum()
    assert second.null.means.shape == first.alternative.means.shape


def test_a_replicate_is_a_data_set_from_the_null_and_the_best_of_its_fits(sequence):
    test = sequence.tests[0]
    key = jax.random.fold_in(KEY, 1)
    sets, *_ = likelihood_ratio._draw(key, np.arange(3), test.null, 60)
    for b in range(3):
        x = np.asarray(sets[b])
        # 60 samples of a Gaussian: mean and variance to five standard errors.
        mean, variance = CLOUDS.mean(), CLOUDS.var()
        assert abs(x.mean() - mean) < 5 * np.sqrt(variance / 60)
        assert abs(x.var() / variance - 1) < 5 * np.sqrt(2 / 60)
        small = oracle.log_likelihood(
            x, np.ones(1), [x.mean(axis=0)], [np.cov(x.T, bias=True)[None, None]]
        )
        large = jgmm.fit(KEY, x, 2, covariance="EII", n_restarts=20, init="points")
        # Where EM stops the steps are of 1e-8 nats a sample; a thousand of them are left.
        assert test.replicates[b] == pytest.approx(
            2 * (float(large.log_likelihood) - small), abs=1e-3
        )


def test_one_cloud_is_one_component(dtype):
    test = bootstrap_test(KEY, CLOUD.astype(dtype), 1, **OPTIONS)
    assert test.p_value > 0.05
    assert test.null.means.dtype == dtype
    assert test.n_failed == 0
    assert repr(test).startswith("RatioTest(1 against 2 components, statistic=")
    # Two components are never worse than one, but for what is left when steps are of 1e-8 nats a
    # sample, in float32 of 1e-6: a thousand of them.
    least = 2 * 60 * 1000 * (1e-8 if dtype == np.float64 else 1e-6)
    assert min(test.statistic, *test.replicates) > -least


def test_a_weight_is_so_many_rows():
    counted = bootstrap_test(KEY, CLOUD[:31], 1, sample_weight=[2] * 30 + [0], **OPTIONS)
    repeated = bootstrap_test(KEY, np.repeat(CLOUD[:30], 2, axis=0), 1, **OPTIONS)
    assert counted.statistic == repeated.statistic
    np.testing.assert_array_equal(counted.replicates, repeated.replicates)


def test_replicates_that_failed_are_left_out_and_counted():
    mixture = jgmm.make_mixture([1.0], [[0.0]], [1.0], "spherical")
    replicates = np.array([1.0, np.nan, 5.0, 7.0, np.nan])
    assert p_value(5.0, replicates) == 3 / 4
    test = likelihood_ratio.RatioTest(1, 5.0, 3 / 4, replicates, mixture, mixture)
    assert test.n_failed == 2
    assert repr(test).endswith("p_value=0.75, 5 replicates, 2 failed)")
    with pytest.raises(jgmm.FitError, match="None of the data sets drawn could be fitted"):
        p_value(5.0, [np.nan])


def test_a_larger_fit_that_ends_lower_was_missed():
    found = likelihood_ratio.without_missed(np.array([3.0, -0.01, -22.0, np.nan]))
    np.testing.assert_array_equal(found, [3.0, -0.01, np.nan, np.nan])


def test_all_rejected_is_no_number_of_components(sequence):
    assert likelihood_ratio.SequentialTest(sequence.tests[:1], 0.05).n_components is None


def test_the_largest_component_is_split_in_two():
    """Along its longer axis, by one standard deviation; volume, shape and axes stay."""
    mixture = jgmm.make_mixture(
        [0.3, 0.7], [[0.0, 0.0], [5.0, 5.0]], [np.eye(2), np.diag([1.0, 9.0])], "diag"
    )
    found = likelihood_ratio._split_largest(mixture)
    np.testing.assert_allclose(found.weights, [0.3, 0.35, 0.35])
    np.testing.assert_allclose(found.means, [[0, 0], [5, 6.5], [5, 3.5]])
    np.testing.assert_allclose(found.variances, [[1, 1], [1, 9], [1, 9]])


@pytest.mark.skipif(
    "JGMM_ALL_MODELS" not in os.environ,
    reason="fourteen models take minutes: set JGMM_ALL_MODELS=1",
)
@pytest.mark.parametrize("covariance", oracle.NAMES)
def test_every_model_finds_two_clouds(covariance):
    weights, _, covariances = oracle.parameters(4, k=2, d=2, model=covariance)
    x = oracle.draw(0, 80, weights, np.array([[-9.0, 0.0], [9.0, 3.0]]), covariances)
    options = {"n_replicates": B, "n_restarts": 3, "ridge": 1e-6, "max_components": 2}
    found = sequential_test(KEY, x, covariance=covariance, **options)
    assert found.n_components == 2
    for test in found.tests:
        assert test.n_failed == 0
        # What is left where EM stops, at most.
        assert min(test.statistic, *test.replicates) > -0.1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"n_replicates": 0}, "n_replicates must be a whole number of at least 1"),
        ({"sample_weight": [1.5] * 60}, "in whole numbers; row 0 holds 1.5"),
        ({"n_components": 60}, "61 components"),
        ({"init": "nearest"}, "unknown init 'nearest'"),
    ],
)
def test_refuses(arguments, said):
    with pytest.raises(jgmm.DataError, match=said):
        bootstrap_test(KEY, **{"x": CLOUD, "n_components": 1, **OPTIONS, **arguments})


def test_data_that_cannot_be_fitted_are_an_error():
    with pytest.raises(jgmm.FitError, match="Component 0 collapsed after 0 steps"):
        bootstrap_test(KEY, np.zeros((60, 1)), 1, **OPTIONS)
