"""Unconstrained (free) parameters of a mixture: softmax logits, means and Cholesky factors.

    weights = softmax(logits),   means = means,   L = strict lower part + diag(exp(log diagonal))

Gradient methods work in these coordinates: every point is a valid mixture. Logits that differ by a
constant give the same mixture; ``to_free`` returns the logits whose exponentials sum to one. Models
whose components share volume, shape or orientation, but not all three, have no free parameters
here.

``Cholesky`` offers these coordinates as a ``Parametrization``, also with a positive function other
than the exponential for the diagonal; ``jgmm.gradient.augmented`` is another parametrization.
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
from jgmm.mixture.mixture import HasMixture, Mixture, as_mixture


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Free:
    """Unconstrained parameters of a mixture. All attributes are leaves.

    Attributes:
      logits: the weights are their softmax, (K,).
      means: μₖ, (K, D).
      scale: as ``Mixture.scale``, with the logarithm of its positive entries, which are the
        diagonals of Cholesky factors, or all standard deviations.
    """

    logits: Leaf
    means: Leaf
    scale: Leaf


def check_free(entry: CovarianceModel, n_components: int, n_features: int) -> None:
    """Check that a covariance model has free parameters: its scale has no constraints.

    Raises:
      DataError: it has constraints; the text names the models that have none.
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
    """Unconstrained parametrization of mixtures; an implementation is static and hashable."""

    def check(self, entry: CovarianceModel, n_components: int, n_features: int) -> None:
        """Raise a ``DataError`` if the parametrization cannot represent a covariance model."""

    def point(self, mixture: Mixture) -> Any:
        """Convert a mixture of positive weights to its point, a pytree of arrays."""

    def mixture(self, point: Any, covariance: str) -> Mixture:
        """Convert a point to the mixture to be fitted; its weights may sum to less than one."""


@dataclass(frozen=True)
class Cholesky:
    """Parametrization by logits, means, and Cholesky factors with a positive diagonal.

    Attributes:
      positive: increasing function from all real numbers to the positive ones, for the diagonal.
      inverse: the inverse function of ``positive``.
    """

    positive: Callable[[Array], Array]
    inverse: Callable[[Array], Array]

    def check(self, entry: CovarianceModel, n_components: int, n_features: int) -> None:
        """See ``check_free``."""
        check_free(entry, n_components, n_features)

    def point(self, mixture: Mixture) -> Free:
        """Return the coordinates of a mixture of any covariance model, constrained or not."""
        diagonal = _positive(mixture.scale)
        scale = self.inverse(jnp.where(diagonal, mixture.scale, 1))
        scale = jnp.where(diagonal, scale, mixture.scale)
        return Free(mixture.log_weights, mixture.means, scale)

    def mixture(self, point: Free, covariance: str) -> Mixture:
        """Return the mixture at any finite coordinates; those above the diagonal have no effect."""
        diagonal = _positive(point.scale)
        lower = jnp.tril(point.scale) if point.scale.ndim == 3 else point.scale
        # The function is applied to the diagonal alone: elsewhere it could overflow, and gradients
        # would be NaN.
        scale = jnp.where(diagonal, self.positive(jnp.where(diagonal, lower, 0)), lower)
        return Mixture(jax.nn.log_softmax(point.logits), point.means, scale, covariance)


def _inverse_softplus(value: Array) -> Array:
    """Inverse of softplus, log(eᵛ − 1)."""
    return value + jnp.log(-jnp.expm1(-value))


LOG = Cholesky(jnp.exp, jnp.log)
SOFTPLUS = Cholesky(jax.nn.softplus, _inverse_softplus)


def to_free(mixture: Mixture | HasMixture) -> Free:
    """Return the free parameters of a mixture whose weights are all positive.

    Raises:
      DataError: the covariance model has none, see ``check_free``.

    >>> import jgmm
    >>> one = jgmm.make_mixture([1.0], [[0.0]], [1.0], "spherical")
    >>> to_free(one).scale.tolist()
    [0.0]
    """
    mixture = as_mixture(mixture)
    check_free(mixture.model, mixture.n_components, mixture.n_features)
    return LOG.point(mixture)


def coordinates(mixture: Mixture) -> Free:
    """Return the coordinates of ``to_free`` for every covariance model, also with constraints."""
    return LOG.point(mixture)


def from_free(free: Free, covariance: str) -> Mixture:
    """Return the mixture with the given free parameters.

    Args:
      free: any finite numbers; those above the diagonal of a full scale have no effect.
      covariance: name of the covariance model.

    >>> free = Free(jnp.zeros(2), jnp.zeros((2, 1)), jnp.zeros(2))
    >>> from_free(free, "spherical").weights.tolist()
    [0.5, 0.5]
    """
    return LOG.mixture(free, covariance)


def _positive(scale: Array) -> Array:
    """Mask the entries of a scale that must be positive: the diagonals of factors, or all."""
    if scale.ndim == 3:
        return jnp.broadcast_to(jnp.eye(scale.shape[-1], dtype=bool)[None], scale.shape)
    return jnp.ones_like(scale, bool)
