"""The axes that several scatter matrices come nearest to sharing, by Jacobi rotations.

For an orthogonal D let Fₖd = (Dᵀ Sₖ D)_dd be the spread of component k along axis d, and J(F) what
is to be minimised: minus twice a log-likelihood, maximised over the variances along the axes. As
the least of functions that are linear in F it is concave, so it lies below its tangent

    J(F') ≤ J(F) + Σₖd ωₖd (F'ₖd − Fₖd),    ω = ∂J/∂F = 1 / variance along the axis

and lowering the tangent lowers J. A rotation in the plane of two axes changes two spreads only, and
the best angle for the tangent is a formula, for all disjoint pairs of axes at a time. That makes
one round; D - 1 rounds, or D where D is odd, let every pair meet once and make a sweep.

What is rotated is not the scatter but square roots of it, Sₖ = Cₖ Cₖᵀ: the axes of small spread,
whose variances weigh most, so keep twice the digits.

The tangent is the idea of Browne & McNicholas (2014), who follow it by singular value
decompositions; the rotations are those of Flury & Gautschi (1986).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Weigh = Callable[[Array], Array]

# Sweeps end when all rotations that are left would together gain fewer nats a sample than this:
# far less than EM calls converged, and more than rounding.
GAIN = {"float32": 1e-6, "float64": 1e-12}
MANY_SWEEPS = 100
# The first sweep finds nine tenths of what there is to gain, and the last hundredth may take fifty.
# Within EM, whose next step goes on from there, that hundredth is not worth its time.
FEW_SWEEPS = 3


class Axes(NamedTuple):
    """Axes in the rows of Dᵀ (D, D), and square roots of the scatter seen from them, Dᵀ Cₖ."""

    axes: Float[Array, "D D"]
    roots: Float[Array, "K D D"]

    @property
    def spread(self) -> Float[Array, "K D"]:
        """F."""
        return (self.roots**2).sum(axis=2)


def find_axes(
    roots: Float[Array, "K D D"],
    total: Float[Array, ""],
    weigh: Weigh,
    start: Float[Array, "D D"],
    most: int,
) -> Axes:
    """Rotate from given axes towards axes that no rotation of two of them improves.

    Args:
      roots: Cₖ, any square roots of the scatter.
      total: how many samples they are of, which says what is little.
      weigh: ``spreads F (K, D) -> weights ω (K, D)``; of two axes the one with more spread must not
        weigh more.
      start: orthogonal, axes in rows; J never rises above what it is there.
      most: sweeps at most.

    Returns:
      The axes, in no order. NaN in the scatter makes them NaN and ends the search.
    """
    gain = GAIN[str(roots.dtype)] * total

    def going_on(carry: tuple[Axes, Array]) -> Array:
        found, step = carry
        return (_gain(found, weigh) > gain) & (step < most)

    def again(carry: tuple[Axes, Array]) -> tuple[Axes, Array]:
        found, step = carry
        return _sweep(found, weigh), step + 1

    begun = Axes(start, jnp.einsum("de,kef->kdf", start, roots, precision="highest"))
    return lax.while_loop(going_on, again, (begun, jnp.asarray(0)))[0]


def axes_of(scale: Float[Array, "K D D"]) -> Float[Array, "D D"]:
    """The axes, in rows, that covariances are known to have in common, from their factors.

    Eigenvectors of a sum with unequal coefficients: axes of equal length in the sum have it in
    every term, where they may be turned, or meet by accident, which rotations then mend.
    """
    k = scale.shape[0]
    size = jnp.sqrt((scale**2).sum(axis=(1, 2)))
    even = scale / size[:, None, None]
    unequal = 1 + jnp.arange(k, dtype=scale.dtype) / k
    start = jnp.linalg.eigh(jnp.einsum("k,kde,kfe->df", unequal, even, even))[1].T
    total = jnp.asarray(k, scale.dtype)
    return find_axes(even, total, lambda spread: 1 / spread, start, FEW_SWEEPS).axes


def square_root(scatter: Float[Array, "K D D"]) -> Float[Array, "K D D"]:
    """Cₖ with Cₖ Cₖᵀ = Sₖ, also where Sₖ is singular or zero.

    By eigenvectors in units that make the diagonal one, so that columns of small variance keep
    their digits.
    """
    deviation = jnp.sqrt(jnp.maximum(jnp.diagonal(scatter, axis1=1, axis2=2), 0))
    unit = jnp.where(deviation > 0, deviation, 1)
    values, vectors = jnp.linalg.eigh(scatter / (unit[:, :, None] * unit[:, None, :]))
    return unit[:, :, None] * vectors * jnp.sqrt(jnp.maximum(values, 0))[:, None, :]


def _sweep(found: Axes, weigh: Weigh) -> Axes:
    """Every pair of axes rotated once, and all axes back in their places."""
    d = found.axes.shape[0]
    n_rounds = d if d % 2 else d - 1
    return lax.fori_loop(0, n_rounds, lambda _, found: _round(found, weigh), found)


def _round(found: Axes, weigh: Weigh) -> Axes:
    """Rotate axis d with axis D - 1 - d, for all d; then let other axes meet."""
    spread, cross = _positive(found.spread), (found.roots * jnp.flip(found.roots, 1)).sum(axis=2)
    weights = weigh(spread)
    slope = weights - jnp.flip(weights, 1)
    # Along an angle θ the tangent is a constant plus α cos 2θ + β sin 2θ, and α ≤ 0.
    alpha = 0.5 * (slope * (spread - jnp.flip(spread, 1))).sum(axis=0)
    beta = (slope * cross).sum(axis=0)
    radius = jnp.hypot(alpha, beta)
    moves = radius > 0
    radius = jnp.where(moves, radius, 1)
    cosine = jnp.sqrt(0.5 * (1 + jnp.where(moves, -alpha / radius, 1)))
    sine = jnp.where(moves, -beta / radius, 0) / (2 * cosine)

    def rows(x: Array) -> Array:
        return _other_pairs(cosine[None, :, None] * x + sine[None, :, None] * jnp.flip(x, 1))

    return Axes(rows(found.axes[None])[0], rows(found.roots))


def _other_pairs(x: Float[Array, "K D E"]) -> Float[Array, "K D E"]:
    """Rows as they sit in the next round: all move up by one, the first stays if D is even."""
    if x.shape[1] % 2:
        return jnp.roll(x, 1, axis=1)
    return jnp.concatenate([x[:, :1], jnp.roll(x[:, 1:], 1, axis=1)], axis=1)


def _gain(found: Axes, weigh: Weigh) -> Float[Array, ""]:
    """By how much the best rotation of each pair of axes would lower the tangent, summed up."""
    spread, cross = _positive(found.spread), found.roots @ found.roots.mT
    weights = weigh(spread)
    slope = weights[:, :, None] - weights[:, None, :]
    alpha = 0.5 * (slope * (spread[:, :, None] - spread[:, None, :])).sum(axis=0)
    beta = (slope * cross).sum(axis=0)
    reach = jnp.hypot(alpha, beta) - alpha
    # The sum meets each pair twice, and J counts nats twice: a quarter of it is in nats.
    return 0.25 * jnp.where(reach > 0, beta**2 / jnp.where(reach > 0, reach, 1), 0).sum()


def _positive(spread: Float[Array, "K D"]) -> Float[Array, "K D"]:
    """F, positive also where rounding is all there is of it, or where there is nothing at all."""
    mean = spread.mean(axis=1, keepdims=True)
    least = jnp.finfo(spread.dtype).eps ** 2 * mean
    return jnp.where(mean > 0, jnp.maximum(spread, least), 1)
