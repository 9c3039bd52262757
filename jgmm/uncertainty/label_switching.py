"""Relabel the components of refitted mixtures so that they match a reference (label switching)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

from jgmm._data.samples import Samples, fold
from jgmm.em.e_step import block_rows
from jgmm.mixture.density import e_step
from jgmm.mixture.mixture import Mixture


def overlaps(first: Mixture, second: Mixture, samples: Samples) -> Float[Array, "K K"]:
    """Σₙ wₙ γₙⱼ γ'ₙₖ: how many samples component j of one and k of the other have in common.

    Args:
      first, second: two mixtures of the same samples.
      samples: in the units of both.
    """

    def body(x: Array, weights: Array, rows: Array) -> Array:
        del rows
        both = (jnp.exp(e_step(mixture, x).log_resp) for mixture in (first, second))
        ours, theirs = both
        return (weights[:, None] * ours).T @ theirs

    return fold(samples, block_rows(samples, first.means.size * first.means.dtype.itemsize), body)


def relabel(mixtures: Mixture, overlap: np.ndarray) -> Mixture:
    """Mixtures with their components in the order of largest overlap with those of another.

    Args:
      mixtures: leading axis B.
      overlap: (B, K, K), components of the other in rows; of a mixture without usable parameters
        it is NaN, and its order stays as it is.

    Of all K! orders the best is found by the Hungarian method (Kuhn 1955).
    """
    n, k = overlap.shape[:2]
    known = np.where(np.isfinite(overlap).all(axis=(1, 2), keepdims=True), overlap, np.eye(k))
    order = np.stack([linear_sum_assignment(each, maximize=True)[1] for each in known])

    def permuted(leaf: Any) -> Array:
        return jnp.asarray(np.asarray(leaf)[np.arange(n)[:, None], order])

    return replace(
        mixtures,
        log_weights=permuted(mixtures.log_weights),
        means=permuted(mixtures.means),
        scale=jnp.asarray(mixtures.scale) if mixtures.model.shared else permuted(mixtures.scale),
    )
