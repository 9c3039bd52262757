"""The engine: one pass over the samples turns a mixture into expected sufficient statistics.

Statistics add up, so the same pass serves blocks of an array, shards of a mesh and chunks of a
file; the M-step only ever sees their sum. Nothing here holds an N×K array.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgmm import gaussian
from jgmm.covariance import Storage
from jgmm.mixture import BLOCK_BYTES, Mixture, log_joint, normalise
from jgmm.samples import Leaf, Samples, fold, make_samples


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Statistics:
    """Expected sufficient statistics of K components; the sum over samples that EM needs.

    Moments are taken about ``center``, one point a component close to its mean, because
    E[x²] − mean² about a distant origin loses all its digits.

    Attributes:
      center: cₖ, (K, D); the same in all summands.
      counts: Nₖ = Σₙ wₙ γₙₖ, (K,).
      first: Σₙ wₙ γₙₖ (xₙ − cₖ), (K, D).
      second: Σₙ wₙ γₙₖ (xₙ − cₖ)(xₙ − cₖ)ᵀ, (K, D, D), or what the model's storage keeps of it.
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


def accumulate(
    mixture: Mixture, x: Any, sample_weight: Any = None, block_size: int | None = None
) -> Statistics:
    """Run the E-step over all samples and add up what the M-step needs.

    Args:
      mixture: current parameters.
      x: samples (N, D), or ``Samples``.
      sample_weight: how many times each sample counts, (N,).
      block_size: rows held at once; chosen to fit the cache by default.

    Returns:
      Statistics about the mixture's means, and the log-likelihood of the mixture passed in.

    The result does not depend on ``block_size`` but for rounding.
    """
    samples = x if isinstance(x, Samples) else make_samples(x, sample_weight)
    inverse = mixture.model.storage.invert(mixture.scale)

    def infer(difference: Array, rows: Array) -> tuple[Array, Array]:
        del rows
        joint = jax.vmap(lambda row: log_joint(mixture, inverse, row))(difference)
        log_prob, log_resp = jax.vmap(normalise)(joint)
        return log_prob, jnp.exp(log_resp)

    return accumulate_with(infer, samples, mixture.means, mixture.model.storage, block_size)


def accumulate_with(
    infer: Callable[[Array, Array], tuple[Array, Array]],
    samples: Samples,
    center: Float[Array, "K D"],
    storage: Storage,
    block_size: int | None = None,
) -> Statistics:
    """Add up statistics for responsibilities from any source.

    Args:
      infer: ``(x − center (B, K, D), rows (B,)) -> (log_prob (B,), responsibilities (B, K))``.
      samples: N samples in their frame.
      center: the points moments are taken about.
      storage: form of the second moments.
      block_size: rows held at once.
    """

    def body(x: Array, weights: Array, rows: Array) -> tuple[Array, ...]:
        difference = x[:, None, :] - center[None]
        log_prob, resp = infer(difference, rows)
        counted = weights[:, None] * resp
        return (
            counted.sum(axis=0),
            jnp.einsum("bk,bkd->kd", counted, difference),
            storage.scatter(counted, difference),
            # A row of weight zero is missing, even one so far out that its density is -inf.
            jnp.where(weights > 0, weights * log_prob, 0).sum(),
        )

    size = block_size or default_block(center.shape[0], center.shape[1], samples.x.dtype.itemsize)
    return Statistics(center, *fold(samples, min(size, samples.n_samples), body))


def default_block(n_components: int, n_features: int, item_bytes: int) -> int:
    """Rows whose differences to all components fit the cache."""
    return max(64, BLOCK_BYTES // (n_components * n_features * item_bytes))


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
    per_count = counts.reshape(counts.shape + (1,) * (statistics.second.ndim - 1))
    scatter = statistics.second - cross + per_count * storage.outer(moved)
    squares = storage.trace_ratio(mixture.scale, scatter, d)
    log_det = storage.half_log_det(mixture.scale, d)
    log_weights = jnp.where(used, mixture.log_weights, 0)
    constant = log_weights - 0.5 * d * gaussian.LOG_2PI - log_det
    return jnp.where(used, counts * constant - 0.5 * squares, 0).sum()
