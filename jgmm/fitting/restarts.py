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

    states: Any
    restart: Leaf
    history: Leaf
    next_start: Leaf
    iterations: Leaf
    outcomes: Restarts
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
    batch = open_batch(method, starts, width)
    return run_to_end(method, batch, width == n_restarts, starts, samples, control, work, progress)


def batch_width(n_restarts: int, work: int) -> int:
    """How many lanes R starts share: enough to fill the machine, and no more."""
    most = budget.MAX_BATCH_CPU if jax.default_backend() == "cpu" else budget.MAX_BATCH
    return min(n_restarts, max(budget.MIN_BATCH, min(most, budget.BATCH_WORK // work)))


def run_to_end(
    method: Algorithm,
    batch: Batch,
    all_begun: bool,
    starts: Any,
    samples: Samples,
    control: Any,
    work: int,
    progress: ProgressCallback | None,
) -> Batch:
    """Run a queue until it is empty; ``all_begun`` says that no start waits for a lane."""
    n_restarts, width = len(restart_axis(starts)), len(batch.restart)
    traced = is_traced(batch, samples, control)
    forever = jnp.iinfo(jnp.int32).max // 2
    while True:
        narrowing = width > budget.MIN_BATCH and work * width > budget.NARROWING_WORK and not traced
        iterations = forever if progress is None or traced else budget.CHUNK_STEPS
        few = width // 4 * narrowing
        in_all = work * n_restarts * budget.EXPECTED_STEPS
        arguments = (batch, starts, samples, control, iterations, few)
        batch, standing = _compiled_iterate(in_all, method, all_begun, *arguments)
        if traced:
            return batch
        now = jax.device_get(standing)
        n_running, n_waiting = int(now.n_running), int(now.n_waiting)
        if progress is not None:
            highest, unfinished = float(now.log_likelihood), n_running + n_waiting
            most = method.max_steps
            progress(Progress(int(now.step), most, highest, unfinished, n_restarts))
        if not n_running:
            return batch
        if narrowing and n_running <= width // 4 and not n_waiting:
            width, all_begun = width // 4, True
            batch = _narrow(batch, width)


def restart_axis(starts: Any) -> Array:
    """Any leaf of the starts: its first axis is R."""
    return jax.tree.leaves(starts)[0]


@partial(jit, static_argnums=(0, 2))
def open_batch(method: Algorithm, starts: Any, width: int) -> Batch:
    """A queue whose first W starts have begun."""
    n_restarts = restart_axis(starts).shape[0]
    states = jax.vmap(method.init)(jax.tree.map(lambda leaf: leaf[:width], starts))
    dtype = states.log_likelihood.dtype
    nothing = jnp.full(n_restarts, -1)
    outcomes = Restarts(
        jnp.full(n_restarts, jnp.nan, dtype), nothing, nothing, nothing, jnp.asarray(n_restarts)
    )
    history = jnp.full((width, method.max_steps + 1), jnp.nan, dtype)
    first = jax.tree.map(lambda leaf: leaf[0], states)
    batch = Batch(
        states,
        jnp.arange(width),
        history,
        jnp.asarray(width),
        jnp.asarray(0),
        outcomes,
        first,
        history[0],
    )
    # Not weakly typed, as no step leaves it: else the program would be compiled once more.
    return jax.tree.map(lambda leaf: leaf.astype(leaf.dtype), batch)


def _iterate(
    method: Algorithm,
    all_begun: bool,
    batch: Batch,
    starts: Any,
    samples: Samples,
    control: Any,
    iterations: Array,
    few: Array,
) -> tuple[Batch, _Summary]:
    """Take so many turns, or fewer when at most ``few`` lanes run and no start waits."""
    n_restarts, limit = restart_axis(starts).shape[0], batch.iterations + iterations

    def going_on(batch: Batch) -> Array:
        n_running = _running(batch).sum()
        busy = (n_running > few) | (batch.next_start < n_restarts)
        return (n_running > 0) & busy & (batch.iterations < limit)

    def turn(batch: Batch) -> Batch:
        stepped = replace(
            step_all(method, batch, samples, control), iterations=batch.iterations + 1
        )
        # Once every start has a lane, outcomes stay in the lanes until all turns are taken.
        return stepped if all_begun else _refill(method, record_finished(stepped), starts)

    # To hand in what has been is harmless, and here it is no program of its own.
    batch = record_finished(lax.while_loop(going_on, turn, batch))
    return batch, _summarize(batch, samples)


_compiled_iterate = JitByWork(_iterate, static_argnums=(0, 1))


def step_all(method: Algorithm, batch: Batch, samples: Samples, control: Any) -> Batch:
    """One step of every lane, entered into its history."""
    states = method.step(batch.states, samples, control)
    # A step that ended a run, or moved it on, has set the log-likelihood before the move.
    rows = jnp.arange(states.status.shape[0])
    history = batch.history.at[rows, batch.states.n_steps].set(states.log_likelihood)
    return replace(batch, states=states, history=history)


def _running(batch: Batch) -> Array:
    seated = batch.restart < batch.outcomes.status.shape[0]
    return (batch.states.status == Status.RUNNING) & seated


@jit
def record_finished(batch: Batch) -> Batch:
    """Enter the lanes that have ended into the table, and keep the best of them."""
    states, outcomes = batch.states, batch.outcomes
    n_restarts = outcomes.status.shape[0]
    where = jnp.where(states.status != Status.RUNNING, batch.restart, n_restarts)

    def enter(column: Array, values: Array) -> Array:
        return column.at[where].set(values.astype(column.dtype), mode="drop")

    outcomes = Restarts(
        enter(outcomes.log_likelihood, states.log_likelihood),
        enter(outcomes.status, states.status),
        enter(outcomes.n_steps, states.n_steps),
        enter(outcomes.collapsed, states.collapsed),
        outcomes.best,
    )
    best = choose(outcomes)
    state = jnp.argmax(where == best)  # the lane that has just handed it in, if one has
    new = where[state] == best

    def keep(candidate: Array, old: Array) -> Array:
        return jnp.where(new, candidate[state], old)

    return replace(
        batch,
        outcomes=replace(outcomes, best=best),
        best=jax.tree.map(keep, states, batch.best),
        best_history=keep(batch.history, batch.best_history),
    )


def _refill(method: Algorithm, batch: Batch, starts: Any) -> Batch:
    """Give each lane that has ended the next start that waits, or leave it idle."""
    n_restarts = restart_axis(starts).shape[0]
    ended = (batch.states.status != Status.RUNNING) & (batch.restart < n_restarts)
    turn_of = batch.next_start + jnp.cumsum(ended) - 1
    restart = jnp.where(ended, jnp.minimum(turn_of, n_restarts), batch.restart)
    begun = ended & (restart < n_restarts)
    chosen = jnp.minimum(restart, n_restarts - 1)
    fresh = jax.vmap(method.init)(jax.tree.map(lambda leaf: leaf[chosen], starts))

    return replace(
        batch,
        states=pytree.where(begun, fresh, batch.states),
        restart=restart,
        next_start=jnp.minimum(batch.next_start + ended.sum(), n_restarts),
    )


@partial(jit, static_argnums=1)
def _narrow(batch: Batch, width: int) -> Batch:
    """The same queue with fewer lanes, which hold all that still run."""
    batch = record_finished(batch)
    return select_runs(batch, jnp.argsort(~_running(batch))[:width])


def select_runs(batch: Batch, places: Array) -> Batch:
    """The same queue with the lanes at the given places only, in that order."""
    states, restart, history = jax.tree.map(
        lambda leaf: leaf[places], (batch.states, batch.restart, batch.history)
    )
    return replace(batch, states=states, restart=restart, history=history)


class _Summary(NamedTuple):
    """How the queue stands, () each."""

    step: Array
    log_likelihood: Array
    n_running: Array
    n_waiting: Array


def _summarize(batch: Batch, samples: Samples) -> _Summary:
    states, outcomes = batch.states, batch.outcomes
    running = _running(batch)
    best_running = jnp.where(running, states.log_likelihood, -jnp.inf)
    highest = jnp.maximum(
        score(outcomes.log_likelihood, outcomes.status).max(),
        best_running.max(),
    )
    shift = samples.total_weight() * samples.frame.log_volume()
    n_waiting = outcomes.status.shape[0] - batch.next_start
    return _Summary(states.n_steps.max(), highest - shift, running.sum(), n_waiting)
