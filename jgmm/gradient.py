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

from jgmm.em import FitResult, collapsed_components, finish_fit, make_control
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
    control = make_control(samples.x.dtype, (1e-6 if eps < 1e-10 else 1e-4) if tol is None else tol)
    inside, mixtures = prepare(
        check_key(key), samples, n_components, covariance, n_restarts, init, 0.0
    )
    draws = jax.vmap(lambda r: jax.random.fold_in(jax.random.fold_in(key, r), n_restarts))(
        jnp.arange(n_restarts)
    )
    state = _begin(mixtures, draws, optimizer, max_steps)
    advance_all = partial(
        _advance, optimizer=optimizer, covariance=mixtures.covariance, batch_size=batch_size
    )
    state = drive(advance_all, state, inside, control, max_steps, progress)
    return check(_finish(state, inside, mixtures.covariance))


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
        free = to_free(mixture)
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
