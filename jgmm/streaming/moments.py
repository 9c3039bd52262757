"""Mean and scatter matrix of samples that come in blocks, accumulated in double precision."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jgmm._core import budget
from jgmm._core.compilation import jit
from jgmm._data.samples import Samples, fold, scaling
from jgmm._data.standardization import units_of_columns
from jgmm.streaming.sources import Block


class Moments(NamedTuple):
    """Total weight, mean and scatter matrix about the mean; float64, on the host.

    Attributes:
      total: total weight, ().
      mean: (D,).
      scatter: of the columns divided by ``unit``, (D, D).
      unit: powers of two, (D,): without them the scatter of columns in tiny or huge units would
        vanish or overflow.
    """

    total: np.ndarray
    mean: np.ndarray
    scatter: np.ndarray
    unit: np.ndarray

    def __add__(self, other: Moments) -> Moments:  # type: ignore[override]
        """Combine the moments of two sets of samples.

        With total weights n₁, n₂ and n = n₁ + n₂, means m₁, m₂, and scatter matrices M₁, M₂:

        δ = m₂ − m₁,   m = m₁ + δ n₂/n,   M = M₁ + M₂ + δ δᵀ n₁ n₂/n

        A set of total weight zero changes nothing.

        The unit of a column becomes the largest among both units and δ.

        >>> def single(m):
        ...     return Moments(np.ones(()), np.full(1, m), np.zeros((1, 1)), np.ones(1))
        >>> both = single(1.0) + single(3.0)
        >>> both.mean.tolist(), (both.unit**2 * both.scatter).tolist()
        ([2.0], [[2.0]])
        """
        if not (self.total and other.total):
            return self if self.total else other
        total = self.total + other.total
        difference = other.mean - self.mean
        mean = self.mean + difference * (other.total / total)
        between_means = np.where(difference == 0, 0, np.ldexp(1.0, np.frexp(difference)[1]))
        unit = np.maximum(np.maximum(self.unit, other.unit), between_means)
        relative = difference / unit
        between = np.outer(relative, relative) * (self.total * other.total / total)
        scatter = self._scatter_in(unit) + other._scatter_in(unit) + between
        return Moments(total, mean, scatter, unit)

    def _scatter_in(self, unit: np.ndarray) -> np.ndarray:
        factor = self.unit / unit
        return factor[:, None] * self.scatter * factor[None, :]


def moments_of(block: Block) -> Moments:
    """Compute the moments of one block, on its device and in its precision."""
    arrays = (np.asarray(v, np.float64) for v in _about_center(block.x, block.weights))
    total, unit, center, first, second = arrays
    # The center is the mean up to rounding; this is the rounding error.
    correction = first / np.where(total > 0, total, 1)
    scatter = second - total * np.outer(correction, correction)
    return Moments(total, center + unit * correction, scatter, unit)


@jit
def _about_center(x: Array, weights: Array) -> tuple[Array, Array, Array, Array, Array]:
    """Compute the total weight, the units, a point near the mean, and both moments about it."""
    rows = min(len(x), budget.MOMENT_BLOCK_ROWS)
    first_row = x[jnp.argmax(weights > 0)]  # the first with a positive weight
    unit = units_of_columns(x, weights, first_row)

    def about(point: Array) -> Samples:
        return Samples(x, weights, scaling(point, unit))

    total = weights.sum()
    sums = fold(about(first_row), rows, lambda x, w, _: w @ x)
    center = first_row + unit * (sums / jnp.where(total > 0, total, 1))
    first, second = fold(about(center), rows, lambda x, w, _: (w @ x, (w[:, None] * x).T @ x))
    return total, unit, center, first, second
