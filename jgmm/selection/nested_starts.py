"""Starts from nested mixtures: a fit of a simpler mixture, written as one of a richer mixture.

A covariance model is a special case of another one where each of its three letters restricts at
least as much: Identity is a special case of Equal, and Equal of Variable
(``jgmm.covariance.nesting``). A mixture of K components is the special case of K + 1 components in
which two are the same. So the fit of a simpler mixture is a point on the likelihood surface of the
richer one, and EM from this point, or from a point near it, ends no lower.

All functions work on the host, on copies, and compile nothing.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jgmm.covariance.models import CovarianceModel
from jgmm.covariance.storage import Full
from jgmm.mixture.mixture import Mixture

# Number of components of a fit, the heaviest first, that are split for starts with one more.
MAX_SPLITS = 8
# Share of the covariance between the means that is added to a component's own covariance: where
# several axes are equally long, a component is split along the one on which the data extend most.
TIE = 1e-6


def as_model(mixture: Mixture, entry: CovarianceModel) -> Mixture:
    """Return the same mixture, written as one of a model that contains its own model."""
    k, d = mixture.n_components, mixture.n_features
    scale, ndim = np.asarray(mixture.scale), entry.storage.ndim
    if scale.ndim == 1 < ndim:
        scale = np.repeat(scale[:, None], d, axis=1)
    if scale.ndim == 2 < ndim:
        scale = scale[:, :, None] * np.eye(d, dtype=scale.dtype)
    copies = (1 if entry.shared else k, *scale.shape[1:])
    scale = np.array(np.broadcast_to(scale, copies))
    log_weights, means = np.array(mixture.log_weights), np.array(mixture.means)
    return _numpy_mixture(log_weights, means, scale, entry.name)


def placeholder(entry: CovarianceModel, n_components: int, n_features: int, dtype: Any) -> Mixture:
    """Return a mixture that only fills an array: unit covariances around the origin."""
    copies = 1 if entry.shared else n_components
    unit = (1.0, np.ones(n_features), np.eye(n_features))[entry.storage.ndim - 1]
    scale = np.broadcast_to(np.asarray(unit, dtype), (copies, *np.shape(unit)))
    means = np.zeros((n_components, n_features), dtype)
    log_weights = np.full(n_components, -np.log(n_components), dtype)
    return _numpy_mixture(log_weights, means, scale, entry.name)


def pad_components(mixture: Mixture, n_components: int) -> Mixture:
    """Return the same mixture with components of weight zero appended, copies of the first."""
    n_more = n_components - mixture.n_components

    def padded(leaf: Any, copied: bool = True) -> np.ndarray:
        return np.concatenate([leaf, leaf[:1].repeat(n_more if copied else 0, axis=0)])

    log_weights = np.pad(mixture.log_weights, (0, n_more), constant_values=-np.inf)
    scale = padded(np.asarray(mixture.scale), not mixture.model.shared)
    return _numpy_mixture(log_weights, padded(np.asarray(mixture.means)), scale, mixture.covariance)


def duplicate_heaviest(mixture: Mixture, unused: int) -> Mixture:
    """Return the same density with the heaviest component written as two equal halves.

    Args:
      mixture: with a component of weight zero.
      unused: the index of that component, which the second half takes.
    """
    k = int(np.argmax(mixture.log_weights))
    mean = np.asarray(mixture.means)[k]
    return split_component(mixture, k, unused, _half_log_weight(mixture, k), (mean, mean))


def splits(mixture: Mixture, unused: int) -> list[Mixture]:
    """Return mixtures with one component more: in each, another one is split in two halves.

    The heaviest ``MAX_SPLITS`` components are split, the heaviest first. A component is split along
    its longest axis. The halves are one standard deviation apart, and keep its covariance.

    Args:
      mixture: with a component of weight zero.
      unused: the index of that component, which the second half takes.
    """
    heaviest_first = np.argsort(-np.asarray(mixture.log_weights), kind="stable")
    n_used = int((np.asarray(mixture.log_weights) > -np.inf).sum())
    found = []
    for k in map(int, heaviest_first[: min(n_used, MAX_SPLITS)]):
        mean, step = np.asarray(mixture.means)[k], 0.5 * _longest_axis(mixture, k)
        log_weight = _half_log_weight(mixture, k)
        found.append(split_component(mixture, k, unused, log_weight, (mean + step, mean - step)))
    return found


def split_component(
    mixture: Mixture,
    k: int,
    unused: int,
    log_weight: Any,
    means: tuple[np.ndarray, np.ndarray],
) -> Mixture:
    """Return the mixture with component k replaced by two components of its covariance.

    Args:
      mixture: with a component of weight zero.
      k: the component that is split; the first half takes its index.
      unused: the index of the component of weight zero, which the second half takes.
      log_weight: log weight of each half.
      means: means of the two halves, (D,) each.
    """
    log_weights, all_means, scale = (
        np.array(leaf) for leaf in (mixture.log_weights, mixture.means, mixture.scale)
    )
    log_weights[[k, unused]] = log_weight
    all_means[k], all_means[unused] = means
    if not mixture.model.shared:
        scale[unused] = scale[k]
    return _numpy_mixture(log_weights, all_means, scale, mixture.covariance)


def stack(mixtures: list[Mixture]) -> Mixture:
    """Return mixtures of one model and size as one batch, with a leading axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *mixtures)


def _numpy_mixture(log_weights: Any, means: Any, scale: Any, covariance: str) -> Mixture:
    """Return a mixture of NumPy arrays; to a type checker its leaves would have to be JAX's."""
    return Mixture(log_weights, means, scale, covariance)


def _half_log_weight(mixture: Mixture, k: int) -> Any:
    return np.asarray(mixture.log_weights)[k] - np.log(2)


def _longest_axis(mixture: Mixture, k: int) -> np.ndarray:
    """Return the axis of the largest variance of a component, one standard deviation long, (D,)."""
    entry, weights = mixture.model, np.exp(np.asarray(mixture.log_weights))
    means, scale = np.asarray(mixture.means), np.asarray(mixture.scale)
    from_center, own = means - weights @ means, scale[0 if entry.shared else k]
    unit = np.abs(own).max()  # squares in tiny or huge units would vanish or overflow
    from_center, own = from_center / unit, own / unit
    if entry.storage is Full:
        between = (weights[:, None] * from_center).T @ from_center
        variance, axes = np.linalg.eigh(own @ own.T + TIE * between)
        return unit * np.sqrt(variance[-1]) * axes[:, -1]
    variances = own**2 + TIE * (weights @ from_center**2)  # own**2 is a number, or one a column
    longest = int(np.argmax(variances))
    axis = np.eye(mixture.n_features, dtype=means.dtype)[longest]
    return unit * np.sqrt(variances[longest]) * axis
