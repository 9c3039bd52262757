"""A grid of fits: every number of components under every model, none below its special cases.

Mixtures are nested: a mixture of K components is a special case of one of K + 1, and a mixture
under one covariance model is a special case of those under a more general model. So the maximal
likelihood cannot fall from a special case to the general case. Where it falls between fits from
random starts, EM has missed an optimum. Therefore grid points are fitted in order, the simplest
first, each from starts of its own and in addition from the fits of its special cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from jgmm._core import budget
from jgmm._core.status import Status
from jgmm._data.distinct_rows import with_distinct_rows
from jgmm._data.samples import Samples
from jgmm.covariance import nesting
from jgmm.covariance.models import CovarianceModel, model
from jgmm.em import exponential_family
from jgmm.em.options import Options
from jgmm.fitting.in_memory import fit_unchecked
from jgmm.fitting.padding import is_small, padded_components, shapes_for
from jgmm.fitting.restarts import Progress, ProgressCallback
from jgmm.fitting.results import FitResult
from jgmm.initialization.draw import ExtraStarts
from jgmm.mixture.mixture import Mixture
from jgmm.selection import nested_starts

# Number of components, and name of the covariance model.
GridPoint = tuple[int, str]

# Starts from special cases that the programs of every table have room for: the splits of a fit with
# one component less, and the fits of simpler models.
EXTRA_ROOM = nested_starts.MAX_SPLITS + 4
# A log-likelihood counts as lower than another if the difference is more than this many rounding
# errors of it.
ROUNDINGS = 32


def fit_grid(
    key: Array,
    samples: Samples,
    counts: Sequence[int],
    models: Sequence[str],
    options: Options,
    progress: ProgressCallback | None = None,
) -> dict[GridPoint, FitResult]:
    """Fit every grid point, from R starts of its own and from its special cases in the grid.

    Args:
      key, samples, progress: as for ``fit_unchecked``.
      counts: numbers of components.
      models: names of covariance models.
      options: of all fits, but the covariance model, which is that of the grid point.

    Returns:
      The result of each grid point. A mixture has as many components as the program that fitted
      it (``padded_size``); those beyond K have weight zero. Outcomes are those of its own R starts,
      then those of the starts from special cases.

      No log-likelihood is below that of a special case that ended valid: where no start ended as
      high, the result is the special case itself, with the status ``INHERITED``. With equal
      weights, a prior or labels, a mixture of fewer components is no special case. With a prior,
      log-likelihood plus log prior is compared.
    """
    samples = with_distinct_rows(samples)  # once for all fits
    entries = nesting.simplest_first([model(name) for name in models])
    within = {entry: nesting.largest_within(entry, entries) for entry in entries}
    points = [(k, entry) for entry in entries for k in sorted(counts)]
    padded = padded_size(counts, models, samples, options.n_starts)
    n_most = n_extra(counts, models, options.init)
    # Equal weights change with the number of components, a prior counts once for each component,
    # and with known labels, duplicated components are not interchangeable.
    counts_are_nested = (
        not options.equal_weights and options.prior is None and samples.labels is None
    )
    results: dict[GridPoint, FitResult] = {}
    for i, (k, entry) in enumerate(points):
        special = [(k, each.name) for each in within[entry]]
        if k > min(counts):
            special.append((points[i - 1][0], entry.name))  # the next smaller count
        nested = _from_special_cases(
            {point: results[point] for point in special}, k, entry, padded[k], counts_are_nested
        )
        own = replace(options, covariance=entry.name)
        takes_any_number = shapes_for(samples, k, own, padded[k]).room is not None
        n_more = len(nested.starts) if takes_any_number else n_most
        result = fit_unchecked(
            key,
            samples,
            k,
            replace(own, n_restarts=options.n_starts + n_more),
            padded_size=padded[k],
            extra=_extra_starts(nested.starts, n_more, entry, padded[k], samples),
            progress=_grid_progress(progress, i, len(points), options.max_steps),
        )
        results[k, entry.name] = _at_least_nested(result, nested.fits)
    return results


def n_extra(counts: Sequence[int], models: Sequence[str], init: Any) -> int:
    """Return the largest number of starts that a grid point has in addition to its own.

    In large problems all grid points have that number, so that all fits of one model are one
    program. It is zero where starts are given instead of drawn.
    """
    if not isinstance(init, str):
        return 0
    entries = {model(name) for name in models}
    most_within = max(len(nesting.largest_within(entry, entries)) for entry in entries)
    return most_within + min(max(counts) - 1, nested_starts.MAX_SPLITS)


class NestedFit(NamedTuple):
    """The fit of a special case of a grid point.

    Attributes:
      mixture: its parameters, written as a mixture of the grid point's model and size.
      log_likelihood, log_prior: of these parameters, in nats.
    """

    mixture: Mixture
    log_likelihood: float
    log_prior: float

    @property
    def objective(self) -> float:
        """Log-likelihood plus log prior, by which grid points are compared, in nats."""
        return self.log_likelihood + self.log_prior


class NestedStarts(NamedTuple):
    """The special cases of a grid point that ended valid, and the starts made from them."""

    fits: list[NestedFit]
    starts: list[Mixture]


def _from_special_cases(
    special: dict[GridPoint, FitResult],
    k: int,
    entry: CovarianceModel,
    n_padded: int,
    counts_are_nested: bool,
) -> NestedStarts:
    """Return what the special cases of a grid point contribute to it.

    Args:
      special: their results.
      k: number of components of the grid point.
      entry: its covariance model.
      n_padded: number of components that its program is compiled for.
      counts_are_nested: whether a mixture of fewer components is a special case of one of more.
    """
    fits, starts = [], []
    for (n, _), result in special.items():
        if not Status(int(result.status)).is_valid:
            continue
        mixture = nested_starts.pad_components(
            nested_starts.as_model(result.mixture, entry), n_padded
        )
        if n == k:
            starts.append(mixture)
        if n == k - 1:
            starts += nested_starts.splits(mixture, n)
        if n == k or counts_are_nested:
            for unused in range(n, k):
                mixture = nested_starts.duplicate_heaviest(mixture, unused)
            values = float(result.log_likelihood), float(result.log_prior)
            fits.append(NestedFit(mixture, *values))
    return NestedStarts(fits, starts)


def _extra_starts(
    starts: list[Mixture], size: int, entry: CovarianceModel, n_padded: int, samples: Samples
) -> ExtraStarts | None:
    """Return the starts in an array with room for ``size``, filled up with placeholders in front.

    The room is the same for most tables, so that they share programs.
    """
    if not size:
        return None
    size = max(size, EXTRA_ROOM)
    unit = nested_starts.placeholder(entry, n_padded, samples.n_features, samples.x.dtype)
    mixtures = nested_starts.stack([unit] * (size - len(starts)) + starts)
    return ExtraStarts(mixtures, len(starts))


def _at_least_nested(result: FitResult, fits: list[NestedFit]) -> FitResult:
    """Return the result, or the best of its special cases where that one is higher."""
    if not fits:
        return result
    best = max(fits, key=lambda fit: fit.objective)
    reached, history = float(result.objective), np.array(result.history)
    slack = ROUNDINGS * float(np.finfo(history.dtype).eps) * abs(best.objective)
    if Status(int(result.status)).is_valid and reached >= best.objective - slack:
        return result
    history[0], history[1:] = best.objective, np.nan
    mixture, log_likelihood, log_prior, history, status, n_steps, collapsed = jax.device_put(
        (
            best.mixture,
            *np.asarray([best.log_likelihood, best.log_prior], history.dtype),
            history,
            *(np.asarray(n, np.asarray(result.status).dtype) for n in (Status.INHERITED, 0, -1)),
        )
    )
    return replace(
        result,
        mixture=mixture,
        log_likelihood=log_likelihood,
        log_prior=log_prior,
        status=status,
        n_steps=n_steps,
        history=history,
        collapsed=collapsed,
    )


def padded_size(
    counts: Sequence[int], models: Sequence[str], samples: Samples, n_restarts: int
) -> dict[int, int]:
    """Return for each number of components K the number that its program is compiled for.

    Where compiling costs more than computing with components of weight zero, one program serves all
    K: in a small problem a program that other tables and fits use, too, and else one of the largest
    size. Otherwise there is one program for each power of two, which at most doubles the
    computation.
    """
    largest = max(counts)
    if all(is_small(samples, padded_components(largest), model(name)) for name in models):
        return dict.fromkeys(counts, padded_components(largest))
    if _work(counts, models, samples, n_restarts) <= budget.PADDING_WORK:
        return dict.fromkeys(counts, largest)
    return {k: min(largest, 1 << (k - 1).bit_length()) for k in counts}


def _work(counts: Sequence[int], models: Sequence[str], samples: Samples, n_restarts: int) -> int:
    """Return the multiplications in a step of all restarts of the largest grid point, roughly."""
    d, n = samples.n_features, samples.n_samples
    return n_restarts * max(
        exponential_family.cost_per_step(model(name), d, max(counts), n) for name in models
    )


def _grid_progress(
    progress: ProgressCallback | None, index: int, n_points: int, max_steps: int
) -> ProgressCallback | None:
    """Return a callback for one grid point that counts steps through the whole grid."""
    if progress is None:
        return None

    def report(own: Progress) -> None:
        step = own.step if own.n_running else max_steps
        progress(own._replace(step=index * max_steps + step, max_steps=n_points * max_steps))

    return report
