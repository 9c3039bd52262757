"""What each sample does to a fit: influence, leave-one-out estimates, jackknife standard errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jgmm._core.compilation import jit
from jgmm._core.errors import FitError
from jgmm._core.pytree import is_traced
from jgmm._data.samples import Samples
from jgmm._data.standardization import standardize
from jgmm.differentiation.implicit import (
    SINGULAR_POWER,
    Regularization,
    _optimum,
    _regularity,
    make_regularization,
)
from jgmm.em.e_step import check_inputs
from jgmm.mixture.density import log_joint, normalise
from jgmm.mixture.mixture import Mixture, to_standard
from jgmm.mixture.unconstrained import Free, check_free, from_free, to_free


class Parameters(NamedTuple):
    """πₖ (K,), μₖ (K, D) and Σₖ (K, D, D)."""

    weights: Array
    means: Array
    covariances: Array


def parameters(mixture: Mixture) -> Parameters:
    """Weights, means and covariances as matrices, whatever the covariance model."""
    return Parameters(mixture.weights, mixture.means, mixture.covariances)


def _check_regular(mixture: Mixture, samples: Samples, regularization: Regularization) -> None:
    """Refuse an optimum without derivatives.

    Raises:
      FitError: saying what is wrong with it.
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
    mixture: Mixture,
    x: Any,
    of: Callable[[Mixture], Any] = parameters,
    sample_weight: Any = None,
    ridge: Any = 0.0,
    prior: Any = None,
) -> Any:
    """What each sample does to the fit: the derivative by how many times it counts.

    Args:
      mixture, x, sample_weight, ridge, prior: as for ``optimum``.
      of: ``mixture -> `` any pytree of arrays; by default weights, means and covariances.

    Returns:
      The same pytree, each leaf with a leading axis N. Leaving sample n out changes the fit by
      ``-wₙ`` times its row, to first order.

    Raises:
      DataError: as ``optimum``.
      FitError: the optimum is singular, or the mixture is not at one. Inside ``jit`` the result is
        NaN instead.

    Reference: Hampel (1974).
    """
    mixture, samples, regularization = _checked(mixture, x, sample_weight, ridge, prior)
    return _influence(mixture, samples, regularization, of)


def _checked(
    mixture: Mixture, x: Any, sample_weight: Any, ridge: Any, prior: Any
) -> tuple[Mixture, Samples, Regularization]:
    mixture, samples = check_inputs(mixture, x, sample_weight)
    check_free(mixture.model, mixture.n_components, mixture.n_features)
    regularization = make_regularization(samples, mixture, ridge, prior)
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
    mixture: Mixture,
    x: Any,
    of: Callable[[Mixture], Any] = parameters,
    sample_weight: Any = None,
    ridge: Any = 0.0,
    prior: Any = None,
) -> Any:
    """Standard errors by the infinitesimal jackknife, which is the sandwich of robust statistics.

        Var θ̂ ≈ Σₙ wₙ Iₙ Iₙᵀ = H⁻¹ (Σₙ wₙ sₙ sₙᵀ) H⁻¹

    with Iₙ the influence of sample n, sₙ its score and H the observed information: without a ridge
    Iₙ = H⁻¹ sₙ. They hold whether the model is true or not. Components must keep their numbers from
    one sample of the data to the next for them to mean anything: where they overlap much they do
    not.

    Args:
      mixture, x, sample_weight, ridge, prior: as for ``optimum``; a weight of two is two samples.
      of: ``mixture -> `` any pytree of arrays; by default weights, means and covariances.

    Returns:
      The same pytree, of standard errors.

    Raises:
      DataError, FitError: as ``influence``.
    """
    mixture, samples, regularization = _checked(mixture, x, sample_weight, ridge, prior)
    rows = _influence(mixture, samples, regularization, of)
    return jax.tree.map(
        lambda leaf: jnp.sqrt(jnp.einsum("n,n...->...", samples.weights, leaf**2)), rows
    )


def leave_one_out(
    mixture: Mixture, x: Any, sample_weight: Any = None, ridge: Any = 0.0, prior: Any = None
) -> Float[Array, "N"]:
    """Log density of every sample under the mixture fitted without it, without fitting again.

        log p(xₙ | θ̂₋ₙ),    θ̂₋ₙ ≈ θ̂ − wₙ dθ̂/dwₙ

    in free parameters. Their sum tells how well the mixture does on data it has not seen, as
    cross-validation with as many folds as samples does.

    Args:
      mixture, x, sample_weight, ridge, prior: as for ``optimum``.

    Returns:
      Log densities in nats, (N,). A sample that alone holds up a component is told by a number
      that is far too low, but not by the right one: there the fit without it is another.

    Raises:
      DataError, FitError: as ``influence``.

    Reference: Giordano et al. (2019), "A swiss army infinitesimal jackknife".
    """
    mixture, samples, regularization = _checked(mixture, x, sample_weight, ridge, prior)
    return _leave_one_out(mixture, samples, regularization)


@jit
def _leave_one_out(mixture: Mixture, samples: Samples, regularization: Regularization) -> Array:
    frame, storage = standardize(samples, mixture.model).frame, mixture.model.storage

    def fitted(weights: Array) -> Free:
        found = _optimum(mixture, replace(samples, weights=weights), regularization)
        return to_free(to_standard(found, frame))

    weights = samples.weights
    assert weights is not None  # _checked sees to it
    free = fitted(weights)
    by_weight = jax.jacrev(fitted)(weights)

    def one(n: Array) -> Array:
        def without(value: Array, rows: Array) -> Array:
            return value - weights[n] * rows[..., n]

        left = from_free(jax.tree.map(without, free, by_weight), mixture.covariance)
        difference = at.take(n[None]) - left.means
        return normalise(log_joint(left, storage.invert(left.scale), difference))[0]

    at = Samples(samples.x, weights, frame)
    found = lax.map(one, jnp.arange(samples.n_samples), batch_size=256)
    return found - frame.log_volume()
