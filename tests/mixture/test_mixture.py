"""``Mixture``: what it holds, what is refused as one, changes of units, numbers of parameters."""

import dataclasses
import math

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
from jgmm.mixture.mixture import Mixture, change_coordinates, n_parameters

K, D, N = 3, 3, 50


of_every_model = pytest.mark.parametrize("name", oracle.NAMES, indirect=True, scope="module")


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


def test_lists_are_accepted():
    made = jgmm.make_mixture([0.25, 0.75], [[0, 1], [2, 3]], [[1, 2], [3, 4]], "diag")
    np.testing.assert_allclose(made.variances, [[1, 2], [3, 4]], rtol=1e-15)


def test_synonyms_are_stored_under_one_name(dtype):
    eye = np.eye(2, dtype=dtype)[None]
    made = jgmm.make_mixture([1.0], np.zeros((1, 2), dtype), eye, "general")
    assert made.covariance == "full"


SYNONYMS = [(name, entry) for entry in jgmm.covariance.MODELS.values() for name in entry.names]


@pytest.mark.parametrize(("name", "entry"), [*SYNONYMS, ("VVV", jgmm.covariance.model("full"))])
def test_the_constructor_writes_the_name_of_the_model(name, entry):
    """Pytrees of one model would have different structures otherwise."""
    made = Mixture(jnp.zeros(1), jnp.zeros((1, 2)), jnp.ones((1, 2, 2)), name)
    other = Mixture(jnp.zeros(1), jnp.zeros((1, 2)), jnp.ones((1, 2, 2)), entry.code)
    assert made.covariance == other.covariance == entry.name
    assert jax.tree.structure(made) == jax.tree.structure(other)
    with pytest.raises(ValueError, match="unknown covariance model 'VVW'"):
        dataclasses.replace(made, covariance="VVW")


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


# Batches.


def batch_of(mixture, shape=(2, 4)):
    """The mixture and copies of it that are moved, with leading axes of the given shape."""
    n = math.prod(shape)
    moves = jnp.arange(float(n), dtype=mixture.means.dtype)

    def moved(move):
        return dataclasses.replace(mixture, means=mixture.means + move)

    many = jax.vmap(moved)(moves)
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), many)


@of_every_model
def test_properties_of_a_batch_keep_its_leading_axes(mixture, tolerance):
    """Also where the number of mixtures is that of components, or of columns: no axis is mixed."""
    for shape in ((K,), (2, 4)):
        batch = batch_of(mixture, shape)
        for what in ("weights", "cholesky", "covariances", "variances"):
            one, every = getattr(mixture, what), np.asarray(getattr(batch, what))
            assert every.shape == (*shape, *one.shape)
            for index in np.ndindex(shape):
                np.testing.assert_allclose(every[index], one, **tolerance)
        middle, spread = mean(batch), cov(batch)
        moves = np.arange(math.prod(shape), dtype=middle.dtype).reshape(*shape, 1)
        np.testing.assert_allclose(middle, np.asarray(mean(mixture)) + moves, **tolerance)
        expected = np.broadcast_to(cov(mixture), spread.shape)
        np.testing.assert_allclose(spread, expected, rtol=1e-4, atol=1e-4)
        assert spread.shape == (*shape, D, D)
        assert n_parameters(batch) == n_parameters(mixture)


X = np.zeros((4, D))
NOISE = jgmm.mixture.Noise(jnp.log(0.1), jnp.log(100.0))
ONE_ONLY = {
    "log_prob": lambda batch: jgmm.log_prob(batch, X),
    "e_step": lambda batch: jgmm.e_step(batch, X),
    "responsibilities": lambda batch: jgmm.responsibilities(batch, X),
    "predict": lambda batch: jgmm.predict(batch, X),
    "noise": lambda batch: jgmm.mixture.noise.log_prob(batch, NOISE, X),
    "sample": lambda batch: jgmm.sample(jax.random.key(0), batch, 3),
    "marginal": lambda batch: jgmm.marginal(batch, [0]),
    "condition": lambda batch: jgmm.condition(batch, [0], [1.0]),
    "accumulate": lambda batch: jgmm.accumulate(batch, X),
    "em_step": lambda batch: jgmm.em_step(batch, X),
    "run_em": lambda batch: jgmm.fitting.run_em(batch, X),
    "bic": lambda batch: jgmm.selection.bic(batch, X),
    "standard_errors": lambda batch: jgmm.uncertainty.standard_errors(batch, X),
    "bootstrap": lambda batch: jgmm.uncertainty.bootstrap(jax.random.key(0), batch, X),
    "online": lambda batch: jgmm.streaming.online.start(batch, X),
    "to_sklearn": jgmm.mixture.to_sklearn,
}


@pytest.mark.parametrize("name", ONE_ONLY)
def test_functions_of_one_mixture_refuse_a_batch(name, full):
    with pytest.raises(DataError, match=r"with leading axes \(2, 4\), and one is needed.*jax.vmap"):
        ONE_ONLY[name](batch_of(full))


@pytest.mark.parametrize(("name", "expected"), [("tied", 6), ("diag", 9), ("VVE", 12), ("EII", 1)])
def test_n_parameters(name, expected):
    mixture = jgmm.make_mixture(*oracle.parameters(1, k=K, d=D, model=name), name)
    assert n_parameters(mixture) == K - 1 + K * D + expected
