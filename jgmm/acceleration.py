"""EM in fewer steps: extrapolation from those it has taken, and never below where it stands.

Near its end EM converges linearly, by a factor that is close to one where components overlap. From
a few of its steps one can tell where they lead to. A *scheme* does that; ``Accelerated`` puts it
around EM as a ``lanes.Method``. Every step is one pass over the samples: of a point that a scheme
proposes, or of the point EM itself leads to. A proposal counts only where the log-likelihood is not
lower there; otherwise the next point is the one EM leads to from the last that counted.

Points are seen in coordinates of the storage (``unconstrained.coordinates``), and a proposal is
brought back to the covariance model by its own estimate; so every model can be accelerated.

References: Varadhan & Roland (2008), SQUAREM; Henderson & Varadhan (2019), DAAREM; Walker & Ni
(2011), Anderson acceleration; Jamshidian & Jennrich (1997), for its metric.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from jgmm.decomposition import trailing
from jgmm.degeneracy import end_in_spike
from jgmm.lanes import Method
from jgmm.mixture import Mixture
from jgmm.natural import Digits
from jgmm.samples import Leaf, Samples
from jgmm.statistics import Statistics, expected_log_likelihood
from jgmm.status import DataError, Status, among
from jgmm.unconstrained import Free, coordinates, from_free


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Seen:
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
class Steps:
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

    last: Seen
    moves: Leaf
    steps: Leaf
    gradients: Leaf
    responses: Leaf
    n_points: Leaf
    n_seen: Leaf
    caution: Leaf
    response: Leaf
    limited: Leaf


def _empty(vector: Float[Array, "P"], size: int, caution: float) -> Steps:
    none = jnp.zeros_like(vector)
    empty = jnp.zeros((size, *vector.shape), vector.dtype)
    wary = jnp.asarray(caution, vector.dtype)
    nothing = Seen(none, none, none)
    return Steps(
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


def _with(memory: Steps, seen: Seen) -> Steps:
    """The memory after one point more; the oldest move makes room."""
    has_move, last = memory.n_points > 0, memory.last
    place = (memory.n_points - 1) % len(memory.moves)

    def enter(rows: Array, row: Array) -> Array:
        return rows.at[place].set(jnp.where(has_move, row, rows[place]))

    return replace(
        memory,
        last=seen,
        moves=enter(memory.moves, seen.point - last.point),
        steps=enter(memory.steps, seen.step - last.step),
        gradients=enter(memory.gradients, seen.gradient - last.gradient),
        responses=enter(memory.responses, memory.response),
        n_points=memory.n_points + 1,
        n_seen=memory.n_seen + 1,
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

    def begin(self, vector: Float[Array, "P"]) -> Steps:
        """The memory of a run that has not begun."""

    def learn(self, memory: Steps, seen: Seen, proposed: Bool[Array, ""]) -> Steps:
        """The memory after a point that counts; ``proposed`` says whether the scheme chose it."""

    def forget(self, memory: Steps) -> Steps:
        """The memory after a proposal that did not count."""

    def propose(self, memory: Steps) -> Proposal:
        """Where to go from the last point that counted."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Lane:
    """One accelerated run; the first six are those of ``em.Lane``.

    Attributes:
      mixture: the point the next E-step is of.
      log_likelihood: of ``reached``.
      n_steps, status, collapsed, exact: as there.
      proposed: the point is a scheme's.
      reached: the last point that counted.
      image: where EM leads to from there.
      memory: the scheme's.
    """

    mixture: Mixture
    log_likelihood: Leaf
    n_steps: Leaf
    status: Leaf
    collapsed: Leaf
    exact: Leaf
    proposed: Leaf
    reached: Mixture
    image: Mixture
    memory: Any


@dataclass(frozen=True)
class Accelerated:
    """EM with a scheme around it, as a ``lanes.Method``.

    ``n_steps`` counts passes over the samples, those of proposals that came to nothing among them,
    as EM's does; ``history`` holds the log-likelihood of the last point that counted.
    """

    em: Any
    scheme: Scheme

    @property
    def max_steps(self) -> int:
        """Passes over the samples at most, but for the first."""
        return int(self.em.max_steps)

    def scout(self) -> Accelerated:
        """The same around EM that takes no differences where rough products find the way."""
        return replace(self, em=self.em.scout())

    def begin(self, start: Mixture) -> Lane:
        """The lane before its first step."""
        first = self.em.begin(start)
        here = first.mixture
        memory = self.scheme.begin(ravel_pytree(coordinates(here))[0])
        return Lane(
            here,
            first.log_likelihood,
            first.n_steps,
            first.status,
            first.collapsed,
            first.exact,
            jnp.asarray(False),
            here,
            here,
            memory,
        )

    def step(self, lanes: Lane, samples: Samples, control: Any) -> Lane:
        """One E-step of every lane, and where to go from there."""
        statistics, digits = self.em.expect(lanes, samples)

        def one(lane: Lane, sums: Statistics, digits: Digits) -> Lane:
            return self._step(lane, sums, digits, samples, control)

        return jax.vmap(one)(lanes, statistics, digits)

    def _step(
        self, lane: Lane, statistics: Statistics, digits: Digits, samples: Samples, control: Any
    ) -> Lane:
        found = self.em.judge(lane, statistics, digits, samples, control)
        counts = ~lane.proposed | (
            (statistics.log_likelihood >= lane.log_likelihood) & ~found.broken.any()
        )
        # Nothing ends at a proposal: that EM's own step gains no more than the tolerance is what
        # its end means, and a collapse may be the scheme's doing.
        fell_short = lane.proposed & among(found.status, _ENDS)
        otherwise = jnp.where(found.spent, int(Status.STEPS_RAN_OUT), int(Status.RUNNING))
        status = jnp.where(fell_short, otherwise, found.status)
        reached = _choose(counts, lane.mixture, lane.reached)
        status, which = end_in_spike(status, found.broken, reached, samples.total_weight())
        again = found.again & ~lane.proposed
        going_on = (status == Status.RUNNING) & ~found.spent & ~again
        image = _choose(counts, found.updated, lane.image)
        seen = _see(lane.mixture, found.updated, statistics, samples.total_weight())
        learned = self.scheme.learn(lane.memory, seen, lane.proposed)
        memory = _choose(counts, learned, self.scheme.forget(lane.memory))
        plan = self.scheme.propose(memory)
        proposal = _of_model(_at(plan.point, reached))
        going_there = plan.is_sensible & counts & ~fell_short & _is_finite(proposal)
        memory = replace(
            memory,
            response=jnp.where(going_there, plan.response, memory.last.gradient),
            limited=plan.limited & going_there,
        )
        moved = Lane(
            _choose(going_there, proposal, image),
            jnp.where(counts, statistics.log_likelihood, lane.log_likelihood),
            lane.n_steps + 1,
            status,
            jnp.asarray(-1),
            jnp.where(counts, lane.exact | found.insist, lane.exact),
            going_there,
            reached,
            image,
            memory,
        )
        # At the end, or where a step has yet to be confirmed, the lane stays where it is.
        confirming = (status == Status.RUNNING) & (found.spent | again)
        stayed = replace(
            lane,
            mixture=_choose(confirming, lane.mixture, reached),
            log_likelihood=jnp.where(again, lane.log_likelihood, moved.log_likelihood),
            status=status,
            collapsed=which,
            exact=lane.exact | found.insist,
        )
        ended = lane.status != Status.RUNNING
        return _choose(ended, lane, _choose(going_on, moved, stayed))


# What a proposal cannot be the end of a run by.
_ENDS = (Status.CONVERGED, Status.COLLAPSED, Status.NON_FINITE_PARAMETERS)

Tree = TypeVar("Tree")


def _choose(first: Bool[Array, ""], one: Tree, other: Tree) -> Tree:
    return jax.tree.map(lambda a, b: jnp.where(first, a, b), one, other)


def _is_finite(mixture: Mixture) -> Bool[Array, ""]:
    return jnp.isfinite(mixture.means).all() & jnp.isfinite(mixture.scale).all()


def _see(mixture: Mixture, updated: Mixture, statistics: Statistics, total: Array) -> Seen:
    """A point, EM's step, and by Fisher's identity the gradient, from one E-step's statistics."""
    here = _vector(mixture)

    def complete(vector: Array) -> Array:
        return expected_log_likelihood(_at(vector, mixture), statistics) / total

    return Seen(here, _vector(updated) - here, jax.grad(complete)(here))


def _vector(mixture: Mixture) -> Float[Array, "P"]:
    """The coordinates as one vector; where a component is switched off, zero for its weight."""
    free = coordinates(mixture)
    logits = jnp.where(free.logits == -jnp.inf, 0, free.logits)
    return ravel_pytree(replace(free, logits=logits))[0]


def _at(vector: Float[Array, "P"], like: Mixture) -> Mixture:
    """The mixture at a point, whether or not its covariances have the form of the model."""
    free: Free = ravel_pytree(coordinates(like))[1](vector)
    logits = jnp.where(like.log_weights == -jnp.inf, -jnp.inf, free.logits)
    return from_free(replace(free, logits=logits), like.covariance)


def _of_model(mixture: Mixture) -> Mixture:
    """The mixture with the covariances that the model estimates from samples with those given."""
    entry, weights = mixture.model, mixture.weights
    if entry.fills_storage(mixture.n_components, mixture.n_features):
        return mixture
    scatter = trailing(weights, mixture.scale) * entry.storage.square(mixture.scale)
    return replace(mixture, scale=entry.estimate(weights, scatter, mixture.scale))


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
    bolder: float = 2.0
    warier: float = 16.0
    least: float = 1e-6
    slow: float = 0.7

    def begin(self, vector: Float[Array, "P"]) -> Steps:
        """An empty memory."""
        return _empty(vector, self.size, self.start)

    def learn(self, memory: Steps, seen: Seen, proposed: Bool[Array, ""]) -> Steps:
        """One move more, and less caution after a proposal."""
        bold = jnp.maximum(memory.caution / self.bolder, self.least)
        caution = jnp.where(proposed, bold, memory.caution)
        return replace(_with(memory, seen), caution=caution)

    def forget(self, memory: Steps) -> Steps:
        """The last point only, and more caution."""
        nothing = jnp.zeros_like(memory.moves)
        return replace(
            memory,
            moves=nothing,
            steps=nothing,
            gradients=nothing,
            responses=nothing,
            n_points=jnp.asarray(1),
            caution=jnp.minimum(memory.caution * self.warier, 1),
        )

    def propose(self, memory: Steps) -> Proposal:
        """The point extrapolated to from two moves or more, if that is uphill and EM is slow."""
        last = memory.last
        information = _symmetric(memory.moves @ memory.responses.T)
        curvature = _symmetric(-memory.moves @ memory.gradients.T)
        shares = _newton(information, curvature, memory.moves @ last.gradient, memory.caution)
        move = last.step + shares @ (memory.moves + memory.steps)
        response = last.gradient + shares @ (memory.responses + memory.gradients)
        newest = (memory.n_points - 2) % self.size
        slow = curvature[newest, newest] < self.slow * information[newest, newest]
        known = (memory.n_points > 2) & (memory.n_seen > FIRST_STEPS)
        sensible = known & slow & (last.gradient @ move > 0)
        return Proposal(last.point + move, response, jnp.asarray(False), sensible)


# Moves that are nearly in the span of others are left out of it, relative to the others' squares.
DEPENDENT = 1e-8


def _newton(
    information: Float[Array, "M M"],
    curvature: Float[Array, "M M"],
    slope: Float[Array, "M"],
    caution: Float[Array, ""],
) -> Float[Array, "M"]:
    """γ, the share of every move: the curvature's eigenvalues relative to the information."""
    unit = _inverse_root(jnp.diagonal(information), 0)
    size, axes = jnp.linalg.eigh(unit[:, None] * information * unit[None, :])
    basis = unit[:, None] * axes * _inverse_root(size, DEPENDENT * size[-1])[None, :]
    rate, turn = jnp.linalg.eigh(basis.T @ curvature @ basis)
    basis = basis @ turn
    return basis @ (basis.T @ slope / jnp.maximum(jnp.abs(rate), caution))


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

    def begin(self, vector: Float[Array, "P"]) -> Steps:
        """An empty memory."""
        return _empty(vector, 1, self.start)

    def learn(self, memory: Steps, seen: Seen, proposed: Bool[Array, ""]) -> Steps:
        """One point more; a proposal is the first of a new turn."""
        known = _with(memory, seen)
        bold = jnp.where(memory.limited, memory.caution / self.factor, memory.caution)
        return replace(known, n_points=jnp.where(proposed, 1, known.n_points), caution=bold)

    def forget(self, memory: Steps) -> Steps:
        """Nothing: the next point is the first of a new turn, and steps are shorter."""
        caution = jnp.minimum(memory.caution * self.factor, self.start)
        return replace(memory, n_points=jnp.asarray(0), caution=caution)

    def propose(self, memory: Steps) -> Proposal:
        """The point extrapolated to, from every second point."""
        last, first, bend = memory.last, memory.moves[0], memory.steps[0]
        ratio = jnp.linalg.norm(first) / jnp.linalg.norm(bend)
        most = 1 / memory.caution
        length = jnp.clip(jnp.where(ratio > 1, ratio, 1), 1, most)  # 1 for NaN
        point = last.point + (2 * length - 1) * first + length**2 * bend
        ready = (memory.n_points > 1) & (memory.n_seen > FIRST_STEPS)
        return Proposal(point, last.gradient, ratio >= most, ready)


SCHEMES: dict[str, Scheme] = {"squarem": Squarem(), "anderson": Anderson()}


def accelerated(em: Any, scheme: str | None) -> Method:
    """EM, or EM with a scheme around it.

    Args:
      em: an ``em.EM``.
      scheme: a name in ``SCHEMES``, or None for EM as it is.

    Raises:
      DataError: no such scheme; the text lists them and suggests the nearest.
    """
    if scheme is None:
        return em
    if scheme not in SCHEMES:
        near = difflib.get_close_matches(str(scheme), SCHEMES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise DataError(f"unknown acceleration {scheme!r}.{hint} Known: {', '.join(SCHEMES)}.")
    return Accelerated(em, SCHEMES[scheme])
