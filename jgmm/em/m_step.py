"""The M-step: parameters from expected sufficient statistics, in closed form where there is one.

It only ever sees ``Statistics``, of however many samples in however many places, and beside them
what is known from elsewhere: a ridge, a prior, a floor.
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
    least: Array | None = None,
) -> Mixture:
    """The M-step: the parameters that maximise the expected complete-data log-likelihood.

        πₖ = Nₖ / N,   μₖ = Σₙ γₙₖ xₙ / Nₖ,   Σₖ by the covariance model from
        Sₖ = Σₙ γₙₖ (xₙ − μₖ)(xₙ − μₖ)ᵀ

    Args:
      statistics: from any number of samples.
      covariance: name of the covariance model.
      ridge: added to every variance, in the units of the statistics, one number or one a column; or
        a matrix that is added to every covariance, (1, D, D), see ``ridge_in``.
      scale: that of the mixture before. Models whose covariances have no closed form start from it,
        and do not end lower; without it they find a start.
      equal_weights: πₖ = 1/K instead, for the components that have samples.
      prior: of the components, in the units of the statistics. Its log density is maximised along
        with the expected log-likelihood: with x̄ₖ the mean above,

            μₖ = (Nₖ x̄ₖ + κ m) / (Nₖ + κ),   Σₖ from Nₖ + ν + D + 2 samples with the scatter
            Sₖ + Λ + κ Nₖ / (κ + Nₖ) (x̄ₖ − m)(x̄ₖ − m)ᵀ
      least: a covariance (D, D) that all are to exceed in every direction.

    A component without samples keeps its center and gets weight zero and the unit covariance.
    Reference: Bishop (2006), equations 9.24 to 9.26; Celeux & Govaert (1995); Fraley & Raftery
    (2007).
    """
    entry = model(covariance)
    counts = statistics.counts
    shift = statistics.first / jnp.where(counts > 0, counts, 1)[:, None]
    weighted = jnp.sqrt(counts)[:, None] * shift
    unit = entry.storage.identity(shift.shape[1], shift.dtype)
    # A ridge on the scatter: added to the covariances it would not leave every model its form.
    if jnp.ndim(ridge) < 3:
        each = jnp.broadcast_to(jnp.asarray(ridge, unit.dtype), shift.shape[1:])
        ridge = entry.storage.rescale(unit, each)
    cross = entry.storage.outer(weighted) - trailing(counts, unit) * ridge
    scatter, n_scattered = statistics.second - entry.pool(cross), counts
    if prior is not None:
        seen_before = _seen_before(prior, counts, statistics.center + shift, entry)
        shift = shift + seen_before.moves
        scatter = scatter + entry.pool(seen_before.scatter)
        n_scattered = counts + seen_before.counts
    if least is None:
        scale = entry.estimate(n_scattered, scatter, scale)
    else:
        scale = entry.estimate_above(n_scattered, scatter, entry.storage.from_dense(least[None]))
    log_weights = jnp.log(counts / counts.sum())
    return Mixture(
        equal_log_weights(log_weights) if equal_weights else log_weights,
        statistics.center + shift,
        scale,
        entry.name,
    )


class _SeenBefore(NamedTuple):
    """What a prior adds to each component: counts (K,), scatter, and where its mean moves to."""

    counts: Array
    scatter: Array
    moves: Array


def _seen_before(
    prior: Prior, counts: Float[Array, "K"], means: Float[Array, "K D"], entry: CovarianceModel
) -> _SeenBefore:
    """The prior as samples that components with some of their own have seen before."""
    used = counts > 0
    toward = prior.mean[None, :] - means
    share = jnp.where(used, prior.strength / jnp.where(used, counts + prior.strength, 1), 0)
    between = entry.storage.outer(jnp.sqrt(share * counts)[:, None] * toward)
    scatter = prior.scatter(entry) + between
    return _SeenBefore(
        jnp.where(used, prior.pseudo_samples(), 0),
        jnp.where(trailing(counts, scatter) > 0, scatter, 0),
        share[:, None] * toward,
    )


def equal_log_weights(log_weights: Float[Array, "K"]) -> Float[Array, "K"]:
    """The same weight for all components that are not switched off."""
    used = log_weights != -jnp.inf
    return jnp.where(used, -jnp.log(used.sum().astype(log_weights.dtype)), -jnp.inf)


def ridge_in(frame: Standardization, ridge: Any) -> Array:
    """What to add in a frame, for ``ridge`` times the data's variance to be added in every column.

    Args:
      frame: of the samples.
      ridge: fraction of the data's variance, one number or one a column, (D,).

    Returns:
      The same where the frame scales columns, and a matrix (1, D, D) where it turns them.
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
    """Parameters from responsibilities: the closed-form M-step.

    Args:
      x: samples in rows, (N, D).
      responsibilities: γₙₖ ≥ 0, (N, K); rows sum to one.
      covariance: name of the covariance model.
      sample_weight: how many times each sample counts, (N,).
      ridge: added to every variance, as a fraction of the data's; zero is allowed.
      prior: of the components, see ``jgmm.fit``.

    Returns:
      The mixture. A component whose covariance is singular has NaN in its scale.

    Raises:
      DataError: see ``as_samples``; or responsibilities of another shape, or below zero.

    >>> import jgmm
    >>> jgmm.m_step([[0.0], [2.0], [9.0]], [[1, 0], [1, 0], [0, 1]], "tied").means
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
    believed = as_prior(prior, samples, resp.shape[1])
    added = jnp.asarray(ridge, resp.dtype)
    return _m_step(samples, resp, model(covariance).name, added, believed)


@partial(jit, static_argnums=2)
def _m_step(
    samples: Samples, resp: Array, covariance: str, ridge: Array, prior: Prior | None
) -> Mixture:
    inside = standardize(samples, model(covariance))
    frame = inside.frame
    statistics = from_responsibilities(inside, lambda rows: resp[rows], resp.shape[1], covariance)
    added, believed = ridge_in(frame, ridge), prior and prior.standardize(frame)
    return to_original(maximize(statistics, covariance, added, prior=believed), frame)


def from_responsibilities(
    samples: Samples, resp: Any, n_components: int, covariance: str
) -> Statistics:
    """Statistics of given responsibilities, about their own means.

    Args:
      samples: N samples in their frame.
      resp: ``rows (B,) -> responsibilities (B, K)``; called block by block, twice.
      n_components: K.
      covariance: name of the covariance model.

    The first pass finds the means, the second takes moments about them.
    """
    entry = model(covariance)

    def infer(difference: Array, rows: Array) -> tuple[Array, Array]:
        return jnp.zeros(difference.shape[2], difference.dtype), resp(rows).T

    origin = jnp.zeros((n_components, samples.n_features), samples.x.dtype)
    rough = accumulate_with(infer, samples, origin, entry)
    center = rough.first / jnp.where(rough.counts > 0, rough.counts, 1)[:, None]
    return accumulate_with(infer, samples, center, entry)
