"""Expectation–maximisation: one step, and the loop.

Each step takes parameters to parameters whose log-likelihood is no lower (Dempster, Laird & Rubin
1977), provided the ridge is zero. The log-likelihood reported always belongs to the parameters
reported with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgmm._core import pytree
from jgmm._core.compilation import jit
from jgmm._core.pytree import Leaf
from jgmm._core.status import VALID, Status, among
from jgmm._data.samples import HasTotals, Samples
from jgmm._data.standardization import standardize
from jgmm.em import cancellation
from jgmm.em.cancellation import Precision, recompute_unsafe
from jgmm.em.convergence import StepCheck, _judge
from jgmm.em.degeneracy import collapsed_components, mark_degenerate
from jgmm.em.e_step import Form, accumulate, check_inputs, product_rows
from jgmm.em.m_step import equal_log_weights, maximize, ridge_in
from jgmm.em.options import Control
from jgmm.em.statistics import Statistics
from jgmm.mixture.mixture import Mixture, to_original, to_standard
from jgmm.mixture.noise import Noise
from jgmm.mixture.prior import Prior, as_prior, log_density_in


def em_step(
    mixture: Mixture, x: Any, sample_weight: Any = None, ridge: float = 0.0, prior: Any = None
) -> tuple[Mixture, Float[Array, ""]]:
    """One E-step and one M-step.

    Args:
      mixture: current parameters, in the units of x.
      x, sample_weight, ridge, prior: as for ``jgmm.fit``.

    Returns:
      The updated mixture, and the log-likelihood of the mixture passed in, in nats.

    Raises:
      DataError: see ``as_samples``; or another number of columns than the mixture's.
    """
    mixture, samples = check_inputs(mixture, x, sample_weight)
    believed = as_prior(prior, samples, mixture.n_components)
    return _em_step(mixture, samples, jnp.asarray(ridge, samples.x.dtype), believed)


@jit
def _em_step(
    mixture: Mixture, samples: Samples, ridge: Array, prior: Prior | None
) -> tuple[Mixture, Array]:
    inside = standardize(samples, mixture.model)
    before = to_standard(mixture, inside.frame)
    statistics = accumulate(before, inside)
    added, believed = ridge_in(inside.frame, ridge), prior and prior.standardize(inside.frame)
    updated = maximize(statistics, mixture.covariance, added, before.scale, prior=believed)
    shift = samples.total_weight() * inside.frame.log_volume()
    return to_original(updated, inside.frame), statistics.log_likelihood - shift


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EMState:
    """One run of EM: what the next step needs, and how things stand.

    ``use_exact`` says that products will not do any more: the end is near and they are rough, or a
    component has vanished in them. ``noise`` is that beside the mixture, in the frame, or None.
    """

    mixture: Mixture
    log_likelihood: Leaf
    n_steps: Leaf
    status: Leaf
    collapsed: Leaf
    use_exact: Leaf
    noise: Noise | None = None


# Where a run begins: a mixture in the frame, or one with noise beside it.
Start = Mixture | tuple[Mixture, Noise]


@dataclass(frozen=True)
class EM:
    """Expectation–maximisation as a ``algorithm.Algorithm``; a start is a mixture in the frame.

    ``scouting`` goes by rough products to the end, and leaves it to others to confirm that.
    """

    max_steps: int
    equal_weights: bool = False
    coarse: bool = False

    def approximate(self) -> EM:
        """EM that takes no differences where rough products find the way."""
        return replace(self, coarse=True)

    def init(self, start: Start) -> EMState:
        """The lane before its first step; a start may have noise with it."""
        start, noise = (start, None) if isinstance(start, Mixture) else start
        if self.equal_weights:
            start = replace(start, log_weights=equal_log_weights(start.log_weights))
        dtype = start.means.dtype
        return EMState(
            start,
            jnp.asarray(-jnp.inf, dtype),
            jnp.asarray(0),
            jnp.asarray(int(Status.RUNNING)),
            jnp.asarray(-1),
            jnp.asarray(False),
            noise,
        )

    def step(self, states: EMState, samples: Samples, control: Control) -> EMState:
        """One step of every lane: E-step of the current parameters; then stop there, or M-step."""
        return self.advance(states, *self.e_step(states, samples), samples, control)

    def advance(
        self,
        states: EMState,
        statistics: Statistics,
        precision: Precision,
        population: HasTotals,
        control: Control,
    ) -> EMState:
        """What of a step follows its E-step, given what ``expect`` returns for all samples."""
        statistics = self.add_log_prior(states, statistics, population, control)

        def one(state: EMState, sums: Statistics, precision: Precision) -> EMState:
            return self._step(state, sums, precision, population, control)

        return jax.vmap(one)(states, statistics, precision)

    def e_step(self, states: Any, samples: Samples) -> tuple[Statistics, Precision]:
        """Statistics of every lane, by products where they may be used.

        Args:
          lanes: with a leading axis; of them ``mixture``, ``noise``, ``status`` and ``use_exact``
            are read.
          samples: in the frame.

        Returns:
          The statistics, and whether they are safe or rough products, or neither, (W,).
        """
        precision = jax.vmap(cancellation.assess)(states.mixture)
        precision = Precision(
            precision.safe & ~states.use_exact, precision.approximate & ~states.use_exact
        )
        entry, (n_lanes, n_components) = states.mixture.model, states.mixture.log_weights.shape
        rows = product_rows(entry, samples, n_components, n_lanes)

        def pass_over(state: tuple[Mixture, Noise | None], form: Form) -> Statistics:
            mixture, noise = state
            size = rows if form == "product" else None
            noise_density = None if noise is None else noise.density()
            return accumulate(mixture, samples, None, size, form, noise_density)

        seen = states.mixture, states.noise
        products = jax.vmap(partial(pass_over, form="product"))(seen)
        use_products = precision.safe | precision.approximate | (states.status != Status.RUNNING)
        exact = partial(pass_over, form="difference")
        return recompute_unsafe(use_products, products, exact, seen), precision

    def add_log_prior(
        self, states: Any, statistics: Statistics, population: HasTotals, control: Control
    ) -> Statistics:
        """The same statistics with the log prior in their log-likelihood.

        It is both together that EM increases, and that all that comes after compares.
        """
        log_prior = jax.vmap(partial(log_density_in, control.prior, population.frame))(
            states.mixture
        )
        return replace(statistics, log_likelihood=statistics.log_likelihood + log_prior)

    def check_step(
        self,
        state: Any,
        statistics: Statistics,
        precision: Precision,
        samples: HasTotals,
        control: Control,
    ) -> StepCheck:
        """The M-step from where a lane is, and how things stand before it."""
        log_likelihood = statistics.log_likelihood
        before = state.mixture
        added = ridge_in(samples.frame, control.ridge)
        prior = control.prior and control.prior.standardize(samples.frame)
        least = self.least(control, samples)
        updated = maximize(
            statistics, before.covariance, added, before.scale, self.equal_weights, prior, least
        )
        broken = collapsed_components(updated, before, samples.frame)
        # Only a start can be singular before the step: from then on a collapse has ended the fit.
        singular = collapsed_components(before, before, samples.frame)
        broken = jnp.where(jnp.isfinite(log_likelihood), broken, singular)
        out_of_steps = state.n_steps >= self.max_steps
        total = samples.total_weight()
        status = _judge(state, log_likelihood, broken, updated, total, out_of_steps, control)
        # What rough products call the end, differences have yet to confirm. Nor may the
        # log-likelihood fall: where it does, rounding is larger than the steps.
        fell = log_likelihood < state.log_likelihood
        confirm = precision.approximate & (fell | among(status, VALID))
        # A component that a step makes much narrower may vanish in the products before it; such a
        # step is taken again, by differences.
        failed = (Status.COLLAPSED, Status.NON_FINITE_PARAMETERS)
        retry_exactly = (precision.safe | precision.approximate) & among(status, failed)
        status = jnp.where(confirm | retry_exactly, int(Status.RUNNING), status)
        exact_from_now_on = retry_exactly | (confirm & (not self.coarse))
        return StepCheck(updated, status, broken, out_of_steps, retry_exactly, exact_from_now_on)

    def least(self, control: Control, population: HasTotals) -> Array | None:
        """The covariance, seen in the frame, that a floor keeps all others above, or None."""
        if control.floor is None:
            return None
        return population.frame.unit_variances(control.floor)

    def mark_ended(
        self,
        status: Array,
        broken: Array,
        mixture: Mixture,
        total: Array,
        population: HasTotals,
        control: Control,
    ) -> tuple[Array, Array]:
        """``end_in_spike`` under the prior and the floor there are."""
        bounded, least = control.prior is not None, self.least(control, population)
        return mark_degenerate(status, broken, mixture, total, bounded, least)

    def _step(
        self,
        state: EMState,
        statistics: Statistics,
        precision: Precision,
        samples: HasTotals,
        control: Control,
    ) -> EMState:
        found = self.check_step(state, statistics, precision, samples, control)
        total = samples.total_weight()
        noise = state.noise and state.noise.update(statistics.counts, total)
        if state.noise is not None:
            total = total * (1 - state.noise.weight)
        status, which = self.mark_ended(
            found.status, found.broken, state.mixture, total, samples, control
        )
        going_on = (status == Status.RUNNING) & ~found.out_of_steps & ~found.retry_exactly
        mixture, noise = pytree.where(
            going_on, (found.updated, noise), (state.mixture, state.noise)
        )
        stepped = EMState(
            mixture=mixture,
            log_likelihood=jnp.where(
                found.retry_exactly, state.log_likelihood, statistics.log_likelihood
            ),
            n_steps=jnp.where(going_on, state.n_steps + 1, state.n_steps),
            status=status,
            collapsed=which,
            use_exact=state.use_exact | found.exact_from_now_on,
            noise=noise,
        )
        return pytree.where(state.status != Status.RUNNING, state, stepped)
