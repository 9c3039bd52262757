"""Many runs of one iterative method as one compiled program that wastes little on those that end.

R starts queue up for W lanes. All lanes step together; a lane whose run has ended hands in its
outcome and takes the next start. Memory holds W runs and the best so far, whatever R is, and a slow
run holds up nothing but the lane it is in. The method is EM, a gradient method, or a reader's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from jgmm._core import budget, pytree
from jgmm._core.compilation import JitByWork, jit
from jgmm._core.pytree import Leaf, is_traced
from jgmm._core.status import Status, score
from jgmm._data.samples import Samples
from jgmm.fitting.algorithm import Algorithm
from jgmm.fitting.results import Restarts, choose


class Progress(NamedTuple):
    """What a fit tells its caller between compiled chunks of steps."""

    step: int
    max_steps: int
    log_likelihood: float
    n_running: int
    n_restarts: int


ProgressCallback = Callable[[Progress], None]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """The lanes, who is in them, and what has been handed in.

    Attributes:
      lanes: W runs.
      restart: which of R starts each lane runs, (W,); R for an idle lane.
      history: log-likelihood of each lane before each of its steps, (W, max_steps + 1).
      waiting: the first start that has not begun, ().
      turns: steps taken by all lanes together, ().
      table: outcomes handed in, and the index of the best.
      best: its lane.
      best_history: its history, (max_steps + 1,).
    """

    lanes: Any
    restart: Leaf
    history: Leaf
    waiting: Leaf
    turns: Leaf
    table: Restarts
    best: Any
    best_history: Leaf


def run_restarts(
    method: Algorithm,
    starts: Any,
    samples: Samples,
    control: Any,
    work: int,
    progress: ProgressCallback | None = None,
) -> Batch:
    """Run every start to its end.

    Args:
      method: what a step does.
      starts: R starts, leading axis.
      samples: what they are fitted to, in their frame.
      control: leaves the method reads.
      work: multiplications a step takes for one lane, roughly; sets the number of lanes.
      progress: called on the host every few steps. Without it, and inside a transformation, the
        whole is one call of one compiled program.

    Returns:
      The emptied queue: its ``table``, and the ``best`` lane with its history. Best is the highest
      log-likelihood among the valid, of equals the first; when none is valid, restart 0.
    """
    n_restarts = len(restart_axis(starts))
    width = batch_width(n_restarts, work)
    queue = open_batch(method, starts, width)
    return run_to_end(method, queue, width == n_restarts, starts, samples, control, work, progress)


def batch_width(n_restarts: int, work: int) -> int:
    """How many lanes R starts share: enough to fill the machine, and no more."""
    most = budget.MAX_BATCH_CPU if jax.default_backend() == "cpu" else budget.MAX_BATCH
    return min(n_restarts, max(budget.MIN_BATCH, min(most, budget.BATCH_WORK // work)))


def run_to_end(
    method: Algorithm,
    queue: Batch,
    all_begun: bool,
    starts: Any,
    samples: Samples,
    control: Any,
    work: int,
    progress: ProgressCallback | None,
) -> Batch:
    """Run a queue until it is empty; ``all_begun`` says that no start waits for a lane."""
    n_restarts, width = len(restart_axis(starts)), len(queue.restart)
    traced = is_traced(queue, samples, control)
    forever = jnp.iinfo(jnp.int32).max // 2
    while True:
        narrowing = width > budget.MIN_BATCH and work * width > budget.NARROWING_WORK and not traced
        turns = forever if progress is None or traced else budget.CHUNK_STEPS
        few = width // 4 * narrowing
        in_all = work * n_restarts * budget.EXPECTED_STEPS
        arguments = (queue, starts, samples, control, turns, few)
        queue, standing = _compiled_iterate(in_all, method, all_begun, *arguments)
        if traced:
            return queue
        now = jax.device_get(standing)
        n_running, n_waiting = int(now.n_running), int(now.n_waiting)
        if progress is not None:
            highest, unfinished = float(now.log_likelihood), n_running + n_waiting
            most = method.max_steps
            progress(Progress(int(now.step), most, highest, unfinished, n_restarts))
        if not n_running:
            return queue
        if narrowing and n_running <= width // 4 and not n_waiting:
            width, all_begun = width // 4, True
            queue = _narrow(queue, width)


def restart_axis(starts: Any) -> Array:
    """Any leaf of the starts: its first axis is R."""
    return jax.tree.leaves(starts)[0]


@partial(jit, static_argnums=(0, 2))
def open_batch(method: Algorithm, starts: Any, width: int) -> Batch:
    """A queue whose first W starts have begun."""
    n_restarts = restart_axis(starts).shape[0]
    lanes = jax.vmap(method.begin)(jax.tree.map(lambda leaf: leaf[:width], starts))
    dtype = lanes.log_likelihood.dtype
    nothing = jnp.full(n_restarts, -1)
    table = Restarts(
        jnp.full(n_restarts, jnp.nan, dtype), nothing, nothing, nothing, jnp.asarray(n_restarts)
    )
    history = jnp.full((width, method.max_steps + 1), jnp.nan, dtype)
    first = jax.tree.map(lambda leaf: leaf[0], lanes)
    queue = Batch(
        lanes,
        jnp.arange(width),
        history,
        jnp.asarray(width),
        jnp.asarray(0),
        table,
        first,
        history[0],
    )
    # Not weakly typed, as no step leaves it: else the program would be compiled once more.
    return jax.tree.map(lambda leaf: leaf.astype(leaf.dtype), queue)


def _iterate(
    method: Algorithm,
    all_begun: bool,
    queue: Batch,
    starts: Any,
    samples: Samples,
    control: Any,
    turns: Array,
    few: Array,
) -> tuple[Batch, _Summary]:
    """Take so many turns, or fewer when at most ``few`` lanes run and no start waits."""
    n_restarts, limit = restart_axis(starts).shape[0], queue.turns + turns

    def going_on(queue: Batch) -> Array:
        n_running = _running(queue).sum()
        busy = (n_running > few) | (queue.waiting < n_restarts)
        return (n_running > 0) & busy & (queue.turns < limit)

    def turn(queue: Batch) -> Batch:
        stepped = replace(step_all(method, queue, samples, control), turns=queue.turns + 1)
        # Once every start has a lane, outcomes stay in the lanes until all turns are taken.
        return stepped if all_begun else _refill(method, record_finished(stepped), starts)

    # To hand in what has been is harmless, and here it is no program of its own.
    queue = record_finished(lax.while_loop(going_on, turn, queue))
    return queue, _summarize(queue, samples)


_compiled_iterate = JitByWork(_iterate, static_argnums=(0, 1))


def step_all(method: Algorithm, queue: Batch, samples: Samples, control: Any) -> Batch:
    """One step of every lane, entered into its history."""
    lanes = method.step(queue.lanes, samples, control)
    # A step that ended a run, or moved it on, has set the log-likelihood before the move.
    rows = jnp.arange(lanes.status.shape[0])
    history = queue.history.at[rows, queue.lanes.n_steps].set(lanes.log_likelihood)
    return replace(queue, lanes=lanes, history=history)


def _running(queue: Batch) -> Array:
    seated = queue.restart < queue.table.status.shape[0]
    return (queue.lanes.status == Status.RUNNING) & seated


@jit
def record_finished(queue: Batch) -> Batch:
    """Enter the lanes that have ended into the table, and keep the best of them."""
    lanes, table = queue.lanes, queue.table
    n_restarts = table.status.shape[0]
    where = jnp.where(lanes.status != Status.RUNNING, queue.restart, n_restarts)

    def enter(column: Array, values: Array) -> Array:
        return column.at[where].set(values.astype(column.dtype), mode="drop")

    table = Restarts(
        enter(table.log_likelihood, lanes.log_likelihood),
        enter(table.status, lanes.status),
        enter(table.n_steps, lanes.n_steps),
        enter(table.collapsed, lanes.collapsed),
        table.best,
    )
    best = choose(table)
    lane = jnp.argmax(where == best)  # the lane that has just handed it in, if one has
    new = where[lane] == best

    def keep(candidate: Array, old: Array) -> Array:
        return jnp.where(new, candidate[lane], old)

    return replace(
        queue,
        table=replace(table, best=best),
        best=jax.tree.map(keep, lanes, queue.best),
        best_history=keep(queue.history, queue.best_history),
    )


def _refill(method: Algorithm, queue: Batch, starts: Any) -> Batch:
    """Give each lane that has ended the next start that waits, or leave it idle."""
    n_restarts = restart_axis(starts).shape[0]
    ended = (queue.lanes.status != Status.RUNNING) & (queue.restart < n_restarts)
    turn_of = queue.waiting + jnp.cumsum(ended) - 1
    restart = jnp.where(ended, jnp.minimum(turn_of, n_restarts), queue.restart)
    begun = ended & (restart < n_restarts)
    chosen = jnp.minimum(restart, n_restarts - 1)
    fresh = jax.vmap(method.begin)(jax.tree.map(lambda leaf: leaf[chosen], starts))

    return replace(
        queue,
        lanes=pytree.where(begun, fresh, queue.lanes),
        restart=restart,
        waiting=jnp.minimum(queue.waiting + ended.sum(), n_restarts),
    )


@partial(jit, static_argnums=1)
def _narrow(queue: Batch, width: int) -> Batch:
    """The same queue with fewer lanes, which hold all that still run."""
    queue = record_finished(queue)
    return select_runs(queue, jnp.argsort(~_running(queue))[:width])


def select_runs(queue: Batch, places: Array) -> Batch:
    """The same queue with the lanes at the given places only, in that order."""
    lanes, restart, history = jax.tree.map(
        lambda leaf: leaf[places], (queue.lanes, queue.restart, queue.history)
    )
    return replace(queue, lanes=lanes, restart=restart, history=history)


class _Summary(NamedTuple):
    """How the queue stands, () each."""

    step: Array
    log_likelihood: Array
    n_running: Array
    n_waiting: Array


def _summarize(queue: Batch, samples: Samples) -> _Summary:
    lanes, table = queue.lanes, queue.table
    running = _running(queue)
    best_running = jnp.where(running, lanes.log_likelihood, -jnp.inf)
    highest = jnp.maximum(
        score(table.log_likelihood, table.status).max(),
        best_running.max(),
    )
    shift = samples.total_weight() * samples.frame.log_volume()
    n_waiting = table.status.shape[0] - queue.waiting
    return _Summary(lanes.n_steps.max(), highest - shift, running.sum(), n_waiting)
