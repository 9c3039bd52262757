"""Components that are no estimate of anything: collapsed ones, and spikes about to collapse.

The likelihood of a mixture is unbounded: a component whose covariance shrinks around samples that
fill no volume raises it without end. EM that falls into such a spike ends as ``COLLAPSED``. Around
a few samples more it comes to rest, at a likelihood that is as high and says as little; such a fit
ends as ``DEGENERATE``, and is chosen only where there is nothing else.

Reference: McLachlan & Peel (2000), section 3.10, on spurious local maximisers.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jgmm._core.status import VALID, Status, among
from jgmm._data.samples import Standardization
from jgmm.mixture.mixture import Mixture

# A spike is thin: its variances are so many times smaller than the mean over components, in the
# harmonic mean over directions. And it is made of few samples: fewer than so many times the number
# below which its covariance would be singular. A thin component of many samples is none.
THIN, FEW = 1000, 5
# What rests on a floor is so close to it, of which rounding is a small part.
FLOOR_TOLERANCE = 1e-3


def spurious_components(mixture: Mixture, total: Float[Array, ""]) -> Bool[Array, "K"]:
    """Which components are spikes, whatever the units of the data.

    With effective counts Nₖ = N πₖ, the least number n of samples that a covariance of the model
    takes, and W = Σₖ πₖ Σₖ:

        Nₖ < n,  or  Nₖ < 5 n and tr(Σₖ⁻¹ W) / D > 1000

    Args:
      mixture: at the end of a fit.
      total: N, the total weight of the samples.

    Returns:
      (K,); all False where components share what could shrink (``least_samples`` of zero).
    """
    entry, d = mixture.model, mixture.n_features
    least = entry.min_samples(d)
    counts, used = total * mixture.weights, mixture.log_weights > -jnp.inf
    if not least:
        return jnp.zeros_like(used)
    covariances = entry.storage.covariance(mixture.scale)
    share = jnp.where(used, mixture.weights, 0).reshape(
        counts.shape + (1,) * (covariances.ndim - 1)
    )
    within = jnp.broadcast_to((share * covariances).sum(axis=0), covariances.shape)
    thin = entry.storage.trace_ratio(mixture.scale, within, d) > THIN * d
    return used & ((counts < least) | ((counts < FEW * least) & thin))


def at_floor(mixture: Mixture, least: Float[Array, "D D"]) -> Bool[Array, "K"]:
    """Which components are as small as a floor allows, in some direction."""
    storage, used = mixture.model.storage, mixture.log_weights > -jnp.inf
    margin = storage.min_ratio(storage.covariance(mixture.scale), storage.from_dense(least[None]))
    return used & (margin < 1 + FLOOR_TOLERANCE)


def mark_degenerate(
    status: Int[Array, ""],
    broken: Bool[Array, "K"],
    mixture: Mixture,
    total: Float[Array, ""],
    bounded: bool = False,
    least: Float[Array, "D D"] | None = None,
) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """The status of a run, ``DEGENERATE`` where it would end valid in a spike.

    Args:
      status: that of the run so far.
      broken: which components have collapsed, if that is what ended it.
      mixture: where it stands.
      total: N, the total weight of the samples.
      bounded: what is maximised has a prior in it, and so is bounded, and no spike is one.
      least: what a floor keeps covariances above; one that rests on it is a spike held up.

    Returns:
      The status, and the first component that ended the run by collapsing or as a spike, or -1.
    """
    spiky = spurious_components(mixture, total) & (not bounded)
    if least is not None:
        spiky = spiky | at_floor(mixture, least)
    status = jnp.where(among(status, VALID) & spiky.any(), int(Status.DEGENERATE), status)
    culprit = jnp.where(status == Status.COLLAPSED, jnp.argmax(broken), jnp.argmax(spiky))
    to_blame = among(status, (Status.COLLAPSED, Status.DEGENERATE))
    return status, jnp.where(to_blame, culprit, -1)


def collapsed_components(updated: Mixture, before: Mixture, frame: Standardization) -> Array:
    """Which components an M-step has broken, (K,), in a frame where the data's variance is one.

    A component is broken when it has lost its samples, or when a variance, or the variance of a
    column given the others, has sunk into the rounding error of the data. Where the frame turns
    columns into one another, that is larger in directions in which the data have little extent.
    """
    entry = updated.model
    eps = jnp.finfo(updated.means.dtype).eps
    variances = entry.storage.variances(updated.scale, updated.n_features)
    conditional = entry.storage.conditional_variances(updated.scale)
    noise = jnp.diagonal(frame.unit_variances()) if frame.rotates else 1.0
    # Negated, so that NaN counts as broken.
    spike = ~(conditional > (8 * eps) ** 2 * jnp.atleast_1d(noise)[None, :]).all(axis=1)
    flat = ~(conditional > 8 * eps * variances).all(axis=1) if entry.storage.ndim == 3 else spike
    lost = updated.log_weights < jnp.log(eps) - jnp.log(updated.n_components)
    was_used = before.log_weights > -jnp.inf
    return (jnp.broadcast_to(spike | flat, lost.shape) | lost) & was_used
