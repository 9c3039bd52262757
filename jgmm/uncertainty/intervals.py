"""Standard errors and confidence intervals of a mixture's parameters: the records that hold them.

``jgmm.uncertainty.bootstrap`` computes them by refitting resampled data,
``jgmm.uncertainty.information`` from the curvature of the log-likelihood. Both report weights,
means and variances, ``Parameters``. Derivatives (``jgmm.differentiation.influence``) are reported
of whole covariance matrices, ``DenseParameters``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from jgmm.mixture.mixture import Mixture


class Parameters(NamedTuple):
    """Weights (K,), means (K, D) and variances (K, D), or one number for each, such as its error.

    It makes no D × D matrices, so it serves models with many columns.
    """

    weights: Any
    means: Any
    variances: Any


def parameters_of(mixture: Mixture) -> Parameters:
    """Return the weights, means and variances of a mixture of any covariance model.

    The variances are the diagonals of the covariances. The function also works under ``jit``,
    ``vmap`` and ``grad``.

    >>> import jgmm
    >>> one = jgmm.make_mixture([1.0], [[0.0, 1.0]], [4.0], "spherical")
    >>> parameters_of(one).variances.tolist()
    [[4.0, 4.0]]
    """
    return Parameters(mixture.weights, mixture.means, mixture.variances)


class DenseParameters(NamedTuple):
    """Weights (K,), means (K, D) and covariance matrices (K, D, D), or one number for each."""

    weights: Any
    means: Any
    covariances: Any


def dense_parameters_of(mixture: Mixture) -> DenseParameters:
    """Return the weights, means and covariance matrices of a mixture of any covariance model.

    The function also works under ``jit``, ``vmap`` and ``grad``.

    >>> import jgmm
    >>> one = jgmm.make_mixture([1.0], [[0.0, 1.0]], [4.0], "spherical")
    >>> dense_parameters_of(one).covariances.tolist()
    [[[4.0, 0.0], [0.0, 4.0]]]
    """
    return DenseParameters(mixture.weights, mixture.means, mixture.covariances)


# What tables say below the observed fractions.
OBSERVED = (
    "Observed: the fraction of the information that samples of known components would hold. Where "
    "it is small, the interval is too short unless there are many samples."
)


def fraction_of(known: Parameters, error: Parameters) -> Parameters:
    """Return the observed fraction of information: (standard error with known components / its)².

    It is one where there is no error, as of a weight that is fixed.
    """
    pairs = zip(known, error, strict=True)
    return Parameters(*(np.where(e > 0, a / np.where(e > 0, e, 1), 1) ** 2 for a, e in pairs))


@dataclass(frozen=True)
class Uncertainty:
    """Estimates with standard errors and confidence intervals, as NumPy arrays in float64.

    Attributes:
      estimate: the parameters of the mixture.
      standard_error: standard error of each parameter.
      low, high: lower and upper ends of the intervals.
      level: probability that such an interval contains the true value, if its method is right.
      method: name of the method, for tables.
      observed_fraction: the information that the samples hold about each parameter, as a fraction
        of what they would hold if the component of each were known; from 0 to 1
        (``jgmm.uncertainty.information`` has the formula). Where it is small, components overlap,
        and the interval is too short unless there are many samples: it is as uncertain as the same
        fraction of the samples would make it with known components.
    """

    estimate: Parameters
    standard_error: Parameters
    low: Parameters
    high: Parameters
    level: float
    method: str
    observed_fraction: Parameters

    def rows(self, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """Return one row for each parameter, for tables.

        Args:
          columns: names of the D columns; by default ``x0``, ``x1``, ….

        Returns:
          Mappings with ``parameter`` ("weight", "mean", "variance"), ``component``, ``column``
          (empty for a weight), ``estimate``, ``standard_error``, ``low``, ``high`` and
          ``observed_fraction``.
        """
        names = columns or [f"x{d}" for d in range(self.estimate.means.shape[1])]
        keys = ("estimate", "standard_error", "low", "high", "observed_fraction")
        parts = (getattr(self, key) for key in keys)
        table = []
        for parameter, *values in zip(("weight", "mean", "variance"), *parts, strict=True):
            for index in np.ndindex(values[0].shape):
                numbers = (float(value[index]) for value in values)
                column = names[index[1]] if len(index) > 1 else ""
                row = {"parameter": parameter, "component": index[0], "column": column}
                table.append(row | dict(zip(keys, numbers, strict=True)))
        return table

    def __str__(self) -> str:
        """Return the rows as a text table."""
        heads = ("estimate", "std. error", "low", "high", "observed")
        lines = [" " * 24 + "".join(f"{head:>14s}" for head in heads)]
        for row in self.rows():
            name = f"{row['parameter']} {row['component']} {row['column']}".strip()
            numbers = (row[key] for key in ("estimate", "standard_error", "low", "high"))
            text = f"{name:24s}" + "".join(f"{number:14.6g}" for number in numbers)
            lines.append(f"{text}{row['observed_fraction']:14.2f}")
        lines.append(f"{self.method}; intervals of {100 * self.level:g} %")
        return "\n".join([*lines, OBSERVED])
