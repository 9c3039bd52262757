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
import optax
from jax import lax
from jaxtyping import Array, Key

from jgmm import em
from jgmm.em import FitResult, collapsed_components
from jgmm.mixture import Mixture
from jgmm.restarts import ProgressCallback, check_problem, choose, drive, prepare
from jgmm.samples import Leaf, Samples, check_key, make_samples
from jgmm.statistics import accumulate, expected_log_likelihood
from jgmm.status import DataError, Status, check
from jgmm.unconstrained import Free, from_free, to_free


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
      covariance: name of the covariance model.
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
    ...     jax.random.key(0), x, 2, optimizer=optax.lbfgs(), covariance="tied"
    ... )
    >>> jgmm.Status(int(result.status)).name
    'CONVERGED'
    """
    samples = make_samples(x, sample_weight)
    check_problem(samples, n_components, n_restarts, max_steps)
    if batch_size is not None and batch_size < 1:
        raise DataError(f"batch_size must be at least 1; it is {batch_size}.")
    eps = float(jnp.finfo(samples.x.dtype).eps)
    default = 1e-6 if eps < 1e-10 else 1e-4
    threshold = jnp.asarray(default if tol is None else tol, samples.x.dtype)
    inside, mixtures = prepare(
        check_key(key), samples, n_components, covariance, n_restarts, init, 0.0
    )
    draws = jax.vmap(lambda r: jax.random.fold_in(jax.random.fold_in(key, r), n_restarts))(
        jnp.arange(n_restarts)
    )
    state = _begin(mixtures, draws, optimizer, max_steps)
    name = mixtures.covariance
    advance_all = partial(_advance, optimizer=optimizer, covariance=name, batch_size=batch_size)
    state = drive(advance_all, state, inside, threshold, max_steps, progress)
    return check(_finish(state, inside, name, batch_size is not None))


def objective(samples: Samples, covariance: str) -> Callable[[Free], Array]:
    """Minus the mean log-likelihood per sample as a function of free parameters.

    Returns:
      A function whose value and reverse-mode gradient both come from one pass of the engine. It
      has no forward-mode derivative: asking for one is an error.
    """
    total = samples.total_weight()

    @jax.custom_vjp
    def loss(free: Free) -> Array:
        return -accumulate(from_free(free, covariance), samples).log_likelihood / total

    def forward(free: Free) -> tuple[Array, Free]:
        statistics = accumulate(from_free(free, covariance), samples)

        def complete(free: Free) -> Array:
            return -expected_log_likelihood(from_free(free, covariance), statistics) / total

        return -statistics.log_likelihood / total, jax.grad(complete)(free)

    def backward(gradient: Free, cotangent: Array) -> tuple[Free]:
        return (jax.tree.map(lambda leaf: cotangent * leaf, gradient),)

    loss.defvjp(forward, backward)
    return loss


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """One lane of a gradient fit: where it is, and the optimiser's memory."""

    free: Free
    memory: Any
    key: Leaf
    log_likelihood: Leaf
    n_steps: Leaf
    status: Leaf
    collapsed: Leaf
    history: Leaf


@partial(jax.jit, static_argnums=(2, 3))
def _begin(
    mixtures: Mixture, keys: Array, optimizer: optax.GradientTransformation, max_steps: int
) -> State:
    def one(mixture: Mixture, key: Array) -> State:
        free: Any = to_free(mixture)
        dtype = mixture.means.dtype
        return State(
            free,
            optimizer.init(free),
            key,
            jnp.asarray(-jnp.inf, dtype),
            jnp.asarray(0),
            jnp.asarray(int(Status.RUNNING)),
            jnp.asarray(-1),
            jnp.full(max_steps + 1, jnp.nan, dtype),
        )

    return jax.vmap(one)(mixtures, keys)


@partial(jax.jit, static_argnames=("optimizer", "covariance", "batch_size"))
def _advance(
    state: State,
    samples: Samples,
    tol: Array,
    limit: Array,
    *,
    optimizer: optax.GradientTransformation,
    covariance: str,
    batch_size: int | None,
) -> State:
    def running(lane: State) -> Array:
        return (lane.status == Status.RUNNING) & (lane.n_steps < limit)

    def step(lane: State) -> State:
        return _step(lane, samples, tol, optimizer, covariance, batch_size)

    return jax.vmap(lambda lane: lax.while_loop(running, step, lane))(state)


def _step(
    lane: State,
    samples: Samples,
    tol: Array,
    optimizer: optax.GradientTransformation,
    covariance: str,
    batch_size: int | None,
) -> State:
    """One gradient; then either stop where it was taken, or move."""
    batch = _draw(lane, samples, batch_size)
    loss = objective(batch, covariance)
    here: Any = lane.free  # optax describes its trees more narrowly than it treats them
    value, gradient = jax.value_and_grad(loss)(here)
    # A plain transformation ignores the extra arguments; a line search needs them all. optax
    # mixes dtypes inside, which strict users of JAX would otherwise see as an error of ours.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        updates, memory = optax.with_extra_args_support(optimizer).update(
            gradient, lane.memory, here, value=value, grad=gradient, value_fn=loss
        )
        memory = jax.tree.map(lambda new, old: new.astype(old.dtype), memory, lane.memory)
        moved = optax.apply_updates(here, updates)
    steepest = jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(gradient)]).max()
    mixture = from_free(here, covariance)
    broken = collapsed_components(mixture, mixture)
    log_likelihood = -value * samples.total_weight()
    rules = (
        (~(jnp.isfinite(value) & jnp.isfinite(steepest)), Status.NON_FINITE_PARAMETERS),
        (broken.any(), Status.COLLAPSED),
        ((steepest <= tol) & (batch_size is None), Status.CONVERGED),
        (lane.n_steps >= lane.history.shape[0] - 1, Status.STEPS_RAN_OUT),
    )
    status = jnp.select(
        [rule for rule, _ in rules], [jnp.asarray(int(s)) for _, s in rules], int(Status.RUNNING)
    )
    going_on = status == Status.RUNNING

    def keep(new: Any, old: Any) -> Any:
        return jax.tree.map(lambda n, o: jnp.where(going_on, n, o), new, old)

    return State(
        keep(moved, lane.free),
        keep(memory, lane.memory),
        lane.key,
        log_likelihood,
        jnp.where(going_on, lane.n_steps + 1, lane.n_steps),
        status,
        jnp.where(status == Status.COLLAPSED, jnp.argmax(broken), -1),
        lane.history.at[lane.n_steps].set(log_likelihood),
    )


def _draw(lane: State, samples: Samples, batch_size: int | None) -> Samples:
    """All samples, or a batch drawn with replacement for this step."""
    if batch_size is None:
        return samples
    key = jax.random.fold_in(lane.key, lane.n_steps)
    rows = jax.random.randint(key, (batch_size,), 0, samples.n_samples)
    weights = None if samples.weights is None else samples.weights[rows]
    return Samples(samples.x[rows], weights, samples.frame)


@partial(jax.jit, static_argnums=(2, 3))
def _finish(state: State, samples: Samples, covariance: str, in_batches: bool) -> FitResult:
    def one(lane: State) -> FitResult:
        mixture = from_free(lane.free, covariance)
        log_likelihood = lane.log_likelihood
        if in_batches:  # until here only estimated
            log_likelihood = accumulate(mixture, samples).log_likelihood
        ended = em.State(
            mixture, log_likelihood, lane.n_steps, lane.status, lane.collapsed, lane.history
        )
        return em.finish(ended, samples)

    return choose(jax.vmap(one)(state))
