"""Online EM: parameters that follow a stream, a step for every batch instead of every pass.

Statistics of a batch are blended into those so far, and the M-step follows at once:

    s ← (1 − γ_t) s + γ_t s̄(batch; θ),   θ ← M-step of s,   γ_t = (t + t₀)^(−α)

with s̄ the batch's statistics per unit of weight. With 1/2 < α ≤ 1 it converges to a maximum of the
likelihood of what the stream is drawn from; with a step size held above a floor it follows a stream
that changes. Everything is a state that goes in and a state that comes out.

Reference: Cappé & Moulines (2009), "On-line expectation–maximization algorithm for latent data
models".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jgmm._core import pytree
from jgmm._core.compilation import jit
from jgmm._core.errors import DataError, FitError
from jgmm._core.pytree import Leaf, is_traced
from jgmm._core.status import Status, describe
from jgmm._data.samples import Samples, Standardization, make_samples
from jgmm._data.standardization import standardize
from jgmm.em.degeneracy import collapsed_components
from jgmm.em.e_step import accumulate
from jgmm.em.m_step import maximize, ridge_in
from jgmm.em.options import Options
from jgmm.em.statistics import Statistics, recentred
from jgmm.fitting import in_memory
from jgmm.fitting.results import FitResult, raise_if_failed
from jgmm.mixture.mixture import Mixture, check_columns, to_original, to_standard
from jgmm.streaming.fit import SUBSAMPLE
from jgmm.streaming.fit import fit as fit_fit
from jgmm.streaming.prefetch import Timings
from jgmm.streaming.reader import Reader, SingleProcess, open_source
from jgmm.streaming.sources import as_source

ALPHA, OFFSET = 0.6, 2.0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Schedule:
    """How much a batch counts: γ_t = max((t + offset)^(−alpha), floor), and the ridge of EM."""

    alpha: Leaf
    offset: Leaf
    floor: Leaf
    ridge: Leaf


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OnlineState:
    """Online EM after some batches.

    Attributes:
      inside: the mixture, in the frame.
      statistics: s, per unit of weight, about the means of ``inside``; its log-likelihood is the
        decayed mean of what batches had before they were learned from, a sample, in the frame.
      frame: that of the first samples.
      schedule: see there.
      n_batches: t.
      status: ``RUNNING``, or how it ended; then it stays as it is.
    """

    inside: Mixture
    statistics: Statistics
    frame: Standardization
    schedule: Schedule
    n_batches: Leaf
    status: Leaf

    @property
    def mixture(self) -> Mixture:
        """The mixture in the user's units."""
        return _in_user_units(self)

    @property
    def mean_log_prob(self) -> Float[Array, ""]:
        """Decayed mean log density of the samples of a batch before it was learned from, nats."""
        return self.statistics.log_likelihood - self.frame.log_volume()


@jit
def _in_user_units(state: OnlineState) -> Mixture:
    return to_original(state.inside, state.frame)


def start(
    mixture: Mixture,
    x: Any,
    sample_weight: Any = None,
    *,
    alpha: float = ALPHA,
    offset: float = OFFSET,
    floor: float = 0.0,
    ridge: float = 0.0,
) -> OnlineState:
    """The state from which a stream is followed.

    Args:
      mixture: where to start, in the units of x; best a fit to x.
      x: the first samples, (N, D), which also say in which frame the rest are seen.
      sample_weight: of them, (N,).
      alpha: how fast the step size falls, above 1/2 and at most 1.
      offset: t₀, at least one: how much the first samples count.
      floor: the least step size; above zero old batches are forgotten.
      ridge: added to every variance, as a fraction of the first samples'.

    Raises:
      DataError: bad samples, another number of columns, or a schedule out of its bounds.
    """
    if not 0.5 < alpha <= 1 or offset < 1 or not 0 <= floor < 1 or ridge < 0:
        raise DataError(
            "alpha must be above 1/2 and at most 1, offset at least 1, floor from 0 to below 1, "
            f"ridge at least 0; they are {alpha}, {offset}, {floor}, {ridge}."
        )
    samples = make_samples(x, sample_weight)
    check_columns(mixture, samples.n_features)
    dtype = samples.x.dtype
    mixture = jax.tree.map(lambda leaf: leaf.astype(dtype), mixture)
    values = (jnp.asarray(v, dtype) for v in (alpha, offset, floor, ridge))
    return _begin(mixture, samples, Schedule(*values))


@jit
def _begin(mixture: Mixture, samples: Samples, schedule: Schedule) -> OnlineState:
    inside = standardize(samples, mixture.model)
    start = to_standard(mixture, inside.frame)
    found = _per_weight(start, inside)
    return OnlineState(start, found, inside.frame, schedule, jnp.asarray(0), jnp.asarray(0))


def _per_weight(mixture: Mixture, samples: Samples) -> Statistics:
    """Statistics of a batch per unit of weight, about the mixture's means."""
    total = samples.total_weight()
    found = recentred(accumulate(mixture, samples), mixture.means, mixture.model)
    scaled = jax.tree.map(lambda leaf: leaf / jnp.where(total > 0, total, 1), found)
    return replace(scaled, center=mixture.means)


def partial_fit(state: OnlineState, x: Any, sample_weight: Any = None) -> OnlineState:
    """Learn from one batch.

    Args:
      state: what was learned before.
      x: the batch, (B, D). Batches of one shape share a program.
      sample_weight: of its samples, (B,).

    Returns:
      The state after it. A batch in which a component would collapse is not learned from, and the
      status says so; raise the ridge, or take larger batches.

    Raises:
      DataError: see ``as_samples``; or another number of columns.

    >>> import jax, jgmm, numpy as np
    >>> stream = np.random.default_rng(0).normal(size=(20, 100, 1)).astype(np.float32)
    >>> stream[:, ::2] += 9
    >>> first = jgmm.fit(jax.random.key(0), stream[0], 2, n_restarts=4).mixture
    >>> state = jgmm.streaming.online.start(first, stream[0])
    >>> for batch in stream[1:]:
    ...     state = jgmm.streaming.online.partial_fit(state, batch)
    >>> np.sort(state.mixture.means[:, 0]).round(0).tolist()
    [-0.0, 9.0]
    """
    samples = make_samples(x, sample_weight)
    check_columns(state.inside, samples.n_features)
    samples = jax.tree.map(lambda leaf: leaf.astype(state.inside.means.dtype), samples)
    return _update(state, replace(samples, frame=state.frame))


@jit
def _update(state: OnlineState, samples: Samples) -> OnlineState:
    before, schedule = state.inside, state.schedule
    time = (state.n_batches + 1).astype(samples.x.dtype)
    step = jnp.maximum((time + schedule.offset) ** -schedule.alpha, schedule.floor)
    step = jnp.where(samples.total_weight() > 0, step, 0)
    batch = _per_weight(before, samples)
    blended = jax.tree.map(lambda old, new: old + step * (new - old), state.statistics, batch)
    added = ridge_in(state.frame, schedule.ridge)
    updated = maximize(blended, before.covariance, added, before.scale)
    broken = collapsed_components(updated, before, state.frame).any()
    finite = jnp.isfinite(updated.means).all() & jnp.isfinite(blended.log_likelihood)
    status = jnp.where(
        broken,
        int(Status.COLLAPSED),
        jnp.where(finite, int(Status.RUNNING), int(Status.NON_FINITE_PARAMETERS)),
    )
    learned = replace(
        state,
        inside=updated,
        statistics=recentred(blended, updated.means, before.model),
        n_batches=state.n_batches + 1,
    )
    good = (state.status == Status.RUNNING) & (status == Status.RUNNING)
    kept = pytree.where(good, learned, state)
    return replace(kept, status=jnp.where(state.status == Status.RUNNING, status, state.status))


def fit(
    key: Key[Array, ""],
    source: Any,
    n_components: int,
    *,
    batch: int = 4096,
    n_passes: int = 1,
    covariance: str = "full",
    n_restarts: int = 16,
    init: Any = "kmeans",
    subsample: int = SUBSAMPLE,
    alpha: float = ALPHA,
    floor: float = 0.0,
    ridge: float = 0.0,
    full_steps: int = 0,
) -> FitResult:
    """Fit a mixture in one pass over a source, or a few, by online EM.

    Args:
      key: typed key; decides about the subsample and the starts.
      source: as for ``streaming.fit``; in random order, or batches are no samples of the whole.
      n_components: K.
      batch: samples a step.
      n_passes: over the source.
      covariance, n_restarts, ridge: as for ``streaming.fit``.
      init: a name, or a ``Mixture`` to start from.
      subsample: rows, from the beginning of the source, that the start is made of.
      alpha, floor: see ``begin``.
      full_steps: EM steps over the whole at the end, a pass each.

    Returns:
      A ``FitResult`` whose log-likelihood, of the whole, takes one more pass. Its status is
      ``STEPS_RAN_OUT`` unless ``full_steps`` were enough to converge.

    Raises:
      DataError: see ``streaming.fit``.
      FitError: a component collapsed on the way.
    """
    reader = open_source(as_source(source), batch, SingleProcess())
    x, weights = _first_rows(reader, subsample)
    if isinstance(init, Mixture):
        first = init
    else:
        found = in_memory.fit_unchecked(
            key,
            make_samples(x, weights),
            n_components,
            Options(covariance, n_restarts, init, ridge=ridge),
        )
        first = raise_if_failed(found).mixture
    state = start(first, x, weights, alpha=alpha, floor=floor, ridge=ridge)
    for _ in range(n_passes):
        for block in reader.blocks(Timings()):
            state = partial_fit(state, block.x, block.weights)
    if not is_traced(state) and int(state.status) != Status.RUNNING:
        raise FitError(f"After {int(state.n_batches)} batches: {describe(state.status)}")
    return fit_fit(
        key,
        source,
        n_components,
        covariance=covariance,
        init=state.mixture,
        ridge=ridge,
        max_steps=full_steps,
    )


def _first_rows(reader: Reader, most: int) -> tuple[np.ndarray, np.ndarray]:
    """The first rows of a source, and their weights."""
    xs, weights, n = [], [], 0
    for block in reader.blocks(Timings()):
        xs.append(np.asarray(block.x)[: block.n_rows])
        weights.append(np.asarray(block.weights)[: block.n_rows])
        n += block.n_rows
        if n >= most:
            break
    return np.concatenate(xs)[:most], np.concatenate(weights)[:most]
