"""A problem climbed by a method from every start, what it cost, and how it compares with EM."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

import jgmm
from jgmm._core.status import VALID, Status
from jgmm._data.samples import Samples
from jgmm.em.e_step import accumulate
from jgmm.fitting.restarts import restart_axis
from jgmm.fitting.results import FitResult, to_result
from jgmm.mixture.mixture import Mixture


class Problem(NamedTuple):
    """A data set and what is fitted to it."""

    name: str
    x: Float[np.ndarray, "N D"]
    n_components: int
    covariance: str


class Climb(NamedTuple):
    """What became of R starts.

    Attributes:
      result: the fits, leading axis R.
      passes: made until each of their steps, (R, steps + 1).
      made: passes in all, (R,).
      seconds: taken by each, without compiling, (R,).
    """

    result: FitResult
    passes: Any
    made: Any
    seconds: Float[np.ndarray, "R"]


def climb(method: Any, starts: Any, samples: Samples, control: Any) -> Climb:
    """Run a method from every start, one after another, and keep the passes and the seconds."""
    batches = getattr(method, "batch_size", None) is not None

    def one(start: Any, samples: Samples, control: Any) -> tuple[FitResult, Array, Array]:
        first = jax.tree.map(lambda leaf: leaf[None], method.init(start))
        empty = jnp.full(method.max_steps + 1, jnp.nan, samples.x.dtype)
        most = method.max_steps

        def turn(carry: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
            states, history, passes = carry
            at = states.n_steps[0]
            stepped = method.step(states, samples, control)
            found = stepped.log_likelihood[0]
            if batches:  # what a batch says of it is an estimate; this pass is the study's, not its
                found = accumulate(_end(method, states), samples).log_likelihood
            history = history.at[at].set(found)
            passes = passes.at[at].set(_passes(states).astype(passes.dtype) + 1)
            return stepped, history, passes

        def going_on(carry: tuple[Any, Array, Array]) -> Array:
            return (carry[0].status[0] == Status.RUNNING) & (_passes(carry[0]) <= most)

        states, history, passes = lax.while_loop(going_on, turn, (first, empty, empty))
        state, end = jax.tree.map(lambda leaf: leaf[0], states), _end(method, states)
        log_likelihood = accumulate(end, samples).log_likelihood
        return (
            to_result(end, log_likelihood, state, history, None, samples),
            passes,
            _passes(states),
        )

    each = [
        jax.tree.map(lambda leaf, r=r: leaf[r], starts) for r in range(len(restart_axis(starts)))
    ]
    program = jax.jit(one).lower(each[0], samples, control).compile()
    found, seconds = [], []
    for start in each:
        begun = time.perf_counter()
        found.append(jax.block_until_ready(program(start, samples, control)))
        seconds.append(time.perf_counter() - begun)
    result, passes, made = jax.tree.map(lambda *leaves: jnp.stack(leaves), *found)
    return Climb(result, passes, made, np.asarray(seconds))


def _passes(states: Any) -> Array:
    """Passes that the first lane has made."""
    made = states.n_passes if hasattr(states, "n_passes") else states.n_steps
    return jnp.asarray(made[0])


def _end(method: Any, states: Any) -> Mixture:
    """Where the first lane is."""
    state = jax.tree.map(lambda leaf: leaf[0], states)
    found: Mixture = state.mixture if hasattr(state, "mixture") else method.mixture(state)
    return found


class Score(NamedTuple):
    """How one method did from R starts, by EM's ends from them.

    Attributes:
      ends: log-likelihoods, -inf for a failure, (R,).
      as_high: passes until within 1e-10 of EM's end, relative; infinite for never, (R,).
      near: passes until within ``within`` nats a sample of it, (R,).
      elsewhere: ended at another optimum, above (1) or below (-1), (R,).
      falls: the most the log-likelihood fell from one step to the next, ().
      seconds: passes until as high times seconds a pass, (R,).
    """

    ends: Float[np.ndarray, "R"]
    as_high: Float[np.ndarray, "R"]
    near: Float[np.ndarray, "R"]
    elsewhere: Float[np.ndarray, "R"]
    falls: float
    seconds: Float[np.ndarray, "R"]


def score(problem: Problem, climbs: dict[str, Climb], within: float) -> dict[str, Score]:
    ends = {name: valid_ends(climb.result, problem.x) for name, climb in climbs.items()}
    goal, slack = ends["EM"], within * len(problem.x)
    scores = {}
    for name, climb in climbs.items():
        history = np.asarray(climb.result.history)
        passes = np.asarray(climb.passes)

        def until(level: np.ndarray, history: Any = history, passes: Any = passes) -> Any:
            reached = history >= level[:, None]
            first = np.take_along_axis(passes, reached.argmax(axis=1)[:, None], axis=1)[:, 0]
            return np.where(reached.any(axis=1) & np.isfinite(goal), first, np.inf)

        both = np.isfinite(goal) & np.isfinite(ends[name])
        away = np.where(both, ends[name], 0) - np.where(both, goal, 0)
        as_high = until(goal - 1e-10 * np.abs(goal))
        scores[name] = Score(
            ends[name],
            as_high,
            until(goal - slack),
            np.where(np.abs(away) > slack, np.sign(away), 0),
            float(-np.nanmin(np.diff(history, axis=1), initial=0)),
            as_high * climb.seconds / np.maximum(np.asarray(climb.made), 1),
        )
    return scores


def valid_ends(result: FitResult, x: Any) -> Float[np.ndarray, "R"]:
    """Final log-likelihoods, -inf where the fit failed or was climbing towards a singularity.

    The likelihood is unbounded: it grows without limit as a component closes in on few samples.
    EM gets there fast and says that the component collapsed. A gradient method takes so many steps
    that they run out first, at a log-likelihood that looks better than any: one step of EM from
    there tells.
    """
    after = _status_after_a_step(result.mixture, jnp.asarray(x))
    running = np.asarray(result.status) == Status.RUNNING  # its passes ran out
    valid = (running | np.isin(result.status, VALID)) & np.isin(after, VALID)
    return np.where(valid, result.log_likelihood, -np.inf)


@jax.jit
def _status_after_a_step(mixtures: Mixture, x: Array) -> Array:
    return jax.vmap(lambda mixture: jgmm.fitting.run_em(mixture, x, max_steps=1).status)(mixtures)


def median(values: Sequence[float] | np.ndarray) -> float:
    """The median; infinite where half of the starts did not get there."""
    return float(np.sort(np.asarray(values))[(len(values) - 1) // 2])
