"""The frame a fit sees its data in: shifted and scaled so that the numbers are of order one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgmm.forms import Full
from jgmm.pytree import Leaf


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Frame:
    """The affine view a fit has of its data: ``z = S⁻¹ (x - shift)``.

    With it float32 does not notice the user's units or offset, and tolerances mean the same for
    all data. S scales every column, or also turns them into one another: then it is lower
    triangular.

    Attributes:
      shift: (D,).
      scale: S, (D, D), or its diagonal, (D,), where it is a diagonal matrix.
      inverse: S⁻¹ in the same form.
    """

    shift: Leaf
    scale: Leaf
    inverse: Leaf

    @property
    def turns(self) -> bool:
        """Whether a coordinate in the frame depends on more than one column."""
        return bool(jnp.ndim(self.scale) == 2)

    def log_volume(self) -> Array:
        """log |S|: what a log density in the frame exceeds the user's by, in nats."""
        return jnp.log(jnp.diagonal(self.scale) if self.turns else self.scale).sum()

    def unit_variances(self, times: Any = 1.0) -> Float[Array, "D D"]:
        """The covariance, seen in the frame, that has S Sᵀ's variances and no correlations.

        The unit matrix where the frame turns nothing: what a ridge is a multiple of.

        Args:
          times: what it is multiplied by, one number, or one a column, (D,).
        """
        each = jnp.broadcast_to(jnp.asarray(times, self.shift.dtype), self.shift.shape)
        if not self.turns:
            return jnp.diag(each)
        root = self.inverse * jnp.sqrt((self.scale**2).sum(axis=1))[None, :]
        return root @ (each[None, :] * root).T


def scaling_frame(shift: Float[Array, "D"], scale: Float[Array, "D"]) -> Frame:
    """The frame that scales every column."""
    return Frame(shift, scale, 1 / scale)


def identity_frame(n_features: int, dtype: Any) -> Frame:
    """The frame in which samples are seen as they are."""
    return scaling_frame(jnp.zeros(n_features, dtype), jnp.ones(n_features, dtype))


def standard_frame(mean: Float[Array, "D"], variance: Float[Array, "D"], per_column: bool) -> Frame:
    """The frame of ``framed`` for data of known mean and variances."""
    if not per_column:
        variance = jnp.full_like(variance, variance.mean())
    return scaling_frame(mean, jnp.where(variance > 0, jnp.sqrt(variance), 1))


def whitening_frame(frame: Frame, correlation: Float[Array, "D D"]) -> Frame:
    """The frame of ``whitened``, from the one column by column and the correlations seen in it."""
    d, dtype = len(correlation), correlation.dtype
    constant = jnp.diagonal(correlation) == 0
    tiny = 8 * d * jnp.finfo(dtype).eps
    root = jnp.linalg.cholesky(correlation + jnp.diag(jnp.where(constant, 1, tiny).astype(dtype)))
    inverse = Full.invert(root[None])[0]
    return Frame(frame.shift, frame.scale[:, None] * root, inverse * frame.inverse[None, :])


@runtime_checkable
class Population(Protocol):
    """What a step must know of all samples once it has their statistics."""

    @property
    def frame(self) -> Frame:
        """The frame the statistics are taken in."""

    def total_weight(self) -> Array:
        """Σ_n w_n, the number of samples there are in effect."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Census:
    """The ``Population`` of samples that are elsewhere: in a file, or on other devices."""

    frame: Frame
    total: Leaf

    def total_weight(self) -> Array:
        """Σ_n w_n."""
        return self.total
