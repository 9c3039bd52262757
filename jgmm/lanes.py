"""Many runs of one iterative method as one compiled program that wastes little on those that end.

R starts queue up for W lanes. All lanes step together; a lane whose run has ended hands in its
outcome and takes the next start. Memory holds W runs and the best so far, whatever R is, and a slow
run holds up nothing but the lane it is in. The method is EM, a gradient method, or a reader's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jgmm import pytree
from jgmm.frame import Population
from jgmm.precision import JitByWork, jit
from jgmm.pytree import Leaf
from jgmm.samples import Samples
from jgmm.status import USABLE, VALID, Status, among, is_traced

CHUNK_STEPS = 25  # between two reports of progress
# Lanes at least, and at most: more than so many bring a CPU no more speed, and all wait
# for the slowest; other devices have more hands.
MIN_LANES, MAX_LANES_CPU, MAX_LANES = 8, 32, 1024
# Work a step, in multiplications, at which more lanes bring no more speed, and above which it
# pays to compile the program once more for the few lanes that run on at the end.
ENOUGH_WORK = 1 << 27
NARROWING_WORK = 1 << 29
MANY_STEPS = 128  # that a run is expected to take


@runtime_checkable
class Method(Protocol):
    """What a method must offer to run in lanes; static and hashable.

    A lane is a pytree with ``log_likelihood``, ``status``, ``n_steps`` and ``collapsed``.
    ``max_steps`` bounds ``n_steps``; the method itself sets the status when it gets there.
    """

    @property
    def max_steps(self) -> int:
        """Updates at most, a run."""

    def begin(self, start: Any) -> Any:
        """The lane of one start."""

    def step(self, lanes: Any, samples: Samples, control: Any) -> Any:
        """One step of every lane, leading axis W; a lane that has ended stays as it is."""

    def scout(self) -> Method:
        """The same method where runs are only compared: it may leave the last digits for later."""


@runtime_checkable
class Additive(Method, Protocol):
    """A method whose step is a sum over samples, and what follows from it.

    So the samples may be in blocks of a file, on several devices, or on several machines.
    """

    def scout(self) -> Additive:
        """As ``Method.scout``."""

    def expect(self, lanes: Any, samples: Samples) -> tuple[Any, Any]:
        """The ``Statistics`` of every lane, and what of them is no sum, the same for all blocks."""

    def advance(
        self, lanes: Any, statistics: Any, digits: Any, population: Population, control: Any
    ) -> Any:
        """The lanes after a step, from the statistics of all samples."""


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
class Restarts:
    """What became of each of R restarts; leaves (R,), and the index of the one chosen."""

    log_likelihood: Leaf
    status: Leaf
    n_steps: Leaf
    collapsed: Leaf
    best: Leaf


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Queue:
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


def run(
    method: Method,
    starts: Any,
    samples: Samples,
    control: Any,
    work: int,
    progress: ProgressCallback | None = None,
) -> Queue:
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
    n_restarts = len(starts_axis(starts))
    width = lanes_for(n_restarts, work)
    queue = open_queue(method, starts, width)
    return drain(method, queue, width == n_restarts, starts, samples, control, work, progress)


def lanes_for(n_restarts: int, work: int) -> int:
    """How many lanes R starts share: enough to fill the machine, and no more."""
    most = MAX_LANES_CPU if jax.default_backend() == "cpu" else MAX_LANES
    return min(n_restarts, max(MIN_LANES, min(most, ENOUGH_WORK // work)))


def drain(
    method: Method,
    queue: Queue,
    all_begun: bool,
    starts: Any,
    samples: Samples,
    control: Any,
    work: int,
    progress: ProgressCallback | None,
) -> Queue:
    """Run a queue until it is empty; ``all_begun`` says that no start waits for a lane."""
    n_restarts, width = len(starts_axis(starts)), len(queue.restart)
    traced = is_traced(queue, samples, control)
    forever = jnp.iinfo(jnp.int32).max // 2
    while True:
        narrowing = width > MIN_LANES and work * width > NARROWING_WORK and not traced
        turns = forever if progress is None or traced else CHUNK_STEPS
        few = width // 4 * narrowing
        in_all = work * n_restarts * MANY_STEPS
        arguments = (queue, starts, samples, control, turns, few)
        queue, standing = _work(in_all, method, all_begun, *arguments)
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


def starts_axis(starts: Any) -> Array:
    """Any leaf of the starts: its first axis is R."""
    return jax.tree.leaves(starts)[0]


@partial(jit, static_argnums=(0, 2))
def open_queue(method: Method, starts: Any, width: int) -> Queue:
    """A queue whose first W starts have begun."""
    n_restarts = starts_axis(starts).shape[0]
    lanes = jax.vmap(method.begin)(jax.tree.map(lambda leaf: leaf[:width], starts))
    dtype = lanes.log_likelihood.dtype
    nothing = jnp.full(n_restarts, -1)
    table = Restarts(
        jnp.full(n_restarts, jnp.nan, dtype), nothing, nothing, nothing, jnp.asarray(n_restarts)
    )
    history = jnp.full((width, method.max_steps + 1), jnp.nan, dtype)
    first = jax.tree.map(lambda leaf: leaf[0], lanes)
    queue = Queue(
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


def _turns(
    method: Method,
    all_begun: bool,
    queue: Queue,
    starts: Any,
    samples: Samples,
    control: Any,
    turns: Array,
    few: Array,
) -> tuple[Queue, _Standing]:
    """Take so many turns, or fewer when at most ``few`` lanes run and no start waits."""
    n_restarts, limit = starts_axis(starts).shape[0], queue.turns + turns

    def going_on(queue: Queue) -> Array:
        n_running = _running(queue).sum()
        busy = (n_running > few) | (queue.waiting < n_restarts)
        return (n_running > 0) & busy & (queue.turns < limit)

    def turn(queue: Queue) -> Queue:
        stepped = replace(step(method, queue, samples, control), turns=queue.turns + 1)
        # Once every start has a lane, outcomes stay in the lanes until all turns are taken.
        return stepped if all_begun else _refill(method, hand_in(stepped), starts)

    # To hand in what has been is harmless, and here it is no program of its own.
    queue = hand_in(lax.while_loop(going_on, turn, queue))
    return queue, _stand(queue, samples)


_work = JitByWork(_turns, static_argnums=(0, 1))


def step(method: Method, queue: Queue, samples: Samples, control: Any) -> Queue:
    """One step of every lane, entered into its history."""
    lanes = method.step(queue.lanes, samples, control)
    # A step that ended a run, or moved it on, has set the log-likelihood before the move.
    rows = jnp.arange(lanes.status.shape[0])
    history = queue.history.at[rows, queue.lanes.n_steps].set(lanes.log_likelihood)
    return replace(queue, lanes=lanes, history=history)


def _running(queue: Queue) -> Array:
    seated = queue.restart < queue.table.status.shape[0]
    return (queue.lanes.status == Status.RUNNING) & seated


@jit
def hand_in(queue: Queue) -> Queue:
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


def choose(table: Restarts) -> Array:
    """Index of the best outcome in a table, the first of equals; 0 when there is none.

    It is the best of the valid; where none is, the best of the usable.
    """
    valid, usable = (score(table.log_likelihood, table.status, codes) for codes in (VALID, USABLE))
    return jnp.argmax(jnp.where(jnp.isfinite(valid).any(), valid, usable))


def score(
    log_likelihood: Array, status: Array, eligible: tuple[Status, ...] = VALID
) -> Float[Array, "R"]:
    """What outcomes are compared by: the log-likelihood, -inf for one that is not eligible."""
    may_win = among(status, eligible) & jnp.isfinite(log_likelihood)
    return jnp.where(may_win, log_likelihood, -jnp.inf)


def _refill(method: Method, queue: Queue, starts: Any) -> Queue:
    """Give each lane that has ended the next start that waits, or leave it idle."""
    n_restarts = starts_axis(starts).shape[0]
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
def _narrow(queue: Queue, width: int) -> Queue:
    """The same queue with fewer lanes, which hold all that still run."""
    queue = hand_in(queue)
    return seat(queue, jnp.argsort(~_running(queue))[:width])


def seat(queue: Queue, places: Array) -> Queue:
    """The same queue with the lanes at the given places only, in that order."""
    lanes, restart, history = jax.tree.map(
        lambda leaf: leaf[places], (queue.lanes, queue.restart, queue.history)
    )
    return replace(queue, lanes=lanes, restart=restart, history=history)


class _Standing(NamedTuple):
    """How the queue stands, () each."""

    step: Array
    log_likelihood: Array
    n_running: Array
    n_waiting: Array


def _stand(queue: Queue, samples: Samples) -> _Standing:
    lanes, table = queue.lanes, queue.table
    running = _running(queue)
    best_running = jnp.where(running, lanes.log_likelihood, -jnp.inf)
    highest = jnp.maximum(
        score(table.log_likelihood, table.status).max(),
        best_running.max(),
    )
    shift = samples.total_weight() * samples.frame.log_volume()
    n_waiting = table.status.shape[0] - queue.waiting
    return _Standing(lanes.n_steps.max(), highest - shift, running.sum(), n_waiting)


def clean_history(history: Array, n_steps: Array) -> Array:
    """A lane's history with NaN beyond its last step: what a run before it left there."""
    return jnp.where(jnp.arange(history.shape[0]) <= n_steps, history, jnp.nan)
