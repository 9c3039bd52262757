"""How a fit ended, said in numbers inside compiled code and in sentences outside it.

Inside ``jit`` a fit carries a code, so that under ``vmap`` one restart fails alone. This module is
also the one place that turns a code into an exception, once, on the host.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Status(IntEnum):
    """How one fit ended."""

    RUNNING = 0
    CONVERGED = 1
    STEPS_RAN_OUT = 2
    COLLAPSED = 3
    NON_FINITE_DATA = 4
    NON_FINITE_PARAMETERS = 5
    OUTRUN = 6
    DEGENERATE = 7
    INHERITED = 8
    INTERRUPTED = 9

    @property
    def is_valid(self) -> bool:
        """Whether the fit may be chosen: an optimum, or a point on the way to one."""
        return self in VALID

    @property
    def is_usable(self) -> bool:
        """Whether the parameters can be computed with, if only to see what is wrong with them."""
        return self in USABLE


VALID = (Status.CONVERGED, Status.STEPS_RAN_OUT, Status.INHERITED, Status.INTERRUPTED)
USABLE = (*VALID, Status.DEGENERATE)


def among(codes: Array, statuses: Iterable[Status]) -> Bool[Array, "..."]:
    """Which codes are one of some statuses."""
    return jnp.isin(codes, jnp.asarray([int(status) for status in statuses]))


SENTENCES: dict[Status, str] = {
    Status.RUNNING: "The fit is still running.",
    Status.CONVERGED: "Converged: the log-likelihood changed by no more than the tolerance.",
    Status.STEPS_RAN_OUT: (
        "The steps ran out before the tolerance was met; the parameters are usable. "
        "Raise max_steps or tol."
    ),
    Status.COLLAPSED: (
        "A component collapsed: its covariance became singular or it lost all its samples. Likely "
        "causes, in order: more components than the data supports, repeated rows or columns that "
        "determine each other, an unlucky start. Try more restarts (n_restarts), fewer "
        "components, a simpler covariance model, or a ridge such as ridge=1e-6."
    ),
    Status.NON_FINITE_DATA: (
        "The data hold NaN or infinite values, or values whose squares overflow. Drop or repair "
        "those rows (a sample weight of zero drops a row), or rescale the columns."
    ),
    Status.NON_FINITE_PARAMETERS: (
        "The parameters became NaN or infinite although the data are finite. Likely causes, in "
        "order: a step size that is too large (gradient fits), a start that is not finite, columns "
        "whose scales differ by more than the precision holds. Try a smaller step, float64, or "
        "rescaled columns."
    ),
    Status.OUTRUN: (
        "Left a race: after as many steps other restarts had a higher log-likelihood, so this one "
        "was not run to its end."
    ),
    Status.DEGENERATE: (
        "Ended in a spike: a component on fewer samples than its covariance takes, or on few and "
        "far thinner than the others, or as thin as the floor allows. The likelihood is high there "
        "because it is unbounded, not because the fit is good. Try more restarts (n_restarts), "
        "fewer components, or a simpler covariance model."
    ),
    Status.INHERITED: (
        "Every start ended in a spike, failed, or ended below the fit of a simpler mixture that is "
        "a special case of this one; that fit is kept."
    ),
    Status.INTERRUPTED: (
        "Interrupted before the tolerance was met; the parameters are the best so far, and usable."
    ),
}


def describe(status: Any) -> str:
    """Say in one or two sentences what a status means and what to try.

    Args:
      status: a ``Status``, or the integer (array) a ``FitResult`` carries.

    >>> describe(1)
    'Converged: the log-likelihood changed by no more than the tolerance.'
    """
    return SENTENCES[Status(int(status))]


def tally(statuses: Iterable[Any]) -> str:
    """Count statuses in words.

    >>> tally([1, 1, 3])
    '2 converged, 1 collapsed'
    """
    codes = [int(code) for code in statuses]
    return ", ".join(
        f"{codes.count(status)} {status.name.lower().replace('_', ' ')}"
        for status in Status
        if status in codes
    )


def score(
    log_likelihood: Array, status: Array, eligible: tuple[Status, ...] = VALID
) -> Float[Array, "R"]:
    """What outcomes are compared by: the log-likelihood, -inf for one that is not eligible."""
    may_win = among(status, eligible) & jnp.isfinite(log_likelihood)
    return jnp.where(may_win, log_likelihood, -jnp.inf)
