"""Checks of a fitting problem, before any work starts."""

from __future__ import annotations

import numpy as np

from jgmm._core.errors import DataError
from jgmm._core.pytree import is_traced
from jgmm._data.samples import Samples, check_counts
from jgmm.covariance.storage import Spherical
from jgmm.em.options import Options


def check_problem(samples: Samples, n_components: int, options: Options) -> None:
    """Check that a mixture can be fitted to samples, before any work starts.

    Args:
      samples: the samples; their labels, if any, are -1 where unknown.
      n_components: K.
      options: the number of starts is checked.

    Raises:
      DataError: see ``samples.check_counts``; or a label is K or larger.
    """
    check_counts(samples, n_components, options.n_starts)
    check_labels(samples, n_components)


def check_labels(samples: Samples, n_components: int) -> None:
    """Check that known labels are components; inside a transformation nothing is checked.

    Raises:
      DataError: a label is K or larger.
    """
    if samples.labels is not None and not is_traced(samples.labels):
        highest = int(samples.labels.max())
        if highest >= n_components:
            raise DataError(
                f"labels hold {highest}; with {n_components} components they go from 0 to "
                f"{n_components - 1}, and are -1 where unknown."
            )


def constants_matter(options: Options) -> bool:
    """Return whether a constant column makes covariances singular: for matrices without a ridge."""
    bare = not is_traced(options.ridge) and not np.all(np.asarray(options.ridge))
    return bare and options.entry.storage is not Spherical


def check_constant_columns(samples: Samples, scaled: Samples, matters: bool) -> None:
    """Check that no column is constant, which would make every covariance singular.

    Args:
      samples, scaled: the samples, and the same centred and scaled. If either is traced, nothing is
        checked.
      matters: whether a constant column makes covariances singular, see ``constants_matter``. If
        not, nothing is checked.

    Raises:
      DataError: with the numbers of the constant columns.
    """
    if not matters or is_traced(samples, scaled):
        return
    refuse_constant_columns(constant_columns(samples))


def refuse_constant_columns(constant: np.ndarray) -> None:
    """Raise a ``DataError`` with the numbers of the columns that are constant, if there are any.

    Args:
      constant: which columns are, (D,).
    """
    if constant.any():
        listed = ", ".join(map(str, np.flatnonzero(constant)))
        raise DataError(
            f"column(s) {listed} of x are constant: a covariance with them is singular. Drop them, "
            "or give a ridge such as ridge=1e-6."
        )


def constant_columns(samples: Samples) -> np.ndarray:
    """Find the columns in which all samples of positive weight have the same value, (D,).

    It compares on the host, so that nothing is compiled.
    """
    x = np.asarray(samples.x)
    counted = x if samples.weights is None else x[np.asarray(samples.weights) > 0]
    return np.asarray((counted == counted[:1]).all(axis=0))
