"""The metric in which EM is steepest ascent, as coordinates in which it is the unit matrix.

The complete data (x, z) of a mixture are an exponential family with Fisher information I_c. In its
metric a small step from θ has the squared length, for a sample,

    dθᵀ I_c dθ = Σₖ dπₖ²/πₖ + Σₖ πₖ (dμₖᵀ Σₖ⁻¹ dμₖ + 1/2 tr (Σₖ⁻¹ dΣₖ)²)

twice the Kullback–Leibler divergence of the complete data. EM's step is, to first order, the
gradient in this metric, I_c⁻¹ g (Titterington 1984; Amari 1998 for the natural gradient), whatever
coordinates θ is written in. So its length |g| = √(gᵀ I_c⁻¹ g) says how far from an optimum a point
is, in the same unit for every method: EM's step gains |g|²/2 nats a sample, to second order.

``move`` goes from a mixture by a tangent ξ, in coordinates of its own in which I_c is the unit
matrix, and ``tangent_to`` goes back. One direction of the logits, that of their constant, does
nothing.
"""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from jgmm.covariance.estimation import trailing
from jgmm.em.statistics import Statistics, expected_log_likelihood
from jgmm.mixture.mixture import Mixture
from jgmm.mixture.unconstrained import LOG, Free


def zero_tangent(mixture: Mixture) -> Free:
    """The tangent that leads nowhere."""
    return jax.tree.map(jnp.zeros_like, Free(mixture.log_weights, mixture.means, mixture.scale))


def retract(mixture: Mixture, tangent: Free) -> Mixture:
    """The mixture that a tangent leads to.

        log πₖ + a / √πₖ, normalised;   μₖ + Lₖ b / √πₖ;   Lₖ E(C / √πₖ)

    where E has an exponential on its diagonal. Every tangent leads to a mixture.

    Args:
      mixture: of a covariance model that has free coordinates; where from.
      tangent: a (K,), b (K, D) and C, in the shape of the scale.
    """
    entry, per = mixture.model, _per_unit(mixture)
    every = jnp.broadcast_to(mixture.scale, (len(per.means), *mixture.scale.shape[1:]))
    noise = per.means * tangent.means
    relative = LOG.mixture(Free(tangent.logits, noise, per.scale * tangent.scale), entry.name).scale
    return Mixture(
        jax.nn.log_softmax(mixture.log_weights + per.logits * tangent.logits),
        mixture.means + entry.storage.apply(every, noise),
        mixture.scale @ relative if mixture.scale.ndim == 3 else mixture.scale * relative,
        mixture.covariance,
    )


def inverse_retract(mixture: Mixture, other: Mixture) -> Free:
    """The tangent that leads from one mixture to another: what ``move`` undoes."""
    storage, per = mixture.model.storage, _per_unit(mixture)
    inverse = storage.invert(mixture.scale)
    every = jnp.broadcast_to(inverse, (len(per.means), *inverse.shape[1:]))
    relative = inverse @ other.scale if inverse.ndim == 3 else inverse * other.scale
    away = Free(
        other.log_weights - mixture.log_weights,
        storage.apply(every, other.means - mixture.means),
        LOG.point(replace(other, scale=relative)).scale,
    )
    return jax.tree.map(lambda leaf, unit: jnp.where(unit > 0, leaf / unit, 0), away, per)


def _per_unit(mixture: Mixture) -> Free:
    """How far a unit of each part of a tangent leads; nowhere where a component is switched off."""
    root = jnp.exp(-0.5 * mixture.log_weights)
    root = jnp.where(jnp.isfinite(root), root, 0)
    # Of a covariance that all share all samples tell.
    slower = jnp.ones_like(root[:1]) if mixture.model.shared else root
    units = trailing(slower, mixture.scale) * _units(mixture.scale, mixture.n_features)
    return Free(root, root[:, None], units)


def _units(scale: Array, n_features: int) -> Float[np.ndarray, "..."]:
    """One over the length of a unit of C: a logarithm of a standard deviation counts twice."""
    if scale.ndim == 3:
        units = np.where(np.eye(n_features, dtype=bool), 0.5**0.5, 1.0)[None]
    elif scale.ndim == 2:
        units = np.full((1, n_features), 0.5**0.5)
    else:
        units = np.full(1, (0.5 / n_features) ** 0.5)
    return units.astype(str(scale.dtype))


def gradient(mixture: Mixture, statistics: Statistics, total: Float[Array, ""]) -> Free:
    """Gradient of the mean log-likelihood at a mixture by the tangent, without a pass.

    By Fisher's identity. It is I_c⁻¹ g, too, in the tangent's coordinates: the natural gradient.

    Args:
      mixture: where.
      statistics: of its own E-step.
      total: N, the total weight of the samples.
    """

    def complete(tangent: Free) -> Array:
        return expected_log_likelihood(retract(mixture, tangent), statistics) / total

    return jax.grad(complete)(zero_tangent(mixture))


def length(tangent: Free) -> Float[Array, ""]:
    """Length of a tangent in EM's metric: |g| for a gradient."""
    return jnp.linalg.norm(ravel_pytree(tangent)[0])
