"""EM over blocks, by stages: each is all that the next needs, down to the block it has come to.

Statistics add up, so a pass adds up those of its blocks, and the M-step and all that decides how a
fit ends are those of samples in memory (``Method.advance``). Whoever keeps a stage can go on from
it, and ends where the run that was not interrupted ends.
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
from jgmm._core.pytree import Leaf
from jgmm._core.status import Status
from jgmm._data.samples import DataSummary, Samples, identity
from jgmm.em.cancellation import Precision
from jgmm.em.options import Control, Options
from jgmm.em.statistics import Statistics
from jgmm.fitting import results
from jgmm.fitting.algorithm import AdditiveAlgorithm
from jgmm.fitting.results import FitResult, Restarts, to_result
from jgmm.mixture.mixture import Mixture
from jgmm.streaming import subsample
from jgmm.streaming.prefetch import Timings
from jgmm.streaming.reader import PassProgress, ProcessGroup, Reader
from jgmm.streaming.sources import Block


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CompensatedSum:
    """Statistics of the blocks seen in a pass, what rounding took from them, and their digits."""

    total: Statistics
    lost: Statistics
    precision: Precision


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PassState:
    """A fit on its way.

    Attributes:
      lanes: W runs side by side, leading axis.
      reached: the mixtures whose log-likelihood ``lanes`` hold.
      history: log-likelihood before each step, (W, max_steps + 1).
      census: the frame and the total weight.
      control: when the runs stop, and what is known beside the samples.
      sums: of the pass that is under way.
      n_blocks: how many of its blocks are in them.
    """

    runs: Any
    reached: Mixture
    history: Leaf
    data_summary: DataSummary
    control: Control
    sums: CompensatedSum
    n_blocks: Leaf


@runtime_checkable
class Checkpointer(Protocol):
    """Who keeps stages for later."""

    def restore(self, like: PassState) -> PassState | None:
        """A stage kept before, in the shapes of ``like``, or None to begin anew."""

    def save(self, state: PassState, now: bool = False) -> None:
        """Called after each block: keep the stage if it is time to, or in any case."""


def abstract_state(
    method: AdditiveAlgorithm, options: Options, n_components: int, n_features: int, dtype: Any
) -> PassState:
    """A stage of the right shapes, whatever its numbers."""
    d, init, entry = n_features, options.init, options.entry
    width = len(init.means) if isinstance(init, Mixture) and init.means.ndim == 3 else 1
    shared = 1 if entry.shared else n_components

    def blank() -> PassState:
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
        return _first_state(method, starts, data_summary, options.control(whole, n_components))

    return jax.eval_shape(blank)


def _first_state(
    method: AdditiveAlgorithm, starts: Mixture, data_summary: DataSummary, control: Control
) -> PassState:
    """The stage before the first pass; of W starts in the frame, leading axis."""
    begun = jax.vmap(method.init)(starts)
    width, dtype = len(starts.means), starts.means.dtype
    x = jnp.zeros((1, starts.means.shape[2]), dtype)
    sums = _no_sums(method, begun, Samples(x, jnp.zeros(1, dtype), data_summary.frame))
    history = jnp.full((width, method.max_steps + 1), jnp.nan, dtype)
    state = PassState(begun, begun.mixture, history, data_summary, control, sums, jnp.asarray(0))
    return jax.tree.map(lambda leaf: leaf.astype(leaf.dtype), state)  # strongly typed


first_state = partial(jit, static_argnums=0)(_first_state)


def _no_sums(method: AdditiveAlgorithm, begun: Any, samples: Samples) -> CompensatedSum:
    shapes = jax.eval_shape(method.e_step, begun, samples)
    zero, precision = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return CompensatedSum(zero, zero, precision)


def restored(
    checkpointer: Checkpointer, template: PassState, group: ProcessGroup
) -> PassState | None:
    """The furthest stage that any process has kept, with the ``Control`` it was begun with.

    What it has added up of a pass a process keeps if it had come as far; the others begin the pass
    anew.
    """
    mine = checkpointer.restore(template)
    blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template)
    kept = jax.device_get(blank if mine is None else mine)
    steps = np.asarray(-1 if mine is None else kept.runs.n_steps.sum())
    every = group.all_gather((steps, replace(kept, sums=blank.sums, n_blocks=blank.n_blocks)))
    furthest, state = max(every, key=lambda pair: int(pair[0]))
    if furthest < 0:
        return None
    if steps == furthest:
        state = kept
    return jax.tree.map(jnp.asarray, state)


def run_passes(
    method: AdditiveAlgorithm,
    state: PassState,
    reader: Reader,
    checkpointer: Checkpointer | None = None,
) -> FitResult:
    """Take passes over the samples until every run has ended; what follows the start in a fit.

    Ctrl-C ends the runs where they are.
    """
    try:
        for state in iterate(method, state, reader):  # noqa: B020 - each follows the last
            if checkpointer is not None:
                checkpointer.save(state)
    except BaseException as error:
        if checkpointer is not None:
            checkpointer.save(state, True)
        known = bool(jnp.isfinite(state.runs.log_likelihood).any())
        if not isinstance(error, KeyboardInterrupt) or not known:
            raise
        state = _interrupted(state)
    return _finish(state)


def iterate(method: AdditiveAlgorithm, state: PassState, reader: Reader) -> Iterator[PassState]:
    """The stages that follow one: after each block, and after each step, to the end of all runs."""
    while bool((state.runs.status == Status.RUNNING).any()):
        timings, n_rows = Timings(), 0
        step, log_likelihood = int(state.runs.n_steps.max()), float(_highest(state))
        done = int(state.n_blocks)
        for number, block in enumerate(reader.blocks(timings)):
            n_rows += block.n_rows
            if number < done:  # a run that was interrupted has added it up
                continue
            with timings.busy():
                sums = _add(method, state.sums, state.runs, block, state.data_summary)
                sums = jax.block_until_ready(sums)
                state = replace(
                    state, sums=sums, n_blocks=jnp.asarray(number + 1, state.n_blocks.dtype)
                )
            yield state
            if reader.progress is not None:
                reader.progress(
                    PassProgress(step, method.max_steps, n_rows, log_likelihood, timings)
                )
        whole = reader.group.add(state.sums.total, state.sums.lost)
        state = _advance(method, state, whole)
        yield state


@partial(jit, static_argnums=0)
def _add(
    method: AdditiveAlgorithm,
    sums: CompensatedSum,
    states: Any,
    block: Block,
    data_summary: DataSummary,
) -> CompensatedSum:
    """Add a block up, and what rounding takes from the sum (Knuth 1969, section 4.2.2).

    Both together hold twice as many digits, so that the order of the blocks does not show.
    """
    samples = Samples(block.x, block.weights, data_summary.frame)
    found, precision = method.e_step(states, samples)
    total = jax.tree.map(jnp.add, sums.total, found)

    def rounded_off(new: Array, old: Array, term: Array) -> Array:
        taken = new - old
        return (old - (new - taken)) + (term - taken)

    more = jax.tree.map(rounded_off, total, sums.total, found)
    lost = jax.tree.map(jnp.add, sums.lost, more)
    # The centers are the same in all terms, and no sum.
    zero = jnp.zeros_like(found.center)
    return CompensatedSum(
        replace(total, center=found.center), replace(lost, center=zero), precision
    )


@partial(jit, static_argnums=0)
def _advance(method: AdditiveAlgorithm, state: PassState, whole: Statistics) -> PassState:
    before = state.runs
    after = method.advance(before, whole, state.sums.precision, state.data_summary, state.control)
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
    )


@jit
def _interrupted(state: PassState) -> PassState:
    """The same with the runs that had not ended where they are."""
    running = state.runs.status == Status.RUNNING
    known = jnp.isfinite(state.runs.log_likelihood)
    status = jnp.where(running & known, int(Status.INTERRUPTED), state.runs.status)
    mixture = pytree.where(running, state.reached, state.runs.mixture)
    return replace(state, runs=replace(state.runs, status=status, mixture=mixture))


@jit
def _highest(state: PassState) -> Array:
    shift = state.data_summary.total * state.data_summary.frame.log_volume()
    return state.runs.log_likelihood.max() - shift


@jit
def _finish(state: PassState) -> FitResult:
    runs = state.runs
    outcomes = Restarts(
        runs.log_likelihood, runs.status, runs.n_steps, runs.collapsed, jnp.asarray(0)
    )
    best = results.choose(outcomes)
    ended, history = jax.tree.map(lambda leaf: leaf[best], (runs, state.history))
    several = replace(outcomes, best=best) if len(runs.status) > 1 else None
    prior, whole = state.control.prior, state.data_summary
    return to_result(ended.mixture, ended.log_likelihood, ended, history, several, whole, prior)
