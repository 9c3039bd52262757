"""EM by passes over blocks of samples, as a sequence of states from which a fit can be resumed.

Statistics are sums over samples, so a pass adds up the statistics of its blocks. The M-step and the
convergence test are those of samples in memory (``AdditiveAlgorithm.update``). A ``PassState``
holds everything that the rest of the fit depends on, including the number of blocks already added.
A fit resumed from a saved state therefore ends at the same result as one that was not interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jgmm._core import pytree
from jgmm._core.compilation import jit
from jgmm._core.errors import DataError
from jgmm._core.pytree import Leaf
from jgmm._core.status import Status
from jgmm._data.samples import DataSummary, Samples, Standardization, identity
from jgmm.em.cancellation import Precision
from jgmm.em.e_step import accumulate
from jgmm.em.options import Control, Options
from jgmm.em.statistics import Statistics
from jgmm.fitting import results
from jgmm.fitting.algorithm import AdditiveAlgorithm
from jgmm.fitting.results import FitResult, Restarts, to_result
from jgmm.mixture.mixture import Mixture, to_standard
from jgmm.streaming import subsample
from jgmm.streaming.content import N_WORDS, Content, difference
from jgmm.streaming.prefetch import Timings
from jgmm.streaming.reader import PassProgress, ProcessGroup, Reader
from jgmm.streaming.sources import Block


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CompensatedSum:
    """Compensated sum of the statistics of the blocks that a pass has read.

    Attributes:
      total: the sum, rounded.
      lost: the accumulated rounding error of ``total``, to be added to it.
      precision: how many digits the statistics may have lost by cancellation.
    """

    total: Statistics
    lost: Statistics
    precision: Precision


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PassState:
    """State of a fit between two blocks: everything needed to continue it.

    Attributes:
      runs: states of W runs that share each pass, leading axis W.
      reached: the mixtures to which the log-likelihoods in ``runs`` belong, leading axis W.
      history: log-likelihood before each step, (W, max_steps + 1).
      data_summary: standardization and total weight of all samples.
      control: tolerances, regularization and prior.
      sums: statistics of the blocks read so far in the current pass.
      n_blocks: number of these blocks.
      read: the content of these blocks, as words; see ``Content.to_words``.
      content: the content of all samples, in all processes, to which the fit belongs.
    """

    runs: Any
    reached: Mixture
    history: Leaf
    data_summary: DataSummary
    control: Control
    sums: CompensatedSum
    n_blocks: Leaf
    read: Leaf
    content: Leaf


@runtime_checkable
class Checkpointer(Protocol):
    """Saves states of a fit, and restores one after an interruption."""

    def restore(self, like: PassState) -> PassState | None:
        """Return a saved state with the shapes of ``like``, or None to start from the beginning."""

    def save(self, state: PassState, now: bool = False) -> None:
        """Save a state if the last one is old enough, or always with ``now``.

        It is called after each block.
        """


def abstract_state(
    algorithm: AdditiveAlgorithm, options: Options, n_components: int, n_features: int, dtype: Any
) -> PassState:
    """Return the shapes and dtypes of a ``PassState``, as ``jax.eval_shape`` gives them."""
    d, init, entry = n_features, options.init, options.entry
    width = len(init.means) if isinstance(init, Mixture) and init.means.ndim == 3 else 1
    shared = 1 if entry.shared else n_components

    def make() -> PassState:
        unit = entry.storage.identity(d, dtype)
        one = Mixture(
            jnp.full(n_components, -jnp.log(n_components), dtype),
            jnp.zeros((n_components, d), dtype),
            jnp.broadcast_to(unit, (shared, *unit.shape[1:])),
            entry.name,
        )
        starts = jax.tree.map(lambda leaf: jnp.stack([leaf] * width), one)
        frame = identity(d, dtype)
        if entry.affine:
            frame = subsample.as_matrices(frame)
        data_summary = DataSummary(frame, jnp.zeros((), dtype))
        whole = subsample.as_matrices(identity(d, dtype))
        return _first_state(algorithm, starts, data_summary, options.control(whole, n_components))

    return jax.eval_shape(make)


def _first_state(
    algorithm: AdditiveAlgorithm, starts: Mixture, data_summary: DataSummary, control: Control
) -> PassState:
    """Make the state before the first pass.

    Args:
      algorithm: EM, accelerated or not.
      starts: W mixtures in standardized coordinates, leading axis W.
      data_summary: standardization and total weight of all samples.
      control: tolerances, regularization and prior.
    """
    runs = jax.vmap(algorithm.init)(starts)
    width, dtype = len(starts.means), starts.means.dtype
    x = jnp.zeros((1, starts.means.shape[2]), dtype)
    sums = _zero_sums(algorithm, runs, Samples(x, jnp.zeros(1, dtype), data_summary.frame))
    history = jnp.full((width, algorithm.max_steps + 1), jnp.nan, dtype)
    none = jnp.zeros(N_WORDS, jnp.uint32)
    zero = jnp.asarray(0)
    state = PassState(runs, runs.mixture, history, data_summary, control, sums, zero, none, none)
    return jax.tree.map(lambda leaf: leaf.astype(leaf.dtype), state)  # strongly typed


first_state = partial(jit, static_argnums=0)(_first_state)


def _zero_sums(algorithm: AdditiveAlgorithm, runs: Any, samples: Samples) -> CompensatedSum:
    shapes = jax.eval_shape(algorithm.e_step, runs, samples)
    zero, precision = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return CompensatedSum(zero, zero, precision)


def restore_furthest(
    checkpointer: Checkpointer, template: PassState, group: ProcessGroup
) -> PassState | None:
    """Restore the state with the most steps that any process has saved.

    A process whose own saved state has as many steps also keeps the statistics it had added up in
    that pass. The other processes read that pass from its first block.

    Args:
      checkpointer: of this process.
      template: shapes and dtypes of the state; see ``abstract_state``.
      group: all processes.

    Returns:
      The state, with the ``Control`` that the fit was started with; None if no process has one.
    """
    mine = checkpointer.restore(template)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template)
    saved = jax.device_get(zeros if mine is None else mine)
    steps = np.asarray(-1 if mine is None else saved.runs.n_steps.sum())
    begun = replace(saved, sums=zeros.sums, n_blocks=zeros.n_blocks, read=zeros.read)
    every = group.all_gather((steps, begun))
    furthest, state = max(every, key=lambda pair: int(pair[0]))
    if furthest < 0:
        return None
    if steps == furthest:
        state = saved
    return jax.tree.map(jnp.asarray, state)


def check_restored(state: PassState, reader: Reader) -> PassState:
    """Check, in one pass that computes nothing else, that a restored state is of these samples.

    If the blocks already added would not be the first ones of the next pass, because the source
    yields its rows in another order each time, the unfinished pass begins again.

    Args:
      state: as ``restore_furthest`` returns it.
      reader: reads this process's share of the samples; its first pass is this one.

    Raises:
      DataError: the state belongs to other samples; the text says how they differ.
    """
    timings, before = Timings(), Content()
    for number, (_, read) in enumerate(reader.blocks_and_contents(timings), start=1):
        if number == int(state.n_blocks):
            before = read
        if reader.progress is not None:
            reader.progress(PassProgress(-1, 0, read.n_rows, float("nan"), timings))
    saved = Content.from_words(state.content)
    if not saved.same_rows(reader.content):
        raise DataError(
            f"the checkpoint belongs to other samples: {difference(saved, reader.content)}. Remove "
            "it to begin anew, or give the samples it was made with."
        )
    if before.same_rows(Content.from_words(state.read)):
        return state
    zeros = jax.tree.map(jnp.zeros_like, (state.sums, state.n_blocks, state.read))
    return replace(state, **dict(zip(("sums", "n_blocks", "read"), zeros, strict=True)))


def run_passes(
    algorithm: AdditiveAlgorithm,
    state: PassState,
    reader: Reader,
    checkpointer: Checkpointer | None = None,
) -> FitResult:
    """Run EM from a state until every run has ended, and return the result of the best run.

    After Ctrl-C, runs that have not ended get the status ``INTERRUPTED`` and the last mixture whose
    log-likelihood is known. If there is none yet, ``KeyboardInterrupt`` is raised again.

    Args:
      algorithm: EM, accelerated or not.
      state: where to continue; see ``first_state``.
      reader: reads this process's share of the samples.
      checkpointer: its ``save`` is called after each block, and once more after an exception.
    """
    try:
        for state in iterate(algorithm, state, reader):  # noqa: B020 - each state follows from the previous one
            if checkpointer is not None:
                checkpointer.save(state)
    except BaseException as error:
        if checkpointer is not None:
            checkpointer.save(state, True)
        known = bool(jnp.isfinite(state.runs.log_likelihood).any())
        if not isinstance(error, KeyboardInterrupt) or not known:
            raise
        state = _interrupted(state)
    return evaluate_returned(_finish(state), reader, state.data_summary)


def iterate(algorithm: AdditiveAlgorithm, state: PassState, reader: Reader) -> Iterator[PassState]:
    """Yield the states that follow: one after each block and each step, until all runs have ended.

    Progress is reported to ``reader.progress`` after each block.
    """
    while bool((state.runs.status == Status.RUNNING).any()):
        timings, n_rows = Timings(), 0
        step, log_likelihood = int(state.runs.n_steps.max()), float(_highest(state))
        done = int(state.n_blocks)
        for number, (block, read) in enumerate(reader.blocks_and_contents(timings)):
            n_rows += block.n_rows
            if number < done:  # the restored state already contains this block
                continue
            with timings.busy():
                sums = _add(algorithm, state.sums, state.runs, block, state.data_summary)
                sums = jax.block_until_ready(sums)
                n_blocks = jnp.asarray(number + 1, state.n_blocks.dtype)
                read_words = jnp.asarray(read.to_words())
                state = replace(state, sums=sums, n_blocks=n_blocks, read=read_words)
            yield state
            if reader.progress is not None:
                reader.progress(
                    PassProgress(step, algorithm.max_steps, n_rows, log_likelihood, timings)
                )
        whole = reader.group.add(state.sums.total, state.sums.lost)
        state = _end_pass(algorithm, state, whole)
        yield state


def evaluate_returned(result: FitResult, reader: Reader, data_summary: DataSummary) -> FitResult:
    """Return the result with the log-likelihood of its rounded parameters, where that differs.

    It takes one more pass. ``jgmm.fitting.results.is_moved_by_rounding`` says where. After Ctrl-C
    the result stays as it is.
    """
    if not results.is_moved_by_rounding(result) or result.status == Status.INTERRUPTED:
        return result
    mine, frame = 0.0, data_summary.frame
    try:
        for block in reader.blocks(Timings()):
            mine += float(_log_likelihood(result.mixture, block, frame))
    except KeyboardInterrupt:  # the fit itself has ended
        return result
    total = sum(float(part) for part in reader.group.all_gather(np.asarray(mine)))
    shift = float(data_summary.total * frame.log_volume())
    own = jnp.asarray(total - shift, result.log_likelihood.dtype)
    return replace(result, log_likelihood=own)


@jit
def _log_likelihood(mixture: Mixture, block: Block, frame: Standardization) -> Array:
    samples = Samples(block.x, block.weights, frame)
    return accumulate(to_standard(mixture, frame), samples).log_likelihood


@partial(jit, static_argnums=0)
def _add(
    algorithm: AdditiveAlgorithm,
    sums: CompensatedSum,
    states: Any,
    block: Block,
    data_summary: DataSummary,
) -> CompensatedSum:
    """Add the statistics of a block to a compensated sum.

    The rounding error of each addition is computed exactly (two-sum; Knuth 1969, section 4.2.2).
    Sum and error together hold twice as many digits, so that the result does not depend on the
    order of the blocks.
    """
    samples = Samples(block.x, block.weights, data_summary.frame)
    statistics, precision = algorithm.e_step(states, samples)
    total = jax.tree.map(jnp.add, sums.total, statistics)

    def rounding_error(new: Array, old: Array, term: Array) -> Array:
        added = new - old
        return (old - (new - added)) + (term - added)

    more = jax.tree.map(rounding_error, total, sums.total, statistics)
    lost = jax.tree.map(jnp.add, sums.lost, more)
    # The centers are the same in all terms and are not added up.
    zero = jnp.zeros_like(statistics.center)
    return CompensatedSum(
        replace(total, center=statistics.center), replace(lost, center=zero), precision
    )


@partial(jit, static_argnums=0)
def _end_pass(algorithm: AdditiveAlgorithm, state: PassState, whole: Statistics) -> PassState:
    """End a pass: take the step of every run from the statistics of all samples."""
    before = state.runs
    after = algorithm.update(before, whole, state.sums.precision, state.data_summary, state.control)
    rows = jnp.arange(len(before.status))
    running = before.status == Status.RUNNING
    reached = getattr(after, "reached", None)
    if reached is None:
        reached = pytree.where(running, before.mixture, state.reached)
    zero = jax.tree.map(jnp.zeros_like, state.sums)
    return PassState(
        after,
        reached,
        state.history.at[rows, before.n_steps].set(after.log_likelihood),
        state.data_summary,
        state.control,
        zero,
        jnp.zeros_like(state.n_blocks),
        jnp.zeros_like(state.read),
        state.content,
    )


@jit
def _interrupted(state: PassState) -> PassState:
    """End the runs that have not ended, at the last mixture whose log-likelihood is known."""
    running = state.runs.status == Status.RUNNING
    known = jnp.isfinite(state.runs.log_likelihood)
    status = jnp.where(running & known, int(Status.INTERRUPTED), state.runs.status)
    mixture = pytree.where(running, state.reached, state.runs.mixture)
    return replace(state, runs=replace(state.runs, status=status, mixture=mixture))


@jit
def _highest(state: PassState) -> Array:
    """Return the highest log-likelihood of all runs, in the user's units."""
    shift = state.data_summary.total * state.data_summary.frame.log_volume()
    return state.runs.log_likelihood.max() - shift


@jit
def _finish(state: PassState) -> FitResult:
    """Choose the best run and make its ``FitResult``, in the user's units."""
    runs = state.runs
    outcomes = Restarts(
        runs.log_likelihood, runs.status, runs.n_steps, runs.collapsed, jnp.asarray(0)
    )
    best = results.choose(outcomes)
    ended, history = jax.tree.map(lambda leaf: leaf[best], (runs, state.history))
    several = replace(outcomes, best=best) if len(runs.status) > 1 else None
    prior, whole = state.control.prior, state.data_summary
    return to_result(ended.mixture, ended.log_likelihood, ended, history, several, whole, prior)
