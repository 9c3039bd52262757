"""Mixtures and samples, to and from the frame that a fit sees them in."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp

from jgmm.covariance import CovarianceModel
from jgmm.mixture import Mixture, reframe
from jgmm.samples import Frame, Samples, framed, whitened


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
