"""A fit by EM of samples held in memory: draw starts, run them, keep the best one."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Array, Key

from jgmm._core.arguments import check_key
from jgmm._core.compilation import jit
from jgmm._core.errors import DataError
from jgmm._data.distinct_rows import with_distinct_rows
from jgmm._data.samples import Samples, padded_rows
from jgmm.em import exponential_family
from jgmm.em.algorithm import Start
from jgmm.em.options import Options
from jgmm.fitting import racing, restarts
from jgmm.fitting.padding import shapes_for, with_padded_labels, without_padding
from jgmm.fitting.restarts import ProgressCallback
from jgmm.fitting.results import FitResult, best_of, evaluate_returned, to_result
from jgmm.fitting.single_run import algorithm_for
from jgmm.initialization.draw import ExtraStarts, batches_of_starts
from jgmm.initialization.problem import check_problem
from jgmm.mixture.noise import as_log_volume, initial_noise
from jgmm.mixture.prior import Prior


def fit_unchecked(
    key: Key[Array, ""],
    samples: Samples,
    n_components: int,
    options: Options,
    *,
    padded_size: int | None = None,
    noise: Any = None,
    extra: ExtraStarts | None = None,
    progress: ProgressCallback | None = None,
) -> FitResult:
    """Fit checked samples like ``jgmm.fit``, and leave a failure in the status.

    Args:
      key, n_components, noise, progress: as for ``jgmm.fit``.
      samples: N samples in the identity frame.
      options: the ridge may be one number, or one a column, (D,); all equal unless the model is
        closed per column.
      padded_size: number of components that the program is compiled for, K by default. Components
        beyond K have weight zero, so that one program serves every K up to it. The mixture returned
        still has them.
      extra: starts that take the place of some of those drawn, see ``ExtraStarts``.

    Returns:
      The result of ``jgmm.fit``, whatever its status.

    Raises:
      DataError: arguments that cannot be used, before any work starts.
    """
    check_problem(samples, n_components, options)
    racing.check_steps(options.race)
    algorithm, log_volume = algorithm_for(options), as_log_volume(noise, samples)
    if log_volume is not None and options.accelerate is not None:
        raise DataError("noise is fitted by EM as it is: leave accelerate out.")
    samples = with_distinct_rows(samples)
    shapes = shapes_for(samples, n_components, options, padded_size)
    if shapes.rows_are_padded:
        padded = padded_rows(samples)
        options = with_padded_labels(options, samples, padded.n_samples)
        samples = padded
    control = options.control(samples, n_components)
    active = np.arange(shapes.n_components) < n_components
    results = []
    batches = batches_of_starts(check_key(key), samples, active, options, extra, shapes.room)
    for mixtures, inside, _, n_starts in batches:
        starts: Start = mixtures
        if log_volume is not None:
            starts = mixtures, initial_noise(log_volume, inside.frame, len(mixtures.means))
        n_rows, size, d = inside.n_samples, len(active), samples.n_features
        work = exponential_family.cost_per_step(options.entry, d, size, n_rows)
        arguments = algorithm, starts, inside, control, work
        if options.race:
            batch = racing.race(*arguments, options.race, progress)
        else:
            batch = restarts.run_restarts(*arguments, progress, n_starts)
        result = _to_result(batch, inside, control.prior)
        if n_starts is not None:
            result = without_padding(result, None if padded_size else n_components, n_starts)
        results.append(result)
    return evaluate_returned(best_of(results), samples)


@partial(jit, quick=True)
def _to_result(batch: restarts.Batch, samples: Samples, prior: Prior | None) -> FitResult:
    best, outcomes = batch.best, batch.outcomes
    reached, history = best.log_likelihood, batch.best_history
    return to_result(best.mixture, reached, best, history, outcomes, samples, prior, best.noise)
