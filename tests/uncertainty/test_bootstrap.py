"""The bootstrap: resampling and refitting, against closed forms and the observed information.

    JGMM_ALL_MODELS=1 pytest tests/uncertainty tests/selection/test_likelihood_ratio.py

tries all fourteen models, three minutes more.
"""

import dataclasses
import os
from statistics import NormalDist

import jax
import numpy as np
import oracle
import pytest
import scipy.special
from marks import in_double

import jgmm
from jgmm._core import budget
from jgmm._data.samples import make_samples
from jgmm.uncertainty import information
from jgmm.uncertainty.bootstrap import METHODS, bootstrap, nonparametric, weighted

KEY = jax.random.key(0)
COUNTS = np.array([0.0, 1.0, 2.0, 5.0])
# Two clouds ten standard deviations apart, of the shape that a Gaussian has on the whole.
CLOUD = np.array([NormalDist().inv_cdf((i + 0.5) / 60) for i in range(60)])
X = np.concatenate([CLOUD, 10 + 2 * CLOUD, 10 + 2 * CLOUD])[:, None]
B = 400
# Five do; but in float32 one refit in hundreds goes to and fro between two roundings.
MAX_STEPS = 50
# A standard error from B replicates has itself a relative one of √((κ - 1) / 4B), with κ the
# kurtosis of what is estimated, 3 if it is normal and little more here; four of those. Terms of the
# order 1/N, which the information leaves out, are of 2 % with 60 samples a component.
RTOL = 4 / np.sqrt(2 * B) + 0.02


@pytest.fixture(scope="module")
def fitted(dtype):
    """The fit of two components, its samples, and its bootstraps by method."""
    x = X.astype(dtype)
    start = jgmm.make_mixture([0.4, 0.6], [[0.0], [9.0]], [1.0, 3.0], "spherical")
    mixture = jgmm.fitting.run_em(start, x).mixture
    return mixture, x, Runs(mixture, x)


class Runs(dict):
    """A bootstrap by each method, run when it is asked for."""

    def __init__(self, mixture, x):
        self.problem = mixture, x

    def __missing__(self, method):
        self[method] = run(*self.problem, method=method)
        return self[method]


def run(mixture, x, *args, **options):
    options = {"n_replicates": B, "max_steps": MAX_STEPS} | options
    return bootstrap(KEY, mixture, x, *args, **options)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sample_weight", [None, COUNTS])
def test_weights_add_up_and_are_right_on_average(method, sample_weight, dtype):
    samples = make_samples(np.zeros((4, 1), dtype), sample_weight)
    expected = np.ones(4) if sample_weight is None else sample_weight
    n, draws = expected.sum(), 2000
    keys = jax.random.split(KEY, draws)
    drawn = np.asarray(jax.vmap(lambda key: METHODS[method](key, samples, int(n)))(keys))
    assert drawn.dtype == dtype
    np.testing.assert_allclose(drawn.sum(axis=1), n, rtol=1e-6)
    assert (drawn[:, expected == 0] == 0).all()
    assert (drawn >= 0).all()
    # Of a multinomial N p (1 - p); of N times a Dirichlet, that over 1 + 1/N.
    variance = expected * (1 - expected / n) / (1 if method == "nonparametric" else 1 + 1 / n)
    error = np.sqrt(variance / draws)
    assert (np.abs(drawn.mean(axis=0) - expected) <= 4 * error + 1e-6).all()
    # The kurtosis of a Gamma or Poisson variable of mean one is at most 9.
    spread = variance * np.sqrt(8 / draws)
    assert (np.abs(drawn.var(axis=0) - variance) <= 4 * spread + 1e-6).all()


def test_draws_are_whole():
    drawn = nonparametric(KEY, make_samples(np.zeros((5, 1))), 5)
    np.testing.assert_array_equal(drawn, np.round(drawn))
    assert (weighted(KEY, make_samples(np.zeros((5, 1))), 5) > 0).all()


@pytest.mark.parametrize(
    ("method", "dtype"),
    [*((method, "float64") for method in METHODS), ("weighted", "float32")],
    indirect=["dtype"],
)
def test_components_far_apart_have_the_standard_errors_of_single_gaussians(fitted, method):
    """σ/√Nₖ of a mean, σ²√(2/Nₖ) of a variance, √(π(1 - π)/N) of a weight."""
    mixture, _, found = fitted
    assert found[method].n_failed == 0
    error = found[method].uncertainty().standard_error
    weights, variances = np.array([1, 2]) / 3, np.asarray(mixture.variances)
    n = np.array([60, 120])
    np.testing.assert_allclose(error.weights, np.sqrt(np.prod(weights) / 180), rtol=RTOL)
    np.testing.assert_allclose(error.means[:, 0], np.sqrt(variances[:, 0] / n), rtol=RTOL)
    # 60 quantiles have the fourth moment 2.7 σ⁴, not 3 σ⁴, and the bootstrap sees what there is.
    away = CLOUD / CLOUD.std()
    fourth = (away**4).mean() - 1
    assert fourth == pytest.approx(2, rel=0.2)
    expected = variances * np.sqrt(fourth / n)[:, None]
    np.testing.assert_allclose(error.variances, expected, rtol=RTOL)


@in_double
def test_three_methods_agree(fitted):
    mixture, x, found = fitted
    sandwich = information.standard_errors(mixture, x, robust=True)
    for each in (found[method] for method in METHODS):
        uncertainty = each.uncertainty()
        for a, b in zip(uncertainty.standard_error, sandwich.standard_error, strict=True):
            np.testing.assert_allclose(a, b, rtol=RTOL)
        for low, high, estimate, error in zip(
            uncertainty.low,
            uncertainty.high,
            uncertainty.estimate,
            uncertainty.standard_error,
            strict=True,
        ):
            assert (low < estimate).all()
            assert (estimate < high).all()
            # The interval of a normal estimate is 2 · 1.96 standard errors long; each of its ends,
            # quantiles of 400 draws, is off by 0.13 of them.
            np.testing.assert_allclose((high - low) / error, 3.92, atol=4 * 0.13 * 2**0.5)


@in_double
def test_first_steps_tell_the_observed_fraction(fitted):
    """The slope of first steps on refits is the ratio of the informations, whatever the overlap."""
    mixture, x, found = fitted
    apart = found["weighted"].uncertainty()
    for fraction in apart.observed_fraction:
        np.testing.assert_allclose(fraction, 1, atol=0.02)
    near = np.concatenate([CLOUD, 3 + CLOUD, 3 + CLOUD])[:, None].astype(x.dtype)
    start = jgmm.make_mixture([0.4, 0.6], [[0.0], [3.0]], [1.0, 1.0], "spherical")
    mixture = jgmm.fitting.run_em(start, near, tol=1e-12).mixture
    expected = information.standard_errors(mixture, near).observed_fraction
    refits = run(mixture, near, max_steps=2000).uncertainty()
    for fraction, known in zip(refits.observed_fraction, expected, strict=True):
        np.testing.assert_allclose(fraction, known, atol=0.1)
        assert (fraction < 0.7).all()


@in_double
def test_the_estimate_is_that_of_the_mixture_and_failures_are_left_out(fitted):
    mixture, _, found = fitted
    whole = found["weighted"]
    broken = np.array(whole.status)
    broken[:10] = jgmm.Status.COLLAPSED
    spoiled = jax.tree.map(lambda leaf: leaf.at[:10].set(np.nan), whole.replicates)
    some = dataclasses.replace(whole, replicates=spoiled, status=broken)
    assert some.n_failed == 10
    assert repr(some).startswith("Bootstrap(method='weighted', 3")
    assert repr(some).endswith(", 10 collapsed)")
    uncertainty = some.uncertainty(level=0.5)
    np.testing.assert_array_equal(uncertainty.estimate.means, mixture.means)
    np.testing.assert_allclose(
        uncertainty.standard_error.means,
        np.asarray(whole.replicates.means[10:], float).std(axis=0, ddof=1),
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        uncertainty.high.weights,
        np.quantile(np.asarray(whole.replicates.weights[10:], float), 0.75, axis=0),
        rtol=1e-12,
    )
    with pytest.raises(jgmm.FitError, match="at least two refits that ended valid"):
        dataclasses.replace(whole, status=np.full(B, 3)).uncertainty()


@in_double
def test_a_component_of_few_samples_may_be_lost(fitted):
    """Of three samples; with fewer than two it has no variance of its own."""
    _, x, _ = fitted
    x = x.copy()
    x[:60] = x[60:120]
    x[:3, 0] = [-99, -100, -101]
    start = jgmm.make_mixture([0.02, 0.98], [[-100.0], [10.0]], [1.0, 4.0], "spherical")
    mixture = jgmm.fitting.run_em(start, x).mixture

    def margin(chance):
        return 4 * np.sqrt(chance * (1 - chance) / B)

    # Counts are all but Poisson. Fewer than two samples are too few, counted as Kish does; exactly
    # two are the least, but for rounding.
    drawn = np.stack(np.meshgrid(*[np.arange(12)] * 3), axis=-1).reshape(-1, 3)
    chance = np.exp(-3) / np.prod(scipy.special.factorial(drawn), axis=1)
    kish = drawn.sum(axis=1) ** 2 / np.maximum((drawn**2).sum(axis=1), 1)
    surely, perhaps = chance[kish < 2].sum(), chance[kish <= 2].sum()
    lost = run(mixture, x, method="nonparametric").n_failed / B
    assert surely - margin(surely) < lost < perhaps + margin(perhaps)
    # The shares of three samples are uniform on a triangle; Kish's number is below two outside of
    # the circle that touches its sides.
    outside = 1 - np.pi / np.sqrt(27)
    assert abs(run(mixture, x).n_failed / B - outside) < margin(outside)


@in_double
def test_a_replicate_depends_on_its_number_only(fitted, monkeypatch, tolerance):
    """In batches of three, the last of them running on beyond the end."""
    mixture, x, found = fitted
    monkeypatch.setattr(budget, "REFIT_BATCH_BYTES", 3 * (180 * 8 + MAX_STEPS) * x.dtype.itemsize)
    few = run(mixture, x, n_replicates=7)
    assert few.replicates.means.shape == (7, 2, 1)
    for a, b in zip(
        jax.tree.leaves(few.replicates), jax.tree.leaves(found["weighted"].replicates), strict=True
    ):
        np.testing.assert_allclose(a, b[:7], **tolerance)


@in_double
def test_a_missing_row_may_hold_anything_and_a_count_is_so_many_rows(fitted):
    mixture, x, found = fitted
    damaged = np.concatenate([x[:120], [[np.nan]]])
    counts = np.concatenate([np.ones(60), np.full(60, 2.0), [0.0]])
    for method in METHODS:
        error = run(mixture, damaged, counts, method=method).uncertainty().standard_error
        for a, b in zip(error, found[method].uncertainty().standard_error, strict=True):
            # Both are off by the noise of B replicates.
            np.testing.assert_allclose(a, b, rtol=4 / np.sqrt(B))


@pytest.mark.skipif(
    "JGMM_ALL_MODELS" not in os.environ,
    reason="fourteen models take minutes: set JGMM_ALL_MODELS=1",
)
@pytest.mark.parametrize("covariance", oracle.NAMES)
@pytest.mark.parametrize("method", METHODS)
def test_every_model_is_refitted_within_itself(covariance, method):
    weights, _, covariances = oracle.parameters(4, k=2, d=2, model=covariance)
    truth = (weights, np.array([[-9.0, 0.0], [9.0, 3.0]]), covariances)
    x = oracle.draw(0, 80, *truth)
    mixture = jgmm.fitting.run_em(jgmm.make_mixture(*truth, covariance), x, ridge=1e-9).mixture
    found = run(mixture, x, method=method, n_replicates=100, max_steps=200)
    assert found.n_failed == 0
    assert found.replicates.covariance == covariance
    for b in (0, 99):
        one = jax.tree.map(lambda leaf, b=b: leaf[b], found.replicates)
        jgmm.make_mixture(one.weights, one.means, one.covariances, covariance)  # has the form
    error = found.uncertainty().standard_error
    deviation = np.sqrt(np.asarray(mixture.variances) / (80 * np.asarray(weights)[:, None]))
    # Relative errors of 1/√(2B) of the bootstrap, and 1/√(2Nₖ) of the deviations.
    np.testing.assert_allclose(error.means, deviation, rtol=4 * (1 / 200 + 1 / 40) ** 0.5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"method": "jackknife"}, "unknown method 'jackknife'. Known: weighted, nonparametric"),
        ({"n_replicates": 1}, "n_replicates must be a whole number of at least 2"),
        (
            {"method": "nonparametric", "sample_weight": [0.5] * 180},
            "in whole numbers; row 0 holds 0.5",
        ),
        ({"tol": -1.0}, "tol must be at least zero"),
        ({"x": X[:, [0, 0]]}, "x has 2 columns"),
    ],
)
def test_refuses(arguments, said):
    mixture = jgmm.make_mixture([0.5, 0.5], [[0.0], [9.0]], [1.0, 1.0], "spherical")
    with pytest.raises(jgmm.DataError, match=said):
        bootstrap(KEY, mixture, **{"x": X, **arguments})
