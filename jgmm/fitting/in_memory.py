"""Many starts as one compiled program, the best valid one, and what became of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jgmm._core import budget
from jgmm._core.compilation import jit
from jgmm._core.errors import DataError
from jgmm._core.pytree import is_traced
from jgmm._data.samples import Samples
from jgmm._data.validation import check_key
from jgmm.covariance.storage import Spherical
from jgmm.em import exponential_family
from jgmm.em.algorithm import Start
from jgmm.em.options import Options
from jgmm.fitting import racing, restarts
from jgmm.fitting.restarts import ProgressCallback
from jgmm.fitting.results import FitResult, choose, to_result
from jgmm.fitting.single_run import algorithm_for
from jgmm.initialization.draw import (
    ExtraStarts,
    _draw,
    _given,
    _put_last,
    _to_whitened,
    center_and_scale_compiled,
)
from jgmm.initialization.given import place_labelled
from jgmm.initialization.problem import _check_constant_columns, check_problem
from jgmm.mixture.mixture import Mixture
from jgmm.mixture.noise import as_log_volume, at_start
from jgmm.mixture.prior import Prior


def in_waves(
    fit_wave: Callable[[Mixture, Samples], FitResult],
    key: Array,
    samples: Samples,
    active: np.ndarray,
    options: Options,
    extra: ExtraStarts | None = None,
) -> FitResult:
    """Make R starts, fit them in waves of a size that memory bears, and keep the best.

    Args:
      fit_wave: ``(starts with a leading axis, samples in the frame) -> FitResult``.
      active: which components take part, (K,).
      options: of these the model, the ridge, R and the start are read: a name in ``STARTS``,
        labels, or a ``Mixture``, which with a leading axis is R starts.
      extra: see ``Extra``; no more than fit the first wave, and only where starts are drawn.

    Raises:
      DataError: a start that does not fit, or constant columns where the model cannot bear them.
    """
    entry, n_restarts = options.entry, options.n_restarts
    inside = center_and_scale_compiled(samples, entry.per_column)
    bare = not is_traced(options.ridge) and not np.all(np.asarray(options.ridge))
    _check_constant_columns(samples, inside, bare and entry.storage is not Spherical)
    if not isinstance(options.init, str):
        given = _given(options, samples, inside, len(active))
        return fit_wave(*_to_whitened(given, inside))
    results = []
    for first in range(0, n_restarts, budget.MAX_STARTS_AT_ONCE):
        size = min(budget.MAX_STARTS_AT_ONCE, n_restarts - first)
        numbers = first + jnp.arange(size)
        mixtures = _draw(key, numbers, inside, active, entry.name, options.init)
        if inside.labels is not None:
            mixtures = place_labelled(mixtures, inside)
        if extra is not None and not first:
            mixtures = _put_last(mixtures, extra.mixtures, extra.n_given, inside.frame)
        results.append(fit_wave(*_to_whitened(mixtures, inside)))
    return results[0] if len(results) == 1 else best_of(results)


def best_of(results: list[FitResult]) -> FitResult:
    """The best of several results of one problem, with the outcomes of all their restarts."""
    tables = [result.restarts for result in results]
    whole = jax.tree.map(lambda *leaves: jnp.concatenate(jnp.atleast_1d(*leaves)), *tables)
    best = choose(whole)
    ends = [0]
    for table in tables:
        assert table is not None  # fit_wave always reports its restarts
        ends.append(ends[-1] + len(table.status))
    wave = max(i for i, end in enumerate(ends[:-1]) if end <= int(best))
    return replace(results[wave], restarts=replace(whole, best=best))


def fit_unchecked(
    key: Key[Array, ""],
    samples: Samples,
    n_components: int,
    options: Options,
    *,
    slots: int | None = None,
    noise: Any = None,
    extra: ExtraStarts | None = None,
    progress: ProgressCallback | None = None,
) -> FitResult:
    """``fit`` of checked samples that leaves a failure in the status instead of raising it.

    Args:
      options: of these the ridge may be one number, or one a column, (D,); all equal unless the
        model is closed per column.
      slots: components the program is made for, K by default. Those beyond K are switched off, so
        that one program serves every K up to it; the mixture returned still has them.
      extra: starts that take the place of some of those drawn, see ``Extra``.

    The other arguments are those of ``fit``.

    Raises:
      DataError: arguments that cannot be used, before any work starts.
    """
    check_problem(samples, n_components, options)
    racing.check_steps(options.race)
    control, method = options.control(samples, n_components), algorithm_for(options)
    log_volume = as_log_volume(noise, samples)
    if log_volume is not None and options.accelerate is not None:
        raise DataError("noise is fitted by EM as it is: leave accelerate out.")

    def wave(mixtures: Mixture, inside: Samples) -> FitResult:
        n_slots, d = mixtures.means.shape[1:]
        work = exponential_family.cost_per_step(mixtures.model, d, n_slots, inside.n_samples)
        starts: Start = mixtures
        if log_volume is not None:
            starts = mixtures, at_start(log_volume, inside.frame, len(mixtures.means))
        if options.race:
            batch = racing.race(method, starts, inside, control, work, options.race, progress)
        else:
            batch = restarts.run_restarts(method, starts, inside, control, work, progress)
        return _finish(batch, inside, control.prior)

    active = np.arange(slots or n_components) < n_components
    return in_waves(wave, check_key(key), samples, active, options, extra)


@jit
def _finish(batch: restarts.Batch, samples: Samples, prior: Prior | None) -> FitResult:
    best, outcomes = batch.best, batch.outcomes
    history = batch.best_history
    ended_at = best.log_likelihood
    return to_result(best.mixture, ended_at, best, history, outcomes, samples, prior, best.noise)
