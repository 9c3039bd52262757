"""k-means: k-means++ seeding and Lloyd's algorithm, weighted and vmapped over restarts.

k-means minimises the inertia Σₙ wₙ minₖ |xₙ − cₖ|². It is the limit of EM for equal spherical
components as their variance vanishes, and fails on data that such components do not describe: see
``experiments/kmeans_fails.py``.

References: Lloyd (1982); Arthur & Vassilvitskii (2007).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from jgmm._core import budget, pytree
from jgmm._core.arguments import check_whole, key_first
from jgmm._core.compilation import jit
from jgmm._core.errors import DataError
from jgmm._core.pytree import Leaf, is_traced
from jgmm._core.status import Status
from jgmm._data.samples import Samples, check_counts, make_samples, map_columns, scaling
from jgmm._data.standardization import center_and_scale, units_of_columns
from jgmm._data.validation import as_samples
from jgmm._data.weighted_draw import draw_row, draw_uniforms, relative_weights
from jgmm.covariance.models import MODELS, CovarianceModel
from jgmm.em import exponential_family
from jgmm.em.cancellation import recompute_unsafe
from jgmm.em.convergence import kmeans_status
from jgmm.em.e_step import accumulate_products, accumulate_with, block_rows, product_rows
from jgmm.em.statistics import Statistics

__all__ = ["KMeansResult", "fit", "predict"]

# Distances are computed from matrix products while their mean is this many times their rounding
# error, and from differences otherwise.
MIN_DISTANCE_TO_ROUNDING = 1e3


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KMeansResult:
    """Result of k-means: the best of the restarts. All attributes are leaves.

    Attributes:
      centers: in the units of the samples, (K, D).
      labels: index of the nearest center of each sample, (N,).
      inertia: Σₙ wₙ minₖ |xₙ − cₖ|² at these centers, (); in units so small or so large that the
        dtype has no such number, zero or infinity.
      n_steps: Lloyd steps taken, ().
      status: code of a ``Status``, ().
    """

    centers: Leaf
    labels: Leaf
    inertia: Leaf
    n_steps: Leaf
    status: Leaf


@key_first
def fit(
    key: Key[Array, ""],
    x: Any,
    n_clusters: int,
    *,
    n_restarts: int = 1,
    sample_weight: Any = None,
    max_steps: int = 300,
) -> KMeansResult:
    """Fit k-means by k-means++ seeding and Lloyd's algorithm, with the best of several restarts.

        minimise over c:   Σₙ wₙ minₖ |xₙ − cₖ|²

    Args:
      key: a typed key; restart r uses ``fold_in(key, r)``.
      x: samples in rows, (N, D).
      n_clusters: K, the number of clusters.
      n_restarts: R, the number of restarts, run as one program.
      sample_weight: how many times each sample counts, (N,).
      max_steps: Lloyd steps at most in each restart.

    Returns:
      The restart of least inertia. A cluster that loses all its samples is moved to the sample
      farthest from its center.

    Raises:
      DataError: the samples or weights cannot be used, there are fewer samples than clusters, or
        a number of restarts or steps is none.

    References: Lloyd (1982); Arthur & Vassilvitskii (2007).

    >>> import jax, jgmm
    >>> result = jgmm.kmeans.fit(jax.random.key(0), [[0.0], [1.0], [9.0]], 2)
    >>> sorted(result.centers.ravel().tolist())
    [0.5, 9.0]
    """
    samples = make_samples(x, sample_weight)
    check_counts(samples, n_clusters, n_restarts)
    if not is_traced(max_steps):
        check_whole("max_steps", np.asarray(max_steps).item(), 0)
    return _fit(key, samples, n_clusters, n_restarts, jnp.asarray(max_steps))


@partial(jit, static_argnums=(2, 3))
def _fit(
    key: Array, samples: Samples, n_clusters: int, n_restarts: int, max_steps: Array
) -> KMeansResult:
    scaled = center_and_scale(samples, per_column=False)
    keys = jax.vmap(lambda r: jax.random.fold_in(key, r))(jnp.arange(n_restarts))
    active = jnp.ones(n_clusters, bool)
    runs = lloyd(seed(keys, scaled, n_clusters), scaled, active, max_steps)
    best = jax.tree.map(lambda leaf: leaf[jnp.argmin(runs.inertia)], runs)
    frame = scaled.frame
    centers = frame.shift[None, :] + frame.scale[None, :] * best.centers
    # Labels come from the standardized centers: in the user's units an offset would cost digits.
    distance, labels = nearest(best.centers, scaled)
    weights = 1 if samples.weights is None else samples.weights
    inertia = (weights * distance).sum()
    # The data were checked before, except inside a transformation.
    status = jnp.where(jnp.isfinite(inertia), best.status, int(Status.NON_FINITE_DATA))
    inertia = inertia * frame.scale[0] * frame.scale[0]  # the square alone may not be representable
    return KMeansResult(centers, labels, inertia, best.n_steps, status)


def predict(centers: Any, x: Any) -> Int[Array, "N"]:
    """Assign each sample to the nearest center; of equally near ones to the first.

    Args:
      centers: (K, D), such as those of a ``KMeansResult``.
      x: samples in rows, (N, D).

    Returns:
      Labels from 0 to K - 1, (N,).

    Raises:
      DataError: the samples or centers cannot be used, or have different numbers of columns.

    >>> import jgmm
    >>> jgmm.kmeans.predict([[0.5], [9.0]], [[1.0], [8.0]]).tolist()
    [0, 1]
    """
    samples = make_samples(x)
    points = as_samples(centers, "centers").astype(samples.x.dtype)
    if samples.n_features != points.shape[1]:
        raise DataError(f"x has {samples.n_features} columns; the centers have {points.shape[1]}.")
    return _labels(points, samples)


def nearest(
    centers: Float[Array, "K D"], samples: Samples, active: Bool[Array, "K"] | None = None
) -> tuple[Float[Array, "N"], Int[Array, "N"]]:
    """Find the nearest center of each sample.

    Args:
      centers: of one restart, in the coordinates of the standardized samples.
      samples: N samples with their standardization.
      active: the centers that take part; all by default.

    Returns:
      The squared distance of each sample to its nearest active center, and the center's index.
    """

    def block(x: Array) -> tuple[Array, Array]:
        distance = ((x[None] - centers[:, :, None]) ** 2).sum(axis=1)
        if active is not None:
            distance = jnp.where(active[:, None], distance, jnp.inf)
        return distance.min(axis=0), distance.argmin(axis=0)

    distance, label = map_columns(samples, block_rows(samples, centers.nbytes), block)
    return distance, label


@jit
def _labels(centers: Float[Array, "K D"], samples: Samples) -> Int[Array, "N"]:
    """Return the nearest center of each sample; centers are in the units of the samples.

    Both are divided by one number near the distances of the centers. Where the squared distance of
    a sample still overflows, it is so far from all centers that they are equally near.
    """
    origin = centers[0]
    unit = jnp.full_like(origin, units_of_columns(centers, None, origin).max())
    frame = scaling(origin, unit)
    inside = (centers - origin[None, :]) * frame.inverse[None, :]
    return nearest(inside, replace(samples, frame=frame))[1]


def seed(
    keys: Key[Array, "R"],
    samples: Samples,
    n_clusters: int,
    active: Bool[Array, "K"] | None = None,
) -> Float[Array, "R K D"]:
    """k-means++ seeding: draw samples as centers, with probability ∝ wₙ times squared distance.

    The distance is that to the nearest center drawn before. The first center is drawn by weight
    alone. With the same key the first centers are the same for every K.

    Args:
      keys: one for each of R restarts.
      samples: N samples with their standardization.
      n_clusters: K.
      active: which of the K clusters take part, the first ones; all by default.

    Returns:
      Standardized centers; zeros for clusters that do not take part.

    Reference: Arthur & Vassilvitskii (2007).
    """
    weights = relative_weights(samples)

    def one(key: Array) -> Array:
        uniforms = draw_uniforms(key, n_clusters, samples.n_samples, weights.dtype)

        def draw(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            centers, distance = carry
            mass = weights * distance
            # By weight alone at first, and also when every sample of positive weight is a center.
            mass = jnp.where((mass > 0).any() & (i > 0), mass, weights)
            center = samples.take(draw_row(uniforms[i], mass)[None])
            to_center = nearest(center, samples)[0]
            distance = jnp.where(i == 0, to_center, jnp.minimum(distance, to_center))
            return centers.at[i].set(center[0]), distance

        centers = jnp.zeros((n_clusters, samples.n_features), weights.dtype)
        n_drawn = n_clusters if active is None else active.sum()
        return lax.fori_loop(0, n_drawn, draw, (centers, weights))[0]

    return map_keys(one, keys, samples)


def map_keys(one: Callable[[Array], Any], keys: Key[Array, "R"], samples: Samples) -> Any:
    """Map a function over keys, several at a time, as many as memory allows.

    Args:
      one: function of a key that holds one number for each sample.
      keys: of R restarts.
      samples: N samples; ``budget.KMEANS_DISTANCES / N`` keys are mapped at a time.
    """
    batch = max(1, budget.KMEANS_DISTANCES // samples.n_samples)
    return jax.vmap(one)(keys) if len(keys) <= batch else lax.map(one, keys, batch_size=batch)


def assign(
    centers: Float[Array, "R K D"],
    samples: Samples,
    active: Bool[Array, "K"],
    entry: CovarianceModel = MODELS["VII"],
    safe: Any = True,
    by_products: bool = True,
) -> Statistics:
    """Compute the statistics of assigning every sample to the nearest active center.

    Args:
      centers: of R restarts.
      samples: N samples with their standardization.
      active: which of the K centers take part.
      entry: covariance model; its storage decides which second moments are computed.
      safe: true for restarts whose second moments may be taken about the origin, (R,). The others,
        and restarts whose distances are too small for their rounding errors, use differences
        instead of matrix products.
      by_products: whether matrix products are used at all. Differences alone make a program that
        compiles in a third of the time, which suits small problems.

    Returns:
      Statistics with leading axis R; their log-likelihood is minus the inertia Σₙ wₙ minₖ |xₙ−cₖ|².
    """
    n_restarts, n_clusters, _ = centers.shape
    exact = partial(by_difference, samples=samples, active=active, entry=entry)
    if not by_products:
        return jax.vmap(exact)(centers)
    rows = product_rows(entry, samples, n_clusters, n_restarts)
    products = jax.vmap(lambda one: _by_product(one, samples, active, entry, rows))(centers)
    # Each squared distance has the rounding error of |x|²; standardized, |x|² is D on average.
    rounding = jnp.finfo(centers.dtype).eps * samples.n_features * samples.total_weight()
    accurate = -products.log_likelihood > MIN_DISTANCE_TO_ROUNDING * rounding
    return recompute_unsafe(accurate & safe, products, exact, centers)


def uses_products(samples: Samples, n_clusters: int, n_restarts: int) -> bool:
    """Return whether a step of k-means is worth a program with matrix products."""
    work = n_restarts * exponential_family.cost_per_step(
        MODELS["VII"], samples.n_features, n_clusters, samples.n_samples
    )
    return work > budget.SMALL_WORK


def _by_product(
    centers: Array, samples: Samples, active: Array, entry: CovarianceModel, rows: int
) -> Statistics:
    """``assign`` for one restart by products: the nearest center has the largest cₖ·x − |cₖ|²/2."""
    number = jnp.arange(len(centers))[:, None]
    constant = jnp.where(active, -0.5 * (centers**2).sum(axis=1), -jnp.inf)

    def hard(block: exponential_family.Features, rows: Array) -> tuple[Array, Array]:
        del rows
        scores = centers @ block.x + constant[:, None]
        highest = scores.max(axis=0)
        # Of equally near centers the first; ``argmax`` is several times slower on a CPU.
        label = jnp.where(scores == highest[None, :], number, len(centers)).min(axis=0)
        squares = (block.x**2).sum(axis=0)
        return 2 * highest - squares, (label[None, :] == number).astype(centers.dtype)

    return accumulate_products(hard, samples, entry, len(centers), rows)


def by_difference(
    centers: Float[Array, "K D"], samples: Samples, active: Array, entry: CovarianceModel
) -> Statistics:
    """``assign`` for one restart by differences of samples and centers: the exact reference."""

    def hard(difference: Array, rows: Array) -> tuple[Array, Array]:
        del rows
        distance = jnp.where(active[:, None], (difference**2).sum(axis=1), jnp.inf)
        label, number = distance.argmin(axis=0), jnp.arange(len(centers))
        return -distance.min(axis=0), (label[None, :] == number[:, None]).astype(centers.dtype)

    return accumulate_with(hard, samples, centers, entry)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LloydState:
    """State of Lloyd's algorithm. All attributes are leaves; shapes are those of one restart.

    Attributes:
      centers: standardized, (K, D).
      inertia: that of the previous centers while the restart runs, and of ``centers`` once it has
        ended, ().
      n_moves: how often centers without samples have been moved, ().
      n_steps: number of updates of the centers, ().
      status: code of a ``Status``, ().
    """

    centers: Leaf
    inertia: Leaf
    n_moves: Leaf
    n_steps: Leaf
    status: Leaf


def lloyd(
    centers: Float[Array, "R K D"],
    samples: Samples,
    active: Bool[Array, "K"],
    max_steps: Any,
    rtol: Any = 0.0,
) -> LloydState:
    """Lloyd's algorithm: assign samples and update centers until the inertia stops falling.

    Args:
      centers: the initial centers of R restarts, standardized.
      samples: N samples with their standardization.
      active: which centers take part; the others stay where they are and get no samples.
      max_steps: updates of the centers at most.
      rtol: a restart has converged when its inertia falls by less than this fraction of itself, or
        by no more than a few rounding errors.

    Returns:
      The final states, leading axis R.

    When clusters are empty at convergence, their centers move to the samples farthest from their
    own centers, and the iteration continues; this happens at most K times. Unless there are fewer
    distinct samples than clusters, no cluster stays empty.
    """
    n_restarts, dtype = len(centers), centers.dtype
    by_products = uses_products(samples, centers.shape[1], n_restarts)
    zeros = jnp.zeros(n_restarts, int)
    start = LloydState(
        centers, jnp.full(n_restarts, jnp.inf, dtype), zeros, zeros, zeros + int(Status.RUNNING)
    )
    return lax.while_loop(
        lambda state: (state.status == Status.RUNNING).any(),
        lambda state: _lloyd_step(state, samples, active, max_steps, rtol, by_products),
        start,
    )


def _lloyd_step(
    state: LloydState,
    samples: Samples,
    active: Array,
    max_steps: Any,
    rtol: Any,
    by_products: bool,
) -> LloydState:
    """Assign samples, test for convergence, and update the centers of restarts that go on."""
    statistics = assign(state.centers, samples, active, by_products=by_products)
    inertia = -statistics.log_likelihood
    tolerance = jnp.maximum(4 * jnp.finfo(inertia.dtype).eps, rtol) * inertia
    settled = state.inertia - inertia <= tolerance
    empty = active[None, :] & (statistics.counts == 0)
    stuck = settled & empty.any(axis=1) & (state.n_moves < active.sum()) & (inertia > 0)
    status = kmeans_status(settled, stuck, state.n_steps >= max_steps)
    going_on = status == Status.RUNNING
    means = (
        statistics.center
        + statistics.first / jnp.where(statistics.counts > 0, statistics.counts, 1)[:, :, None]
    )
    moved = jnp.where((statistics.counts > 0)[:, :, None], means, state.centers)
    moved = _move_empty(moved, empty & (stuck & going_on)[:, None], samples, active)
    stepped = LloydState(
        jnp.where(going_on[:, None, None], moved, state.centers),
        inertia,
        jnp.where(stuck & going_on, state.n_moves + 1, state.n_moves),
        jnp.where(going_on, state.n_steps + 1, state.n_steps),
        status,
    )
    return pytree.where(state.status != Status.RUNNING, state, stepped)


def _move_empty(centers: Array, empty: Array, samples: Samples, active: Array) -> Array:
    """Move the centers of empty clusters, of R restarts, to the samples farthest from centers."""

    def move(one: tuple[Array, Array]) -> Array:
        centers, empty = one
        distance = nearest(centers, samples, active & ~empty)[0]
        if samples.weights is not None:
            distance = jnp.where(samples.weights > 0, distance, -jnp.inf)
        farthest = lax.top_k(distance, min(len(centers), samples.n_samples))[1]
        rank = jnp.cumsum(empty) - 1
        return jnp.where(empty[:, None], samples.take(farthest[jnp.maximum(rank, 0)]), centers)

    def where_needed(one: tuple[Array, Array]) -> Array:
        return lax.cond(one[1].any(), move, lambda one: one[0], one)

    return lax.cond(empty.any(), lambda: lax.map(where_needed, (centers, empty)), lambda: centers)
