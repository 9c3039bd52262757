"""The engine: one pass over the samples turns a mixture into expected sufficient statistics.

Statistics add up, so the same pass serves blocks of an array, shards of a mesh and chunks of a
file; the M-step only ever sees their sum. Nothing here holds an N×K array.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jgmm._core import budget
from jgmm._core.compilation import jit
from jgmm._data.samples import Samples, fold, make_samples
from jgmm.covariance.models import CovarianceModel
from jgmm.em import cancellation, exponential_family
from jgmm.em.statistics import Statistics
from jgmm.mixture.density import log_joint, normalise
from jgmm.mixture.mixture import Mixture, check_columns
from jgmm.mixture.noise import NoiseDensity

Form = Literal["auto", "product", "difference"]


def accumulate(
    mixture: Mixture,
    x: Any,
    sample_weight: Any = None,
    block_size: int | None = None,
    form: Form = "auto",
    noise_density: NoiseDensity | None = None,
) -> Statistics:
    """Run the E-step over all samples and add up what the M-step needs.

    Args:
      mixture: current parameters.
      x: samples (N, D), or ``Samples``.
      sample_weight: how many times each sample counts, (N,).
      block_size: rows held at once; chosen to fit the cache by default.
      form: "difference" takes every sample's difference to every mean, and is exact; "product" uses
        matrix products (``jgmm.em.exponential_family``), is faster, and loses digits for components
        that are narrow and far from the origin; "auto" takes the product where it is safe.
      background: noise beside the mixture, in the units of the samples.

    Returns:
      Statistics, and the log-likelihood of the mixture passed in, with the noise if there is one.
      Samples count for components as far as they are no noise.

    The result does not depend on ``block_size`` but for rounding.
    """
    if isinstance(x, Samples):
        samples = x
    else:
        mixture, samples = check_inputs(mixture, x, sample_weight)
    return _accumulate(mixture, samples, noise_density, block_size, form)


@partial(jit, static_argnums=(3, 4))
def _accumulate(
    mixture: Mixture,
    samples: Samples,
    noise_density: NoiseDensity | None,
    block_size: int | None,
    form: Form,
) -> Statistics:
    if form == "product":
        return _by_product(mixture, samples, noise_density, block_size)
    if form == "difference":
        return _by_difference(mixture, samples, noise_density, block_size)
    return lax.cond(
        cancellation.is_safe(mixture),
        lambda: _by_product(mixture, samples, noise_density, block_size),
        lambda: _by_difference(mixture, samples, noise_density, block_size),
    )


def check_inputs(mixture: Mixture, x: Any, sample_weight: Any) -> tuple[Mixture, Samples]:
    """Checked samples, and the mixture in their dtype once it is known to fit them.

    Raises:
      DataError: bad samples or weights, or another number of columns than the mixture's.
    """
    samples = make_samples(x, sample_weight)
    check_columns(mixture, samples.n_features)
    return jax.tree.map(lambda leaf: leaf.astype(samples.x.dtype), mixture), samples


def _by_difference(
    mixture: Mixture, samples: Samples, noise_density: NoiseDensity | None, block_size: int | None
) -> Statistics:
    """The readable reference: every other form is tested against it."""
    inverse = mixture.model.storage.invert(mixture.scale)

    def infer(difference: Array, rows: Array) -> tuple[Array, Array]:
        columns = jax.vmap(lambda one: log_joint(mixture, inverse, one), in_axes=2, out_axes=1)
        scores = _mask_known(columns(difference), samples, rows)
        log_prob, log_resp = jax.vmap(normalise, in_axes=1, out_axes=(0, 1))(scores)
        return _apply_noise(noise_density, log_prob, jnp.exp(log_resp), samples, rows)

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
            _weighted_sum(weights, log_prob),
        )

    row_bytes = center.size * samples.x.dtype.itemsize
    rows = block_rows(samples, row_bytes, block_size)
    return Statistics(center, *fold(samples, rows, body, Samples.columns))


def _by_product(
    mixture: Mixture, samples: Samples, noise_density: NoiseDensity | None, block_size: int | None
) -> Statistics:
    """Products for the scores of a block, and products back for its moments."""
    eta = exponential_family.natural_parameters(mixture)

    def infer(block: exponential_family.Features, rows: Array) -> tuple[Array, Array]:
        log_prob, resp = _softmax(_mask_known(exponential_family.scores(eta, block), samples, rows))
        if eta.quadratic is None:  # it is the same for all components
            log_prob = log_prob + exponential_family.shared_score(mixture, block.x)
        return _apply_noise(noise_density, log_prob, resp, samples, rows)

    rows = block_size or product_rows(mixture.model, samples, mixture.n_components)
    return accumulate_products(infer, samples, mixture.model, mixture.n_components, rows)


def accumulate_products(
    infer: Callable[[exponential_family.Features, Array], tuple[Array, Array]],
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
        block = exponential_family.features(entry, x)
        log_prob, resp = infer(block, rows)
        counted = weights[None, :] * resp
        second = (weights[None, :] if entry.shared else counted) @ block.quadratic.T
        return counted.sum(axis=1), counted @ block.x.T, second, _weighted_sum(weights, log_prob)

    rows = min(block_size, samples.n_samples)
    counts, first, second, log_likelihood = fold(
        samples, rows, body, exponential_family.read_for(entry)
    )
    center = jnp.zeros((n_components, samples.n_features), samples.x.dtype)
    second = exponential_family.unpack(entry, second, samples.n_features)
    return Statistics(center, counts, first, second, log_likelihood)


def _mask_known(scores: Float[Array, "K B"], samples: Samples, rows: Array) -> Float[Array, "K B"]:
    """Log joint densities, -inf for all components but the known one where a label is known.

    So a labelled sample counts with ``log p(x, z)``, and only for that component.
    """
    if samples.labels is None:
        return scores
    label = samples.labels[rows][None, :]
    others = (label >= 0) & (label != jnp.arange(scores.shape[0])[:, None])
    return jnp.where(others, -jnp.inf, scores)


def _apply_noise(
    noise_density: NoiseDensity | None,
    log_prob: Float[Array, "B"],
    resp: Float[Array, "K B"],
    samples: Samples,
    rows: Array,
) -> tuple[Float[Array, "B"], Float[Array, "K B"]]:
    """Log density and responsibilities of components that stand before a background."""
    if noise_density is None:
        return log_prob, resp
    known = None if samples.labels is None else samples.labels[rows] >= 0
    log_prob, rest = noise_density.mix_in(log_prob, known)
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


def _weighted_sum(weights: Float[Array, "B"], log_prob: Float[Array, "B"]) -> Float[Array, ""]:
    """Σ w log p. A row of weight zero is missing, even one so far out that its density is -inf."""
    return jnp.where(weights > 0, weights * log_prob, 0).sum()


def product_rows(
    entry: CovarianceModel, samples: Samples, n_components: int, n_lanes: int = 1
) -> int:
    """Rows in a block of the product form, whose features ``n_lanes`` of K components share."""
    n_features = exponential_family.n_features(entry, samples.n_features)
    itemsize = samples.x.dtype.itemsize
    row_bytes = (n_features + 2 * n_lanes * n_components) * itemsize
    return max(
        64, min(budget.PRODUCT_BLOCK_BYTES // row_bytes, budget.PRODUCT_ROW_BYTES // itemsize)
    )


def block_rows(samples: Samples, row_bytes: int, block_size: int | None = None) -> int:
    """Rows in a block: as asked for, or as many as fit the cache."""
    return min(
        block_size or max(64, min(budget.DIFFERENCE_BLOCK_BYTES // row_bytes, 2048)),
        samples.n_samples,
    )
