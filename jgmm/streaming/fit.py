"""Fit mixtures by EM to samples that do not fit into memory: each E-step is a pass over blocks.

The starts are fitted to a subsample in memory. The best of them is then refined on all samples, one
pass per step (``jgmm.streaming.passes``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jgmm._core.arguments import check_whole, key_first
from jgmm._core.compilation import without_debug_nans
from jgmm._core.errors import DataError
from jgmm._data.samples import DataSummary, make_samples
from jgmm.em.options import AcceptedOptions, OptionKeywords, Options
from jgmm.fitting import in_memory
from jgmm.fitting.results import FitResult, raise_if_failed
from jgmm.fitting.single_run import algorithm_for
from jgmm.initialization.draw import all_to_standard
from jgmm.initialization.given import from_mixture
from jgmm.initialization.problem import (
    check_problem,
    constant_columns,
    constants_matter,
    refuse_constant_columns,
)
from jgmm.mixture.mixture import Mixture
from jgmm.streaming.passes import (
    Checkpointer,
    abstract_state,
    check_restored,
    first_state,
    restore_furthest,
    run_passes,
)
from jgmm.streaming.prefetch import Timings
from jgmm.streaming.reader import (
    PassProgress,
    ProcessGroup,
    Reader,
    SingleProcess,
    blocks_with_progress,
    open_reader,
)
from jgmm.streaming.sources import ArraySource, as_source
from jgmm.streaming.subsample import (
    Subsample,
    Summary,
    coreset_capacity,
    draw_coreset,
    merge,
    merge_subsamples,
    pad,
    summarize,
    to_arrays,
)

SUBSAMPLE = 1 << 15  # rows that starts are fitted to
_CORESET = 1  # folded into the key


ACCEPTED = AcceptedOptions(
    refused={"race": "the starts run on a subsample; every start runs to its end."},
)


@key_first
@without_debug_nans
@ACCEPTED.signature
def fit(
    key: Key[Array, ""],
    source: Any,
    n_components: int,
    *,
    sample_weight: Any = None,
    subsample: int = SUBSAMPLE,
    coreset: bool = False,
    block_rows: int | None = None,
    progress: Callable[[PassProgress], None] | None = None,
    checkpointer: Checkpointer | None = None,
    group: ProcessGroup | None = None,
    options: Options | None = None,
    **keywords: Unpack[OptionKeywords],
) -> FitResult:
    """Fit a mixture by EM to samples that are read block by block, once per step.

    Args:
      key: typed key; determines the subsample and the starts.
      source: an object that yields arrays (B, D), or pairs of an array and its weights (B,), from
        the beginning each time it is iterated; or a function that returns such an iterator; or an
        array (N, D), such as a memory map.
      n_components: K.
      sample_weight: weights (N,), if the source is an array.
      subsample: largest number of rows that starts are made from and fitted to.
      coreset: draw those rows with probabilities that increase with the distance from the mean, and
        weight them accordingly. Small clusters far from the mean are then not missed. This takes
        one more pass.
      block_rows: number of rows processed at once; by default as many as take 16 to 32 MB.
      progress: called on the host with a ``PassProgress`` after each block.
      checkpointer: saves states of the fit, so that an interrupted fit can continue.
      group: the processes of a job in which each process reads a share of the samples.
      options, **keywords: see ``jgmm.Options``. ``n_restarts`` starts are fitted to the subsample,
        and only the best of them is refined on all samples. A ``Mixture`` as ``init`` starts the
        fit to all samples; with a leading axis of length R it starts R runs, which share each pass.

    Returns:
      A ``FitResult``, equal up to rounding to that of ``jgmm.fit`` from the same start. ``n_steps``
      counts steps over all samples. After Ctrl-C the status is ``INTERRUPTED``, and the result
      holds the last mixture whose log-likelihood is known.

    Raises:
      DataError: bad samples, a source that cannot be read twice or whose rows change from pass to
        pass, a checkpoint of other samples, or bad arguments.
      FitError: no start ended in usable parameters, or a run on all samples collapsed.

    However large the source is, only about five blocks of up to 32 MB are in memory at a time.

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
    options = ACCEPTED.read(options, keywords)
    source = as_source(source, sample_weight)
    reader = open_reader(source, block_rows, group or SingleProcess(), progress)
    return fit_blocks(key, reader, n_components, options, subsample, coreset, checkpointer)


def fit_blocks(
    key: Array,
    reader: Reader,
    n_components: int,
    options: Options,
    subsample: int = SUBSAMPLE,
    coreset: bool = False,
    checkpointer: Checkpointer | None = None,
) -> FitResult:
    """Fit as ``fit`` does, to the samples of a reader, with options that have been read."""
    algorithm = algorithm_for(options)
    template = abstract_state(algorithm, options, n_components, reader.n_features, reader.dtype)
    restored = None
    if checkpointer is not None:
        restored = restore_furthest(checkpointer, template, reader.group)
    if restored is not None:
        state = check_restored(restored, reader)
    else:
        summary = summarize_all(key, reader, subsample)
        check_summary(summary, n_components, options)
        data_summary = summary.data_summary(
            options.entry.per_column, options.entry.affine, reader.dtype
        )
        control = options.control(summary.whitening(reader.dtype), n_components)
        if isinstance(options.init, Mixture):
            starts = given_starts(options, n_components, data_summary)
        else:
            drawn = summary.subsample
            if coreset and summary.n_rows > subsample:
                drawn = _coreset(key, reader, summary, options.entry.per_column, subsample)
            # The prior, if it comes from the samples, comes from all of them.
            with_prior = replace(options, prior=control.prior)
            starts = _best_start(key, drawn, n_components, with_prior, data_summary)
        state = first_state(algorithm, starts, data_summary, control)
        state = replace(state, content=jnp.asarray(reader.content.to_words()))
    return raise_if_failed(run_passes(algorithm, state, reader, checkpointer))


def _best_start(
    key: Array, drawn: Subsample, n_components: int, options: Options, data_summary: DataSummary
) -> Mixture:
    """Fit a mixture to the rows drawn; return it in standardized coordinates, leading axis 1."""
    samples = make_samples(drawn.x, drawn.weights)
    best = raise_if_failed(in_memory.fit_unchecked(key, samples, n_components, options)).mixture
    return all_to_standard(jax.tree.map(lambda leaf: leaf[None], best), data_summary.frame)


def given_starts(options: Options, n_components: int, data_summary: DataSummary) -> Mixture:
    """Return the mixtures given as ``init``, leading axis R, in standardized coordinates.

    Raises:
      DataError: they do not fit the problem.
    """
    shift = data_summary.frame.shift
    given = from_mixture(options.init, shift, n_components, options.covariance)
    starts = given if given.means.ndim == 3 else jax.tree.map(lambda leaf: leaf[None], given)
    return all_to_standard(starts, data_summary.frame)


def summarize_all(key: Array, reader: Reader, n_subsample: int) -> Summary:
    """Compute the moments of the samples of all processes, and draw a subsample, in one pass.

    Args:
      key: determines which rows are drawn.
      reader: reads this process's share of the samples.
      n_subsample: largest number of rows drawn.

    Raises:
      DataError: bad samples, none with a positive weight, or ``n_subsample`` below one.
    """
    check_whole("subsample", n_subsample, 1)
    timings = Timings()
    d, dtype = reader.n_features, reader.dtype
    blocks = blocks_with_progress(reader, timings, -1, 0, float("nan"))
    columns = reader.source.columns if isinstance(reader.source, ArraySource) else None
    mine = summarize(key, blocks, reader.first_row, n_subsample, d, dtype, columns)
    summary = merge(reader.group.all_gather(to_arrays(mine, n_subsample)), d, dtype)
    if not summary.moments.total:
        raise DataError("sample_weight is zero for every sample; at least one must count.")
    return summary


def check_summary(summary: Summary, n_components: int, options: Options) -> None:
    """Check that a mixture can be fitted, as ``jgmm.fit`` does for samples in memory.

    Raises:
      DataError: see ``check_problem``; or constant columns that make covariances singular.
    """
    samples = make_samples(summary.subsample.x, summary.subsample.weights)
    check_problem(samples, n_components, options)
    if constants_matter(options):
        total, mean, scatter, unit = summary.moments
        # The rows drawn do not tell a constant column from one that hardly varies; all rows do, up
        # to the rounding of their mean.
        rounding = 8 * float(jnp.finfo(samples.x.dtype).eps) * np.abs(mean) / unit
        flat = np.sqrt(np.diagonal(scatter) / total) <= rounding
        refuse_constant_columns(constant_columns(samples) & flat)


def _coreset(
    key: Array, reader: Reader, summary: Summary, per_column: bool, n_rows: int
) -> Subsample:
    """Draw a coreset of about ``n_rows`` rows from the samples of all processes."""
    timings, dtype = Timings(), reader.dtype
    frame = summary.data_summary(per_column, False, dtype).frame
    blocks = blocks_with_progress(reader, timings, -1, 0, float("nan"))
    total = float(summary.moments.total)
    salted = jax.random.fold_in(key, _CORESET)
    mine = draw_coreset(salted, blocks, reader.first_row, n_rows, frame, total)
    capacity = coreset_capacity(n_rows)
    whole = merge_subsamples(reader.group.all_gather(pad(mine, capacity)))
    return pad(whole.smallest(capacity), capacity)
