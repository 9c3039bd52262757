"""k-means: k-means++ seeding and Lloyd's algorithm, weighted and vmapped over restarts.

Minimises the inertia Σₙ wₙ minₖ |xₙ − cₖ|². It is EM for equal spherical components in the limit
of vanishing variance, and fails where that picture does: see ``experiments/kmeans_fails.py``.
References: Lloyd (1982); Arthur & Vassilvitskii (2007).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Key

from jgmm.covariance import MODELS, CovarianceModel
from jgmm.samples import Leaf, Samples, as_samples, check_key, framed, make_samples
from jgmm.statistics import Statistics, accumulate_with, block_rows
from jgmm.status import DataError, Status, is_traced


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


def check_counts(samples: Samples, n_components: int, n_restarts: int) -> None:
    """Refuse counts that cannot work.

    Raises:
      DataError: fewer than one component or restart, or fewer samples than components.
    """
    for name, value in (("n_components", n_components), ("n_restarts", n_restarts)):
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or value < 1:
            raise DataError(f"{name} must be a whole number of at least 1; it is {value!r}.")
    n_samples = samples.n_samples
    if samples.weights is not None and not is_traced(samples.weights):
        n_samples = int((samples.weights > 0).sum())
    if n_samples < n_components:
        raise DataError(
            f"{n_components} components need at least as many samples; there are {n_samples} "
            "(of positive weight). Use fewer components."
        )


@partial(jax.jit, static_argnums=(2, 3))
def _fit(
    key: Array, samples: Samples, n_clusters: int, n_restarts: int, max_steps: Array
) -> KMeansResult:
    inside = framed(samples, per_column=False)
    keys = jax.vmap(lambda r: jax.random.fold_in(key, r))(jnp.arange(n_restarts))
    every = jnp.ones(n_clusters, bool)
    found = jax.vmap(lambda k: lloyd(seed(k, inside, n_clusters), inside, every, max_steps))(keys)
    best = jax.tree.map(lambda leaf: leaf[jnp.argmin(found.inertia)], found)
    frame = inside.frame
    centers = frame.shift[None, :] + frame.scale[None, :] * best.centers
    # Labels come from the framed centers: in the user's units an offset would cost digits.
    labels = nearest(best.centers, inside)[1]
    inertia = best.inertia * frame.scale[0] ** 2
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
) -> tuple[Array, Array]:
    """Squared distance to the nearest center, of those active, and which it is, (N,) each."""

    def one(row: Array) -> tuple[Array, Array]:
        x = (row - samples.frame.shift) / samples.frame.scale
        distance = ((x[None, :] - centers) ** 2).sum(axis=1)
        if active is not None:
            distance = jnp.where(active, distance, jnp.inf)
        return distance.min(), distance.argmin()

    block = block_rows(samples, centers.size * centers.dtype.itemsize)
    distance, label = lax.map(one, samples.x, batch_size=block)
    return distance, label


_nearest = jax.jit(nearest)


def seed(key: Key[Array, ""], samples: Samples, n_clusters: int) -> Float[Array, "K D"]:
    """k-means++: each center is a sample drawn with probability ∝ wₙ times its squared distance.

    The distance is to the nearest center drawn before; the first is drawn by weight alone. The
    first centers drawn are the same whatever K is.
    Reference: Arthur & Vassilvitskii (2007).
    """
    weights = samples.weights
    distance = jnp.zeros(samples.n_samples, samples.x.dtype)
    log_weights = distance if weights is None else jnp.log(weights)

    def draw(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        centers, distance = carry
        log_mass = log_weights + jnp.log(distance)
        # By weight alone at first, and once every sample that counts is a center already.
        log_mass = jnp.where((log_mass > -jnp.inf).any(), log_mass, log_weights)
        chosen = jax.random.categorical(jax.random.fold_in(key, i), log_mass)
        center = samples.take(chosen[None])
        to_this = nearest(center, samples)[0]
        if weights is not None:  # a missing row may hold anything
            to_this = jnp.where(weights > 0, to_this, 0)
        distance = jnp.where(i == 0, to_this, jnp.minimum(distance, to_this))
        return centers.at[i].set(center[0]), distance

    centers = jnp.zeros((n_clusters, samples.n_features), distance.dtype)
    return lax.fori_loop(0, n_clusters, draw, (centers, distance))[0]


def assign(
    centers: Float[Array, "K D"],
    samples: Samples,
    active: Bool[Array, "K"],
    entry: CovarianceModel = MODELS["VII"],
) -> Statistics:
    """Statistics of the assignment of every sample to the nearest of the active centers.

    Their log-likelihood is minus the inertia; ``entry`` says what second moments they hold.
    """

    def hard(difference: Array, rows: Array) -> tuple[Array, Array]:
        del rows
        distance = jnp.where(active[None, :], (difference**2).sum(axis=2), jnp.inf)
        resp = jax.nn.one_hot(distance.argmin(axis=1), len(centers), dtype=centers.dtype)
        return -distance.min(axis=1), resp

    return accumulate_with(hard, samples, centers, entry)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Lloyd:
    """Centers and their inertia on the way; leaves of one lane."""

    centers: Leaf
    inertia: Leaf
    empty: Leaf
    n_steps: Leaf
    status: Leaf


def lloyd(
    centers: Float[Array, "K D"], samples: Samples, active: Bool[Array, "K"], max_steps: Array
) -> Lloyd:
    """Alternate between assigning samples and moving centers until the inertia stops falling.

    Centers that are not active stay where they are and get no samples. When clusters are left
    empty, they move to the samples farthest from their centers and the alternation goes on, at
    most K times; distinct samples permitting, none stays empty.
    """
    running = jnp.asarray(int(Status.RUNNING))
    start = Lloyd(
        centers,
        jnp.asarray(jnp.inf, centers.dtype),
        jnp.zeros(centers.shape[0], bool),
        jnp.asarray(0),
        running,
    )

    def settle(state: Lloyd) -> Lloyd:
        return lax.while_loop(
            lambda s: s.status == Status.RUNNING,
            lambda s: _lloyd_step(s, samples, active, max_steps),
            Lloyd(state.centers, state.inertia, state.empty, state.n_steps, running),
        )

    def unfinished(carry: tuple[Lloyd, Array]) -> Array:
        state, rounds = carry
        return state.empty.any() & (rounds < active.sum()) & (state.inertia > 0)

    def repair(carry: tuple[Lloyd, Array]) -> tuple[Lloyd, Array]:
        state, rounds = carry
        return settle(_move_empty(state, samples, active)), rounds + 1

    return lax.while_loop(unfinished, repair, (settle(start), jnp.asarray(0)))[0]


def _lloyd_step(state: Lloyd, samples: Samples, active: Array, max_steps: Array) -> Lloyd:
    found = assign(state.centers, samples, active)
    inertia = -found.log_likelihood
    eps = jnp.finfo(inertia.dtype).eps
    settled = state.inertia - inertia <= 4 * eps * inertia
    spent = state.n_steps >= max_steps
    status = jnp.where(
        settled, int(Status.CONVERGED), jnp.where(spent, int(Status.STEPS_RAN_OUT), state.status)
    )
    going_on = status == Status.RUNNING
    step = found.first / jnp.where(found.counts > 0, found.counts, 1)[:, None]
    centers = jnp.where(going_on, state.centers + step, state.centers)
    n_steps = jnp.where(going_on, state.n_steps + 1, state.n_steps)
    return Lloyd(centers, inertia, active & (found.counts == 0), n_steps, status)


def _move_empty(state: Lloyd, samples: Samples, active: Array) -> Lloyd:
    distance = nearest(state.centers, samples, active)[0]
    if samples.weights is not None:
        distance = jnp.where(samples.weights > 0, distance, -jnp.inf)
    n_clusters = state.centers.shape[0]
    farthest = lax.top_k(distance, min(n_clusters, samples.n_samples))[1]
    rank = jnp.cumsum(state.empty) - 1
    moved = samples.take(farthest[jnp.maximum(rank, 0)])
    centers = jnp.where(state.empty[:, None], moved, state.centers)
    # The inertia only falls from here: an empty cluster gains a sample and no other loses more.
    return Lloyd(centers, state.inertia, state.empty, state.n_steps, state.status)
