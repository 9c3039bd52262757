"""Mean and scatter of samples that come in blocks, in double precision."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jgmm._core.compilation import jit
from jgmm._data.samples import Samples, fold, scaling
from jgmm.streaming.sources import Block


class Moments(NamedTuple):
    """Total weight, mean (D,), and scatter about it, (D, D); double precision, on the host."""

    total: np.ndarray
    mean: np.ndarray
    scatter: np.ndarray

    def __add__(self, other: Moments) -> Moments:  # type: ignore[override]
        """Moments of both sets of samples.

        δ = m₂ − m₁,   m = m₁ + δ n₂/n,   M = M₁ + M₂ + δ δᵀ n₁ n₂/n
        """
        if not (self.total and other.total):
            return self if self.total else other
        total = self.total + other.total
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.total / total)
        between = np.outer(apart, apart) * (self.total * other.total / total)
        return Moments(total, mean, self.scatter + other.scatter + between)


def _moments(block: Block) -> Moments:
    found = (np.asarray(v, np.float64) for v in _about_center(block.x, block.weights))
    total, center, first, second = found
    apart = first / np.where(total > 0, total, 1)  # the center is the mean but for rounding
    return Moments(total, center + apart, second - total * np.outer(apart, apart))


@jit
def _about_center(x: Array, weights: Array) -> tuple[Array, Array, Array, Array]:
    """Total weight, a point near the mean, and first and second moments about it."""
    rows = min(len(x), 8192)
    some = x[jnp.argmax(weights > 0)]

    def about(point: Array) -> Samples:
        return Samples(x, weights, scaling(point, jnp.ones_like(point)))

    total = weights.sum()
    center = some + fold(about(some), rows, lambda x, w, _: w @ x) / jnp.where(total > 0, total, 1)
    first, second = fold(about(center), rows, lambda x, w, _: (w @ x, (w[:, None] * x).T @ x))
    return total, center, first, second
