"""The three forms in which covariances are stored: a factor, a vector or a number a component.

``Full``, ``Diagonal`` and ``Spherical`` answer the same questions, so that a diagonal model in a
thousand dimensions never makes a matrix of a thousand by a thousand. What they hold is the *scale*,
a square root of the covariance; scatter and covariances have the same shape.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Full:
    """Covariances as lower Cholesky factors, (K, D, D)."""

    name = "full"
    ndim = 3

    @staticmethod
    def n_free(n_features: int) -> int:
        """Numbers in it that are free."""
        return n_features * (n_features + 1) // 2

    @staticmethod
    def root(covariance: Float[Array, "K D D"]) -> Float[Array, "K D D"]:
        """The matrix square root that is stored; NaN where a covariance is not positive."""
        return jnp.linalg.cholesky(covariance)

    @staticmethod
    def covariance(scale: Float[Array, "K D D"]) -> Float[Array, "K D D"]:
        """The covariances of factors: what ``root`` undoes."""
        return scale @ scale.mT

    @staticmethod
    def invert(scale: Float[Array, "K D D"]) -> Float[Array, "K D D"]:
        """L⁻¹, so that every sample costs a product, not a triangular solve."""
        return _invert_lower(scale)

    @staticmethod
    def half_log_det(scale: Float[Array, "K D D"], n_features: int) -> Float[Array, "K"]:
        """1/2 log|Σₖ|."""
        del n_features
        return jnp.log(jnp.diagonal(scale, axis1=1, axis2=2)).sum(axis=1)

    @staticmethod
    def distance(inverse: Float[Array, "J D D"], x: Float[Array, "K D"]) -> Float[Array, "K"]:
        """Squared Mahalanobis distances |Lₖ⁻¹ xₖ|²; J is K, or 1 where shared."""
        inverse = jnp.broadcast_to(inverse, (x.shape[0], *inverse.shape[1:]))
        return (jnp.einsum("kde,ke->kd", inverse, x) ** 2).sum(axis=1)

    @staticmethod
    def scatter(
        resp: Float[Array, "K B"], difference: Float[Array, "K D B"]
    ) -> Float[Array, "K D D"]:
        """Σ_b γ_kb d_kb d_kbᵀ."""
        return jnp.einsum("kdb,keb->kde", resp[:, None, :] * difference, difference)

    @staticmethod
    def at_least(
        covariance: Float[Array, "K D D"], least: Float[Array, "1 D D"]
    ) -> Float[Array, "K D D"]:
        """Σₖ with what it lacks to exceed the least in every direction, and no more."""
        root = jnp.linalg.cholesky(least)
        spread, axes = jnp.linalg.eigh(_seen_from(root, covariance))
        lacking = jnp.sqrt(jnp.maximum(1 - spread, 0))
        added = (root @ axes) * lacking[:, None, :]
        return covariance + added @ added.mT

    @staticmethod
    def min_ratio(
        covariance: Float[Array, "K D D"], least: Float[Array, "1 D D"]
    ) -> Float[Array, "K"]:
        """How many times the least a covariance is, in the direction where that is fewest."""
        root = jnp.linalg.cholesky(least)
        return jnp.linalg.eigvalsh(_seen_from(root, covariance)).min(axis=1)

    @staticmethod
    def outer(x: Float[Array, "K D"]) -> Float[Array, "K D D"]:
        """xₖ xₖᵀ."""
        return x[:, :, None] * x[:, None, :]

    @staticmethod
    def identity(n_features: int, dtype: Any) -> Float[Array, "1 D D"]:
        """The unit covariance."""
        return jnp.eye(n_features, dtype=dtype)[None]

    @staticmethod
    def to_dense(scale: Float[Array, "K D D"], n_features: int) -> Float[Array, "K D D"]:
        """The lower Cholesky factors as matrices."""
        del n_features
        return scale

    @staticmethod
    def from_dense(covariance: Float[Array, "K D D"]) -> Float[Array, "K D D"]:
        """Covariance matrices in this form."""
        return covariance

    @staticmethod
    def rescale(scale: Float[Array, "K D D"], factor: Array) -> Float[Array, "K D D"]:
        """The scale after the data are multiplied by a lower triangle, or column d by factor[d]."""
        return factor @ scale if factor.ndim == 2 else factor[None, :, None] * scale

    @staticmethod
    def variances(scale: Float[Array, "K D D"], n_features: int) -> Float[Array, "K D"]:
        """The diagonals of the covariances."""
        del n_features
        return (scale**2).sum(axis=2)

    @staticmethod
    def precisions(inverse: Float[Array, "K D D"], n_features: int) -> Float[Array, "K D"]:
        """The diagonals of the inverse covariances."""
        del n_features
        return (inverse**2).sum(axis=1)

    @staticmethod
    def conditional_variances(scale: Float[Array, "K D D"]) -> Float[Array, "K D"]:
        """Variance of each coordinate given those before it: small means nearly singular."""
        return jnp.diagonal(scale, axis1=1, axis2=2) ** 2

    @staticmethod
    def trace_ratio(
        scale: Float[Array, "J D D"], scatter: Float[Array, "K D D"], n_features: int
    ) -> Float[Array, "K"]:
        """tr(Σₖ⁻¹ Sₖ) of a scatter in this form; J is K, or 1 where shared."""
        del n_features
        inverse = jnp.broadcast_to(Full.invert(scale), scatter.shape)
        return (jnp.einsum("kde,kef->kdf", inverse, scatter) * inverse).sum(axis=(1, 2))

    @staticmethod
    def apply(scale: Float[Array, "N D D"], noise: Float[Array, "N D"]) -> Float[Array, "N D"]:
        """Lₙ εₙ."""
        return jnp.einsum("nde,ne->nd", scale, noise)


def _seen_from(root: Float[Array, "1 D D"], covariance: Float[Array, "K D D"]) -> Array:
    """R⁻¹ Σₖ R⁻ᵀ, for the factor R of another covariance."""
    inverse = _invert_lower(root)
    return inverse @ covariance @ inverse.mT


def _invert_lower(factor: Float[Array, "K D D"]) -> Float[Array, "K D D"]:
    """Inverses of lower triangular matrices, by halves, all blocks of one size at a time.

        [A 0]⁻¹   [    A⁻¹      0 ]
        [B C]   = [-C⁻¹ B A⁻¹  C⁻¹]

    As accurate as LAPACK's solver, which on a CPU also wakes a pool of threads that then spin for
    some 40 ms and take the cores from the pass over the samples.
    """
    k, d, _ = factor.shape
    n = 1 << (d - 1).bit_length()  # the identity fills up to a power of two
    filled = jnp.broadcast_to(jnp.eye(n, dtype=factor.dtype), (k, n, n))
    filled = filled.at[:, :d, :d].set(factor)
    inverse = (1 / jnp.diagonal(filled, axis1=1, axis2=2))[:, :, None, None]
    size = 1
    while size < n:
        pairs = np.arange(n // (2 * size))
        # The diagonal blocks of twice the size, (K, n / 2 size, …), and their lower left corners.
        blocks = filled.reshape(k, len(pairs), 2 * size, len(pairs), 2 * size)
        corner = jnp.moveaxis(blocks[:, pairs, size:, pairs, :size], 0, 1)
        first, last = inverse[:, 0::2], inverse[:, 1::2]
        above = jnp.concatenate([first, jnp.zeros_like(first)], axis=3)
        below = jnp.concatenate([-(last @ corner) @ first, last], axis=3)
        inverse = jnp.concatenate([above, below], axis=2)
        size *= 2
    return inverse[:, 0, :d, :d]


class Diagonal:
    """Covariances as standard deviations of the columns, (K, D)."""

    name = "diag"
    ndim = 2

    @staticmethod
    def n_free(n_features: int) -> int:
        """Numbers in it that are free."""
        return n_features

    @staticmethod
    def root(covariance: Float[Array, "K D"]) -> Float[Array, "K D"]:
        """The matrix square root that is stored."""
        return jnp.sqrt(covariance)

    @staticmethod
    def covariance(scale: Float[Array, "K D"]) -> Float[Array, "K D"]:
        """The variances of standard deviations: what ``root`` undoes."""
        return scale**2

    @staticmethod
    def invert(scale: Float[Array, "K D"]) -> Float[Array, "K D"]:
        """One over the standard deviations."""
        return 1 / scale

    @staticmethod
    def half_log_det(scale: Float[Array, "K D"], n_features: int) -> Float[Array, "K"]:
        """1/2 log|Σₖ|."""
        del n_features
        return jnp.log(scale).sum(axis=1)

    @staticmethod
    def distance(inverse: Float[Array, "J D"], x: Float[Array, "K D"]) -> Float[Array, "K"]:
        """Squared Mahalanobis distances; J is K, or 1 where shared."""
        return ((inverse * x) ** 2).sum(axis=1)

    @staticmethod
    def scatter(
        resp: Float[Array, "K B"], difference: Float[Array, "K D B"]
    ) -> Float[Array, "K D"]:
        """Σ_b γ_kb d_kb²."""
        return (resp[:, None, :] * difference**2).sum(axis=2)

    @staticmethod
    def at_least(
        covariance: Float[Array, "K D"], least: Float[Array, "1 D"]
    ) -> Float[Array, "K D"]:
        """The variances, none below the least."""
        return jnp.maximum(covariance, least)

    @staticmethod
    def min_ratio(covariance: Float[Array, "K D"], least: Float[Array, "1 D"]) -> Float[Array, "K"]:
        """How many times the least the variances are, where that is fewest."""
        return (covariance / least).min(axis=1)

    @staticmethod
    def outer(x: Float[Array, "K D"]) -> Float[Array, "K D"]:
        """The diagonal of xₖ xₖᵀ."""
        return x**2

    @staticmethod
    def identity(n_features: int, dtype: Any) -> Float[Array, "1 D"]:
        """The unit covariance."""
        return jnp.ones((1, n_features), dtype)

    @staticmethod
    def to_dense(scale: Float[Array, "K D"], n_features: int) -> Float[Array, "K D D"]:
        """The lower Cholesky factors as matrices."""
        return scale[:, :, None] * jnp.eye(n_features, dtype=scale.dtype)[None]

    @staticmethod
    def from_dense(covariance: Float[Array, "K D D"]) -> Float[Array, "K D"]:
        """The diagonals of covariance matrices."""
        return jnp.diagonal(covariance, axis1=1, axis2=2)

    @staticmethod
    def rescale(scale: Float[Array, "K D"], factor: Float[Array, "D"]) -> Float[Array, "K D"]:
        """The scale after column d of the data is multiplied by factor[d]."""
        return scale * factor[None, :]

    @staticmethod
    def variances(scale: Float[Array, "K D"], n_features: int) -> Float[Array, "K D"]:
        """The diagonals of the covariances."""
        del n_features
        return scale**2

    @staticmethod
    def precisions(inverse: Float[Array, "K D"], n_features: int) -> Float[Array, "K D"]:
        """The diagonals of the inverse covariances."""
        del n_features
        return inverse**2

    @staticmethod
    def conditional_variances(scale: Float[Array, "K D"]) -> Float[Array, "K D"]:
        """Variance of each coordinate given the others."""
        return scale**2

    @staticmethod
    def trace_ratio(
        scale: Float[Array, "J D"], scatter: Float[Array, "K D"], n_features: int
    ) -> Float[Array, "K"]:
        """tr(Σₖ⁻¹ Sₖ) of a scatter in this form; J is K, or 1 where shared."""
        del n_features
        return (scatter / scale**2).sum(axis=1)

    @staticmethod
    def apply(scale: Float[Array, "N D"], noise: Float[Array, "N D"]) -> Float[Array, "N D"]:
        """Σₙ^(1/2) εₙ."""
        return scale * noise


class Spherical:
    """Covariances as one standard deviation a component, (K,)."""

    name = "spherical"
    ndim = 1

    @staticmethod
    def n_free(n_features: int) -> int:
        """Numbers in it that are free."""
        del n_features
        return 1

    @staticmethod
    def root(covariance: Float[Array, "K"]) -> Float[Array, "K"]:
        """The matrix square root that is stored."""
        return jnp.sqrt(covariance)

    @staticmethod
    def covariance(scale: Float[Array, "K"]) -> Float[Array, "K"]:
        """The variances of standard deviations: what ``root`` undoes."""
        return scale**2

    @staticmethod
    def invert(scale: Float[Array, "K"]) -> Float[Array, "K"]:
        """One over the standard deviations."""
        return 1 / scale

    @staticmethod
    def half_log_det(scale: Float[Array, "K"], n_features: int) -> Float[Array, "K"]:
        """1/2 log|Σₖ|."""
        return n_features * jnp.log(scale)

    @staticmethod
    def distance(inverse: Float[Array, "J"], x: Float[Array, "K D"]) -> Float[Array, "K"]:
        """Squared Mahalanobis distances; J is K, or 1 where shared."""
        return ((inverse[:, None] * x) ** 2).sum(axis=1)

    @staticmethod
    def scatter(resp: Float[Array, "K B"], difference: Float[Array, "K D B"]) -> Float[Array, "K"]:
        """Σ_b γ_kb |d_kb|² / D, so that dividing by Nₖ gives the variance."""
        return (resp * (difference**2).mean(axis=1)).sum(axis=1)

    @staticmethod
    def at_least(covariance: Float[Array, "K"], least: Float[Array, "1"]) -> Float[Array, "K"]:
        """The variances, none below the least."""
        return jnp.maximum(covariance, least)

    @staticmethod
    def min_ratio(covariance: Float[Array, "K"], least: Float[Array, "1"]) -> Float[Array, "K"]:
        """How many times the least the variances are."""
        return covariance / least

    @staticmethod
    def outer(x: Float[Array, "K D"]) -> Float[Array, "K"]:
        """|xₖ|² / D."""
        return (x**2).mean(axis=1)

    @staticmethod
    def identity(n_features: int, dtype: Any) -> Float[Array, "1"]:
        """The unit covariance."""
        del n_features
        return jnp.ones(1, dtype)

    @staticmethod
    def to_dense(scale: Float[Array, "K"], n_features: int) -> Float[Array, "K D D"]:
        """The lower Cholesky factors as matrices."""
        return scale[:, None, None] * jnp.eye(n_features, dtype=scale.dtype)[None]

    @staticmethod
    def from_dense(covariance: Float[Array, "K D D"]) -> Float[Array, "K"]:
        """The mean variance of covariance matrices."""
        return jnp.diagonal(covariance, axis1=1, axis2=2).mean(axis=1)

    @staticmethod
    def rescale(scale: Float[Array, "K"], factor: Float[Array, "D"]) -> Float[Array, "K"]:
        """The scale after the data is multiplied by factor, whose entries are all equal."""
        return scale * factor[0]

    @staticmethod
    def variances(scale: Float[Array, "K"], n_features: int) -> Float[Array, "K D"]:
        """The diagonals of the covariances."""
        return jnp.broadcast_to(scale[:, None] ** 2, (scale.shape[0], n_features))

    @staticmethod
    def precisions(inverse: Float[Array, "K"], n_features: int) -> Float[Array, "K D"]:
        """The diagonals of the inverse covariances."""
        return jnp.broadcast_to(inverse[:, None] ** 2, (inverse.shape[0], n_features))

    @staticmethod
    def conditional_variances(scale: Float[Array, "K"]) -> Float[Array, "K 1"]:
        """Variance of each coordinate given the others."""
        return scale[:, None] ** 2

    @staticmethod
    def trace_ratio(
        scale: Float[Array, "J"], scatter: Float[Array, "K"], n_features: int
    ) -> Float[Array, "K"]:
        """tr(Σₖ⁻¹ Sₖ) of a scatter in this form; J is K, or 1 where shared."""
        return n_features * scatter / scale**2

    @staticmethod
    def apply(scale: Float[Array, "N"], noise: Float[Array, "N D"]) -> Float[Array, "N D"]:
        """σₙ εₙ."""
        return scale[:, None] * noise


Storage = type[Full] | type[Diagonal] | type[Spherical]
