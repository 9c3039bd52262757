"""Expected sufficient statistics: what the E-step sums over samples and the M-step reads."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgmm._core.pytree import Leaf
from jgmm.covariance.estimation import trailing
from jgmm.covariance.models import CovarianceModel
from jgmm.mixture import gaussian
from jgmm.mixture.mixture import Mixture


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Statistics:
    """Expected sufficient statistics of K components; the sum over samples that EM needs.

    Moments are taken about ``center``, one point a component that is not many of its standard
    deviations from its mean: E[x²] − mean² about a distant origin loses all its digits.

    Attributes:
      center: cₖ, (K, D); the same in all summands.
      counts: Nₖ = Σₙ wₙ γₙₖ, (K,).
      first: Σₙ wₙ γₙₖ (xₙ − cₖ), (K, D).
      second: Σₙ wₙ γₙₖ (xₙ − cₖ)(xₙ − cₖ)ᵀ, (K, D, D), or what the model's storage keeps of it;
        summed over components, with a first axis of 1, where they share one covariance.
      log_likelihood: Σₙ wₙ log p(xₙ), ().
    """

    center: Leaf
    counts: Leaf
    first: Leaf
    second: Leaf
    log_likelihood: Leaf

    def __add__(self, other: Statistics) -> Statistics:
        """Statistics of both sets of samples, taken about the same centers."""
        return Statistics(
            self.center,
            self.counts + other.counts,
            self.first + other.first,
            self.second + other.second,
            self.log_likelihood + other.log_likelihood,
        )


def expected_log_likelihood(mixture: Mixture, statistics: Statistics) -> Float[Array, ""]:
    """Expected complete-data log-likelihood of a mixture, given statistics of another.

        Q(θ) = Σₖ Nₖ (log πₖ − D/2 log 2π − 1/2 log|Σₖ|) − 1/2 tr Σₖ⁻¹ Sₖ(μₖ)

    with Sₖ(μ) the scatter about μ. The M-step maximises it. Where the statistics are those of θ
    itself, its gradient is that of the log-likelihood (Fisher's identity), though its value is not.

    A component without samples contributes nothing.
    """
    storage, d = mixture.model.storage, mixture.n_features
    counts = statistics.counts
    used = counts > 0
    moved = mixture.means - statistics.center
    first = statistics.first
    # Σ γ (x − μ)(x − μ)ᵀ from moments about the center, in the storage's own form.
    cross = storage.outer(moved + first) - storage.outer(moved) - storage.outer(first)
    per_count = counts.reshape(counts.shape + (1,) * (cross.ndim - 1))
    scatter = statistics.second - mixture.model.pool(cross - per_count * storage.outer(moved))
    squares = storage.trace_ratio(mixture.scale, scatter, d)
    log_det = storage.half_log_det(mixture.scale, d)
    log_weights = jnp.where(used, mixture.log_weights, 0)
    constant = log_weights - 0.5 * d * gaussian.LOG_2PI - log_det
    return jnp.where(used, counts * constant, 0).sum() - 0.5 * squares.sum()


def expected_statistics(
    mixture: Mixture, total: Float[Array, ""], center: Float[Array, "K D"]
) -> Statistics:
    """What a mixture expects an E-step of samples of its own to add up to.

    Args:
      mixture: parameters.
      total: the total weight of the samples.
      center: the points moments are taken about.

    The log-likelihood is left at zero.
    """
    entry, counts = mixture.model, total * mixture.weights
    away = mixture.means - center
    square = entry.storage.covariance(mixture.scale) + entry.storage.outer(away)
    second = entry.pool(trailing(counts, square) * square)
    return Statistics(center, counts, counts[:, None] * away, second, jnp.zeros_like(total))


def recentred(
    statistics: Statistics, center: Float[Array, "K D"], entry: CovarianceModel
) -> Statistics:
    """The same statistics about other centers.

    Σ γ (x − c′) = Σ γ (x − c) + N d,   d = c − c′
    Σ γ (x − c′)(x − c′)ᵀ = Σ γ (x − c)(x − c)ᵀ + f dᵀ + d fᵀ + N d dᵀ,   f = Σ γ (x − c)
    """
    outer, first = entry.storage.outer, statistics.first
    moved = statistics.center - center
    cross = outer(moved + first) - outer(moved) - outer(first)
    counts = statistics.counts.reshape((-1,) + (1,) * (cross.ndim - 1))
    return replace(
        statistics,
        center=center,
        first=first + statistics.counts[:, None] * moved,
        second=statistics.second + entry.pool(cross + counts * outer(moved)),
    )
