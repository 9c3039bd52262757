"""Racing: give every start a few steps, and let only those ahead go on (successive halving).

All R starts take a few steps, W at a time. The quarter that promises most goes on for four times as
many, and so on, until the few that are left run to their ends. A round costs no more than the one
before, so the whole costs a few steps a start instead of a run a start.

What a run promises is where its log-likelihood is heading: EM converges linearly, so with gains
g, ρg, ρ²g, … the limit is ρ/(1 - ρ) times the last gain away (Aitken). Of runs that head for the
same value one goes on; the others would only find it again.

The price: an optimum that few starts lead to, and those slowly, may be lost. Longer rounds lose
fewer. ``experiments/racing.py`` measures how many.

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
from jgmm._core.errors import DataError
from jgmm._core.status import VALID, Status, among
from jgmm._data.samples import Samples
from jgmm.fitting import restarts
from jgmm.fitting.algorithm import Algorithm
from jgmm.fitting.restarts import Batch, ProgressCallback

FACTOR = 4  # of the runs one in so many stays, and goes on for so many times the steps
FINALISTS = 8  # run to their ends
LEAST_STEPS = 3  # it takes three log-likelihoods to tell where a run is heading
# Runs whose log-likelihoods a sample are heading for values closer than this are taken for one.
SAME = 1e-5
LARGEST_RATIO = 0.99


def race(
    method: Algorithm,
    starts: Any,
    samples: Samples,
    control: Any,
    work: int,
    first_steps: int,
    progress: ProgressCallback | None = None,
) -> Batch:
    """``restarts.run_restarts``, but runs that fall behind end as ``OUTRUN``.

    Args:
      first_steps: steps before the first are dropped, at least three. The other arguments are
        those of ``restarts.run_restarts``.
    """
    n_restarts = len(restarts.restart_axis(starts))
    if n_restarts <= FINALISTS:
        return restarts.run_restarts(method, starts, samples, control, work, progress)
    every, width = (
        restarts.open_batch(method, starts, n_restarts),
        restarts.batch_width(n_restarts, work),
    )
    finalists = _rounds_of_race(method, width, first_steps, every, samples, control)
    return restarts.run_to_end(method, finalists, True, starts, samples, control, work, progress)


def check_steps(first_steps: int) -> None:
    """Refuse a first round that is too short to tell runs apart.

    Raises:
      DataError: neither zero, which stands for no race, nor at least three.
    """
    if first_steps and first_steps < LEAST_STEPS:
        raise DataError(
            f"race must be 0 (every start runs to its end) or at least {LEAST_STEPS} steps; it is "
            f"{first_steps!r}."
        )


def rounds(n_restarts: int, first_steps: int) -> list[tuple[int, int, int]]:
    """For each round: how many run, for how many steps, and how many stay.

    >>> rounds(256, 5)
    [(256, 5, 64), (64, 20, 16), (16, 80, 8)]
    """
    found, n_running, n_steps = [], n_restarts, first_steps
    while n_running > FINALISTS:
        n_stay = max(FINALISTS, -(-n_running // FACTOR))
        found.append((n_running, n_steps, n_stay))
        n_running, n_steps = n_stay, FACTOR * n_steps
    return found


@partial(jit, static_argnums=(0, 1, 2))
def _rounds_of_race(
    method: Algorithm, width: int, first_steps: int, batch: Batch, samples: Samples, control: Any
) -> Batch:
    """Of a queue with a lane for every start, the lanes of the finalists."""
    n_restarts = len(batch.restart)
    schedule = jnp.asarray(rounds(n_restarts, first_steps))
    approximate = method.approximate()
    total = samples.total_weight()

    def run_group(group: Array, batch: Batch, n_steps: Array) -> Batch:
        places = group * width + jnp.arange(width)
        part = lax.fori_loop(
            0,
            n_steps,
            lambda _, part: restarts.step_all(approximate, part, samples, control),
            restarts.select_runs(batch, places),
        )

        def put_back(leaf: Array, new: Array) -> Array:
            return leaf.at[places].set(new)

        return replace(
            batch,
            states=jax.tree.map(put_back, batch.states, part.states),
            history=put_back(batch.history, part.history),
        )

    def round_(i: Array, batch: Batch) -> Batch:
        n_running, n_steps, n_stay = schedule[i]
        n_groups = -(-n_running // width)
        batch = lax.fori_loop(
            0, n_groups, lambda group, batch: run_group(group, batch, n_steps), batch
        )
        batch = restarts.select_runs(
            batch, ranking(batch, total)
        )  # the best fill the groups that go on
        status = batch.states.status
        behind = (jnp.arange(len(status)) >= n_stay) & (status == Status.RUNNING)
        status = jnp.where(behind, int(Status.OUTRUN), status)
        return replace(batch, states=replace(batch.states, status=status))

    batch = lax.fori_loop(0, len(schedule), round_, _pad(batch, width))
    return restarts.select_runs(restarts.record_finished(batch), jnp.arange(FINALISTS))


def _pad(batch: Batch, width: int) -> Batch:
    """The queue with idle lanes that fill up the last group of ``width``."""
    n_restarts = len(batch.restart)
    places = jnp.arange(n_restarts + -n_restarts % width)
    idle = places >= n_restarts
    filled = restarts.select_runs(batch, places % n_restarts)
    status = jnp.where(idle, int(Status.OUTRUN), filled.states.status)
    restart = jnp.where(idle, n_restarts, filled.restart)
    return replace(filled, states=replace(filled.states, status=status), restart=restart)


def ranking(batch: Batch, total: Float[Array, ""]) -> Int[Array, "W"]:
    """The lanes by what they promise, the best first and those that may not win last.

    Of lanes that promise the same, all but one come behind those that promise less.
    """
    seated = batch.restart < len(batch.outcomes.status)
    may_win = among(batch.states.status, (*VALID, Status.RUNNING))
    promised = jnp.where(seated & may_win, promise(batch), -jnp.inf)
    order = jnp.argsort(-promised)
    sorted_ = promised[order]
    ahead = jnp.concatenate([jnp.full(1, jnp.inf, sorted_.dtype), sorted_[:-1]])
    copy, lost = ahead - sorted_ <= SAME * total, ~jnp.isfinite(sorted_)
    return order[jnp.argsort(jnp.where(lost, 2, copy.astype(int)))]


def promise(batch: Batch) -> Float[Array, "W"]:
    """Where each lane's log-likelihood is heading: ℓ + g ρ/(1 - ρ), of its last gains g and g/ρ."""
    running = batch.states.status == Status.RUNNING
    last = jnp.where(running, batch.states.n_steps - 1, batch.states.n_steps)
    at = jnp.maximum(last[:, None] - jnp.arange(3)[None, :], 0)
    now, before, earlier = jnp.take_along_axis(batch.history, at, axis=1).T
    gain, gain_before = now - before, before - earlier
    ratio = jnp.where(gain_before > 0, gain / jnp.where(gain_before > 0, gain_before, 1), 0)
    ratio = jnp.clip(ratio, 0, LARGEST_RATIO)
    return jnp.where(running, now + gain * ratio / (1 - ratio), batch.states.log_likelihood)
