"""Checks of a fitting problem, before any work starts."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jgmm._core.compilation import jit
from jgmm._core.errors import DataError
from jgmm._core.pytree import is_traced
from jgmm._data.samples import Samples, check_counts
from jgmm.em.options import Options


def check_problem(samples: Samples, n_components: int, options: Options) -> None:
    """Check that a mixture can be fitted to samples, before any work starts.

    Args:
      samples: the samples; their labels, if any, are -1 where unknown.
      n_components: K.
      options: ``n_restarts`` and ``max_steps`` are checked.

    Raises:
      DataError: see ``samples.check_counts``; or a label is K or larger; or the number of steps is
        negative.
    """
    check_counts(samples, n_components, options.n_restarts)
    check_labels(samples, n_components)
    if options.max_steps < 0:
        raise DataError(f"max_steps must be at least zero; it is {options.max_steps}.")


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


def check_constant_columns(samples: Samples, scaled: Samples, matters: bool) -> None:
    """Check that no column is constant, which would make every covariance singular.

    Args:
      samples, scaled: the samples, and the same centred and scaled. If either is traced, nothing is
        checked.
      matters: whether a constant column makes covariances singular, given the covariance model and
        the ridge. If not, nothing is checked.

    Raises:
      DataError: with the numbers of the constant columns.
    """
    if not matters or is_traced(samples, scaled):
        return
    constant = np.flatnonzero(_constant_columns(samples)).tolist()
    if constant:
        raise DataError(
            f"column(s) {', '.join(map(str, constant))} of x are constant: a covariance with them "
            "is singular. Drop them, or give a ridge such as ridge=1e-6."
        )


@jit
def _constant_columns(samples: Samples) -> Array:
    """Find the columns in which all samples of positive weight have the same value, (D,)."""
    weights = samples.weights
    first = samples.x[0] if weights is None else samples.x[jnp.argmax(weights > 0)]
    same = samples.x == first[None, :]
    return (same if weights is None else same | (weights == 0)[:, None]).all(axis=0)
