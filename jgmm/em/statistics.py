"""Expected sufficient statistics: sums over the samples, from the E-step to the M-step."""

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
    """Expected sufficient statistics of K components: all that EM needs to know of the samples.

    The moments of a component are taken about a point ``center``, which is few standard deviations
    away from its mean: about a distant origin, E[x²] − mean² would lose all its digits.

    Attributes:
      center: cₖ, (K, D); statistics can be added only if their centers are the same.
      counts: Nₖ = Σₙ wₙ γₙₖ, (K,).
      first: Σₙ wₙ γₙₖ (xₙ − cₖ), (K, D).
      second: Σₙ wₙ γₙₖ (xₙ − cₖ)(xₙ − cₖ)ᵀ, (K, D, D), or the part of it that the storage of the
        covariance model keeps. Where all components share one covariance it is summed over the
        components, with a first axis of 1.
      log_likelihood: Σₙ wₙ log p(xₙ), in nats, ().
      squares: Σₙ wₙ Wₙ γₙₖ with Wₙ the total weight of all rows equal to row n, (K,).
    """

    center: Leaf
    counts: Leaf
    first: Leaf
    second: Leaf
    log_likelihood: Leaf
    squares: Leaf

    def effective_counts(self) -> Float[Array, "*W K"]:
        """Return how many distinct rows of equal weight would say as much of each component.

            (Σₙ wₙ γₙₖ)² / Σₙ wₙ Wₙ γₙₖ

        Neither the scale of the weights matters, nor how often rows are repeated. With distinct
        rows that all count alike this is Nₖ.

        Reference: Kish (1965), the effective sample size.
        """
        counted = self.squares > 0
        return (
            jnp.where(counted, self.counts / jnp.where(counted, self.squares, 1), 0) * self.counts
        )

    def __add__(self, other: Statistics) -> Statistics:
        """Return the statistics of both sets of samples; their centers must be the same."""
        return Statistics(
            self.center,
            self.counts + other.counts,
            self.first + other.first,
            self.second + other.second,
            self.log_likelihood + other.log_likelihood,
            self.squares + other.squares,
        )


def expected_log_likelihood(mixture: Mixture, statistics: Statistics) -> Float[Array, ""]:
    """Compute the expected complete-data log-likelihood Q(θ), which the M-step maximises.

        Q(θ) = Σₖ Nₖ (log πₖ − D/2 log 2π − 1/2 log|Σₖ|) − 1/2 tr Σₖ⁻¹ Sₖ(μₖ)

    Sₖ(μ) is the scatter about μ. If the statistics were computed with θ itself, the gradient of Q
    is the gradient of the log-likelihood (Fisher's identity); its value is another.

    Args:
      mixture: the parameters θ, in the units of the statistics.
      statistics: expected sufficient statistics, usually of an E-step with other parameters.

    Returns:
      Q(θ), in nats. A component without samples contributes nothing.

    >>> import jgmm
    >>> mixture = jgmm.make_mixture([1.0], [[0.0]], [1.0], "spherical")
    >>> statistics = jgmm.accumulate(mixture, [[-1.0], [1.0]])
    >>> jgmm.em.expected_log_likelihood(mixture, statistics).round(3)
    Array(-2.838, dtype=float32)
    """
    storage, d = mixture.model.storage, mixture.n_features
    counts = statistics.counts
    used = counts > 0
    moved = mixture.means - statistics.center
    first = statistics.first
    # Σ γ (x − μ)(x − μ)ᵀ from the moments about the center, in the form of the storage.
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
    """Compute the expected statistics of an E-step over samples drawn from the mixture itself.

    Args:
      mixture: parameters of the E-step, and distribution of the samples.
      total: the total weight of the samples.
      center: the points about which moments are taken.

    Returns:
      The statistics, of distinct samples of weight one. Their log-likelihood is not computed; it is
      zero.
    """
    entry, counts = mixture.model, total * mixture.weights
    away = mixture.means - center
    square = entry.storage.covariance(mixture.scale) + entry.storage.outer(away)
    second = entry.pool(trailing(counts, square) * square)
    first = counts[:, None] * away
    return Statistics(center, counts, first, second, jnp.zeros_like(total), squares=counts)


def recentred(
    statistics: Statistics, center: Float[Array, "K D"], entry: CovarianceModel
) -> Statistics:
    """Convert statistics to moments about other centers.

        Σ γ (x − c′) = Σ γ (x − c) + N d,   d = c − c′
        Σ γ (x − c′)(x − c′)ᵀ = Σ γ (x − c)(x − c)ᵀ + f dᵀ + d fᵀ + N d dᵀ,   f = Σ γ (x − c)

    Args:
      statistics: about centers c.
      center: the new centers c′.
      entry: covariance model of the statistics.
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
