"""Racing by successive halving: give every start a few steps, and let only the best ones go on.

All R starts take a few steps, W at a time. The most promising quarter of them takes four times as
many steps, a quarter of these four times as many again, and so on; the last few run to their ends.
No round costs more than the one before, so the whole race costs a few steps a start instead of a
run a start.

Runs are ranked by the limit of their log-likelihood, which is extrapolated (Aitken): EM converges
linearly, so with gains g, ρg, ρ²g, … the limit is ρ/(1 - ρ) times the last gain away. Of several
runs with the same limit only one goes on, because the others would find the same optimum again.

The price: an optimum that only few starts reach, and reach slowly, may be lost. Longer rounds lose
fewer optima. ``experiments/racing.py`` measures how many.

References: Biernacki, Celeux & Govaert (2003), "em-EM"; Böhning et al. (1994) for the limit;
Jamieson & Talwalkar (2016) for successive halving.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jgmm._core.compilation import jit
from jgmm._core.errors import DataError, shown
from jgmm._core.status import VALID, Status, among
from jgmm._data.samples import Samples
from jgmm.fitting import restarts
from jgmm.fitting.algorithm import Algorithm
from jgmm.fitting.restarts import Batch, ProgressCallback

# After each round one run in FACTOR goes on, for FACTOR times as many steps.
FACTOR = 4
# Number of runs that go on to their ends.
FINALISTS = 8
# Steps of the first round, at least: a limit is extrapolated from three log-likelihoods.
MIN_STEPS = 3
# Runs are taken to have the same limit if their log-likelihoods per sample differ by less, in nats.
SAME_LIMIT = 1e-5
# Largest ratio ρ of two gains that the extrapolation uses: closer to 1 the limit is too uncertain.
MAX_RATIO = 0.99


def race(
    algorithm: Algorithm,
    starts: Any,
    samples: Samples,
    control: Any,
    work: int,
    first_steps: int,
    progress: ProgressCallback | None = None,
) -> Batch:
    """Run a race of all starts: as ``restarts.run_restarts``, but most runs end as ``OUTRUN``.

    Args:
      algorithm, starts, samples, control, work, progress: as for ``restarts.run_restarts``.
      first_steps: steps that every start takes in the first round, at least three.

    Returns:
      The batch at its end, see ``restarts.run_restarts``. With eight starts or fewer there is no
      race, and all run to their ends.
    """
    n_restarts = len(restarts.restart_axis(starts))
    if n_restarts <= FINALISTS:
        return restarts.run_restarts(algorithm, starts, samples, control, work, progress)
    all_runs = restarts.open_batch(algorithm, starts, n_restarts)
    width = restarts.batch_width(n_restarts, work)
    finalists = _all_rounds(algorithm, width, first_steps, all_runs, samples, control)
    return restarts.run_to_end(algorithm, finalists, True, starts, samples, control, work, progress)


def check_steps(first_steps: int) -> None:
    """Refuse a first round that is too short to compare runs.

    Raises:
      DataError: neither zero, which means no race, nor at least three.
    """
    if first_steps and first_steps < MIN_STEPS:
        raise DataError(
            f"race must be 0 (every start runs to its end) or at least {MIN_STEPS} steps; it is "
            f"{shown(first_steps)}."
        )


def rounds(n_restarts: int, first_steps: int) -> list[tuple[int, int, int]]:
    """Return for each round how many runs take part, for how many steps, and how many go on.

    >>> rounds(256, 5)
    [(256, 5, 64), (64, 20, 16), (16, 80, 8)]
    """
    schedule, n_running, n_steps = [], n_restarts, first_steps
    while n_running > FINALISTS:
        n_stay = max(FINALISTS, -(-n_running // FACTOR))
        schedule.append((n_running, n_steps, n_stay))
        n_running, n_steps = n_stay, FACTOR * n_steps
    return schedule


@partial(jit, static_argnums=(0, 1, 2))
def _all_rounds(
    algorithm: Algorithm, width: int, first_steps: int, batch: Batch, samples: Samples, control: Any
) -> Batch:
    """Run all rounds of a batch that holds every start, and return a batch of the finalists.

    In a round the runs take their steps in groups of ``width``, one group after another.
    """
    n_restarts = len(batch.restart)
    schedule = jnp.asarray(rounds(n_restarts, first_steps))
    approximate = algorithm.approximate()
    total = samples.total_weight()

    def run_group(group: Array, batch: Batch, n_steps: Array) -> Batch:
        indices = group * width + jnp.arange(width)
        part = lax.fori_loop(
            0,
            n_steps,
            lambda _, part: restarts.step_all(approximate, part, samples, control),
            restarts.select_runs(batch, indices),
        )

        def put_back(leaf: Array, new: Array) -> Array:
            return leaf.at[indices].set(new)

        return replace(
            batch,
            states=jax.tree.map(put_back, batch.states, part.states),
            history=put_back(batch.history, part.history),
        )

    def one_round(i: Array, batch: Batch) -> Batch:
        n_running, n_steps, n_stay = schedule[i]
        n_groups = -(-n_running // width)
        batch = lax.fori_loop(
            0, n_groups, lambda group, batch: run_group(group, batch, n_steps), batch
        )
        # The best runs come first, so that those that go on fill the first groups.
        batch = restarts.select_runs(batch, ranking(batch, total))
        status = batch.states.status
        dropped = (jnp.arange(len(status)) >= n_stay) & (status == Status.RUNNING)
        status = jnp.where(dropped, int(Status.OUTRUN), status)
        return replace(batch, states=replace(batch.states, status=status))

    batch = lax.fori_loop(0, len(schedule), one_round, _pad(batch, width))
    return restarts.select_runs(restarts.record_finished(batch), jnp.arange(FINALISTS))


def _pad(batch: Batch, width: int) -> Batch:
    """Append runs that are not in use until the size of the batch is a multiple of ``width``."""
    n_restarts = len(batch.restart)
    indices = jnp.arange(n_restarts + -n_restarts % width)
    unused = indices >= n_restarts
    padded = restarts.select_runs(batch, indices % n_restarts)
    status = jnp.where(unused, int(Status.OUTRUN), padded.states.status)
    restart = jnp.where(unused, n_restarts, padded.restart)
    return replace(padded, states=replace(padded.states, status=status), restart=restart)


def ranking(batch: Batch, total: Float[Array, ""]) -> Int[Array, "W"]:
    """Return the indices of the runs, by their extrapolated limits, the best first.

    Of runs with the same limit all but one come after the runs with lower limits. Runs that have
    failed, and entries that are not in use, come last.

    Args:
      batch: W runs.
      total: the total weight of the samples.
    """
    in_use = batch.restart < len(batch.outcomes.status)
    may_win = among(batch.states.status, (*VALID, Status.RUNNING))
    limits = jnp.where(in_use & may_win, extrapolated_limit(batch), -jnp.inf)
    order = jnp.argsort(-limits)
    descending = limits[order]
    previous = jnp.concatenate([jnp.full(1, jnp.inf, descending.dtype), descending[:-1]])
    is_copy, failed = previous - descending <= SAME_LIMIT * total, ~jnp.isfinite(descending)
    return order[jnp.argsort(jnp.where(failed, 2, is_copy.astype(int)))]


def extrapolated_limit(batch: Batch) -> Float[Array, "W"]:
    """Return the limit of each run's log-likelihood by Aitken's extrapolation.

    With the last two gains g/ρ and g the limit is ℓ + g ρ/(1 - ρ). Of a run that has ended it is
    the log-likelihood itself.
    """
    running = batch.states.status == Status.RUNNING
    last = jnp.where(running, batch.states.n_steps - 1, batch.states.n_steps)
    at = jnp.maximum(last[:, None] - jnp.arange(3)[None, :], 0)
    now, before, earlier = jnp.take_along_axis(batch.history, at, axis=1).T
    gain, gain_before = now - before, before - earlier
    ratio = jnp.where(gain_before > 0, gain / jnp.where(gain_before > 0, gain_before, 1), 0)
    ratio = jnp.clip(ratio, 0, MAX_RATIO)
    return jnp.where(running, now + gain * ratio / (1 - ratio), batch.states.log_likelihood)
