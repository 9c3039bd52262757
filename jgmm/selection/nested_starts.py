"""Mixtures within mixtures: which models are special cases of which, and the starts that gives.

A covariance model is a special case of another where each of its three letters restricts no less:
the Identity is Equal for all, and what is Equal may Vary. A mixture of K components is one of K + 1
two of which are the same. So a fit of the simpler mixture is a point on the likelihood surface of
the richer one, and EM from there, or from near by, ends no lower.

All here works on the host, on copies, and compiles nothing.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jgmm.covariance.models import CovarianceModel
from jgmm.covariance.storage import Full
from jgmm.mixture.mixture import Mixture

# Components of a fit that are split to start the next with one more, the heaviest first.
MOST_SPLITS = 8
# Where several axes are as long, the one the data extend along most.
TIE = 1e-6


def as_model(mixture: Mixture, entry: CovarianceModel) -> Mixture:
    """The same mixture, written as one of a model that contains its own."""
    k, d = mixture.n_components, mixture.n_features
    scale, ndim = np.asarray(mixture.scale), entry.storage.ndim
    if scale.ndim == 1 < ndim:
        scale = np.repeat(scale[:, None], d, axis=1)
    if scale.ndim == 2 < ndim:
        scale = scale[:, :, None] * np.eye(d, dtype=scale.dtype)
    copies = (1 if entry.shared else k, *scale.shape[1:])
    scale = np.array(np.broadcast_to(scale, copies))
    return _host(np.array(mixture.log_weights), np.array(mixture.means), scale, entry.name)


def placeholder(entry: CovarianceModel, n_components: int, n_features: int, dtype: Any) -> Mixture:
    """A mixture that fills a place: unit covariances around the origin."""
    copies = 1 if entry.shared else n_components
    unit = (1.0, np.ones(n_features), np.eye(n_features))[entry.storage.ndim - 1]
    scale = np.broadcast_to(np.asarray(unit, dtype), (copies, *np.shape(unit)))
    means = np.zeros((n_components, n_features), dtype)
    return _host(np.full(n_components, -np.log(n_components), dtype), means, scale, entry.name)


def pad_components(mixture: Mixture, n_components: int) -> Mixture:
    """The same mixture with more components, of weight zero: copies of the first."""
    n_more = n_components - mixture.n_components

    def joined(leaf: Any, copied: bool = True) -> np.ndarray:
        return np.concatenate([leaf, leaf[:1].repeat(n_more if copied else 0, axis=0)])

    log_weights = np.pad(mixture.log_weights, (0, n_more), constant_values=-np.inf)
    scale = joined(np.asarray(mixture.scale), not mixture.model.shared)
    return _host(log_weights, joined(np.asarray(mixture.means)), scale, mixture.covariance)


def duplicate_heaviest(mixture: Mixture, slot: int) -> Mixture:
    """The same mixture with its heaviest component halved, the other half in an unused slot."""
    return _copied(mixture, int(np.argmax(mixture.log_weights)), slot)


def splits(mixture: Mixture, slot: int) -> list[Mixture]:
    """Mixtures with one component more: in each, another one is split along its longest axis.

    The halves are a standard deviation apart, and keep their covariance.

    Args:
      mixture: with an unused slot, of weight zero.
      slot: which.
    """
    heaviest_first = np.argsort(-np.asarray(mixture.log_weights), kind="stable")
    n_used = int((np.asarray(mixture.log_weights) > -np.inf).sum())
    found = []
    for k in heaviest_first[: min(n_used, MOST_SPLITS)]:
        halves = _copied(mixture, int(k), slot)
        step = 0.5 * _longest_axis(mixture, int(k))
        halves.means[k] += step
        halves.means[slot] -= step
        found.append(halves)
    return found


def stack(mixtures: list[Mixture]) -> Mixture:
    """Mixtures of one model and size as one batch, with a leading axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *mixtures)


def _host(log_weights: Any, means: Any, scale: Any, covariance: str) -> Mixture:
    """A mixture whose leaves are NumPy's."""
    return Mixture(log_weights, means, scale, covariance)


def _copied(mixture: Mixture, k: int, slot: int) -> Mixture:
    log_weights, means, scale = (
        np.array(leaf) for leaf in (mixture.log_weights, mixture.means, mixture.scale)
    )
    log_weights[[k, slot]] = log_weights[k] - np.log(2)
    means[slot] = means[k]
    if not mixture.model.shared:
        scale[slot] = scale[k]
    return _host(log_weights, means, scale, mixture.covariance)


def _longest_axis(mixture: Mixture, k: int) -> np.ndarray:
    """Along the largest variance of a component, as long as its standard deviation there."""
    entry, weights = mixture.model, np.exp(np.asarray(mixture.log_weights))
    means, scale = np.asarray(mixture.means), np.asarray(mixture.scale)
    away = means - weights @ means
    one = scale[0 if entry.shared else k]
    if entry.storage is Full:
        between = (weights[:, None] * away).T @ away
        variance, axes = np.linalg.eigh(one @ one.T + TIE * between)
        return np.sqrt(variance[-1]) * axes[:, -1]
    variances = one**2 + TIE * (weights @ away**2)  # a number and a column, or a column each
    longest = int(np.argmax(variances))
    return np.sqrt(variances[longest]) * np.eye(mixture.n_features, dtype=means.dtype)[longest]
