"""Standard errors from the curvature, against closed forms and the textbook's likelihood."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from marks import in_double

import jgmm
from jgmm._data.samples import make_samples
from jgmm.uncertainty import information
from jgmm.uncertainty.intervals import Parameters

N = 60
RNG = np.random.default_rng(3)
WEIGHTS = np.array([1.0, 2.0, 0.0, 1.0, 3.0, 0.5] * (N // 6))
CLOUD = RNG.normal(size=(N, 2)) @ np.array([[2.0, 0.6], [0.0, 0.1]]) + np.array([50.0, -3.0])
LINE = np.concatenate([RNG.normal(size=N // 3), 5 + 2 * RNG.normal(size=2 * N // 3)])[:, None]


MANY = 10_000  # steps, more than any of the fits takes
START = jgmm.make_mixture([0.4, 0.6], [[0.0], [6.0]], [1.0, 4.0], "spherical")


def of_one(x, covariance, sample_weight, **options):
    """Uncertainty of the single Gaussian that fits best."""
    best = jgmm.m_step(x, np.ones((len(x), 1)), covariance, sample_weight)
    return information.standard_errors(best, x, sample_weight, **options)


@pytest.fixture(scope="module")
def two(dtype):
    """A fit of two components, and its samples."""
    x = LINE.astype(dtype)
    return jgmm.fitting.run_em(START, x, tol=0.0, max_steps=MANY).mixture, x


def apart(distance, dtype):
    """A fit of two components so many deviations apart, and its samples, shaped as in ``two``."""
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(size=20), distance + rng.normal(size=40)]).astype(dtype)[:, None]
    start = jgmm.make_mixture([0.4, 0.6], [[0.0], [distance]], [1.0, 1.0], "spherical")
    return jgmm.fitting.run_em(start, x, tol=0.0, max_steps=MANY).mixture, x


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_one_gaussian_has_known_standard_errors(covariance, dtype, tolerance):
    """σ/√N of a mean, σ²√(2/N) of a variance; N counts samples by their weights."""
    x = CLOUD.astype(dtype)
    found = of_one(x, covariance, WEIGHTS)
    n = WEIGHTS.sum()
    mean = np.average(x.astype(float), axis=0, weights=WEIGHTS)
    variance = np.average((x.astype(float) - mean) ** 2, axis=0, weights=WEIGHTS)
    np.testing.assert_allclose(found.standard_error.means[0], np.sqrt(variance / n), **tolerance)
    expected = variance * np.sqrt(2 / n)
    np.testing.assert_allclose(found.standard_error.variances[0], expected, **tolerance)
    assert found.standard_error.weights == 0
    z = 1.959963984540054  # of 95 %
    np.testing.assert_allclose(found.low.means[0], mean - z * np.sqrt(variance / n), **tolerance)
    np.testing.assert_allclose(
        found.high.variances[0], variance * np.exp(z * np.sqrt(2 / n)), **tolerance
    )


def test_the_sandwich_knows_the_fourth_moment(dtype, tolerance):
    """√((m₄ - σ⁴)/N) of a variance, whatever the distribution."""
    x = CLOUD.astype(dtype)
    found = of_one(x, "full", np.ones(N), robust=True)
    away = x.astype(float) - x.astype(float).mean(axis=0)
    variance, fourth = (away**2).mean(axis=0), (away**4).mean(axis=0)
    expected = np.sqrt((fourth - variance**2) / N)
    np.testing.assert_allclose(found.standard_error.variances[0], expected, **tolerance)
    np.testing.assert_allclose(found.standard_error.means[0], np.sqrt(variance / N), **tolerance)


def variances_by_differences(mixture, x):
    """Variances of a weight, means and variances, from second differences over themselves, (5,)."""
    there = np.concatenate([mixture.weights[:1], mixture.means.ravel(), mixture.variances[:, 0]])
    there = there.astype(float)

    def ell(theta):
        weights = np.array([theta[0], 1 - theta[0]])
        covariances = theta[3:, None, None]
        return oracle.log_likelihood(x.astype(float), weights, theta[1:3, None], covariances)

    # Steps of h² = 1e-6 leave 1e-6 of the fourth derivative, and 1e-14 / 1e-6 of rounding.
    h = 1e-3
    hessian = np.zeros((5, 5))
    for i, j in np.ndindex(5, 5):
        step = h * np.eye(5)
        ends = [(a, b, ell(there + a * step[i] + b * step[j])) for a in (1, -1) for b in (1, -1)]
        hessian[i, j] = sum(a * b * value for a, b, value in ends) / (4 * h**2)
    return np.diagonal(np.linalg.inv(-hessian))


def variances_with_known_components(mixture, x, shared=False):
    """The textbook's, as if every sample were divided among its components: a ``Parameters``."""
    mixture = jax.tree.map(lambda leaf: np.asarray(leaf, float), mixture)
    weights, variances = np.asarray(mixture.weights), np.asarray(mixture.variances)
    counts = len(x) * weights[:, None]  # at a maximum
    of_variances = 2 * variances**2 / (len(x) if shared else counts)
    return Parameters(weights * (1 - weights) / len(x), variances / counts, of_variances)


def flat(parameters):
    """The first weight, the means and the variances as one vector."""
    return np.concatenate([parameters.weights[:1], *map(np.ravel, parameters[1:])])


def test_a_mixture_matches_differences_of_the_textbook_likelihood(two, dtype):
    mixture, x = two
    expected = np.sqrt(variances_by_differences(mixture, x))
    found = information.standard_errors(mixture, x).standard_error
    numbers = flat(found)
    # In float32 the fit stops where rounding hides the rest of the way; the Hessian there is off by
    # as much as the parameters, next to their standard errors.
    np.testing.assert_allclose(numbers, expected, rtol=1e-4 if dtype == np.float64 else 2e-2)
    np.testing.assert_allclose(found.weights[0], found.weights[1], rtol=1e-4)  # they sum to one


def test_the_observed_fraction_tells_overlapping_from_separated_components(dtype):
    """The variances if components were known over those of the estimates, both by NumPy."""
    for distance, bounds in ((12.0, (0.99, 1.01)), (3.0, (0.01, 0.9))):
        mixture, x = apart(distance, dtype)
        known = flat(variances_with_known_components(mixture, x))
        expected = known / variances_by_differences(mixture, x)
        found = information.standard_errors(mixture, x)
        numbers = flat(found.observed_fraction)
        np.testing.assert_allclose(numbers, expected, rtol=1e-4 if dtype == np.float64 else 5e-2)
        assert bounds[0] < numbers.min() <= numbers.max() < bounds[1]
        robust = information.standard_errors(mixture, x, robust=True)
        np.testing.assert_array_equal(flat(robust.observed_fraction), numbers)


@in_double
@pytest.mark.parametrize("covariance", ["full", "tied"])
def test_with_known_components_the_variances_are_the_textbooks(covariance, dtype):
    """In two columns, where the fractions differ from parameter to parameter."""
    x = CLOUD / [1.0, 0.1] + np.where(np.arange(N) < 20, 4.0, 0.0)[:, None]
    start = jgmm.m_step(x, np.eye(2)[(np.arange(N) < 20).astype(int)], covariance)
    mixture = jgmm.fitting.run_em(start, x, tol=1e-13).mixture
    found = information.standard_errors(mixture, x)
    pairs = zip(found.standard_error, found.observed_fraction, strict=True)
    known = Parameters(*(error**2 * fraction for error, fraction in pairs))
    expected = variances_with_known_components(mixture, x, shared=covariance == "tied")
    np.testing.assert_allclose(flat(known), flat(expected), rtol=1e-5)
    assert 0 < flat(found.observed_fraction).min() < flat(found.observed_fraction).max() < 1


def test_one_component_is_known(dtype, tolerance):
    found = of_one(CLOUD.astype(dtype), "full", WEIGHTS)
    for fraction in found.observed_fraction:
        np.testing.assert_allclose(fraction, 1, **tolerance)


def test_the_gradient_is_zero_and_the_scores_add_up_to_it(two, dtype):
    mixture, x = two
    samples = make_samples(x)
    found = information.curvature(mixture, samples)
    assert found.gradient.dtype == dtype
    error = np.sqrt(np.diagonal(np.linalg.inv(found.information)))
    assert np.abs(found.gradient * error).max() < (1e-5 if dtype == np.float64 else 1e-2)
    # A right model has J and S of the same size.
    assert 0.3 < np.trace(found.outer) / np.trace(found.information) < 3


def test_units_do_not_matter(two, tolerance):
    """x → a x + b multiplies errors of means by a, of variances by a²; powers of 2 are exact."""
    mixture, x = two
    a, b = 64.0, 256.0
    one = jnp.ones(1, x.dtype)
    moved = jgmm.mixture.change_coordinates(mixture, b * one, a * one)
    found = information.standard_errors(moved, a * x + b)
    before = information.standard_errors(mixture, x)
    # The offset costs 256/1 roundings of the samples themselves.
    loose = {key: 100 * value for key, value in tolerance.items()}
    for name, factor in (("weights", 1), ("means", a), ("variances", a**2)):
        expected = factor * getattr(before.standard_error, name)
        np.testing.assert_allclose(getattr(found.standard_error, name), expected, **loose)


def test_known_weights_leave_the_rest_more_certain():
    x = LINE
    fit = jgmm.fitting.run_em(START, x, tol=0.0, equal_weights=True).mixture
    found = information.standard_errors(fit, x, equal_weights=True)
    np.testing.assert_array_equal(found.standard_error.weights, [0, 0])
    np.testing.assert_array_equal(found.low.weights, [0.5, 0.5])
    with pytest.raises(jgmm.FitError, match="not where the log-likelihood has its maximum"):
        information.standard_errors(fit, x)  # the weights would move


def test_intervals_stay_in_range(two):
    mixture, x = two
    found = information.standard_errors(mixture, x, level=0.999999)
    assert (found.low.weights > 0).all()
    assert (found.high.weights < 1).all()
    assert (found.low.variances > 0).all()
    for low, middle, high in zip(found.low, found.estimate, found.high, strict=True):
        assert (low < middle).all()
        assert (middle < high).all()


def test_what_has_no_standard_errors_is_refused():
    x = LINE
    pair = jgmm.make_mixture([0.5, 0.5], [[3.0], [3.0]], [2.0, 2.0], "spherical")
    with pytest.raises(jgmm.FitError, match="does not curve down in every direction"):
        information.standard_errors(pair, x)
    off = jgmm.make_mixture([1.0, 0.0], [[3.0], [9.0]], [2.0, 2.0], "spherical")
    with pytest.raises(jgmm.DataError, match="component 1 has weight zero"):
        information.standard_errors(off, x)
    with pytest.raises(jgmm.FitError, match=r"a Newton step would move it by \S+ standard errors"):
        information.standard_errors(START, x)
    tied = jgmm.make_mixture(*oracle.parameters(2, k=2, d=2, model="VEE"), "VEE")
    with pytest.raises(jgmm.DataError, match="'VEE' has no free coordinates"):
        information.standard_errors(tied, CLOUD)
    with pytest.raises(jgmm.DataError, match="level must lie strictly between 0 and 1"):
        information.standard_errors(pair, x, level=95.0)
