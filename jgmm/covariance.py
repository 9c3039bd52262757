"""The table of covariance models: what each shares, stores and estimates.

A model is one small entry: how many parameters it has, how it estimates the covariances from the
components' scatter, and in which of three forms it is stored. Nothing outside this module asks for
a model by name; to add one, write its estimator and add a line to ``MODELS``.

Names follow the volume–shape–orientation family Σₖ = λₖ Dₖ Aₖ Dₖᵀ (Banfield & Raftery 1993,
Celeux & Govaert 1995): three letters say whether volume, shape and orientation are Equal, Variable
or the Identity. ``full``, ``tied``, ``diag`` and ``spherical`` are scikit-learn's names.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Full:
    """Covariances as lower Cholesky factors, (K, D, D)."""

    name = "full"
    ndim = 3

    @staticmethod
    def factor(covariance: Float[Array, "K D D"]) -> Float[Array, "K D D"]:
        """The matrix square root that is stored; NaN where a covariance is not positive."""
        return jnp.linalg.cholesky(covariance)

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
    def outer(x: Float[Array, "K D"]) -> Float[Array, "K D D"]:
        """xₖ xₖᵀ."""
        return x[:, :, None] * x[:, None, :]

    @staticmethod
    def identity(n_features: int, dtype: Any) -> Float[Array, "1 D D"]:
        """The unit covariance."""
        return jnp.eye(n_features, dtype=dtype)[None]

    @staticmethod
    def dense(scale: Float[Array, "K D D"], n_features: int) -> Float[Array, "K D D"]:
        """The lower Cholesky factors as matrices."""
        del n_features
        return scale

    @staticmethod
    def compress(covariance: Float[Array, "K D D"]) -> Float[Array, "K D D"]:
        """Covariance matrices in this form."""
        return covariance

    @staticmethod
    def stretch(scale: Float[Array, "K D D"], factor: Float[Array, "D"]) -> Float[Array, "K D D"]:
        """The scale after column d of the data is multiplied by factor[d]."""
        return factor[None, :, None] * scale

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
    def factor(covariance: Float[Array, "K D"]) -> Float[Array, "K D"]:
        """The matrix square root that is stored."""
        return jnp.sqrt(covariance)

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
    def outer(x: Float[Array, "K D"]) -> Float[Array, "K D"]:
        """The diagonal of xₖ xₖᵀ."""
        return x**2

    @staticmethod
    def identity(n_features: int, dtype: Any) -> Float[Array, "1 D"]:
        """The unit covariance."""
        return jnp.ones((1, n_features), dtype)

    @staticmethod
    def dense(scale: Float[Array, "K D"], n_features: int) -> Float[Array, "K D D"]:
        """The lower Cholesky factors as matrices."""
        return scale[:, :, None] * jnp.eye(n_features, dtype=scale.dtype)[None]

    @staticmethod
    def compress(covariance: Float[Array, "K D D"]) -> Float[Array, "K D"]:
        """The diagonals of covariance matrices."""
        return jnp.diagonal(covariance, axis1=1, axis2=2)

    @staticmethod
    def stretch(scale: Float[Array, "K D"], factor: Float[Array, "D"]) -> Float[Array, "K D"]:
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
    def factor(covariance: Float[Array, "K"]) -> Float[Array, "K"]:
        """The matrix square root that is stored."""
        return jnp.sqrt(covariance)

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
    def outer(x: Float[Array, "K D"]) -> Float[Array, "K"]:
        """|xₖ|² / D."""
        return (x**2).mean(axis=1)

    @staticmethod
    def identity(n_features: int, dtype: Any) -> Float[Array, "1"]:
        """The unit covariance."""
        del n_features
        return jnp.ones(1, dtype)

    @staticmethod
    def dense(scale: Float[Array, "K"], n_features: int) -> Float[Array, "K D D"]:
        """The lower Cholesky factors as matrices."""
        return scale[:, None, None] * jnp.eye(n_features, dtype=scale.dtype)[None]

    @staticmethod
    def compress(covariance: Float[Array, "K D D"]) -> Float[Array, "K"]:
        """The mean variance of covariance matrices."""
        return jnp.diagonal(covariance, axis1=1, axis2=2).mean(axis=1)

    @staticmethod
    def stretch(scale: Float[Array, "K"], factor: Float[Array, "D"]) -> Float[Array, "K"]:
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


@dataclass(frozen=True)
class CovarianceModel:
    """One entry of the table.

    Attributes:
      code: three letters for volume, shape and orientation.
      names: synonyms; the first is how the package writes it.
      storage: ``Full``, ``Diagonal`` or ``Spherical``.
      shared: whether all components have the same covariance, stored once.
      per_column: whether the model keeps its form when columns change their units, one by one.
      estimate: ``(counts (K,), scatter (K or 1, …)) -> covariances (K or 1, …)``, the maximiser
        of the expected complete-data log-likelihood; a component without samples gets the unit
        covariance.
      count: ``(K, D) -> `` number of free covariance parameters.
    """

    code: str
    names: tuple[str, ...]
    storage: Storage
    shared: bool
    per_column: bool
    estimate: Callable[[Array, Array], Array]
    count: Callable[[int, int], int]

    @property
    def name(self) -> str:
        """How the package writes it."""
        return self.names[0]

    def pool(self, scatter: Array) -> Array:
        """What the estimate needs of the components' scatter: all of it, or its sum if shared."""
        return scatter.sum(axis=0, keepdims=True) if self.shared else scatter

    def n_parameters(self, n_components: int, n_features: int) -> int:
        """Free parameters of a mixture: weights (K - 1), means (K D) and covariances.

        >>> model("full").n_parameters(n_components=3, n_features=2)
        17
        """
        covariance = self.count(n_components, n_features)
        return n_components - 1 + n_components * n_features + covariance


def _trailing(counts: Array, like: Array) -> Array:
    """Counts with as many trailing axes as ``like``, for dividing it."""
    return counts.reshape(counts.shape + (1,) * (like.ndim - 1))


def _per_component(storage: Storage) -> Callable[[Array, Array], Array]:
    """Σₖ = Sₖ / Nₖ."""

    def estimate(counts: Array, scatter: Array) -> Array:
        n = _trailing(counts, scatter)
        n_features = scatter.shape[-1] if scatter.ndim > 1 else 1
        unit = storage.identity(n_features, scatter.dtype)
        return jnp.where(n > 0, scatter / jnp.where(n > 0, n, 1), unit)

    return estimate


def _pooled(counts: Array, scatter: Array) -> Array:
    """Σ = Σₖ Sₖ / Σₖ Nₖ, one copy for all components."""
    return scatter / counts.sum()


def _triangle(d: int) -> int:
    return d * (d + 1) // 2


# code, names, storage, shared, per_column, estimate, count
_TABLE = (
    CovarianceModel("EII", ("EII",), Spherical, True, False, _pooled, lambda k, d: 1),
    CovarianceModel(
        "VII",
        ("spherical", "VII"),
        Spherical,
        False,
        False,
        _per_component(Spherical),
        lambda k, d: k,
    ),
    CovarianceModel("EEI", ("EEI",), Diagonal, True, True, _pooled, lambda k, d: d),
    CovarianceModel(
        "VVI",
        ("diag", "aligned", "VVI"),
        Diagonal,
        False,
        True,
        _per_component(Diagonal),
        lambda k, d: k * d,
    ),
    CovarianceModel("EEE", ("tied", "EEE"), Full, True, True, _pooled, lambda k, d: _triangle(d)),
    CovarianceModel(
        "VVV",
        ("full", "general", "VVV"),
        Full,
        False,
        True,
        _per_component(Full),
        lambda k, d: k * _triangle(d),
    ),
)

MODELS: dict[str, CovarianceModel] = {entry.code: entry for entry in _TABLE}
_BY_NAME = {name: entry for entry in _TABLE for name in entry.names}


def model(name: str) -> CovarianceModel:
    """Look a covariance model up by its code or by any of its names.

    Args:
      name: for example ``"full"``, ``"general"`` or ``"VVV"``.

    Raises:
      ValueError: no such model; the text lists the names and suggests the nearest.

    >>> model("aligned").code
    'VVI'
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    known = {each.lower(): each for each in _BY_NAME}
    nearest = difflib.get_close_matches(str(name).lower(), known, n=1)
    hint = f" Did you mean {known[nearest[0]]!r}?" if nearest else ""
    raise ValueError(f"unknown covariance model {name!r}.{hint} Known: {', '.join(_BY_NAME)}.")
