"""The bijection between a ``Mixture`` and parameters without constraints.

    weights = softmax(logits),   means = means,   L = strict lower part + diag(exp(log diagonal))

Gradient methods move in these coordinates: every point is a valid mixture. Logits that differ by
a constant are the same mixture; ``to_free`` returns those whose exponentials sum to one. Models
whose components share volume, shape or orientation, but not all, have no such coordinates here.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jgmm.covariance import MODELS, CovarianceModel
from jgmm.mixture import Mixture
from jgmm.samples import Leaf
from jgmm.status import DataError


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


def to_free(mixture: Mixture) -> Free:
    """Coordinates of a mixture all of whose weights are positive.

    Raises:
      DataError: see ``check_free``.
    """
    check_free(mixture.model, mixture.n_components, mixture.n_features)
    return coordinates(mixture)


def coordinates(mixture: Mixture) -> Free:
    """The same coordinates for every covariance model, whose mixtures need not fill them."""
    positive = _positive(mixture.scale)
    scale = jnp.where(positive, jnp.log(jnp.where(positive, mixture.scale, 1)), mixture.scale)
    return Free(mixture.log_weights, mixture.means, scale)


def from_free(free: Free, covariance: str) -> Mixture:
    """The mixture at the given coordinates.

    Args:
      free: any finite numbers; above the diagonal of a full scale they have no effect.
      covariance: name of the covariance model.
    """
    positive = _positive(free.scale)
    lower = jnp.tril(free.scale) if free.scale.ndim == 3 else free.scale
    # The exponential sees only the diagonal: elsewhere it could overflow and spoil gradients.
    scale = jnp.where(positive, jnp.exp(jnp.where(positive, lower, 0)), lower)
    return Mixture(jax.nn.log_softmax(free.logits), free.means, scale, covariance)


def _positive(scale: Array) -> Array:
    """Which entries of a scale are positive by definition: a factor's diagonal, or all."""
    if scale.ndim == 3:
        return jnp.broadcast_to(jnp.eye(scale.shape[-1], dtype=bool)[None], scale.shape)
    return jnp.ones_like(scale, bool)
