"""Natural gradient ascent: EM with any step size, on all samples or on mini-batches.

In the metric of the complete data (``jgmm.gradient.fisher_metric``), and in the expectations m of
its sufficient statistics as coordinates, the gradient of the mean log-likelihood is the difference
between the statistics m̂ of the E-step and those the mixture expects, m:

    m' = m + ρ (m̂ − m),    m = (πₖ, πₖ μₖ, πₖ (Σₖ + μₖ μₖᵀ))

and the M-step turns m' into parameters. With ρ = 1 and all samples this is a step of EM. With
smaller ρ and a mini-batch it is stochastic gradient ascent in EM's own metric; its step size need
not be tuned to the units of the data or the shapes of the components.

References: Sato & Ishii (2000), "On-line EM algorithm for the normalized Gaussian network"; Amari
(1998); Cappé & Moulines (2009), for decaying steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jgmm._core.errors import DataError
from jgmm.em.m_step import maximize
from jgmm.em.statistics import expected_statistics
from jgmm.gradient.optimizer import Evaluation, Update


@dataclass(frozen=True)
class NaturalGradient:
    """Natural gradient ascent, as an ``Optimizer``.

    Attributes:
      rate: ρ, above zero and at most one; or a schedule, ``number of the step () -> ρ``, such as
        ``decaying(…)`` or one of optax. With mini-batches it has to decay for the fit to settle.

    Up to ρ = 1, m' is a convex combination of two sets of statistics that some samples have, so it
    is one as well, and every step leads to a mixture. Beyond ρ = 1 this need not hold.

    >>> import jax, jgmm
    >>> x = [[0.0], [0.1], [0.2], [5.0], [5.1], [5.3]]
    >>> options = {"covariance": "tied", "init": "points"}
    >>> em = NaturalGradient()
    >>> result = jgmm.gradient.fit(jax.random.key(0), x, 2, optimizer=em, **options)
    >>> jgmm.Status(int(result.status)).name
    'CONVERGED'
    """

    rate: float | Callable[[Any], Any] = 1.0

    def __post_init__(self) -> None:
        """Check that the rate keeps every step among the mixtures.

        Raises:
          DataError: a rate of zero or less, or of more than one.
        """
        if not callable(self.rate) and not 0 < self.rate <= 1:
            raise DataError(f"rate must be above 0 and at most 1; it is {self.rate}.")

    def init(self, point: Any) -> Array:
        """Return the number of steps taken, zero: the optimiser's state."""
        del point
        return jnp.asarray(0)

    def step(self, state: Array, evaluation: Evaluation) -> Update:
        """Take one step, without a further pass over the samples."""
        mixture, observed = evaluation.mixture, evaluation.statistics
        rate = self.rate(state) if callable(self.rate) else self.rate
        rate = jnp.asarray(rate, observed.counts.dtype)
        expected = expected_statistics(mixture, evaluation.samples.total_weight(), observed.center)
        blend = jax.tree.map(lambda e, o: (1 - rate) * e + rate * o, expected, observed)
        updated = maximize(replace(blend, center=observed.center), mixture.covariance)
        return Update(evaluation.to_point(updated), state + 1)


def decaying(first: float = 1.0, power: float = 0.6, delay: float = 2.0) -> Callable[[Any], Array]:
    """Return a decaying step-size schedule: ρ = first · (1 + t / delay)^−power at step t.

    Args:
      first: ρ of the first step.
      power: above 1/2, so that noise averages out, and at most one, so that the sum of all steps is
        infinite.
      delay: number of steps after which the decay sets in.

    Raises:
      DataError: numbers out of these ranges.

    >>> float(decaying(delay=1.0)(0))
    1.0
    """
    if not (0 < first <= 1 and 0.5 < power <= 1 and delay > 0):
        raise DataError(
            "first must be in (0, 1], power in (0.5, 1] and delay above 0; they are "
            f"{first}, {power} and {delay}."
        )

    def rate(step: Any) -> Array:
        return first * (1 + jnp.asarray(step, float) / delay) ** -power

    return rate
