"""The E-step of a fit: one pass over the samples that sums expected sufficient statistics.

Statistics of different samples can be added. So the same pass serves blocks of an array, shards of
a mesh and blocks of a file, and the M-step needs only their sum. No N×K array is held in memory.
The E-step that returns responsibilities is ``jgmm.mixture.density.e_step``.
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
from jgmm.covariance.storage import Full
from jgmm.em import cancellation, exponential_family, whitened
from jgmm.em.statistics import Statistics
from jgmm.mixture.density import log_joint, normalise
from jgmm.mixture.mixture import HasMixture, Mixture, as_mixture, check_columns
from jgmm.mixture.noise import NoiseDensity

Form = Literal["auto", "product", "difference"]


def accumulate(
    mixture: Mixture | HasMixture,
    x: Any,
    sample_weight: Any = None,
    block_size: int | None = None,
    form: Form = "auto",
    noise_density: NoiseDensity | None = None,
) -> Statistics:
    """Run the E-step over all samples and sum the expected sufficient statistics.

    With the responsibilities γₙₖ of the mixture, the statistics are the sums over n of wₙ γₙₖ times
    1, x and x xᵀ; see ``Statistics``.

    Args:
      mixture: current parameters.
      x: samples (N, D), or ``Samples``.
      sample_weight: how many times each sample counts, (N,).
      block_size: number of rows processed at once; by default as many as fit in the cache.
      form: "difference" computes the difference of every sample from every mean, and is exact.
        "product" uses matrix products (``jgmm.em.exponential_family``): it is faster unless there
        are many columns, and loses digits for components that are narrow and far from the origin.
        "auto" uses products where they are faster and accurate enough.
      noise_density: uniform noise component in addition to the mixture, in the units of the
        samples, or None.

    Returns:
      Statistics, with the log-likelihood of the mixture passed in, and of the noise if there is
      any. With noise, responsibilities are multiplied by the probability that the sample is not
      noise.

    Up to rounding, the result does not depend on ``block_size``.

    Raises:
      DataError: see ``as_samples``; or x has another number of columns than the mixture.

    >>> import jgmm
    >>> mixture = jgmm.make_mixture([0.5, 0.5], [[0.0], [9.0]], [1.0, 1.0], "spherical")
    >>> jgmm.accumulate(mixture, [[0.0], [1.0], [9.0]]).counts.round(3)
    Array([2., 1.], dtype=float32)
    """
    if isinstance(x, Samples):
        mixture, samples = as_mixture(mixture), x
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
    entry, d, k = mixture.model, mixture.n_features, mixture.n_components
    if form == "difference" or (form == "auto" and prefers_differences(entry, d, k)):
        return _by_difference(mixture, samples, noise_density, block_size)
    return lax.cond(
        cancellation.is_safe(mixture),
        lambda: _by_product(mixture, samples, noise_density, block_size),
        lambda: _by_difference(mixture, samples, noise_density, block_size),
    )


def prefers_differences(
    entry: CovarianceModel, n_columns: int, n_components: int, n_runs: int = 1
) -> bool:
    """Return whether differences cost no more than matrix products of features.

    They are exact, and then they are the only form that is compiled. This is so for full
    covariances, one for each component, in many columns: the D²/2 features of a sample are more
    numbers than the caches hold, and few components or runs share them.

    Args:
      entry: covariance model.
      n_columns: D.
      n_components: K.
      n_runs: number of runs that share the features of a block under ``vmap``.
    """
    if entry.storage is not Full or entry.shared or n_columns < budget.MIN_WHITENED_COLUMNS:
        return False
    d, k = n_columns, n_components * n_runs
    products = exponential_family.n_features(entry, d) * (budget.FEATURE_WORK + 2 * k)
    differences = k * d * (2 * d + budget.DIFFERENCE_WORK)
    return d >= budget.WIDE_COLUMNS or differences <= products


def check_inputs(
    mixture: Mixture | HasMixture, x: Any, sample_weight: Any
) -> tuple[Mixture, Samples]:
    """Check samples and that they fit a mixture; convert the mixture to their dtype.

    Raises:
      DataError: bad samples or weights, or x has another number of columns than the mixture.
    """
    mixture = as_mixture(mixture)
    samples = make_samples(x, sample_weight)
    check_columns(mixture, samples.n_features)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, samples.x.dtype), mixture), samples


def _by_difference(
    mixture: Mixture, samples: Samples, noise_density: NoiseDensity | None, block_size: int | None
) -> Statistics:
    """Compute the statistics from differences: the reference for tests of the other form."""
    if mixture.model.storage is Full and mixture.n_features >= budget.MIN_WHITENED_COLUMNS:
        return _by_component(mixture, samples, noise_density, block_size)
    inverse = mixture.model.storage.invert(mixture.scale)

    def infer(difference: Array, rows: Array) -> tuple[Array, Array]:
        columns = jax.vmap(lambda one: log_joint(mixture, inverse, one), in_axes=2, out_axes=1)
        scores = mask_known(columns(difference), samples, rows)
        log_prob, log_resp = jax.vmap(normalise, in_axes=1, out_axes=(0, 1))(scores)
        return _apply_noise(noise_density, log_prob, jnp.exp(log_resp), samples, rows)

    return accumulate_with(infer, samples, mixture.means, mixture.model, block_size)


def _by_component(
    mixture: Mixture, samples: Samples, noise_density: NoiseDensity | None, block_size: int | None
) -> Statistics:
    """Compute the statistics of full covariances from differences, one component after another."""
    entry, means = mixture.model, mixture.means
    components = whitened.components(mixture)

    def body(x: Array, weights: Array, rows: Array) -> dict[str, Any]:
        bound = mask_known(whitened.first_scores(components, x), samples, rows)
        groups = whitened.group(x, bound, weights, rows)
        scores = whitened.scores(components, groups).reshape(len(means), -1)
        weights, rows = groups.weights.reshape(-1), groups.rows.reshape(-1)
        log_prob, resp = _apply_noise(noise_density, *_softmax(scores), samples, rows)
        counted = weights[None, :] * resp
        first, second = whitened.moments(
            means, counted.reshape(len(means), *groups.rows.shape), groups.x
        )
        second = tuple(entry.pool(panel) for panel in second)
        return _sums(samples, weights, rows, log_prob, resp) | {"first": first, "second": second}

    rows = min(block_size or whitened_rows(samples, mixture.n_components), samples.n_samples)
    sums = fold(samples, rows, body)
    return Statistics(means, **sums | {"second": whitened.join_panels(sums["second"])})


def accumulate_with(
    infer: Callable[[Array, Array], tuple[Array, Array]],
    samples: Samples,
    center: Float[Array, "K D"],
    entry: CovarianceModel,
    block_size: int | None = None,
) -> Statistics:
    """Sum statistics for responsibilities from any source, from differences to the centers.

    Args:
      infer: function ``(x − center (K, D, B), rows (B,)) -> (log_prob (B,), responsibilities
        (K, B))`` of a block of B samples; ``rows`` are their indices.
      samples: N samples with their standardization.
      center: the points about which moments are taken.
      entry: covariance model; its storage decides which second moments are computed.
      block_size: number of rows processed at once.
    """

    def body(x: Array, weights: Array, rows: Array) -> dict[str, Any]:
        difference = x[None] - center[:, :, None]
        log_prob, resp = infer(difference, rows)
        counted = weights[None, :] * resp
        return _sums(samples, weights, rows, log_prob, resp) | {
            "first": jnp.einsum("kb,kdb->kd", counted, difference),
            "second": entry.pool(entry.storage.scatter(counted, difference)),
        }

    row_bytes = center.size * samples.x.dtype.itemsize
    rows = block_rows(samples, row_bytes, block_size)
    return Statistics(center, **fold(samples, rows, body, Samples.columns))


def _by_product(
    mixture: Mixture, samples: Samples, noise_density: NoiseDensity | None, block_size: int | None
) -> Statistics:
    """Compute the statistics by matrix products: one for the scores, one for the moments."""
    eta = exponential_family.natural_parameters(mixture)

    def infer(block: exponential_family.Features, rows: Array) -> tuple[Array, Array]:
        log_prob, resp = _softmax(mask_known(exponential_family.scores(eta, block), samples, rows))
        if eta.quadratic is None:  # the quadratic part is the same for all components
            log_prob = log_prob + exponential_family.shared_score(mixture, block.x)
        return _apply_noise(noise_density, log_prob, resp, samples, rows)

    rows = block_size or product_rows(mixture.model, samples, mixture.n_components)
    complete, k = noise_density is None, mixture.n_components
    return accumulate_products(infer, samples, mixture.model, k, rows, complete)


def accumulate_products(
    infer: Callable[[exponential_family.Features, Array], tuple[Array, Array]],
    samples: Samples,
    entry: CovarianceModel,
    n_components: int,
    block_size: int,
    complete: bool = True,
) -> Statistics:
    """Sum statistics like ``accumulate_with``, by matrix products and about the origin.

    Under ``vmap`` all runs share the features of a block, and the matrix products become wider.

    Args:
      infer: function ``(features, rows (B,)) -> (log_prob (B,), responsibilities (K, B))`` of a
        block of B samples; ``rows`` are their indices.
      samples, entry, block_size: as for ``accumulate_with``.
      n_components: K.
      complete: whether the responsibilities of every sample sum to one. With a noise component they
        do not.
    """

    one_scatter = entry.storage is Full and entry.shared
    panels = whitened.panels(samples.n_features)

    def body(x: Array, weights: Array, rows: Array) -> dict[str, Any]:
        block = exponential_family.features(entry, x)
        log_prob, resp = infer(block, rows)
        counted = weights[None, :] * resp
        # A shared covariance takes the sum over components, which is the weights where the
        # responsibilities sum to one.
        pooled = weights[None, :] if complete else counted.sum(axis=0, keepdims=True)
        if one_scatter:  # x xᵀ for all components: a product, and no features
            weighted = pooled * block.x
            second: Any = tuple((weighted[a:b] @ block.x[:b].T)[None] for a, b in panels)
        else:
            second = (pooled if entry.shared else counted) @ block.quadratic.T
        first = counted @ block.x.T
        return _sums(samples, weights, rows, log_prob, resp) | {"first": first, "second": second}

    rows = min(block_size, samples.n_samples)
    sums = fold(samples, rows, body, exponential_family.read_for(entry))
    center = jnp.zeros((n_components, samples.n_features), samples.x.dtype)
    if one_scatter:
        second = whitened.join_panels(sums["second"])
    else:
        second = exponential_family.unpack(entry, sums["second"], samples.n_features)
    return Statistics(center, **sums | {"second": second})


def mask_known(scores: Float[Array, "K B"], samples: Samples, rows: Array) -> Float[Array, "K B"]:
    """Set the scores of labelled samples to -inf for all components but the known one.

    So a labelled sample contributes ``log p(x, z)`` to the log-likelihood, and counts for its own
    component only.

    Args:
      scores: log joint densities.
      samples: all samples; their labels are -1 where unknown, or None.
      rows: indices of the B samples of the block.
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
    """Add the noise to log densities, and multiply responsibilities by p(not noise | x)."""
    if noise_density is None:
        return log_prob, resp
    known = None if samples.labels is None else samples.labels[rows] >= 0
    log_prob, not_noise = noise_density.mix_in(log_prob, known)
    return log_prob, resp * not_noise[None, :]


def _softmax(scores: Float[Array, "K B"]) -> tuple[Float[Array, "B"], Float[Array, "K B"]]:
    """Compute logsumexp and softmax of scores over the components."""
    # The result does not depend on the number that is subtracted, so no gradient needs to flow
    # through it. The gradient of a maximum would be NaN where XLA computes the scores twice with
    # different rounding, and no score of the second time equals the maximum of the first.
    highest = lax.stop_gradient(scores.max(axis=0))
    highest = jnp.where(jnp.isfinite(highest), highest, 0)
    exponentials = jnp.exp(scores - highest[None, :])
    total = exponentials.sum(axis=0)
    return highest + jnp.log(total), exponentials * (1 / total)[None, :]


def _sums(
    samples: Samples, weights: Array, rows: Array, log_prob: Array, resp: Float[Array, "K B"]
) -> dict[str, Array]:
    """Sum what does not depend on the model over a block: counts, their squares, log density."""
    counts = (weights[None, :] * resp).sum(axis=1)
    squared = samples.squared_weights(weights, rows)
    squares = counts if squared is weights else (squared[None, :] * resp).sum(axis=1)
    log_likelihood = _weighted_sum(weights, log_prob)
    return {"counts": counts, "squares": squares, "log_likelihood": log_likelihood}


def _weighted_sum(weights: Float[Array, "B"], log_prob: Float[Array, "B"]) -> Float[Array, ""]:
    """Compute Σ w log p, in which a row of weight zero adds zero even if its log p is -inf."""
    return jnp.where(weights > 0, weights * log_prob, 0).sum()


def product_rows(
    entry: CovarianceModel, samples: Samples, n_components: int, n_runs: int = 1
) -> int:
    """Return the rows in a block of the product form: as many as the budget allows, at least 64.

    Args:
      entry: covariance model, which decides the number of features.
      samples: the samples; their number of columns and their dtype count.
      n_components: K.
      n_runs: number of runs that share the features of a block under ``vmap``.
    """
    n_features = exponential_family.n_features(entry, samples.n_features)
    itemsize = samples.x.dtype.itemsize
    row_bytes = (n_features + 2 * n_runs * n_components) * itemsize
    fitting = min(budget.PRODUCT_BLOCK_BYTES // row_bytes, budget.PRODUCT_ROW_BYTES // itemsize)
    return max(budget.MIN_BLOCK_ROWS, fitting)


def whitened_rows(samples: Samples, n_components: int) -> int:
    """Return the rows in a block of whitened differences: blocks of nearly equal size."""
    row_bytes = (2 * samples.n_features + 2 * n_components) * samples.x.dtype.itemsize
    fitting = min(budget.WHITENED_BLOCK_BYTES // row_bytes, budget.MAX_WHITENED_ROWS)
    fitting = max(budget.MIN_BLOCK_ROWS, fitting)
    n_blocks = -(-samples.n_samples // fitting)
    return -(-samples.n_samples // n_blocks)


def block_rows(samples: Samples, row_bytes: int, block_size: int | None = None) -> int:
    """Return the rows in a block: ``block_size``, or as many as fit in the cache.

    Args:
      samples: the samples; a block has no more rows than they have.
      row_bytes: memory that a computation holds for each row.
      block_size: number of rows that the caller asks for, or None.
    """
    fitting = min(budget.DIFFERENCE_BLOCK_BYTES // row_bytes, budget.MAX_BLOCK_ROWS)
    return min(block_size or max(budget.MIN_BLOCK_ROWS, fitting), samples.n_samples)
