"""The three forms in which covariances are stored, each against matrices."""

import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from jgmm.covariance.storage import Diagonal, Full, Spherical

K, D = 3, 4
FORMS = [Full, Diagonal, Spherical]


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: form.name)
def form(request):
    return request.param


@pytest.fixture(scope="module")
def stored(form, dtype):
    """Random covariances in a storage form, and the same as matrices in float64."""
    sigma = oracle.parameters(5, k=K, d=D, model=form.name)[2]
    return form.from_dense(jnp.asarray(sigma, dtype)), sigma


def test_factor_and_dense(form, stored, dtype, tolerance):
    scale = form.root(stored[0])
    assert scale.ndim == form.ndim
    assert scale.dtype == dtype
    dense = form.to_dense(scale, D)
    np.testing.assert_array_equal(dense, jnp.tril(dense))
    np.testing.assert_allclose(dense @ dense.mT, stored[1], **tolerance)


def test_half_log_det_variances_and_precisions(form, stored, tolerance):
    scale = form.root(stored[0])
    np.testing.assert_allclose(
        form.half_log_det(scale, D), 0.5 * np.linalg.slogdet(stored[1])[1], **tolerance
    )
    np.testing.assert_allclose(
        form.variances(scale, D), np.diagonal(stored[1], axis1=1, axis2=2), **tolerance
    )
    precisions = np.diagonal(np.linalg.inv(stored[1]), axis1=1, axis2=2)
    np.testing.assert_allclose(form.precisions(form.invert(scale), D), precisions, **tolerance)


@pytest.mark.parametrize("copies", [1, K])
def test_distance_is_mahalanobis(form, stored, copies, dtype, tolerance):
    x = np.random.default_rng(0).normal(size=(K, D))
    inverse = form.invert(form.root(stored[0][:copies]))
    found = form.distance(inverse, jnp.asarray(x, dtype))
    sigma = np.broadcast_to(stored[1][:copies], (K, D, D))
    expected = [x[k] @ np.linalg.solve(sigma[k], x[k]) for k in range(K)]
    np.testing.assert_allclose(found, expected, **tolerance)


def test_scatter_and_outer_are_the_stored_form_of_matrices(form, dtype, tolerance):
    rng = np.random.default_rng(1)
    resp, difference = rng.uniform(size=(K, 6)), rng.normal(size=(K, D, 6))
    dense = np.einsum("kb,kdb,keb->kde", resp, difference, difference)
    found = form.scatter(jnp.asarray(resp, dtype), jnp.asarray(difference, dtype))
    np.testing.assert_allclose(found, form.from_dense(jnp.asarray(dense)), **tolerance)
    outer = np.einsum("kd,ke->kde", difference[..., 0], difference[..., 0])
    found = form.outer(jnp.asarray(difference[..., 0], dtype))
    np.testing.assert_allclose(found, form.from_dense(jnp.asarray(outer)), **tolerance)


def test_apply_multiplies_by_a_square_root(form, stored, dtype, tolerance):
    scale = form.root(stored[0])
    noise = np.random.default_rng(2).normal(size=(K, D))
    found = form.apply(scale, jnp.asarray(noise, dtype))
    expected = np.einsum("kde,ke->kd", np.asarray(form.to_dense(scale, D), np.float64), noise)
    np.testing.assert_allclose(found, expected, **tolerance)


def test_rescale_follows_a_change_of_units(form, stored, dtype, tolerance):
    factor = np.full(D, 3.0) if form is Spherical else np.array([2.0, 0.5, 1.0, 10.0])
    stretched = form.rescale(form.root(stored[0]), jnp.asarray(factor, dtype))
    dense = form.to_dense(stretched, D)
    np.testing.assert_allclose(
        dense @ dense.mT, factor[:, None] * stored[1] * factor[None, :], **tolerance
    )


def test_conditional_variances_show_a_nearly_singular_covariance(dtype):
    """The variance of the second coordinate given the first is 1 - ρ²."""
    rho = 0.75
    full = Full.root(jnp.asarray([[[1.0, rho], [rho, 1.0]]], dtype))
    np.testing.assert_allclose(
        Full.conditional_variances(full), [[1, 1 - rho**2]], rtol=4 * np.finfo(dtype).eps
    )
    np.testing.assert_allclose(
        Diagonal.conditional_variances(jnp.asarray([[2.0, 3.0]], dtype)), [[4, 9]]
    )
    np.testing.assert_allclose(Spherical.conditional_variances(jnp.asarray([2.0], dtype)), [[4]])


def test_identity_is_the_unit_covariance(form, dtype):
    dense = form.to_dense(form.root(form.identity(D, dtype)), D)
    assert dense.dtype == dtype
    np.testing.assert_array_equal(dense, np.eye(D)[None])


@pytest.mark.parametrize(
    ("d", "dtype"),
    [*((d, "float64") for d in (1, 2, 3, 8, 33, 131)), (5, "float32")],
    indirect=["dtype"],
)
def test_lower_factors_are_inverted_as_well_as_by_substitution(d, dtype):
    """Sizes that are powers of two and not, badly conditioned; column by column in the oracle."""
    rng = np.random.default_rng(d)
    factor = np.tril(rng.normal(size=(2, d, d))) + 3 * np.eye(d)
    factor *= np.geomspace(1e-3, 1, d)[:, None]
    found = Full.invert(jnp.asarray(factor, dtype))
    exact = np.asarray(jnp.asarray(factor, dtype), np.float64)
    # Backward stable: the residual is a few roundings of |L⁻¹| |L|, entry by entry.
    residual = np.abs(np.asarray(found, np.float64) @ exact - np.eye(d))
    bound = np.abs(np.asarray(found, np.float64)) @ np.abs(exact)
    assert (residual <= 2 * d * np.finfo(dtype).eps * bound).all()
    assert (np.triu(found[0], 1) == 0).all()


@pytest.mark.parametrize(("form", "expected"), [(Full, 10), (Diagonal, 4), (Spherical, 1)])
def test_numbers_that_are_free(form, expected):
    assert form.n_free(D) == expected


def test_what_is_raised_above_the_least_is_raised_no_more_than_it_lacks(
    form, stored, dtype, tolerance
):
    sigma = np.asarray(stored[1])
    bound = np.diag([0.5, 1.0, 2.0, 4.0]) + 0.3 if form is Full else 1.3 * np.eye(D)
    least = form.from_dense(jnp.asarray(bound[None], dtype))
    raised = form.at_least(stored[0], least)
    root = np.linalg.cholesky(bound)
    for k in range(K):
        relative = np.linalg.solve(root, np.linalg.solve(root, sigma[k]).T)
        spread, axes = np.linalg.eigh(relative)
        clipped = root @ axes @ np.diag(np.maximum(spread, 1)) @ axes.T @ root.T
        np.testing.assert_allclose(
            form.from_dense(jnp.asarray(clipped[None]))[0], raised[k], **tolerance
        )
        assert bool(form.exceeds(stored[0], float(0.99 * spread.min()) * least)[k])
        assert not bool(form.exceeds(stored[0], float(1.01 * spread.min()) * least)[k])
    np.testing.assert_allclose(form.at_least(raised, least), raised, **tolerance)
