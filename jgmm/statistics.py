"""The engine: one pass over the samples turns a mixture into expected sufficient statistics.

Statistics add up, so the same pass serves blocks of an array, shards of a mesh and chunks of a
file; the M-step only ever sees their sum. Nothing here holds an N×K array.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

from jgmm import gaussian, natural
from jgmm.covariance import CovarianceModel
from jgmm.mixture import BLOCK_BYTES, Mixture, check_columns, log_joint, normalise
from jgmm.noise import Background
from jgmm.precision import jit
from jgmm.pytree import Leaf
from jgmm.samples import Samples, fold, make_samples

Form = Literal["auto", "product", "difference"]

# A block's features and scores, and one row of them; matrix products like it larger than loops over
# differences do.
PRODUCT_BYTES, COLUMN_BYTES = 1 << 23, 1 << 13


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


def accumulate(
    mixture: Mixture,
    x: Any,
    sample_weight: Any = None,
    block_size: int | None = None,
    form: Form = "auto",
    background: Background | None = None,
) -> Statistics:
    """Run the E-step over all samples and add up what the M-step needs.

    Args:
      mixture: current parameters.
      x: samples (N, D), or ``Samples``.
      sample_weight: how many times each sample counts, (N,).
      block_size: rows held at once; chosen to fit the cache by default.
      form: "difference" takes every sample's difference to every mean, and is exact; "product"
        uses matrix products (``jgmm.natural``), is faster, and loses digits for components that
        are narrow and far from the origin; "auto" takes the product where it is safe.
      background: noise beside the mixture, in the units of the samples.

    Returns:
      Statistics, and the log-likelihood of the mixture passed in, with the noise if there is one.
      Samples count for components as far as they are no noise.

    The result does not depend on ``block_size`` but for rounding.
    """
    if isinstance(x, Samples):
        samples = x
    else:
        mixture, samples = fitting(mixture, x, sample_weight)
    return _accumulate(mixture, samples, background, block_size, form)


@partial(jit, static_argnums=(3, 4))
def _accumulate(
    mixture: Mixture,
    samples: Samples,
    background: Background | None,
    block_size: int | None,
    form: Form,
) -> Statistics:
    if form == "product":
        return _by_product(mixture, samples, background, block_size)
    if form == "difference":
        return _by_difference(mixture, samples, background, block_size)
    return lax.cond(
        natural.is_safe(mixture),
        lambda: _by_product(mixture, samples, background, block_size),
        lambda: _by_difference(mixture, samples, background, block_size),
    )


def fitting(mixture: Mixture, x: Any, sample_weight: Any) -> tuple[Mixture, Samples]:
    """Checked samples, and the mixture in their dtype once it is known to fit them.

    Raises:
      DataError: bad samples or weights, or another number of columns than the mixture's.
    """
    samples = make_samples(x, sample_weight)
    check_columns(mixture, samples.n_features)
    return jax.tree.map(lambda leaf: leaf.astype(samples.x.dtype), mixture), samples


def _by_difference(
    mixture: Mixture, samples: Samples, background: Background | None, block_size: int | None
) -> Statistics:
    """The readable reference: every other form is tested against it."""
    inverse = mixture.model.storage.invert(mixture.scale)

    def infer(difference: Array, rows: Array) -> tuple[Array, Array]:
        columns = jax.vmap(lambda one: log_joint(mixture, inverse, one), in_axes=2, out_axes=1)
        scores = _known(columns(difference), samples, rows)
        log_prob, log_resp = jax.vmap(normalise, in_axes=1, out_axes=(0, 1))(scores)
        return _before(background, log_prob, jnp.exp(log_resp), samples, rows)

    return accumulate_with(infer, samples, mixture.means, mixture.model, block_size)


def accumulate_with(
    infer: Callable[[Array, Array], tuple[Array, Array]],
    samples: Samples,
    center: Float[Array, "K D"],
    entry: CovarianceModel,
    block_size: int | None = None,
) -> Statistics:
    """Add up statistics for responsibilities from any source.

    Args:
      infer: ``(x − center (K, D, B), rows (B,)) -> (log_prob (B,), responsibilities (K, B))``.
      samples: N samples in their frame.
      center: the points moments are taken about.
      entry: covariance model, which says what is kept of the second moments.
      block_size: rows held at once.
    """

    def body(x: Array, weights: Array, rows: Array) -> tuple[Array, ...]:
        difference = x[None] - center[:, :, None]
        log_prob, resp = infer(difference, rows)
        counted = weights[None, :] * resp
        return (
            counted.sum(axis=1),
            jnp.einsum("kb,kdb->kd", counted, difference),
            entry.pool(entry.storage.scatter(counted, difference)),
            _counted(weights, log_prob),
        )

    row_bytes = center.size * samples.x.dtype.itemsize
    rows = block_rows(samples, row_bytes, block_size)
    return Statistics(center, *fold(samples, rows, body, Samples.columns))


def _by_product(
    mixture: Mixture, samples: Samples, background: Background | None, block_size: int | None
) -> Statistics:
    """Products for the scores of a block, and products back for its moments."""
    eta = natural.natural_parameters(mixture)

    def infer(block: natural.Features, rows: Array) -> tuple[Array, Array]:
        log_prob, resp = _softmax(_known(natural.scores(eta, block), samples, rows))
        if eta.quadratic is None:  # it is the same for all components
            log_prob = log_prob + natural.shared_score(mixture, block.x)
        return _before(background, log_prob, resp, samples, rows)

    rows = block_size or product_rows(mixture.model, samples, mixture.n_components)
    return accumulate_products(infer, samples, mixture.model, mixture.n_components, rows)


def accumulate_products(
    infer: Callable[[natural.Features, Array], tuple[Array, Array]],
    samples: Samples,
    entry: CovarianceModel,
    n_components: int,
    block_size: int,
) -> Statistics:
    """``accumulate_with`` by matrix products, with moments about the origin.

    Under ``vmap`` the features of a block are shared by all lanes, and the products widen.

    Args:
      infer: ``(features, rows (B,)) -> (log_prob (B,), responsibilities (K, B))``.
      samples, entry, block_size: as there.
      n_components: K.
    """

    def body(x: Array, weights: Array, rows: Array) -> tuple[Array, ...]:
        block = natural.features(entry, x)
        log_prob, resp = infer(block, rows)
        counted = weights[None, :] * resp
        second = (weights[None, :] if entry.shared else counted) @ block.quadratic.T
        return counted.sum(axis=1), counted @ block.x.T, second, _counted(weights, log_prob)

    rows = min(block_size, samples.n_samples)
    counts, first, second, log_likelihood = fold(samples, rows, body, natural.read_for(entry))
    center = jnp.zeros((n_components, samples.n_features), samples.x.dtype)
    second = natural.unpack(entry, second, samples.n_features)
    return Statistics(center, counts, first, second, log_likelihood)


def exact_where_needed(
    safe: Bool[Array, "W"],
    products: Statistics,
    exact: Callable[[Any], Statistics],
    lanes: Any,
) -> Statistics:
    """Statistics of W lanes by products, but for those that are not safe by differences.

    Products are shared by all lanes; differences are nobody's but the lane's own, and one after
    another they take less than half the time of all at once.

    Args:
      safe: whether the product form keeps enough digits, a lane.
      products: what it gave, leading axis W.
      exact: ``lane -> Statistics`` by differences.
      lanes: what ``exact`` is called with, leading axis W.
    """

    def again(one: tuple[Array, Statistics, Any]) -> Statistics:
        safe, found, lane = one
        return lax.cond(safe, lambda: found, lambda: exact(lane))

    return lax.cond(safe.all(), lambda: products, lambda: lax.map(again, (safe, products, lanes)))


def _known(scores: Float[Array, "K B"], samples: Samples, rows: Array) -> Float[Array, "K B"]:
    """Log joint densities, -inf for all components but the known one where a label is known.

    So a labelled sample counts with ``log p(x, z)``, and only for that component.
    """
    if samples.labels is None:
        return scores
    label = samples.labels[rows][None, :]
    others = (label >= 0) & (label != jnp.arange(scores.shape[0])[:, None])
    return jnp.where(others, -jnp.inf, scores)


def _before(
    background: Background | None,
    log_prob: Float[Array, "B"],
    resp: Float[Array, "K B"],
    samples: Samples,
    rows: Array,
) -> tuple[Float[Array, "B"], Float[Array, "K B"]]:
    """Log density and responsibilities of components that stand before a background."""
    if background is None:
        return log_prob, resp
    known = None if samples.labels is None else samples.labels[rows] >= 0
    log_prob, rest = background.beside(log_prob, known)
    return log_prob, resp * rest[None, :]


def _softmax(scores: Float[Array, "K B"]) -> tuple[Float[Array, "B"], Float[Array, "K B"]]:
    """Log of the sum of exponentials over components, and each one's share in it."""
    # Nothing depends on what is taken off, so neither does a gradient; that of a maximum is NaN
    # where XLA computes the scores twice, with other roundings, and finds the maximum in neither.
    highest = lax.stop_gradient(scores.max(axis=0))
    highest = jnp.where(jnp.isfinite(highest), highest, 0)
    shares = jnp.exp(scores - highest[None, :])
    total = shares.sum(axis=0)
    return highest + jnp.log(total), shares * (1 / total)[None, :]


def _counted(weights: Float[Array, "B"], log_prob: Float[Array, "B"]) -> Float[Array, ""]:
    """Σ w log p. A row of weight zero is missing, even one so far out that its density is -inf."""
    return jnp.where(weights > 0, weights * log_prob, 0).sum()


def product_rows(
    entry: CovarianceModel, samples: Samples, n_components: int, n_lanes: int = 1
) -> int:
    """Rows in a block of the product form, whose features ``n_lanes`` of K components share."""
    n_features = natural.n_features(entry, samples.n_features)
    itemsize = samples.x.dtype.itemsize
    row_bytes = (n_features + 2 * n_lanes * n_components) * itemsize
    return max(64, min(PRODUCT_BYTES // row_bytes, COLUMN_BYTES // itemsize))


def block_rows(samples: Samples, row_bytes: int, block_size: int | None = None) -> int:
    """Rows in a block: as asked for, or as many as fit the cache."""
    return min(block_size or max(64, min(BLOCK_BYTES // row_bytes, 2048)), samples.n_samples)


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
