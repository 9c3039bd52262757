"""Mixtures of samples that do not fit into memory: EM whose E-step is a pass over blocks.

Starts are fitted to a subsample; the best of them is refined on the whole, stage by stage
(``jgmm.streaming.passes``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
from jaxtyping import Array, Key

from jgmm._core.errors import DataError
from jgmm._data.samples import DataSummary, make_samples
from jgmm._data.validation import check_key
from jgmm.em.options import Options
from jgmm.fitting import in_memory
from jgmm.fitting.results import FitResult, raise_if_failed
from jgmm.fitting.single_run import algorithm_for
from jgmm.initialization.draw import all_to_standard
from jgmm.initialization.given import from_mixture
from jgmm.mixture.mixture import Mixture
from jgmm.streaming.passes import Checkpointer, abstract_state, first_state, restored, run_passes
from jgmm.streaming.prefetch import Timings
from jgmm.streaming.reader import (
    PassProgress,
    ProcessGroup,
    Reader,
    SingleProcess,
    open_source,
    reported,
)
from jgmm.streaming.sources import as_source
from jgmm.streaming.subsample import (
    Subsample,
    Summary,
    coreset_room,
    merge,
    merge_subsamples,
    pad,
    summarize,
    to_arrays,
)
from jgmm.streaming.subsample import (
    coreset as subsample_coreset,
)

SUBSAMPLE = 1 << 15  # rows that starts are fitted to
_CORESET = 1  # folded into the key


def fit(
    key: Key[Array, ""],
    source: Any,
    n_components: int,
    *,
    covariance: str = "full",
    n_restarts: int = 16,
    init: Any = "kmeans",
    sample_weight: Any = None,
    subsample: int = SUBSAMPLE,
    coreset: bool = False,
    tol: float | None = None,
    rtol: float | None = None,
    max_steps: int = 1000,
    ridge: Any = 0.0,
    equal_weights: bool = False,
    prior: Any = None,
    floor: Any = None,
    accelerate: str | None = None,
    block_rows: int | None = None,
    progress: Callable[[PassProgress], None] | None = None,
    checkpointer: Checkpointer | None = None,
    group: ProcessGroup | None = None,
) -> FitResult:
    """Fit a mixture by EM to samples that are read block by block, once a step.

    Args:
      key: typed key; decides about the subsample and the starts.
      source: yields arrays (B, D), or pairs with weights (B,), each time it is iterated; or a
        function that returns such an iterator; or an array (N, D), such as a memory map.
      n_components: K.
      covariance, tol, rtol, max_steps, ridge, equal_weights, prior, floor, accelerate: as for
        ``jgmm.fit``.
      init: as for ``jgmm.fit``; but a ``Mixture`` starts the fit to all samples, with a leading
        axis of R as many as R runs, which share the reading; any other start is made of the
        subsample.
      n_restarts: starts fitted to the subsample, of which the best is refined.
      sample_weight: where the source is an array, (N,).
      subsample: rows starts are made of and fitted to.
      coreset: draw those rows with chances that rise with the distance from the mean, and weigh
        them for it: small clusters far out are then not missed. Takes a pass more.
      block_rows: rows in the engine at once; by default 16 to 32 MB of them.
      progress: called on the host with a ``Tick`` after each block.
      keeper: keeps stages, to go on from after an interruption.
      team: other processes, each with a share of the samples.

    Returns:
      A ``FitResult``, that of ``jgmm.fit`` from the same start but for rounding. ``n_steps`` counts
      steps over all samples. After Ctrl-C its status is ``INTERRUPTED``, and it holds the last
      mixture whose log-likelihood is known.

    Raises:
      DataError: bad samples, a source that cannot be read twice, or bad arguments.
      FitError: no start ended in usable parameters, or a run on the whole collapsed.

    Two blocks and one more are in memory, of up to 32 MB, whatever the source holds.

    >>> import jax, jgmm, numpy as np
    >>> def blocks():
    ...     for start in (0.0, 1.0, 2.0):
    ...         yield np.linspace(start, start + 0.5, 100, dtype=np.float32)[:, None]
    >>> result = jgmm.streaming.fit(
    ...     jax.random.key(0), blocks, 3, covariance="EII", n_restarts=1, init="kmeans++"
    ... )
    >>> np.sort(result.mixture.means[:, 0]).round(2).tolist()
    [0.25, 1.25, 2.25]
    """
    check_key(key)
    group = group or SingleProcess()
    source = as_source(source, sample_weight)
    reader = open_source(source, block_rows, group, progress)
    options = Options(
        covariance=covariance,
        n_restarts=n_restarts,
        init=init,
        tol=tol,
        rtol=rtol,
        max_steps=max_steps,
        ridge=ridge,
        equal_weights=equal_weights,
        prior=prior,
        floor=floor,
        accelerate=accelerate,
    )
    method = algorithm_for(options)
    like = abstract_state(method, options, n_components, reader.n_features, reader.dtype)
    state = None if checkpointer is None else restored(checkpointer, like, group)
    if state is None:
        found = summarize_all(key, reader, subsample)
        data_summary = found.data_summary(
            options.entry.per_column, options.entry.affine, reader.dtype
        )
        control = options.control(found.whitening(reader.dtype), n_components)
        if isinstance(init, Mixture):
            starts = given(options, n_components, data_summary)
        else:
            drawn = found.drawn
            if coreset and found.n_rows > subsample:
                drawn = _coreset(key, reader, found, options.entry.per_column, subsample)
            # The prior, if it comes from the samples, comes from all of them.
            known = replace(options, prior=control.prior)
            starts = _best_start(key, drawn, n_components, known, data_summary)
        state = first_state(method, starts, data_summary, control)
    return raise_if_failed(run_passes(method, state, reader, checkpointer))


def _best_start(
    key: Array, drawn: Subsample, n_components: int, options: Options, data_summary: DataSummary
) -> Mixture:
    """The best fit to the rows drawn, in the frame, leading axis 1."""
    samples = make_samples(drawn.x, drawn.weights)
    best = raise_if_failed(in_memory.fit_unchecked(key, samples, n_components, options)).mixture
    return all_to_standard(jax.tree.map(lambda leaf: leaf[None], best), data_summary.frame)


def given(options: Options, n_components: int, data_summary: DataSummary) -> Mixture:
    """The mixtures given as starts, leading axis R, in the frame.

    Raises:
      DataError: they do not fit the problem.
    """
    shift = data_summary.frame.shift
    found = from_mixture(options.init, shift, n_components, options.covariance)
    several = found if found.means.ndim == 3 else jax.tree.map(lambda leaf: leaf[None], found)
    return all_to_standard(several, data_summary.frame)


def summarize_all(key: Array, reader: Reader, most: int) -> Summary:
    """Survey the samples of all processes, and draw some.

    Raises:
      DataError: bad samples, none that counts, or none to be drawn.
    """
    if most < 1:
        raise DataError(f"subsample must be at least one row; it is {most}.")
    timings = Timings()
    d, dtype = reader.n_features, reader.dtype
    blocks = reported(reader, timings, -1, 0, float("nan"))
    mine = summarize(key, blocks, reader.first_row, most, d, dtype)
    found = merge(reader.group.all_gather(to_arrays(mine, most)), d, dtype)
    if not found.moments.total:
        raise DataError("sample_weight is zero for every sample; at least one must count.")
    return found


def _coreset(key: Array, reader: Reader, found: Summary, per_column: bool, most: int) -> Subsample:
    timings, dtype = Timings(), reader.dtype
    frame = found.data_summary(per_column, False, dtype).frame
    blocks = reported(reader, timings, -1, 0, float("nan"))
    total = float(found.moments.total)
    salted = jax.random.fold_in(key, _CORESET)
    mine = subsample_coreset(salted, blocks, reader.first_row, most, frame, total)
    room = coreset_room(most)
    whole = merge_subsamples(reader.group.all_gather(pad(mine, room)))
    return pad(whole.lowest(room), room)
