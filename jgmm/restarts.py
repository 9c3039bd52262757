"""Many starts as one compiled program, the best valid one, and what became of all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jgmm import initialize
from jgmm.covariance import model
from jgmm.em import (
    Control,
    FitResult,
    Restarts,
    State,
    advance,
    begin,
    finish,
    make_control,
    to_frame,
)
from jgmm.kmeans import check_counts
from jgmm.mixture import Mixture
from jgmm.samples import Samples, check_key, framed, make_samples
from jgmm.status import VALID, DataError, Status, check, is_traced

CHUNK_STEPS = 25  # between two reports of progress


class Progress(NamedTuple):
    """What a fit tells its caller between compiled chunks of steps."""

    step: int
    max_steps: int
    log_likelihood: float
    n_running: int
    n_restarts: int


ProgressCallback = Callable[[Progress], None]
AnyState = TypeVar("AnyState")


def fit(
    key: Key[Array, ""],
    x: Any,
    n_components: int,
    *,
    covariance: str = "full",
    n_restarts: int = 1,
    init: Any = "kmeans",
    sample_weight: Any = None,
    tol: float | None = None,
    rtol: float | None = None,
    max_steps: int = 1000,
    ridge: float = 0.0,
    progress: ProgressCallback | None = None,
) -> FitResult:
    """Fit a mixture of Gaussians by EM from many starts, and keep the best that ended well.

    Args:
      key: typed key; restart r uses ``fold_in(key, r)``, whatever the number of restarts.
      x: samples in rows, (N, D): an array, a list, or a data frame of numbers.
      n_components: K.
      covariance: name of the covariance model, see ``jgmm.covariance``.
      n_restarts: R, run side by side in one program.
      init: a name in ``jgmm.initialize.STARTS``, labels (N,), or a ``Mixture`` in the units of x.
      sample_weight: how many times each sample counts, (N,); zero equals a missing row.
      tol: a fit has converged when the mean log-likelihood per sample changes by less, in nats;
        by default 1e-8 in float64 and 1e-6 in float32.
      rtol: the same relative to the mean log-likelihood, by default four roundings.
      max_steps: M-steps at most, a restart.
      ridge: added to every variance, as a fraction of the data's. Zero, the default, makes EM
        monotone; components that then collapse are reported, not hidden.
      progress: called on the host with a ``Progress`` every few steps.

    Returns:
      A ``FitResult`` with the best valid restart, and the outcome of each in ``restarts``.

    Raises:
      DataError: bad samples, weights or arguments, before any work starts.
      FitError: no restart ended valid. Inside ``jit`` or ``vmap`` nothing is raised: read
        ``status``.

    >>> import jax, jgmm
    >>> x = [[0.0], [0.1], [0.2], [5.0], [5.1], [5.3]]
    >>> result = jgmm.fit(jax.random.key(0), x, 2, covariance="spherical", n_restarts=4)
    >>> jgmm.Status(int(result.status)).name, result.mixture.weights.round(3).tolist()
    ('CONVERGED', [0.5, 0.5])
    """
    samples = make_samples(x, sample_weight)
    return check(
        fit_unchecked(
            key,
            samples,
            n_components,
            covariance=covariance,
            n_restarts=n_restarts,
            init=init,
            tol=tol,
            rtol=rtol,
            max_steps=max_steps,
            ridge=ridge,
            progress=progress,
        )
    )


def fit_unchecked(
    key: Key[Array, ""],
    samples: Samples,
    n_components: int,
    *,
    covariance: str = "full",
    n_restarts: int = 1,
    init: Any = "kmeans",
    tol: float | None = None,
    rtol: float | None = None,
    max_steps: int = 1000,
    ridge: float = 0.0,
    progress: ProgressCallback | None = None,
) -> FitResult:
    """``fit`` of checked samples that leaves a failure in the status instead of raising it.

    Raises:
      DataError: arguments that cannot be used, before any work starts.
    """
    check_problem(samples, n_components, n_restarts, max_steps)
    control = make_control(samples.x.dtype, tol, rtol, ridge)
    inside, mixtures = prepare(
        check_key(key), samples, n_components, covariance, n_restarts, init, ridge
    )
    state = _begin(mixtures, max_steps)
    state = drive(_advance, state, inside, control, max_steps, progress)
    return _finish(state, inside)


def check_problem(samples: Samples, n_components: int, n_restarts: int, max_steps: int) -> None:
    """Refuse a problem that cannot be fitted, before any work starts.

    Raises:
      DataError: see ``kmeans.check_counts``; or a negative number of steps.
    """
    check_counts(samples, n_components, n_restarts)
    if max_steps < 0:
        raise DataError(f"max_steps must be at least zero; it is {max_steps}.")


def prepare(
    key: Array,
    samples: Samples,
    n_components: int,
    covariance: str,
    n_restarts: int,
    init: Any,
    ridge: Any,
) -> tuple[Samples, Mixture]:
    """The samples in their frame, and R starts with a leading axis.

    Raises:
      DataError: a start that does not fit, or constant columns where the model cannot bear them.
    """
    entry = model(covariance)
    inside = _framed(samples, entry.per_column)
    _check_constant_columns(
        samples, inside, entry.per_column and not is_traced(ridge) and not ridge
    )
    if isinstance(init, str):
        if init not in initialize.STARTS:
            known = ", ".join(initialize.STARTS)
            raise DataError(f"unknown init {init!r}. Known: {known}; or give labels or a Mixture.")
        return inside, _starts(key, inside, n_components, entry.name, n_restarts, init)
    if n_restarts != 1:
        raise DataError("init by labels or by a mixture is one start: n_restarts must be 1.")
    if isinstance(init, Mixture):
        mixture = initialize.from_mixture(init, samples, n_components, covariance)
        mixture = to_frame(mixture, inside.frame)
    else:
        mixture = initialize.from_labels(init, inside, n_components, entry.name)
    return inside, jax.tree.map(lambda leaf: leaf[None], mixture)


_framed = jax.jit(framed, static_argnums=1)


def _check_constant_columns(samples: Samples, inside: Samples, matters: bool) -> None:
    if not matters or is_traced(samples, inside):
        return
    weights = samples.weights
    first = samples.x[0] if weights is None else samples.x[jnp.argmax(weights > 0)]
    same = samples.x == first[None, :]
    same = same if weights is None else same | (weights == 0)[:, None]
    constant = jnp.flatnonzero(same.all(axis=0)).tolist()
    if constant:
        raise DataError(
            f"column(s) {', '.join(map(str, constant))} of x are constant: a covariance with them "
            "is singular. Drop them, or give a ridge such as ridge=1e-6."
        )


@partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _starts(
    key: Array, samples: Samples, n_components: int, covariance: str, n_restarts: int, init: str
) -> Mixture:
    start = initialize.STARTS[init]

    def one(r: Array) -> Mixture:
        return start(jax.random.fold_in(key, r), samples, n_components, covariance)

    return jax.vmap(one)(jnp.arange(n_restarts))


@partial(jax.jit, static_argnums=1)
def _begin(mixtures: Mixture, max_steps: int) -> State:
    return jax.vmap(lambda mixture: begin(mixture, max_steps))(mixtures)


@jax.jit
def _advance(state: State, samples: Samples, control: Control, limit: Array) -> State:
    return jax.vmap(lambda lane: advance(lane, samples, control, limit))(state)


@jax.jit
def _finish(state: State, samples: Samples) -> FitResult:
    return choose(jax.vmap(lambda lane: finish(lane, samples))(state))


def drive(
    advance_all: Callable[..., AnyState],
    state: AnyState,
    samples: Samples,
    control: Any,
    max_steps: int,
    progress: ProgressCallback | None,
) -> AnyState:
    """Advance all lanes until each has ended, telling the caller between chunks of steps.

    Without a callback it is one call of the compiled program, and traceable.
    """
    if progress is None or is_traced(state, samples):
        return advance_all(state, samples, control, jnp.asarray(max_steps + 1))
    limit = 0
    while limit <= max_steps:
        limit += CHUNK_STEPS
        state = advance_all(state, samples, control, jnp.asarray(min(limit, max_steps + 1)))
        lanes: Any = state
        running = lanes.status == Status.RUNNING
        frame = samples.total_weight() * samples.frame.log_volume()
        progress(
            Progress(
                step=int(lanes.n_steps.max()),
                max_steps=max_steps,
                log_likelihood=float(_score(lanes.log_likelihood, lanes.status).max() - frame),
                n_running=int(running.sum()),
                n_restarts=len(running),
            )
        )
        if not bool(running.any()):
            break
    return state


def _score(log_likelihood: Array, status: Array) -> Array:
    """What restarts are compared by: the log-likelihood, -inf for one that failed."""
    alive = jnp.isin(status, jnp.asarray([int(s) for s in (*VALID, Status.RUNNING)]))
    return jnp.where(alive & jnp.isfinite(log_likelihood), log_likelihood, -jnp.inf)


def choose(results: FitResult) -> FitResult:
    """The best valid of R results (leading axis), with the outcome of all in ``restarts``.

    Valid means that the status is, and that the log-likelihood is finite. Of equals the first is
    taken; when none is valid, the first, whose status then says why.
    """
    best = jnp.argmax(_score(results.log_likelihood, results.status))
    chosen = jax.tree.map(lambda leaf: leaf[best], results)
    restarts = Restarts(
        results.log_likelihood, results.status, results.n_steps, results.collapsed, best
    )
    return FitResult(
        chosen.mixture,
        chosen.log_likelihood,
        chosen.status,
        chosen.n_steps,
        chosen.history,
        chosen.collapsed,
        restarts,
    )
