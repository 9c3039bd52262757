"""How sure the parameters of a mixture are: standard errors and intervals, and the form they take.

``jgmm.uncertainty.bootstrap`` finds them by refitting resampled data,
``jgmm.uncertainty.information`` from the curvature of the log-likelihood. Both speak of weights,
means and variances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jgmm.mixture.mixture import Mixture


class Parameters(NamedTuple):
    """What is known of a mixture, or how well: weights (K,), means (K, D), variances (K, D)."""

    weights: Any
    means: Any
    variances: Any


def parameters_of(mixture: Mixture) -> Parameters:
    """Weights, means, and the diagonals of the covariances, whatever the storage."""
    return Parameters(mixture.weights, mixture.means, mixture.variances)


@dataclass(frozen=True)
class Uncertainty:
    """Estimates, their standard errors and intervals; NumPy arrays in float64.

    Attributes:
      estimate: the parameters of the mixture.
      standard_error: of each of them.
      low, high: ends of the intervals.
      level: how often such an interval holds the truth, if its method is right.
      method: where it comes from.
    """

    estimate: Parameters
    standard_error: Parameters
    low: Parameters
    high: Parameters
    level: float
    method: str

    def rows(self, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """A row for each parameter, for tables.

        Args:
          columns: names of the D columns, ``x0``, ``x1``, … by default.

        Returns:
          Mappings with ``parameter`` ("weight", "mean", "variance"), ``component``, ``column``
          (empty for a weight), ``estimate``, ``standard_error``, ``low`` and ``high``.
        """
        names = columns or [f"x{d}" for d in range(self.estimate.means.shape[1])]
        every = (self.estimate, self.standard_error, self.low, self.high)
        table = []
        for word, *values in zip(("weight", "mean", "variance"), *every, strict=True):
            for place in np.ndindex(values[0].shape):
                numbers = (float(value[place]) for value in values)
                column = names[place[1]] if len(place) > 1 else ""
                row = {"parameter": word, "component": place[0], "column": column}
                keys = ("estimate", "standard_error", "low", "high")
                table.append(row | dict(zip(keys, numbers, strict=True)))
        return table

    def __str__(self) -> str:
        """The rows as text."""
        heads = ("", "estimate", "std. error", "low", "high")
        lines = [f"{heads[0]:24s}" + "".join(f"{head:>14s}" for head in heads[1:])]
        for row in self.rows():
            name = f"{row['parameter']} {row['component']} {row['column']}".strip()
            numbers = (row[key] for key in ("estimate", "standard_error", "low", "high"))
            lines.append(f"{name:24s}" + "".join(f"{number:14.6g}" for number in numbers))
        return "\n".join([*lines, f"{self.method}; intervals of {100 * self.level:g} %"])


def to_host(parameters: Parameters) -> Parameters:
    """The same as NumPy arrays in float64."""
    return Parameters(*(np.asarray(value, np.float64) for value in parameters))
