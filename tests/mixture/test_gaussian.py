"""One Gaussian, against the textbook, integrals and samples."""

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from jgmm.mixture import gaussian

D = 4


@pytest.fixture(scope="module")
def two():
    """Two Gaussians, in float64: means (2, D) and covariances (2, D, D)."""
    _, means, covariances = oracle.parameters(3, k=2, d=D)
    return means, covariances


def cast(dtype, *arrays):
    return [jnp.asarray(array, dtype) for array in arrays]


def test_log_prob_is_the_textbook_formula(two, dtype, tolerance):
    means, covariances = two
    x = oracle.draw(0, 30, [1.0], means[1:], covariances[1:])  # some far from the first
    expected = [oracle.log_gaussian(row, means[0], covariances[0]) for row in x]
    found = gaussian.log_prob(*cast(dtype, x, means[0], np.linalg.cholesky(covariances[0])))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, expected, **tolerance)


def test_density_integrates_to_one(dtype, tolerance):
    """On a fine grid the trapezium rule is exact to rounding for a Gaussian."""
    side = np.linspace(-12, 12, 161)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    root = np.linalg.cholesky(np.array([[1.0, 0.6], [0.6, 2.0]]))
    log_prob = gaussian.log_prob(*cast(dtype, grid, np.zeros(2), root))
    mass = np.exp(np.asarray(log_prob, np.float64)).sum() * (side[1] - side[0]) ** 2
    np.testing.assert_allclose(mass, 1, **tolerance)


@pytest.mark.parametrize("fraction", [1e-3, 0.5])
def test_a_far_point_has_a_finite_log_density(dtype, fraction):
    """Finite until the squared distance itself overflows."""
    far = fraction * np.sqrt(np.finfo(dtype).max)
    x, mean, root = cast(dtype, [[far, 0.0]], np.zeros(2), np.eye(2))
    found = float(gaussian.log_prob(x, mean, root)[0])
    np.testing.assert_allclose(found, -0.5 * far**2, rtol=10 * np.finfo(dtype).eps)


def test_whiten_maps_to_standard_coordinates(two, dtype, tolerance):
    means, covariances = two
    x = np.random.default_rng(0).normal(size=(5, D))
    root = np.linalg.cholesky(covariances[0])
    found = gaussian.whiten(*cast(dtype, means[0] + x @ root.T, means[0], root))
    np.testing.assert_allclose(found, x, **tolerance)


def test_half_log_det(two, dtype, tolerance):
    root = np.linalg.cholesky(two[1][0])
    found = gaussian.half_log_det(jnp.asarray(root, dtype))
    np.testing.assert_allclose(found, 0.5 * np.linalg.slogdet(two[1][0])[1], **tolerance)


def test_moments_of_samples(two, dtype):
    """Mean and covariance within five standard errors of each entry."""
    means, covariances = two
    n = 20_000
    mean, root = cast(dtype, means[0], np.linalg.cholesky(covariances[0]))
    x = np.asarray(gaussian.sample(jax.random.key(1), mean, root, n), np.float64)
    assert x.shape == (n, D)
    variances = np.diag(covariances[0])
    assert (np.abs(x.mean(axis=0) - means[0]) < 5 * np.sqrt(variances / n)).all()
    # Var of an entry of the sample covariance is (Σ_ij² + Σ_ii Σ_jj) / n.
    error = np.sqrt((covariances[0] ** 2 + np.outer(variances, variances)) / n)
    assert (np.abs(np.cov(x.T) - covariances[0]) < 5 * error).all()


@pytest.mark.parametrize("dims", [[2], [3, 0], [1, 2, 0, 3]])
def test_marginal_picks_rows_and_columns(two, dims, dtype, tolerance):
    root = np.linalg.cholesky(two[1][0])
    mean, factor = gaussian.marginal(*cast(dtype, two[0][0], root), dims)
    np.testing.assert_array_equal(mean, two[0][0][dims].astype(dtype))
    np.testing.assert_array_equal(factor, np.tril(factor))
    assert (np.diagonal(factor) > 0).all()
    np.testing.assert_allclose(factor @ factor.T, two[1][0][np.ix_(dims, dims)], **tolerance)


@pytest.mark.parametrize("known", [[1], [3, 0], [2, 1, 0]])
def test_condition_is_the_inverse_of_a_block_of_the_precision(two, known, dtype, tolerance):
    values = [0.7, -1.2, 3.0][: len(known)]
    expected = oracle.conditional(two[0][0], two[1][0], known, values)
    root = np.linalg.cholesky(two[1][0])
    mean, factor = gaussian.condition(
        *cast(dtype, two[0][0], root), known, jnp.asarray(values, dtype)
    )
    np.testing.assert_allclose(mean, expected[0], **tolerance)
    np.testing.assert_allclose(factor @ factor.T, expected[1], **tolerance)
    np.testing.assert_array_equal(factor, np.tril(factor))


def test_conditional_times_marginal_is_joint(two, dtype, tolerance):
    mean, root = cast(dtype, two[0][0], np.linalg.cholesky(two[1][0]))
    known, rest = [3, 1], [0, 2]
    x = jnp.asarray([[0.3, -1.0, 2.0, 0.5]], dtype)
    given = gaussian.condition(mean, root, known, x[0, jnp.asarray(known)])
    conditional = gaussian.log_prob(x[:, jnp.asarray(rest)], *given)
    marginal = gaussian.log_prob(x[:, jnp.asarray(known)], *gaussian.marginal(mean, root, known))
    joint = gaussian.log_prob(x, mean, root)
    np.testing.assert_allclose(conditional + marginal, joint, **tolerance)


def test_narrow_gaussians_keep_their_digits(dtype, tolerance):
    # Var(y | x) = s² exactly; the covariance itself would round s² away next to one.
    s = 1e-4 if dtype == np.float32 else 1e-9
    mean, root = jnp.zeros(2, dtype), jnp.asarray([[1, 0], [1, s]], dtype)
    _, factor = gaussian.condition(mean, root, [0], jnp.ones(1, dtype))
    np.testing.assert_allclose(factor[0, 0], s, **tolerance | {"atol": 0})
    _, swapped = gaussian.marginal(mean, root, [1, 0])
    x = jnp.full((1, 2), 0.3, dtype)
    np.testing.assert_allclose(
        gaussian.log_prob(x, mean, swapped),
        gaussian.log_prob(x, mean, root),
        rtol=1e-3,  # rounding of x moves it by a small part of s
    )


def test_entropy_and_divergence_are_expectations_of_log_densities(two):
    """H = E[-log p] and KL = E[log p - log q], within five standard errors."""
    (mean_p, mean_q), roots = two[0], np.linalg.cholesky(two[1])
    p, q = cast(np.float64, mean_p, roots[0]), cast(np.float64, mean_q, roots[1])
    x = gaussian.sample(jax.random.key(2), *p, 20_000)
    log_p, log_q = gaussian.log_prob(x, *p), gaussian.log_prob(x, *q)
    for draws, closed in (
        (-log_p, gaussian.entropy(p[1])),
        (log_p - log_q, gaussian.kl_divergence(*p, *q)),
    ):
        assert abs(draws.mean() - closed) < 5 * draws.std() / np.sqrt(len(x))


def test_divergence_of_one_dimension_by_hand(dtype, tolerance):
    """KL(N(1, 2²) ‖ N(0, 1)) = (4 + 1 - 1) / 2 - log 2."""
    one = jnp.ones((1, 1), dtype)
    found = gaussian.kl_divergence(one[0], 2 * one, 0 * one[0], one)
    np.testing.assert_allclose(found, 2 - np.log(2), **tolerance)


def test_divergence_is_nonnegative_and_zero_from_itself(two, dtype, tolerance):
    (mean_p, mean_q), roots = two[0], np.linalg.cholesky(two[1])
    p, q = cast(dtype, mean_p, roots[0]), cast(dtype, mean_q, roots[1])
    np.testing.assert_allclose(gaussian.kl_divergence(*p, *p), 0, atol=tolerance["atol"])
    assert gaussian.kl_divergence(*p, *q) > 0
    assert gaussian.kl_divergence(*q, *p) > 0


@pytest.mark.parametrize("mass", [0.5, 0.95])
def test_ellipse_has_equal_density_and_holds_the_mass(mass, dtype, tolerance):
    covariance = np.array([[2.0, 0.9], [0.9, 1.0]])
    mean = np.array([3.0, -1.0])
    curve = gaussian.ellipse(*cast(dtype, mean, covariance), mass=mass, n_points=60)
    assert curve.shape == (60, 2)
    np.testing.assert_allclose(curve[0], curve[-1], **tolerance)
    away = np.asarray(curve, np.float64) - mean
    radius = np.einsum("nd,de,ne->n", away, np.linalg.inv(covariance), away)
    np.testing.assert_allclose(radius, radius[0], **tolerance)
    draws = np.random.default_rng(0).multivariate_normal(mean, covariance, 20_000) - mean
    inside = (np.einsum("nd,de,ne->n", draws, np.linalg.inv(covariance), draws) < radius[0]).mean()
    assert abs(inside - mass) < 5 * np.sqrt(mass * (1 - mass) / 20_000)


def test_ellipse_of_a_singular_covariance_is_flat(dtype):
    curve = gaussian.ellipse(*cast(dtype, np.zeros(2), [[1.0, 1.0], [1.0, 1.0]]))
    assert np.isfinite(curve).all()
    assert np.ptp(curve @ np.array([1, -1], dtype)) < 1e-3 * np.ptp(curve @ np.array([1, 1], dtype))
