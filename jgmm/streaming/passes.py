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
    digits: Precision


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

    lanes: Any
    reached: Mixture
    history: Leaf
    census: DataSummary
    control: Control
    sums: CompensatedSum
    n_blocks: Leaf


@runtime_checkable
class Checkpointer(Protocol):
    """Who keeps stages for later."""

    def restore(self, like: PassState) -> PassState | None:
        """A stage kept before, in the shapes of ``like``, or None to begin anew."""

    def save(self, stage: PassState, now: bool = False) -> None:
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
        census = DataSummary(frame, jnp.zeros((), dtype))
        whole = subsample.as_matrices(identity(d, dtype))
        return _begin(method, starts, census, options.control(whole, n_components))

    return jax.eval_shape(blank)


def _begin(
    method: AdditiveAlgorithm, starts: Mixture, census: DataSummary, control: Control
) -> PassState:
    """The stage before the first pass; of W starts in the frame, leading axis."""
    begun = jax.vmap(method.begin)(starts)
    width, dtype = len(starts.means), starts.means.dtype
    x = jnp.zeros((1, starts.means.shape[2]), dtype)
    sums = _no_sums(method, begun, Samples(x, jnp.zeros(1, dtype), census.frame))
    history = jnp.full((width, method.max_steps + 1), jnp.nan, dtype)
    stage = PassState(begun, begun.mixture, history, census, control, sums, jnp.asarray(0))
    return jax.tree.map(lambda leaf: leaf.astype(leaf.dtype), stage)  # strongly typed


begin = partial(jit, static_argnums=0)(_begin)


def _no_sums(method: AdditiveAlgorithm, begun: Any, samples: Samples) -> CompensatedSum:
    shapes = jax.eval_shape(method.expect, begun, samples)
    zero, digits = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return CompensatedSum(zero, zero, digits)


def restored(keeper: Checkpointer, template: PassState, team: ProcessGroup) -> PassState | None:
    """The furthest stage that any process has kept, with the ``Control`` it was begun with.

    What it has added up of a pass a process keeps if it had come as far; the others begin the pass
    anew.
    """
    mine = keeper.restore(template)
    blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template)
    kept = jax.device_get(blank if mine is None else mine)
    steps = np.asarray(-1 if mine is None else kept.lanes.n_steps.sum())
    every = team.gather((steps, replace(kept, sums=blank.sums, n_blocks=blank.n_blocks)))
    furthest, stage = max(every, key=lambda pair: int(pair[0]))
    if furthest < 0:
        return None
    if steps == furthest:
        stage = kept
    return jax.tree.map(jnp.asarray, stage)


def run_passes(
    method: AdditiveAlgorithm, stage: PassState, reading: Reader, keeper: Checkpointer | None = None
) -> FitResult:
    """Take passes over the samples until every run has ended; what follows the start in a fit.

    Ctrl-C ends the runs where they are.
    """
    try:
        for stage in iterate(method, stage, reading):  # noqa: B020 - each follows the last
            if keeper is not None:
                keeper.save(stage)
    except BaseException as error:
        if keeper is not None:
            keeper.save(stage, True)
        known = bool(jnp.isfinite(stage.lanes.log_likelihood).any())
        if not isinstance(error, KeyboardInterrupt) or not known:
            raise
        stage = _interrupted(stage)
    return _finish(stage)


def iterate(method: AdditiveAlgorithm, stage: PassState, reading: Reader) -> Iterator[PassState]:
    """The stages that follow one: after each block, and after each step, to the end of all runs."""
    while bool((stage.lanes.status == Status.RUNNING).any()):
        pace, n_rows = Timings(), 0
        step, log_likelihood = int(stage.lanes.n_steps.max()), float(_highest(stage))
        done = int(stage.n_blocks)
        for number, block in enumerate(reading.blocks(pace)):
            n_rows += block.n_rows
            if number < done:  # a run that was interrupted has added it up
                continue
            with pace.busy():
                sums = _add(method, stage.sums, stage.lanes, block, stage.census)
                sums = jax.block_until_ready(sums)
                stage = replace(
                    stage, sums=sums, n_blocks=jnp.asarray(number + 1, stage.n_blocks.dtype)
                )
            yield stage
            if reading.progress is not None:
                reading.progress(PassProgress(step, method.max_steps, n_rows, log_likelihood, pace))
        whole = reading.team.add(stage.sums.total, stage.sums.lost)
        stage = _advance(method, stage, whole)
        yield stage


@partial(jit, static_argnums=0)
def _add(
    method: AdditiveAlgorithm, sums: CompensatedSum, lanes: Any, block: Block, census: DataSummary
) -> CompensatedSum:
    """Add a block up, and what rounding takes from the sum (Knuth 1969, section 4.2.2).

    Both together hold twice as many digits, so that the order of the blocks does not show.
    """
    samples = Samples(block.x, block.weights, census.frame)
    found, digits = method.expect(lanes, samples)
    total = jax.tree.map(jnp.add, sums.total, found)

    def rounded_off(new: Array, old: Array, term: Array) -> Array:
        taken = new - old
        return (old - (new - taken)) + (term - taken)

    more = jax.tree.map(rounded_off, total, sums.total, found)
    lost = jax.tree.map(jnp.add, sums.lost, more)
    # The centers are the same in all terms, and no sum.
    zero = jnp.zeros_like(found.center)
    return CompensatedSum(replace(total, center=found.center), replace(lost, center=zero), digits)


@partial(jit, static_argnums=0)
def _advance(method: AdditiveAlgorithm, stage: PassState, whole: Statistics) -> PassState:
    before = stage.lanes
    after = method.advance(before, whole, stage.sums.digits, stage.census, stage.control)
    rows = jnp.arange(len(before.status))
    running = before.status == Status.RUNNING
    reached = getattr(after, "reached", None)
    if reached is None:
        reached = pytree.where(running, before.mixture, stage.reached)
    zero = jax.tree.map(jnp.zeros_like, stage.sums)
    return PassState(
        after,
        reached,
        stage.history.at[rows, before.n_steps].set(after.log_likelihood),
        stage.census,
        stage.control,
        zero,
        jnp.zeros_like(stage.n_blocks),
    )


@jit
def _interrupted(stage: PassState) -> PassState:
    """The same with the runs that had not ended where they are."""
    running = stage.lanes.status == Status.RUNNING
    known = jnp.isfinite(stage.lanes.log_likelihood)
    status = jnp.where(running & known, int(Status.INTERRUPTED), stage.lanes.status)
    mixture = pytree.where(running, stage.reached, stage.lanes.mixture)
    return replace(stage, lanes=replace(stage.lanes, status=status, mixture=mixture))


@jit
def _highest(stage: PassState) -> Array:
    shift = stage.census.total * stage.census.frame.log_volume()
    return stage.lanes.log_likelihood.max() - shift


@jit
def _finish(stage: PassState) -> FitResult:
    runs = stage.lanes
    table = Restarts(runs.log_likelihood, runs.status, runs.n_steps, runs.collapsed, jnp.asarray(0))
    best = results.choose(table)
    lane, history = jax.tree.map(lambda leaf: leaf[best], (runs, stage.history))
    several = replace(table, best=best) if len(runs.status) > 1 else None
    ended_at, prior = lane.log_likelihood, stage.control.prior
    return to_result(lane.mixture, ended_at, lane, history, several, stage.census, prior)
