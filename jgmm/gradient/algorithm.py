"""Gradient ascent as an ``Algorithm``: evaluate the gradient, test convergence, update."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jgmm._core import pytree
from jgmm._core.pytree import Leaf
from jgmm._core.status import Status
from jgmm._data.samples import Samples
from jgmm.em.convergence import gain_is_small, gradient_status
from jgmm.em.degeneracy import collapsed_components, mark_degenerate
from jgmm.em.m_step import maximize
from jgmm.em.statistics import Statistics
from jgmm.gradient import fisher_metric
from jgmm.gradient.optimizer import Evaluation, Optimizer, value_and_gradient
from jgmm.mixture.mixture import Mixture
from jgmm.mixture.unconstrained import Parametrization

# Folded into the key, so that mini-batches and starts are drawn with different keys.
MINI_BATCHES = 0x6D62


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GradientControl:
    """Tolerances and limits of a gradient fit, see ``fit``, and the key of its mini-batches."""

    gradient_tol: Leaf
    tol: Leaf
    rtol: Leaf
    max_passes: Leaf
    key: Leaf


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GradientState:
    """State of one gradient fit: one of the batched restarts.

    Attributes:
      point: unconstrained parameters, a pytree.
      optimizer_state: state of the optimiser, a pytree.
      number: number of the restart, ().
      log_likelihood: of all samples at the last point evaluated, (), in nats; -inf before the first
        step. With mini-batches it is the estimate of the last batch.
      n_steps: updates of the point, ().
      n_passes: passes over the samples, (); a mini-batch is a fraction of one.
      moved: whether the last update changed the point, ().
      status: code of the ``Status``, ().
      collapsed: index of the component that collapsed, (), or -1.
    """

    point: Any
    optimizer_state: Any
    number: Leaf
    log_likelihood: Leaf
    n_steps: Leaf
    n_passes: Leaf
    moved: Leaf
    status: Leaf
    collapsed: Leaf


@dataclass(frozen=True)
class GradientAlgorithm:
    """Gradient ascent by an optimiser, as an ``Algorithm``.

    A start is a pair: a mixture in the frame, and the number of its restart, with which the
    restart's mini-batches are drawn.

    Attributes:
      optimizer: computes the updates.
      parametrization: maps unconstrained points to mixtures and back.
      covariance: name of the covariance model.
      batch_size: samples in a mini-batch; None for all samples in every step.
      max_steps: updates of the point at most.
    """

    optimizer: Optimizer
    parametrization: Parametrization
    covariance: str
    batch_size: int | None
    max_steps: int

    def approximate(self) -> GradientAlgorithm:
        """Return the same algorithm: there is no cheaper approximate form."""
        return self

    def mixture(self, state: GradientState) -> Mixture:
        """Return the mixture at the point of a state, its weights normalised to sum to one."""
        return _normalised(self.parametrization.mixture(state.point, self.covariance))

    def init(self, start: tuple[Mixture, Array]) -> GradientState:
        """Return the state of a restart before its first step."""
        mixture, number = start
        point, dtype = self.parametrization.point(mixture), mixture.means.dtype
        return GradientState(
            point,
            self.optimizer.init(point),
            number,
            jnp.asarray(-jnp.inf, dtype),
            jnp.asarray(0),
            jnp.asarray(0, dtype),
            jnp.asarray(False),
            jnp.asarray(int(Status.RUNNING)),
            jnp.asarray(-1),
        )

    def step(
        self, states: GradientState, samples: Samples, control: GradientControl
    ) -> GradientState:
        """Take one step of every restart: evaluate the gradient, then stop or update the point."""
        stepped, rows = jax.vmap(lambda state: self._step(state, samples, control))(states)
        status, collapsed = mark_degenerate(
            states.status,
            stepped.status,
            stepped.collapsed,
            jax.vmap(self.mixture)(stepped),
            rows,
            bounded=False,
            ridge=None,
            floor=None,
        )
        return replace(stepped, status=status, collapsed=collapsed)

    def _step(
        self, state: GradientState, samples: Samples, control: GradientControl
    ) -> tuple[GradientState, Array]:
        """Take a step of one restart; also return the effective rows of each component."""
        batch = self._batch(state, samples, control)
        fraction = 1.0 if self.batch_size is None else self.batch_size / samples.n_samples
        evaluation = self._evaluate(state, batch)
        update = self.optimizer.step(state.optimizer_state, evaluation)
        optimizer_state = jax.tree.map(
            lambda new, old: new.astype(old.dtype), update.state, state.optimizer_state
        )
        log_likelihood = evaluation.statistics.log_likelihood / batch.total_weight()
        n_passes = state.n_passes + fraction
        status, collapsed = self._check_step(state, evaluation, n_passes, samples, control)
        running = status == Status.RUNNING

        stepped = GradientState(
            pytree.where(running, update.point, state.point),
            pytree.where(running, optimizer_state, state.optimizer_state),
            state.number,
            log_likelihood * samples.total_weight(),
            jnp.where(running, state.n_steps + 1, state.n_steps),
            jnp.where(
                running,
                n_passes + fraction * jnp.asarray(update.n_passes, n_passes.dtype),
                n_passes,
            ),
            _any_different(update.point, state.point),
            status,
            collapsed,
        )
        effective_rows = evaluation.statistics.effective_counts() / fraction
        return pytree.where(state.status != Status.RUNNING, state, stepped), effective_rows

    def _evaluate(self, state: GradientState, samples: Samples) -> Evaluation:
        """Evaluate the objective and its gradient by one pass over the samples."""

        def to_mixture(point: Any) -> Mixture:
            return self.parametrization.mixture(point, self.covariance)

        value, gradient, statistics = value_and_gradient(to_mixture, state.point, samples)
        # The weights of the augmented parametrization may sum to less than one. Normalising them
        # raises the log density of every sample by minus the logarithm of their sum.
        missing = jax.nn.logsumexp(to_mixture(state.point).log_weights) * samples.total_weight()
        own = replace(statistics, log_likelihood=statistics.log_likelihood - missing)
        mixture = self.mixture(state)
        to_point = self.parametrization.point
        return Evaluation(state.point, value, gradient, mixture, own, samples, to_mixture, to_point)

    def _check_step(
        self,
        state: GradientState,
        evaluation: Evaluation,
        n_passes: Array,
        samples: Samples,
        control: GradientControl,
    ) -> tuple[Array, Array]:
        """Return the status after a gradient, and the index of a component that collapsed, or -1.

        Near a degenerate optimum, a component whose variance goes to zero, a gradient method moves
        slowly, whereas EM collapses in a few steps. So where a fit would end, one M-step is
        computed: if a component collapses in it, the point is no optimum.
        """
        mixture, statistics, frame = evaluation.mixture, evaluation.statistics, samples.frame
        full_batch, total = self.batch_size is None, evaluation.samples.total_weight()
        length = fisher_metric.length(fisher_metric.gradient(mixture, statistics, total))
        broken = collapsed_components(mixture, mixture, frame)
        converged = (
            (length <= control.gradient_tol) | _gain_within_tolerance(state, statistics, control)
        ) & full_batch
        out_of_steps = (state.n_steps >= self.max_steps) | (n_passes >= control.max_passes)
        if full_batch:
            step = maximize(statistics, self.covariance)
            broken |= collapsed_components(step, mixture, frame) & (converged | out_of_steps)
        finite = jnp.isfinite(evaluation.value) & jnp.isfinite(length)
        status = gradient_status(finite, broken, converged, out_of_steps)
        return status, jnp.where(status == Status.COLLAPSED, jnp.argmax(broken), -1)

    def _batch(self, state: GradientState, samples: Samples, control: GradientControl) -> Samples:
        """Return all samples, or a mini-batch drawn with replacement for this step and restart."""
        if self.batch_size is None:
            return samples
        key = jax.random.fold_in(jax.random.fold_in(control.key, MINI_BATCHES), state.number)
        key = jax.random.fold_in(key, state.n_steps)
        rows = jax.random.randint(key, (self.batch_size,), 0, samples.n_samples)
        weights = None if samples.weights is None else samples.weights[rows]
        return Samples(samples.x[rows], weights, samples.frame)


def _normalised(mixture: Mixture) -> Mixture:
    return replace(mixture, log_weights=jax.nn.log_softmax(mixture.log_weights))


def _any_different(one: Any, other: Any) -> Array:
    """Return whether two points differ in any number."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return jnp.stack([(a != b).any() for a, b in pairs]).any()


def _gain_within_tolerance(
    state: GradientState, statistics: Statistics, control: GradientControl
) -> Array:
    """Return whether the point moved and changed the log-likelihood by no more than ``tol``."""
    now, total = statistics.log_likelihood, statistics.counts.sum()
    return state.moved & gain_is_small(now, state.log_likelihood, total, control.tol, control.rtol)
