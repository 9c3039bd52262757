"""Marginal and conditional mixtures, and the mean and covariance of a mixture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jgmm._core.compilation import jit
from jgmm._core.errors import DataError, shown
from jgmm._core.pytree import is_traced
from jgmm._data.validation import as_numbers
from jgmm.covariance.storage import Full
from jgmm.mixture import gaussian
from jgmm.mixture.density import expectation
from jgmm.mixture.mixture import HasMixture, Mixture, as_mixture, check_single, for_each


def _dims(mixture: Mixture, dims: int | Sequence[int]) -> list[int]:
    """Check that a mixture is one, and coordinates: distinct, at least one, from 0 to D - 1."""
    check_single(mixture)
    chosen = [int(d) for d in np.atleast_1d(np.asarray(dims))]
    d = mixture.n_features
    if not chosen or len(set(chosen)) < len(chosen) or not all(0 <= i < d for i in chosen):
        raise DataError(f"dims must be distinct coordinates from 0 to {d - 1}; they are {chosen}.")
    return chosen


def marginal(mixture: Mixture | HasMixture, dims: int | Sequence[int]) -> Mixture:
    """Marginal distribution of the chosen coordinates, in the order given.

        p(x_a) = Σₖ πₖ N(x_a | μₖ_a, Σₖ_aa)

    Args:
      mixture: K components in D dimensions, or a result that has a mixture.
      dims: the chosen coordinates, from 0 to D - 1, or one.

    Returns:
      A mixture with the same weights. Its covariance model is the same if marginals keep the form
      of that model, and otherwise the unconstrained model of the same storage: covariances with
      common axes, for example, have none in common when a column is left out.

    Raises:
      DataError: a coordinate is out of range or named twice.

    >>> import jgmm
    >>> one = jgmm.make_mixture([1.0], [[0.0, 1.0, 2.0]], [[1.0, 2.0, 3.0]], "diag")
    >>> jgmm.marginal(one, [2, 0]).means.tolist()
    [[2.0, 0.0]]
    """
    mixture = as_mixture(mixture)
    return _marginal(mixture, np.asarray(_dims(mixture, dims)))


@partial(jit, quick=True)
def _marginal(mixture: Mixture, index: Array) -> Mixture:
    entry = mixture.model
    scale = mixture.scale
    if entry.storage is Full:
        scale = Full.root_of_rows(scale[:, index])
    elif scale.ndim == 2:
        scale = scale[:, index]
    name = entry.marginal_model.name
    return Mixture(mixture.log_weights, mixture.means[:, index], scale, name)


def condition(mixture: Mixture | HasMixture, dims: int | Sequence[int], values: Any) -> Mixture:
    """Conditional distribution of the other coordinates, given the values of some.

    Each component is conditioned as a Gaussian (``gaussian.condition``), and its weight is
    multiplied by the density of the known values under it: ``πₖ' ∝ πₖ N(x_b | μₖ_b, Σₖ_bb)``.

    Args:
      mixture: K components in D dimensions, or a result that has a mixture.
      dims: the M known coordinates (b), M < D, or one.
      values: their values x_b, (M,), or one number.

    Returns:
      A mixture of K components in the D - M other coordinates, in increasing order. Its covariance
      model is that of a marginal.

    Raises:
      DataError: a coordinate is out of range or named twice, all are known, or the values do not
        fit.

    >>> import jgmm
    >>> one = jgmm.make_mixture([1.0], [[0.0, 0.0]], [[[1.0, 0.5], [0.5, 1.0]]])
    >>> given = jgmm.condition(one, [0], [1.0])
    >>> given.means.item(), given.variances.item()
    (0.5, 0.75)
    """
    mixture = as_mixture(mixture)
    known = _dims(mixture, dims)
    at = jnp.asarray(as_numbers(values, "values"), mixture.means.dtype)
    at = at[None] if at.ndim == 0 else at
    if at.shape != (len(known),):
        raise DataError(
            f"values must have shape ({len(known)},), one a known coordinate; they have {at.shape}."
        )
    if not is_traced(at) and not np.isfinite(at).all():
        raise DataError(f"values must be finite; they are {shown(at.tolist())}.")
    if len(known) == mixture.n_features:
        raise DataError("every coordinate is known; none is left to describe.")
    rest = [d for d in range(mixture.n_features) if d not in known]
    return _condition(mixture, np.asarray(known), np.asarray(rest), at)


@partial(jit, quick=True)
def _condition(mixture: Mixture, known: Array, rest: Array, at: Array) -> Mixture:
    log_weights = expectation(_marginal(mixture, known), at[None, :]).log_resp[0]
    entry = mixture.model
    if entry.storage is not Full:  # coordinates are independent within a component
        other = _marginal(mixture, rest)
        return Mixture(log_weights, other.means, other.scale, other.covariance)
    means, scale = jax.vmap(lambda mean, root: gaussian.condition_on(mean, root, known, rest, at))(
        mixture.means, mixture.cholesky
    )
    copies = 1 if entry.shared else mixture.n_components
    return Mixture(log_weights, means, scale[:copies], entry.marginal_model.name)


def mean(mixture: Mixture | HasMixture) -> Float[Array, "... D"]:
    """Mean of the mixture, ``μ = Σₖ πₖ μₖ``, (D,); a batch of mixtures keeps its leading axes.

    >>> import jgmm
    >>> two = jgmm.make_mixture([0.5, 0.5], [[0.0], [4.0]], [1.0, 1.0], "spherical")
    >>> mean(two).tolist()
    [2.0]
    """
    return for_each(lambda one: one.weights @ one.means, as_mixture(mixture))


def cov(mixture: Mixture | HasMixture) -> Float[Array, "... D D"]:
    """Covariance of the mixture, ``Σₖ πₖ (Σₖ + (μₖ - μ)(μₖ - μ)ᵀ)``, (D, D).

    A batch of mixtures keeps its leading axes.

    >>> import jgmm
    >>> two = jgmm.make_mixture([0.5, 0.5], [[0.0], [4.0]], [1.0, 1.0], "spherical")
    >>> cov(two).tolist()
    [[5.0]]
    """
    return for_each(_cov, as_mixture(mixture))


def _cov(mixture: Mixture) -> Array:
    offsets = mixture.means - mean(mixture)[None, :]
    within = jnp.einsum("k,kde->de", mixture.weights, mixture.covariances)
    return within + (mixture.weights[:, None] * offsets).T @ offsets
