"""The mixture as data, and the questions one asks of it."""

import math
from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jgmm
from jgmm._core.errors import DataError
from jgmm.mixture.conditioning import cov, mean
from jgmm.mixture.mixture import Mixture, change_coordinates, n_parameters, to_host

K, D, N = 3, 3, 50
DRAWS = 20_000


@pytest.fixture(scope="module", params=oracle.FREE)
def name(request):
    return request.param


of_every_model = pytest.mark.parametrize("name", oracle.NAMES, indirect=True, scope="module")


@pytest.fixture(scope="module")
def truth(name):
    """Weights, means and covariances as matrices, in float64."""
    return oracle.parameters(1, k=K, d=D, model=name)


@pytest.fixture(scope="module")
def mixture(truth, name, dtype):
    return jgmm.make_mixture(*(a.astype(dtype) for a in truth), name)


@pytest.fixture(scope="module")
def x(dtype):
    return oracle.draw(0, N, *oracle.parameters(1, k=K, d=D)).astype(dtype)


@pytest.fixture(scope="module")
def full(dtype):
    """What tests use that hold for one model as for any other."""
    return jgmm.make_mixture(*(a.astype(dtype) for a in oracle.parameters(1, k=K, d=D)))


# Making one.


@of_every_model
def test_it_holds_what_it_was_given(mixture, truth, name, dtype, tolerance):
    weights, means, covariances = truth
    assert mixture.covariance == name
    assert (mixture.n_components, mixture.n_features) == (K, D)
    chex.assert_tree_all_finite(mixture)
    assert {leaf.dtype for leaf in jax.tree.leaves(mixture)} == {dtype}
    np.testing.assert_allclose(mixture.weights, weights, **tolerance)
    np.testing.assert_allclose(mixture.means, means, **tolerance)
    np.testing.assert_allclose(mixture.covariances, covariances, **tolerance)
    np.testing.assert_allclose(
        mixture.variances, np.diagonal(covariances, axis1=1, axis2=2), **tolerance
    )
    np.testing.assert_allclose(mixture.cholesky, np.linalg.cholesky(covariances), **tolerance)


def own_form(name, covariances):
    """As little of the covariances as says all about them."""
    code = oracle.CODES[name]
    if code[2] != "I":
        own = covariances
    elif code[1] != "I":
        own = np.diagonal(covariances, axis1=1, axis2=2)
    else:
        own = covariances[:, 0, 0]
    return own if "V" in code else own[0]


@of_every_model
def test_storage_is_no_larger_than_the_model_needs(mixture, truth, name):
    own = own_form(name, truth[2])
    shared = name in ("EII", "EEI", "tied")
    assert mixture.scale.shape == ((1, *own.shape) if shared else own.shape)


@of_every_model
def test_own_form_and_matrices_make_the_same(mixture, truth, name, dtype):
    weights, means, covariances = (a.astype(dtype) for a in truth)
    own = own_form(name, covariances)
    chex.assert_trees_all_close(jgmm.make_mixture(weights, means, own, name), mixture, rtol=1e-6)


def test_lists_will_do():
    made = jgmm.make_mixture([0.25, 0.75], [[0, 1], [2, 3]], [[1, 2], [3, 4]], "diag")
    np.testing.assert_allclose(made.variances, [[1, 2], [3, 4]], rtol=1e-15)


def test_synonyms_are_stored_under_one_name(dtype):
    eye = np.eye(2, dtype=dtype)[None]
    made = jgmm.make_mixture([1.0], np.zeros((1, 2), dtype), eye, "general")
    assert made.covariance == "full"


GOOD = ([0.5, 0.5], [[0.0, 0.0], [1.0, 1.0]], [np.eye(2), np.eye(2)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: [0.5, 0.4]}, "sum to one.*0.4"),
        ({0: [1.5, -0.5]}, "nonnegative.*-0.5"),
        ({0: [np.nan, 1.0]}, "nan"),
        ({0: [1.0]}, r"shape \(2,\)"),
        ({1: [0.0, 1.0]}, "means must be two-dimensional"),
        ({1: [[0.0, np.nan], [1.0, 1.0]]}, "means holds nan in row 0, column 'x1'"),
        ({2: [np.eye(3), np.eye(3)]}, r"must have shape.*\(2, 3, 3\)"),
        ({2: [np.eye(2), [[1.0, 0.9], [0.1, 1.0]]]}, "not symmetric"),
        ({2: [np.eye(2), [[1.0, 2.0], [2.0, 1.0]]]}, "covariance 1 is not positive definite"),
        ({2: [np.zeros((2, 2)), np.eye(2)]}, "covariance 0 is not positive definite"),
        ({2: [np.eye(2), np.full((2, 2), np.nan)]}, "covariances hold NaN"),
    ],
)
def test_numbers_that_are_no_mixture_are_refused(change, message):
    arguments = [change.get(i, value) for i, value in enumerate(GOOD)]
    with pytest.raises(DataError, match=message):
        jgmm.make_mixture(*arguments)


@pytest.mark.parametrize("name", [name for name in oracle.NAMES if name != "full"])
def test_matrices_of_another_form_are_refused(name):
    """Whatever the units: the check is relative."""
    _, means, covariances = oracle.parameters(1, k=K, d=D)
    for unit in (1.0, 1e-7):
        with pytest.raises(DataError, match=f"form of '{name}'"):
            jgmm.make_mixture(np.full(K, 1 / K), unit * means, unit**2 * covariances, name)


@pytest.mark.parametrize("name", [name for name in oracle.NAMES if name not in oracle.FREE])
def test_covariances_that_only_the_storage_can_hold_are_refused(name, dtype):
    """The right shape, matrix by matrix a covariance, but nothing is shared."""
    weights, means, covariances = oracle.parameters(1, k=K, d=D)
    stored = np.asarray(jgmm.covariance.model(name).storage.from_dense(jnp.asarray(covariances)))
    arguments = [a.astype(dtype) for a in (weights, means, stored)]
    with pytest.raises(DataError, match=f"form of '{name}'"):
        jgmm.make_mixture(*arguments, name)


@pytest.mark.parametrize("name", ["diag", "spherical", "EEI", "EII"])
@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_variances_must_be_positive(name, bad):
    own = {"diag": (2, 2), "spherical": (2,), "EEI": (2,), "EII": ()}[name]
    with pytest.raises(DataError, match="not positive definite"):
        jgmm.make_mixture(*GOOD[:2], np.full(own, bad), name)


def test_rounding_in_a_product_does_not_make_a_matrix_asymmetric():
    """R Λ Rᵀ has off-diagonal zeros that rounding makes differ in their last bits."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        rotation = np.linalg.qr(rng.normal(size=(4, 4)))[0]
        jgmm.make_mixture([1.0], np.zeros((1, 4)), [(rotation * np.ones(4)) @ rotation.T])


def test_an_unknown_model_is_refused():
    with pytest.raises(ValueError, match=r"'ful'.*Did you mean 'full'"):
        jgmm.make_mixture(*GOOD, "ful")


def test_the_constructor_takes_placeholders(full):
    """Transformations rebuild a pytree with objects that are no arrays."""
    leaves, shape = jax.tree.flatten(full)
    assert len(leaves) == 3
    rebuilt = jax.tree.unflatten(shape, [object()] * 3)
    assert isinstance(rebuilt, Mixture)
    assert rebuilt.covariance == full.covariance


# Density and posterior.


def test_e_step_is_the_textbook(mixture, truth, x, dtype, tolerance):
    log_prob, resp = oracle.e_step(x.astype(np.float64), *truth)
    found = jgmm.e_step(mixture, x)
    assert found.log_prob.dtype == found.log_resp.dtype == dtype
    np.testing.assert_allclose(found.log_prob, log_prob, **tolerance)
    np.testing.assert_allclose(np.exp(found.log_resp), resp, **tolerance)
    np.testing.assert_array_equal(jgmm.predict(mixture, x), resp.argmax(axis=1))


def test_the_questions_agree(mixture, x, tolerance):
    expectation = jgmm.e_step(mixture, x)
    np.testing.assert_array_equal(jgmm.log_prob(mixture, x), expectation.log_prob)
    resp = jgmm.responsibilities(mixture, x)
    np.testing.assert_array_equal(resp, jnp.exp(expectation.log_resp))
    np.testing.assert_allclose(resp.sum(axis=1), 1, **tolerance)


@settings(max_examples=15)
@given(scale=st.floats(-6, 6), seed=st.integers(0, 2**20))
def test_posteriors_sum_to_one_near_and_far(full, dtype, tolerance, scale, seed):
    x = 10**scale * np.random.default_rng(seed).normal(size=(N, D))
    resp = jgmm.responsibilities(full, x.astype(dtype))
    assert (resp >= 0).all()
    np.testing.assert_allclose(resp.sum(axis=1), 1, **tolerance)


def test_density_integrates_to_one(full, dtype, tolerance):
    """A two-dimensional marginal on a grid that reaches ten standard deviations."""
    side = np.linspace(-16, 16, 201)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2).astype(dtype)
    log_prob = jgmm.log_prob(jgmm.marginal(full, [0, 2]), grid)
    mass = np.exp(np.asarray(log_prob, np.float64)).sum() * (side[1] - side[0]) ** 2
    np.testing.assert_allclose(mass, 1, **tolerance)


def test_a_component_of_weight_zero_has_no_responsibility(mixture, x):
    off = jnp.asarray([0.0, -np.inf, 0.0], x.dtype)
    switched = replace(mixture, log_weights=jax.nn.log_softmax(off))
    at_its_mean = np.concatenate([mixture.means[1:2], x[1:]])
    resp = jgmm.responsibilities(switched, at_its_mean)
    np.testing.assert_array_equal(resp[:, 1], 0)
    assert np.isfinite(resp).all()
    assert not (jgmm.predict(switched, at_its_mean) == 1).any()


def test_a_component_of_weight_zero_is_not_there(full, x, tolerance):
    index = jnp.asarray([0, 2])
    rest = jax.tree.map(lambda leaf: leaf[index], full)
    off = jnp.asarray([1, 0, 1], x.dtype)
    switched = replace(full, log_weights=full.log_weights + jnp.log(off))
    np.testing.assert_allclose(jgmm.log_prob(switched, x), jgmm.log_prob(rest, x), **tolerance)


def test_a_far_point_has_a_finite_log_density(mixture, dtype):
    """Up to a tenth of where squares overflow, along every direction that is far from all."""
    far = np.sqrt(np.finfo(dtype).max) / (10 * D)
    x = np.array([[far, 0, 0], [-far, far, 0], [far, far, far]], dtype)
    expectation = jgmm.e_step(mixture, x)
    chex.assert_tree_all_finite(expectation.log_prob)
    assert (expectation.log_prob < -1e30).all()
    np.testing.assert_allclose(np.exp(expectation.log_resp).sum(axis=1), 1, rtol=1e-5)


def test_beyond_overflow_a_density_is_zero_and_not_nan(dtype):
    """A component far narrower than one: the squared distance overflows though x² does not."""
    narrow = jgmm.make_mixture(
        [1.0], np.zeros((1, 1), dtype), np.full(1, 1e-10, dtype), "spherical"
    )
    far = np.full((1, 1), np.sqrt(np.finfo(dtype).max) / 10, dtype)
    assert float(jgmm.log_prob(narrow, far)[0]) == -np.inf


def test_a_nan_row_spoils_no_other(mixture, x):
    """Outside jit it is refused; inside, where values cannot be seen, it stays in its row."""
    dirty = x.copy()
    dirty[3, 1] = np.nan
    with pytest.raises(DataError, match="row 3, column 'x1'"):
        jgmm.log_prob(mixture, dirty)
    found = np.asarray(jax.jit(jgmm.log_prob)(mixture, dirty))
    assert np.isnan(found[3])
    np.testing.assert_array_equal(np.delete(found, 3), np.delete(jgmm.log_prob(mixture, x), 3))


def test_blocks_do_not_show(monkeypatch, full, x, tolerance):
    whole = jgmm.e_step(full, x)
    monkeypatch.setattr("jgmm.mixture.BLOCK_BYTES", 7 * K * D * x.itemsize)
    blocks = jgmm.e_step(full, x[:-1])  # another shape, so compiled anew
    chex.assert_trees_all_close(blocks, jax.tree.map(lambda leaf: leaf[:-1], whole), **tolerance)


@settings(max_examples=10)
@given(order=st.permutations(range(K)))
def test_components_have_no_order(full, tolerance, x, order):
    index = jnp.asarray(order)
    permuted = jax.tree.map(lambda leaf: leaf[index], full)
    np.testing.assert_allclose(jgmm.log_prob(permuted, x), jgmm.log_prob(full, x), **tolerance)
    np.testing.assert_allclose(
        jgmm.responsibilities(permuted, x), jgmm.responsibilities(full, x)[:, index], **tolerance
    )


@settings(max_examples=15)
@given(shift=st.floats(-5, 5), scale=st.floats(0.2, 5))
def test_density_follows_a_change_of_units(full, dtype, tolerance, x, shift, scale):
    """p(y) = p(x) / scaleᴰ for y = shift + scale · x."""
    cast = np.dtype(dtype).type
    moved = change_coordinates(full, jnp.full(D, shift, dtype), jnp.full(D, scale, dtype))
    np.testing.assert_allclose(
        jgmm.log_prob(moved, cast(shift) + cast(scale) * x),
        jgmm.log_prob(full, x) - D * math.log(scale),
        # Subtracting the shift again loses what it rounds off: up to 5 / 0.2 times as much.
        **{k: 25 * v for k, v in tolerance.items()},
    )


def test_columns_must_match(full):
    with pytest.raises(DataError, match="x has 2 columns; the mixture was made for 3"):
        jgmm.log_prob(full, np.zeros((4, 2)))


# Moments, samples, marginals, conditionals.


def test_moments_by_hand(dtype, tolerance):
    """Half at -1, half at 1, unit variance: mean zero, variance two."""
    two = jgmm.make_mixture([0.5, 0.5], np.array([[-1], [1]], dtype), [1.0, 1.0], "spherical")
    np.testing.assert_allclose(mean(two), [0], **tolerance)
    np.testing.assert_allclose(cov(two), [[2]], **tolerance)


def test_samples_have_the_moments_of_the_mixture(mixture, truth):
    """Within five standard errors, measured on the draws."""
    n = DRAWS
    x, labels = jgmm.sample(jax.random.key(0), mixture, n)
    assert x.shape == (n, D)
    assert labels.shape == (n,)
    x, labels = np.asarray(x, np.float64), np.asarray(labels)
    error = x.std(axis=0) / np.sqrt(n)
    assert (np.abs(x.mean(axis=0) - np.asarray(mean(mixture))) < 5 * error).all()
    away = x - x.mean(axis=0)
    products = away[:, :, None] * away[:, None, :]
    error = products.std(axis=0) / np.sqrt(n)
    assert (np.abs(products.mean(axis=0) - np.asarray(cov(mixture))) < 5 * error).all()
    shares = np.bincount(labels, minlength=K) / n
    assert (np.abs(shares - truth[0]) < 5 * np.sqrt(truth[0] / n)).all()
    for k in range(K):  # the labels belong to the samples
        own = x[labels == k]
        error = np.sqrt(np.diag(truth[2][k]) / len(own))
        assert (np.abs(own.mean(axis=0) - truth[1][k]) < 5 * error).all()


def test_a_component_of_weight_zero_is_never_drawn(full, dtype):
    off = jnp.asarray([0.0, -np.inf, 0.0], dtype)
    switched = replace(full, log_weights=jax.nn.log_softmax(off))
    assert not (jgmm.sample(jax.random.key(0), switched, DRAWS)[1] == 1).any()


def test_the_same_key_gives_the_same_samples(full, dtype):
    first = jgmm.sample(jax.random.key(7), full, DRAWS)
    assert first[0].dtype == dtype
    chex.assert_trees_all_equal(first, jgmm.sample(jax.random.key(7), full, DRAWS))
    other = jgmm.sample(jax.random.key(8), full, DRAWS)
    assert not np.array_equal(first[0], other[0])


def test_sampling_needs_a_typed_key(full):
    with pytest.raises((TypeError, DataError)):
        jgmm.sample(0, full, 10)


@of_every_model
@pytest.mark.parametrize("dims", [[2, 0]])
def test_marginal_is_the_mixture_of_marginals(mixture, truth, name, x, dims, tolerance):
    weights, means, covariances = truth
    found = jgmm.marginal(mixture, dims)
    assert found.covariance == jgmm.covariance.model(name).marginal_model.name
    sub = x[:, dims].astype(np.float64)
    expected = oracle.e_step(sub, weights, means[:, dims], covariances[:, dims][:, :, dims])[0]
    np.testing.assert_allclose(jgmm.log_prob(found, x[:, dims]), expected, **tolerance)


@pytest.mark.parametrize("known", [[1], [2, 0]])
def test_conditional_times_marginal_is_joint(mixture, name, x, known, tolerance):
    """log p(x_a | x_b) + log p(x_b) = log p(x), at points that reweight the components."""
    rest = [d for d in range(D) if d not in known]

    @jax.jit
    def product(row):
        conditional = jgmm.condition(mixture, known, row[jnp.asarray(known)])
        assert conditional.covariance == jgmm.covariance.model(name).marginal_model.name
        given = jgmm.marginal(mixture, known)
        a = jgmm.log_prob(conditional, row[None, jnp.asarray(rest)])
        b = jgmm.log_prob(given, row[None, jnp.asarray(known)])
        return a[0] + b[0], conditional.weights.sum()

    joint = jgmm.log_prob(mixture, x)
    for row, expected in zip(x[:8], joint[:8], strict=True):
        total, mass = product(row)
        np.testing.assert_allclose(total, expected, **tolerance)
        np.testing.assert_allclose(mass, 1, **tolerance)


def test_conditioning_far_away_keeps_a_distribution(mixture, dtype):
    """Where every component's density underflows, the weights are still a distribution."""
    found = jgmm.condition(mixture, [0], np.array([1e5], dtype))
    chex.assert_tree_all_finite((found.weights, found.means, found.scale))
    np.testing.assert_allclose(found.weights.sum(), 1, rtol=1e-5)


@pytest.mark.parametrize("dims", [[], [3], [-1], [1, 1]])
def test_coordinates_must_exist(full, dims):
    for ask in (jgmm.marginal, lambda m, d: jgmm.condition(m, d, np.zeros(len(d)))):
        with pytest.raises(DataError, match="distinct coordinates from 0 to 2"):
            ask(full, dims)


def test_conditions_must_make_sense(full):
    with pytest.raises(DataError, match=r"shape \(1,\)"):
        jgmm.condition(full, [0], [1.0, 2.0])
    with pytest.raises(DataError, match="none is left"):
        jgmm.condition(full, [0, 1, 2], [1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="nan"):
        jgmm.condition(full, [0], [np.nan])


@pytest.mark.parametrize(("name", "expected"), [("tied", 6), ("diag", 9), ("VVE", 12), ("EII", 1)])
def test_n_parameters(name, expected):
    mixture = jgmm.make_mixture(*oracle.parameters(1, k=K, d=D, model=name), name)
    assert n_parameters(mixture) == K - 1 + K * D + expected


def test_to_host(mixture, truth, tolerance):
    found = to_host(mixture)
    assert list(found) == ["weights", "means", "covariances"]
    for array, expected in zip(found.values(), truth, strict=True):
        assert type(array) is np.ndarray
        np.testing.assert_allclose(array, expected, **tolerance)
