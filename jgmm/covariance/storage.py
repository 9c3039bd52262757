"""Storage of covariances: per component a Cholesky factor, D standard deviations, or a single one.

``Full``, ``Diagonal`` and ``Spherical`` have the same methods, so that a diagonal model in a
thousand dimensions never makes a matrix of a thousand by a thousand. A mixture stores the *scale*,
a square root of each covariance. Covariances and scatter (the weighted sums Σ_b γ_kb d_kb d_kbᵀ)
have the same shape as the scale.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Full:
    """Covariances stored as lower Cholesky factors, (K, D, D)."""

    name = "full"
    ndim = 3

    @staticmethod
    def n_free(n_features: int) -> int:
        """Number of free parameters of one covariance."""
        return n_features * (n_features + 1) // 2

    @staticmethod
    def root(covariance: Float[Array, "K D D"]) -> Float[Array, "K D D"]:
        """Cholesky factors of covariances; NaN where one is not positive definite."""
        return jnp.linalg.cholesky(covariance)

    @staticmethod
    def root_of_rows(rows: Float[Array, "K M D"]) -> Float[Array, "K M M"]:
        """Cholesky factors of A Aᵀ from the matrices A, without the products A Aᵀ.

        With Aᵀ = Q R, A Aᵀ = Rᵀ R. The product would square the condition number of A, and lose
        digits that R keeps.

        Args:
          rows: A, such as rows of a factor, M ≤ D.
        """
        upper = jnp.linalg.qr(rows.mT, mode="r")
        sign = jnp.where(jnp.diagonal(upper, axis1=1, axis2=2) < 0, -1, 1).astype(upper.dtype)
        return (sign[:, :, None] * upper).mT

    @staticmethod
    def covariance(scale: Float[Array, "K D D"]) -> Float[Array, "K D D"]:
        """Covariances Σₖ = Lₖ Lₖᵀ of Cholesky factors, the inverse of ``root``."""
        return scale @ scale.mT

    @staticmethod
    def invert(scale: Float[Array, "K D D"]) -> Float[Array, "K D D"]:
        """Inverse factors L⁻¹: with them a sample costs a product, not a triangular solve."""
        return _invert_lower(scale)

    @staticmethod
    def half_log_det(scale: Float[Array, "K D D"], n_features: int) -> Float[Array, "K"]:
        """Half the log determinants, 1/2 log|Σₖ|."""
        del n_features
        return jnp.log(jnp.diagonal(scale, axis1=1, axis2=2)).sum(axis=1)

    @staticmethod
    def distance(inverse: Float[Array, "J D D"], x: Float[Array, "K D"]) -> Float[Array, "K"]:
        """Squared Mahalanobis distances |Lₖ⁻¹ xₖ|²; J is K, or 1 for a shared covariance."""
        inverse = jnp.broadcast_to(inverse, (x.shape[0], *inverse.shape[1:]))
        return (jnp.einsum("kde,ke->kd", inverse, x) ** 2).sum(axis=1)

    @staticmethod
    def scatter(
        resp: Float[Array, "K B"], difference: Float[Array, "K D B"]
    ) -> Float[Array, "K D D"]:
        """Weighted scatter matrices, Σ_b γ_kb d_kb d_kbᵀ."""
        return jnp.einsum("kdb,keb->kde", resp[:, None, :] * difference, difference)

    @staticmethod
    def at_least(
        covariance: Float[Array, "K D D"], floor: Float[Array, "1 D D"]
    ) -> Float[Array, "K D D"]:
        """Add to each Σₖ the smallest matrix that lifts it to the floor in every direction."""
        root = jnp.linalg.cholesky(floor)
        spread, axes = jnp.linalg.eigh(_relative_to(root, covariance))
        lacking = jnp.sqrt(jnp.maximum(1 - spread, 0))
        added = (root @ axes) * lacking[:, None, :]
        return covariance + added @ added.mT

    @staticmethod
    def exceeds(
        covariance: Float[Array, "K D D"], bound: Float[Array, "1 D D"]
    ) -> Bool[Array, "K"]:
        """Whether each covariance is above a bound in every direction: a difference has a root."""
        return jnp.isfinite(jnp.linalg.cholesky(covariance - bound)).all(axis=(1, 2))

    @staticmethod
    def parallel_sum(
        one: Float[Array, "1 D D"], other: Float[Array, "1 D D"]
    ) -> Float[Array, "1 D D"]:
        """(A⁻¹ + B⁻¹)⁻¹, which is below both; their sum must be nonsingular."""
        return one @ jnp.linalg.solve(one + other, other)

    @staticmethod
    def traces(
        inverse: Float[Array, "J D D"], covariance: Float[Array, "K D D"], n_features: int
    ) -> Float[Array, "J K"]:
        """Traces tr(Σⱼ⁻¹ Σₖ) of all pairs."""
        del n_features
        precision = inverse.mT @ inverse
        return jnp.einsum("jde,kde->jk", precision, covariance)

    @staticmethod
    def outer(x: Float[Array, "K D"]) -> Float[Array, "K D D"]:
        """Outer products xₖ xₖᵀ."""
        return x[:, :, None] * x[:, None, :]

    @staticmethod
    def identity(n_features: int, dtype: Any) -> Float[Array, "1 D D"]:
        """Unit covariance, leading axis 1."""
        return jnp.eye(n_features, dtype=dtype)[None]

    @staticmethod
    def to_dense(scale: Float[Array, "K D D"], n_features: int) -> Float[Array, "K D D"]:
        """Lower Cholesky factors as matrices, (K, D, D)."""
        del n_features
        return scale

    @staticmethod
    def from_dense(covariance: Float[Array, "K D D"]) -> Float[Array, "K D D"]:
        """Covariance matrices, unchanged: they are in this form already."""
        return covariance

    @staticmethod
    def rescale(scale: Float[Array, "K D D"], factor: Array) -> Float[Array, "K D D"]:
        """Scale for data multiplied by a lower triangular factor, or column d by factor[d]."""
        return factor @ scale if factor.ndim == 2 else factor[None, :, None] * scale

    @staticmethod
    def variances(scale: Float[Array, "K D D"], n_features: int) -> Float[Array, "K D"]:
        """Diagonals of the covariances."""
        del n_features
        return (scale**2).sum(axis=2)

    @staticmethod
    def precisions(inverse: Float[Array, "K D D"], n_features: int) -> Float[Array, "K D"]:
        """Diagonals of the inverse covariances."""
        del n_features
        return (inverse**2).sum(axis=1)

    @staticmethod
    def conditional_variances(scale: Float[Array, "K D D"]) -> Float[Array, "K D"]:
        """Variance of each column given those before it; a small one means nearly singular."""
        return jnp.diagonal(scale, axis1=1, axis2=2) ** 2

    @staticmethod
    def trace_ratio(
        scale: Float[Array, "J D D"], scatter: Float[Array, "K D D"], n_features: int
    ) -> Float[Array, "K"]:
        """Traces tr(Σₖ⁻¹ Sₖ) of a scatter in this form; J is K, or 1 for a shared covariance."""
        del n_features
        inverse = jnp.broadcast_to(Full.invert(scale), scatter.shape)
        return (jnp.einsum("kde,kef->kdf", inverse, scatter) * inverse).sum(axis=(1, 2))

    @staticmethod
    def apply(scale: Float[Array, "N D D"], draws: Float[Array, "N D"]) -> Float[Array, "N D"]:
        """Products Lₙ εₙ: standard normal draws become draws of covariance Σₙ."""
        return jnp.einsum("nde,ne->nd", scale, draws)


def _relative_to(root: Float[Array, "1 D D"], covariance: Float[Array, "K D D"]) -> Array:
    """Covariances whitened by another one: R⁻¹ Σₖ R⁻ᵀ, with its Cholesky factor R."""
    inverse = _invert_lower(root)
    return inverse @ covariance @ inverse.mT


def _invert_lower(factor: Float[Array, "K D D"]) -> Float[Array, "K D D"]:
    """Invert lower triangular matrices by halves, all blocks of one size at once.

        [A 0]⁻¹   [    A⁻¹      0 ]
        [B C]   = [-C⁻¹ B A⁻¹  C⁻¹]

    The result is as accurate as LAPACK's triangular solver. On a CPU that solver also wakes a pool
    of threads, which then spin for some 40 ms and take the cores from the pass over the samples.
    """
    d = factor.shape[1]
    if d == 1:
        return 1 / factor
    if d % 2:  # padded with a row of the identity
        padded = jnp.pad(factor, ((0, 0), (0, 1), (0, 1))).at[:, d, d].set(1)
        return _invert_lower(padded)[:, :d, :d]
    half = d // 2
    diagonal = jnp.concatenate([factor[:, :half, :half], factor[:, half:, half:]])
    first, last = jnp.split(_invert_lower(diagonal), 2)
    corner = -(last @ factor[:, half:, :half]) @ first
    above = jnp.concatenate([first, jnp.zeros_like(first)], axis=2)
    return jnp.concatenate([above, jnp.concatenate([corner, last], axis=2)], axis=1)


class Diagonal:
    """Diagonal covariances stored as standard deviations of the columns, (K, D)."""

    name = "diag"
    ndim = 2

    @staticmethod
    def n_free(n_features: int) -> int:
        """Number of free parameters of one covariance."""
        return n_features

    @staticmethod
    def root(covariance: Float[Array, "K D"]) -> Float[Array, "K D"]:
        """Standard deviations, the square roots of variances."""
        return jnp.sqrt(covariance)

    @staticmethod
    def covariance(scale: Float[Array, "K D"]) -> Float[Array, "K D"]:
        """Variances of standard deviations, the inverse of ``root``."""
        return scale**2

    @staticmethod
    def invert(scale: Float[Array, "K D"]) -> Float[Array, "K D"]:
        """Reciprocals of the standard deviations."""
        return 1 / scale

    @staticmethod
    def half_log_det(scale: Float[Array, "K D"], n_features: int) -> Float[Array, "K"]:
        """Half the log determinants, 1/2 log|Σₖ|."""
        del n_features
        return jnp.log(scale).sum(axis=1)

    @staticmethod
    def distance(inverse: Float[Array, "J D"], x: Float[Array, "K D"]) -> Float[Array, "K"]:
        """Squared Mahalanobis distances; J is K, or 1 for a shared covariance."""
        return ((inverse * x) ** 2).sum(axis=1)

    @staticmethod
    def scatter(
        resp: Float[Array, "K B"], difference: Float[Array, "K D B"]
    ) -> Float[Array, "K D"]:
        """Diagonals of the weighted scatter, Σ_b γ_kb d_kb²."""
        return (resp[:, None, :] * difference**2).sum(axis=2)

    @staticmethod
    def at_least(
        covariance: Float[Array, "K D"], floor: Float[Array, "1 D"]
    ) -> Float[Array, "K D"]:
        """Raise the variances to the floor where they are below it."""
        return jnp.maximum(covariance, floor)

    @staticmethod
    def exceeds(covariance: Float[Array, "K D"], bound: Float[Array, "1 D"]) -> Bool[Array, "K"]:
        """Whether the variances of each component are above a bound in every column."""
        return (covariance > bound).all(axis=1)

    @staticmethod
    def parallel_sum(one: Float[Array, "1 D"], other: Float[Array, "1 D"]) -> Float[Array, "1 D"]:
        """1 / (1/a + 1/b), which is below both; their sum must be positive."""
        return one * other / (one + other)

    @staticmethod
    def traces(
        inverse: Float[Array, "J D"], covariance: Float[Array, "K D"], n_features: int
    ) -> Float[Array, "J K"]:
        """Traces tr(Σⱼ⁻¹ Σₖ) of all pairs."""
        del n_features
        return inverse**2 @ covariance.T

    @staticmethod
    def outer(x: Float[Array, "K D"]) -> Float[Array, "K D"]:
        """Diagonals of the outer products xₖ xₖᵀ."""
        return x**2

    @staticmethod
    def identity(n_features: int, dtype: Any) -> Float[Array, "1 D"]:
        """Unit covariance, leading axis 1."""
        return jnp.ones((1, n_features), dtype)

    @staticmethod
    def to_dense(scale: Float[Array, "K D"], n_features: int) -> Float[Array, "K D D"]:
        """Lower Cholesky factors as matrices, (K, D, D)."""
        return scale[:, :, None] * jnp.eye(n_features, dtype=scale.dtype)[None]

    @staticmethod
    def from_dense(covariance: Float[Array, "K D D"]) -> Float[Array, "K D"]:
        """Diagonals of covariance matrices."""
        return jnp.diagonal(covariance, axis1=1, axis2=2)

    @staticmethod
    def rescale(scale: Float[Array, "K D"], factor: Float[Array, "D"]) -> Float[Array, "K D"]:
        """Scale for data whose column d is multiplied by factor[d]."""
        return scale * factor[None, :]

    @staticmethod
    def variances(scale: Float[Array, "K D"], n_features: int) -> Float[Array, "K D"]:
        """Diagonals of the covariances."""
        del n_features
        return scale**2

    @staticmethod
    def precisions(inverse: Float[Array, "K D"], n_features: int) -> Float[Array, "K D"]:
        """Diagonals of the inverse covariances."""
        del n_features
        return inverse**2

    @staticmethod
    def conditional_variances(scale: Float[Array, "K D"]) -> Float[Array, "K D"]:
        """Variance of each column given the others, of which it is independent."""
        return scale**2

    @staticmethod
    def trace_ratio(
        scale: Float[Array, "J D"], scatter: Float[Array, "K D"], n_features: int
    ) -> Float[Array, "K"]:
        """Traces tr(Σₖ⁻¹ Sₖ) of a scatter in this form; J is K, or 1 for a shared covariance."""
        del n_features
        return (scatter / scale**2).sum(axis=1)

    @staticmethod
    def apply(scale: Float[Array, "N D"], draws: Float[Array, "N D"]) -> Float[Array, "N D"]:
        """Products Σₙ^(1/2) εₙ: standard normal draws become draws of covariance Σₙ."""
        return scale * draws


class Spherical:
    """Spherical covariances stored as one standard deviation per component, (K,)."""

    name = "spherical"
    ndim = 1

    @staticmethod
    def n_free(n_features: int) -> int:
        """Number of free parameters of one covariance."""
        del n_features
        return 1

    @staticmethod
    def root(covariance: Float[Array, "K"]) -> Float[Array, "K"]:
        """Standard deviations, the square roots of variances."""
        return jnp.sqrt(covariance)

    @staticmethod
    def covariance(scale: Float[Array, "K"]) -> Float[Array, "K"]:
        """Variances of standard deviations, the inverse of ``root``."""
        return scale**2

    @staticmethod
    def invert(scale: Float[Array, "K"]) -> Float[Array, "K"]:
        """Reciprocals of the standard deviations."""
        return 1 / scale

    @staticmethod
    def half_log_det(scale: Float[Array, "K"], n_features: int) -> Float[Array, "K"]:
        """Half the log determinants, 1/2 log|Σₖ|."""
        return n_features * jnp.log(scale)

    @staticmethod
    def distance(inverse: Float[Array, "J"], x: Float[Array, "K D"]) -> Float[Array, "K"]:
        """Squared Mahalanobis distances; J is K, or 1 for a shared covariance."""
        return ((inverse[:, None] * x) ** 2).sum(axis=1)

    @staticmethod
    def scatter(resp: Float[Array, "K B"], difference: Float[Array, "K D B"]) -> Float[Array, "K"]:
        """Weighted scatter per column, Σ_b γ_kb |d_kb|² / D: divided by Nₖ it is the variance."""
        return (resp * (difference**2).mean(axis=1)).sum(axis=1)

    @staticmethod
    def at_least(covariance: Float[Array, "K"], floor: Float[Array, "1"]) -> Float[Array, "K"]:
        """Raise the variances to the floor where they are below it."""
        return jnp.maximum(covariance, floor)

    @staticmethod
    def exceeds(covariance: Float[Array, "K"], bound: Float[Array, "1"]) -> Bool[Array, "K"]:
        """Whether the variance of each component is above a bound."""
        return covariance > bound

    @staticmethod
    def parallel_sum(one: Float[Array, "1"], other: Float[Array, "1"]) -> Float[Array, "1"]:
        """1 / (1/a + 1/b), which is below both; their sum must be positive."""
        return one * other / (one + other)

    @staticmethod
    def traces(
        inverse: Float[Array, "J"], covariance: Float[Array, "K"], n_features: int
    ) -> Float[Array, "J K"]:
        """Traces tr(Σⱼ⁻¹ Σₖ) of all pairs."""
        return n_features * inverse[:, None] ** 2 * covariance[None, :]

    @staticmethod
    def outer(x: Float[Array, "K D"]) -> Float[Array, "K"]:
        """Mean squares of the columns, |xₖ|² / D."""
        return (x**2).mean(axis=1)

    @staticmethod
    def identity(n_features: int, dtype: Any) -> Float[Array, "1"]:
        """Unit covariance, leading axis 1."""
        del n_features
        return jnp.ones(1, dtype)

    @staticmethod
    def to_dense(scale: Float[Array, "K"], n_features: int) -> Float[Array, "K D D"]:
        """Lower Cholesky factors as matrices, (K, D, D)."""
        return scale[:, None, None] * jnp.eye(n_features, dtype=scale.dtype)[None]

    @staticmethod
    def from_dense(covariance: Float[Array, "K D D"]) -> Float[Array, "K"]:
        """Mean over the columns of the variances of covariance matrices."""
        return jnp.diagonal(covariance, axis1=1, axis2=2).mean(axis=1)

    @staticmethod
    def rescale(scale: Float[Array, "K"], factor: Float[Array, "D"]) -> Float[Array, "K"]:
        """Scale for data multiplied by factor, whose entries are all equal."""
        return scale * factor[0]

    @staticmethod
    def variances(scale: Float[Array, "K"], n_features: int) -> Float[Array, "K D"]:
        """Diagonals of the covariances."""
        return jnp.broadcast_to(scale[:, None] ** 2, (scale.shape[0], n_features))

    @staticmethod
    def precisions(inverse: Float[Array, "K"], n_features: int) -> Float[Array, "K D"]:
        """Diagonals of the inverse covariances."""
        return jnp.broadcast_to(inverse[:, None] ** 2, (inverse.shape[0], n_features))

    @staticmethod
    def conditional_variances(scale: Float[Array, "K"]) -> Float[Array, "K 1"]:
        """Variance of each column given the others, of which it is independent."""
        return scale[:, None] ** 2

    @staticmethod
    def trace_ratio(
        scale: Float[Array, "J"], scatter: Float[Array, "K"], n_features: int
    ) -> Float[Array, "K"]:
        """Traces tr(Σₖ⁻¹ Sₖ) of a scatter in this form; J is K, or 1 for a shared covariance."""
        return n_features * scatter / scale**2

    @staticmethod
    def apply(scale: Float[Array, "N"], draws: Float[Array, "N D"]) -> Float[Array, "N D"]:
        """Products σₙ εₙ: standard normal draws become draws of variance σₙ²."""
        return scale[:, None] * draws


Storage = type[Full] | type[Diagonal] | type[Spherical]
