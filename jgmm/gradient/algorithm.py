"""Gradient steps as an ``Algorithm``: one evaluation, then stop or move."""

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
from jgmm.em.degeneracy import collapsed_components, mark_degenerate
from jgmm.em.m_step import maximize
from jgmm.em.statistics import Statistics
from jgmm.gradient import fisher_metric
from jgmm.gradient.optimizer import Evaluation, Optimizer, value_and_gradient
from jgmm.mixture.mixture import Mixture
from jgmm.mixture.unconstrained import Parametrization

MINI_BATCHES = 0x6D62  # folded into the key, so that no start is drawn with a mini-batch's


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GradientControl:
    """When to stop, see ``fit``, and the key mini-batches are drawn with."""

    gradient_tol: Leaf
    tol: Leaf
    rtol: Leaf
    max_passes: Leaf
    key: Leaf


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GradientState:
    """One gradient fit: where it is, the optimiser's memory, and how things stand.

    ``n_passes`` counts those over the samples; ``moved`` says whether the last step led elsewhere.
    """

    point: Any
    memory: Any
    number: Leaf
    log_likelihood: Leaf
    n_steps: Leaf
    n_passes: Leaf
    moved: Leaf
    status: Leaf
    collapsed: Leaf


@dataclass(frozen=True)
class GradientAlgorithm:
    """Steps by an optimiser as a ``algorithm.Algorithm``.

    A start is a mixture in the frame, and the number of its restart, which its mini-batches
    depend on.
    """

    optimizer: Optimizer
    parametrisation: Parametrization
    covariance: str
    batch_size: int | None
    max_steps: int

    def approximate(self) -> GradientAlgorithm:
        """The same: it has no cheaper way to compare runs."""
        return self

    def mixture(self, state: GradientState) -> Mixture:
        """What a lane's point stands for, with weights that sum to one."""
        return _normalised(self.parametrisation.mixture(state.point, self.covariance))

    def init(self, start: tuple[Mixture, Array]) -> GradientState:
        """The lane before its first step."""
        mixture, number = start
        point, dtype = self.parametrisation.point(mixture), mixture.means.dtype
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
        """One gradient of every lane; then stop where it was taken, or move."""
        return jax.vmap(lambda state: self._step(state, samples, control))(states)

    def _step(
        self, state: GradientState, samples: Samples, control: GradientControl
    ) -> GradientState:
        batch = self._batch(state, samples, control)
        share = 1.0 if self.batch_size is None else self.batch_size / samples.n_samples
        here = self._look(state, batch)
        move = self.optimizer.step(state.memory, here)
        memory = jax.tree.map(lambda new, old: new.astype(old.dtype), move.memory, state.memory)
        log_likelihood = here.statistics.log_likelihood / batch.total_weight()
        out_of_steps = state.n_passes + share
        status, which = self._judge(state, here, out_of_steps, samples, control)
        going_on = status == Status.RUNNING

        stepped = GradientState(
            pytree.where(going_on, move.point, state.point),
            pytree.where(going_on, memory, state.memory),
            state.number,
            log_likelihood * samples.total_weight(),
            jnp.where(going_on, state.n_steps + 1, state.n_steps),
            jnp.where(
                going_on,
                out_of_steps + share * jnp.asarray(move.n_passes, out_of_steps.dtype),
                out_of_steps,
            ),
            _differ(move.point, state.point),
            status,
            which,
        )
        return pytree.where(state.status != Status.RUNNING, state, stepped)

    def _look(self, state: GradientState, samples: Samples) -> Evaluation:
        """One pass over the samples."""

        def chart(point: Any) -> Mixture:
            return self.parametrisation.mixture(point, self.covariance)

        value, gradient, statistics = value_and_gradient(chart, state.point, samples)
        # Weights that sum to less than one take the same from every sample.
        missing = jax.nn.logsumexp(chart(state.point).log_weights) * samples.total_weight()
        own = replace(statistics, log_likelihood=statistics.log_likelihood - missing)
        mixture = self.mixture(state)
        to = self.parametrisation.point
        return Evaluation(state.point, value, gradient, mixture, own, samples, chart, to)

    def _judge(
        self,
        state: GradientState,
        here: Evaluation,
        n_passes: Array,
        samples: Samples,
        control: GradientControl,
    ) -> tuple[Array, Array]:
        """The status after a gradient, and the component to blame for it, or -1.

        A gradient method creeps up a spike that EM falls into, so where it ends it is asked what
        one M-step would do: a component that collapses there is no optimum.
        """
        mixture, statistics, frame = here.mixture, here.statistics, samples.frame
        whole, total = self.batch_size is None, here.samples.total_weight()
        steepest = fisher_metric.length(fisher_metric.gradient(mixture, statistics, total))
        broken = collapsed_components(mixture, mixture, frame)
        done = ((steepest <= control.gradient_tol) | _still(state, statistics, control)) & whole
        out_of_steps = (state.n_steps >= self.max_steps) | (n_passes >= control.max_passes)
        if whole:
            step = maximize(statistics, self.covariance)
            broken |= collapsed_components(step, mixture, frame) & (done | out_of_steps)
        finite = jnp.isfinite(here.value) & jnp.isfinite(steepest)
        rules = (
            (~finite, Status.NON_FINITE_PARAMETERS),
            (broken.any(), Status.COLLAPSED),
            (done, Status.CONVERGED),
            (out_of_steps, Status.STEPS_RAN_OUT),
        )
        codes = [jnp.asarray(int(code)) for _, code in rules]
        status = jnp.select([rule for rule, _ in rules], codes, int(Status.RUNNING))
        return mark_degenerate(status, broken, mixture, samples.total_weight())

    def _batch(self, state: GradientState, samples: Samples, control: GradientControl) -> Samples:
        """All samples, or a batch drawn with replacement for this step of this restart."""
        if self.batch_size is None:
            return samples
        key = jax.random.fold_in(jax.random.fold_in(control.key, MINI_BATCHES), state.number)
        key = jax.random.fold_in(key, state.n_steps)
        rows = jax.random.randint(key, (self.batch_size,), 0, samples.n_samples)
        weights = None if samples.weights is None else samples.weights[rows]
        return Samples(samples.x[rows], weights, samples.frame)


def _normalised(mixture: Mixture) -> Mixture:
    return replace(mixture, log_weights=jax.nn.log_softmax(mixture.log_weights))


def _differ(one: Any, other: Any) -> Array:
    """Whether two points differ in any number."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return jnp.stack([(a != b).any() for a, b in pairs]).any()


def _still(state: GradientState, statistics: Statistics, control: GradientControl) -> Array:
    """Whether the log-likelihood has all but stayed where it was, though the point has moved."""
    now, total = statistics.log_likelihood, statistics.counts.sum()
    close = control.tol + control.rtol * jnp.abs(now) / total
    return state.moved & (jnp.abs(now - state.log_likelihood) / total <= close)
