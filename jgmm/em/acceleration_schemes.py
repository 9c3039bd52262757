"""Where a run of EM is heading: schemes that extrapolate from the steps it has taken.

A scheme is told of every point that counts, as a vector of coordinates with EM's step and the
gradient there, remembers what it needs as ``Steps``, and proposes where to go. What becomes of its
proposals is ``jgmm.em.acceleration``'s to decide. To add one, write the four functions of
``Scheme`` and list it in ``SCHEMES``.

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
    """What an E-step tells of a point, in coordinates, (P,) each.

    Attributes:
      point: where it is.
      step: how far EM moves from there.
      gradient: of the mean log-likelihood per sample.
    """

    point: Leaf
    step: Leaf
    gradient: Leaf


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class History:
    """The memory of a scheme: points that counted, one after the other, as differences.

    Attributes:
      last: the last of them.
      moves, steps, gradients: differences of ``Seen`` from one point to the next, (M, P); zero
        where there is none.
      responses: I_c Δθ of each move, with I_c the information of the complete data, (M, P).
      n_points: since the memory was last emptied, ().
      n_seen: since the run began, ().
      caution: see the schemes, ().
      response: I_c Δθ of the move that is under way, (P,).
      limited: whether that move is as long as caution lets it be, ().
    """

    last: Iterate
    moves: Leaf
    steps: Leaf
    gradients: Leaf
    responses: Leaf
    n_points: Leaf
    n_seen: Leaf
    damping: Leaf
    response: Leaf
    limited: Leaf


def _empty(vector: Float[Array, "P"], size: int, damping: float) -> History:
    none = jnp.zeros_like(vector)
    empty = jnp.zeros((size, *vector.shape), vector.dtype)
    wary = jnp.asarray(damping, vector.dtype)
    nothing = Iterate(none, none, none)
    return History(
        nothing,
        empty,
        empty,
        empty,
        empty,
        jnp.asarray(0),
        jnp.asarray(0),
        wary,
        none,
        jnp.asarray(False),
    )


def _with(history: History, iterate: Iterate) -> History:
    """The memory after one point more; the oldest move makes room."""
    has_move, last = history.n_points > 0, history.last
    place = (history.n_points - 1) % len(history.moves)

    def enter(rows: Array, row: Array) -> Array:
        return rows.at[place].set(jnp.where(has_move, row, rows[place]))

    return replace(
        history,
        last=iterate,
        moves=enter(history.moves, iterate.point - last.point),
        steps=enter(history.steps, iterate.step - last.step),
        gradients=enter(history.gradients, iterate.gradient - last.gradient),
        responses=enter(history.responses, history.response),
        n_points=history.n_points + 1,
        n_seen=history.n_seen + 1,
    )


class Proposal(NamedTuple):
    """Where a scheme would go.

    Attributes:
      point: in coordinates, (P,).
      response: I_c Δθ of the move there, (P,).
      limited: whether caution has shortened the move, ().
      is_sensible: whether to go there at all, ().
    """

    point: Array
    response: Array
    limited: Array
    is_sensible: Array


@runtime_checkable
class Scheme(Protocol):
    """What extrapolates; static and hashable."""

    def init(self, vector: Float[Array, "P"]) -> History:
        """The memory of a run that has not begun."""

    def update(self, history: History, iterate: Iterate, proposed: Bool[Array, ""]) -> History:
        """The memory after a point that counts; ``proposed`` says whether the scheme chose it."""

    def reset(self, history: History) -> History:
        """The memory after a proposal that did not count."""

    def propose(self, history: History) -> Proposal:
        """Where to go from the last point that counted."""


# EM's first steps, which settle what optimum a run is on its way to, are taken as they are. After
# ten, 5 of 42 runs came down at another optimum than EM's own (experiments.optimisers).
FIRST_STEPS = 20


@dataclass(frozen=True)
class Anderson:
    """Anderson acceleration in EM's own metric, damped and restarted.

    With the differences ΔX of points, ΔF of EM's steps f and ΔG of gradients g over the last moves,

        θ' = θ + f + (ΔX + ΔF) γ,    γ = A⁻¹ ΔXᵀ g,    A = −ΔXᵀ ΔG

    so γ leads to where the gradient along all the moves is zero: Newton's method in their span, and
    EM's step across it (type I of Fang & Saad 2009). In the metric in which EM is steepest ascent,
    that of the information of the complete data, A has eigenvalues of at most one: one for a
    direction in which EM is done in one step, 1e-3 where it takes a thousand. Smaller ones than
    ``caution``, in size, are raised to it, so that no direction is extrapolated more than 1 /
    caution times. A direction in which the log-likelihood is convex, as on a plateau, is followed
    uphill.

    The usual form, which makes ‖f + ΔF γ‖ least in coordinates, took two to five times as many
    passes on Old Faithful, and nearly half of its proposals were refused.

    Attributes:
      size: M, moves remembered; more than five saved nothing.
      start: caution at first, which is that of EM itself.
      bolder: what it is divided by when a proposal counts.
      warier: what it is multiplied by when one does not; the moves are then forgotten.
      least: caution at least.
      slow: proposals are made while the last move had a smaller curvature than this: where EM
        itself is quick there is nothing to gain.
    """

    size: int = 5
    start: float = 1.0
    increase: float = 2.0
    decrease: float = 16.0
    least: float = 1e-6
    slow: float = 0.7

    def init(self, vector: Float[Array, "P"]) -> History:
        """An empty memory."""
        return _empty(vector, self.size, self.start)

    def update(self, history: History, iterate: Iterate, proposed: Bool[Array, ""]) -> History:
        """One move more, and less caution after a proposal."""
        bold = jnp.maximum(history.damping / self.increase, self.least)
        damping = jnp.where(proposed, bold, history.damping)
        return replace(_with(history, iterate), damping=damping)

    def reset(self, history: History) -> History:
        """The last point only, and more caution."""
        nothing = jnp.zeros_like(history.moves)
        return replace(
            history,
            moves=nothing,
            steps=nothing,
            gradients=nothing,
            responses=nothing,
            n_points=jnp.asarray(1),
            damping=jnp.minimum(history.damping * self.decrease, 1),
        )

    def propose(self, history: History) -> Proposal:
        """The point extrapolated to from two moves or more, if that is uphill and EM is slow."""
        last = history.last
        information = _symmetric(history.moves @ history.responses.T)
        curvature = _symmetric(-history.moves @ history.gradients.T)
        shares = _newton(information, curvature, history.moves @ last.gradient, history.damping)
        move = last.step + shares @ (history.moves + history.steps)
        response = last.gradient + shares @ (history.responses + history.gradients)
        newest = (history.n_points - 2) % self.size
        slow = curvature[newest, newest] < self.slow * information[newest, newest]
        known = (history.n_points > 2) & (history.n_seen > FIRST_STEPS)
        sensible = known & slow & (last.gradient @ move > 0)
        return Proposal(last.point + move, response, jnp.asarray(False), sensible)


# Moves that are nearly in the span of others are left out of it, relative to the others' squares.
DEPENDENT = 1e-8


def _newton(
    information: Float[Array, "M M"],
    curvature: Float[Array, "M M"],
    slope: Float[Array, "M"],
    damping: Float[Array, ""],
) -> Float[Array, "M"]:
    """γ, the share of every move: the curvature's eigenvalues relative to the information."""
    unit = _inverse_root(jnp.diagonal(information), 0)
    size, axes = jnp.linalg.eigh(unit[:, None] * information * unit[None, :])
    basis = unit[:, None] * axes * _inverse_root(size, DEPENDENT * size[-1])[None, :]
    rate, turn = jnp.linalg.eigh(basis.T @ curvature @ basis)
    basis = basis @ turn
    return basis @ (basis.T @ slope / jnp.maximum(jnp.abs(rate), damping))


def _symmetric(matrix: Float[Array, "M M"]) -> Float[Array, "M M"]:
    return (matrix + matrix.T) / 2


def _inverse_root(values: Float[Array, "M"], least: Any) -> Float[Array, "M"]:
    """1/√v, and zero where v is no larger than ``least``."""
    large = values > least
    return jnp.where(large, jax.lax.rsqrt(jnp.where(large, values, 1)), 0)


@dataclass(frozen=True)
class Squarem:
    """SQUAREM: two steps of EM, and one that extrapolates both (Varadhan & Roland 2008, scheme S3).

    With EM's steps r from θ and r + v from where that leads,

        θ' = θ + 2 a r + a² v,    a = |r| / |v|

    between one and 1 / caution, which grows whenever it is the limit and the proposal counts, and
    shrinks when none does.

    Attributes:
      start: caution at first, and at most.
      factor: what it is divided or multiplied by.
    """

    start: float = 0.25
    factor: float = 4.0

    def init(self, vector: Float[Array, "P"]) -> History:
        """An empty memory."""
        return _empty(vector, 1, self.start)

    def update(self, history: History, iterate: Iterate, proposed: Bool[Array, ""]) -> History:
        """One point more; a proposal is the first of a new turn."""
        known = _with(history, iterate)
        bold = jnp.where(history.limited, history.damping / self.factor, history.damping)
        return replace(known, n_points=jnp.where(proposed, 1, known.n_points), damping=bold)

    def reset(self, history: History) -> History:
        """Nothing: the next point is the first of a new turn, and steps are shorter."""
        damping = jnp.minimum(history.damping * self.factor, self.start)
        return replace(history, n_points=jnp.asarray(0), damping=damping)

    def propose(self, history: History) -> Proposal:
        """The point extrapolated to, from every second point."""
        last, first, bend = history.last, history.moves[0], history.steps[0]
        ratio = jnp.linalg.norm(first) / jnp.linalg.norm(bend)
        most = 1 / history.damping
        length = jnp.clip(jnp.where(ratio > 1, ratio, 1), 1, most)  # 1 for NaN
        point = last.point + (2 * length - 1) * first + length**2 * bend
        ready = (history.n_points > 1) & (history.n_seen > FIRST_STEPS)
        return Proposal(point, last.gradient, ratio >= most, ready)


SCHEMES: dict[str, Scheme] = {"squarem": Squarem(), "anderson": Anderson()}
