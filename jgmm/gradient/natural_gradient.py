"""The natural gradient, which is EM in steps of any size and from any part of the samples.

In the metric of the complete data (``jgmm.gradient.fisher_metric``), and in the expectations m of
its sufficient statistics as coordinates, the gradient of the mean log-likelihood is the difference
between what an E-step observes, m̂, and what the mixture expects:

    m' = m + ρ (m̂ − m),    m = (πₖ, πₖ μₖ, πₖ (Σₖ + μₖ μₖᵀ))

and the M-step turns m' into parameters. With ρ = 1 and all samples it is a step of EM; with smaller
ρ and a mini-batch it is stochastic gradient ascent in EM's own metric, which needs no step size to
be tuned for the units or the shapes of the components.

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
    """Steps along the natural gradient, as an ``Optimizer``.

    Attributes:
      rate: ρ, above zero and at most one; or a schedule, ``number of the step () -> ρ``, such as
        ``decaying(…)`` or one of optax. With mini-batches it has to decay for the fit to settle.

    A mixture of statistics that samples could have had is one of those they could have, so every
    step leads to a mixture; beyond ρ = 1 that is not so.
    """

    rate: float | Callable[[Any], Any] = 1.0

    def __post_init__(self) -> None:
        """Refuse a rate that may leave the mixtures.

        Raises:
          DataError: zero or less, or more than one.
        """
        if not callable(self.rate) and not 0 < self.rate <= 1:
            raise DataError(f"rate must be above 0 and at most 1; it is {self.rate}.")

    def init(self, point: Any) -> Array:
        """The number of steps taken."""
        del point
        return jnp.asarray(0)

    def step(self, memory: Array, here: Evaluation) -> Update:
        """One step, without a further pass."""
        mixture, observed = here.mixture, here.statistics
        rate = self.rate(memory) if callable(self.rate) else self.rate
        rate = jnp.asarray(rate, observed.counts.dtype)
        expected = expected_statistics(mixture, here.samples.total_weight(), observed.center)
        blend = jax.tree.map(lambda e, o: (1 - rate) * e + rate * o, expected, observed)
        updated = maximize(replace(blend, center=observed.center), mixture.covariance)
        return Update(here.point_of(updated), memory + 1)


def decaying(first: float = 1.0, power: float = 0.6, delay: float = 2.0) -> Callable[[Any], Array]:
    """A schedule for mini-batches: ρ = first · (1 + t / delay)^−power at step t.

    Args:
      first: ρ of the first step.
      power: above 1/2, so that noise averages out, and at most one, so that steps never end.
      delay: steps until the decay begins to show.

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
