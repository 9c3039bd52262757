"""The effective number of distinct rows, whatever the scale of weights and repetitions of rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgmm
from jgmm._data.distinct_rows import hash_rows, with_distinct_rows
from jgmm._data.samples import make_samples
from jgmm.em.e_step import accumulate


def counted(x, weights=None):
    return effective(with_distinct_rows(make_samples(x, weights)))


def effective(samples):
    """The effective count of the one component of a mixture."""
    dtype = samples.x.dtype
    mean = np.zeros((1, samples.n_features), dtype)
    one = jgmm.make_mixture(np.ones(1, dtype), mean, np.ones(1, dtype), "spherical")
    return float(accumulate(one, samples).effective_counts()[0])


def test_rows_of_equal_weight_count_once_each(dtype):
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(dtype)
    assert counted(x) == 50
    assert counted(np.concatenate([x] * 4)) == 50
    assert counted(np.concatenate([x, x[:1] + 1, [[np.nan] * 3]]), [1] * 51 + [0]) == 51


def test_it_is_kishs_number_of_what_equal_rows_weigh_together(dtype):
    x = np.array([[1.0], [2.0], [1.0], [3.0]], dtype)
    weights = np.array([1.0, 2.0, 3.0, 4.0], dtype)
    np.testing.assert_allclose(counted(x, weights), 10**2 / (4**2 + 2**2 + 4**2), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-15, 1e-6, 1e6, 1e15])  # float32 holds their squares
def test_the_scale_of_weights_does_not_matter(scale, dtype):
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(40, 2)).astype(dtype), rng.uniform(1, 2, 40)
    for found in (counted, lambda x, w: effective(make_samples(x, w))):
        wanted = weights.sum() ** 2 / (weights**2).sum()
        np.testing.assert_allclose(found(x, (scale * weights).astype(dtype)), wanted, rtol=1e-5)


def test_zeros_of_both_signs_are_equal_and_order_matters(dtype):
    same, other = hash_rows(np.array([[0.0, 1.0], [-0.0, 1.0], [1.0, 0.0]], dtype))[[0, 2]]
    assert same != other
    assert len(set(hash_rows(np.array([[0.0, 1.0], [-0.0, 1.0]], dtype)).tolist())) == 1


def test_a_million_hashes_differ():
    grid = np.stack(np.meshgrid(*[np.arange(100.0, dtype=np.float32)] * 3), -1).reshape(-1, 3)
    assert len(np.unique(hash_rows(grid))) == len(grid)


def test_inside_a_transformation_only_weights_count():
    def of(x):
        return with_distinct_rows(make_samples(x)).weight_of_equals is None

    assert jax.jit(lambda x: jnp.asarray(of(x)))(np.zeros((5, 2), np.float32))
