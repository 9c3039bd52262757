"""Common axes of matrices, by Jacobi rotations: against a search over angles."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from jgmm.covariance import common_axes
from jgmm.covariance.common_axes import MANY_SWEEPS

K = 3


def weigh_volumes(spread):
    """As VVE has it with one sample a component: J = Σₖ log |diag Fₖ|."""
    return 1 / spread


@functools.cache
def search(most):
    return jax.jit(
        lambda roots, start: common_axes.find_axes(
            roots, jnp.asarray(K, roots.dtype), weigh_volumes, start, most
        )
    )


def random_axes(rng, d):
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


def objective(matrices, axes):
    """J along axes in rows."""
    return sum(np.log(np.diag(axes @ m @ axes.T)).sum() for m in matrices)


def problem(seed, d, dtype, noise=0.0):
    """Matrices along common axes, but for noise, their square roots, and the axes in rows."""
    rng = np.random.default_rng(seed)
    axes = random_axes(rng, d).T
    spread = np.exp(rng.normal(size=(K, d)))
    roots = axes.T * np.sqrt(spread)[:, None, :] + noise * rng.normal(size=(K, d, d))
    roots = roots.astype(dtype)
    return roots.astype(np.float64) @ roots.transpose(0, 2, 1), jnp.asarray(roots), axes


def same_axes(found, expected, atol):
    """In any order, and in either direction."""
    agreement = np.abs(np.asarray(found, np.float64) @ expected.T)
    np.testing.assert_allclose(agreement.max(axis=0), 1, atol=atol)
    np.testing.assert_allclose(agreement.sum(axis=0), 1, atol=len(expected) * np.sqrt(atol))


@pytest.mark.parametrize("d", [1, 2, 3, 4, 5, 8])
def test_matrices_with_common_axes_are_diagonalised(d, dtype):
    _, roots, axes = problem(d, d, dtype)
    start = np.eye(d, dtype=dtype)
    found = search(MANY_SWEEPS)(roots, start)
    # Axes are off by the root of what there was left to gain, agreement by its square.
    same_axes(found.axes, axes, 10 * common_axes.GAIN[str(dtype)])
    np.testing.assert_allclose(found.axes @ found.axes.T, np.eye(d), atol=50 * np.finfo(dtype).eps)
    np.testing.assert_allclose(
        found.roots, np.einsum("de,kef->kdf", found.axes, roots), atol=100 * np.finfo(dtype).eps
    )


@pytest.mark.parametrize("d", [2, 3, 4])
def test_matrices_without_get_what_trying_angles_finds(d, dtype):
    matrices, roots, _ = problem(d, d, dtype, noise=0.2)
    start = np.linalg.eigh(matrices.sum(axis=0))[1].T.astype(dtype)
    found = search(MANY_SWEEPS)(roots, start)
    expected = oracle.best_axes(np.ones(K), matrices, "VVE").T
    limit = common_axes.GAIN[str(dtype)]
    assert objective(matrices, np.asarray(found.axes, np.float64)) < (
        objective(matrices, expected) + 10 * limit
    )
    same_axes(found.axes, expected, 30 * limit)


@pytest.mark.parametrize("d", [3, 4])
def test_no_sweep_ever_makes_it_worse(d, dtype):
    """From random axes, for matrices that have none in common."""
    slack = 100 * np.finfo(dtype).eps
    for seed in range(10):
        rng = np.random.default_rng(seed)
        matrices, roots, _ = problem(seed, d, dtype, noise=1.0)
        axes = random_axes(rng, d).astype(dtype)
        before = objective(matrices, axes.astype(np.float64))
        for _ in range(6):
            axes = np.asarray(search(1)(roots, axes).axes)
            after = objective(matrices, axes.astype(np.float64))
            assert after <= before + slack
            before = after


@pytest.mark.parametrize("d", [4, 5])
def test_a_sweep_lets_every_pair_meet_once_and_all_return(d):
    """Matrices that need one rotation, whichever pair it is of, are diagonal after one sweep."""
    for i in range(d):
        for j in range(i):
            turn = oracle.plane_rotation(d, i, j, 0.3)
            spread = np.arange(1.0, d + 1) + np.arange(K)[:, None]
            roots = turn * np.sqrt(spread)[:, None, :]
            found = search(1)(jnp.asarray(roots), np.eye(d))
            np.testing.assert_allclose(found.axes, turn.T, atol=1e-12)


def test_axes_that_are_common_already_do_not_move():
    """What is stationary to within the tolerance costs no sweep, and changes by no bit."""
    _, roots, axes = problem(0, 4, np.float64)
    found = search(MANY_SWEEPS)(roots, axes)
    np.testing.assert_array_equal(found.axes, axes)


def test_the_search_is_bounded_and_ends_at_nan():
    _, roots, _ = problem(0, 4, np.float64, noise=1.0)
    for broken in (roots * jnp.nan, roots.at[0, 0, 0].set(jnp.inf), 0 * roots):
        found = search(MANY_SWEEPS)(broken, np.eye(4))
        assert found.axes.shape == (4, 4)
    np.testing.assert_array_equal(search(MANY_SWEEPS)(0 * roots, np.eye(4)).axes, np.eye(4))


def test_searches_in_one_batch_do_not_disturb_each_other():
    states = [problem(seed, 4, np.float64, noise) for seed, noise in ((0, 0.0), (1, 0.5), (2, 1.0))]
    roots, start = jnp.stack([state[1] for state in states]), np.eye(4)
    batch = jax.vmap(search(MANY_SWEEPS), (0, None))(roots, start)
    for state, each in enumerate(roots):
        alone = search(MANY_SWEEPS)(each, start)
        np.testing.assert_allclose(batch.axes[state], alone.axes, atol=1e-12)


@pytest.mark.parametrize("d", [2, 3, 6])
def test_axes_are_found_again_in_the_factors(d, dtype):
    """Also where every component alone is round in some plane, so that none shows them all."""
    rng = np.random.default_rng(d)
    axes = random_axes(rng, d).T
    spread = np.exp(rng.normal(size=(K, d)))
    spread[0, :2] = spread[0, 0]
    spread[1, -2:] = spread[1, -1]
    covariances = np.einsum("de,kd,df->kef", axes, spread, axes)
    factors = np.linalg.cholesky(covariances).astype(dtype)
    same_axes(common_axes.axes_of(jnp.asarray(factors)), axes, 10 * common_axes.GAIN[str(dtype)])


def test_axes_of_equal_length_in_the_sum_are_mended():
    """Two components whose unequal shares in the sum make it round all the same."""
    axes = oracle.plane_rotation(2, 0, 1, 0.5)
    # In units of the trace the components get weights 1 and 3/2.
    spread = np.array([[0.8, 0.2], [0.3, 0.7]])
    assert np.ptp(spread[0] + 1.5 * spread[1]) < 1e-12
    factors = np.linalg.cholesky(np.einsum("de,kd,df->kef", axes.T, spread, axes.T))
    same_axes(common_axes.axes_of(jnp.asarray(factors)), axes.T, 1e-12)


@pytest.mark.parametrize("rank", [0, 1, 3, 4])
def test_square_root_of_any_scatter(rank, dtype):
    """Regular, singular or zero; columns in very different units keep their digits."""
    rng = np.random.default_rng(rank)
    unit = np.array([1e3, 1.0, 1e-3, 30.0])
    thin = unit[:, None] * rng.normal(size=(4, rank))
    scatter = (thin @ thin.T).astype(dtype)
    root = np.asarray(common_axes.square_root(jnp.asarray(scatter[None])))[0].astype(np.float64)
    error = (root @ root.T - scatter) / (unit[:, None] * unit[None, :])
    assert np.abs(error).max() < 200 * np.finfo(dtype).eps
    assert np.linalg.matrix_rank(root / unit[:, None], tol=1e-3) == rank


def test_small_axes_keep_their_digits():
    """Variances that differ by ten million, in float32: to a thousandth of each."""
    rng = np.random.default_rng(0)
    axes, d = random_axes(rng, 4).T, 4
    spread = np.array([[1e4, 1.0, 1e-1, 1e-3], [2e4, 3.0, 4e-1, 5e-3]])
    roots = (axes.T * np.sqrt(spread)[:, None, :]).astype(np.float32)
    total = jnp.asarray(2, jnp.float32)
    start = jnp.eye(d, dtype=np.float32)
    found = common_axes.find_axes(jnp.asarray(roots), total, weigh_volumes, start, MANY_SWEEPS)
    order = np.argsort(-np.asarray(found.spread[0]))
    np.testing.assert_allclose(np.asarray(found.spread)[:, order], spread, rtol=2e-3)
