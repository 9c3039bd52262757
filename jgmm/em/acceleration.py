"""Accelerated EM: extrapolation from the last steps, never to a lower log-likelihood.

Near its end EM converges linearly, by a factor that is close to one where components overlap. A few
of its steps show where they lead to. A *scheme* extrapolates them; ``AcceleratedEM`` combines EM
and a scheme to an ``AdditiveAlgorithm``. Every step is one pass over the samples: an E-step at a
point that the scheme proposes, or at the point to which EM leads. A proposal is accepted only if
its log-likelihood is no lower; otherwise the next point is the one to which EM leads from the last
accepted point.

Points are vectors of unconstrained coordinates (``unconstrained.coordinates``). A proposal is
brought back to the covariance model by the model's own estimate; so every model can be accelerated.

References: those of ``jgmm.em.acceleration_schemes``, where the schemes are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

from jgmm._core import pytree
from jgmm._core.errors import DataError, shown, suggest
from jgmm._core.pytree import Leaf
from jgmm._core.status import Status
from jgmm._data.samples import HasTotals, Samples
from jgmm.covariance.estimation import trailing
from jgmm.em import convergence
from jgmm.em.acceleration_schemes import SCHEMES, Iterate, Scheme
from jgmm.em.algorithm import EM, EMState
from jgmm.em.cancellation import Precision
from jgmm.em.statistics import Statistics, expected_log_likelihood
from jgmm.mixture.mixture import Mixture
from jgmm.mixture.prior import Prior, log_density
from jgmm.mixture.unconstrained import Free, coordinates, from_free


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class AcceleratedState(EMState):
    """The state of one accelerated run.

    Attributes:
      mixture: the point of the next E-step, in the frame.
      log_likelihood: of ``accepted``, with the log prior.
      n_steps: passes over the samples.
      status, collapsed, use_exact: as in ``EMState``.
      noise: None, because schemes extrapolate Gaussians only.
      proposed: whether the scheme proposed ``mixture``.
      accepted: the last accepted point.
      accepted_rows: the effective number of rows of its components, (K,).
      image: the point to which EM leads from ``accepted``.
      scheme_state: the state of the scheme.
    """

    proposed: Leaf
    accepted: Mixture
    accepted_rows: Leaf
    image: Mixture
    scheme_state: Any


@dataclass(frozen=True)
class AcceleratedEM:
    """EM with an extrapolation scheme, as an ``AdditiveAlgorithm``.

    ``n_steps`` counts passes over the samples, rejected proposals included, as EM's does.
    ``history`` holds the log-likelihood of the last accepted point.
    """

    em: EM
    scheme: Scheme

    @property
    def max_steps(self) -> int:
        """Maximal number of passes over the samples after the first."""
        return int(self.em.max_steps)

    def approximate(self) -> AcceleratedEM:
        """Return the same with ``EM.approximate``."""
        return replace(self, em=self.em.approximate())

    def init(self, start: Mixture) -> AcceleratedState:
        """Return the state before the first step."""
        first = self.em.init(start)
        point = first.mixture
        scheme_state = self.scheme.init(ravel_pytree(coordinates(point))[0])
        return AcceleratedState(
            point,
            first.log_likelihood,
            first.n_steps,
            first.status,
            first.collapsed,
            first.use_exact,
            proposed=jnp.asarray(False),
            accepted=point,
            accepted_rows=jnp.zeros_like(point.log_weights),
            image=point,
            scheme_state=scheme_state,
        )

    def step(self, states: AcceleratedState, samples: Samples, control: Any) -> AcceleratedState:
        """Take one step of every run: an E-step, and the choice of the next point."""
        return self.update(states, *self.e_step(states, samples), samples, control)

    def e_step(self, states: AcceleratedState, samples: Samples) -> tuple[Statistics, Precision]:
        """Return what ``EM.e_step`` returns at the points of the runs."""
        return self.em.e_step(states, samples)

    def update(
        self,
        states: AcceleratedState,
        statistics: Statistics,
        precision: Precision,
        totals: HasTotals,
        control: Any,
    ) -> AcceleratedState:
        """Do everything after the E-step: M-step, convergence test, proposal, new state."""
        statistics = self.em.add_log_prior(states, statistics, totals, control)

        def one(
            state: AcceleratedState, statistics: Statistics, precision: Precision
        ) -> AcceleratedState:
            return self._step(state, statistics, precision, totals, control)

        stepped = jax.vmap(one)(states, statistics, precision)
        rows = stepped.accepted_rows
        return self.em.mark_degenerate(states.status, stepped, rows, totals, control)

    def _step(
        self,
        state: AcceleratedState,
        statistics: Statistics,
        precision: Precision,
        totals: HasTotals,
        control: Any,
    ) -> AcceleratedState:
        check = self.em.check_step(state, statistics, precision, totals, control)
        accepted_now = ~state.proposed | (
            (statistics.log_likelihood >= state.log_likelihood) & ~check.broken.any()
        )
        status, fell_short = convergence.accelerated_status(
            check.status, state.proposed, check.out_of_steps
        )
        rows = statistics.effective_counts()
        accepted, accepted_rows = pytree.where(
            accepted_now, (state.mixture, rows), (state.accepted, state.accepted_rows)
        )
        total, frame = totals.total_weight(), totals.frame
        retry_exactly = check.retry_exactly & ~state.proposed
        moves = (status == Status.RUNNING) & ~check.out_of_steps & ~retry_exactly
        image = pytree.where(accepted_now, check.updated, state.image)
        iterate = _iterate(state.mixture, check.updated, statistics, total, control.prior_in(frame))
        extended = self.scheme.update(state.scheme_state, iterate, state.proposed)
        scheme_state = pytree.where(accepted_now, extended, self.scheme.reset(state.scheme_state))
        plan = self.scheme.propose(scheme_state)
        proposal = _to_model(_to_mixture(plan.point, accepted), control.floor_in(frame))
        propose = plan.is_sensible & accepted_now & ~fell_short & _is_finite(proposal)
        scheme_state = replace(
            scheme_state,
            response=jnp.where(propose, plan.response, scheme_state.last.gradient),
            limited=plan.limited & propose,
        )
        moved = AcceleratedState(
            pytree.where(propose, proposal, image),
            jnp.where(accepted_now, statistics.log_likelihood, state.log_likelihood),
            state.n_steps + 1,
            status,
            jnp.asarray(-1),
            jnp.where(accepted_now, state.use_exact | check.exact_from_now_on, state.use_exact),
            proposed=propose,
            accepted=accepted,
            accepted_rows=accepted_rows,
            image=image,
            scheme_state=scheme_state,
        )
        # At the end, or where a step has yet to be confirmed, the run stays where it is.
        confirming = (status == Status.RUNNING) & (check.out_of_steps | retry_exactly)
        stayed = replace(
            state,
            mixture=pytree.where(confirming, state.mixture, accepted),
            log_likelihood=jnp.where(retry_exactly, state.log_likelihood, moved.log_likelihood),
            status=status,
            collapsed=jnp.where(status == Status.COLLAPSED, check.collapsed, -1),
            use_exact=state.use_exact | check.exact_from_now_on,
            accepted_rows=accepted_rows,
        )
        ended = state.status != Status.RUNNING
        return pytree.where(ended, state, pytree.where(moves, moved, stayed))


def _is_finite(mixture: Mixture) -> Bool[Array, ""]:
    return jnp.isfinite(mixture.means).all() & jnp.isfinite(mixture.scale).all()


def _iterate(
    mixture: Mixture,
    updated: Mixture,
    statistics: Statistics,
    total: Array,
    prior: Prior | None,
) -> Iterate:
    """Return a point, EM's step there, and the gradient, from the statistics of one E-step.

    By Fisher's identity, the gradient of the log-likelihood is that of the expected complete-data
    log-likelihood.

    Args:
      mixture: the point.
      updated: the mixture after the M-step.
      statistics: of the E-step at ``mixture``.
      total: N, the total weight of the samples.
      prior: in the frame, or None.
    """
    point = _to_vector(mixture)

    def objective(vector: Array) -> Array:
        moved = _to_mixture(vector, mixture)
        log_prior = 0.0 if prior is None else log_density(prior, moved)
        return (expected_log_likelihood(moved, statistics) + log_prior) / total

    return Iterate(point, _to_vector(updated) - point, jax.grad(objective)(point))


def _to_vector(mixture: Mixture) -> Float[Array, "P"]:
    """Convert a mixture to coordinates, in one vector; the weight of an unused component is 0."""
    free = coordinates(mixture)
    logits = jnp.where(free.logits == -jnp.inf, 0, free.logits)
    return ravel_pytree(replace(free, logits=logits))[0]


def _to_mixture(vector: Float[Array, "P"], like: Mixture) -> Mixture:
    """Convert coordinates to a mixture; its covariances may not have the form of the model.

    Args:
      vector: coordinates.
      like: mixture with the same components switched off, and the same covariance model.
    """
    free: Free = ravel_pytree(coordinates(like))[1](vector)
    logits = jnp.where(like.log_weights == -jnp.inf, -jnp.inf, free.logits)
    return from_free(replace(free, logits=logits), like.covariance)


def _to_model(mixture: Mixture, floor: Array | None) -> Mixture:
    """Replace covariances by those that the model estimates from samples with such covariances.

    Args:
      mixture: may have covariances without the form of the model.
      floor: the covariance that bounds all others from below, (D, D), or None.
    """
    entry, weights = mixture.model, mixture.weights
    # A model that supports a floor fills its storage: all covariances have its form.
    if floor is not None:
        storage = entry.storage
        raised = storage.at_least(
            storage.covariance(mixture.scale), storage.from_dense(floor[None])
        )
        return replace(mixture, scale=storage.root(raised))
    if entry.fills_storage(mixture.n_components, mixture.n_features):
        return mixture
    scatter = trailing(weights, mixture.scale) * entry.storage.covariance(mixture.scale)
    return replace(mixture, scale=entry.estimate(weights, scatter, mixture.scale))


def accelerated(em: EM, scheme: str | None) -> EM | AcceleratedEM:
    """Return EM with the acceleration scheme of the given name.

    Args:
      em: plain EM.
      scheme: a name in ``SCHEMES``, or None for plain EM.

    Raises:
      DataError: there is no such scheme; the text lists all and suggests the nearest name.
    """
    if scheme is None:
        return em
    if scheme not in SCHEMES:
        hint = suggest(scheme, SCHEMES)
        raise DataError(f"unknown acceleration {shown(scheme)}.{hint} Known: {', '.join(SCHEMES)}.")
    return AcceleratedEM(em, SCHEMES[scheme])
