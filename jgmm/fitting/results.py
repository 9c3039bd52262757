"""The result of a fit, the choice among restarts, and the error that a failed fit raises."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jgmm._core.compilation import jit
from jgmm._core.errors import FitError
from jgmm._core.pytree import Leaf, is_traced
from jgmm._core.status import SENTENCES, USABLE, VALID, Status, score, tally
from jgmm._data.samples import HasTotals, Samples
from jgmm._data.standardization import standardize
from jgmm.em.e_step import accumulate
from jgmm.mixture.mixture import Mixture, to_original, to_standard
from jgmm.mixture.noise import Noise
from jgmm.mixture.prior import Prior, log_density, log_density_in


def raise_if_failed(result: FitResult) -> FitResult:
    """Raise ``FitError`` if the fit failed; otherwise return the result.

    Inside a transformation, and for a batch of results, nothing is raised: read
    ``result.status``.

    Args:
      result: the result of a fit to one data set.

    Raises:
      FitError: no restart ended in usable parameters. The text counts the outcomes of the restarts
        and names the component that collapsed.
    """
    if is_traced(result) or result.status.ndim:
        return result
    status = Status(int(result.status))
    if status.is_usable:
        return result
    parts = [SENTENCES[status]]
    if status is Status.COLLAPSED:
        parts.insert(
            0, f"Component {int(result.collapsed)} collapsed after {int(result.n_steps)} steps."
        )
    if result.restarts is not None:
        parts.append(f"Outcomes of the restarts: {tally(result.restarts.status)}.")
    raise FitError(" ".join(parts))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Restarts:
    """The outcomes of R restarts.

    Attributes:
      log_likelihood: the final log-likelihood, with the log prior, in nats, (R,).
      status: code of the ``Status`` that each ended with, (R,).
      n_steps: parameter updates made, (R,).
      collapsed: the component that collapsed or is spurious, or -1, (R,).
      best: index of the restart chosen, ().
    """

    log_likelihood: Leaf
    status: Leaf
    n_steps: Leaf
    collapsed: Leaf
    best: Leaf


def choose(outcomes: Restarts) -> Array:
    """Return the index of the best restart.

    It is the restart of the highest log-likelihood among those that ended valid. Where none did, it
    is the highest among the usable ones, and where none is usable either, restart 0. Of equals it
    is the first.
    """
    valid, usable = (
        score(outcomes.log_likelihood, outcomes.status, codes) for codes in (VALID, USABLE)
    )
    return jnp.argmax(jnp.where(jnp.isfinite(valid).any(), valid, usable))


def best_of(results: list[FitResult]) -> FitResult:
    """Return the best of several results of one problem, with the outcomes of all their restarts.

    Args:
      results: one for each batch of starts, in order, each with its ``restarts``.
    """
    if len(results) == 1:
        return results[0]
    parts = [result.restarts for result in results]
    whole = jax.tree.map(lambda *leaves: jnp.concatenate(jnp.atleast_1d(*leaves)), *parts)
    best = choose(whole)
    ends = [0]
    for part in parts:
        assert part is not None  # a fit from many starts always has its outcomes
        ends.append(ends[-1] + len(part.status))
    batch = max(i for i, end in enumerate(ends[:-1]) if end <= int(best))
    return replace(results[batch], restarts=replace(whole, best=best))


def clean_history(history: Array, n_steps: Array) -> Array:
    """Replace a run's history after its last step by NaN.

    An earlier run that had the same place in the batch may have left values there.

    Args:
      history: (max_steps + 1,).
      n_steps: steps that the run has taken, ().
    """
    return jnp.where(jnp.arange(history.shape[0]) <= n_steps, history, jnp.nan)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FitResult:
    """A fitted mixture and how the fit ended.

    Attributes:
      mixture: the parameters.
      log_likelihood: Σₙ wₙ log p(xₙ) of exactly these parameters, in nats. A fit runs on
        standardized samples, and its parameters are rounded to the user's units in the end. Where
        that matters (in float32, for samples more than some thousand standard deviations from
        zero), one more E-step computes the value of the rounded parameters. Inside a
        transformation, and after Ctrl-C, it is the value before rounding; the sum of
        ``jgmm.log_prob`` is the other.
      log_prior: log density of these parameters under the prior, up to a constant; zero without a
        prior.
      status: code of a ``Status``, computed from the course of the fit.
      n_steps: parameter updates made.
      history: log-likelihood plus log prior before each step, (max_steps + 1,), NaN after the last
        step; of the parameters of the fit, which are not rounded.
      collapsed: the component that collapsed or is spurious (degenerate), or -1.
      noise: the uniform noise component in addition to the mixture, or None.
      restarts: the outcome of every restart, or None where there was one start only. Its
        ``log_likelihood`` includes the log prior, because restarts are compared by the sum of both.
    """

    mixture: Mixture
    log_likelihood: Leaf
    log_prior: Leaf
    status: Leaf
    n_steps: Leaf
    history: Leaf
    collapsed: Leaf
    restarts: Restarts | None = None
    noise: Noise | None = None

    @property
    def objective(self) -> Array:
        """The function that was maximised: log-likelihood plus log prior, in nats."""
        return self.log_likelihood + self.log_prior

    def __repr__(self) -> str:
        """Show the main results in one line; inside a transformation, the shape."""
        name = f"K={self.mixture.n_components}, covariance={self.mixture.covariance!r}"
        if is_traced(self) or jnp.ndim(self.status):
            return f"FitResult({name}, shape={jnp.shape(self.status)})"
        return (
            f"FitResult({name}, log_likelihood={float(self.log_likelihood):.6g}, "
            f"status={Status(int(self.status)).name}, n_steps={int(self.n_steps)})"
        )


def is_moved_by_rounding(result: FitResult) -> bool:
    """Return whether rounding to the user's units has changed the log-likelihood of a result.

    Rounding moves a mean by up to δ = ε |μ| / 2. At an optimum that costs half the square of δ,
    in standard deviations of the column given the others, in nats per sample; it matters where
    that is more than a rounding error ε. Of a result that has failed, or whose values are traced,
    nothing is said: False.
    """
    if is_traced(result) or not Status(int(result.status)).is_usable:
        return False
    mixture, eps = result.mixture, float(jnp.finfo(result.mixture.means.dtype).eps)
    used = np.asarray(mixture.log_weights) > -np.inf
    means, scale = np.asarray(mixture.means, np.float64), np.asarray(mixture.scale, np.float64)
    deviations = np.diagonal(scale, axis1=1, axis2=2) if scale.ndim == 3 else scale
    moved = 0.5 * eps * means / deviations.reshape(len(scale), -1)
    return bool(0.5 * (moved[used] ** 2).sum(axis=1).max() > eps)


def evaluate_returned(result: FitResult, samples: Samples) -> FitResult:
    """Return the result with the log-likelihood of its rounded parameters, where that differs.

    Args:
      result: of a fit to the samples.
      samples: in the identity frame.
    """
    if not is_moved_by_rounding(result):
        return result
    return replace(result, log_likelihood=log_likelihood(result.mixture, samples, result.noise))


@jit
def log_likelihood(mixture: Mixture, samples: Samples, noise: Noise | None = None) -> Array:
    """Log-likelihood of a mixture, with noise or without, computed where a fit runs.

    Args:
      mixture, noise: in the units of the samples.
      samples: in the identity frame.
    """
    inside = standardize(samples, mixture.model)
    log_volume = inside.frame.log_volume()
    noise_density = None if noise is None else noise.rescaled(-log_volume).density()
    given = to_standard(mixture, inside.frame)
    found = accumulate(given, inside, noise_density=noise_density).log_likelihood
    return found - samples.total_weight() * log_volume


def to_result(
    mixture: Mixture,
    log_likelihood: Array,
    state: Any,
    history: Array,
    outcomes: Restarts | None,
    samples: HasTotals,
    prior: Prior | None = None,
    noise: Noise | None = None,
) -> FitResult:
    """Return the result of the best run and of all restarts, in the user's units.

    Args:
      mixture: the parameters of the best run, in the frame.
      log_likelihood: of the best run, with the log prior, as in ``history`` and ``outcomes``.
      state: the final state of the best run; ``status``, ``n_steps`` and ``collapsed`` are read.
      history: of the best run, (max_steps + 1,).
      outcomes: of all restarts, or None.
      samples: the frame and the total weight of the samples.
      prior: the prior of the components, in the user's units.
      noise: the noise component of the best run, in the frame.
    """
    # Inside a transformation the samples cannot be checked, but a value that is not finite makes
    # the frame not finite, too.
    frame = samples.frame
    finite = jnp.isfinite(frame.shift).all() & jnp.isfinite(frame.scale).all()

    def if_finite(codes: Array) -> Array:
        return jnp.where(finite, codes, int(Status.NON_FINITE_DATA))

    shift = samples.total_weight() * frame.log_volume()
    log_prior_in_frame = log_density_in(prior, frame, mixture)
    returned = to_original(mixture, frame)
    log_prior = log_prior_in_frame if prior is None else log_density(prior, returned)
    log_likelihood = log_likelihood - log_prior_in_frame - shift
    shift = shift + log_prior_in_frame - log_prior
    return FitResult(
        mixture=returned,
        log_likelihood=log_likelihood,
        log_prior=log_prior,
        status=if_finite(state.status),
        n_steps=state.n_steps,
        history=clean_history(history, state.n_steps) - shift,
        collapsed=jnp.where(finite, state.collapsed, -1),
        noise=noise and noise.rescaled(frame.log_volume()),
        restarts=outcomes
        and Restarts(
            outcomes.log_likelihood - shift,
            if_finite(outcomes.status),
            outcomes.n_steps,
            jnp.where(finite, outcomes.collapsed, -1),
            outcomes.best,
        ),
    )
