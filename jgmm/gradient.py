"""The same likelihood maximised by gradients, with any optax optimiser, for comparison with EM.

The objective is minus the mean log-likelihood per sample, in the data's frame, over logits, means
and Cholesky factors (``jgmm.unconstrained``). Its gradient costs one pass of the same engine: by
Fisher's identity the gradient of log p(x) is that of the expected complete-data log-likelihood,
which depends on the samples only through ``Statistics``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key

from jgmm import lanes
from jgmm.covariance import model
from jgmm.degeneracy import collapsed_components, end_in_spike
from jgmm.em import FitResult, finish, maximize
from jgmm.lanes import ProgressCallback, Queue
from jgmm.mixture import Mixture
from jgmm.precision import jit
from jgmm.restarts import check_problem, in_waves, work_of
from jgmm.samples import Leaf, Samples, check_key, make_samples
from jgmm.statistics import Statistics, accumulate, expected_log_likelihood
from jgmm.status import DataError, Status, check
from jgmm.unconstrained import Free, check_free, from_free, to_free

MINI_BATCHES = 0x6D62  # folded into the key, so that no start is drawn with a mini-batch's


def fit(
    key: Key[Array, ""],
    x: Any,
    n_components: int,
    *,
    optimizer: optax.GradientTransformation,
    covariance: str = "full",
    n_restarts: int = 1,
    init: Any = "kmeans",
    batch_size: int | None = None,
    sample_weight: Any = None,
    max_steps: int = 1000,
    tol: float | None = None,
    progress: ProgressCallback | None = None,
) -> FitResult:
    """Fit a mixture of Gaussians by gradient steps, from the same starts as ``jgmm.fit``.

    Args:
      key: typed key; restart r uses ``fold_in(key, r)``, and starts where EM's restart r does.
      x: samples in rows, (N, D).
      n_components: K.
      optimizer: an ``optax.GradientTransformation``, such as ``optax.adam(1e-2)`` or
        ``optax.lbfgs()``, whose line search is given the objective.
      covariance: name of the covariance model, one of those that have free coordinates.
      n_restarts: R, vmapped.
      init: as for ``jgmm.fit``.
      batch_size: samples drawn with replacement for each step; all of them by default.
      sample_weight: how many times each sample counts, (N,).
      max_steps: parameter updates at most, a restart.
      tol: converged when every entry of the gradient of the mean log-likelihood is smaller, by
        default 1e-6 in float64 and 1e-4 in float32. Mini-batch fits use all their steps.
      progress: as for ``jgmm.fit``.

    Returns:
      The same ``FitResult`` as EM. The log-likelihood is that of all samples under the parameters
      returned; with mini-batches the history holds each batch's estimate of it.

    Raises:
      DataError: bad samples, weights or arguments, before any work starts.
      FitError: no restart ended valid.

    >>> import jax, jgmm, optax
    >>> x = [[0.0], [0.1], [0.2], [5.0], [5.1], [5.3]]
    >>> result = jgmm.gradient.fit(
    ...     jax.random.key(0), x, 2, optimizer=optax.adam(0.05), covariance="tied"
    ... )
    >>> jgmm.Status(int(result.status)).name
    'CONVERGED'
    """
    samples = make_samples(x, sample_weight)
    check_problem(samples, n_components, n_restarts, max_steps)
    check_free(model(covariance), n_components, samples.n_features)
    if batch_size is not None and batch_size < 1:
        raise DataError(f"batch_size must be at least 1; it is {batch_size}.")
    eps = float(jnp.finfo(samples.x.dtype).eps)
    default = 1e-6 if eps < 1e-10 else 1e-4
    threshold = jnp.asarray(default if tol is None else tol, samples.x.dtype)
    method = Gradient(optimizer, model(covariance).name, batch_size, max_steps)
    every = np.ones(n_components, bool)

    def wave(mixtures: Mixture, inside: Samples) -> FitResult:
        starts = (mixtures, jnp.arange(len(mixtures.means)))
        control = Control(threshold, key)
        work = work_of(mixtures, inside)
        queue = lanes.run(method, starts, inside, control, work, progress)
        return _finish(queue, inside, method)

    found = in_waves(wave, check_key(key), samples, every, covariance, n_restarts, init, 0.0)
    return check(found)


@partial(jit, static_argnums=2)
def _finish(queue: Queue, samples: Samples, method: Gradient) -> FitResult:
    mixture = from_free(queue.best.free, method.covariance)
    log_likelihood = queue.best.log_likelihood
    if method.batch_size is not None:  # until here only estimated
        log_likelihood = accumulate(mixture, samples).log_likelihood
    history, table = queue.best_history, queue.table
    return finish(mixture, log_likelihood, queue.best, history, table, samples)


def objective(samples: Samples, covariance: str) -> Callable[[Free], Array]:
    """Minus the mean log-likelihood per sample as a function of free parameters.

    Returns:
      A function whose value and reverse-mode gradient both come from one pass of the engine. It
      has no forward-mode derivative: asking for one is an error.
    """

    @jax.custom_vjp
    def loss(free: Free) -> Array:
        statistics = accumulate(from_free(free, covariance), samples)
        return -statistics.log_likelihood / samples.total_weight()

    def forward(free: Free) -> tuple[Array, Free]:
        value, gradient, _ = value_and_gradient(free, samples, covariance)
        return value, gradient

    def backward(gradient: Free, cotangent: Array) -> tuple[Free]:
        return (jax.tree.map(lambda leaf: cotangent * leaf, gradient),)

    loss.defvjp(forward, backward)
    return loss


def value_and_gradient(
    free: Free, samples: Samples, covariance: str
) -> tuple[Array, Any, Statistics]:
    """The objective, its gradient, and the statistics both come from."""
    total = samples.total_weight()
    statistics = accumulate(from_free(free, covariance), samples)

    def complete(free: Free) -> Array:
        return -expected_log_likelihood(from_free(free, covariance), statistics) / total

    return -statistics.log_likelihood / total, jax.grad(complete)(free), statistics


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Control:
    """When to stop, and the key mini-batches are drawn with."""

    tol: Leaf
    key: Leaf


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Lane:
    """One gradient fit: where it is, the optimiser's memory, and how things stand."""

    free: Free
    memory: Any
    number: Leaf
    log_likelihood: Leaf
    n_steps: Leaf
    status: Leaf
    collapsed: Leaf


@dataclass(frozen=True)
class Gradient:
    """Gradient steps by an optax optimiser as a ``lanes.Method``.

    A start is a mixture in the frame, and the number of its restart, which its mini-batches
    depend on.
    """

    optimizer: optax.GradientTransformation
    covariance: str
    batch_size: int | None
    max_steps: int

    def scout(self) -> Gradient:
        """The same: it has no cheaper way to compare runs."""
        return self

    def begin(self, start: tuple[Mixture, Array]) -> Lane:
        """The lane before its first step."""
        mixture, number = start
        free: Any = to_free(mixture)
        return Lane(
            free,
            self.optimizer.init(free),
            number,
            jnp.asarray(-jnp.inf, mixture.means.dtype),
            jnp.asarray(0),
            jnp.asarray(int(Status.RUNNING)),
            jnp.asarray(-1),
        )

    def step(self, lanes: Lane, samples: Samples, control: Control) -> Lane:
        """One gradient of every lane; then stop where it was taken, or move."""
        return jax.vmap(lambda lane: self._step(lane, samples, control))(lanes)

    def _step(self, lane: Lane, samples: Samples, control: Control) -> Lane:
        batch = self._batch(lane, samples, control)
        loss = objective(batch, self.covariance)
        here: Any = lane.free  # optax describes its trees more narrowly than it treats them
        value, gradient, statistics = value_and_gradient(here, batch, self.covariance)
        # A plain transformation ignores the extra arguments; a line search needs them all. optax
        # mixes dtypes inside, which strict users of JAX would otherwise see as an error of ours.
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            updates, memory = optax.with_extra_args_support(self.optimizer).update(
                gradient, lane.memory, here, value=value, grad=gradient, value_fn=loss
            )
            memory = jax.tree.map(lambda new, old: new.astype(old.dtype), memory, lane.memory)
            moved = optax.apply_updates(here, updates)
        status, which = self._judge(lane, value, gradient, statistics, samples, control)
        going_on = status == Status.RUNNING

        def keep(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda n, o: jnp.where(going_on, n, o), new, old)

        stepped = Lane(
            keep(moved, lane.free),
            keep(memory, lane.memory),
            lane.number,
            -value * samples.total_weight(),
            jnp.where(going_on, lane.n_steps + 1, lane.n_steps),
            status,
            which,
        )
        ended = lane.status != Status.RUNNING
        return jax.tree.map(lambda old, new: jnp.where(ended, old, new), lane, stepped)

    def _judge(
        self,
        lane: Lane,
        value: Array,
        gradient: Free,
        statistics: Statistics,
        samples: Samples,
        control: Control,
    ) -> tuple[Array, Array]:
        """The status after a gradient, and the component to blame for it, or -1.

        A gradient method creeps up a spike that EM falls into, so where it ends it is asked what
        one M-step would do: a component that collapses there is no optimum.
        """
        steepest = jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(gradient)]).max()
        mixture, frame = from_free(lane.free, self.covariance), samples.frame
        broken = collapsed_components(mixture, mixture, frame)
        whole = self.batch_size is None
        flat = (steepest <= control.tol) & whole
        spent = lane.n_steps >= self.max_steps
        if whole:
            step = maximize(statistics, self.covariance)
            broken |= collapsed_components(step, mixture, frame) & (flat | spent)
        rules = (
            (~(jnp.isfinite(value) & jnp.isfinite(steepest)), Status.NON_FINITE_PARAMETERS),
            (broken.any(), Status.COLLAPSED),
            (flat, Status.CONVERGED),
            (spent, Status.STEPS_RAN_OUT),
        )
        codes = [jnp.asarray(int(code)) for _, code in rules]
        status = jnp.select([rule for rule, _ in rules], codes, int(Status.RUNNING))
        return end_in_spike(status, broken, mixture, samples.total_weight())

    def _batch(self, lane: Lane, samples: Samples, control: Control) -> Samples:
        """All samples, or a batch drawn with replacement for this step of this restart."""
        if self.batch_size is None:
            return samples
        key = jax.random.fold_in(jax.random.fold_in(control.key, MINI_BATCHES), lane.number)
        key = jax.random.fold_in(key, lane.n_steps)
        rows = jax.random.randint(key, (self.batch_size,), 0, samples.n_samples)
        weights = None if samples.weights is None else samples.weights[rows]
        return Samples(samples.x[rows], weights, samples.frame)
