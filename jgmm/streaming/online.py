"""Online EM: one step for every batch of a stream, instead of one for every pass over all samples.

The statistics of each batch are averaged into those of the earlier batches, with the step size γ,
and an M-step follows at once:

    s ← (1 − γ) s + γ s̄(batch; θ),   θ ← M-step of s

Here s̄ are the batch's statistics per unit of weight. Let t be the weight of the batches before, in
whole batches. A whole batch gets the step size γ₁: then the statistics before it count as much as
(1 − γ₁)/γ₁ whole batches do. Next to these, a batch of r times that weight counts r:

    γ₁ = (t + 1 + t₀)^(−α),   γ = r / (r + (1 − γ₁)/γ₁),   t ← t + r

So a short last batch counts little, and for α = 1 every sample counts by its weight, however the
stream is cut into batches. With 1/2 < α ≤ 1 the parameters converge to a maximum of the likelihood
under the distribution of the stream. With a smallest step size above zero they follow a stream
whose distribution changes. All functions take a state and return a new one.

Reference: Cappé & Moulines (2009), "On-line expectation–maximization algorithm for latent data
models".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jgmm._core import pytree
from jgmm._core.arguments import check_whole, key_first
from jgmm._core.compilation import jit, without_debug_nans
from jgmm._core.errors import DataError, FitError
from jgmm._core.pytree import Leaf, is_traced
from jgmm._core.status import Status, describe
from jgmm._data.samples import Samples, Standardization, make_samples
from jgmm._data.standardization import standardize
from jgmm.em.convergence import online_status
from jgmm.em.degeneracy import collapsed_components
from jgmm.em.e_step import accumulate
from jgmm.em.m_step import maximize, ridge_in
from jgmm.em.options import AcceptedOptions, OptionKeywords, Options
from jgmm.em.statistics import Statistics, recentred
from jgmm.fitting import in_memory
from jgmm.fitting.results import FitResult, raise_if_failed
from jgmm.mixture.mixture import Mixture, check_columns, to_original, to_standard
from jgmm.streaming.fit import SUBSAMPLE, fit_blocks
from jgmm.streaming.prefetch import Timings
from jgmm.streaming.reader import Reader, SingleProcess, open_reader, suggested_rows
from jgmm.streaming.sources import as_source

ALPHA, OFFSET = 0.6, 2.0  # defaults of α and t₀


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Schedule:
    """Step sizes γ₁ = max((t + 1 + offset)^(−alpha), min_step), and the ridge of the M-step.

    They are those of whole batches, whose weight is ``batch_weight``.
    """

    alpha: Leaf
    offset: Leaf
    min_step: Leaf
    ridge: Leaf
    batch_weight: Leaf

    def step_size(self, elapsed: Array, n_whole: Array) -> Array:
        """Return the step size γ of a batch.

        Args:
          elapsed: the weight of the batches before, in whole batches.
          n_whole: r, the weight of this batch, in whole batches.

        >>> schedule = Schedule(*(jnp.asarray(v) for v in (1.0, 2.0, 0.0, 0.0, 100.0)))
        >>> [float(schedule.step_size(jnp.asarray(1.0), jnp.asarray(r))) for r in (0.0, 1.0, 3.0)]
        [0.0, 0.25, 0.5]
        """
        whole = jnp.maximum((elapsed + 1 + self.offset) ** -self.alpha, self.min_step)
        return n_whole * whole / (1 + whole * (n_whole - 1))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OnlineState:
    """State of online EM after some batches.

    Attributes:
      standardized: the mixture in standardized coordinates.
      statistics: s, per unit of weight, about the means of ``standardized``. Its log-likelihood is
        an exponentially weighted mean over the batches: of each batch's mean log density per sample
        before its update, in standardized coordinates.
      frame: the standardization, computed from the first samples.
      schedule: step sizes and ridge.
      n_batches: the number of batches so far that had any weight.
      elapsed: t, the weight of these batches, in whole batches.
      status: ``RUNNING``, or the reason why it ended; after that the state no longer changes.
    """

    standardized: Mixture
    statistics: Statistics
    frame: Standardization
    schedule: Schedule
    n_batches: Leaf
    elapsed: Leaf
    status: Leaf

    @property
    def mixture(self) -> Mixture:
        """The mixture in the user's units."""
        return _in_user_units(self)

    @property
    def mean_log_prob(self) -> Float[Array, ""]:
        """Exponentially weighted mean, over batches, of the log density per sample, in nats.

        The log density of each batch is that of the mixture before its update.
        """
        return self.statistics.log_likelihood - self.frame.log_volume()


@jit
def _in_user_units(state: OnlineState) -> Mixture:
    return to_original(state.standardized, state.frame)


def start(
    mixture: Mixture,
    x: Any,
    sample_weight: Any = None,
    *,
    alpha: float = ALPHA,
    offset: float = OFFSET,
    min_step: float = 0.0,
    ridge: float = 0.0,
    batch_weight: Any = None,
) -> OnlineState:
    """Return the initial state of online EM.

    Args:
      mixture: where to start, in the units of x; preferably a fit to x.
      x: the first samples, (N, D). The standardization of all later samples is computed from them.
      sample_weight: weights of these samples, (N,).
      alpha: exponent by which the step size decreases, above 1/2 and at most 1.
      offset: t₀, at least one. The larger it is, the more the first samples count.
      min_step: smallest step size, from 0 to below 1. Above zero, old batches are forgotten.
      ridge: added to every variance, as a fraction of the variances of the first samples.
      batch_weight: total weight of a whole batch, to which these step sizes belong; by default that
        of the first samples. A batch may have any weight, and counts by it.

    Raises:
      DataError: bad samples, another number of columns, or a schedule out of its bounds.

    >>> import jgmm
    >>> mixture = jgmm.make_mixture([0.5, 0.5], [[-1.0], [1.0]], [1.0, 1.0], "spherical")
    >>> state = jgmm.streaming.online.start(mixture, [[-2.0], [-1.0], [1.0], [2.0]])
    >>> int(state.n_batches), round(float(state.mean_log_prob), 2)
    (0, -1.79)
    """
    if not 0.5 < alpha <= 1 or offset < 1 or not 0 <= min_step < 1 or ridge < 0:
        raise DataError(
            "alpha must be above 1/2 and at most 1, offset at least 1, min_step from 0 to below 1, "
            f"ridge at least 0; they are {alpha}, {offset}, {min_step}, {ridge}."
        )
    samples = make_samples(x, sample_weight)
    whole: Any = samples.total_weight() if batch_weight is None else batch_weight
    if not is_traced(whole) and not 0 < whole < math.inf:
        raise DataError(f"batch_weight must be finite and above zero; it is {whole}.")
    check_columns(mixture, samples.n_features)
    dtype = samples.x.dtype
    mixture = jax.tree.map(lambda leaf: leaf.astype(dtype), mixture)
    values = (jnp.asarray(v, dtype) for v in (alpha, offset, min_step, ridge, whole))
    return _start(mixture, samples, Schedule(*values))


@jit
def _start(mixture: Mixture, samples: Samples, schedule: Schedule) -> OnlineState:
    """Return the state whose statistics are those of the first samples."""
    standardized = standardize(samples, mixture.model)
    first = to_standard(mixture, standardized.frame)
    statistics = _per_weight(first, standardized)
    none, dtype = jnp.asarray(0), samples.x.dtype
    return OnlineState(
        first, statistics, standardized.frame, schedule, none, jnp.zeros((), dtype), none
    )


def _per_weight(mixture: Mixture, samples: Samples) -> Statistics:
    """Compute the statistics of a batch per unit of weight, about the mixture's means."""
    total = samples.total_weight()
    statistics = recentred(accumulate(mixture, samples), mixture.means, mixture.model)
    scaled = jax.tree.map(lambda leaf: leaf / jnp.where(total > 0, total, 1), statistics)
    return replace(scaled, center=mixture.means)


@without_debug_nans
def partial_fit(state: OnlineState, x: Any, sample_weight: Any = None) -> OnlineState:
    """Update the state with one batch: one step of online EM.

    Args:
      state: state after the earlier batches; see ``start``.
      x: the batch, (B, D). Batches of one shape share a compiled program.
      sample_weight: weights of its samples, (B,); a row of weight zero may hold anything.

    Returns:
      The new state. A batch counts by its weight: one whose rows all have weight zero changes
      nothing. If a component would collapse, parameters and statistics stay as they were, and
      the status says so; raise the ridge, or take larger batches.

    Raises:
      DataError: NaN, infinite or overflowing values, bad weights, or another number of columns.

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
    samples = make_samples(x, sample_weight, may_weigh_nothing=True)
    check_columns(state.standardized, samples.n_features)
    samples = jax.tree.map(lambda leaf: leaf.astype(state.standardized.means.dtype), samples)
    return _update(state, replace(samples, frame=state.frame))


@jit
def _update(state: OnlineState, samples: Samples) -> OnlineState:
    """Take one step, unless a component collapses or a parameter is not finite."""
    before, schedule = state.standardized, state.schedule
    n_whole = samples.total_weight() / schedule.batch_weight
    step = schedule.step_size(state.elapsed, n_whole)
    batch = _per_weight(before, samples)
    blended = jax.tree.map(lambda old, new: old + step * (new - old), state.statistics, batch)
    added = ridge_in(state.frame, schedule.ridge)
    updated = maximize(blended, before.covariance, added, before.scale)
    collapsed = collapsed_components(updated, before, state.frame).any()
    finite = jnp.isfinite(updated.means).all() & jnp.isfinite(blended.log_likelihood)
    status = online_status(collapsed, finite)
    after = replace(
        state,
        standardized=updated,
        statistics=recentred(blended, updated.means, before.model),
        n_batches=state.n_batches + 1,
        elapsed=state.elapsed + n_whole,
    )
    going_on = (state.status == Status.RUNNING) & (n_whole > 0)
    chosen = pytree.where(going_on & (status == Status.RUNNING), after, state)
    return replace(chosen, status=jnp.where(going_on, status, state.status))


NOT_ONLINE = "the M-step of online EM does not take it."
ACCEPTED = AcceptedOptions(
    refused={
        "equal_weights": NOT_ONLINE,
        "prior": "its weight against the samples depends on how many there will be.",
        "floor": NOT_ONLINE,
    },
)


@key_first
@without_debug_nans
@ACCEPTED.signature
def fit(
    key: Key[Array, ""],
    source: Any,
    n_components: int,
    *,
    batch: int = 4096,
    n_passes: int = 1,
    subsample: int = SUBSAMPLE,
    alpha: float = ALPHA,
    min_step: float = 0.0,
    full_steps: int = 0,
    options: Options | None = None,
    **keywords: Unpack[OptionKeywords],
) -> FitResult:
    """Fit a mixture by online EM, in one pass over a source or a few.

    Args:
      key: typed key; determines the starts.
      source: as for ``streaming.fit``. The samples must be in random order: otherwise a batch does
        not represent all of them.
      n_components: K.
      batch: number of samples per step. The last batch of a pass may have fewer, and samples of
        unequal weight make batches of unequal weight: each counts by its weight.
      n_passes: number of passes over the source.
      subsample: number of rows, from the beginning of the source, that the start is fitted to.
      alpha, min_step: step sizes, see ``start``.
      full_steps: number of EM steps over all samples at the end; each takes one pass.
      options, **keywords: see ``jgmm.Options``; they are those of the fit to the first rows.
        ``init`` may be a ``Mixture``, which then takes its place. ``covariance``, ``ridge``,
        ``tol``, ``rtol`` and ``accelerate`` are also those of the steps at the end.

    Returns:
      A ``FitResult``. Its log-likelihood is that of all samples, which takes one more pass. Its
      status is ``STEPS_RAN_OUT`` unless ``full_steps`` were enough to converge.

    Raises:
      DataError: see ``streaming.fit``.
      FitError: a component collapsed after some batches.
    """
    options = ACCEPTED.read(options, keywords)
    check_whole("batch", batch, 1)
    check_whole("subsample", subsample, 1)
    check_whole("n_passes", n_passes, 0)
    check_whole("full_steps", full_steps, 0)
    reader = open_reader(as_source(source), batch, SingleProcess())
    x, weights, batch_weight = _first_rows(reader, subsample)
    first = options.init
    if not isinstance(first, Mixture):
        samples = make_samples(x, weights)
        result = in_memory.fit_unchecked(key, samples, n_components, options)
        first = raise_if_failed(result).mixture
    schedule = {"alpha": alpha, "min_step": min_step, "batch_weight": batch_weight}
    state = start(first, x, weights, ridge=options.ridge, **schedule)
    for _ in range(n_passes):
        for block in reader.blocks(Timings()):
            state = partial_fit(state, block.x, block.weights)
    if not is_traced(state) and int(state.status) != Status.RUNNING:
        raise FitError(f"After {int(state.n_batches)} batches: {describe(state.status)}")
    at_the_end = replace(options, init=state.mixture, max_steps=full_steps, race=0)
    whole = replace(reader, rows=suggested_rows(reader.source, reader.n_features, reader.dtype))
    return fit_blocks(key, whole, n_components, at_the_end)


def _first_rows(reader: Reader, n_rows: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Read the first rows of a source that count.

    Returns:
      ``n_rows`` rows of positive weight, or all of fewer; their weights; and the weight of a whole
      batch: of as many rows as the first block has, which is the largest, if they weigh as much as
      the rows read here do on average.

    Raises:
      DataError: the weight of every row is zero.
    """
    xs, weights, n, sizes = [], [], 0, []
    for block in reader.blocks(Timings()):
        weight = np.asarray(block.weights)
        counts = weight > 0
        xs.append(np.asarray(block.x)[counts])
        weights.append(weight[counts])
        sizes.append(block.n_rows)
        n += len(weights[-1])
        if n >= n_rows:
            break
    if not n:
        raise DataError("sample_weight is zero for every sample; at least one must count.")
    x, weight = np.concatenate(xs), np.concatenate(weights)
    return x[:n_rows], weight[:n_rows], float(weight.sum(dtype=float)) * sizes[0] / sum(sizes)
