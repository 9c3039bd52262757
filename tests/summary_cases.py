"""Samples that are summarized block by block."""

import jax
import numpy as np

from jgmm.streaming import subsample
from jgmm.streaming.sources import rebatch

KEY = jax.random.key(3)


def look(x, weights=None, size=100, first_row=0, most=50):
    source = [x] if weights is None else [(x, weights)]
    blocks = rebatch(source, size, x.shape[1], x.dtype)
    return subsample.summarize(KEY, blocks, first_row, most, x.shape[1], x.dtype)


def data(dtype, offset=0.0, n=700):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3)) @ np.asarray([[1, 0.5, 0], [0, 2, 0.3], [0, 0, 0.1]])
    return (x + offset).astype(dtype), rng.integers(0, 4, n).astype(dtype)
