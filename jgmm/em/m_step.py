"""The M-step: parameters from expected sufficient statistics, in closed form where there is one.

The M-step reads only ``Statistics``, which are sums over all samples, wherever those are, and what
is known in addition to the samples: a ridge, a prior, a floor.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jgmm._core.compilation import jit
from jgmm._core.errors import DataError
from jgmm._core.pytree import is_traced
from jgmm._data.samples import Samples, Standardization, make_samples
from jgmm._data.standardization import standardize
from jgmm._data.validation import as_samples
from jgmm.covariance.estimation import trailing
from jgmm.covariance.models import CovarianceModel, model
from jgmm.em.e_step import accumulate_with
from jgmm.em.statistics import Statistics
from jgmm.mixture.mixture import Mixture, to_original
from jgmm.mixture.prior import Prior, as_prior


def maximize(
    statistics: Statistics,
    covariance: str,
    ridge: Any = 0.0,
    scale: Array | None = None,
    equal_weights: bool = False,
    prior: Prior | None = None,
    floor: Array | None = None,
) -> Mixture:
    """Run the M-step: maximise the expected complete-data log-likelihood.

        Nₖ = Σₙ wₙ γₙₖ,   πₖ = Nₖ / N,   μₖ = Σₙ wₙ γₙₖ xₙ / Nₖ,
        Σₖ by the covariance model from the scatter Sₖ = Σₙ wₙ γₙₖ (xₙ − μₖ)(xₙ − μₖ)ᵀ

    Args:
      statistics: expected sufficient statistics, summed over all samples.
      covariance: name of the covariance model.
      ridge: added to every variance, in the units of the statistics: one number, or one for each
        column, (D,); or a matrix that is added to every covariance, (1, D, D), see ``ridge_in``.
      scale: scale of the mixture before the step. Models whose covariances have no closed form
        iterate from it, and do not end at a lower value of the objective; without it they choose a
        start themselves.
      equal_weights: πₖ = 1/K instead, for the components that have samples.
      prior: prior of the components, in the units of the statistics. The sum of its log density and
        the expected log-likelihood is maximised: with x̄ₖ the mean above,

            μₖ = (Nₖ x̄ₖ + κ m) / (Nₖ + κ),   Σₖ from Nₖ + ν + D + 2 samples with the scatter
            Sₖ + Λ + κ Nₖ / (κ + Nₖ) (x̄ₖ − m)(x̄ₖ − m)ᵀ
      floor: a covariance, (D, D), in the units of the statistics; all covariances of the result are
        at least as large in every direction. For models with ``supports_floor``.

    Returns:
      The mixture. A component without samples keeps its center, and gets weight zero and the unit
      covariance.

    Reference: Bishop (2006), equations 9.24 to 9.26; Celeux & Govaert (1995); Fraley & Raftery
    (2007).

    >>> import jgmm
    >>> mixture = jgmm.make_mixture([0.5, 0.5], [[0.0], [9.0]], [1.0, 1.0], "spherical")
    >>> statistics = jgmm.accumulate(mixture, [[-1.0], [1.0], [8.0], [9.0], [10.0]])
    >>> jgmm.em.maximize(statistics, "spherical").weights.round(3)
    Array([0.4, 0.6], dtype=float32)
    """
    entry = model(covariance)
    counts = statistics.counts
    shift = statistics.first / jnp.where(counts > 0, counts, 1)[:, None]
    weighted = jnp.sqrt(counts)[:, None] * shift
    unit = entry.storage.identity(shift.shape[1], shift.dtype)
    # The ridge is added to the scatter: added to covariances, it would break the form of models.
    if jnp.ndim(ridge) < 3:
        per_column = jnp.broadcast_to(jnp.asarray(ridge, unit.dtype), shift.shape[1:])
        ridge = entry.storage.rescale(unit, per_column)
    cross = entry.storage.outer(weighted) - trailing(counts, unit) * ridge
    scatter, n_scattered = statistics.second - entry.pool(cross), counts
    if prior is not None:
        added = _prior_statistics(prior, counts, statistics.center + shift, entry)
        shift = shift + added.mean_shift
        scatter = scatter + entry.pool(added.scatter)
        n_scattered = counts + added.counts
    if floor is None:
        scale = entry.estimate(n_scattered, scatter, scale)
    else:
        scale = entry.estimate_above(n_scattered, scatter, entry.storage.from_dense(floor[None]))
    log_weights = jnp.log(counts / counts.sum())
    return Mixture(
        equal_log_weights(log_weights) if equal_weights else log_weights,
        statistics.center + shift,
        scale,
        entry.name,
    )


class _PriorStatistics(NamedTuple):
    """Pseudo-samples that a prior adds to each component.

    Attributes:
      counts: their number, ν + D + 2, (K,).
      scatter: Λ + κ Nₖ / (κ + Nₖ) (x̄ₖ − m)(x̄ₖ − m)ᵀ, in the storage of the covariance model.
      mean_shift: κ / (Nₖ + κ) (m − x̄ₖ), added to the means, (K, D).
    """

    counts: Array
    scatter: Array
    mean_shift: Array


def _prior_statistics(
    prior: Prior, counts: Float[Array, "K"], means: Float[Array, "K D"], entry: CovarianceModel
) -> _PriorStatistics:
    """Express the prior as pseudo-samples; components without samples of their own get none.

    Args:
      prior: in the units of the means.
      counts: Nₖ.
      means: x̄ₖ, the means without the prior.
      entry: covariance model.
    """
    used = counts > 0
    offset = prior.mean[None, :] - means
    fraction = jnp.where(used, prior.strength / jnp.where(used, counts + prior.strength, 1), 0)
    between = entry.storage.outer(jnp.sqrt(fraction * counts)[:, None] * offset)
    scatter = prior.scatter(entry) + between
    return _PriorStatistics(
        jnp.where(used, prior.pseudo_samples(), 0),
        jnp.where(trailing(counts, scatter) > 0, scatter, 0),
        fraction[:, None] * offset,
    )


def equal_log_weights(log_weights: Float[Array, "K"]) -> Float[Array, "K"]:
    """Return log weights that are the same for all components that are not switched off."""
    used = log_weights != -jnp.inf
    return jnp.where(used, -jnp.log(used.sum().astype(log_weights.dtype)), -jnp.inf)


def ridge_in(frame: Standardization, ridge: Any) -> Array:
    """Convert a ridge to standardized units, where ``ridge`` times the data's variance is added.

    Args:
      frame: standardization of the samples.
      ridge: fraction of the data's variance: one number, or one for each column, (D,).

    Returns:
      ``ridge`` itself where the frame scales columns; a matrix, (1, D, D), where it mixes them.
    """
    return frame.unit_variances(ridge)[None] if frame.rotates else jnp.asarray(ridge)


def m_step(
    x: Any,
    responsibilities: Any,
    covariance: str = "full",
    sample_weight: Any = None,
    ridge: float = 0.0,
    prior: Any = None,
) -> Mixture:
    """Run the M-step: estimate the parameters from given responsibilities.

        Nₖ = Σₙ wₙ γₙₖ,   πₖ = Nₖ / N,   μₖ = Σₙ wₙ γₙₖ xₙ / Nₖ,
        Σₖ by the covariance model from the scatter Sₖ = Σₙ wₙ γₙₖ (xₙ − μₖ)(xₙ − μₖ)ᵀ

    Args:
      x: samples in rows, (N, D).
      responsibilities: γₙₖ ≥ 0, (N, K); rows sum to one.
      covariance: name of the covariance model.
      sample_weight: how many times each sample counts, (N,).
      ridge: added to every variance, as a fraction of the data's; zero is allowed.
      prior: prior of the components, see ``jgmm.fit``.

    Returns:
      The mixture. A component whose covariance is singular has NaN in its scale.

    Raises:
      DataError: see ``as_samples``; or responsibilities of another shape, or below zero.

    >>> import jgmm
    >>> jgmm.m_step([[0.0], [2.0], [9.0]], [[1, 0], [1, 0], [0, 1]], "tied").means.round(3)
    Array([[1.],
           [9.]], dtype=float32)
    """
    samples = make_samples(x, sample_weight)
    resp = as_samples(responsibilities, "responsibilities", samples.weights)
    resp = resp.astype(samples.x.dtype)
    if len(resp) != samples.n_samples:
        raise DataError(f"responsibilities have {len(resp)} rows; x has {samples.n_samples}.")
    if samples.weights is not None:  # a missing row may hold anything
        resp = jnp.where(samples.weights[:, None] > 0, resp, 0)
    if not is_traced(resp) and bool((resp < 0).any()):
        row = int(jnp.argmax((resp < 0).any(axis=1)))
        raise DataError(f"responsibilities must be at least zero; row {row} holds {resp[row]}.")
    prior = as_prior(prior, samples, resp.shape[1])
    return _m_step(samples, resp, model(covariance).name, jnp.asarray(ridge, resp.dtype), prior)


@partial(jit, static_argnums=2)
def _m_step(
    samples: Samples, resp: Array, covariance: str, ridge: Array, prior: Prior | None
) -> Mixture:
    scaled = standardize(samples, model(covariance))
    frame = scaled.frame
    statistics = from_responsibilities(scaled, lambda rows: resp[rows], resp.shape[1], covariance)
    ridge, prior = ridge_in(frame, ridge), prior and prior.standardize(frame)
    return to_original(maximize(statistics, covariance, ridge, prior=prior), frame)


def from_responsibilities(
    samples: Samples, resp: Any, n_components: int, covariance: str
) -> Statistics:
    """Compute the statistics of given responsibilities, about the means that follow from them.

    The first pass over the samples computes the means, the second the moments about them.

    Args:
      samples: N samples with their standardization.
      resp: function ``rows (B,) -> responsibilities (B, K)`` of the indices of a block of samples;
        called twice for each block.
      n_components: K.
      covariance: name of the covariance model.
    """
    entry = model(covariance)

    def infer(difference: Array, rows: Array) -> tuple[Array, Array]:
        return jnp.zeros(difference.shape[2], difference.dtype), resp(rows).T

    origin = jnp.zeros((n_components, samples.n_features), samples.x.dtype)
    about_origin = accumulate_with(infer, samples, origin, entry)
    counts = about_origin.counts
    center = about_origin.first / jnp.where(counts > 0, counts, 1)[:, None]
    return accumulate_with(infer, samples, center, entry)
