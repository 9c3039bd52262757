"""Uniform noise component, for samples that belong to none of the Gaussians.

    p(x) = π₀ / V + (1 − π₀) Σₖ πₖ N(x | μₖ, Σₖ)

V is the volume of a region that holds the samples: their bounding box, or a volume that is given.
The density of the noise is 1 / V everywhere, also outside the region, where it is improper. The
weights πₖ of the ``Mixture`` are those among samples that are not noise, and sum to one: the
mixture is the distribution of samples without the noise.

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
from jgmm._core.errors import DataError, shown
from jgmm._core.pytree import Leaf, is_traced
from jgmm._data.samples import Samples, Standardization
from jgmm.mixture.density import e_step
from jgmm.mixture.density import log_prob as density_log_prob
from jgmm.mixture.mixture import Mixture

# Weight π₀ of the noise at the start of a fit.
FIRST_WEIGHT = 0.05


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Noise:
    """Uniform noise component. Both attributes are leaves.

    Attributes:
      log_weight: log π₀, ().
      log_volume: log V, ().
    """

    log_weight: Leaf
    log_volume: Leaf

    @property
    def weight(self) -> Array:
        """Weight of the noise, π₀: the proportion of samples that are noise."""
        return jnp.exp(self.log_weight)

    def update(self, counts: Float[Array, "K"], total: Float[Array, ""]) -> Noise:
        """M-step of the noise: π₀ = max(0, 1 − Σₖ Nₖ / N).

        Args:
          counts: expected number of samples of each component, Nₖ, without the noise.
          total: N, the total weight of the samples.
        """
        share = jnp.clip(1 - counts.sum() / total, 0)
        return Noise(jnp.log(share), self.log_volume)

    def rescaled(self, log_factor: Array) -> Noise:
        """Return the noise in units in which volumes are ``exp(log_factor)`` times as large."""
        return Noise(self.log_weight, self.log_volume + log_factor)

    def density(self) -> NoiseDensity:
        """Return the terms of the noise in the E-step."""
        return NoiseDensity(self.log_weight - self.log_volume, jnp.log1p(-jnp.exp(self.log_weight)))


class NoiseDensity(NamedTuple):
    """Terms of the noise in the density of a sample.

    Attributes:
      log_density: log(π₀ / V), ().
      log_rest: log(1 − π₀), ().
    """

    log_density: Array
    log_rest: Array

    def mix_in(
        self, log_prob: Float[Array, "B"], known: Array | None = None
    ) -> tuple[Float[Array, "B"], Float[Array, "B"]]:
        """Add the noise to the density of samples.

        Args:
          log_prob: log density of the samples under the Gaussians alone, (B,).
          known: true for samples whose component is known, and which therefore are not noise, (B,);
            or None.

        Returns:
          Log density of the samples with noise, (B,), and the probability that each is not noise,
          (B,).
        """
        rest = log_prob + self.log_rest
        density = jnp.broadcast_to(self.log_density, rest.shape)
        if known is not None:
            density = jnp.where(known, -jnp.inf, density)
        log_prob = jnp.logaddexp(rest, density)
        return log_prob, jnp.exp(rest - log_prob)


def as_log_volume(noise: Any, samples: Samples) -> Array | None:
    """Convert the argument ``noise`` of a fit to the log volume log V; None stays None.

    Args:
      noise: None, "box" for the samples' bounding box, or a volume in the units of the samples.
      samples: the samples.

    Raises:
      DataError: the argument is something else, the volume is not positive, or the bounding box has
        no volume.
    """
    if noise is None:
        return None
    if isinstance(noise, bool | np.bool_):
        raise DataError(
            f'noise={noise} does not say how large the region of the noise is: noise="box" is the '
            "samples' bounding box; or give a volume. None, the default, is no noise."
        )
    if isinstance(noise, str):
        if noise != "box":
            raise DataError(f'noise must be None, "box" or a volume, not {shown(noise)}.')
        found = _log_box(samples)
        if not is_traced(found) and not bool(jnp.isfinite(found)):
            raise DataError(
                "the samples' bounding box has no volume: a column is constant. Drop it, or give "
                "a volume."
            )
        return found
    if not is_traced(noise) and not (np.ndim(noise) == 0 and 0 < noise < np.inf):
        raise DataError(f"the volume of the noise must be a positive number; it is {shown(noise)}.")
    if is_traced(noise):
        return jnp.log(jnp.asarray(noise, samples.x.dtype))
    return jnp.asarray(np.log(np.float64(noise)), samples.x.dtype)  # a volume may be tiny or huge


@jit
def _log_box(samples: Samples) -> Array:
    """Log volume of the bounding box of samples of positive weight, Σ_d log(max_d − min_d)."""
    x, weights = samples.x, samples.weights
    counts = jnp.full(x.shape, True) if weights is None else (weights > 0)[:, None] & (x == x)
    highest = jnp.where(counts, x, -jnp.inf).max(axis=0)
    lowest = jnp.where(counts, x, jnp.inf).min(axis=0)
    return jnp.log(highest - lowest).sum()


def initial_noise(log_volume: Array, frame: Standardization, n_restarts: int) -> Noise:
    """Return the noise with which R restarts begin, in standardized units, leading axis R."""
    first = jnp.full(n_restarts, np.log(FIRST_WEIGHT), log_volume.dtype)
    return Noise(first, jnp.full_like(first, log_volume - frame.log_volume()))


def log_prob(mixture: Mixture, noise: Noise, x: Any) -> Float[Array, "N"]:
    """Log density of samples under Gaussians and noise together, in nats.

    Args:
      mixture, noise: as a fit with noise returns them.
      x: samples in rows, (N, D).

    Raises:
      DataError: see ``as_samples``; or x has another number of columns than the mixture.

    >>> import jgmm
    >>> one = jgmm.make_mixture([1.0], [[0.0]], [1.0], "spherical")
    >>> noise = Noise(jnp.log(0.1), jnp.log(100.0))
    >>> jgmm.mixture.noise.log_prob(one, noise, [[0.0], [50.0]]).round(2)
    Array([-1.02, -6.91], dtype=float32)
    """
    return noise.density().mix_in(density_log_prob(mixture, x))[0]


def probability(mixture: Mixture, noise: Noise, x: Any) -> Float[Array, "N"]:
    """Posterior probability that each sample is noise, ``p(z = 0 | x)``, (N,).

    The responsibilities of the Gaussians are those of the mixture, ``jgmm.responsibilities``,
    multiplied by one minus this probability. Arguments and errors as for ``log_prob``.

    >>> import jgmm
    >>> one = jgmm.make_mixture([1.0], [[0.0]], [1.0], "spherical")
    >>> noise = Noise(jnp.log(0.1), jnp.log(100.0))
    >>> jgmm.mixture.noise.probability(one, noise, [[0.0], [10.0]]).round(2)
    Array([0., 1.], dtype=float32)
    """
    return 1 - noise.density().mix_in(density_log_prob(mixture, x))[1]


def predict(mixture: Mixture, noise: Noise, x: Any) -> Int[Array, "N"]:
    """Predict the most probable component of each sample, -1 for noise.

    Args:
      mixture, noise: as a fit with noise returns them.
      x: samples in rows, (N, D).

    Returns:
      Labels from -1 to K - 1, (N,).

    Raises:
      DataError: see ``as_samples``; or x has another number of columns than the mixture.

    >>> import jgmm
    >>> one = jgmm.make_mixture([1.0], [[0.0]], [1.0], "spherical")
    >>> noise = Noise(jnp.log(0.1), jnp.log(100.0))
    >>> jgmm.mixture.noise.predict(one, noise, [[0.0], [10.0]]).tolist()
    [0, -1]
    """
    expectation = e_step(mixture, x)
    _, rest = noise.density().mix_in(expectation.log_prob)
    best = jnp.exp(expectation.log_resp).max(axis=1) * rest
    labels = jnp.argmax(expectation.log_resp, axis=1)
    return jnp.where(1 - rest > best, -1, labels)
