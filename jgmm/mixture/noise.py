"""A uniform component beside the Gaussians, for samples that belong to none of them.

    p(x) = π₀ / V + (1 − π₀) Σₖ πₖ N(x | μₖ, Σₖ)

V is a volume that holds the samples, their bounding box's or one that is given; the density is the
same everywhere, and so is improper beyond. The weights πₖ of the ``Mixture`` are those among
samples that are no noise, and sum to one: the mixture is what is left when the noise is taken away.

Reference: Banfield & Raftery (1993); Fraley & Raftery (1998).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jgmm._core.compilation import jit
from jgmm._core.errors import DataError
from jgmm._core.pytree import Leaf, is_traced
from jgmm._data.samples import Samples, Standardization
from jgmm.mixture.density import e_step
from jgmm.mixture.density import log_prob as density_log_prob
from jgmm.mixture.mixture import Mixture

# Of the samples, at the start of a fit.
FIRST_WEIGHT = 0.05


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Noise:
    """A uniform component. Leaves: ``log_weight`` log π₀ and ``log_volume`` log V, () each."""

    log_weight: Leaf
    log_volume: Leaf

    @property
    def weight(self) -> Array:
        """π₀, the share of samples that are noise."""
        return jnp.exp(self.log_weight)

    def update(self, counts: Float[Array, "K"], total: Float[Array, ""]) -> Noise:
        """The M-step: π₀ is the share of N samples that the components' Nₖ leave."""
        share = jnp.clip(1 - counts.sum() / total, 0)
        return Noise(jnp.log(share), self.log_volume)

    def rescaled(self, log_factor: Array) -> Noise:
        """The same noise where volumes are ``exp(log_factor)`` times as large."""
        return Noise(self.log_weight, self.log_volume + log_factor)

    def density(self) -> NoiseDensity:
        """What the E-step needs of it."""
        return NoiseDensity(self.log_weight - self.log_volume, jnp.log1p(-jnp.exp(self.log_weight)))


class NoiseDensity(NamedTuple):
    """Noise as a sample sees it: ``log_density`` log π₀ / V, ``log_rest`` log(1 − π₀), () each."""

    log_density: Array
    log_rest: Array

    def mix_in(
        self, log_prob: Float[Array, "B"], known: Array | None = None
    ) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
        """Log density of samples, and the probability that they are no noise.

        Args:
          log_prob: under the Gaussians alone.
          known: samples whose component is known, and that are no noise, (B,), or None.
        """
        rest = log_prob + self.log_rest
        density = jnp.broadcast_to(self.log_density, rest.shape)
        if known is not None:
            density = jnp.where(known, -jnp.inf, density)
        log_prob = jnp.logaddexp(rest, density)
        return log_prob, jnp.exp(rest - log_prob)


def as_log_volume(noise: Any, samples: Samples) -> Array | None:
    """What the argument ``noise`` of a fit stands for: log V, or None without noise.

    Args:
      noise: None, "box" for the samples' bounding box, or a volume in the units of the samples.

    Raises:
      DataError: something else; a volume that is not positive; or a box without one.
    """
    if noise is None:
        return None
    if isinstance(noise, str):
        if noise != "box":
            raise DataError(f'noise must be None, "box" or a volume, not {noise!r}.')
        found = _log_box(samples)
        if not is_traced(found) and not bool(jnp.isfinite(found)):
            raise DataError(
                "the samples' bounding box has no volume: a column is constant. Drop it, or give "
                "a volume."
            )
        return found
    if not is_traced(noise) and not (np.ndim(noise) == 0 and 0 < noise < np.inf):
        raise DataError(f"the volume of the noise must be a positive number; it is {noise!r}.")
    return jnp.log(jnp.asarray(noise, samples.x.dtype))


@jit
def _log_box(samples: Samples) -> Array:
    """Σ_d log(max − min) of the samples that count."""
    x, weights = samples.x, samples.weights
    counts = jnp.full(x.shape, True) if weights is None else (weights > 0)[:, None] & (x == x)
    highest = jnp.where(counts, x, -jnp.inf).max(axis=0)
    lowest = jnp.where(counts, x, jnp.inf).min(axis=0)
    return jnp.log(highest - lowest).sum()


def at_start(log_volume: Array, frame: Standardization, n_restarts: int) -> Noise:
    """The noise R runs start with, in their frame, leading axis."""
    first = jnp.full(n_restarts, np.log(FIRST_WEIGHT), log_volume.dtype)
    return Noise(first, jnp.full_like(first, log_volume - frame.log_volume()))


def log_prob(mixture: Mixture, noise: Noise, x: Any) -> Float[Array, "N"]:
    """Log density of samples under Gaussians and noise together, in nats.

    Args:
      mixture, noise: as a fit with noise returns them.
      x: samples in rows, (N, D).

    Raises:
      DataError: see ``as_samples``; or another number of columns than the mixture's.
    """
    return noise.density().mix_in(density_log_prob(mixture, x))[0]


def probability(mixture: Mixture, noise: Noise, x: Any) -> Float[Array, "N"]:
    """The probability that each sample is noise, ``p(z = 0 | x)``.

    The responsibilities of the Gaussians are those of the mixture times one minus it.

    >>> import jgmm
    >>> one = jgmm.make_mixture([1.0], [[0.0]], [1.0], "spherical")
    >>> noise = Noise(jnp.log(0.1), jnp.log(100.0))
    >>> jgmm.mixture.noise.probability(one, noise, [[0.0], [10.0]]).round(2)
    Array([0., 1.], dtype=float32)
    """
    return 1 - noise.density().mix_in(density_log_prob(mixture, x))[1]


def predict(mixture: Mixture, noise: Noise, x: Any) -> Int[Array, "N"]:
    """The most probable component of each sample, -1 for noise."""
    expectation = e_step(mixture, x)
    _, rest = noise.density().mix_in(expectation.log_prob)
    best = jnp.exp(expectation.log_resp).max(axis=1) * rest
    labels = jnp.argmax(expectation.log_resp, axis=1)
    return jnp.where(1 - rest > best, -1, labels)
