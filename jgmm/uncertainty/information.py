"""Standard errors from the observed information, the curvature of the log-likelihood.

At the maximum of ℓ over free coordinates θ (``jgmm.mixture.unconstrained``) the estimate has, in
large samples, the covariance

    V = J⁻¹              if the model is right (Fisher 1925; Efron & Hinkley 1978)
    V = J⁻¹ S J⁻¹        whether it is right or not (Huber 1967; White 1982), the sandwich

with J = -∂²ℓ/∂θ² and S = Σₙ wₙ sₙ sₙᵀ, where sₙ = ∂ log p(xₙ)/∂θ are the scores. The delta method
gives the covariance of weights, means and variances. In large samples the nonparametric and the
weighted bootstrap agree with the sandwich. All sums are over blocks of samples, in the frame in
which fits are made.

Where components overlap, samples are large only if there are many. What is lost because nobody
knows the components of the samples is the missing information M, and with it the information of the
complete data, samples and components, is J + M (Orchard & Woodbury 1972; Louis 1982):

    M = Σₙ wₙ Σₖ γₙₖ (sₙₖ - sₙ)(sₙₖ - sₙ)ᵀ,   sₙₖ = ∂ log p(xₙ, k)/∂θ,   sₙ = Σₖ γₙₖ sₙₖ

Of a parameter with the derivative g by θ, the observed fraction of information is

    gᵀ (J + M)⁻¹ g / gᵀ J⁻¹ g

its variance if all components were known, over its variance. It lies between 0 and 1, and is close
to 1 where components are separated. Intervals of parameters of which little is observed are too
short (``experiments/trust/coverage.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from jgmm._core.arguments import check_level
from jgmm._core.compilation import jit
from jgmm._core.errors import DataError, FitError
from jgmm._core.pytree import to_host
from jgmm._data import standardization
from jgmm._data.samples import Samples, Standardization, fold
from jgmm._data.standardization import power_of_two
from jgmm.em.e_step import block_rows, check_inputs
from jgmm.mixture.density import log_joint, normalise
from jgmm.mixture.mixture import HasMixture, Mixture, change_coordinates, to_original, to_standard
from jgmm.mixture.unconstrained import check_free, from_free, to_free
from jgmm.uncertainty.intervals import Parameters, Uncertainty, fraction_of, parameters_of

# Largest distance from the maximum, in standard errors, at which the curvature is taken for that of
# the maximum: the curvature changes by a fraction of about 1/√N per standard error.
MAX_DISTANCE = 0.5


class Curvature(NamedTuple):
    """Gradient and curvature of the log-likelihood at a mixture, in P free coordinates.

    Attributes:
      gradient: ∂ℓ/∂θ, (P,), zero at a maximum.
      information: J = -∂²ℓ/∂θ², the observed information, (P, P).
      outer: S = Σₙ wₙ sₙ sₙᵀ, the sum of outer products of the scores, (P, P).
      missing: M, the information that is missing because components are not known, (P, P).
      jacobian: derivatives of weights, means and variances by θ, (…, P) each, of columns divided by
        ``unit``.
      unit: powers of two near the columns' standard deviations, (D,).
    """

    gradient: Array
    information: Array
    outer: Array
    missing: Array
    jacobian: Parameters
    unit: Array


def standard_errors(
    mixture: Mixture | HasMixture,
    x: Any,
    sample_weight: Any = None,
    *,
    level: float = 0.95,
    robust: bool = False,
    equal_weights: bool = False,
) -> Uncertainty:
    """Compute standard errors and intervals of a maximum-likelihood fit, without refitting.

    Args:
      mixture: a fit to these samples that has converged, of a covariance model that has free
        coordinates; with one component, of any model.
      x: samples in rows, (N, D).
      sample_weight: how many times each sample counts, (N,).
      level: probability that an interval contains the true value.
      robust: use the sandwich, which does not assume that the components are Gaussian.
      equal_weights: whether the weights were held equal in the fit; they then have no error.

    Returns:
      An ``Uncertainty``. Intervals are symmetric in the logit of a weight, in a mean, and in the
      logarithm of a variance, so that no interval leaves the range of its parameter. They hold in
      large samples; where ``observed_fraction`` is small, they are too short in others.

    Raises:
      DataError: bad samples or weights; a model without free coordinates (the bootstrap,
        ``jgmm.uncertainty.bootstrap``, works for every model); a component of weight zero.
      FitError: the log-likelihood does not curve down in all directions, or the mixture is not at
        its maximum. Standard errors have no meaning there.

    >>> import jgmm
    >>> x = [[-1.0], [1.0], [-1.0], [1.0]]
    >>> one = jgmm.make_mixture([1.0], [[0.0]], [1.0], "spherical")
    >>> uncertainty = standard_errors(one, x)
    >>> uncertainty.standard_error.means.round(3).tolist()  # σ / √N
    [[0.5]]
    """
    mixture, samples = check_inputs(mixture, x, sample_weight)
    check_level(level)
    check_free(mixture.model, mixture.n_components, mixture.n_features)
    empty = np.flatnonzero(np.asarray(mixture.log_weights) == -np.inf)
    if empty.size:
        raise DataError(
            f"component {empty[0]} has weight zero: no sample says anything about it. Leave it out."
        )
    found = curvature(mixture, samples, equal_weights)
    divided = change_coordinates(mixture, jnp.zeros_like(found.unit), 1 / found.unit)
    relative = to_host(parameters_of(divided), np.float64)
    found = to_host(found, np.float64)
    inverse = _inverse_information(found, float(jnp.finfo(samples.x.dtype).eps))
    covariance = inverse @ found.outer @ inverse if robust else inverse
    error = _in_user_units(_delta_method(found.jacobian, covariance), found.unit)
    estimate = _in_user_units(relative, found.unit)
    low, high = _intervals(estimate, error, NormalDist().inv_cdf((1 + level) / 2))
    method = "sandwich of the observed information" if robust else "observed information"
    observed = _observed_fraction(found, inverse)
    return Uncertainty(estimate, error, low, high, level, method, observed)


def curvature(mixture: Mixture, samples: Samples, equal_weights: bool = False) -> Curvature:
    """Compute the gradient, the observed and the missing information, and the scores at a mixture.

    The coordinates are those of ``jgmm.mixture.unconstrained`` in the frame, without the last
    logit, which the others determine, and without the entries above the diagonal of a Cholesky
    factor.

    Args:
      mixture: with positive weights, in the units of the samples.
      samples: checked samples, see ``jgmm.em.e_step.check_inputs``.
      equal_weights: leave the weights out of the coordinates.
    """
    return _curvature(mixture, samples, equal_weights)


@partial(jit, static_argnums=2)
def _curvature(mixture: Mixture, samples: Samples, equal_weights: bool) -> Curvature:
    inside = standardization.standardize(samples, mixture.model)
    coordinates, rebuild = _coordinates(to_standard(mixture, inside.frame), equal_weights)

    def joint(theta: Array, row: Array) -> Float[Array, "K"]:
        rebuilt = rebuild(theta)
        inverse = rebuilt.model.storage.invert(rebuilt.scale)
        return log_joint(rebuilt, inverse, row[None, :] - rebuilt.means)

    def body(x: Array, weights: Array, rows: Array) -> tuple[Array, Array, Array, Array]:
        del rows

        def total(theta: Array) -> Array:
            log_prob = jax.vmap(lambda row: normalise(joint(theta, row))[0])(x)
            return (weights * log_prob).sum()

        resp = jnp.exp(jax.vmap(lambda row: normalise(joint(coordinates, row))[1])(x))
        of_each = jax.vmap(jax.jacrev(joint), (None, 0))(coordinates, x)  # (B, K, P)
        scores = jnp.einsum("bk,bkp->bp", resp, of_each)
        outer = (weights[:, None] * scores).T @ scores
        away = of_each - scores[:, None, :]
        missing = jnp.einsum("bk,bkp,bkq->pq", weights[:, None] * resp, away, away)
        return weights @ scores, -jax.hessian(total)(coordinates), outer, missing

    row_bytes = len(coordinates) * mixture.means.size * mixture.means.dtype.itemsize
    sums = fold(inside, block_rows(inside, row_bytes), body)
    frame = inside.frame
    unit = power_of_two(frame.deviations())
    rows = unit[:, None] if frame.rotates else unit
    divided = replace(frame, scale=frame.scale / rows)
    jacobian = jax.jacfwd(_parameters_in(rebuild, divided))(coordinates)
    return Curvature(*sums, jacobian, unit)


def _coordinates(mixture: Mixture, equal_weights: bool) -> tuple[Array, Callable[[Array], Mixture]]:
    """Return the independent free coordinates θ of a mixture, (P,), and the map back from θ."""
    free = to_free(mixture)
    k, scale = mixture.n_components, free.scale
    logits = np.arange(k) < (0 if equal_weights else k - 1)
    below = np.tril(np.ones(scale.shape, bool)) if scale.ndim == 3 else np.ones(scale.shape, bool)
    flat, unravel = ravel_pytree(free)
    masks = (logits, np.ones(free.means.shape, bool), below)  # in the order of the fields
    kept = np.flatnonzero(np.concatenate([mask.ravel() for mask in masks]))

    def rebuild(theta: Array) -> Mixture:
        return from_free(unravel(flat.at[kept].set(theta)), mixture.covariance)

    return flat[kept], rebuild


def _parameters_in(
    rebuild: Callable[[Array], Mixture], frame: Standardization
) -> Callable[[Array], Parameters]:
    return lambda theta: parameters_of(to_original(rebuild(theta), frame))


def _in_user_units(divided: Parameters, unit: Float[np.ndarray, "D"]) -> Parameters:
    """Return parameters, or their errors, of columns that had been divided by ``unit``.

    In float64, since float32 has no number for a variance in tiny units.
    """
    return Parameters(divided.weights, divided.means * unit, divided.variances * unit**2)


def _inverse_information(found: Curvature, eps: float) -> Float[np.ndarray, "P P"]:
    """Compute J⁻¹, the covariance of the estimates if the model is right.

    Args:
      found: at a maximum, in float64.
      eps: the rounding unit in which it was computed.

    Raises:
      FitError: J is not positive definite, or the gradient is not zero.
    """
    gradient, information = found.gradient, found.information
    diagonal = np.diagonal(information)
    unit = np.sqrt(np.where(diagonal > 0, diagonal, 1))
    # In units in which the diagonal of J is one, the error of an eigenvalue is about P roundings.
    scaled = information / np.outer(unit, unit)
    smallest = float(np.linalg.eigvalsh(scaled)[0]) if np.isfinite(scaled).all() else np.nan
    if not (smallest > 100 * len(unit) * eps and (diagonal > 0).all()):
        raise FitError(
            "The log-likelihood does not curve down in every direction at this mixture (smallest "
            f"eigenvalue of its scaled information: {smallest:.2g}), so that it has no standard "
            "errors. Likely causes, in order: components that coincide, a component with hardly "
            "any samples of its own, a fit that has not converged. Try fewer components, or a "
            "smaller tol."
        )
    inverse = np.linalg.inv(scaled) / np.outer(unit, unit)
    distance = float(np.sqrt(gradient @ inverse @ gradient))
    if not distance < MAX_DISTANCE:
        raise FitError(
            "The mixture is not where the log-likelihood has its maximum: a Newton step would move "
            f"it by {distance:.2g} standard errors. Likely causes, in order: a fit with a ridge, "
            "other samples or weights than it was fitted to, equal weights, a fit that has not "
            "converged. Refit without a ridge and with a smaller tol, or use "
            "jgmm.uncertainty.bootstrap."
        )
    return np.asarray(inverse)


def _delta_method(jacobian: Parameters, covariance: np.ndarray) -> Parameters:
    """Compute standard errors by the delta method, √diag(G V Gᵀ)."""
    variances = (np.einsum("...p,pq,...q->...", each, covariance, each) for each in jacobian)
    return Parameters(*map(np.sqrt, variances))


def _observed_fraction(found: Curvature, inverse: np.ndarray) -> Parameters:
    """Compute the variance with known components over that of the estimate, for each parameter.

    Args:
      found: at a maximum, in float64.
      inverse: J⁻¹.
    """
    unit = np.sqrt(np.diagonal(inverse))
    # (J + M)⁻¹ in units of the standard errors, in which neither matrix is badly scaled.
    complete = np.linalg.inv((found.information + found.missing) * np.outer(unit, unit))
    known = _delta_method(found.jacobian, complete * np.outer(unit, unit))
    return fraction_of(known, _delta_method(found.jacobian, inverse))


def _intervals(
    estimate: Parameters, error: Parameters, width: float
) -> tuple[Parameters, Parameters]:
    """Compute the ends of intervals of ± ``width`` standard errors.

    Weights are on the logit scale and variances on the logarithmic scale, which have no bounds.
    """
    weights, means, variances = estimate
    slope = weights * (1 - weights)
    logit_error = width * error.weights / np.where(slope > 0, slope, 1)
    log_error = width * error.variances / variances

    def end(sign: int) -> Parameters:
        scaled = weights * np.exp(sign * logit_error)
        return Parameters(
            scaled / (scaled + 1 - weights),
            means + sign * width * error.means,
            variances * np.exp(sign * log_error),
        )

    return end(-1), end(1)
