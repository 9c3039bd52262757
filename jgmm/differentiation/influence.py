"""Influence functions of a fit, leave-one-out densities, and jackknife standard errors.

All are derivatives of the optimum by the samples' weights (``jgmm.differentiation.implicit``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jgmm._core.compilation import jit
from jgmm._core.errors import FitError
from jgmm._core.pytree import is_traced
from jgmm._data.samples import Samples
from jgmm._data.standardization import power_of_two, standardize
from jgmm.differentiation.implicit import (
    SINGULAR_POWER,
    Regularization,
    _optimum,
    _regularity,
    check_arguments,
)
from jgmm.mixture.density import log_joint, normalise
from jgmm.mixture.mixture import HasMixture, Mixture, to_standard
from jgmm.mixture.unconstrained import Free, from_free, to_free
from jgmm.uncertainty.intervals import dense_parameters_of


def _check_regular(mixture: Mixture, samples: Samples, regularization: Regularization) -> None:
    """Check that derivatives exist at the optimum.

    Inside a transformation nothing is checked.

    Raises:
      FitError: they do not exist; the text says why, the likely causes, and what to try.
    """
    if is_traced(mixture, samples, regularization):
        return
    found = _regularity(mixture, samples, regularization)
    if bool(found.is_regular):
        return
    if bool(mixture.log_weights.min() == -jnp.inf):
        why = "a component is empty; leave it out"
    elif not float(found.smallest) > float(jnp.finfo(found.smallest.dtype).eps) ** SINGULAR_POWER:
        why = (
            f"the smallest singular value of I - dT/dθ is {float(found.smallest):.1g}. Likely "
            "causes, in order: two components have merged; float32 and a slow fit; a direction "
            "that the data do not determine. Try fewer components, or float64"
        )
    else:
        why = (
            f"the mixture is {float(found.distance):.1g} standard deviations of the data away "
            "from the nearest optimum. Likely causes, in order: it was fitted to other samples, "
            "weights, another ridge or prior; the steps ran out; components are merging"
        )
    raise FitError(f"The fit has no derivatives: {why}.")


def influence(
    mixture: Mixture | HasMixture,
    x: Any,
    of: Callable[[Mixture], Any] = dense_parameters_of,
    sample_weight: Any = None,
    ridge: Any = 0.0,
    prior: Any = None,
) -> Any:
    """Compute the influence of each sample: the derivative of the fit by the sample's weight.

    Args:
      mixture, x, sample_weight, ridge, prior: as for ``optimum``.
      of: maps a mixture to any pytree of arrays; by default weights, means and covariances,
        ``DenseParameters``.

    Returns:
      The same pytree, each leaf with a leading axis N. To first order, leaving sample n out changes
      the fit by ``-wₙ`` times row n.

    Raises:
      DataError: as ``optimum``.
      FitError: the optimum is singular, or the mixture is not at one. Inside ``jit`` the result is
        NaN instead.

    Reference: Hampel (1974).

    >>> import jgmm
    >>> x = [[-1.0], [1.0], [3.0], [5.0]]
    >>> one = jgmm.make_mixture([1.0], [[2.0]], [5.0], "spherical")
    >>> rows = influence(one, x)
    >>> [f"{row:.2f}" for row in rows.means[:, 0, 0].tolist()]  # (x - mean) / N
    ['-0.75', '-0.25', '0.25', '0.75']
    """
    mixture, samples, regularization = _check_at_optimum(mixture, x, sample_weight, ridge, prior)
    return _influence(mixture, samples, regularization, of)


def _check_at_optimum(
    mixture: Mixture | HasMixture, x: Any, sample_weight: Any, ridge: Any, prior: Any
) -> tuple[Mixture, Samples, Regularization]:
    """Check the arguments and the optimum, and fill in weights of one."""
    mixture, samples, regularization = check_arguments(mixture, x, sample_weight, ridge, prior)
    _check_regular(mixture, samples, regularization)
    if samples.weights is None:
        samples = replace(samples, weights=jnp.ones_like(samples.x[:, 0]))
    return mixture, samples, regularization


@partial(jit, static_argnums=3)
def _influence(
    mixture: Mixture, samples: Samples, regularization: Regularization, of: Callable[[Mixture], Any]
) -> Any:
    def fitted(weights: Array) -> Any:
        return of(_optimum(mixture, replace(samples, weights=weights), regularization))

    by_weight = jax.jacrev(fitted)(samples.weights)
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), by_weight)


def jackknife_standard_errors(
    mixture: Mixture | HasMixture,
    x: Any,
    of: Callable[[Mixture], Any] = dense_parameters_of,
    sample_weight: Any = None,
    ridge: Any = 0.0,
    prior: Any = None,
) -> Any:
    """Compute standard errors by the infinitesimal jackknife, the sandwich of robust statistics.

        Var θ̂ ≈ Σₙ wₙ Iₙ Iₙᵀ = H⁻¹ (Σₙ wₙ sₙ sₙᵀ) H⁻¹

    with Iₙ the influence of sample n, sₙ its score and H the observed information: without a ridge
    Iₙ = H⁻¹ sₙ. They are valid whether the model is true or not. They have a meaning only if
    components keep their numbers from one set of samples to another, which fails where components
    overlap much.

    Args:
      mixture, x, of, sample_weight, ridge, prior: as for ``influence``; a weight of two is two
        samples.

    Returns:
      The same pytree, with standard errors in its leaves.

    Raises:
      DataError, FitError: as ``influence``.

    Reference: Jaeckel (1972), "The infinitesimal jackknife".

    >>> import jgmm
    >>> x = [[-1.0], [1.0], [-1.0], [1.0]]
    >>> one = jgmm.make_mixture([1.0], [[0.0]], [1.0], "spherical")
    >>> jackknife_standard_errors(one, x).means.round(3).tolist()  # σ / √N
    [[0.5]]
    """
    mixture, samples, regularization = _check_at_optimum(mixture, x, sample_weight, ridge, prior)
    rows = _influence(mixture, samples, regularization, of)

    def length(leaf: Array) -> Array:
        unit = power_of_two(jnp.abs(leaf).max(axis=0))
        return unit * jnp.sqrt(jnp.einsum("n,n...->...", samples.weights, (leaf / unit[None]) ** 2))

    return jax.tree.map(length, rows)


def leave_one_out(
    mixture: Mixture | HasMixture,
    x: Any,
    sample_weight: Any = None,
    ridge: Any = 0.0,
    prior: Any = None,
) -> Float[Array, "N"]:
    """Compute leave-one-out log densities without refitting.

    That is the log density of every sample under the mixture fitted without it,

        log p(xₙ | θ̂₋ₙ),    θ̂₋ₙ ≈ θ̂ − wₙ dθ̂/dwₙ

    in free parameters. Their sum estimates the log-likelihood of new data, as cross-validation with
    as many folds as samples does.

    Args:
      mixture, x, sample_weight, ridge, prior: as for ``optimum``.

    Returns:
      Log densities in nats, (N,). If one sample alone determines a component, its number is far too
      low and shows this, but it is not accurate: the fit without that sample is a different one.

    Raises:
      DataError, FitError: as ``influence``.

    Reference: Giordano et al. (2019), "A swiss army infinitesimal jackknife".

    >>> import jgmm
    >>> x = [[-1.0], [1.0], [-1.0], [1.0]]
    >>> one = jgmm.make_mixture([1.0], [[0.0]], [1.0], "spherical")
    >>> bool((leave_one_out(one, x) < jgmm.log_prob(one, x)).all())
    True
    """
    mixture, samples, regularization = _check_at_optimum(mixture, x, sample_weight, ridge, prior)
    return _leave_one_out(mixture, samples, regularization)


@jit
def _leave_one_out(mixture: Mixture, samples: Samples, regularization: Regularization) -> Array:
    frame, storage = standardize(samples, mixture.model).frame, mixture.model.storage

    def fitted(weights: Array) -> Free:
        found = _optimum(mixture, replace(samples, weights=weights), regularization)
        return to_free(to_standard(found, frame))

    weights = samples.weights
    assert weights is not None  # filled in by _check_at_optimum
    free = fitted(weights)
    by_weight = jax.jacrev(fitted)(weights)

    def log_prob_without(n: Array) -> Array:
        def without_n(value: Array, rows: Array) -> Array:
            return value - weights[n] * rows[..., n]

        refit = from_free(jax.tree.map(without_n, free, by_weight), mixture.covariance)
        difference = inside.take(n[None]) - refit.means
        return normalise(log_joint(refit, storage.invert(refit.scale), difference))[0]

    inside = Samples(samples.x, weights, frame)
    log_probs = lax.map(log_prob_without, jnp.arange(samples.n_samples), batch_size=256)
    return log_probs - frame.log_volume()
