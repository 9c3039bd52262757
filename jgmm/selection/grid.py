"""Fits of every number of components under every model, none worse than its special cases.

Mixtures are nested: of K components in those of K + 1, and under a covariance model in those under
a freer one. So likelihoods must not fall along either, and where EM from random starts says they
do, it has missed an optimum. Cells are filled from the simplest on. Each is fitted from random
starts and, beside them, from the fits of its special cases.
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
from jgmm._data.samples import Samples
from jgmm.covariance import nesting
from jgmm.covariance.models import CovarianceModel, model
from jgmm.em import exponential_family
from jgmm.em.options import Options
from jgmm.fitting.in_memory import fit_unchecked
from jgmm.fitting.restarts import Progress, ProgressCallback
from jgmm.fitting.results import FitResult
from jgmm.initialization.draw import ExtraStarts
from jgmm.mixture.mixture import Mixture
from jgmm.selection import nested_starts

GridPoint = tuple[int, str]


# A log-likelihood is lower than another if by more than so many roundings of it.
ROUNDINGS = 32


def fit_grid(
    key: Array,
    samples: Samples,
    counts: Sequence[int],
    models: Sequence[str],
    options: Options,
    progress: ProgressCallback | None = None,
) -> dict[GridPoint, FitResult]:
    """Fit every cell, from R starts of its own and from its special cases among the others.

    Args:
      key, samples, progress: as for ``fit_unchecked``.
      counts: numbers of components.
      models: names of covariance models.
      options: of the fits; their model is that of the cell.

    Returns:
      Results by number of components and name of the model. Mixtures have the components of the
      program that fitted them (``padded_size``), those beyond K of weight zero. Outcomes are those of the
      R starts, then of those from special cases. A log-likelihood is nowhere below that of a
      special case that ended valid: where no start ended as high, the result is that special case,
      as ``INHERITED``. With equal weights, a prior or labels fewer components are no special
      case; and with a prior it is log-likelihood and log prior together that are not below.
    """
    entries = nesting.simplest_first([model(name) for name in models])
    within = {entry: nesting.largest_within(entry, entries) for entry in entries}
    cells = [(k, entry) for entry in entries for k in sorted(counts)]
    padded = padded_size(counts, models, samples, options.n_restarts)
    further = n_extra(counts, models, options.init)
    # Equal weights are other weights for more components, a prior counts once for each, and a
    # label knows one from its double.
    more_is_freer = not options.equal_weights and options.prior is None and samples.labels is None
    found: dict[GridPoint, FitResult] = {}
    for i, (k, entry) in enumerate(cells):
        special = [(k, each.name) for each in within[entry]]
        if k > min(counts):
            special.append((cells[i - 1][0], entry.name))  # the next fewer components
        simpler = _nested_starts(
            {cell: found[cell] for cell in special}, k, entry, padded[k], more_is_freer
        )
        result = fit_unchecked(
            key,
            samples,
            k,
            replace(options, covariance=entry.name, n_restarts=options.n_restarts + further),
            padded_size=padded[k],
            extra=_extra(simpler.starts, further, entry, padded[k], samples),
            progress=_table_progress(progress, i, len(cells), options.max_steps),
        )
        found[k, entry.name] = _at_least_nested(result, simpler.cases)
    return found


def n_extra(counts: Sequence[int], models: Sequence[str], init: Any) -> int:
    """How many starts a cell has beside those drawn.

    As many for all cells as any can have, so that a model is one program; none where starts are not
    drawn, but given.
    """
    if not isinstance(init, str):
        return 0
    entries = {model(name) for name in models}
    most_within = max(len(nesting.largest_within(entry, entries)) for entry in entries)
    return most_within + min(max(counts) - 1, nested_starts.MOST_SPLITS)


class NestedFit(NamedTuple):
    """A special case of a cell: its mixture, written as one of the cell's, and what it reaches."""

    mixture: Mixture
    log_likelihood: float
    log_prior: float

    @property
    def objective(self) -> float:
        """What cells are compared by."""
        return self.log_likelihood + self.log_prior


class NestedStarts(NamedTuple):
    """The special cases of a cell, and the starts they give."""

    cases: list[NestedFit]
    starts: list[Mixture]


def _nested_starts(
    special: dict[GridPoint, FitResult],
    k: int,
    entry: CovarianceModel,
    n_padded: int,
    more_is_freer: bool,
) -> NestedStarts:
    """What those special cases that ended valid give a cell of K components.

    Args:
      more_is_freer: whether what fewer components reach, more reach too.
    """
    cases, starts = [], []
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
        if n == k or more_is_freer:
            for slot in range(n, k):
                mixture = nested_starts.duplicate_heaviest(mixture, slot)
            reached = float(result.log_likelihood), float(result.log_prior)
            cases.append(NestedFit(mixture, *reached))
    return NestedStarts(cases, starts)


def _extra(
    starts: list[Mixture], n_places: int, entry: CovarianceModel, n_padded: int, samples: Samples
) -> ExtraStarts | None:
    if not n_places:
        return None
    blank = nested_starts.placeholder(entry, n_padded, samples.n_features, samples.x.dtype)
    return ExtraStarts(
        nested_starts.stack([blank] * (n_places - len(starts)) + starts), len(starts)
    )


def _at_least_nested(result: FitResult, cases: list[NestedFit]) -> FitResult:
    """The result, or the best of the special cases where that is higher."""
    if not cases:
        return result
    best = max(cases, key=lambda case: case.objective)
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
    """How many components the program is made for that fits each number of them.

    One program for all where compiling costs more than the multiplications by zero; else one for
    each power of two, which at most doubles them.
    """
    largest = max(counts)
    if _work(counts, models, samples, n_restarts) <= budget.PADDING_WORK:
        return dict.fromkeys(counts, largest)
    return {k: min(largest, 1 << (k - 1).bit_length()) for k in counts}


def _work(counts: Sequence[int], models: Sequence[str], samples: Samples, n_restarts: int) -> int:
    """Multiplications in a step of all restarts of the largest cell, roughly."""
    d, n = samples.n_features, samples.n_samples
    return n_restarts * max(
        exponential_family.cost_per_step(model(name), d, max(counts), n) for name in models
    )


def _table_progress(
    progress: ProgressCallback | None, cell: int, n_cells: int, max_steps: int
) -> ProgressCallback | None:
    """A callback for one cell that reports its steps as steps through the whole table."""
    if progress is None:
        return None

    def report(told: Progress) -> None:
        step = told.step if told.n_running else max_steps
        progress(told._replace(step=cell * max_steps + step, max_steps=n_cells * max_steps))

    return report
