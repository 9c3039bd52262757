"""Every way to start: ``(key, samples, active, covariance) -> Mixture``, in the frame.

``active`` (K,) says which of K components take part; the others are switched off, with weight zero.
A program made for K components so serves any smaller number, and the components that take part are
those that a program made for them alone would give.

All pass through the M-step that EM itself uses. To add one, write the function and list it in
``STARTS``; every restart, study and config can then name it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from jgmm import kmeans, lanes
from jgmm.covariance import model
from jgmm.em import EM, from_responsibilities, make_control, maximize
from jgmm.mixture import Mixture
from jgmm.samples import Samples
from jgmm.status import DataError, is_traced

Start = Callable[[Array, Samples, Array, str], Mixture]

# In the frame the data's variance is one. A start from hard assignments may hold clusters of one
# sample; this much variance keeps them alive and is forgotten after a few steps.
START_RIDGE = 1e-2
RANDOM_TEMPERATURE = 0.1
KMEANS_STEPS = 100
SHORT_EM_TRIES = 5
SHORT_EM_STEPS = 10


def random(
    key: Key[Array, ""], samples: Samples, active: Bool[Array, "K"], covariance: str
) -> Mixture:
    """Random responsibilities, nearly all on one random component for every sample.

    The means differ by about √(K/N) standard deviations, so EM takes many steps to leave the
    neighbourhood of a single Gaussian, and with many samples in float32 may not leave it at all:
    the log-likelihood is flat there. Given for comparison; the other starts are better.
    """

    def resp(rows: Array) -> Array:
        keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)
        draw = jax.vmap(lambda k: jax.random.gumbel(k, active.shape, samples.x.dtype))(keys)
        draw = jnp.where(active[None, :], draw / RANDOM_TEMPERATURE, -jnp.inf)
        return jax.nn.softmax(draw, axis=1)

    return maximize(from_responsibilities(samples, resp, len(active), covariance), covariance)


def points(
    key: Key[Array, ""], samples: Samples, active: Bool[Array, "K"], covariance: str
) -> Mixture:
    """Means at distinct random samples, equal weights, and the data's covariance for all."""
    whole = from_responsibilities(
        samples, lambda rows: jnp.ones((rows.shape[0], 1), samples.x.dtype), 1, covariance
    )
    one = maximize(whole, covariance)
    mass = None if samples.weights is None else samples.weights / samples.weights.sum()
    rows = jax.random.choice(key, samples.n_samples, active.shape, replace=False, p=mass)
    copies = 1 if one.model.shared else len(active)
    share = -jnp.log(active.sum().astype(samples.x.dtype))
    return Mixture(
        jnp.where(active, share, -jnp.inf),
        samples.take(rows),
        jnp.broadcast_to(one.scale, (copies, *one.scale.shape[1:])),
        one.covariance,
    )


def kmeans_plus_plus(
    key: Key[Array, ""], samples: Samples, active: Bool[Array, "K"], covariance: str
) -> Mixture:
    """The M-step of the nearest k-means++ seed."""
    return from_centers(kmeans.seed(key, samples, len(active)), samples, active, covariance)


def from_kmeans(
    key: Key[Array, ""], samples: Samples, active: Bool[Array, "K"], covariance: str
) -> Mixture:
    """The M-step of the clusters that k-means finds from k-means++ seeds."""
    seeds = kmeans.seed(key, samples, len(active))
    found = kmeans.lloyd(seeds, samples, active, jnp.asarray(KMEANS_STEPS))
    return from_centers(found.centers, samples, active, covariance)


def short_em(
    key: Key[Array, ""], samples: Samples, active: Bool[Array, "K"], covariance: str
) -> Mixture:
    """The best of a few short runs of EM, each from k-means++ seeds.

    Reference: Biernacki, Celeux & Govaert (2003), "small EM".
    """
    control = make_control(samples.x.dtype, 0.0, 0.0, 0.0)
    method = EM(SHORT_EM_STEPS, form="difference")
    keys = jax.random.split(key, SHORT_EM_TRIES)
    seeds = jax.vmap(lambda k: kmeans_plus_plus(k, samples, active, covariance))(keys)
    return lanes.run(method, seeds, samples, control, work=1).best.mixture


STARTS: dict[str, Start] = {
    "random": random,
    "points": points,
    "kmeans++": kmeans_plus_plus,
    "kmeans": from_kmeans,
    "short_em": short_em,
}


def from_centers(
    centers: Float[Array, "K D"], samples: Samples, active: Bool[Array, "K"], covariance: str
) -> Mixture:
    """The M-step of the assignment of every sample to the nearest of the active centers."""
    found = kmeans.assign(centers, samples, active, model(covariance))
    return maximize(found, covariance, START_RIDGE)


def from_labels(labels: Any, samples: Samples, n_components: int, covariance: str) -> Mixture:
    """The M-step of given labels, (N,), whole numbers from 0 to K - 1.

    Raises:
      DataError: another shape, a label out of range, or one of the K that never occurs; labels of
        missing rows are not looked at.
    """
    host = np.asarray(labels)
    if host.shape != (samples.n_samples,) or host.dtype.kind not in "iu":
        raise DataError(
            f"labels must be {samples.n_samples} whole numbers, one a sample; they have shape "
            f"{host.shape} and dtype {host.dtype}."
        )
    weights = samples.weights
    counted = host if weights is None or is_traced(weights) else host[np.asarray(weights) > 0]
    seen = set(np.unique(counted).tolist())
    if seen != set(range(n_components)):
        raise DataError(
            f"labels must take every value from 0 to {n_components - 1}; they take {sorted(seen)}."
        )
    z = jnp.asarray(host)

    def resp(rows: Array) -> Array:
        return jax.nn.one_hot(z[rows], n_components, dtype=samples.x.dtype)

    return maximize(from_responsibilities(samples, resp, n_components, covariance), covariance)


def from_mixture(mixture: Mixture, samples: Samples, n_components: int, covariance: str) -> Mixture:
    """A given mixture, checked to fit the problem, in the samples' dtype.

    Raises:
      DataError: another number of components or columns, or another covariance model.
    """
    asked = (n_components, samples.n_features, model(covariance).name)
    given = (mixture.n_components, mixture.n_features, mixture.covariance)
    if asked != given:
        raise DataError(
            f"the mixture to start from has (K, D, covariance) = {given}; asked for is {asked}."
        )
    cast = jax.tree.map(lambda leaf: leaf.astype(samples.x.dtype), mixture)
    return replace(cast, covariance=asked[2])
