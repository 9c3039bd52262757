"""Mean and scatter matrix of samples that come in blocks, accumulated in double precision."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jgmm._core import budget
from jgmm._core.compilation import jit
from jgmm._data.samples import Samples, fold, scaling
from jgmm.streaming.sources import Block


class Moments(NamedTuple):
    """Total weight, mean (D,), and scatter matrix about the mean (D, D); float64, on the host."""

    total: np.ndarray
    mean: np.ndarray
    scatter: np.ndarray

    def __add__(self, other: Moments) -> Moments:  # type: ignore[override]
        """Combine the moments of two sets of samples.

        With total weights n₁, n₂ and n = n₁ + n₂, means m₁, m₂, and scatter matrices M₁, M₂:

        δ = m₂ − m₁,   m = m₁ + δ n₂/n,   M = M₁ + M₂ + δ δᵀ n₁ n₂/n

        A set of total weight zero changes nothing.

        >>> one, other = (Moments(np.ones(()), np.full(1, m), np.zeros((1, 1))) for m in (1.0, 3.0))
        >>> both = one + other
        >>> both.mean.tolist(), both.scatter.tolist()
        ([2.0], [[2.0]])
        """
        if not (self.total and other.total):
            return self if self.total else other
        total = self.total + other.total
        difference = other.mean - self.mean
        mean = self.mean + difference * (other.total / total)
        between = np.outer(difference, difference) * (self.total * other.total / total)
        return Moments(total, mean, self.scatter + other.scatter + between)


def moments_of(block: Block) -> Moments:
    """Compute the moments of one block, on its device and in its precision."""
    arrays = (np.asarray(v, np.float64) for v in _about_center(block.x, block.weights))
    total, center, first, second = arrays
    # The center is the mean up to rounding; this is the rounding error.
    correction = first / np.where(total > 0, total, 1)
    scatter = second - total * np.outer(correction, correction)
    return Moments(total, center + correction, scatter)


@jit
def _about_center(x: Array, weights: Array) -> tuple[Array, Array, Array, Array]:
    """Compute the total weight, a point near the mean, and both moments about that point."""
    rows = min(len(x), budget.MOMENT_BLOCK_ROWS)
    first_row = x[jnp.argmax(weights > 0)]  # the first with a positive weight

    def about(point: Array) -> Samples:
        return Samples(x, weights, scaling(point, jnp.ones_like(point)))

    total = weights.sum()
    sums = fold(about(first_row), rows, lambda x, w, _: w @ x)
    center = first_row + sums / jnp.where(total > 0, total, 1)
    first, second = fold(about(center), rows, lambda x, w, _: (w @ x, (w[:, None] * x).T @ x))
    return total, center, first, second
