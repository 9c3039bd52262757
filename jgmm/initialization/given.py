"""Starts that the user gives: labels, or mixtures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from jgmm._core.compilation import jit
from jgmm._core.errors import DataError
from jgmm._core.pytree import is_traced
from jgmm._data.samples import Samples
from jgmm._data.validation import checked_labels
from jgmm.covariance.models import model
from jgmm.em.m_step import from_responsibilities, maximize
from jgmm.mixture.mixture import Mixture


@jit
def place_labelled(mixtures: Mixture, samples: Samples) -> Mixture:
    """Starts in which components with labelled samples are where those are.

    Label by label, the nearest component to the labelled samples' mean that is left takes that
    number, and that mean. The others keep theirs.

    Args:
      mixtures: R starts, leading axis, in the frame.
      samples: in the frame, with labels.

    Reference: Basu, Banerjee & Mooney (2002), on seeding by labels.
    """
    k, labels = mixtures.log_weights.shape[1], samples.labels
    assert labels is not None  # nobody asks otherwise

    def resp(rows: Array) -> Array:
        return jax.nn.one_hot(labels[rows], k, dtype=samples.x.dtype)  # zeros for -1

    known = from_responsibilities(samples, resp, k, "EII")
    has_known, means = known.counts > 0, known.center

    def one(mixture: Mixture) -> Mixture:
        def place(label: Array, order: Array) -> Array:
            distance = ((mixture.means[order] - means[label][None, :]) ** 2).sum(axis=1)
            free = (jnp.arange(k) >= label) & (mixture.log_weights[order] > -jnp.inf)
            nearest = jnp.argmin(jnp.where(free, distance, jnp.inf))
            swapped = order.at[label].set(order[nearest]).at[nearest].set(order[label])
            return jnp.where(has_known[label], swapped, order)

        order = lax.fori_loop(0, k, place, jnp.arange(k))
        scale = mixture.scale if mixture.model.shared else mixture.scale[order]
        moved = jnp.where(has_known[:, None], means, mixture.means[order])
        return Mixture(mixture.log_weights[order], moved, scale, mixture.covariance)

    return jax.vmap(one)(mixtures)


def from_labels(
    labels: Any, samples: Samples, n_components: int, covariance: str, ridge: Any = 0.0
) -> Mixture:
    """The M-step of given labels, (N,), whole numbers from 0 to K - 1, with the ridge of the fit.

    Raises:
      DataError: another shape, a label out of range, or one of the K that never occurs; labels of
        missing rows are not looked at.
    """
    host = np.asarray(checked_labels(labels, samples.n_samples))
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

    found = from_responsibilities(samples, resp, n_components, covariance)
    return maximize(found, covariance, jnp.asarray(ridge, samples.x.dtype))


def from_mixture(mixture: Mixture, like: Array, n_components: int, covariance: str) -> Mixture:
    """Mixtures given as starts, checked to fit the problem, in the samples' dtype.

    Args:
      mixture: one, or several with a leading axis.
      like: any array with the dtype of the samples and a last axis of D.
      n_components, covariance: of the problem.

    Raises:
      DataError: another number of components or columns, or another covariance model.
    """
    asked = (n_components, like.shape[-1], model(covariance).name)
    given = (mixture.n_components, mixture.n_features, mixture.covariance)
    if asked != given:
        raise DataError(
            f"init is a mixture with (K, D, covariance) = {given}; asked for is {asked}."
        )
    cast = jax.tree.map(lambda leaf: leaf.astype(like.dtype), mixture)
    return replace(cast, covariance=asked[2])
