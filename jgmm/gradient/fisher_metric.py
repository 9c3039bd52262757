"""Fisher metric of the complete data, in which EM is steepest ascent, and coordinates for it.

The complete data (x, z) of a mixture are an exponential family with Fisher information I_c. In its
metric a small step dθ from θ has the squared length, per sample,

    dθᵀ I_c dθ = Σₖ dπₖ²/πₖ + Σₖ πₖ (dμₖᵀ Σₖ⁻¹ dμₖ + 1/2 tr (Σₖ⁻¹ dΣₖ)²)

which is twice the Kullback–Leibler divergence of the complete data. To first order, EM's step is
the gradient in this metric, I_c⁻¹ g (Titterington 1984; Amari 1998 for the natural gradient),
whatever the coordinates of θ. So its length |g| = √(gᵀ I_c⁻¹ g) measures how far a point is from an
optimum, in the same unit for every method: EM's step gains |g|²/2 nats per sample, to second order.

``retract`` maps a tangent ξ at a mixture to another mixture, in coordinates in which I_c is the
unit matrix; ``inverse_retract`` maps back. One direction of the logits has no effect: the one that
adds a constant to all of them.
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
    """Return the zero tangent at a mixture, which ``retract`` maps to the mixture itself."""
    return jax.tree.map(jnp.zeros_like, Free(mixture.log_weights, mixture.means, mixture.scale))


def retract(mixture: Mixture, tangent: Free) -> Mixture:
    """Map a tangent at a mixture to a mixture (the retraction).

        log πₖ + a / √πₖ, normalised;   μₖ + Lₖ b / √πₖ;   Lₖ E(C / √πₖ)

    where E has an exponential on its diagonal. Every tangent leads to a mixture.

    Args:
      mixture: the base point, of a covariance model that has free coordinates.
      tangent: a (K,), b (K, D) and C, in the shape of the scale.
    """
    entry, lengths = mixture.model, _unit_lengths(mixture)
    scales = jnp.broadcast_to(mixture.scale, (len(lengths.means), *mixture.scale.shape[1:]))
    displacement = lengths.means * tangent.means
    relative = LOG.mixture(
        Free(tangent.logits, displacement, lengths.scale * tangent.scale), entry.name
    ).scale
    return Mixture(
        jax.nn.log_softmax(mixture.log_weights + lengths.logits * tangent.logits),
        mixture.means + entry.storage.apply(scales, displacement),
        mixture.scale @ relative if mixture.scale.ndim == 3 else mixture.scale * relative,
        mixture.covariance,
    )


def inverse_retract(mixture: Mixture, other: Mixture) -> Free:
    """Return the tangent at a mixture that ``retract`` maps to another mixture."""
    storage, lengths = mixture.model.storage, _unit_lengths(mixture)
    inverse = storage.invert(mixture.scale)
    inverses = jnp.broadcast_to(inverse, (len(lengths.means), *inverse.shape[1:]))
    relative = inverse @ other.scale if inverse.ndim == 3 else inverse * other.scale
    difference = Free(
        other.log_weights - mixture.log_weights,
        storage.apply(inverses, other.means - mixture.means),
        LOG.point(replace(other, scale=relative)).scale,
    )
    return jax.tree.map(lambda leaf, unit: jnp.where(unit > 0, leaf / unit, 0), difference, lengths)


def _unit_lengths(mixture: Mixture) -> Free:
    """Return the factors of a tangent's entries: 1/√πₖ, and zero for a component of weight zero."""
    root = jnp.exp(-0.5 * mixture.log_weights)
    root = jnp.where(jnp.isfinite(root), root, 0)
    # All samples contribute to a shared covariance, so its factor is one.
    covariance_root = jnp.ones_like(root[:1]) if mixture.model.shared else root
    units = trailing(covariance_root, mixture.scale) * _units(mixture.scale, mixture.n_features)
    return Free(root, root[:, None], units)


def _units(scale: Array, n_features: int) -> Float[np.ndarray, "..."]:
    """Return one over the length of each unit vector of C in the metric.

    The logarithm of a standard deviation has Fisher information 2, one that all D columns share has
    2 D, and an entry below the diagonal has 1.
    """
    if scale.ndim == 3:
        units = np.where(np.eye(n_features, dtype=bool), 0.5**0.5, 1.0)[None]
    elif scale.ndim == 2:
        units = np.full((1, n_features), 0.5**0.5)
    else:
        units = np.full(1, (0.5 / n_features) ** 0.5)
    return units.astype(str(scale.dtype))


def gradient(mixture: Mixture, statistics: Statistics, total: Float[Array, ""]) -> Free:
    """Compute the gradient of the mean log-likelihood in the tangent space of a mixture.

    By Fisher's identity it needs only the statistics, no pass over the samples. As the metric is
    the unit matrix in these coordinates, it is also I_c⁻¹ g, the natural gradient.

    Args:
      mixture: the base point.
      statistics: of the E-step of this mixture.
      total: N, the total weight of the samples.
    """

    def complete_data_log_likelihood(tangent: Free) -> Array:
        return expected_log_likelihood(retract(mixture, tangent), statistics) / total

    return jax.grad(complete_data_log_likelihood)(zero_tangent(mixture))


def length(tangent: Free) -> Float[Array, ""]:
    """Return the length of a tangent in EM's metric: |g| for a gradient."""
    return jnp.linalg.norm(ravel_pytree(tangent)[0])
