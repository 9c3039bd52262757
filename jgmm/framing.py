"""Samples and mixtures, to and from the frame that a fit sees them in."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
from jaxtyping import Array

from jgmm.covariance import CovarianceModel
from jgmm.frame import Frame, scaling_frame, standard_frame, whitening_frame
from jgmm.mixture import Mixture, reframe
from jgmm.samples import Samples, fold


def framed(samples: Samples, per_column: bool) -> Samples:
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
        return replace(samples, frame=scaling_frame(shift, jnp.ones_like(shift)))

    mean = first + fold(centred(first), block, lambda x, w, _: w @ x) / total
    variance = fold(centred(mean), block, lambda x, w, _: w @ x**2) / total
    return replace(samples, frame=standard_frame(mean, variance, per_column))


def whitened(samples: Samples) -> Samples:
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
    frame = whitening_frame(samples.frame, second / samples.total_weight())
    return replace(samples, frame=frame)


def seen(samples: Samples, entry: CovarianceModel) -> Samples:
    """Samples in the frame that suits a covariance model: whitened where it keeps its form."""
    inside = framed(samples, entry.per_column)
    return whitened(inside) if entry.affine else inside


def to_frame(mixture: Mixture, frame: Frame) -> Mixture:
    """The mixture as seen in the frame."""
    # Subtract before dividing: the difference of two large numbers is exact, their quotients not.
    centred = replace(mixture, means=mixture.means - frame.shift[None, :])
    return reframe(centred, jnp.zeros_like(frame.shift), frame.inverse)


def to_user(mixture: Mixture, frame: Frame) -> Mixture:
    """The mixture in the user's units."""
    return reframe(mixture, frame.shift, frame.scale)
