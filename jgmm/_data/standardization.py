"""Standardization of samples: centering, scaling by column or by one number, and whitening."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jgmm._core import budget
from jgmm._data.samples import Samples, Standardization, fold, scaling
from jgmm.covariance.models import CovarianceModel
from jgmm.covariance.storage import Full


def power_of_two(magnitude: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return powers of two near the given magnitudes, to divide by before numbers are squared.

    In float32 squares vanish below 1e-19 and overflow above 1e19, and many columns in units of
    physics are there. Division by a power of two rounds nothing. The result and its reciprocal are
    normal numbers, also for zero and for magnitudes that are not finite.

    >>> power_of_two(jnp.asarray([9.0, 1e-25, 0.0])).tolist()
    [8.0, 1.0339757656912846e-25, 1.1754943508222875e-38]
    """
    info = jnp.finfo(magnitude.dtype)
    within = jnp.clip(magnitude, info.tiny, info.max / 4)
    return lax.stop_gradient(lax.reduce_precision(within, info.nexp, mantissa_bits=0))


def units_of_columns(
    x: Float[Array, "N D"], weights: Array | None, origin: Float[Array, "D"]
) -> Float[Array, "D"]:
    """Return for each column a power of two near its largest deviation from a point.

    Args:
      x: samples.
      weights: of the samples, (N,), or None; those of weight zero do not count.
      origin: the point.
    """
    deviation = jnp.abs(x - origin[None, :])
    if weights is not None:
        deviation = jnp.where((weights > 0)[:, None], deviation, 0)
    return power_of_two(deviation.max(axis=0))


def scaling_from_moments(
    mean: Float[Array, "D"], variance: Float[Array, "D"], unit: Float[Array, "D"], per_column: bool
) -> Standardization:
    """Return the standardization of ``center_and_scale`` for data of known mean and variances.

    Args:
      mean: of the columns.
      variance: of the columns divided by ``unit``.
      unit: powers of two, one for each column.
      per_column: see ``center_and_scale``.
    """
    if not per_column:
        common = jnp.full_like(unit, unit.max())
        variance = jnp.full_like(variance, (variance * (unit / common) ** 2).mean())
        unit = common
    varies = variance > 0
    relative = jnp.where(varies, jnp.sqrt(jnp.where(varies, variance, 1)), 1 / unit)
    # The derivative of 1 / scale is a square, which might not be representable.
    return Standardization(mean, unit * relative, (1 / unit) * (1 / relative))


def rounding_of_correlation(n_features: int, dtype: Any) -> float:
    """Return a bound of the rounding errors of a correlation matrix, in every direction."""
    return 8 * n_features * float(jnp.finfo(dtype).eps)


def whitening_from_correlation(
    frame: Standardization, correlation: Float[Array, "D D"]
) -> Standardization:
    """Return the standardization of ``whiten``.

    Args:
      frame: the standardization by column.
      correlation: the correlation matrix, second moments of data standardized by ``frame``.
    """
    d, dtype = len(correlation), correlation.dtype
    constant = jnp.diagonal(correlation) == 0  # such a column is left as it is
    tiny = rounding_of_correlation(d, dtype)
    root = jnp.linalg.cholesky(correlation + jnp.diag(jnp.where(constant, 1, tiny).astype(dtype)))
    inverse = Full.invert(root[None])[0]
    return Standardization(
        frame.shift, frame.scale[:, None] * root, inverse * frame.inverse[None, :]
    )


def center_and_scale(samples: Samples, per_column: bool) -> Samples:
    """Standardize samples to mean zero and variance one.

    Args:
      samples: samples that are not standardized yet.
      per_column: scale each column by its own standard deviation, which suits covariance models
        that keep their form when columns change their units; otherwise scale all columns by one
        number, the root mean square of those deviations.

    A column of zero variance is divided by one.

    >>> from jgmm._data.samples import make_samples
    >>> center_and_scale(make_samples([[0.0], [2.0], [4.0]]), True).frame.shift.tolist()
    [2.0]
    """
    x, weights = samples.x, samples.weights
    # Sums are relative to one sample of positive weight, so that an offset costs no digits.
    first = x[0] if weights is None else x[jnp.argmax(weights > 0)]
    unit = units_of_columns(x, weights, first)
    total = samples.total_weight()
    block = min(samples.n_samples, budget.MOMENT_BLOCK_ROWS)

    def centred(shift: Array) -> Samples:
        return replace(samples, frame=scaling(shift, unit))

    mean = first + unit * (fold(centred(first), block, lambda x, w, _: w @ x) / total)
    variance = fold(centred(mean), block, lambda x, w, _: w @ x**2) / total
    return replace(samples, frame=scaling_from_moments(mean, variance, unit, per_column))


def whiten(samples: Samples) -> Samples:
    """Whiten samples: transform them so that their covariance is the unit matrix.

        C + δ I = L Lᵀ,    z = L⁻¹ x

    Columns that nearly determine each other then cost no digits, and a variance is small or large
    compared with the data's own variance in the same direction. Whitening suits covariance models
    that keep their form under every linear map.

    Args:
      samples: N samples, standardized by column, so that C is their correlation matrix.

    δ, a few rounding errors, makes C invertible. A direction in which the data have no extent,
    except for rounding, still has none afterwards.
    """
    block = min(samples.n_samples, budget.MOMENT_BLOCK_ROWS)
    second = fold(samples, block, lambda x, w, _: (w[:, None] * x).T @ x)
    frame = whitening_from_correlation(samples.frame, second / samples.total_weight())
    return replace(samples, frame=frame)


def standardize(samples: Samples, entry: CovarianceModel) -> Samples:
    """Standardize samples as suits a covariance model.

    They are whitened if the model keeps its form under every linear map; otherwise each column is
    scaled separately, or all by one number if the model requires that.
    """
    scaled = center_and_scale(samples, entry.per_column)
    return whiten(scaled) if entry.affine else scaled
