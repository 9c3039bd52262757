"""Starts that the user gives, as labels or mixtures, and starts that follow known labels."""

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
from jgmm._data.validation import checked_labels, counted_rows
from jgmm.covariance.models import model
from jgmm.em.m_step import from_responsibilities, maximize
from jgmm.em.options import Control
from jgmm.mixture.mixture import Mixture


@jit
def place_labelled(mixtures: Mixture, samples: Samples) -> Mixture:
    """Move components to the means of the samples that are labelled with their number.

    Label by label, in increasing order: of the components that no earlier label has taken, the one
    nearest to the mean of the labelled samples gets the label as its number, and that mean. All
    other components keep their means.

    Args:
      mixtures: R starts, leading axis, in standardized units.
      samples: standardized, with labels (-1 where unknown).

    Reference: Basu, Banerjee & Mooney (2002), on seeding by labels.
    """
    k, labels = mixtures.log_weights.shape[1], samples.labels
    assert labels is not None  # callers check this

    def resp(rows: Array) -> Array:
        return jax.nn.one_hot(labels[rows], k, dtype=samples.x.dtype)  # zeros for -1

    # The centers of these statistics are the means; "EII" needs the cheapest second moments.
    labelled = from_responsibilities(samples, resp, k, "EII")
    has_labels, label_means = labelled.counts > 0, labelled.center

    def one(mixture: Mixture) -> Mixture:
        def swap(label: Array, order: Array) -> Array:
            offset = mixture.means[order] - label_means[label][None, :]
            distance = (offset**2).sum(axis=1)
            available = (jnp.arange(k) >= label) & (mixture.log_weights[order] > -jnp.inf)
            nearest = jnp.argmin(jnp.where(available, distance, jnp.inf))
            swapped = order.at[label].set(order[nearest]).at[nearest].set(order[label])
            return jnp.where(has_labels[label], swapped, order)

        order = lax.fori_loop(0, k, swap, jnp.arange(k))
        scale = mixture.scale if mixture.model.shared else mixture.scale[order]
        moved = jnp.where(has_labels[:, None], label_means, mixture.means[order])
        return Mixture(mixture.log_weights[order], moved, scale, mixture.covariance)

    return jax.vmap(one)(mixtures)


def from_labels(
    labels: Any, samples: Samples, n_components: int, covariance: str, control: Control
) -> Mixture:
    """Make a start from given labels: the M-step with the labels as responsibilities.

    Args:
      labels: component of each sample, whole numbers from 0 to K - 1, (N,).
      samples: N samples with their standardization.
      n_components: K.
      covariance: name of the covariance model.
      control: ridge, prior and floor of the fit: a class that is too small for a covariance of its
        own starts as the fit goes on.

    Returns:
      The mixture, in standardized units.

    Raises:
      DataError: the labels have another shape, one is out of range, or one of the K never occurs.
        Labels of missing rows (weight zero), and traced ones, are not checked.
    """
    host, weights = checked_labels(labels, samples.n_samples, samples.weights), samples.weights
    if not is_traced(host):
        _check_all_occur(host[counted_rows(weights, len(host))], n_components, is_traced(weights))
    z = jnp.asarray(host)

    def resp(rows: Array) -> Array:
        return jax.nn.one_hot(z[rows], n_components, dtype=samples.x.dtype)

    statistics = from_responsibilities(samples, resp, n_components, covariance)
    prior, floor = control.prior_in(samples.frame), control.floor_in(samples.frame)
    return maximize(statistics, covariance, control.ridge, prior=prior, floor=floor)


def _check_all_occur(labels: np.ndarray, n_components: int, others_too: bool) -> None:
    """Refuse labels unless they take every value from 0 to K - 1, and no other value.

    Other values are allowed where it is not known which rows are missing.
    """
    taken, wanted = set(np.unique(labels).tolist()), set(range(n_components))
    if not (wanted <= taken if others_too else wanted == taken):
        raise DataError(
            f"labels must take every value from 0 to {n_components - 1}; they take {sorted(taken)}."
        )


def from_mixture(mixture: Mixture, like: Array, n_components: int, covariance: str) -> Mixture:
    """Check that mixtures given as starts fit the problem; convert them to the samples' dtype.

    Args:
      mixture: one mixture, or several with a leading axis.
      like: any array with the dtype of the samples and a last axis of size D.
      n_components: K, the number of components of the fit.
      covariance: name of the covariance model of the fit.

    Raises:
      DataError: the mixture has another number of components or columns, or another covariance
        model.
    """
    asked = (n_components, like.shape[-1], model(covariance).name)
    given = (mixture.n_components, mixture.n_features, mixture.covariance)
    if asked != given:
        raise DataError(
            f"init is a mixture with (K, D, covariance) = {given}; asked for is {asked}."
        )
    cast = jax.tree.map(lambda leaf: leaf.astype(like.dtype), mixture)
    return replace(cast, covariance=asked[2])
