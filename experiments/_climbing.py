"""Run an algorithm from every start of a problem, count its passes, and compare it with EM."""

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
    """A data set, the number of components, and the covariance model fitted to it."""

    name: str
    x: Float[np.ndarray, "N D"]
    n_components: int
    covariance: str


class Climb(NamedTuple):
    """The fits from R starts, and their cost.

    Attributes:
      result: the fits, leading axis R.
      passes: number of passes made up to each step, (R, steps + 1).
      made: number of passes in all, (R,).
      seconds: seconds each fit took, without compiling, (R,).
    """

    result: FitResult
    passes: Any
    made: Any
    seconds: Float[np.ndarray, "R"]


def climb(method: Any, starts: Any, samples: Samples, control: Any) -> Climb:
    """Run an algorithm from every start, one after another; record passes and seconds."""
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
            if batches:  # the batch gives only an estimate; this pass is not counted
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
    """Return the number of passes of the first run."""
    made = states.n_passes if hasattr(states, "n_passes") else states.n_steps
    return jnp.asarray(made[0])


def _end(method: Any, states: Any) -> Mixture:
    """Return the mixture of the first run."""
    state = jax.tree.map(lambda leaf: leaf[0], states)
    found: Mixture = state.mixture if hasattr(state, "mixture") else method.mixture(state)
    return found


class Score(NamedTuple):
    """Results of one method from R starts, compared with where EM ends from the same starts.

    Attributes:
      ends: final log-likelihoods, -inf for a failure, (R,).
      as_high: passes until the log-likelihood is within a relative 1e-10 of EM's end; infinite if
        it never is, (R,).
      near: passes until it is within ``within`` nats a sample of EM's end, (R,).
      elsewhere: 1 for an end at a higher optimum, -1 at a lower one, 0 at EM's, (R,).
      falls: largest decrease of the log-likelihood from one step to the next, ().
      seconds: ``as_high`` times seconds per pass, (R,).
    """

    ends: Float[np.ndarray, "R"]
    as_high: Float[np.ndarray, "R"]
    near: Float[np.ndarray, "R"]
    elsewhere: Float[np.ndarray, "R"]
    falls: float
    seconds: Float[np.ndarray, "R"]


def score(problem: Problem, climbs: dict[str, Climb], within: float) -> dict[str, Score]:
    """Compare every method with EM, from the same starts of one problem."""
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
    """Final log-likelihoods, -inf where the fit failed or was on its way to a singularity.

    The likelihood is unbounded: it grows without limit as a component shrinks to a few samples. EM
    gets there fast and reports that the component collapsed. A gradient method needs so many steps
    that they run out first, with a log-likelihood that looks better than any other. One step of EM
    from its end shows whether that is so.
    """
    after = _status_after_a_step(result.mixture, jnp.asarray(x))
    running = np.asarray(result.status) == Status.RUNNING  # the passes ran out
    valid = (running | np.isin(result.status, VALID)) & np.isin(after, VALID)
    return np.where(valid, result.log_likelihood, -np.inf)


@jax.jit
def _status_after_a_step(mixtures: Mixture, x: Array) -> Array:
    return jax.vmap(lambda mixture: jgmm.fitting.run_em(mixture, x, max_steps=1).status)(mixtures)


def median(values: Sequence[float] | np.ndarray) -> float:
    """Return the median; infinite where half of the values are infinite."""
    return float(np.sort(np.asarray(values))[(len(values) - 1) // 2])
