"""Three clouds of samples with weights, and a mixture to start from."""

import dataclasses

import jax
import numpy as np

import jgmm


def data(dtype, n=900):
    rng = np.random.default_rng(0)
    centers = np.asarray([[0, 0, 0], [4, 4, 0], [0, 5, 5.0]])
    x = centers[rng.integers(3, size=n)] + rng.normal(size=(n, 3)) * [1, 1.5, 0.7]
    return x.astype(dtype), rng.integers(0, 3, n).astype(dtype)


def from_rows(x, covariance="diag"):
    """Equal weights, means at three rows, and the data's covariance."""
    one = jgmm.m_step(x, np.ones((len(x), 1)), covariance)
    return dataclasses.replace(
        jax.tree.map(lambda leaf: jax.numpy.concatenate([leaf] * 3), one),
        log_weights=jax.numpy.full(3, -np.log(3), one.means.dtype),
        means=jax.numpy.asarray(x[[0, 5, 9]]),
    )
