"""The table of covariance models: names, parameter counts, storage, estimates."""

import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from jgmm.covariance import MODELS, Diagonal, Full, Spherical, model

K, D = 3, 4
FORMS = [Full, Diagonal, Spherical]


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (("full", "general", "VVV"), "VVV"),
        (("tied", "EEE"), "EEE"),
        (("diag", "aligned", "VVI"), "VVI"),
        (("spherical", "VII"), "VII"),
        (("EEI",), "EEI"),
        (("EII",), "EII"),
    ],
)
def test_names(names, code):
    assert {model(name) for name in names} == {MODELS[code]}
    assert model(code).code == code


def test_the_name_of_every_model_finds_it():
    assert [model(entry.name) for entry in MODELS.values()] == list(MODELS.values())


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("ful", "full"), ("sferical", "spherical"), ("VVVV", "VVV")]
)
def test_an_unknown_name_is_refused_with_the_nearest(wrong, nearest):
    with pytest.raises(ValueError, match=f"{wrong!r}.*Did you mean {nearest!r}.*Known: .*diag"):
        model(wrong)


def test_an_unknown_name_like_no_other_lists_them_all():
    with pytest.raises(ValueError, match=r"Known: .*full") as raised:
        model("qqqq")
    assert "Did you mean" not in str(raised.value)


@pytest.mark.parametrize(
    ("code", "expected"),
    [("EII", 1), ("VII", 3), ("EEI", 4), ("VVI", 12), ("EEE", 10), ("VVV", 30)],
)
def test_parameter_counts(code, expected):
    """Celeux & Govaert (1995), table 1, for K = 3 and D = 4; weights and means add 2 and 12."""
    assert MODELS[code].count(K, D) == expected
    assert MODELS[code].n_parameters(K, D) == expected + 2 + 12


@pytest.mark.parametrize("code", list(oracle.MODELS))
def test_parameter_count_is_the_dimension_of_what_it_can_reach(code):
    """As many independent directions as parameters: the rank of many random estimates."""
    entry = MODELS[code]
    rng = np.random.default_rng(0)
    reached = []
    for _ in range(40):
        counts, scatter = random_scatter(rng, np.float64)
        stored = entry.estimate(counts, entry.pool(entry.storage.compress(scatter)))
        root = entry.storage.factor(stored)
        dense = entry.storage.dense(root, D)
        sigma = jnp.broadcast_to(dense @ dense.mT, (K, D, D))
        reached.append(np.asarray(sigma).ravel())
    assert np.linalg.matrix_rank(np.array(reached)) == entry.count(K, D)


def random_scatter(rng, dtype):
    """Counts (K,) and scatter matrices (K, D, D)."""
    root = rng.normal(size=(K, D, 10))
    counts = rng.uniform(3, 20, size=K)
    return jnp.asarray(counts, dtype), jnp.asarray(root @ root.transpose(0, 2, 1), dtype)


@pytest.mark.parametrize("name", oracle.NAMES)
def test_estimate_is_the_closed_form(name, dtype, tolerance):
    entry = model(name)
    counts, scatter = random_scatter(np.random.default_rng(1), dtype)
    stored = entry.estimate(counts, entry.pool(entry.storage.compress(scatter)))
    assert stored.shape[0] == (1 if entry.shared else K)
    assert stored.ndim == entry.storage.ndim
    dense = entry.storage.dense(entry.storage.factor(stored), D)
    n, s = np.asarray(counts, np.float64), np.asarray(scatter, np.float64)
    own, shared = s / n[:, None, None], s.sum(axis=0, keepdims=True) / n.sum()
    expected = {"tied": shared, "EEI": shared, "EII": shared}.get(name, own)
    if name in ("diag", "EEI"):
        expected = expected * np.eye(D)
    if name in ("spherical", "EII"):
        expected = np.trace(expected, axis1=1, axis2=2)[:, None, None] / D * np.eye(D)
    np.testing.assert_allclose(dense @ dense.mT, expected, **tolerance)


@pytest.mark.parametrize("name", oracle.NAMES)
def test_estimate_maximises_the_expected_log_likelihood(name):
    """Σₖ -½ (Nₖ log|Σₖ| + tr(Σₖ⁻¹ Sₖ)) falls in every direction the model can go."""
    entry = model(name)
    rng = np.random.default_rng(2)
    counts, scatter = random_scatter(rng, np.float64)

    def score(stored):
        root = entry.storage.factor(stored)
        sigma = np.asarray(entry.storage.dense(root, D) @ entry.storage.dense(root, D).mT)
        sigma = np.broadcast_to(sigma, (K, D, D))
        return -0.5 * sum(
            counts[k] * np.linalg.slogdet(sigma[k])[1]
            + np.trace(np.linalg.solve(sigma[k], np.asarray(scatter[k])))
            for k in range(K)
        )

    best = entry.estimate(counts, entry.pool(entry.storage.compress(scatter)))
    other_counts, other = random_scatter(rng, np.float64)
    direction = entry.estimate(other_counts, entry.pool(entry.storage.compress(other)))
    values = [score(best + t * direction) for t in (-0.02, 0.0, 0.02)]
    assert values[1] > max(values[0], values[2])


@pytest.mark.parametrize("name", oracle.NAMES)
def test_a_component_without_samples_gets_the_unit_covariance(name, dtype):
    entry = model(name)
    counts, scatter = random_scatter(np.random.default_rng(3), dtype)
    empty = jnp.asarray([True, False, False])
    counts = jnp.where(empty, 0, counts)
    scatter = jnp.where(empty[:, None, None], 0, scatter)
    stored = entry.estimate(counts, entry.pool(entry.storage.compress(scatter)))
    assert np.isfinite(stored).all()
    if not entry.shared:
        np.testing.assert_array_equal(stored[:1], entry.storage.identity(D, dtype))


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: form.name)
def form(request):
    return request.param


@pytest.fixture(scope="module")
def stored(form, dtype):
    """Random covariances in a storage form, and the same as matrices in float64."""
    sigma = oracle.parameters(5, k=K, d=D, model=form.name)[2]
    return form.compress(jnp.asarray(sigma, dtype)), sigma


def test_factor_and_dense(form, stored, dtype, tolerance):
    scale = form.factor(stored[0])
    assert scale.ndim == form.ndim
    assert scale.dtype == dtype
    dense = form.dense(scale, D)
    np.testing.assert_array_equal(dense, jnp.tril(dense))
    np.testing.assert_allclose(dense @ dense.mT, stored[1], **tolerance)


def test_half_log_det_variances_and_precisions(form, stored, tolerance):
    scale = form.factor(stored[0])
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
    inverse = form.invert(form.factor(stored[0][:copies]))
    found = form.distance(inverse, jnp.asarray(x, dtype))
    sigma = np.broadcast_to(stored[1][:copies], (K, D, D))
    expected = [x[k] @ np.linalg.solve(sigma[k], x[k]) for k in range(K)]
    np.testing.assert_allclose(found, expected, **tolerance)


def test_scatter_and_outer_are_the_compressed_matrices(form, dtype, tolerance):
    rng = np.random.default_rng(1)
    resp, difference = rng.uniform(size=(K, 6)), rng.normal(size=(K, D, 6))
    dense = np.einsum("kb,kdb,keb->kde", resp, difference, difference)
    found = form.scatter(jnp.asarray(resp, dtype), jnp.asarray(difference, dtype))
    np.testing.assert_allclose(found, form.compress(jnp.asarray(dense)), **tolerance)
    outer = np.einsum("kd,ke->kde", difference[..., 0], difference[..., 0])
    found = form.outer(jnp.asarray(difference[..., 0], dtype))
    np.testing.assert_allclose(found, form.compress(jnp.asarray(outer)), **tolerance)


def test_apply_multiplies_by_a_square_root(form, stored, dtype, tolerance):
    scale = form.factor(stored[0])
    noise = np.random.default_rng(2).normal(size=(K, D))
    found = form.apply(scale, jnp.asarray(noise, dtype))
    expected = np.einsum("kde,ke->kd", np.asarray(form.dense(scale, D), np.float64), noise)
    np.testing.assert_allclose(found, expected, **tolerance)


def test_stretch_follows_a_change_of_units(form, stored, dtype, tolerance):
    factor = np.full(D, 3.0) if form is Spherical else np.array([2.0, 0.5, 1.0, 10.0])
    stretched = form.stretch(form.factor(stored[0]), jnp.asarray(factor, dtype))
    dense = form.dense(stretched, D)
    np.testing.assert_allclose(
        dense @ dense.mT, factor[:, None] * stored[1] * factor[None, :], **tolerance
    )


def test_conditional_variances_show_a_nearly_singular_covariance(dtype):
    """The variance of the second coordinate given the first is 1 - ρ²."""
    rho = 0.75
    full = Full.factor(jnp.asarray([[[1.0, rho], [rho, 1.0]]], dtype))
    np.testing.assert_allclose(
        Full.conditional_variances(full), [[1, 1 - rho**2]], rtol=4 * np.finfo(dtype).eps
    )
    np.testing.assert_allclose(
        Diagonal.conditional_variances(jnp.asarray([[2.0, 3.0]], dtype)), [[4, 9]]
    )
    np.testing.assert_allclose(Spherical.conditional_variances(jnp.asarray([2.0], dtype)), [[4]])


def test_identity_is_the_unit_covariance(form, dtype):
    dense = form.dense(form.factor(form.identity(D, dtype)), D)
    assert dense.dtype == dtype
    np.testing.assert_array_equal(dense, np.eye(D)[None])


@pytest.mark.parametrize("d", [1, 2, 3, 5, 8, 33])
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
