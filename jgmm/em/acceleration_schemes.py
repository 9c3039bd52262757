"""Acceleration schemes for EM, SQUAREM and Anderson: extrapolation from the last steps.

A scheme is given every accepted point as an ``Iterate``: a vector of coordinates, with EM's step
and the gradient there. It keeps a ``History`` of them and proposes the next point.
``jgmm.em.acceleration`` decides whether a proposal is accepted. To add a scheme, write the four
functions of ``Scheme`` and add it to ``SCHEMES``.

References: Varadhan & Roland (2008), SQUAREM; Henderson & Varadhan (2019), DAAREM; Walker & Ni
(2011), Anderson acceleration; Jamshidian & Jennrich (1997), for its metric.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jgmm._core.pytree import Leaf


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Iterate:
    """Result of an E-step at a point, in coordinates, (P,) each.

    Attributes:
      point: the coordinates θ of the point.
      step: EM's step f from there, the difference of its M-step from θ.
      gradient: gradient g of the mean log-likelihood per sample.
    """

    point: Leaf
    step: Leaf
    gradient: Leaf


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class History:
    """History of a scheme: the accepted points, as differences from one to the next.

    The last M moves are kept, each in one row; the newest overwrites the oldest. Unused rows are
    zero.

    Attributes:
      last: the last accepted point.
      moves, steps, gradients: differences of ``point``, ``step`` and ``gradient`` of the
        ``Iterate`` from one accepted point to the next, (M, P).
      responses: I_c Δθ of each move, with I_c the information of the complete data, (M, P).
      n_points: number of accepted points since the last reset, ().
      n_accepted: number of accepted points since the run began, ().
      damping: limits how far a scheme extrapolates, see the schemes, ().
      response: I_c Δθ of the move to the next point, whose E-step is not yet done, (P,).
      limited: whether the damping has shortened that move, ().
    """

    last: Iterate
    moves: Leaf
    steps: Leaf
    gradients: Leaf
    responses: Leaf
    n_points: Leaf
    n_accepted: Leaf
    damping: Leaf
    response: Leaf
    limited: Leaf


def _empty(vector: Float[Array, "P"], size: int, damping: float) -> History:
    """Return a history without points, for M = ``size`` moves of vectors like the given one."""
    zeros = jnp.zeros_like(vector)
    no_moves = jnp.zeros((size, *vector.shape), vector.dtype)
    return History(
        last=Iterate(zeros, zeros, zeros),
        moves=no_moves,
        steps=no_moves,
        gradients=no_moves,
        responses=no_moves,
        n_points=jnp.asarray(0),
        n_accepted=jnp.asarray(0),
        damping=jnp.asarray(damping, vector.dtype),
        response=zeros,
        limited=jnp.asarray(False),
    )


def _append(history: History, iterate: Iterate) -> History:
    """Return the history with one more accepted point; the newest move overwrites the oldest."""
    has_move, last = history.n_points > 0, history.last
    row = (history.n_points - 1) % len(history.moves)

    def write(rows: Array, difference: Array) -> Array:
        return rows.at[row].set(jnp.where(has_move, difference, rows[row]))

    return replace(
        history,
        last=iterate,
        moves=write(history.moves, iterate.point - last.point),
        steps=write(history.steps, iterate.step - last.step),
        gradients=write(history.gradients, iterate.gradient - last.gradient),
        responses=write(history.responses, history.response),
        n_points=history.n_points + 1,
        n_accepted=history.n_accepted + 1,
    )


class Proposal(NamedTuple):
    """The next point that a scheme proposes.

    Attributes:
      point: in coordinates, (P,).
      response: I_c Δθ of the move there, (P,).
      limited: whether the damping has shortened the move, ().
      is_sensible: whether to go there at all; if not, EM's own step is taken, ().
    """

    point: Array
    response: Array
    limited: Array
    is_sensible: Array


@runtime_checkable
class Scheme(Protocol):
    """Extrapolation scheme; an instance is static and hashable."""

    def init(self, vector: Float[Array, "P"]) -> History:
        """Return the history of a run before its first point; ``vector`` is like a point."""

    def update(self, history: History, iterate: Iterate, proposed: Bool[Array, ""]) -> History:
        """Return the history after an accepted point; ``proposed``: whether the scheme chose it."""

    def reset(self, history: History) -> History:
        """Return the history after a proposal that was rejected."""

    def propose(self, history: History) -> Proposal:
        """Propose the next point, from the last accepted point and the moves before it."""


# Number of accepted points before the first proposal. The first steps of EM determine to which
# optimum a run converges, so they are not extrapolated. With ten of them, 5 of 42 runs converged to
# another optimum than EM's own (experiments.optimisers).
FIRST_STEPS = 20


@dataclass(frozen=True)
class Anderson:
    """Anderson acceleration in EM's own metric, damped and restarted.

    With the differences ΔX of points, ΔF of EM's steps f and ΔG of gradients g over the last moves,

        θ' = θ + f + (ΔX + ΔF) γ,    γ = A⁻¹ ΔXᵀ g,    A = −ΔXᵀ ΔG

    This γ makes the gradient along all the moves zero: it is Newton's method in the span of the
    moves, and EM's step in all other directions (type I of Fang & Saad 2009). In the metric in
    which EM is steepest ascent, the information of the complete data, the eigenvalues of A are at
    most one: one for a direction in which EM needs one step, 1e-3 where it needs a thousand.
    Eigenvalues whose absolute value is below ``damping`` are replaced by it, so that no direction
    is extrapolated more than 1 / damping times. A direction in which the log-likelihood is convex,
    as on a plateau, is followed uphill.

    The usual form, which minimises ‖f + ΔF γ‖ in coordinates, took two to five times as many passes
    on Old Faithful, and nearly half of its proposals were rejected.

    Attributes:
      size: M, the number of moves that are kept; more than five saved nothing.
      initial_damping: damping at first; with a damping of one, a proposal is EM's own step.
      decrease: number by which the damping is divided when a proposal is accepted.
      increase: number by which the damping is multiplied when a proposal is rejected; all moves are
        then removed.
      min_damping: smallest damping.
      max_curvature: a point is proposed only if the curvature along the last move, relative to the
        information, is smaller than this: where EM itself is fast, nothing can be gained.
    """

    size: int = 5
    initial_damping: float = 1.0
    decrease: float = 2.0
    increase: float = 16.0
    min_damping: float = 1e-6
    max_curvature: float = 0.7

    def init(self, vector: Float[Array, "P"]) -> History:
        """Return an empty history."""
        return _empty(vector, self.size, self.initial_damping)

    def update(self, history: History, iterate: Iterate, proposed: Bool[Array, ""]) -> History:
        """Add an accepted point, and decrease the damping if the scheme proposed it."""
        decreased = jnp.maximum(history.damping / self.decrease, self.min_damping)
        damping = jnp.where(proposed, decreased, history.damping)
        return replace(_append(history, iterate), damping=damping)

    def reset(self, history: History) -> History:
        """Keep only the last accepted point, and increase the damping."""
        no_moves = jnp.zeros_like(history.moves)
        return replace(
            history,
            moves=no_moves,
            steps=no_moves,
            gradients=no_moves,
            responses=no_moves,
            n_points=jnp.asarray(1),
            damping=jnp.minimum(history.damping * self.increase, 1),
        )

    def propose(self, history: History) -> Proposal:
        """Extrapolate from two or more moves, if that goes uphill and EM is slow."""
        last = history.last
        information = _symmetric(history.moves @ history.responses.T)
        curvature = _symmetric(-history.moves @ history.gradients.T)
        gamma = _newton(information, curvature, history.moves @ last.gradient, history.damping)
        move = last.step + gamma @ (history.moves + history.steps)
        response = last.gradient + gamma @ (history.responses + history.gradients)
        newest = (history.n_points - 2) % self.size
        slow = curvature[newest, newest] < self.max_curvature * information[newest, newest]
        enough = (history.n_points > 2) & (history.n_accepted > FIRST_STEPS)
        sensible = enough & slow & (last.gradient @ move > 0)
        return Proposal(last.point + move, response, jnp.asarray(False), sensible)


# Directions in the span of the moves are left out if their eigenvalue of the information is below
# this fraction of the largest: the moves there depend linearly on each other, up to rounding.
DEPENDENT = 1e-8


def _newton(
    information: Float[Array, "M M"],
    curvature: Float[Array, "M M"],
    slope: Float[Array, "M"],
    damping: Float[Array, ""],
) -> Float[Array, "M"]:
    """Compute the coefficients γ of the moves: a damped Newton step in their span.

    Args:
      information: ΔXᵀ I_c ΔX, the metric in which eigenvalues are computed.
      curvature: A = −ΔXᵀ ΔG.
      slope: ΔXᵀ g.
      damping: smallest absolute value that an eigenvalue of A in this metric may have.
    """
    unit = _inverse_root(jnp.diagonal(information), 0)
    size, axes = jnp.linalg.eigh(unit[:, None] * information * unit[None, :])
    basis = unit[:, None] * axes * _inverse_root(size, DEPENDENT * size[-1])[None, :]
    eigenvalues, rotation = jnp.linalg.eigh(basis.T @ curvature @ basis)
    basis = basis @ rotation
    return basis @ (basis.T @ slope / jnp.maximum(jnp.abs(eigenvalues), damping))


def _symmetric(matrix: Float[Array, "M M"]) -> Float[Array, "M M"]:
    return (matrix + matrix.T) / 2


def _inverse_root(values: Float[Array, "M"], threshold: Any) -> Float[Array, "M"]:
    """Compute 1/√v, and zero where v is at most the threshold."""
    large = values > threshold
    return jnp.where(large, jax.lax.rsqrt(jnp.where(large, values, 1)), 0)


@dataclass(frozen=True)
class Squarem:
    """SQUAREM: a cycle of two EM steps and their extrapolation (Varadhan & Roland 2008, scheme S3).

    With EM's step r from θ, and its next step r + v,

        θ' = θ + 2 a r + a² v,    a = |r| / |v|

    The step length a is kept between one and 1 / damping. This upper limit grows whenever it has
    limited a proposal that is accepted, and shrinks when a proposal is rejected.

    Attributes:
      initial_damping: damping at first, and its largest value.
      factor: number by which the damping is divided or multiplied.
    """

    initial_damping: float = 0.25
    factor: float = 4.0

    def init(self, vector: Float[Array, "P"]) -> History:
        """Return an empty history."""
        return _empty(vector, 1, self.initial_damping)

    def update(self, history: History, iterate: Iterate, proposed: Bool[Array, ""]) -> History:
        """Add an accepted point; one that the scheme proposed is the first of a new cycle."""
        extended = _append(history, iterate)
        damping = jnp.where(history.limited, history.damping / self.factor, history.damping)
        n_points = jnp.where(proposed, 1, extended.n_points)
        return replace(extended, n_points=n_points, damping=damping)

    def reset(self, history: History) -> History:
        """Begin a new cycle with the next point, and increase the damping."""
        damping = jnp.minimum(history.damping * self.factor, self.initial_damping)
        return replace(history, n_points=jnp.asarray(0), damping=damping)

    def propose(self, history: History) -> Proposal:
        """Extrapolate from the last two EM steps, at every second point."""
        last, r, v = history.last, history.moves[0], history.steps[0]
        ratio = jnp.linalg.norm(r) / jnp.linalg.norm(v)
        longest = 1 / history.damping
        length = jnp.clip(jnp.where(ratio > 1, ratio, 1), 1, longest)  # 1 for NaN
        # θ + 2 a r + a² v, from the last point θ + r.
        point = last.point + (2 * length - 1) * r + length**2 * v
        ready = (history.n_points > 1) & (history.n_accepted > FIRST_STEPS)
        return Proposal(point, last.gradient, ratio >= longest, ready)


SCHEMES: dict[str, Scheme] = {"squarem": Squarem(), "anderson": Anderson()}
