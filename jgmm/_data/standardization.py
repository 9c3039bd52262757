"""Samples and mixtures, to and from the frame that a fit sees them in."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array, Float

from jgmm._data.samples import Samples, Standardization, fold, scaling
from jgmm.covariance.models import CovarianceModel
from jgmm.covariance.storage import Full


def scaling_from_moments(
    mean: Float[Array, "D"], variance: Float[Array, "D"], per_column: bool
) -> Standardization:
    """The frame of ``framed`` for data of known mean and variances."""
    if not per_column:
        variance = jnp.full_like(variance, variance.mean())
    return scaling(mean, jnp.where(variance > 0, jnp.sqrt(variance), 1))


def whitening_from_correlation(
    frame: Standardization, correlation: Float[Array, "D D"]
) -> Standardization:
    """The frame of ``whitened``, from the one column by column and the correlations seen in it."""
    d, dtype = len(correlation), correlation.dtype
    constant = jnp.diagonal(correlation) == 0
    tiny = 8 * d * jnp.finfo(dtype).eps
    root = jnp.linalg.cholesky(correlation + jnp.diag(jnp.where(constant, 1, tiny).astype(dtype)))
    inverse = Full.invert(root[None])[0]
    return Standardization(
        frame.shift, frame.scale[:, None] * root, inverse * frame.inverse[None, :]
    )


def center_and_scale(samples: Samples, per_column: bool) -> Samples:
    """See samples in their own frame: mean zero and variance one.

    Args:
      samples: in the identity frame.
      per_column: scale each column by its own standard deviation, which suits covariance models
        that keep their form when columns change their units; otherwise all columns by one number,
        the root mean square of those deviations.

    A column of zero variance is scaled by one.
    """
    x, weights = samples.x, samples.weights
    # Sums are taken relative to one sample that counts, so that an offset costs no digits.
    first = x[0] if weights is None else x[jnp.argmax(weights > 0)]
    total = samples.total_weight()
    block = min(samples.n_samples, 8192)

    def centred(shift: Array) -> Samples:
        return replace(samples, frame=scaling(shift, jnp.ones_like(shift)))

    mean = first + fold(centred(first), block, lambda x, w, _: w @ x) / total
    variance = fold(centred(mean), block, lambda x, w, _: w @ x**2) / total
    return replace(samples, frame=scaling_from_moments(mean, variance, per_column))


def whiten(samples: Samples) -> Samples:
    """See samples where their covariance is the unit matrix: C + δ = L Lᵀ, z = L⁻¹ x.

    Columns that nearly determine each other then cost no digits, and what is a small variance is
    small next to the data's own in that direction. It suits models that keep their form under
    every linear map.

    Args:
      samples: N samples, framed column by column, so that C are their correlations.

    A direction in which the data have no extent, but for rounding, keeps none: δ, a few roundings,
    is what makes C invertible.
    """
    block = min(samples.n_samples, 8192)
    second = fold(samples, block, lambda x, w, _: (w[:, None] * x).T @ x)
    frame = whitening_from_correlation(samples.frame, second / samples.total_weight())
    return replace(samples, frame=frame)


def standardize(samples: Samples, entry: CovarianceModel) -> Samples:
    """Samples in the frame that suits a covariance model: whitened where it keeps its form."""
    inside = center_and_scale(samples, entry.per_column)
    return whiten(inside) if entry.affine else inside
