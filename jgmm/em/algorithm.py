"""Expectation–maximisation: one step, and EM as an algorithm that runs from many starts.

Each step takes parameters to parameters whose log-likelihood is no lower (Dempster, Laird & Rubin
1977), provided the ridge is zero. The log-likelihood reported always belongs to the parameters
reported with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jgmm._core import pytree
from jgmm._core.compilation import jit
from jgmm._core.pytree import Leaf
from jgmm._core.status import Status
from jgmm._data.samples import HasTotals, Samples
from jgmm._data.standardization import standardize
from jgmm.em import cancellation, convergence
from jgmm.em.cancellation import Precision, recompute_unsafe
from jgmm.em.degeneracy import collapsed_components, mark_degenerate
from jgmm.em.e_step import Form, accumulate, check_inputs, prefers_differences, product_rows
from jgmm.em.m_step import equal_log_weights, maximize, ridge_in
from jgmm.em.options import Control, make_control
from jgmm.em.statistics import Statistics
from jgmm.mixture.mixture import HasMixture, Mixture, to_original, to_standard
from jgmm.mixture.noise import Noise
from jgmm.mixture.prior import as_prior, log_density_in


def em_step(
    mixture: Mixture | HasMixture,
    x: Any,
    sample_weight: Any = None,
    ridge: float = 0.0,
    prior: Any = None,
) -> tuple[Mixture, Float[Array, ""]]:
    """Take one step of EM: an E-step and an M-step.

    Args:
      mixture: current parameters, in the units of x.
      x, sample_weight, ridge, prior: as for ``jgmm.fit``.

    Returns:
      The updated mixture, and the log-likelihood of the mixture passed in, in nats.

    Raises:
      DataError: see ``as_samples``; or another number of columns than the mixture's.
    """
    mixture, samples = check_inputs(mixture, x, sample_weight)
    prior = as_prior(prior, samples, mixture.n_components)
    return _em_step(mixture, samples, make_control(samples.x.dtype, None, None, ridge, prior))


@jit
def _em_step(mixture: Mixture, samples: Samples, control: Control) -> tuple[Mixture, Array]:
    return one_step(mixture, samples, control)


def one_step(
    mixture: Mixture,
    samples: Samples,
    control: Control,
    equal_weights: bool = False,
    form: Form = "auto",
) -> tuple[Mixture, Array]:
    """Take one step of EM as ``em_step`` does, on samples and options that have been checked.

    Args:
      mixture: current parameters, in the units of the samples.
      samples: N samples in the identity frame.
      control: ridge, prior and floor are read.
      equal_weights: give all components the same weight.
      form: of the E-step, see ``accumulate``.
    """
    inside = standardize(samples, mixture.model)
    before, frame = to_standard(mixture, inside.frame), inside.frame
    statistics = accumulate(before, inside, form=form)
    updated = maximize(
        statistics,
        mixture.covariance,
        ridge_in(frame, control.ridge),
        before.scale,
        equal_weights,
        control.prior_in(frame),
        control.floor_in(frame),
    )
    shift = samples.total_weight() * frame.log_volume()
    return to_original(updated, frame), statistics.log_likelihood - shift


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class EMState:
    """The state of one run of EM.

    Attributes:
      mixture: current parameters, in the frame.
      log_likelihood: of the parameters at the last E-step, with the log prior, in nats.
      n_steps: M-steps taken.
      status: code of a ``Status``.
      collapsed: the component that collapsed or is spurious, or -1.
      use_exact: whether the E-step must use the exact (difference) form from now on, because the
        matrix-product form has lost too many digits.
      noise: the uniform noise component, in the frame, or None.
    """

    mixture: Mixture
    log_likelihood: Leaf
    n_steps: Leaf
    status: Leaf
    collapsed: Leaf
    use_exact: Leaf
    noise: Noise | None = None


class StepCheck(NamedTuple):
    """The outcome of an E-step: where the M-step leads, and whether the run ends.

    Attributes:
      updated: the parameters after the M-step.
      status: code of a ``Status``.
      broken: components that collapse in the M-step, (K,).
      collapsed: the first of them if the run ends for it, or -1, ().
      out_of_steps: whether ``max_steps`` M-steps have been taken.
      retry_exactly: whether the step failed in the matrix-product form and is repeated in the exact
        form.
      exact_from_now_on: whether all further E-steps use the exact form.
    """

    updated: Mixture
    status: Array
    broken: Array
    collapsed: Array
    out_of_steps: Array
    retry_exactly: Array
    exact_from_now_on: Array


# The start of a run: a mixture in the frame, or a mixture and a noise component.
Start = Mixture | tuple[Mixture, Noise]


@dataclass(frozen=True)
class EM:
    """Expectation–maximisation as an ``AdditiveAlgorithm``; a start is a mixture in the frame.

    Attributes:
      max_steps: maximal number of M-steps.
      equal_weights: give all components the same weight.
      coarse: end a run by the approximate matrix-product form, and leave it to a later run to
        confirm the end with the exact form.
    """

    max_steps: int
    equal_weights: bool = False
    coarse: bool = False

    def approximate(self) -> EM:
        """Return EM that avoids the slow exact form where the approximate form finds the way."""
        return replace(self, coarse=True)

    def init(self, start: Start) -> EMState:
        """Return the state before the first step; a start may have a noise component."""
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
        """Take one step of every run: the E-step; then stop there, or take the M-step."""
        return self.update(states, *self.e_step(states, samples), samples, control)

    def e_step(self, states: Any, samples: Samples) -> tuple[Statistics, Precision]:
        """Return the statistics of every run, by matrix products where they pay and are accurate.

        Args:
          states: W runs, leading axis; ``mixture``, ``noise``, ``status`` and ``use_exact`` are
            read.
          samples: in the frame.

        Returns:
          The statistics, and whether they come from products that are accurate or approximate;
          where neither is true they come from differences, (W,).
        """
        entry, (n_runs, n_components) = states.mixture.model, states.mixture.log_weights.shape
        d, runs = samples.n_features, (states.mixture, states.noise)
        rows = product_rows(entry, samples, n_components, n_runs)

        def pass_over(run: tuple[Mixture, Noise | None], form: Form) -> Statistics:
            mixture, noise = run
            size = rows if form == "product" else None
            noise_density = None if noise is None else noise.density()
            return accumulate(mixture, samples, None, size, form, noise_density)

        exact = partial(pass_over, form="difference")
        if prefers_differences(entry, d, n_components, n_runs):
            none = jnp.zeros(n_runs, bool)
            # A run that has ended keeps its state, whatever its statistics.
            shapes = jax.eval_shape(jax.vmap(exact), runs)
            nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
            ended = states.status != Status.RUNNING
            return recompute_unsafe(ended, nothing, exact, runs), Precision(none, none)
        precision = jax.vmap(cancellation.assess)(states.mixture)
        precision = Precision(
            precision.safe & ~states.use_exact, precision.approximate & ~states.use_exact
        )
        products = jax.vmap(partial(pass_over, form="product"))(runs)
        use_products = precision.safe | precision.approximate | (states.status != Status.RUNNING)
        return recompute_unsafe(use_products, products, exact, runs), precision

    def update(
        self,
        states: EMState,
        statistics: Statistics,
        precision: Precision,
        totals: HasTotals,
        control: Control,
    ) -> EMState:
        """Do everything after the E-step: M-step, convergence test, new state.

        Args:
          states: W runs, leading axis.
          statistics, precision: what ``e_step`` returns, summed over all samples.
          totals: the frame and the total weight of all samples.
          control: tolerances, ridge, prior and floor.
        """
        statistics = self.add_log_prior(states, statistics, totals, control)

        def one(state: EMState, statistics: Statistics, precision: Precision) -> EMState:
            return self._step(state, statistics, precision, totals, control)

        stepped = jax.vmap(one)(states, statistics, precision)
        rows = statistics.effective_counts()
        return self.mark_degenerate(states.status, stepped, rows, totals, control)

    def add_log_prior(
        self, states: Any, statistics: Statistics, totals: HasTotals, control: Control
    ) -> Statistics:
        """Add the log prior to the log-likelihood of every run.

        EM increases the sum of both, and the convergence test compares it.
        """
        log_prior = jax.vmap(partial(log_density_in, control.prior, totals.frame))(states.mixture)
        return replace(statistics, log_likelihood=statistics.log_likelihood + log_prior)

    def check_step(
        self,
        state: Any,
        statistics: Statistics,
        precision: Precision,
        totals: HasTotals,
        control: Control,
    ) -> StepCheck:
        """Take the M-step from a state, and decide whether the run ends before it."""
        before, frame, total = state.mixture, totals.frame, totals.total_weight()
        log_likelihood = statistics.log_likelihood
        updated = maximize(
            statistics,
            before.covariance,
            ridge_in(frame, control.ridge),
            before.scale,
            self.equal_weights,
            control.prior_in(frame),
            control.floor_in(frame),
        )
        broken = collapsed_components(updated, before, frame)
        # Only a start can be singular before the step: from then on a collapse has ended the fit.
        singular = collapsed_components(before, before, frame)
        broken = jnp.where(jnp.isfinite(log_likelihood), broken, singular)
        out_of_steps = state.n_steps >= self.max_steps
        small_gain = convergence.gain_is_small(
            log_likelihood, state.log_likelihood, total, control.tol, control.rtol
        )
        finite = jnp.isfinite(updated.means).all()
        status = convergence.em_status(log_likelihood, small_gain, broken, finite, out_of_steps)
        fell = log_likelihood < state.log_likelihood
        confirm = convergence.must_confirm(status, fell, precision)
        retry_exactly = convergence.must_repeat(status, precision)
        status = jnp.where(confirm | retry_exactly, int(Status.RUNNING), status)
        exact_from_now_on = retry_exactly | (confirm & (not self.coarse))
        collapsed = jnp.where(status == Status.COLLAPSED, jnp.argmax(broken), -1)
        return StepCheck(
            updated,
            status,
            broken,
            collapsed,
            out_of_steps,
            retry_exactly,
            exact_from_now_on,
        )

    def mark_degenerate(
        self, before: Array, stepped: Any, rows: Array, totals: HasTotals, control: Control
    ) -> Any:
        """Mark the runs that have just ended with a spurious component.

        Args:
          before: status of W runs before the step.
          stepped: the runs after it.
          rows: the effective number of rows of each component, (W, K).
          totals: the frame of the samples.
          control: prior, ridge and floor.
        """
        frame = totals.frame
        ridge, floor = frame.unit_variances(control.ridge), control.floor_in(frame)
        status, collapsed = mark_degenerate(
            before,
            stepped.status,
            stepped.collapsed,
            stepped.mixture,
            rows,
            control.prior is not None,
            ridge,
            floor,
        )
        return replace(stepped, status=status, collapsed=collapsed)

    def _step(
        self,
        state: EMState,
        statistics: Statistics,
        precision: Precision,
        totals: HasTotals,
        control: Control,
    ) -> EMState:
        check = self.check_step(state, statistics, precision, totals, control)
        total = totals.total_weight()
        noise = state.noise and state.noise.update(statistics.counts, total)
        status = check.status
        moves = (status == Status.RUNNING) & ~check.out_of_steps & ~check.retry_exactly
        mixture, noise = pytree.where(moves, (check.updated, noise), (state.mixture, state.noise))
        stepped = EMState(
            mixture=mixture,
            log_likelihood=jnp.where(
                check.retry_exactly, state.log_likelihood, statistics.log_likelihood
            ),
            n_steps=jnp.where(moves, state.n_steps + 1, state.n_steps),
            status=status,
            collapsed=check.collapsed,
            use_exact=state.use_exact | check.exact_from_now_on,
            noise=noise,
        )
        return pytree.where(state.status != Status.RUNNING, state, stepped)
