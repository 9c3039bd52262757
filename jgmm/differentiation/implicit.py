"""Implicit differentiation of a fit by its samples, their weights, ridge and prior.

A fit is a fixed point of EM's step T: θ = T(θ, data). By the implicit function theorem, a change of
the data changes the parameters by

    dθ = (I − ∂T/∂θ)⁻¹ (∂T/∂data) ddata

This does not depend on the number of steps that led to the fixed point, nor on the method that took
them. θ are the unconstrained parameters of ``jgmm.mixture.unconstrained`` in the data's frame; the
frame depends on the data and is differentiated as well. The alternative for short runs, the
derivative through the steps themselves, is in ``jgmm.differentiation.unrolled``.

Where the optimum is singular (components that have merged or are empty) there is no such
derivative: it is NaN inside transformations, and an error outside.

References: Krantz & Parks (2013), "The implicit function theorem"; Jaeckel (1972) for the
infinitesimal jackknife; Huber (1967) for the sandwich, which here is the same.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Key

from jgmm._core.arguments import key_first
from jgmm._core.compilation import jit, without_debug_nans
from jgmm._data.samples import Samples, Standardization, make_samples
from jgmm._data.standardization import standardize
from jgmm.em.e_step import accumulate, check_inputs
from jgmm.em.m_step import maximize, ridge_in
from jgmm.em.options import AcceptedOptions, OptionKeywords, Options
from jgmm.em.statistics import Statistics
from jgmm.fitting.in_memory import fit_unchecked
from jgmm.fitting.results import FitResult, log_likelihood, raise_if_failed
from jgmm.mixture.mixture import HasMixture, Mixture, to_original, to_standard
from jgmm.mixture.prior import Prior, as_prior, log_density
from jgmm.mixture.unconstrained import Free, check_free, from_free, to_free

NEWTON_STEPS = 8
# In a frame where the data's variance is one. If a Newton step is longer than this, the start is no
# end of a fit, and the step need not lead to the optimum to which EM would converge.
MAX_NEWTON_STEP = 0.1
# Limits of the two tests of regularity, as powers of the rounding unit. Where the smallest singular
# value of I − ∂T/∂θ is at its limit, the derivatives have lost half of their digits; with twice the
# power, all of them. The second limit is on the distance to the optimum after Newton's method.
# Near a singular optimum, at distance δ, the singular value is of order δ², so that no δ passes
# both tests.
SINGULAR_POWER, DISTANCE_POWER = 0.5, 0.4


class Regularity(NamedTuple):
    """Test of whether a mixture is at an optimum at which derivatives exist.

    Attributes:
      smallest: smallest singular value of I − ∂T/∂θ, (); zero where the optimum is singular.
      distance: largest absolute entry of the Newton step towards the optimum, ().
      is_regular: whether both are within their limits, ().
    """

    smallest: Array
    distance: Array
    is_regular: Array


ACCEPTED = AcceptedOptions(
    refused={
        "equal_weights": "the derivatives are those of an optimum over the weights, too.",
        "floor": "an optimum that rests on a bound has no such derivatives.",
    }
)


@key_first
@without_debug_nans
@ACCEPTED.signature
def fit(
    key: Key[Array, ""],
    x: Any,
    n_components: int,
    *,
    sample_weight: Any = None,
    options: Options | None = None,
    **keywords: Unpack[OptionKeywords],
) -> FitResult:
    """Fit a mixture as ``jgmm.fit`` does; its parameters and log-likelihood are differentiable.

    Args:
      key: typed key.
      x: samples in rows, (N, D). The result can be differentiated with respect to them.
      n_components: K.
      sample_weight: how many times each sample counts, (N,). The result can be differentiated with
        respect to it.
      options, **keywords: see ``jgmm.Options``. The result can be differentiated with respect to
        ``ridge`` and ``prior`` as well. The covariance model must have free coordinates
        (``jgmm.mixture.unconstrained``).

    Returns:
      The ``FitResult`` of ``jgmm.fit``; its mixture is moved to the optimum to the last digits by
      ``optimum``. The record of the fit (status, history) has no derivative.

    Raises:
      DataError, FitError: as ``jgmm.fit``.

    >>> import jax, jax.numpy as jnp, jgmm
    >>> x = jnp.asarray([[0.0], [0.1], [0.2], [5.0], [5.1], [5.3]])
    >>> kept = {"covariance": "tied", "init": "points", "n_restarts": 4}
    >>> def mean(x):
    ...     result = jgmm.differentiation.fit(jax.random.key(0), x, 2, **kept)
    ...     return result.mixture.means.max()
    >>> [f"{slope:.2f}" for slope in jnp.abs(jax.grad(mean)(x)[:, 0])]
    ['0.00', '0.00', '0.00', '0.33', '0.33', '0.33']
    """
    stop = lax.stop_gradient
    options = ACCEPTED.read(options, keywords)
    samples = make_samples(x, sample_weight)
    ridge, prior = options.ridge, as_prior(options.prior, samples, n_components)
    fixed = replace(options, ridge=stop(ridge), prior=stop(prior))
    result = raise_if_failed(fit_unchecked(key, stop(samples), n_components, fixed))
    found = optimum(stop(result.mixture), x, sample_weight, ridge, prior)
    log_prior = result.log_prior if prior is None else log_density(prior, found)
    reached = log_likelihood(found, samples)
    return replace(stop(result), mixture=found, log_likelihood=reached, log_prior=log_prior)


class Regularization(NamedTuple):
    """Ridge, (), and prior, or None: the arguments of an M-step in addition to the statistics."""

    ridge: Array
    prior: Prior | None

    def maximize(self, statistics: Statistics, covariance: str, frame: Standardization) -> Mixture:
        """Compute the M-step in a frame."""
        prior = self.prior and self.prior.standardize(frame)
        return maximize(statistics, covariance, ridge_in(frame, self.ridge), prior=prior)


class DifferentiableFit(NamedTuple):
    """The checked arguments of what is differentiated: mixture, samples, ridge and prior."""

    mixture: Mixture
    samples: Samples
    regularization: Regularization


def check_arguments(
    mixture: Mixture | HasMixture, x: Any, sample_weight: Any, ridge: Any, prior: Any
) -> DifferentiableFit:
    """Check samples, weights, ridge and prior, and that the covariance model is differentiable.

    Raises:
      DataError: bad samples or weights; another number of columns than the mixture's; or a
        covariance model without free coordinates.
    """
    mixture, samples = check_inputs(mixture, x, sample_weight)
    check_free(mixture.model, mixture.n_components, mixture.n_features)
    prior = as_prior(prior, samples, mixture.n_components)
    regularization = Regularization(jnp.asarray(ridge, samples.x.dtype), prior)
    return DifferentiableFit(mixture, samples, regularization)


def optimum(
    mixture: Mixture | HasMixture,
    x: Any,
    sample_weight: Any = None,
    ridge: Any = 0.0,
    prior: Any = None,
) -> Mixture:
    """Return the optimum of a fit as a differentiable function of samples, weights and prior.

    Args:
      mixture: fitted to exactly these samples, in the units of x; it has no derivative itself.
      x: samples in rows, (N, D).
      sample_weight: how many times each sample counts, (N,). A row of weight zero is missing, and
        the derivative by its weight is zero.
      ridge, prior: those of the fit; the ridge must be one number.

    Returns:
      The mixture after a few Newton steps towards the fixed point of EM, which reach it to the last
      digits. ``jax.grad``, ``jvp`` and ``vmap`` work on it, in forward and in reverse mode. Each
      derivative costs one derivative of the E-step for each parameter, and memory that does not
      depend on the number of steps of the fit. Derivatives are NaN where ``regularity`` finds that
      they do not exist.

    Raises:
      DataError: see ``as_samples``; or a covariance model without free coordinates.

    >>> import jax, jax.numpy as jnp, jgmm
    >>> x = jnp.asarray([[-1.0], [1.0], [3.0], [5.0]])
    >>> one = jgmm.make_mixture([1.0], [[2.0]], [5.0], "spherical")
    >>> slope = jax.grad(lambda x: optimum(one, x).means[0, 0])(x)  # of the mean of the samples
    >>> [f"{each:.2f}" for each in slope[:, 0].tolist()]
    ['0.25', '0.25', '0.25', '0.25']
    """
    return _optimum(*check_arguments(mixture, x, sample_weight, ridge, prior))


@jit
def _optimum(mixture: Mixture, samples: Samples, regularization: Regularization) -> Mixture:
    inside, free = _solve_fixed_point(mixture, samples, regularization)
    found = from_free(
        _fixed_point(mixture.covariance, free, inside, regularization), mixture.covariance
    )
    return to_original(found, inside.frame)


def _solve_fixed_point(
    mixture: Mixture, samples: Samples, regularization: Regularization
) -> tuple[Samples, Free]:
    """Return the samples in their frame, and the free parameters of the optimum there."""
    inside = standardize(stop_missing_weights(samples), mixture.model)
    constant_samples, constant_regularization = (
        lax.stop_gradient(inside),
        lax.stop_gradient(regularization),
    )
    start = to_free(to_standard(lax.stop_gradient(mixture), constant_samples.frame))

    def newton(_: Any, free: Free) -> Free:
        vector, unravel = ravel_pytree(free)
        step, _ = _newton_step(mixture.covariance, free, constant_samples, constant_regularization)
        # False for NaN: without an optimum nearby the point stays, and ``_regularity_of`` says so.
        is_short = jnp.abs(step).max() <= MAX_NEWTON_STEP
        updated: Free = unravel(jnp.where(is_short, vector + step, vector))
        return updated

    return inside, lax.fori_loop(0, NEWTON_STEPS, newton, start)


def stop_missing_weights(samples: Samples) -> Samples:
    """Return the same samples, with zero derivative by the weights of missing rows."""
    weights = samples.weights
    if weights is None:
        return samples
    return replace(samples, weights=jnp.where(weights > 0, weights, lax.stop_gradient(weights)))


def _em_step(covariance: str, free: Free, samples: Samples, regularization: Regularization) -> Free:
    """Compute T: one step of EM in free parameters, in the frame."""
    statistics = accumulate(from_free(free, covariance), samples)
    return to_free(regularization.maximize(statistics, covariance, samples.frame))


def _newton_step(
    covariance: str, free: Free, samples: Samples, regularization: Regularization
) -> tuple[Array, Array]:
    """Return the Newton step towards the fixed point, (P,), and I − ∂T/∂θ, (P, P)."""
    vector, unravel = ravel_pytree(free)

    def residual(vector: Array) -> Array:
        updated = _em_step(covariance, unravel(vector), samples, regularization)
        return vector - ravel_pytree(updated)[0]

    matrix = jax.jacfwd(residual)(vector)
    return -jnp.linalg.solve(matrix, residual(vector)), matrix


def _regularity_of(step: Array, matrix: Array) -> Regularity:
    """Test regularity, given the Newton step and I − ∂T/∂θ."""
    eps = jnp.finfo(matrix.dtype).eps
    smallest = jnp.linalg.svd(matrix, compute_uv=False).min()
    distance = jnp.abs(step).max()
    is_near = distance <= eps**DISTANCE_POWER  # False for NaN
    return Regularity(smallest, distance, is_near & (smallest > eps**SINGULAR_POWER))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _fixed_point(
    covariance: str, free: Free, samples: Samples, regularization: Regularization
) -> Free:
    """Return the fixed point ``free``; its derivatives are those of the implicit function."""
    del covariance, samples, regularization
    return free


@_fixed_point.defjvp
def _fixed_point_jvp(covariance: str, primals: Any, tangents: Any) -> tuple[Free, Free]:
    free, samples, regularization = primals
    _, samples_tangent, regularization_tangent = tangents
    _, direct = jax.jvp(
        partial(_em_step, covariance, free),
        (samples, regularization),
        (samples_tangent, regularization_tangent),
    )
    step, matrix = _newton_step(covariance, free, samples, regularization)
    # A factor instead of a choice between values: it makes reverse-mode derivatives NaN as well.
    nan_factor = jnp.where(_regularity_of(step, matrix).is_regular, 1, jnp.nan).astype(step.dtype)
    vector, unravel = ravel_pytree(direct)
    return _fixed_point(covariance, free, samples, regularization), unravel(
        nan_factor * jnp.linalg.solve(matrix, vector)
    )


def regularity(
    mixture: Mixture | HasMixture,
    x: Any,
    sample_weight: Any = None,
    ridge: Any = 0.0,
    prior: Any = None,
) -> Regularity:
    """Test whether a fit has ended at an optimum at which derivatives exist.

    Args:
      mixture, x, sample_weight, ridge, prior: as for ``optimum``.

    Returns:
      A ``Regularity``: the smallest singular value, the distance to the optimum, and the verdict.

    Raises:
      DataError: as ``optimum``.

    >>> import jgmm
    >>> x = [[-1.0], [1.0], [3.0], [5.0]]
    >>> one = jgmm.make_mixture([1.0], [[2.0]], [5.0], "spherical")
    >>> bool(regularity(one, x).is_regular)
    True
    """
    return _regularity(*check_arguments(mixture, x, sample_weight, ridge, prior))


@jit
def _regularity(mixture: Mixture, samples: Samples, regularization: Regularization) -> Regularity:
    inside, free = _solve_fixed_point(mixture, samples, regularization)
    return _regularity_of(*_newton_step(mixture.covariance, free, inside, regularization))
