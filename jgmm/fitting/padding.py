"""Padding: sizes that many problems share, so that one compiled program serves them all.

XLA compiles a program for every shape, which takes longer than most fits. So a fit fills its arrays
up: samples with rows of weight zero, components with weight zero, and starts that are never run.
What is filled up is taken away again from the result. A large problem, in which the padding would
cost more than a compilation, keeps its own numbers of components and starts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from jgmm._core import budget
from jgmm._core.compilation import at_top_level
from jgmm._data.samples import Samples, fill_up, padded_length
from jgmm._data.validation import checked_labels
from jgmm.covariance.models import CovarianceModel
from jgmm.em import exponential_family
from jgmm.em.options import Options
from jgmm.fitting.results import FitResult
from jgmm.mixture.mixture import Mixture


@dataclass(frozen=True)
class Shapes:
    """The sizes of the arrays of a fit.

    Attributes:
      rows_are_padded: whether the samples are filled up with rows of weight zero.
      n_components: components of the program, K or more.
      room: starts that the program has room for, or None for exactly as many as there are.
    """

    rows_are_padded: bool
    n_components: int
    room: int | None


def shapes_for(
    samples: Samples, n_components: int, options: Options, padded_size: int | None = None
) -> Shapes:
    """Choose the sizes of the arrays of a fit.

    Args:
      samples, n_components, options: as for ``in_memory.fit_unchecked``.
      padded_size: the number of components, if the caller has chosen it.

    Returns:
      The sizes. Inside a transformation nothing is padded: its program is compiled anyway. Starts
      that are given, and races, keep their numbers.
    """
    if not at_top_level():
        return Shapes(False, padded_size or n_components, None)
    drawn = isinstance(options.init, str) and not options.race
    size = padded_size or padded_components(n_components)
    if drawn and is_small(samples, size, options.entry):
        room = budget.MIN_PADDED_STARTS
        while room < min(options.n_starts, budget.MAX_STARTS_AT_ONCE):
            room *= budget.PADDED_ROWS_FACTOR
        return Shapes(True, size, room)
    return Shapes(True, padded_size or n_components, None)


def padded_components(n_components: int) -> int:
    """Return the number of components that a small problem is filled up to.

    >>> padded_components(3), padded_components(9), padded_components(10)
    (9, 9, 18)
    """
    size = budget.MIN_PADDED_COMPONENTS
    while size < n_components:
        size *= 2
    return size


def is_small(samples: Samples, n_components: int, entry: CovarianceModel) -> bool:
    """Return whether a step of a batch of runs takes so little that padding costs next to nothing.

    Args:
      samples: the samples, filled up or not.
      n_components: components of the program.
      entry: the covariance model.
    """
    rows, d = padded_length(samples.n_samples), samples.n_features
    work = exponential_family.cost_per_step(entry, d, n_components, rows)
    return budget.MIN_BATCH * work <= budget.SMALL_WORK


def with_padded_labels(options: Options, samples: Samples, n_rows: int) -> Options:
    """Fill up labels that are given as a start, as ``padded_rows`` fills up the samples.

    Args:
      options: ``init`` is read.
      samples: before they were filled up.
      n_rows: the number of rows they have been filled up to.

    Raises:
      DataError: see ``checked_labels``.
    """
    if isinstance(options.init, str | Mixture):
        return options
    labels = checked_labels(options.init, samples.n_samples, samples.weights)
    return replace(options, init=fill_up(labels, n_rows, -1))


def without_padding(result: FitResult, n_components: int | None, n_starts: int) -> FitResult:
    """Take from a result the components and the starts that were filled up.

    Args:
      result: of a program with more components and more starts.
      n_components: K, or None to leave the components as they are.
      n_starts: R.
    """
    # On the host, so that nothing is compiled.
    host = jax.device_get(result)

    def leading(tree: Any, size: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[:size] if np.ndim(leaf) else leaf, tree)

    mixture = host.mixture if n_components is None else leading(host.mixture, n_components)
    return jax.device_put(replace(host, mixture=mixture, restarts=leading(host.restarts, n_starts)))
