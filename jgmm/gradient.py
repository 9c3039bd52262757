"""The same likelihood maximised by gradients, with any optimiser, for comparison with EM.

The objective is minus the mean log-likelihood per sample, in the data's frame, over numbers without
constraints: logits, means and Cholesky factors (``jgmm.unconstrained``), or the augmented matrices
of Hosseini & Sra (``jgmm.augmented``). What climbs it is a transformation of optax, the natural
gradient, Newton-CG, or a reader's own (``jgmm.optimizer``). All stop by the same rules.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jgmm import lanes, metric, natural, pytree
from jgmm.augmented import AugmentedSpd
from jgmm.control import Options
from jgmm.covariance import model
from jgmm.degeneracy import collapsed_components, end_in_spike
from jgmm.inputs import check_key
from jgmm.lanes import ProgressCallback, Queue
from jgmm.maximization import maximize
from jgmm.mixture import Mixture
from jgmm.optimizer import Here, Optimizer, as_optimizer, value_and_gradient
from jgmm.precision import jit
from jgmm.pytree import Leaf
from jgmm.results import FitResult, finish
from jgmm.samples import Samples, make_samples
from jgmm.starts import check_problem, in_waves
from jgmm.statistics import Statistics, accumulate
from jgmm.status import DataError, Status, check
from jgmm.unconstrained import LOG, SOFTPLUS, Parametrisation

MINI_BATCHES = 0x6D62  # folded into the key, so that no start is drawn with a mini-batch's

PARAMETRISATIONS: dict[str, Parametrisation] = {
    "log": LOG,
    "softplus": SOFTPLUS,
    "augmented": AugmentedSpd(),
}


def fit(
    key: Key[Array, ""],
    x: Any,
    n_components: int,
    *,
    optimizer: Any,
    covariance: str = "full",
    n_restarts: int = 1,
    init: Any = "kmeans",
    parametrisation: str = "log",
    batch_size: int | None = None,
    sample_weight: Any = None,
    max_steps: int = 1000,
    max_passes: float | int | None = None,
    gradient_tol: float | None = None,
    tol: float | None = None,
    rtol: float = 0.0,
    progress: ProgressCallback | None = None,
) -> FitResult:
    """Fit a mixture of Gaussians by gradient steps, from the same starts as ``jgmm.fit``.

    Args:
      key: typed key; restart r uses ``fold_in(key, r)``, and starts where EM's restart r does.
      x: samples in rows, (N, D).
      n_components: K.
      optimizer: a transformation of optax, such as ``optax.adam(1e-2)`` or ``optax.lbfgs()``, whose
        line search is given the objective; ``NaturalGradient``; ``NewtonCG``; or anything that has
        the methods ``init`` and ``step`` of ``jgmm.optimizer.Optimizer``.
      covariance: name of the covariance model, one of those that have free coordinates.
      n_restarts: R, vmapped.
      init: as for ``jgmm.fit``.
      parametrisation: "log", "softplus" (the diagonals of Cholesky factors) or "augmented".
      batch_size: samples drawn with replacement for each step; all of them by default.
      sample_weight: how many times each sample counts, (N,).
      max_steps: parameter updates at most, a restart.
      max_passes: passes over the samples at most, a restart, those of line searches and of
        Hessian-vector products among them; a mini-batch is its share of one.
      gradient_tol: converged when the gradient of the mean log-likelihood is shorter, in the metric
        of EM (``jgmm.metric``), by default 1e-6 in float64 and 1e-4 in float32. It means the same
        for all optimisers, parametrisations and data: a step of EM would gain half its square, and
        EM itself is ``NaturalGradient()``.
      tol, rtol: converged when a step that moves changes the mean log-likelihood per sample by at
        most tol + rtol * its size, as for EM; by default no change is small enough, as a gradient
        method may well creep.
      progress: as for ``jgmm.fit``.

    Returns:
      The same ``FitResult`` as EM. The log-likelihood is that of all samples under the parameters
      returned; with mini-batches the history holds each batch's estimate of it, and no rule but the
      numbers of steps and passes ends a fit.

    Raises:
      DataError: bad samples, weights or arguments, before any work starts; what is no optimiser.
      FitError: no restart ended valid.

    >>> import jax, jgmm, optax
    >>> x = [[0.0], [0.1], [0.2], [5.0], [5.1], [5.3]]
    >>> result = jgmm.gradient.fit(
    ...     jax.random.key(0), x, 2, optimizer=optax.adam(0.05), covariance="tied", init="points"
    ... )
    >>> jgmm.Status(int(result.status)).name
    'CONVERGED'
    """
    samples = make_samples(x, sample_weight)
    options = Options(covariance, n_restarts, init, max_steps=max_steps)
    check_problem(samples, n_components, options)
    entry, by = model(covariance), _parametrisation(parametrisation)
    by.check(entry, n_components, samples.n_features)
    if batch_size is not None and batch_size < 1:
        raise DataError(f"batch_size must be at least 1; it is {batch_size}.")
    control = make_control(key, samples.x.dtype, gradient_tol, tol, rtol, max_passes)
    method = Gradient(as_optimizer(optimizer), by, entry.name, batch_size, max_steps)
    every = np.ones(n_components, bool)

    def wave(mixtures: Mixture, inside: Samples) -> FitResult:
        starts = (mixtures, jnp.arange(len(mixtures.means)))
        d, n_rows = mixtures.n_features, inside.n_samples
        work = natural.work(mixtures.model, d, n_components, n_rows)
        queue = lanes.run(method, starts, inside, control, work, progress)
        return _finish(queue, inside, method)

    return check(in_waves(wave, check_key(key), samples, every, options))


def _parametrisation(name: str) -> Parametrisation:
    if name not in PARAMETRISATIONS:
        known = ", ".join(PARAMETRISATIONS)
        raise DataError(f"unknown parametrisation {name!r}. Known: {known}.")
    return PARAMETRISATIONS[name]


@partial(jit, static_argnums=2)
def _finish(queue: Queue, samples: Samples, method: Gradient) -> FitResult:
    mixture = method.mixture(queue.best)
    log_likelihood = queue.best.log_likelihood
    if method.batch_size is not None:  # until here only estimated
        log_likelihood = accumulate(mixture, samples).log_likelihood
    history, table = queue.best_history, queue.table
    return finish(mixture, log_likelihood, queue.best, history, table, samples)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Control:
    """When to stop, see ``fit``, and the key mini-batches are drawn with."""

    gradient_tol: Leaf
    tol: Leaf
    rtol: Leaf
    max_passes: Leaf
    key: Leaf


def make_control(
    key: Key[Array, ""],
    dtype: Any,
    gradient_tol: float | None = None,
    tol: float | None = None,
    rtol: float = 0.0,
    max_passes: float | int | None = None,
) -> Control:
    """Fill in defaults by dtype; without ``tol`` no change is small enough, nor any pass the last.

    Raises:
      DataError: a number below zero.
    """
    default = 1e-6 if float(jnp.finfo(dtype).eps) < 1e-10 else 1e-4
    given = {
        "gradient_tol": default if gradient_tol is None else gradient_tol,
        "tol": 0.0 if tol is None else tol,
        "rtol": rtol,
        "max_passes": jnp.inf if max_passes is None else max_passes,
    }
    for name, value in given.items():
        if not value >= 0:
            raise DataError(f"{name} must be at least zero; it is {value}.")
    if tol is None and not rtol:
        given["tol"] = -jnp.inf
    return Control(**{name: jnp.asarray(value, dtype) for name, value in given.items()}, key=key)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Lane:
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
class Gradient:
    """Steps by an optimiser as a ``lanes.Method``.

    A start is a mixture in the frame, and the number of its restart, which its mini-batches
    depend on.
    """

    optimizer: Optimizer
    parametrisation: Parametrisation
    covariance: str
    batch_size: int | None
    max_steps: int

    def scout(self) -> Gradient:
        """The same: it has no cheaper way to compare runs."""
        return self

    def mixture(self, lane: Lane) -> Mixture:
        """What a lane's point stands for, with weights that sum to one."""
        return _normalised(self.parametrisation.mixture(lane.point, self.covariance))

    def begin(self, start: tuple[Mixture, Array]) -> Lane:
        """The lane before its first step."""
        mixture, number = start
        point, dtype = self.parametrisation.point(mixture), mixture.means.dtype
        return Lane(
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

    def step(self, lanes: Lane, samples: Samples, control: Control) -> Lane:
        """One gradient of every lane; then stop where it was taken, or move."""
        return jax.vmap(lambda lane: self._step(lane, samples, control))(lanes)

    def _step(self, lane: Lane, samples: Samples, control: Control) -> Lane:
        batch = self._batch(lane, samples, control)
        share = 1.0 if self.batch_size is None else self.batch_size / samples.n_samples
        here = self._look(lane, batch)
        move = self.optimizer.step(lane.memory, here)
        memory = jax.tree.map(lambda new, old: new.astype(old.dtype), move.memory, lane.memory)
        log_likelihood = here.statistics.log_likelihood / batch.total_weight()
        spent = lane.n_passes + share
        status, which = self._judge(lane, here, spent, samples, control)
        going_on = status == Status.RUNNING

        stepped = Lane(
            pytree.where(going_on, move.point, lane.point),
            pytree.where(going_on, memory, lane.memory),
            lane.number,
            log_likelihood * samples.total_weight(),
            jnp.where(going_on, lane.n_steps + 1, lane.n_steps),
            jnp.where(going_on, spent + share * jnp.asarray(move.n_passes, spent.dtype), spent),
            _differ(move.point, lane.point),
            status,
            which,
        )
        return pytree.where(lane.status != Status.RUNNING, lane, stepped)

    def _look(self, lane: Lane, samples: Samples) -> Here:
        """One pass over the samples."""

        def chart(point: Any) -> Mixture:
            return self.parametrisation.mixture(point, self.covariance)

        value, gradient, statistics = value_and_gradient(chart, lane.point, samples)
        # Weights that sum to less than one take the same from every sample.
        missing = jax.nn.logsumexp(chart(lane.point).log_weights) * samples.total_weight()
        own = replace(statistics, log_likelihood=statistics.log_likelihood - missing)
        mixture = self.mixture(lane)
        to = self.parametrisation.point
        return Here(lane.point, value, gradient, mixture, own, samples, chart, to)

    def _judge(
        self, lane: Lane, here: Here, n_passes: Array, samples: Samples, control: Control
    ) -> tuple[Array, Array]:
        """The status after a gradient, and the component to blame for it, or -1.

        A gradient method creeps up a spike that EM falls into, so where it ends it is asked what
        one M-step would do: a component that collapses there is no optimum.
        """
        mixture, statistics, frame = here.mixture, here.statistics, samples.frame
        whole, total = self.batch_size is None, here.samples.total_weight()
        steepest = metric.length(metric.gradient(mixture, statistics, total))
        broken = collapsed_components(mixture, mixture, frame)
        done = ((steepest <= control.gradient_tol) | _still(lane, statistics, control)) & whole
        spent = (lane.n_steps >= self.max_steps) | (n_passes >= control.max_passes)
        if whole:
            step = maximize(statistics, self.covariance)
            broken |= collapsed_components(step, mixture, frame) & (done | spent)
        finite = jnp.isfinite(here.value) & jnp.isfinite(steepest)
        rules = (
            (~finite, Status.NON_FINITE_PARAMETERS),
            (broken.any(), Status.COLLAPSED),
            (done, Status.CONVERGED),
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


def _normalised(mixture: Mixture) -> Mixture:
    return replace(mixture, log_weights=jax.nn.log_softmax(mixture.log_weights))


def _differ(one: Any, other: Any) -> Array:
    """Whether two points differ in any number."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return jnp.stack([(a != b).any() for a, b in pairs]).any()


def _still(lane: Lane, statistics: Statistics, control: Control) -> Array:
    """Whether the log-likelihood has all but stayed where it was, though the point has moved."""
    now, total = statistics.log_likelihood, statistics.counts.sum()
    close = control.tol + control.rtol * jnp.abs(now) / total
    return lane.moved & (jnp.abs(now - lane.log_likelihood) / total <= close)
