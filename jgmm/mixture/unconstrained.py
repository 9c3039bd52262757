"""The bijection between a ``Mixture`` and parameters without constraints.

    weights = softmax(logits),   means = means,   L = strict lower part + diag(exp(log diagonal))

Gradient methods move in these coordinates: every point is a valid mixture. Logits that differ by
a constant are the same mixture; ``to_free`` returns those whose exponentials sum to one. Models
whose components share volume, shape or orientation, but not all, have no such coordinates here.

``Cholesky`` is these coordinates as a ``Parametrization``, with another positive function for the
diagonal where one likes; ``jgmm.gradient.augmented`` is a different one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jgmm._core.errors import DataError
from jgmm._core.pytree import Leaf
from jgmm.covariance.models import MODELS, CovarianceModel
from jgmm.mixture.mixture import Mixture


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Free:
    """Unconstrained parameters: logits (K,), means (K, D), and the scale with a log diagonal."""

    logits: Leaf
    means: Leaf
    scale: Leaf


def check_free(entry: CovarianceModel, n_components: int, n_features: int) -> None:
    """Refuse a covariance model that ties the numbers of its scale to each other.

    Raises:
      DataError: naming the models that do not.
    """
    if not entry.fills_storage(n_components, n_features):
        free = ", ".join(
            each.name for each in MODELS.values() if each.fills_storage(n_components, n_features)
        )
        raise DataError(
            f"the covariance model {entry.name!r} has no free coordinates; these have: {free}. "
            "EM fits it: jgmm.fit."
        )


@runtime_checkable
class Parametrization(Protocol):
    """Numbers without constraints that stand for a mixture; static and hashable."""

    def check(self, entry: CovarianceModel, n_components: int, n_features: int) -> None:
        """Refuse a covariance model it cannot hold, with a ``DataError``."""

    def point(self, mixture: Mixture) -> Any:
        """The point, a pytree of arrays, that stands for a mixture of positive weights."""

    def mixture(self, point: Any, covariance: str) -> Mixture:
        """The mixture whose log-likelihood is climbed; its weights may sum to less than one."""


@dataclass(frozen=True)
class Cholesky:
    """Logits, means, and Cholesky factors with a positive function on the diagonal.

    Attributes:
      positive: from all numbers to the positive ones.
      inverse: what undoes it.
    """

    positive: Callable[[Array], Array]
    inverse: Callable[[Array], Array]

    def check(self, entry: CovarianceModel, n_components: int, n_features: int) -> None:
        """See ``check_free``."""
        check_free(entry, n_components, n_features)

    def point(self, mixture: Mixture) -> Free:
        """The coordinates of a mixture of any covariance model, which need not fill them."""
        diagonal = _positive(mixture.scale)
        scale = self.inverse(jnp.where(diagonal, mixture.scale, 1))
        scale = jnp.where(diagonal, scale, mixture.scale)
        return Free(mixture.log_weights, mixture.means, scale)

    def mixture(self, point: Free, covariance: str) -> Mixture:
        """The mixture at any finite numbers; above the diagonal they have no effect."""
        diagonal = _positive(point.scale)
        lower = jnp.tril(point.scale) if point.scale.ndim == 3 else point.scale
        # The function sees only the diagonal: elsewhere it could overflow and spoil gradients.
        scale = jnp.where(diagonal, self.positive(jnp.where(diagonal, lower, 0)), lower)
        return Mixture(jax.nn.log_softmax(point.logits), point.means, scale, covariance)


def _inverse_softplus(value: Array) -> Array:
    """log(eᵛ − 1)."""
    return value + jnp.log(-jnp.expm1(-value))


LOG = Cholesky(jnp.exp, jnp.log)
SOFTPLUS = Cholesky(jax.nn.softplus, _inverse_softplus)


def to_free(mixture: Mixture) -> Free:
    """Coordinates of a mixture all of whose weights are positive.

    Raises:
      DataError: see ``check_free``.
    """
    check_free(mixture.model, mixture.n_components, mixture.n_features)
    return LOG.point(mixture)


def coordinates(mixture: Mixture) -> Free:
    """The same coordinates for every covariance model, whose mixtures need not fill them."""
    return LOG.point(mixture)


def from_free(free: Free, covariance: str) -> Mixture:
    """The mixture at the given coordinates.

    Args:
      free: any finite numbers; above the diagonal of a full scale they have no effect.
      covariance: name of the covariance model.
    """
    return LOG.mixture(free, covariance)


def _positive(scale: Array) -> Array:
    """Which entries of a scale are positive by definition: a factor's diagonal, or all."""
    if scale.ndim == 3:
        return jnp.broadcast_to(jnp.eye(scale.shape[-1], dtype=bool)[None], scale.shape)
    return jnp.ones_like(scale, bool)
