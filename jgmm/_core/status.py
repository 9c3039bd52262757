"""Status codes of a fit, and the sentences that explain them.

Inside ``jit`` a fit carries an integer code, so that under ``vmap`` one restart fails alone.
Outside, on the host, ``describe`` turns the code into sentences, and
``jgmm.fitting.results.raise_if_failed`` turns it into an exception.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Status(IntEnum):
    """Status of one fit: how it ended, or that it is still running."""

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
        """Whether the fit may be chosen as the best: an optimum, or a point on the way to one."""
        return self in VALID

    @property
    def is_usable(self) -> bool:
        """Whether one can compute with the parameters, if only to see what is wrong with them."""
        return self in USABLE


VALID = (Status.CONVERGED, Status.STEPS_RAN_OUT, Status.INHERITED, Status.INTERRUPTED)
USABLE = (*VALID, Status.DEGENERATE)


def among(codes: Array, statuses: Iterable[Status]) -> Bool[Array, "..."]:
    """Return for each code whether it is one of the given statuses.

    >>> among(jnp.asarray([1, 3]), VALID).tolist()
    [True, False]
    """
    return jnp.isin(codes, jnp.asarray([int(status) for status in statuses]))


# True with a ridge and without one: where an error is raised, nobody knows any more which it was.
RIDGE_ADVICE = "a larger ridge (ridge=1e-6 where there was none)"

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
        f"components, a simpler covariance model, or {RIDGE_ADVICE}."
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
        "Ended in a spike: a component on fewer distinct rows than its covariance takes, or on few "
        "that are so close by chance, or as thin as the ridge or the floor allows. The likelihood "
        "is high there because it is unbounded, not because the fit is good. Try more restarts "
        "(n_restarts), fewer components, or a simpler covariance model."
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
    """Describe in one or two sentences what a status means and what to try.

    Args:
      status: a ``Status``, or the integer (array) that a ``FitResult`` carries.

    >>> describe(1)
    'Converged: the log-likelihood changed by no more than the tolerance.'
    """
    return SENTENCES[Status(int(status))]


def tally(statuses: Iterable[Any]) -> str:
    """Count statuses, in words.

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
    """Return the number by which fits are compared: the log-likelihood, or -inf if not eligible.

    Args:
      log_likelihood: of R fits, in nats, (R,).
      status: their status codes, (R,).
      eligible: the statuses of fits that may be chosen.
    """
    may_win = among(status, eligible) & jnp.isfinite(log_likelihood)
    return jnp.where(may_win, log_likelihood, -jnp.inf)
