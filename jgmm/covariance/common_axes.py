"""Common principal axes of several scatter matrices, found by Jacobi rotations.

For an orthogonal D let Fₖd = (Dᵀ Sₖ D)_dd be the spread of component k along axis d. The function
to minimise is J(F): minus twice a log-likelihood, maximised over the variances along the axes. J is
a minimum of functions that are linear in F, hence concave, so it lies below its tangent

    J(F') ≤ J(F) + Σₖd ωₖd (F'ₖd − Fₖd),    ω = ∂J/∂F = 1 / variance along the axis

and a step that lowers the tangent lowers J. A rotation in the plane of two axes changes their two
spreads only, and a formula gives the angle at which the tangent is lowest. One round rotates
disjoint pairs of axes, all at the same time; after D - 1 rounds, or D if D is odd, every pair has
been rotated once. That is one sweep.

The rotations are applied to square roots of the scatter, Sₖ = Cₖ Cₖᵀ, not to the scatter itself.
The axes of small spread, whose variances have the largest weights ω, then keep twice the digits.

The tangent is the idea of Browne & McNicholas (2014), who minimise it by singular value
decompositions; the rotations are those of Flury & Gautschi (1986).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Weigh = Callable[[Array], Array]

# Sweeps end when all remaining rotations together would raise the log-likelihood by fewer nats per
# sample than this: far less than EM's tolerance, and more than rounding errors.
GAIN = {"float32": 1e-6, "float64": 1e-12}
# Sweeps at most: in a search that must reach the optimum, and in one step of EM. The first sweep
# brings nine tenths of the gain, and the last hundredth of it may take fifty more. Within EM, whose
# next step continues from the axes found, that hundredth is not worth its time.
MANY_SWEEPS = 100
FEW_SWEEPS = 3


class Axes(NamedTuple):
    """Axes, the rows of Dᵀ (D, D), and square roots of the scatter in their coordinates, Dᵀ Cₖ."""

    axes: Float[Array, "D D"]
    roots: Float[Array, "K D D"]

    @property
    def spread(self) -> Float[Array, "K D"]:
        """The spread F of each component along each axis, (K, D)."""
        return (self.roots**2).sum(axis=2)


def find_axes(
    roots: Float[Array, "K D D"],
    total: Float[Array, ""],
    weigh: Weigh,
    start: Float[Array, "D D"],
    max_sweeps: int,
) -> Axes:
    """Find common axes: rotate given axes until no rotation of two of them lowers J.

    Args:
      roots: Cₖ, any square roots of the scatter.
      total: number of samples in the scatter; the tolerance is proportional to it.
      weigh: ``spreads F (K, D) -> weights ω (K, D)``; of two axes the one with more spread must not
        have the larger weight.
      start: the axes to begin with, an orthogonal matrix with axes in rows; J never rises above its
        value there.
      max_sweeps: sweeps at most.

    Returns:
      The axes, in no particular order. NaN in the scatter makes them NaN and ends the search.
    """
    tol = GAIN[str(roots.dtype)] * total

    def unfinished(carry: tuple[Axes, Array]) -> Array:
        current, step = carry
        return (_gain(current, weigh) > tol) & (step < max_sweeps)

    def body(carry: tuple[Axes, Array]) -> tuple[Axes, Array]:
        current, step = carry
        return _sweep(current, weigh), step + 1

    first = Axes(start, jnp.einsum("de,kef->kdf", start, roots, precision="highest"))
    return lax.while_loop(unfinished, body, (first, jnp.asarray(0)))[0]


def axes_of(scale: Float[Array, "K D D"]) -> Float[Array, "D D"]:
    """Recover the axes, in rows, of covariances that are known to have common axes.

    The axes are eigenvectors of a sum of the covariances with unequal coefficients. Two eigenvalues
    of the sum can be equal because they are equal in every term; then any two axes in their plane
    will do. Or they are equal by coincidence; then the rotations that follow find the axes.

    Args:
      scale: Cholesky factors of the covariances.
    """
    k = scale.shape[0]
    size = jnp.sqrt((scale**2).sum(axis=(1, 2)))
    unit = scale / size[:, None, None]
    coefficients = 1 + jnp.arange(k, dtype=scale.dtype) / k
    start = jnp.linalg.eigh(jnp.einsum("k,kde,kfe->df", coefficients, unit, unit))[1].T
    total = jnp.asarray(k, scale.dtype)
    return find_axes(unit, total, lambda spread: 1 / spread, start, FEW_SWEEPS).axes


def square_root(scatter: Float[Array, "K D D"]) -> Float[Array, "K D D"]:
    """Compute square roots Cₖ of scatter matrices, Cₖ Cₖᵀ = Sₖ; they may be singular or zero.

    Eigenvectors are computed in units in which the diagonal is one, so that columns of small
    variance keep their digits.
    """
    deviation = jnp.sqrt(jnp.maximum(jnp.diagonal(scatter, axis1=1, axis2=2), 0))
    unit = jnp.where(deviation > 0, deviation, 1)
    values, vectors = jnp.linalg.eigh(scatter / (unit[:, :, None] * unit[:, None, :]))
    return unit[:, :, None] * vectors * jnp.sqrt(jnp.maximum(values, 0))[:, None, :]


def _sweep(current: Axes, weigh: Weigh) -> Axes:
    """Rotate every pair of axes once; afterwards the rows are in their original order."""
    d = current.axes.shape[0]
    n_rounds = d if d % 2 else d - 1
    return lax.fori_loop(0, n_rounds, lambda _, axes: _round(axes, weigh), current)


def _round(current: Axes, weigh: Weigh) -> Axes:
    """Rotate axis d with axis D - 1 - d, for all d; then reorder the rows into other pairs."""
    spread = _positive(current.spread)
    cross = (current.roots * jnp.flip(current.roots, 1)).sum(axis=2)
    weights = weigh(spread)
    slope = weights - jnp.flip(weights, 1)
    # As a function of the angle θ the tangent is a constant plus α cos 2θ + β sin 2θ, with α ≤ 0.
    alpha = 0.5 * (slope * (spread - jnp.flip(spread, 1))).sum(axis=0)
    beta = (slope * cross).sum(axis=0)
    radius = jnp.hypot(alpha, beta)
    moves = radius > 0
    radius = jnp.where(moves, radius, 1)
    cosine = jnp.sqrt(0.5 * (1 + jnp.where(moves, -alpha / radius, 1)))
    sine = jnp.where(moves, -beta / radius, 0) / (2 * cosine)

    def rotate(x: Array) -> Array:
        return _other_pairs(cosine[None, :, None] * x + sine[None, :, None] * jnp.flip(x, 1))

    return Axes(rotate(current.axes[None])[0], rotate(current.roots))


def _other_pairs(x: Float[Array, "K D E"]) -> Float[Array, "K D E"]:
    """Reorder rows for the next round: shift all by one; if D is even, the first stays."""
    if x.shape[1] % 2:
        return jnp.roll(x, 1, axis=1)
    return jnp.concatenate([x[:, :1], jnp.roll(x[:, 1:], 1, axis=1)], axis=1)


def _gain(current: Axes, weigh: Weigh) -> Float[Array, ""]:
    """Sum, over all pairs of axes, of how far the best rotation lowers the tangent, in nats."""
    spread, cross = _positive(current.spread), current.roots @ current.roots.mT
    weights = weigh(spread)
    slope = weights[:, :, None] - weights[:, None, :]
    alpha = 0.5 * (slope * (spread[:, :, None] - spread[:, None, :])).sum(axis=0)
    beta = (slope * cross).sum(axis=0)
    reach = jnp.hypot(alpha, beta) - alpha
    # The sum counts each pair twice, and J is twice a log-likelihood: a quarter of it is in nats.
    return 0.25 * jnp.where(reach > 0, beta**2 / jnp.where(reach > 0, reach, 1), 0).sum()


def _positive(spread: Float[Array, "K D"]) -> Float[Array, "K D"]:
    """Make spreads positive: those lost to rounding, and those of a component without scatter."""
    mean = spread.mean(axis=1, keepdims=True)
    smallest = jnp.finfo(spread.dtype).eps ** 2 * mean
    return jnp.where(mean > 0, jnp.maximum(spread, smallest), 1)
