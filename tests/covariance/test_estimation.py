"""Estimates of covariances that share volume, shape or orientation: what is special to each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgmm.covariance import estimation
from jgmm.covariance.estimation import common_axes, equal_shape, equal_volume, own_axes
from jgmm.covariance.storage import Diagonal, Full

K, D = 3, 4


def random_scatter(seed, dtype=np.float64):
    """Counts (K,) and scatter matrices (K, D, D), well conditioned."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(K, D, 10))
    return (
        jnp.asarray(rng.uniform(5, 20, size=K), dtype),
        jnp.asarray(root @ root.transpose(0, 2, 1), dtype),
    )


def covariances(factor):
    return np.asarray(factor @ factor.mT, np.float64)


@pytest.mark.parametrize("seed", range(3))
def test_equal_shape_has_one_optimum(seed):
    """Minus the expected log-likelihood is convex in the logarithms: every start ends there."""
    counts, scatter = random_scatter(seed)
    estimate = jax.jit(equal_shape(Full))
    expected = covariances(estimate(counts, scatter, None))
    rng = np.random.default_rng(seed)
    for _ in range(5):
        volumes = np.exp(3 * rng.normal(size=K))
        before = jnp.asarray(np.sqrt(volumes)[:, None, None] * np.eye(D))
        found = covariances(estimate(counts, scatter, before))
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_equal_shape_of_diagonals_is_a_scaling_of_the_spreads(dtype):
    """Sₖd / (λₖ A_d) has row sums D Nₖ and column sums N, as Sinkhorn's matrices have."""
    counts, scatter = random_scatter(0, dtype)
    spread = jnp.diagonal(scatter, axis1=1, axis2=2)
    scale = jax.jit(equal_shape(Diagonal))(counts, spread, None)
    scaled = np.asarray(spread / scale**2, np.float64)
    rtol = 10 * np.sqrt(np.finfo(dtype).eps)
    np.testing.assert_allclose(scaled.sum(axis=1), D * np.asarray(counts), rtol=rtol)
    np.testing.assert_allclose(scaled.sum(axis=0), np.asarray(counts).sum(), rtol=rtol)


def test_a_component_on_one_point_has_a_volume_of_zero_and_leaves_the_others(dtype):
    """Its scatter is zero and its likelihood has no bound; that shows in its own volume only."""
    counts, scatter = random_scatter(1, dtype)
    counts, scatter = counts.at[1].set(1), scatter.at[1].set(0)
    for estimate in (equal_shape(Full), own_axes(equal_shape(Diagonal))):
        found = np.asarray(jax.jit(estimate)(counts, scatter, None))
        np.testing.assert_array_equal(found[1], 0)
        assert np.isfinite(found).all()


@pytest.mark.parametrize("storage", [Diagonal, Full])
def test_equal_volume_is_equal(storage, dtype):
    """And is the sum of the scatters' volumes over the number of samples."""
    counts, scatter = random_scatter(2, dtype)
    scale = equal_volume(storage)(counts, storage.from_dense(scatter), None)
    half = storage.half_log_det(scale, D)
    np.testing.assert_allclose(np.diff(half), 0, atol=1e-5)
    exact = np.asarray(scatter, np.float64)
    if storage is Diagonal:
        exact = exact * np.eye(D)
    expected = (np.linalg.det(exact) ** (1 / D)).sum() / np.asarray(counts, np.float64).sum()
    np.testing.assert_allclose(np.exp(2 / D * np.asarray(half, np.float64)), expected, rtol=1e-5)


def test_own_axes_of_a_singular_scatter_are_regular_where_the_shape_is_shared():
    """EEV: fewer samples than columns leave a component its share of what all have in common."""
    counts, scatter = random_scatter(3)
    thin = np.random.default_rng(0).normal(size=(D, 1))
    scatter = scatter.at[0].set(jnp.asarray(thin @ thin.T))
    shared = lambda counts, spread, _: jnp.sqrt(spread.sum(axis=0, keepdims=True) / counts.sum())  # noqa: E731
    found = covariances(own_axes(shared)(counts, scatter, None))
    values, vectors = np.linalg.eigh(found)
    assert (values > 0.1).all()
    np.testing.assert_allclose(values[0], values[1], rtol=1e-10)
    along = np.abs(vectors[0].T @ thin[:, 0]) / np.linalg.norm(thin)
    np.testing.assert_allclose(along, [0, 0, 0, 1], atol=1e-7)  # its one direction is the longest


@pytest.mark.parametrize("diagonal", [equal_volume(Diagonal), equal_shape(Diagonal)])
def test_common_axes_are_common(diagonal, dtype):
    counts, scatter = random_scatter(4, dtype)
    found = covariances(jax.jit(common_axes(diagonal))(counts, scatter, None))
    axes = np.linalg.eigh(found[0])[1]
    for sigma in found[1:]:
        turned = axes.T @ sigma @ axes
        off = turned - np.diag(np.diag(turned))
        assert np.abs(off).max() < 200 * np.finfo(dtype).eps * np.abs(turned).max()


def test_loops_are_bounded():
    """An update that never settles is left after so many steps."""

    def restless(volumes):
        return 3 - volumes

    found = jax.jit(lambda v: estimation._fixed_point(restless, v))(jnp.asarray([1.0, 1.5]))
    np.testing.assert_array_equal(found, [1.0, 1.5])  # after an even number
    assert estimation.MAX_STEPS % 2 == 0
