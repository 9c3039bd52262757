"""EM in fewer steps: extrapolation from those it has taken, and never below where it stands.

Near its end EM converges linearly, by a factor that is close to one where components overlap. From
a few of its steps one can tell where they lead to. A *scheme* does that; ``Accelerated`` puts it
around EM as a ``algorithm.Algorithm``. Every step is one pass over the samples: of a point that a
scheme proposes, or of the point EM itself leads to. A proposal counts only where the log-likelihood
is not lower there; otherwise the next point is the one EM leads to from the last that counted.

Points are seen in coordinates of the storage (``unconstrained.coordinates``), and a proposal is
brought back to the covariance model by its own estimate; so every model can be accelerated.

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
from jgmm._core.errors import DataError, suggest
from jgmm._core.pytree import Leaf
from jgmm._core.status import Status, among
from jgmm._data.samples import HasTotals, Samples
from jgmm.covariance.estimation import trailing
from jgmm.em.acceleration_schemes import SCHEMES, Iterate, Scheme
from jgmm.em.algorithm import EM
from jgmm.em.cancellation import Precision
from jgmm.em.statistics import Statistics, expected_log_likelihood
from jgmm.mixture.mixture import Mixture
from jgmm.mixture.prior import Prior, log_density
from jgmm.mixture.unconstrained import Free, coordinates, from_free


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class AcceleratedState:
    """One accelerated run; the first six are those of ``algorithm.EMState``.

    Attributes:
      mixture: the point the next E-step is of.
      log_likelihood: of ``reached``.
      n_steps, status, collapsed, use_exact: as there.
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
    use_exact: Leaf
    proposed: Leaf
    reached: Mixture
    image: Mixture
    scheme_state: Any

    @property
    def noise(self) -> None:
        """None: what schemes extrapolate are Gaussians."""


@dataclass(frozen=True)
class AcceleratedEM:
    """EM with a scheme around it, as a ``algorithm.Algorithm``.

    ``n_steps`` counts passes over the samples, those of proposals that came to nothing among them,
    as EM's does; ``history`` holds the log-likelihood of the last point that counted.
    """

    em: EM
    scheme: Scheme

    @property
    def max_steps(self) -> int:
        """Passes over the samples at most, but for the first."""
        return int(self.em.max_steps)

    def approximate(self) -> AcceleratedEM:
        """The same around EM that takes no differences where rough products find the way."""
        return replace(self, em=self.em.approximate())

    def init(self, start: Mixture) -> AcceleratedState:
        """The lane before its first step."""
        first = self.em.init(start)
        here = first.mixture
        scheme_state = self.scheme.init(ravel_pytree(coordinates(here))[0])
        return AcceleratedState(
            here,
            first.log_likelihood,
            first.n_steps,
            first.status,
            first.collapsed,
            first.use_exact,
            jnp.asarray(False),
            here,
            here,
            scheme_state,
        )

    def step(self, states: AcceleratedState, samples: Samples, control: Any) -> AcceleratedState:
        """One E-step of every lane, and where to go from there."""
        return self.advance(states, *self.e_step(states, samples), samples, control)

    def e_step(self, states: AcceleratedState, samples: Samples) -> tuple[Statistics, Precision]:
        """``EM.expect`` of the points the lanes are at."""
        return self.em.e_step(states, samples)

    def advance(
        self,
        states: AcceleratedState,
        statistics: Statistics,
        precision: Precision,
        population: HasTotals,
        control: Any,
    ) -> AcceleratedState:
        """What of a step follows its E-step."""
        statistics = self.em.add_log_prior(states, statistics, population, control)

        def one(
            state: AcceleratedState, sums: Statistics, precision: Precision
        ) -> AcceleratedState:
            return self._step(state, sums, precision, population, control)

        return jax.vmap(one)(states, statistics, precision)

    def _step(
        self,
        state: AcceleratedState,
        statistics: Statistics,
        precision: Precision,
        samples: HasTotals,
        control: Any,
    ) -> AcceleratedState:
        found = self.em.check_step(state, statistics, precision, samples, control)
        counts = ~state.proposed | (
            (statistics.log_likelihood >= state.log_likelihood) & ~found.broken.any()
        )
        # Nothing ends at a proposal: that EM's own step gains no more than the tolerance is what
        # its end means, and a collapse may be the scheme's doing.
        fell_short = state.proposed & among(found.status, _ENDS)
        otherwise = jnp.where(found.out_of_steps, int(Status.STEPS_RAN_OUT), int(Status.RUNNING))
        status = jnp.where(fell_short, otherwise, found.status)
        reached = pytree.where(counts, state.mixture, state.reached)
        total = samples.total_weight()
        status, which = self.em.mark_ended(status, found.broken, reached, total, samples, control)
        retry_exactly = found.retry_exactly & ~state.proposed
        going_on = (status == Status.RUNNING) & ~found.out_of_steps & ~retry_exactly
        image = pytree.where(counts, found.updated, state.image)
        prior = control.prior and control.prior.standardize(samples.frame)
        iterate = _iterate(state.mixture, found.updated, statistics, total, prior)
        learned = self.scheme.update(state.scheme_state, iterate, state.proposed)
        scheme_state = pytree.where(counts, learned, self.scheme.reset(state.scheme_state))
        plan = self.scheme.propose(scheme_state)
        proposal = _of_model(_at(plan.point, reached), self.em.least(control, samples))
        going_there = plan.is_sensible & counts & ~fell_short & _is_finite(proposal)
        scheme_state = replace(
            scheme_state,
            response=jnp.where(going_there, plan.response, scheme_state.last.gradient),
            limited=plan.limited & going_there,
        )
        moved = AcceleratedState(
            pytree.where(going_there, proposal, image),
            jnp.where(counts, statistics.log_likelihood, state.log_likelihood),
            state.n_steps + 1,
            status,
            jnp.asarray(-1),
            jnp.where(counts, state.use_exact | found.exact_from_now_on, state.use_exact),
            going_there,
            reached,
            image,
            scheme_state,
        )
        # At the end, or where a step has yet to be confirmed, the lane stays where it is.
        confirming = (status == Status.RUNNING) & (found.out_of_steps | retry_exactly)
        stayed = replace(
            state,
            mixture=pytree.where(confirming, state.mixture, reached),
            log_likelihood=jnp.where(retry_exactly, state.log_likelihood, moved.log_likelihood),
            status=status,
            collapsed=which,
            use_exact=state.use_exact | found.exact_from_now_on,
        )
        ended = state.status != Status.RUNNING
        return pytree.where(ended, state, pytree.where(going_on, moved, stayed))


# What a proposal cannot be the end of a run by.
_ENDS = (Status.CONVERGED, Status.COLLAPSED, Status.NON_FINITE_PARAMETERS)


def _is_finite(mixture: Mixture) -> Bool[Array, ""]:
    return jnp.isfinite(mixture.means).all() & jnp.isfinite(mixture.scale).all()


def _iterate(
    mixture: Mixture,
    updated: Mixture,
    statistics: Statistics,
    total: Array,
    prior: Prior | None,
) -> Iterate:
    """A point, EM's step, and by Fisher's identity the gradient, from one E-step's statistics."""
    here = _vector(mixture)

    def complete(vector: Array) -> Array:
        there = _at(vector, mixture)
        believed = 0.0 if prior is None else log_density(prior, there)
        return (expected_log_likelihood(there, statistics) + believed) / total

    return Iterate(here, _vector(updated) - here, jax.grad(complete)(here))


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


def _of_model(mixture: Mixture, least: Array | None) -> Mixture:
    """The mixture with the covariances that the model estimates from samples with those given."""
    entry, weights = mixture.model, mixture.weights
    if least is not None:  # of a model that bears a floor, which fills its storage
        storage = entry.storage
        raised = storage.at_least(
            storage.covariance(mixture.scale), storage.from_dense(least[None])
        )
        return replace(mixture, scale=storage.root(raised))
    if entry.fills_storage(mixture.n_components, mixture.n_features):
        return mixture
    scatter = trailing(weights, mixture.scale) * entry.storage.covariance(mixture.scale)
    return replace(mixture, scale=entry.estimate(weights, scatter, mixture.scale))


def accelerated(em: EM, scheme: str | None) -> EM | AcceleratedEM:
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
        hint = suggest(scheme, SCHEMES)
        raise DataError(f"unknown acceleration {scheme!r}.{hint} Known: {', '.join(SCHEMES)}.")
    return AcceleratedEM(em, SCHEMES[scheme])
