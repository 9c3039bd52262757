"""Log density, responsibilities, labels and samples of a mixture, against the textbook."""

import inspect
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
from jgmm._core import budget
from jgmm._core.errors import DataError
from jgmm.mixture.conditioning import cov, mean

K, D, N = 3, 3, 50
DRAWS = 20_000


# Density and posterior.


def test_e_step_is_the_textbook(mixture, truth, x, dtype, tolerance):
    log_prob, resp = oracle.e_step(x.astype(np.float64), *truth)
    found = jgmm.e_step(mixture, x)
    assert found.log_prob.dtype == found.log_resp.dtype == dtype
    np.testing.assert_allclose(found.log_prob, log_prob, **tolerance)
    np.testing.assert_allclose(np.exp(found.log_resp), resp, **tolerance)
    np.testing.assert_array_equal(jgmm.predict(mixture, x), resp.argmax(axis=1))


def test_density_and_responsibilities_are_those_of_the_e_step(mixture, x, tolerance):
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


def test_the_block_size_does_not_matter(monkeypatch, full, x, tolerance):
    whole = jgmm.e_step(full, x)
    monkeypatch.setattr(budget, "DIFFERENCE_BLOCK_BYTES", 7 * K * D * x.itemsize)
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


def test_columns_must_match(full):
    with pytest.raises(DataError, match="x has 2 columns; the mixture was made for 3"):
        jgmm.log_prob(full, np.zeros((4, 2)))


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


@pytest.mark.parametrize("n", [2.5, -1, 0, "3", None, True])
def test_the_number_of_samples_is_a_whole_number(full, n):
    """The types that the tests add would refuse some of them first, and users do not have those."""
    with pytest.raises(DataError, match=f"n_samples must be a whole number of at least 1.*{n!r}"):
        inspect.unwrap(jgmm.sample)(jax.random.key(0), full, n)


def test_the_number_of_samples_may_come_from_numpy(full):
    found, _ = inspect.unwrap(jgmm.sample)(jax.random.key(0), full, np.int64(3))
    assert found.shape == (3, D)


def test_sampling_needs_a_typed_key(full):
    with pytest.raises((TypeError, DataError)):
        jgmm.sample(0, full, 10)
