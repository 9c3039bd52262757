"""When an iterative fit has converged or failed: the rules of each algorithm, in order."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from jgmm._core.status import Status
from jgmm.em.options import Control
from jgmm.mixture.mixture import Mixture


class StepCheck(NamedTuple):
    """What an E-step says of a lane.

    Attributes:
      updated: where the M-step leads.
      status: code of a ``Status``.
      broken: components that the M-step has broken, (K,).
      spent: the steps have run out.
      again: the step failed by products, and is to be taken again by differences.
      insist: from here on differences only.
    """

    updated: Mixture
    status: Array
    broken: Array
    out_of_steps: Array
    retry_exactly: Array
    exact_from_now_on: Array


def _judge(
    state: Any,
    log_likelihood: Array,
    broken: Array,
    updated: Mixture,
    total: Array,
    out_of_steps: Array,
    control: Control,
) -> Array:
    """The status after an E-step, the first that applies."""
    change = jnp.abs(log_likelihood - state.log_likelihood) / total
    close = change <= control.tol + control.rtol * jnp.abs(log_likelihood) / total
    finite = jnp.isfinite(updated.means).all()
    rules = (
        (
            ~jnp.isfinite(log_likelihood),
            jnp.where(broken.any(), int(Status.COLLAPSED), int(Status.NON_FINITE_PARAMETERS)),
        ),
        (close, Status.CONVERGED),
        (out_of_steps, Status.STEPS_RAN_OUT),
        (broken.any(), Status.COLLAPSED),
        (~finite, Status.NON_FINITE_PARAMETERS),
    )
    return jnp.select(
        [rule for rule, _ in rules], [jnp.asarray(s, int) for _, s in rules], int(Status.RUNNING)
    )
