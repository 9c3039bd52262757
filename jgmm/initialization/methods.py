"""Every way to start: ``(keys (R,), samples, active, covariance) -> R mixtures``, in the frame.

``active`` (K,) says which of K components take part; the others are switched off, with weight zero.
A program made for K components so serves any smaller number, and the components that take part are
those that a program made for them alone would give.

All pass through the M-step that EM itself uses. To add one, write the function and list it in
``STARTS``; every restart, study and config can then name it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Key

from jgmm import kmeans
from jgmm._core import status
from jgmm._core.compilation import JitByWork, jit
from jgmm._data.samples import Samples, Standardization
from jgmm._data.standardization import center_and_scale
from jgmm.covariance.models import model
from jgmm.covariance.storage import Spherical
from jgmm.em import exponential_family
from jgmm.em.algorithm import EM
from jgmm.em.m_step import from_responsibilities, maximize
from jgmm.em.options import make_control
from jgmm.em.statistics import Statistics
from jgmm.mixture.mixture import Mixture, change_coordinates

Start = Callable[[Array, Samples, Array, str], Mixture]

# In the frame the data's variance is one. A start from hard assignments may hold clusters of one
# sample, and any start columns that determine each other; this much variance keeps them alive, so
# that a ridge in the fit may save them, and is forgotten after a few steps.
START_RIDGE = 1e-2
RANDOM_TEMPERATURE = 0.1
# A start need not be where k-means ends to the last digit.
KMEANS_STEPS = 100
KMEANS_RTOL = 1e-3
SHORT_EM_TRIES = 5
SHORT_EM_STEPS = 10


@partial(jit, static_argnums=3)
def random(
    keys: Key[Array, "R"], samples: Samples, active: Bool[Array, "K"], covariance: str
) -> Mixture:
    """Random responsibilities, nearly all on one random component for every sample.

    The means differ by about √(K/N) standard deviations, so EM takes many steps to leave the
    neighbourhood of a single Gaussian, and with many samples in float32 may not leave it at all:
    the log-likelihood is flat there. Given for comparison; the other starts are better.
    """

    def one(key: Array) -> Mixture:
        def resp(rows: Array) -> Array:
            keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)
            draw = jax.vmap(lambda k: jax.random.gumbel(k, active.shape, samples.x.dtype))(keys)
            draw = jnp.where(active[None, :], draw / RANDOM_TEMPERATURE, -jnp.inf)
            return jax.nn.softmax(draw, axis=1)

        found = from_responsibilities(samples, resp, len(active), covariance)
        return maximize(found, covariance, START_RIDGE)

    return kmeans.map_keys(one, keys, samples)


@partial(jit, static_argnums=3)
def points(
    keys: Key[Array, "R"], samples: Samples, active: Bool[Array, "K"], covariance: str
) -> Mixture:
    """Means at distinct random samples, equal weights, and the data's covariance for all."""
    whole = from_responsibilities(
        samples, lambda rows: jnp.ones((rows.shape[0], 1), samples.x.dtype), 1, covariance
    )
    one = maximize(whole, covariance, START_RIDGE)
    n_components, weights = len(active), kmeans.relative_weights(samples)

    def draw(key: Array) -> Array:
        def another(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            rows, mass = carry
            row = kmeans.draw_row(jax.random.fold_in(key, i), mass)
            return rows.at[i].set(row), mass.at[row].set(0)

        rows = jnp.zeros(n_components, int)
        return lax.fori_loop(0, n_components, another, (rows, weights))[0]

    means = jax.vmap(samples.take)(kmeans.map_keys(draw, keys, samples))
    copies = (len(keys), 1 if one.model.shared else n_components)
    share = -jnp.log(active.sum().astype(samples.x.dtype))
    return Mixture(
        jnp.broadcast_to(jnp.where(active, share, -jnp.inf), means.shape[:2]),
        means,
        jnp.broadcast_to(one.scale[:1], (*copies, *one.scale.shape[1:])),
        one.covariance,
    )


def kmeans_plus_plus(
    keys: Key[Array, "R"], samples: Samples, active: Bool[Array, "K"], covariance: str
) -> Mixture:
    """The M-step of the nearest k-means++ seed."""
    even = scaled_for_distances(samples, covariance)
    return from_centers(_seed(keys, even, len(active)), even, samples, active, covariance)


def from_kmeans(
    keys: Key[Array, "R"], samples: Samples, active: Bool[Array, "K"], covariance: str
) -> Mixture:
    """The M-step of the clusters that k-means all but settles on from k-means++ seeds."""
    even = scaled_for_distances(samples, covariance)
    centers = _settle(_seed(keys, even, len(active)), even, active)
    return from_centers(centers, even, samples, active, covariance)


@partial(jit, static_argnums=3)
def short_em(
    keys: Key[Array, "R"], samples: Samples, active: Bool[Array, "K"], covariance: str
) -> Mixture:
    """The best of a few short runs of EM, each from k-means++ seeds.

    Reference: Biernacki, Celeux & Govaert (2003), "small EM".
    """
    control = make_control(samples.x.dtype, 0.0, 0.0, 0.0)
    method = EM(SHORT_EM_STEPS)
    tries = jax.vmap(lambda key: jax.random.split(key, SHORT_EM_TRIES))(keys).ravel()
    seeds = kmeans_plus_plus(tries, samples, active, covariance)
    # A last turn for the log-likelihood of what the last step led to.
    ended = lax.fori_loop(
        0,
        SHORT_EM_STEPS + 1,
        lambda _, runs: method.step(runs, samples, control),
        jax.vmap(method.init)(seeds),
    )
    reached = status.score(ended.log_likelihood, ended.status).reshape(-1, SHORT_EM_TRIES)
    best = jnp.arange(len(keys)) * SHORT_EM_TRIES + reached.argmax(axis=1)
    return jax.tree.map(lambda leaf: leaf[best], ended.mixture)


STARTS: dict[str, Start] = {
    "random": random,
    "points": points,
    "kmeans++": kmeans_plus_plus,
    "kmeans": from_kmeans,
    "short_em": short_em,
}


def scaled_for_distances(samples: Samples, covariance: str) -> Samples:
    """Samples in the frame in which distances say what belongs together under the model.

    One with all columns of the same variance, but for spherical models, whose own distances are
    those between the samples as they are.
    """
    return samples if _has_distances(covariance) else _scaled_by_column(samples)


def _has_distances(covariance: str) -> bool:
    """Whether the frame of the model is the one for distances."""
    entry = model(covariance)
    return entry.per_column or entry.storage is Spherical


# Programs of their own, which all covariance models share.
_seed = jit(kmeans.seed, static_argnums=2)
_scaled_by_column = jit(partial(center_and_scale, per_column=True))


@jit
def _settle(seeds: Array, samples: Samples, active: Array) -> Array:
    return kmeans.lloyd(seeds, samples, active, KMEANS_STEPS, KMEANS_RTOL).centers


def from_centers(
    centers: Float[Array, "R K D"],
    even: Samples,
    samples: Samples,
    active: Bool[Array, "K"],
    covariance: str,
) -> Mixture:
    """The M-step of the assignment of every sample to the nearest of the active centers.

    Args:
      centers: of R restarts, in the frame of ``even``.
      even: the samples, see ``for_distances``.
      samples: the same in the frame of the mixtures returned.
      active: which of the K centers take part.
      covariance: name of the covariance model.
    """
    entry = model(covariance)
    # One program for all models that ask for the same moments.
    moments = entry.name if entry.shared else entry.unconstrained_model.name
    n_restarts, k, d = centers.shape
    work = n_restarts * exponential_family.cost_per_step(model(moments), d, k, even.n_samples)
    found = _assigned(work, centers, even, active, moments)
    return _started(found, even.frame, samples.frame, entry.name)


@partial(JitByWork, static_argnums=3)
def _assigned(centers: Array, even: Samples, active: Array, covariance: str) -> Statistics:
    # Moments about the origin lose |c|² roundings, which must be little next to the ridge.
    eps = jnp.finfo(centers.dtype).eps
    near = eps * (centers**2).sum(axis=2).max(axis=1) < 0.01 * START_RIDGE
    return kmeans.assign(centers, even, active, model(covariance), near)


@partial(jit, static_argnums=3)
def _started(
    found: Statistics, even: Standardization, frame: Standardization, covariance: str
) -> Mixture:
    # Where the frames differ the model has a form in its own only; what both can see comes first.
    same = _has_distances(covariance)
    entry = model(covariance) if same else model(covariance).marginal_model
    started = jax.vmap(lambda sums: maximize(sums, entry.name, START_RIDGE))(found)
    if same:
        return started
    relative = even.scale * frame.inverse
    origin = jnp.zeros_like(relative)
    return jax.vmap(lambda each: project(change_coordinates(each, origin, relative), covariance))(
        started
    )


def project(mixture: Mixture, covariance: str) -> Mixture:
    """The mixture of another covariance model that is nearest to one, with its weights and means.

    It is the M-step of endless samples of the given one whose components are known: of all that
    have the form, the one of least Kullback–Leibler divergence from it, component by component.
    """
    entry, weights = model(covariance), mixture.weights
    scatter = entry.storage.from_dense(weights[:, None, None] * mixture.covariances)
    scale = entry.estimate(weights, entry.pool(scatter), None)
    return Mixture(mixture.log_weights, mixture.means, scale, entry.name)
