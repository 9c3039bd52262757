"""Degenerate components: collapsed ones, and spurious ones ("spikes") that are about to collapse.

The likelihood of a mixture is unbounded: it grows without limit when the covariance of a component
shrinks around samples that fill no volume. EM that shrinks a component in this way ends as
``COLLAPSED``. Around a few more samples the component stops shrinking, at a likelihood that is as
high and says as little about the data. Such a fit ends as ``DEGENERATE``, and is chosen only if no
other fit is valid.

Reference: McLachlan & Peel (2000), section 3.10, on spurious local maximisers.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jgmm._core.status import VALID, Status, among
from jgmm._data.samples import Standardization
from jgmm.mixture.mixture import Mixture

# A spurious component is thin: its variances are THIN times smaller than the mean over components,
# in the harmonic mean over directions. And it has few samples: fewer than FEW times the number
# below which its covariance would be singular. A thin component with many samples is not spurious.
THIN, FEW = 1000, 5
# A component is at the floor if its smallest ratio to the floor is below one plus this number,
# which is much larger than rounding errors.
FLOOR_TOLERANCE = 1e-3


def spurious_components(mixture: Mixture, total: Float[Array, ""]) -> Bool[Array, "K"]:
    """Find spurious components, independently of the units of the data.

    With the effective counts Nₖ = N πₖ, the smallest number n of samples for which a covariance of
    the model is nonsingular, and W = Σₖ πₖ Σₖ, component k is spurious if

        Nₖ < n,  or  Nₖ < 5 n and tr(Σₖ⁻¹ W) / D > 1000

    Args:
      mixture: at the end of a fit.
      total: N, the total weight of the samples.

    Returns:
      True for spurious components, (K,). All are False where the components share what could
      shrink (``min_samples`` of the model is zero).
    """
    entry, d = mixture.model, mixture.n_features
    min_samples = entry.min_samples(d)
    counts, used = total * mixture.weights, mixture.log_weights > -jnp.inf
    if not min_samples:
        return jnp.zeros_like(used)
    covariances = entry.storage.covariance(mixture.scale)
    weights = jnp.where(used, mixture.weights, 0).reshape(
        counts.shape + (1,) * (covariances.ndim - 1)
    )
    within = jnp.broadcast_to((weights * covariances).sum(axis=0), covariances.shape)
    thin = entry.storage.trace_ratio(mixture.scale, within, d) > THIN * d
    return used & ((counts < min_samples) | ((counts < FEW * min_samples) & thin))


def at_floor(mixture: Mixture, floor: Float[Array, "D D"]) -> Bool[Array, "K"]:
    """Find the components whose covariance is as small as the floor in some direction.

    Args:
      mixture: fitted with the floor.
      floor: the covariance that bounds all others from below, in the units of the mixture.
    """
    storage, used = mixture.model.storage, mixture.log_weights > -jnp.inf
    ratio = storage.min_ratio(storage.covariance(mixture.scale), storage.from_dense(floor[None]))
    return used & (ratio < 1 + FLOOR_TOLERANCE)


def mark_degenerate(
    status: Int[Array, ""],
    broken: Bool[Array, "K"],
    mixture: Mixture,
    total: Float[Array, ""],
    bounded: bool = False,
    floor: Float[Array, "D D"] | None = None,
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Change the status of a run that ends with a spurious component to ``DEGENERATE``.

    Only a status that is valid changes.

    Args:
      status: code of the ``Status`` of the run.
      broken: the components that have collapsed, if the run ended as ``COLLAPSED``, (K,).
      mixture: the parameters of the run.
      total: N, the total weight of the samples.
      bounded: whether the objective includes a prior: it is then bounded, and no component counts
        as spurious.
      floor: the covariance that bounds all others from below, or None. A component at the floor
        counts as spurious: without the floor it would shrink further.

    Returns:
      The status, and the first component that ended the run because it collapsed or is spurious,
      or -1.
    """
    spurious = spurious_components(mixture, total) & (not bounded)
    if floor is not None:
        spurious = spurious | at_floor(mixture, floor)
    status = jnp.where(among(status, VALID) & spurious.any(), int(Status.DEGENERATE), status)
    culprit = jnp.where(status == Status.COLLAPSED, jnp.argmax(broken), jnp.argmax(spurious))
    has_culprit = among(status, (Status.COLLAPSED, Status.DEGENERATE))
    return status, jnp.where(has_culprit, culprit, -1)


def collapsed_components(updated: Mixture, before: Mixture, frame: Standardization) -> Array:
    """Find the components that have collapsed in an M-step, (K,).

    A component has collapsed when it has lost its samples, or when one of its variances, or the
    variance of a column given the others, is within the rounding error of the data. Where the
    standardization mixes columns (whitening), the rounding error is larger in directions in which
    the data vary little.

    Args:
      updated: parameters after the M-step, in standardized units: the data's variance is one.
      before: parameters before it. A component that was switched off there does not count.
      frame: the standardization.
    """
    entry = updated.model
    eps = jnp.finfo(updated.means.dtype).eps
    variances = entry.storage.variances(updated.scale, updated.n_features)
    conditional = entry.storage.conditional_variances(updated.scale)
    rounding = jnp.diagonal(frame.unit_variances()) if frame.rotates else 1.0
    # Negated, so that NaN counts as collapsed.
    tiny = ~(conditional > (8 * eps) ** 2 * jnp.atleast_1d(rounding)[None, :]).all(axis=1)
    flat = ~(conditional > 8 * eps * variances).all(axis=1) if entry.storage.ndim == 3 else tiny
    lost = updated.log_weights < jnp.log(eps) - jnp.log(updated.n_components)
    was_used = before.log_weights > -jnp.inf
    return (jnp.broadcast_to(tiny | flat, lost.shape) | lost) & was_used
