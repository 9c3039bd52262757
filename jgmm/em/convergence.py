"""When an iterative fit stops: the rules of every algorithm, one list each, read in order.

A rule is a condition and the ``Status`` that it leads to. The first condition that holds decides;
where none holds, the fit goes on. EM, accelerated EM, gradient methods, k-means and online EM
compute the conditions from their own quantities, and decide here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jgmm._core.status import VALID, Status, among
from jgmm.em.cancellation import Precision

Rule = tuple[Any, Any]
Flag = Bool[Array, ""]
Code = Int[Array, ""]  # of a ``Status``


def first_that_holds(rules: Sequence[Rule]) -> Int[Array, "..."]:
    """Return the status of the first rule whose condition holds, ``RUNNING`` where none does."""
    conditions = [condition for condition, _ in rules]
    codes = [jnp.asarray(status, int) for _, status in rules]
    return jnp.select(conditions, codes, int(Status.RUNNING))


def gain_is_small(now: Array, before: Array, total: Array, tol: Array, rtol: Array) -> Array:
    """Whether the mean log-likelihood per sample has changed by at most the tolerance.

        |ℓ - ℓ_before| / N  <=  tol + rtol |ℓ| / N

    Args:
      now, before: log-likelihoods ℓ, nats.
      total: N, the total weight of the samples.
      tol, rtol: absolute tolerance in nats per sample, and relative tolerance.
    """
    return jnp.abs(now - before) / total <= tol + rtol * jnp.abs(now) / total


def em_status(
    log_likelihood: Float[Array, ""],
    small_gain: Flag,
    broken: Bool[Array, "K"],
    finite: Flag,
    out_of_steps: Flag,
) -> Code:
    """Return the status of EM after an E-step and the M-step that follows it.

    Args:
      log_likelihood: of the parameters before the M-step.
      small_gain: it has changed by at most the tolerance since the last step.
      broken: components that have collapsed.
      finite: whether the parameters after the M-step are.
      out_of_steps: whether ``max_steps`` M-steps have been taken.
    """
    unlikely = jnp.where(broken.any(), int(Status.COLLAPSED), int(Status.NON_FINITE_PARAMETERS))
    return first_that_holds(
        [
            (~jnp.isfinite(log_likelihood), unlikely),
            (small_gain, Status.CONVERGED),
            (out_of_steps, Status.STEPS_RAN_OUT),
            (broken.any(), Status.COLLAPSED),
            (~finite, Status.NON_FINITE_PARAMETERS),
        ]
    )


def must_confirm(status: Code, fell: Flag, precision: Precision) -> Flag:
    """Whether a step computed by approximate products must be confirmed by the exact form.

    Convergence seen with the approximate form must be. So must a log-likelihood that fell: the
    rounding error of the products is then larger than the gain of a step.
    """
    return precision.approximate & (fell | among(status, VALID))


def must_repeat(status: Code, precision: Precision) -> Flag:
    """Whether a failed step is repeated by the exact form.

    A component that a step makes much narrower may collapse through the rounding error of products
    that were accurate enough before the step.
    """
    failed = (Status.COLLAPSED, Status.NON_FINITE_PARAMETERS)
    return (precision.safe | precision.approximate) & among(status, failed)


def accelerated_status(status: Code, proposed: Flag, out_of_steps: Flag) -> tuple[Code, Flag]:
    """Return the status of accelerated EM, and whether a proposal fell short.

    A run does not end at a point that the scheme proposed: convergence means that EM's own step
    gains no more than the tolerance, and a collapse may be caused by the extrapolation.

    Args:
      status: what ``em_status`` says of the point.
      proposed: whether the scheme proposed the point.
      out_of_steps: whether ``max_steps`` passes have been made.
    """
    ends = (Status.CONVERGED, Status.COLLAPSED, Status.NON_FINITE_PARAMETERS)
    fell_short = proposed & among(status, ends)
    otherwise = first_that_holds([(out_of_steps, Status.STEPS_RAN_OUT)])
    return jnp.where(fell_short, otherwise, status), fell_short


def gradient_status(
    finite: Flag, broken: Bool[Array, "K"], converged: Flag, out_of_steps: Flag
) -> Code:
    """Return the status of a gradient method after an evaluation.

    Args:
      finite: whether the objective and the length of its gradient are.
      broken: components that have collapsed.
      converged: the gradient is short enough, or the last step gained at most the tolerance.
      out_of_steps: the steps, or the passes over the samples, have run out.
    """
    return first_that_holds(
        [
            (~finite, Status.NON_FINITE_PARAMETERS),
            (broken.any(), Status.COLLAPSED),
            (converged, Status.CONVERGED),
            (out_of_steps, Status.STEPS_RAN_OUT),
        ]
    )


def kmeans_status(
    settled: Bool[Array, "R"], refilling: Bool[Array, "R"], out_of_steps: Bool[Array, "R"]
) -> Int[Array, "R"]:
    """Return the status of every restart of k-means after an assignment.

    Args:
      settled: the inertia has stopped falling.
      refilling: a center without samples is being moved to samples, so the restart goes on.
      out_of_steps: the centers have been moved ``max_steps`` times.
    """
    return first_that_holds(
        [(settled & ~refilling, Status.CONVERGED), (out_of_steps, Status.STEPS_RAN_OUT)]
    )


def online_status(collapsed: Flag, finite: Flag) -> Code:
    """Return the status of online EM after a batch; it has no end of its own.

    Args:
      collapsed: whether a component has.
      finite: whether the parameters and the log-likelihood are.
    """
    return first_that_holds(
        [(collapsed, Status.COLLAPSED), (~finite, Status.NON_FINITE_PARAMETERS)]
    )
