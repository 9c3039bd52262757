"""Batched restarts: many runs of one iterative algorithm as one compiled program.

Of R starts, W run side by side in a batch and take their steps together. A finished run is recorded
and its place taken by the next start. So memory holds W runs and the best one so far, whatever R
is, and a slow run delays no other start. The algorithm is EM, a gradient method, or one of the
user's own.
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
    """A progress report of a fit, passed to the callback between compiled chunks of steps.

    Attributes:
      step: steps that the run with the most steps has taken.
      max_steps: maximal number of steps of a run.
      log_likelihood: the highest so far, in nats.
      n_running: restarts that have not finished, including those that have not begun.
      n_restarts: R.
    """

    step: int
    max_steps: int
    log_likelihood: float
    n_running: int
    n_restarts: int


ProgressCallback = Callable[[Progress], None]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """W runs side by side, and the outcomes of the runs that have finished.

    Attributes:
      states: states of the W runs, leading axis W.
      restart: the number of the start that each run began from, (W,); R for a run not in use, where
        R is the number of starts that there is room for.
      history: log-likelihood of each run before each of its steps, (W, max_steps + 1).
      next_start: the number of the first start that has not begun, ().
      n_starts: the number of starts; those after them, up to R, are not run, ().
      iterations: steps that the batch has taken, ().
      outcomes: the outcomes recorded so far, and the index of the best.
      best: the final state of the best run.
      best_history: the history of the best run, (max_steps + 1,).
    """

    states: Any
    restart: Leaf
    history: Leaf
    next_start: Leaf
    n_starts: Leaf
    iterations: Leaf
    outcomes: Restarts
    best: Any
    best_history: Leaf


def run_restarts(
    algorithm: Algorithm,
    starts: Any,
    samples: Samples,
    control: Any,
    work: int,
    progress: ProgressCallback | None = None,
    n_starts: int | None = None,
) -> Batch:
    """Run an iterative algorithm from every start until all runs have finished.

    Args:
      algorithm: what a step does.
      starts: R starts, leading axis.
      samples: the samples that are fitted, in their frame.
      control: leaves that the algorithm reads, such as tolerances.
      work: approximate number of multiplications in a step of one run; it sets the size of the
        batch.
      progress: called on the host every few steps. Without it, and inside a transformation, all
        steps are one call of one compiled program.
      n_starts: number of the starts to run, the first ones; all by default. One compiled program
        serves every number.

    Returns:
      The batch at its end: all ``outcomes``, and the ``best`` run with its history. The best run is
      the one ``results.choose`` returns: that of the highest log-likelihood among the valid runs;
      where none is valid, among the usable ones; of equals the first.
    """
    n_restarts = len(restart_axis(starts))
    width = batch_width(n_restarts, work)
    if n_starts is not None:
        width = min(n_restarts, budget.MIN_BATCH)
    batch = open_batch(algorithm, starts, width, n_starts)
    all_begun = width == n_restarts
    return run_to_end(
        algorithm, batch, all_begun, starts, samples, control, work, progress, n_starts
    )


def batch_width(n_restarts: int, work: int) -> int:
    """Return W, the number of restarts that run side by side: enough to use the whole machine.

    Args:
      n_restarts: R.
      work: approximate number of multiplications in a step of one run.
    """
    most = budget.MAX_BATCH_CPU if jax.default_backend() == "cpu" else budget.MAX_BATCH
    return min(n_restarts, max(budget.MIN_BATCH, min(most, budget.BATCH_WORK // work)))


def run_to_end(
    algorithm: Algorithm,
    batch: Batch,
    all_begun: bool,
    starts: Any,
    samples: Samples,
    control: Any,
    work: int,
    progress: ProgressCallback | None,
    n_starts: int | None = None,
) -> Batch:
    """Run a batch until every start has finished.

    Args:
      algorithm, starts, samples, control, work, progress, n_starts: as for ``run_restarts``.
      batch: W runs that have begun.
      all_begun: whether no start is waiting for a place in the batch.
    """
    width, n_restarts = len(batch.restart), n_starts or len(restart_axis(starts))
    # One program serves every number of starts, and the number must not decide how it is compiled.
    most = width if n_starts else n_restarts
    traced = is_traced(batch, samples, control)
    unlimited = jnp.iinfo(jnp.int32).max // 2
    while True:
        narrowing = width > budget.MIN_BATCH and work * width > budget.NARROWING_WORK and not traced
        iterations = unlimited if progress is None or traced else budget.CHUNK_STEPS
        few = width // 4 * narrowing
        total_work = work * most * budget.EXPECTED_STEPS
        arguments = (batch, starts, samples, control, iterations, few)
        batch, summary = _compiled_iterate(total_work, algorithm, all_begun, *arguments)
        if traced:
            return batch
        now = jax.device_get(summary)
        n_running, n_waiting = int(now.n_running), int(now.n_waiting)
        if progress is not None:
            highest, unfinished = float(now.log_likelihood), n_running + n_waiting
            max_steps = algorithm.max_steps
            progress(Progress(int(now.step), max_steps, highest, unfinished, n_restarts))
        if not n_running:
            return batch
        if narrowing and n_running <= width // 4 and not n_waiting:
            width, all_begun = width // 4, True
            batch = _narrow(batch, width)


def restart_axis(starts: Any) -> Array:
    """Return any leaf of the starts; its first axis is that of the R restarts."""
    return jax.tree.leaves(starts)[0]


@partial(jit, quick=True, static_argnums=(0, 2))
def open_batch(algorithm: Algorithm, starts: Any, width: int, n_starts: Any = None) -> Batch:
    """Return a batch of ``width`` runs, which begin from the first of ``n_starts`` starts.

    Runs for which there is no start take no steps.
    """
    n_restarts, number = restart_axis(starts).shape[0], jnp.arange(width)
    states = jax.vmap(algorithm.init)(jax.tree.map(lambda leaf: leaf[:width], starts))
    if n_starts is None:
        n_starts = n_restarts
    else:
        status = jnp.where(number < n_starts, states.status, int(Status.OUTRUN))
        states = replace(states, status=status)
    dtype = states.log_likelihood.dtype
    unknown = jnp.full(n_restarts, -1)
    outcomes = Restarts(
        jnp.full(n_restarts, jnp.nan, dtype), unknown, unknown, unknown, jnp.asarray(n_restarts)
    )
    history = jnp.full((width, algorithm.max_steps + 1), jnp.nan, dtype)
    first = jax.tree.map(lambda leaf: leaf[0], states)
    batch = Batch(
        states,
        jnp.where(number < n_starts, number, n_restarts),
        history,
        jnp.minimum(width, n_starts),
        jnp.asarray(n_starts),
        jnp.asarray(0),
        outcomes,
        first,
        history[0],
    )
    # A step returns strongly typed arrays. Weakly typed ones here would compile the program twice.
    return jax.tree.map(lambda leaf: leaf.astype(leaf.dtype), batch)


def _iterate(
    algorithm: Algorithm,
    all_begun: bool,
    batch: Batch,
    starts: Any,
    samples: Samples,
    control: Any,
    iterations: Array,
    few: Array,
) -> tuple[Batch, _Summary]:
    """Take steps of the whole batch, and record the runs that finish.

    It stops after ``iterations`` steps, or earlier, when no start is waiting and at most ``few``
    runs are still running.
    """
    limit = batch.iterations + iterations

    def goes_on(batch: Batch) -> Array:
        n_running = _running(batch).sum()
        busy = (n_running > few) | (batch.next_start < batch.n_starts)
        return (n_running > 0) & busy & (batch.iterations < limit)

    def iterate(batch: Batch) -> Batch:
        stepped = replace(
            step_all(algorithm, batch, samples, control), iterations=batch.iterations + 1
        )
        # Once every start has begun, no run is replaced: its state stays in the batch, and it is
        # enough to record all runs after the loop.
        return stepped if all_begun else _refill(algorithm, record_finished(stepped), starts)

    batch = lax.while_loop(goes_on, iterate, batch)
    batch = record_finished(batch) if all_begun else batch
    return batch, _summarize(batch, samples)


_compiled_iterate = JitByWork(_iterate, static_argnums=(0, 1))


def step_all(algorithm: Algorithm, batch: Batch, samples: Samples, control: Any) -> Batch:
    """Take one step of every run, and write its log-likelihood into the history."""
    states = algorithm.step(batch.states, samples, control)
    # The log-likelihood after a step is that of the parameters before it, whether the step moved
    # the parameters or ended the run; so it belongs at the number of steps taken before.
    rows = jnp.arange(states.status.shape[0])
    history = batch.history.at[rows, batch.states.n_steps].set(states.log_likelihood)
    return replace(batch, states=states, history=history)


def _running(batch: Batch) -> Array:
    """Return which runs have not finished, (W,)."""
    in_use = batch.restart < batch.outcomes.status.shape[0]
    return (batch.states.status == Status.RUNNING) & in_use


@jit
def record_finished(batch: Batch) -> Batch:
    """Record the outcomes of the runs that have finished, and keep the best of them."""
    states, outcomes = batch.states, batch.outcomes
    n_restarts = outcomes.status.shape[0]
    where = jnp.where(states.status != Status.RUNNING, batch.restart, n_restarts)

    def record(column: Array, values: Array) -> Array:
        return column.at[where].set(values.astype(column.dtype), mode="drop")

    outcomes = Restarts(
        record(outcomes.log_likelihood, states.log_likelihood),
        record(outcomes.status, states.status),
        record(outcomes.n_steps, states.n_steps),
        record(outcomes.collapsed, states.collapsed),
        outcomes.best,
    )
    best = choose(outcomes)
    # If the best run is in the batch, this is its index there; otherwise it is kept from before.
    index = jnp.argmax(where == best)
    is_new = where[index] == best

    def keep(candidate: Array, old: Array) -> Array:
        return jnp.where(is_new, candidate[index], old)

    return replace(
        batch,
        outcomes=replace(outcomes, best=best),
        best=jax.tree.map(keep, states, batch.best),
        best_history=keep(batch.history, batch.best_history),
    )


def _refill(algorithm: Algorithm, batch: Batch, starts: Any) -> Batch:
    """Replace each finished run by the next start that is waiting, or mark it as not in use."""
    n_restarts = restart_axis(starts).shape[0]
    finished = (batch.states.status != Status.RUNNING) & (batch.restart < n_restarts)
    number = batch.next_start + jnp.cumsum(finished) - 1
    number = jnp.where(number < batch.n_starts, number, n_restarts)
    restart = jnp.where(finished, number, batch.restart)
    begins = finished & (restart < n_restarts)
    chosen = jnp.minimum(restart, n_restarts - 1)
    fresh = jax.vmap(algorithm.init)(jax.tree.map(lambda leaf: leaf[chosen], starts))

    return replace(
        batch,
        states=pytree.where(begins, fresh, batch.states),
        restart=restart,
        next_start=jnp.minimum(batch.next_start + finished.sum(), batch.n_starts),
    )


@partial(jit, quick=True, static_argnums=1)
def _narrow(batch: Batch, width: int) -> Batch:
    """Return a smaller batch, which holds all runs that have not finished."""
    batch = record_finished(batch)
    return select_runs(batch, jnp.argsort(~_running(batch))[:width])


def select_runs(batch: Batch, indices: Array) -> Batch:
    """Return the batch with only the runs at the given indices, in that order."""
    states, restart, history = jax.tree.map(
        lambda leaf: leaf[indices], (batch.states, batch.restart, batch.history)
    )
    return replace(batch, states=states, restart=restart, history=history)


class _Summary(NamedTuple):
    """The progress of a batch, () each.

    Attributes:
      step: steps that the run with the most steps has taken.
      log_likelihood: the highest so far, in nats, in the user's units.
      n_running: runs that have not finished.
      n_waiting: starts that have not begun.
    """

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
    n_waiting = batch.n_starts - batch.next_start
    return _Summary(states.n_steps.max(), highest - shift, running.sum(), n_waiting)
