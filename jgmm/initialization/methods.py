"""Initialization methods: random responsibilities, random points, k-means++, k-means, short EM.

A method is a function ``(keys (R,), samples, active, covariance) -> R mixtures``, in standardized
units. ``active`` (K,) says which of K components take part; the others are switched off: their
weight is zero. So one compiled program for K components serves every smaller number, and draws the
same components as a program compiled for that number.

All methods estimate their covariances by the M-step of EM. To add a method, write the function and
add it to ``STARTS``; restarts, studies and configs can then use it by its name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Key

from jgmm import kmeans
from jgmm._core import pytree
from jgmm._core.compilation import JitByWork, jit
from jgmm._data.samples import Samples, Standardization
from jgmm._data.standardization import center_and_scale
from jgmm._data.weighted_draw import draw_row, draw_uniforms, relative_weights
from jgmm.covariance.models import model
from jgmm.covariance.storage import Spherical
from jgmm.em import exponential_family
from jgmm.em.degeneracy import collapsed_components
from jgmm.em.e_step import Form, accumulate, prefers_differences
from jgmm.em.m_step import from_responsibilities, maximize
from jgmm.em.statistics import Statistics
from jgmm.mixture.mixture import Mixture, change_coordinates

Start = Callable[[Array, Samples, Array, str], Mixture]

# Ridge of the M-step of a start, where the data's variance is one. Hard assignments may have
# clusters of one sample, and in any start some columns may determine each other: the covariance
# would be singular. The ridge keeps such components, so that a ridge of the fit can save them. EM
# forgets it after a few steps.
START_RIDGE = 1e-2
# Temperature of the softmax of random scores: the smaller, the closer each sample belongs to one
# component.
RANDOM_TEMPERATURE = 0.1
# Maximal number of steps and relative tolerance of k-means: a start need not be the exact optimum.
KMEANS_STEPS = 100
KMEANS_RTOL = 1e-3
# Number of short runs of EM, of which the best is the start, and the steps of each.
SHORT_EM_TRIES = 5
SHORT_EM_STEPS = 10


def random(
    keys: Key[Array, "R"], samples: Samples, active: Bool[Array, "K"], covariance: str
) -> Mixture:
    """Draw random responsibilities; each sample belongs almost only to one random component.

    The means differ by about √(K/N) standard deviations. So EM takes many steps to move away from a
    single Gaussian, near which the log-likelihood is flat, and with many samples in float32 it may
    not move away at all. This method is here for comparison; the others are better.
    """
    entry, k = model(covariance), len(active)
    work = exponential_family.cost_per_step(entry, samples.n_features, k, samples.n_samples)
    return _random(len(keys) * work, keys, samples, active, covariance)


@partial(JitByWork, static_argnums=3)
def _random(keys: Array, samples: Samples, active: Array, covariance: str) -> Mixture:
    def one(key: Array) -> Mixture:
        def resp(rows: Array) -> Array:
            keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)
            draw = jax.vmap(lambda k: jax.random.gumbel(k, active.shape, samples.x.dtype))(keys)
            draw = jnp.where(active[None, :], draw / RANDOM_TEMPERATURE, -jnp.inf)
            return jax.nn.softmax(draw, axis=1)

        statistics = from_responsibilities(samples, resp, len(active), covariance)
        return maximize(statistics, covariance, START_RIDGE)

    return kmeans.map_keys(one, keys, samples)


@partial(jit, quick=True, static_argnums=3)
def points(
    keys: Key[Array, "R"], samples: Samples, active: Bool[Array, "K"], covariance: str
) -> Mixture:
    """Draw distinct random samples as means, with equal weights and the data's covariance."""
    statistics = from_responsibilities(
        samples, lambda rows: jnp.ones((rows.shape[0], 1), samples.x.dtype), 1, covariance
    )
    whole = maximize(statistics, covariance, START_RIDGE)
    n_components, weights = len(active), relative_weights(samples)

    def draw(key: Array) -> Array:
        uniforms = draw_uniforms(key, n_components, samples.n_samples, weights.dtype)

        def draw_another(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            rows, mass = carry
            row = draw_row(uniforms[i], mass)
            return rows.at[i].set(row), mass.at[row].set(0)

        rows = jnp.zeros(n_components, int)
        return lax.fori_loop(0, n_components, draw_another, (rows, weights))[0]

    means = jax.vmap(samples.take)(kmeans.map_keys(draw, keys, samples))
    copies = (len(keys), 1 if whole.model.shared else n_components)
    log_weight = -jnp.log(active.sum().astype(samples.x.dtype))
    return Mixture(
        jnp.broadcast_to(jnp.where(active, log_weight, -jnp.inf), means.shape[:2]),
        means,
        jnp.broadcast_to(whole.scale[:1], (*copies, *whole.scale.shape[1:])),
        whole.covariance,
    )


def kmeans_plus_plus(
    keys: Key[Array, "R"], samples: Samples, active: Bool[Array, "K"], covariance: str
) -> Mixture:
    """k-means++ seeding, and the M-step of the assignment of every sample to the nearest seed."""
    scaled = scaled_for_distances(samples, covariance)
    centers = _seeds(_distance_work(keys, samples, active), keys, scaled, active)
    return from_centers(centers, scaled, samples, active, covariance)


def from_kmeans(
    keys: Key[Array, "R"], samples: Samples, active: Bool[Array, "K"], covariance: str
) -> Mixture:
    """k-means from k-means++ seeds, run until nearly converged, and the M-step of its clusters."""
    scaled = scaled_for_distances(samples, covariance)
    work = KMEANS_STEPS * _distance_work(keys, samples, active)
    centers = _kmeans_centers(work, keys, scaled, active)
    return from_centers(centers, scaled, samples, active, covariance)


def short_em(
    keys: Key[Array, "R"], samples: Samples, active: Bool[Array, "K"], covariance: str
) -> Mixture:
    """Short EM: the best of a few runs of EM of ten steps, each from k-means++ seeds.

    Reference: Biernacki, Celeux & Govaert (2003), "small EM".
    """
    tries = [kmeans_plus_plus(each, samples, active, covariance) for each in _split(keys)]
    entry, k = model(covariance), len(active)
    cost = exponential_family.cost_per_step(entry, samples.n_features, k, samples.n_samples)
    work = SHORT_EM_TRIES * SHORT_EM_STEPS * len(keys) * cost
    return _best_after_short_em(work, tries, samples)


@partial(jit, quick=True)
def _split(keys: Array) -> list[Array]:
    return list(jax.vmap(lambda key: jax.random.split(key, SHORT_EM_TRIES), out_axes=1)(keys))


@JitByWork
def _best_after_short_em(tries: list[Mixture], samples: Samples) -> Mixture:
    """Run EM for ten steps from T tries of R starts, and keep the best try of each start."""
    starts = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *tries)
    covariance, entry = starts.covariance, starts.model
    n_runs, k = starts.log_weights.shape
    # Products are accurate enough for a start; where they are not, a component nearly collapses.
    wide = prefers_differences(entry, samples.n_features, k, n_runs)
    form: Form = "difference" if wide else "product"

    def step(_: Array, state: tuple[Mixture, Array]) -> tuple[Mixture, Array]:
        mixture, _ = state
        statistics = accumulate(mixture, samples, form=form)
        updated = maximize(statistics, covariance, 0.0, mixture.scale)
        return updated, statistics.log_likelihood

    def run(start: Mixture) -> tuple[Mixture, Array]:
        nothing = jnp.full((), -jnp.inf, start.means.dtype)
        mixture, log_likelihood = lax.fori_loop(0, SHORT_EM_STEPS, step, (start, nothing))
        collapsed = collapsed_components(mixture, start, samples.frame).any()
        failed = collapsed | ~jnp.isfinite(log_likelihood)
        # Where all tries fail, the first one starts where it began: a prior may keep it.
        score = jnp.where(failed, -jnp.inf, log_likelihood)
        return pytree.where(failed, start, mixture), score

    mixtures, scores = jax.vmap(run)(starts)
    n_starts = n_runs // len(tries)
    best = scores.reshape(len(tries), n_starts).argmax(axis=0) * n_starts + jnp.arange(n_starts)
    return jax.tree.map(lambda leaf: leaf[best], mixtures)


STARTS: dict[str, Start] = {
    "random": random,
    "points": points,
    "kmeans++": kmeans_plus_plus,
    "kmeans": from_kmeans,
    "short_em": short_em,
}

# The methods of the portfolio, in turn. Each finds optima that the others miss: k-means, above all,
# ends in one partition from nearly every start, and that may be the wrong one.
PORTFOLIO = ("kmeans", "short_em", "points", "random", "kmeans++")


def init_names() -> list[str]:
    """Return the names that ``init`` may be: the methods, and "portfolio"."""
    return [*STARTS, "portfolio"]


def method_names(init: str) -> tuple[str, ...]:
    """Return the methods that an ``init`` stands for: restart r uses the one of index r, in turn.

    >>> method_names("points"), method_names("portfolio")[:2]
    (('points',), ('kmeans', 'short_em'))
    """
    return PORTFOLIO if init == "portfolio" else (init,)


def scaled_for_distances(samples: Samples, covariance: str) -> Samples:
    """Standardize samples for the distances of k-means.

    Every column gets the same variance; except for spherical models, whose own distances are those
    between the samples with the scales of their columns.

    Args:
      samples: N samples, standardized for the covariance model.
      covariance: name of the covariance model.
    """
    return samples if _is_scaled_for_distances(covariance) else _scaled_by_column(samples)


def _is_scaled_for_distances(covariance: str) -> bool:
    """Return whether samples standardized for a model are also standardized for distances."""
    entry = model(covariance)
    return entry.per_column or entry.storage is Spherical


# Separate programs, so that all covariance models share them.
_scaled_by_column = jit(partial(center_and_scale, per_column=True), quick=True)


def _distance_work(keys: Array, samples: Samples, active: Array) -> int:
    """Count the multiplications of the distances of all samples to all centers, roughly."""
    return len(keys) * len(active) * samples.n_samples * samples.n_features


@JitByWork
def _seeds(keys: Array, samples: Samples, active: Array) -> Array:
    return kmeans.seed(keys, samples, len(active), active)


@JitByWork
def _kmeans_centers(keys: Array, samples: Samples, active: Array) -> Array:
    seeds = kmeans.seed(keys, samples, len(active), active)
    return kmeans.lloyd(seeds, samples, active, KMEANS_STEPS, KMEANS_RTOL).centers


def from_centers(
    centers: Float[Array, "R K D"],
    scaled: Samples,
    samples: Samples,
    active: Bool[Array, "K"],
    covariance: str,
) -> Mixture:
    """Run the M-step of the assignment of every sample to the nearest active center.

    Args:
      centers: of R restarts, in the coordinates of ``scaled``.
      scaled: the samples, standardized for distances, see ``scaled_for_distances``.
      samples: the same samples in the coordinates of the mixtures returned.
      active: which of the K centers take part.
      covariance: name of the covariance model.
    """
    entry = model(covariance)
    # All models that need the same moments share one program.
    moments = entry.name if entry.shared else entry.unconstrained_model.name
    n_restarts, k, d = centers.shape
    work = n_restarts * exponential_family.cost_per_step(model(moments), d, k, scaled.n_samples)
    statistics = _assign(work, centers, scaled, active, moments)
    return _maximize(statistics, scaled.frame, samples.frame, entry.name)


@partial(JitByWork, static_argnums=3)
def _assign(centers: Array, scaled: Samples, active: Array, covariance: str) -> Statistics:
    """Compute the statistics of the assignment, about the origin where that is accurate enough."""
    # About the origin, a variance has a rounding error of eps |c|², which must be small compared
    # with the ridge.
    eps = jnp.finfo(centers.dtype).eps
    safe = eps * (centers**2).sum(axis=2).max(axis=1) < 0.01 * START_RIDGE
    by_products = kmeans.uses_products(scaled, centers.shape[1], len(centers))
    return kmeans.assign(centers, scaled, active, model(covariance), safe, by_products)


@partial(jit, quick=True, static_argnums=3)
def _maximize(
    statistics: Statistics,
    scaled_frame: Standardization,
    frame: Standardization,
    covariance: str,
) -> Mixture:
    """Run the M-step of R restarts, and change from the coordinates of distances to those of a fit.

    Where the two differ, a covariance has the form of the model in the coordinates of the fit only.
    The M-step then uses a model that has its form in both, and ``project`` gives the model's form.
    """
    same = _is_scaled_for_distances(covariance)
    entry = model(covariance) if same else model(covariance).marginal_model
    mixtures = jax.vmap(lambda one: maximize(one, entry.name, START_RIDGE))(statistics)
    if same:
        return mixtures
    relative = scaled_frame.scale * frame.inverse
    origin = jnp.zeros_like(relative)
    return jax.vmap(lambda each: project(change_coordinates(each, origin, relative), covariance))(
        mixtures
    )


def project(mixture: Mixture, covariance: str) -> Mixture:
    """Project a mixture on another covariance model, with the same weights and means.

    Among the covariances of that model, these minimise the Kullback–Leibler divergence of each
    component from the given one. They are the limit of an M-step with infinitely many samples of
    the given mixture whose components are known.

    Args:
      mixture: any mixture.
      covariance: name of the other covariance model.
    """
    entry, weights = model(covariance), mixture.weights
    scatter = entry.storage.from_dense(weights[:, None, None] * mixture.covariances)
    scale = entry.estimate(weights, entry.pool(scatter), None)
    return Mixture(mixture.log_weights, mixture.means, scale, entry.name)
