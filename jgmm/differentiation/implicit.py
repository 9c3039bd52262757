"""Derivatives of a fit by its samples, their weights, ridge and prior, without unrolling steps.

EM ends where its step changes nothing, θ = T(θ, data). So, as the data move, do the parameters:

    dθ = (I − ∂T/∂θ)⁻¹ (∂T/∂data) ddata

whatever the number of steps that led there, and whichever method took them. θ are the unconstrained
parameters of ``jgmm.mixture.unconstrained`` in the data's frame; the frame moves with the data,
too. The alternative for short runs, through the steps themselves, is
``jgmm.differentiation.unrolled``.

Where the optimum is singular (components that have merged, or are empty) there is no such
derivative: then it is NaN inside transformations, and an error outside.

References: Krantz & Parks (2013), "The implicit function theorem"; Jaeckel (1972) for the
infinitesimal jackknife; Huber (1967) for the sandwich, which here is the same.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Key

from jgmm import _fit
from jgmm._core.compilation import jit
from jgmm._data.samples import Samples, Standardization, make_samples
from jgmm._data.standardization import standardize
from jgmm.em.e_step import accumulate, check_inputs
from jgmm.em.m_step import maximize, ridge_in
from jgmm.em.statistics import Statistics
from jgmm.fitting.results import FitResult
from jgmm.mixture.mixture import Mixture, to_original, to_standard
from jgmm.mixture.prior import Prior, as_prior, log_density
from jgmm.mixture.unconstrained import Free, check_free, from_free, to_free

NEWTON_STEPS = 8
# In a frame where the data's variance is one. A Newton step longer than this says that the start is
# no end of a fit, and that where the step leads need not be the optimum EM was on its way to.
LONGEST_STEP = 0.1
# Powers of the rounding unit. The smallest singular value of I − ∂T/∂θ: below it the derivatives
# have lost half of their digits, and below twice it all of them. And how far the optimum may be
# once Newton has settled there: near a singular one, where that distance is δ, the singular value
# is of order δ², so that no δ passes both.
SINGULAR_POWER, DISTANCE_POWER = 0.5, 0.4


class Regularity(NamedTuple):
    """Whether a mixture is at an optimum at which derivatives exist.

    Attributes:
      smallest: singular value of I − ∂T/∂θ, () : zero where the optimum is singular.
      distance: largest entry of the Newton step towards the optimum, ().
      is_regular: both are as they must be, ().
    """

    smallest: Array
    distance: Array
    is_regular: Array


def fit(key: Key[Array, ""], x: Any, n_components: int, **options: Any) -> FitResult:
    """``jgmm.fit`` with parameters and a log-likelihood that can be differentiated.

    Args:
      key: typed key.
      x: samples in rows, (N, D); may be what is differentiated by.
      n_components: K.
      **options: those of ``jgmm.fit``. ``sample_weight``, ``ridge`` and ``prior`` may be
        differentiated by, too. The covariance model must have free coordinates
        (``jgmm.mixture.unconstrained``).

    Returns:
      The ``FitResult`` of ``jgmm.fit`` with its mixture settled at the optimum to the last digits,
      as ``optimum`` does. What says how the fit went (status, history) has no derivative.

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
    still = lax.stop_gradient
    weights, ridge = options.pop("sample_weight", None), options.pop("ridge", 0.0)
    samples = make_samples(x, weights)
    prior = as_prior(options.pop("prior", None), samples, n_components)
    fixed = {"sample_weight": still(weights), "ridge": still(ridge), "prior": still(prior)}
    result = _fit.fit(key, still(x), n_components, **fixed, **options)
    found = optimum(still(result.mixture), x, weights, ridge, prior)
    reached = _log_likelihood(found, samples)
    believed = result.log_prior if prior is None else log_density(prior, found)
    return replace(still(result), mixture=found, log_likelihood=reached, log_prior=believed)


@jit
def _log_likelihood(mixture: Mixture, samples: Samples) -> Array:
    inside = standardize(samples, mixture.model)
    shift = samples.total_weight() * inside.frame.log_volume()
    return accumulate(to_standard(mixture, inside.frame), inside).log_likelihood - shift


class Regularization(NamedTuple):
    """What a fit knows beside the samples: ``ridge`` (), ``prior`` or None."""

    ridge: Array
    prior: Prior | None

    def maximize(self, statistics: Statistics, covariance: str, frame: Standardization) -> Mixture:
        """The M-step in a frame."""
        prior = self.prior and self.prior.standardize(frame)
        return maximize(statistics, covariance, ridge_in(frame, self.ridge), prior=prior)


def make_regularization(
    samples: Samples, mixture: Mixture, ridge: Any, prior: Any
) -> Regularization:
    """What was given beside the samples, checked."""
    believed = as_prior(prior, samples, mixture.n_components)
    return Regularization(jnp.asarray(ridge, samples.x.dtype), believed)


def optimum(
    mixture: Mixture, x: Any, sample_weight: Any = None, ridge: Any = 0.0, prior: Any = None
) -> Mixture:
    """The optimum a fit has ended at, as a function of the samples, their weights and the prior.

    Args:
      mixture: fitted to exactly these samples, in the units of x; has no derivative itself.
      x: samples in rows, (N, D).
      sample_weight: how many times each sample counts, (N,). A row of weight zero is missing, and
        the derivative by its weight is zero.
      ridge, prior: those of the fit; of the ridge one number.

    Returns:
      The mixture after a few Newton steps on the fixed point of EM, which leave it there to the
      last digits. ``jax.grad``, ``jvp`` and ``vmap`` go through it, forwards and backwards. Both
      cost one derivative of the E-step for each parameter, and memory that does not depend on how
      the fit got there. Derivatives are NaN where ``regularity`` says that there are none.

    Raises:
      DataError: see ``as_samples``; or a covariance model without free coordinates.
    """
    mixture, samples = check_inputs(mixture, x, sample_weight)
    check_free(mixture.model, mixture.n_components, mixture.n_features)
    return _optimum(mixture, samples, make_regularization(samples, mixture, ridge, prior))


@jit
def _optimum(mixture: Mixture, samples: Samples, regularization: Regularization) -> Mixture:
    inside, free = _settled(mixture, samples, regularization)
    found = from_free(
        _attached(mixture.covariance, free, inside, regularization), mixture.covariance
    )
    return to_original(found, inside.frame)


def _settled(
    mixture: Mixture, samples: Samples, regularization: Regularization
) -> tuple[Samples, Free]:
    """The samples in their frame, and the free parameters of the optimum there."""
    inside = standardize(counted(samples), mixture.model)
    still, fixed = lax.stop_gradient(inside), lax.stop_gradient(regularization)
    start = to_free(to_standard(lax.stop_gradient(mixture), still.frame))

    def newton(_: Any, free: Free) -> Free:
        vector, unravel = ravel_pytree(free)
        step, _ = _newton(mixture.covariance, free, still, fixed)
        # NaN is not short, either: what has no optimum stays where it is, and is found out later.
        short = jnp.abs(step).max() <= LONGEST_STEP
        moved: Free = unravel(jnp.where(short, vector + step, vector))
        return moved

    return inside, lax.fori_loop(0, NEWTON_STEPS, newton, start)


def counted(samples: Samples) -> Samples:
    """The same samples; rows that are missing have no derivative by their weights."""
    weights = samples.weights
    if weights is None:
        return samples
    return replace(samples, weights=jnp.where(weights > 0, weights, lax.stop_gradient(weights)))


def _update(covariance: str, free: Free, samples: Samples, regularization: Regularization) -> Free:
    """T: one step of EM in free parameters, in the frame."""
    statistics = accumulate(from_free(free, covariance), samples)
    return to_free(regularization.maximize(statistics, covariance, samples.frame))


def _newton(
    covariance: str, free: Free, samples: Samples, regularization: Regularization
) -> tuple[Array, Array]:
    """The Newton step towards the fixed point, (P,), and I − ∂T/∂θ, (P, P)."""
    vector, unravel = ravel_pytree(free)

    def residual(vector: Array) -> Array:
        updated = _update(covariance, unravel(vector), samples, regularization)
        return vector - ravel_pytree(updated)[0]

    matrix = jax.jacfwd(residual)(vector)
    return -jnp.linalg.solve(matrix, residual(vector)), matrix


def _check_ended(step: Array, matrix: Array) -> Regularity:
    eps = jnp.finfo(matrix.dtype).eps
    smallest = jnp.linalg.svd(matrix, compute_uv=False).min()
    distance = jnp.abs(step).max()
    near = distance <= eps**DISTANCE_POWER  # False for NaN
    return Regularity(smallest, distance, near & (smallest > eps**SINGULAR_POWER))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _attached(
    covariance: str, free: Free, samples: Samples, regularization: Regularization
) -> Free:
    """The fixed point ``free``, as a function of the samples and what is beside them."""
    del covariance, samples, regularization
    return free


@_attached.defjvp
def _attached_jvp(covariance: str, primals: Any, tangents: Any) -> tuple[Free, Free]:
    free, samples, regularization = primals
    _, moved_samples, moved_beside = tangents
    _, direct = jax.jvp(
        partial(_update, covariance, free), (samples, regularization), (moved_samples, moved_beside)
    )
    step, matrix = _newton(covariance, free, samples, regularization)
    # A factor, and no choice between values: it also spoils what goes backwards.
    spoil = jnp.where(_check_ended(step, matrix).is_regular, 1, jnp.nan).astype(step.dtype)
    vector, unravel = ravel_pytree(direct)
    return _attached(covariance, free, samples, regularization), unravel(
        spoil * jnp.linalg.solve(matrix, vector)
    )


def regularity(
    mixture: Mixture, x: Any, sample_weight: Any = None, ridge: Any = 0.0, prior: Any = None
) -> Regularity:
    """Whether a fit has ended at an optimum at which derivatives exist.

    Args:
      mixture, x, sample_weight, ridge, prior: as for ``optimum``.

    Raises:
      DataError: as ``optimum``.
    """
    mixture, samples = check_inputs(mixture, x, sample_weight)
    check_free(mixture.model, mixture.n_components, mixture.n_features)
    return _regularity(mixture, samples, make_regularization(samples, mixture, ridge, prior))


@jit
def _regularity(mixture: Mixture, samples: Samples, regularization: Regularization) -> Regularity:
    inside, free = _settled(mixture, samples, regularization)
    return _check_ended(*_newton(mixture.covariance, free, inside, regularization))
