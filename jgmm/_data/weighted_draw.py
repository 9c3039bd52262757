"""Draw samples at random with probabilities in proportion to a mass, such as their weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from jgmm._data.samples import Samples, padded_length

# Samples, or groups of samples, that form one group when a sample is drawn.
GROUP = 128


def relative_weights(samples: Samples) -> Float[Array, "N"]:
    """Divide weights by the largest, so that products with them neither overflow nor vanish."""
    if samples.weights is None:
        # Without the barrier XLA may sum the ones while it compiles, slowly, and complains of it.
        return lax.optimization_barrier(jnp.ones(samples.n_samples, samples.x.dtype))
    return samples.weights / samples.weights.max()


def draw_uniforms(
    key: Key[Array, ""], n_draws: int, n_samples: int, dtype: Any
) -> Float[Array, "n_draws L"]:
    """Draw the random numbers for ``n_draws`` calls of ``draw_row``, L for each.

    Draw i has the same numbers whatever the number of draws, and whether or not the samples have
    been filled up (``padded_rows``): the rows drawn are then the same.
    """
    levels, size = 1, padded_length(n_samples)
    while size > GROUP:
        levels, size = levels + 1, -(-size // GROUP)

    def one(i: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(key, i), (levels,), dtype)

    return jax.vmap(one)(jnp.arange(n_draws))


def draw_row(uniforms: Float[Array, "L"], mass: Float[Array, "N"]) -> Int[Array, ""]:
    """Draw an index with probability ∝ mass ≥ 0; one of mass zero only if all masses are zero.

    The last number draws one of the groups of neighbours by the sum of their masses, and the first
    an index within that group; where there are many groups, they form groups in turn. That takes
    one pass, and the cumulative sums are short, so their rounding errors are small.

    Args:
      uniforms: random numbers between 0 and 1, one for each level of groups, see ``draw_uniforms``.
      mass: relative probabilities.
    """
    if len(uniforms) == 1:
        return _draw(uniforms[0], mass)
    groups = jnp.pad(mass, (0, -len(mass) % GROUP)).reshape(-1, GROUP)
    group = draw_row(uniforms[1:], groups.sum(axis=1))
    return group * GROUP + _draw(uniforms[0], groups[group])


def _draw(uniform: Array, mass: Array) -> Array:
    """Draw an index of a short array of masses."""
    number = jnp.arange(len(mass))
    # Cumulative sums as a matrix product: XLA compiles it in a fraction of the time of ``cumsum``.
    total = (number[:, None] >= number[None, :]).astype(mass.dtype) @ mass
    # By rounding, a cumulative sum may increase at a mass of zero, or stay below the number drawn.
    candidates = (total > uniform * total[-1]) & (mass > 0)
    return jnp.where(candidates.any(), candidates.argmax(), mass.argmax())
