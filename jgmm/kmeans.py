"""k-means: k-means++ seeding and Lloyd's algorithm, weighted and vmapped over restarts.

Minimises the inertia Σₙ wₙ minₖ |xₙ − cₖ|². It is EM for equal spherical components in the limit
of vanishing variance, and fails where that picture does: see ``experiments/kmeans_fails.py``.
References: Lloyd (1982); Arthur & Vassilvitskii (2007).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from jgmm._core import budget, pytree
from jgmm._core.compilation import jit
from jgmm._core.errors import DataError
from jgmm._core.pytree import Leaf
from jgmm._core.status import Status
from jgmm._data.samples import Samples, check_counts, make_samples, map_columns
from jgmm._data.standardization import center_and_scale
from jgmm._data.validation import as_samples, check_key
from jgmm.covariance.models import MODELS, CovarianceModel
from jgmm.em import exponential_family
from jgmm.em.cancellation import recompute_unsafe
from jgmm.em.e_step import accumulate_products, accumulate_with, block_rows, product_rows
from jgmm.em.statistics import Statistics

# Distances come from products while their mean is this many times their rounding error.
SHARP = 1e3


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KMeansResult:
    """Centers (K, D), labels (N,), inertia (), n_steps () and status () of the best restart."""

    centers: Leaf
    labels: Leaf
    inertia: Leaf
    n_steps: Leaf
    status: Leaf


def fit(
    key: Key[Array, ""],
    x: Any,
    n_clusters: int,
    *,
    n_restarts: int = 1,
    sample_weight: Any = None,
    max_steps: int = 300,
) -> KMeansResult:
    """Find centers by k-means++ seeding and Lloyd's algorithm, the best of several restarts.

    Args:
      key: restart r uses ``fold_in(key, r)``.
      x: samples in rows, (N, D).
      n_clusters: K.
      n_restarts: R, run as one program.
      sample_weight: how many times each sample counts, (N,).
      max_steps: Lloyd steps at most, a restart.

    Returns:
      The restart of least inertia. A cluster that loses all its samples is moved to the sample
      farthest from its center.

    Raises:
      DataError: bad samples or weights, or fewer samples than clusters.

    >>> import jax, jgmm
    >>> found = jgmm.kmeans.fit(jax.random.key(0), [[0.0], [1.0], [9.0]], 2)
    >>> sorted(found.centers.ravel().tolist())
    [0.5, 9.0]
    """
    samples = make_samples(x, sample_weight)
    check_counts(samples, n_clusters, n_restarts)
    return _fit(check_key(key), samples, n_clusters, n_restarts, jnp.asarray(max_steps))


@partial(jit, static_argnums=(2, 3))
def _fit(
    key: Array, samples: Samples, n_clusters: int, n_restarts: int, max_steps: Array
) -> KMeansResult:
    inside = center_and_scale(samples, per_column=False)
    keys = jax.vmap(lambda r: jax.random.fold_in(key, r))(jnp.arange(n_restarts))
    every = jnp.ones(n_clusters, bool)
    found = lloyd(seed(keys, inside, n_clusters), inside, every, max_steps)
    best = jax.tree.map(lambda leaf: leaf[jnp.argmin(found.inertia)], found)
    frame = inside.frame
    centers = frame.shift[None, :] + frame.scale[None, :] * best.centers
    # Labels come from the framed centers: in the user's units an offset would cost digits.
    distance, labels = nearest(best.centers, inside)
    weights = 1 if samples.weights is None else samples.weights
    inertia = (weights * distance).sum() * frame.scale[0] ** 2
    # Data are checked before, but not inside a transformation.
    status = jnp.where(jnp.isfinite(inertia), best.status, int(Status.NON_FINITE_DATA))
    return KMeansResult(centers, labels, inertia, best.n_steps, status)


def predict(centers: Any, x: Any) -> Int[Array, "N"]:
    """The nearest center of each sample, (N,), the first of equals."""
    samples = make_samples(x)
    points = as_samples(centers, "centers").astype(samples.x.dtype)
    if samples.n_features != points.shape[1]:
        raise DataError(f"x has {samples.n_features} columns; the centers have {points.shape[1]}.")
    return _nearest(points, samples)[1]


def nearest(
    centers: Float[Array, "K D"], samples: Samples, active: Bool[Array, "K"] | None = None
) -> tuple[Float[Array, "N"], Int[Array, "N"]]:
    """Squared distance to the nearest center, of those active, and which it is."""

    def block(x: Array) -> tuple[Array, Array]:
        distance = ((x[None] - centers[:, :, None]) ** 2).sum(axis=1)
        if active is not None:
            distance = jnp.where(active[:, None], distance, jnp.inf)
        return distance.min(axis=0), distance.argmin(axis=0)

    distance, label = map_columns(samples, block_rows(samples, centers.nbytes), block)
    return distance, label


_nearest = jit(nearest)


def seed(keys: Key[Array, "R"], samples: Samples, n_clusters: int) -> Float[Array, "R K D"]:
    """k-means++: each center is a sample drawn with probability ∝ wₙ times its squared distance.

    The distance is to the nearest center drawn before; the first is drawn by weight alone. The
    first centers drawn with a key are the same whatever K is.
    Reference: Arthur & Vassilvitskii (2007).
    """
    weights = relative_weights(samples)

    def one(key: Array) -> Array:
        def draw(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            centers, distance = carry
            mass = weights * distance
            # By weight alone at first, and once every sample that counts is a center already.
            mass = jnp.where((mass > 0).any() & (i > 0), mass, weights)
            center = samples.take(draw_row(jax.random.fold_in(key, i), mass)[None])
            to_this = nearest(center, samples)[0]
            distance = jnp.where(i == 0, to_this, jnp.minimum(distance, to_this))
            return centers.at[i].set(center[0]), distance

        centers = jnp.zeros((n_clusters, samples.n_features), weights.dtype)
        return lax.fori_loop(0, n_clusters, draw, (centers, weights))[0]

    return map_keys(one, keys, samples)


def map_keys(one: Callable[[Array], Any], keys: Key[Array, "R"], samples: Samples) -> Any:
    """``vmap`` of a function of a key that holds a number a sample, a few keys at a time."""
    batch = max(1, budget.KMEANS_DISTANCES // samples.n_samples)
    return jax.vmap(one)(keys) if len(keys) <= batch else lax.map(one, keys, batch_size=batch)


def relative_weights(samples: Samples) -> Float[Array, "N"]:
    """Weights with the largest one: products with them neither overflow nor vanish."""
    if samples.weights is None:
        return jnp.ones(samples.n_samples, samples.x.dtype)
    return samples.weights / samples.weights.max()


def draw_row(key: Key[Array, ""], mass: Float[Array, "N"]) -> Int[Array, ""]:
    """An index with probability ∝ mass ≥ 0, never one of mass zero unless all are.

    First a group of about √N neighbours by the sum of their masses, then one in the group: two
    random numbers and one pass. The running sums are short, so they round little.
    """
    size = math.isqrt(len(mass) - 1) + 1
    groups = jnp.pad(mass, (0, -len(mass) % size)).reshape(-1, size)
    first, second = jax.random.uniform(key, (2,), mass.dtype)
    group = _draw(first, groups.sum(axis=1))
    return group * size + _draw(second, groups[group])


def _draw(uniform: Array, mass: Array) -> Array:
    reached = jnp.cumsum(mass)
    # A running sum may step up at a mass of zero, by rounding, or stay below the number drawn.
    found = (reached > uniform * reached[-1]) & (mass > 0)
    return jnp.where(found.any(), found.argmax(), mass.argmax())


def assign(
    centers: Float[Array, "R K D"],
    samples: Samples,
    active: Bool[Array, "K"],
    entry: CovarianceModel = MODELS["VII"],
    safe: Any = True,
) -> Statistics:
    """Statistics of the assignment of every sample to the nearest of the active centers.

    Args:
      centers: of R restarts.
      samples: N samples in their frame.
      active: which of the K centers take part.
      entry: what second moments to hold.
      safe: restarts whose second moments may be taken about the origin, (R,); the others, and
        those whose distances rounding would blur, go by differences.

    Returns:
      Statistics with leading axis R; their log-likelihood is minus the inertia Σₙ wₙ minₖ |xₙ−cₖ|².
    """
    n_lanes, n_clusters, _ = centers.shape
    rows = product_rows(entry, samples, n_clusters, n_lanes)
    products = jax.vmap(lambda one: _by_product(one, samples, active, entry, rows))(centers)
    # Each squared distance is off by a rounding of |x|²; the frame makes their mean D.
    blurred = jnp.finfo(centers.dtype).eps * samples.n_features * samples.total_weight()
    sharp = -products.log_likelihood > SHARP * blurred
    return recompute_unsafe(
        sharp & safe, products, lambda one: by_difference(one, samples, active, entry), centers
    )


def _by_product(
    centers: Array, samples: Samples, active: Array, entry: CovarianceModel, rows: int
) -> Statistics:
    """The nearest center is the one of largest cₖ·x − |cₖ|²/2."""
    number = jnp.arange(len(centers))[:, None]
    constant = jnp.where(active, -0.5 * (centers**2).sum(axis=1), -jnp.inf)

    def hard(block: exponential_family.Features, rows: Array) -> tuple[Array, Array]:
        del rows
        scores = centers @ block.x + constant[:, None]
        highest = scores.max(axis=0)
        # The first of equals; ``argmax`` does the same, several times slower on a CPU.
        label = jnp.where(scores == highest[None, :], number, len(centers)).min(axis=0)
        squares = (block.x**2).sum(axis=0)
        return 2 * highest - squares, (label[None, :] == number).astype(centers.dtype)

    return accumulate_products(hard, samples, entry, len(centers), rows)


def by_difference(
    centers: Float[Array, "K D"], samples: Samples, active: Array, entry: CovarianceModel
) -> Statistics:
    """``assign`` for one restart by every sample's difference to every center: the reference."""

    def hard(difference: Array, rows: Array) -> tuple[Array, Array]:
        del rows
        distance = jnp.where(active[:, None], (difference**2).sum(axis=1), jnp.inf)
        label, every = distance.argmin(axis=0), jnp.arange(len(centers))
        return -distance.min(axis=0), (label[None, :] == every[:, None]).astype(centers.dtype)

    return accumulate_with(hard, samples, centers, entry)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Lloyd:
    """Centers and their inertia on the way; leaves of one lane.

    Attributes:
      centers: (K, D).
      inertia: of these centers once the lane has ended, of those before until then.
      n_moves: how often centers without samples have been moved.
      n_steps: moves of centers.
      status: code of a ``Status``.
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
) -> Lloyd:
    """Alternate between assigning samples and moving centers until the inertia stops falling.

    Args:
      centers: where R restarts begin.
      samples: in their frame.
      active: which centers take part; the others stay where they are and get no samples.
      max_steps: moves at most.
      rtol: the inertia has stopped falling when it does so by less than this share of it, or by
        a few roundings.

    When clusters are left empty, they move to the samples farthest from their centers and the
    alternation goes on, at most K times; distinct samples permitting, none stays empty.
    """
    n_lanes, dtype = len(centers), centers.dtype
    nothing = jnp.zeros(n_lanes, int)
    start = Lloyd(
        centers, jnp.full(n_lanes, jnp.inf, dtype), nothing, nothing, nothing + int(Status.RUNNING)
    )
    return lax.while_loop(
        lambda state: (state.status == Status.RUNNING).any(),
        lambda state: _lloyd_step(state, samples, active, max_steps, rtol),
        start,
    )


def _lloyd_step(state: Lloyd, samples: Samples, active: Array, max_steps: Any, rtol: Any) -> Lloyd:
    found = assign(state.centers, samples, active)
    inertia = -found.log_likelihood
    least = jnp.maximum(4 * jnp.finfo(inertia.dtype).eps, rtol) * inertia
    settled = state.inertia - inertia <= least
    empty = active[None, :] & (found.counts == 0)
    stuck = settled & empty.any(axis=1) & (state.n_moves < active.sum()) & (inertia > 0)
    status = jnp.select(
        [settled & ~stuck, state.n_steps >= max_steps],
        [int(Status.CONVERGED), int(Status.STEPS_RAN_OUT)],
        int(Status.RUNNING),
    )
    going_on = status == Status.RUNNING
    means = found.center + found.first / jnp.where(found.counts > 0, found.counts, 1)[:, :, None]
    moved = jnp.where((found.counts > 0)[:, :, None], means, state.centers)
    moved = _move_empty(moved, empty & (stuck & going_on)[:, None], samples, active)
    stepped = Lloyd(
        jnp.where(going_on[:, None, None], moved, state.centers),
        inertia,
        jnp.where(stuck & going_on, state.n_moves + 1, state.n_moves),
        jnp.where(going_on, state.n_steps + 1, state.n_steps),
        status,
    )
    return pytree.where(state.status != Status.RUNNING, state, stepped)


def _move_empty(centers: Array, empty: Array, samples: Samples, active: Array) -> Array:
    """Move the empty clusters of R restarts to the samples farthest from their centers."""

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
