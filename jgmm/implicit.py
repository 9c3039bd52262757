"""Derivatives of a fit by its samples, their weights, ridge and prior, without unrolling steps.

EM ends where its step changes nothing, θ = T(θ, data). So, as the data move, do the parameters:

    dθ = (I − ∂T/∂θ)⁻¹ (∂T/∂data) ddata

whatever the number of steps that led there, and whichever method took them. θ are the unconstrained
parameters of ``jgmm.unconstrained`` in the data's frame; the frame moves with the data, too. The
alternative for short runs, through the steps themselves, is ``jgmm.unrolled``.

Where the optimum is singular (components that have merged, or are empty) there is no such
derivative: then it is NaN inside transformations, and an error outside.

References: Krantz & Parks (2013), "The implicit function theorem"; Jaeckel (1972) for the
infinitesimal jackknife; Huber (1967) for the sandwich, which here is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from jgmm import restarts
from jgmm.frame import Frame
from jgmm.framing import seen, to_frame, to_user
from jgmm.maximization import maximize, ridge_in
from jgmm.mixture import Mixture, log_joint, normalise
from jgmm.precision import jit
from jgmm.prior import Prior, as_prior, log_density
from jgmm.results import FitResult
from jgmm.samples import Samples, make_samples
from jgmm.statistics import Statistics, accumulate, fitting
from jgmm.status import FitError, is_traced
from jgmm.unconstrained import Free, check_free, from_free, to_free

NEWTON_STEPS = 8
# In a frame where the data's variance is one. A Newton step longer than this says that the start is
# no end of a fit, and that where the step leads need not be the optimum EM was on its way to.
LONGEST_STEP = 0.1
# Powers of the rounding unit. The smallest singular value of I − ∂T/∂θ: below it the derivatives
# have lost half of their digits, and below twice it all of them. And how far the optimum may be
# once Newton has settled there: near a singular one, where that distance is δ, the singular value
# is of order δ², so that no δ passes both.
SINGULAR_POWER, DISTANCE_POWER = 0.5, 0.4


class Parameters(NamedTuple):
    """πₖ (K,), μₖ (K, D) and Σₖ (K, D, D)."""

    weights: Array
    means: Array
    covariances: Array


def parameters(mixture: Mixture) -> Parameters:
    """Weights, means and covariances as matrices, whatever the covariance model."""
    return Parameters(mixture.weights, mixture.means, mixture.covariances)


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
        (``jgmm.unconstrained``).

    Returns:
      The ``FitResult`` of ``jgmm.fit`` with its mixture settled at the optimum to the last digits,
      as ``optimum`` does. What says how the fit went (status, history) has no derivative.

    Raises:
      DataError, FitError: as ``jgmm.fit``.

    >>> import jax, jax.numpy as jnp, jgmm
    >>> x = jnp.asarray([[0.0], [0.1], [0.2], [5.0], [5.1], [5.3]])
    >>> kept = {"covariance": "tied", "init": "points", "n_restarts": 4}
    >>> def mean(x):
    ...     result = jgmm.implicit.fit(jax.random.key(0), x, 2, **kept)
    ...     return result.mixture.means.max()
    >>> [f"{slope:.2f}" for slope in jnp.abs(jax.grad(mean)(x)[:, 0])]
    ['0.00', '0.00', '0.00', '0.33', '0.33', '0.33']
    """
    still = lax.stop_gradient
    weights, ridge = options.pop("sample_weight", None), options.pop("ridge", 0.0)
    samples = make_samples(x, weights)
    prior = as_prior(options.pop("prior", None), samples, n_components)
    fixed = {"sample_weight": still(weights), "ridge": still(ridge), "prior": still(prior)}
    result = restarts.fit(key, still(x), n_components, **fixed, **options)
    found = optimum(still(result.mixture), x, weights, ridge, prior)
    reached = _log_likelihood(found, samples)
    believed = result.log_prior if prior is None else log_density(prior, found)
    return replace(still(result), mixture=found, log_likelihood=reached, log_prior=believed)


@jit
def _log_likelihood(mixture: Mixture, samples: Samples) -> Array:
    inside = seen(samples, mixture.model)
    shift = samples.total_weight() * inside.frame.log_volume()
    return accumulate(to_frame(mixture, inside.frame), inside).log_likelihood - shift


class Beside(NamedTuple):
    """What a fit knows beside the samples: ``ridge`` (), ``prior`` or None."""

    ridge: Array
    prior: Prior | None

    def maximize(self, statistics: Statistics, covariance: str, frame: Frame) -> Mixture:
        """The M-step in a frame."""
        prior = self.prior and self.prior.seen(frame)
        return maximize(statistics, covariance, ridge_in(frame, self.ridge), prior=prior)


def beside_of(samples: Samples, mixture: Mixture, ridge: Any, prior: Any) -> Beside:
    """What was given beside the samples, checked."""
    believed = as_prior(prior, samples, mixture.n_components)
    return Beside(jnp.asarray(ridge, samples.x.dtype), believed)


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
    mixture, samples = fitting(mixture, x, sample_weight)
    check_free(mixture.model, mixture.n_components, mixture.n_features)
    return _optimum(mixture, samples, beside_of(samples, mixture, ridge, prior))


@jit
def _optimum(mixture: Mixture, samples: Samples, beside: Beside) -> Mixture:
    inside, free = _settled(mixture, samples, beside)
    found = from_free(_attached(mixture.covariance, free, inside, beside), mixture.covariance)
    return to_user(found, inside.frame)


def _settled(mixture: Mixture, samples: Samples, beside: Beside) -> tuple[Samples, Free]:
    """The samples in their frame, and the free parameters of the optimum there."""
    inside = seen(counted(samples), mixture.model)
    still, fixed = lax.stop_gradient(inside), lax.stop_gradient(beside)
    start = to_free(to_frame(lax.stop_gradient(mixture), still.frame))

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


def _update(covariance: str, free: Free, samples: Samples, beside: Beside) -> Free:
    """T: one step of EM in free parameters, in the frame."""
    statistics = accumulate(from_free(free, covariance), samples)
    return to_free(beside.maximize(statistics, covariance, samples.frame))


def _newton(covariance: str, free: Free, samples: Samples, beside: Beside) -> tuple[Array, Array]:
    """The Newton step towards the fixed point, (P,), and I − ∂T/∂θ, (P, P)."""
    vector, unravel = ravel_pytree(free)

    def residual(vector: Array) -> Array:
        updated = _update(covariance, unravel(vector), samples, beside)
        return vector - ravel_pytree(updated)[0]

    matrix = jax.jacfwd(residual)(vector)
    return -jnp.linalg.solve(matrix, residual(vector)), matrix


def _judge(step: Array, matrix: Array) -> Regularity:
    eps = jnp.finfo(matrix.dtype).eps
    smallest = jnp.linalg.svd(matrix, compute_uv=False).min()
    distance = jnp.abs(step).max()
    near = distance <= eps**DISTANCE_POWER  # False for NaN
    return Regularity(smallest, distance, near & (smallest > eps**SINGULAR_POWER))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _attached(covariance: str, free: Free, samples: Samples, beside: Beside) -> Free:
    """The fixed point ``free``, as a function of the samples and what is beside them."""
    del covariance, samples, beside
    return free


@_attached.defjvp
def _attached_jvp(covariance: str, primals: Any, tangents: Any) -> tuple[Free, Free]:
    free, samples, beside = primals
    _, moved_samples, moved_beside = tangents
    _, direct = jax.jvp(
        partial(_update, covariance, free), (samples, beside), (moved_samples, moved_beside)
    )
    step, matrix = _newton(covariance, free, samples, beside)
    # A factor, and no choice between values: it also spoils what goes backwards.
    spoil = jnp.where(_judge(step, matrix).is_regular, 1, jnp.nan).astype(step.dtype)
    vector, unravel = ravel_pytree(direct)
    return _attached(covariance, free, samples, beside), unravel(
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
    mixture, samples = fitting(mixture, x, sample_weight)
    check_free(mixture.model, mixture.n_components, mixture.n_features)
    return _regularity(mixture, samples, beside_of(samples, mixture, ridge, prior))


@jit
def _regularity(mixture: Mixture, samples: Samples, beside: Beside) -> Regularity:
    inside, free = _settled(mixture, samples, beside)
    return _judge(*_newton(mixture.covariance, free, inside, beside))


def _check_regular(mixture: Mixture, samples: Samples, beside: Beside) -> None:
    """Refuse an optimum without derivatives.

    Raises:
      FitError: saying what is wrong with it.
    """
    if is_traced(mixture, samples, beside):
        return
    found = _regularity(mixture, samples, beside)
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
    mixture, samples, beside = _checked(mixture, x, sample_weight, ridge, prior)
    return _influence(mixture, samples, beside, of)


def _checked(
    mixture: Mixture, x: Any, sample_weight: Any, ridge: Any, prior: Any
) -> tuple[Mixture, Samples, Beside]:
    mixture, samples = fitting(mixture, x, sample_weight)
    check_free(mixture.model, mixture.n_components, mixture.n_features)
    beside = beside_of(samples, mixture, ridge, prior)
    _check_regular(mixture, samples, beside)
    if samples.weights is None:
        samples = replace(samples, weights=jnp.ones_like(samples.x[:, 0]))
    return mixture, samples, beside


@partial(jit, static_argnums=3)
def _influence(
    mixture: Mixture, samples: Samples, beside: Beside, of: Callable[[Mixture], Any]
) -> Any:
    def fitted(weights: Array) -> Any:
        return of(_optimum(mixture, replace(samples, weights=weights), beside))

    by_weight = jax.jacrev(fitted)(samples.weights)
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), by_weight)


def standard_errors(
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
    mixture, samples, beside = _checked(mixture, x, sample_weight, ridge, prior)
    rows = _influence(mixture, samples, beside, of)
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
    mixture, samples, beside = _checked(mixture, x, sample_weight, ridge, prior)
    return _leave_one_out(mixture, samples, beside)


@jit
def _leave_one_out(mixture: Mixture, samples: Samples, beside: Beside) -> Array:
    frame, storage = seen(samples, mixture.model).frame, mixture.model.storage

    def fitted(weights: Array) -> Free:
        found = _optimum(mixture, replace(samples, weights=weights), beside)
        return to_free(to_frame(found, frame))

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
