"""Many starts as one compiled program, the best valid one, and what became of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jgmm import initialize, lanes, natural, racing
from jgmm.acceleration import accelerated
from jgmm.covariance import model
from jgmm.em import EM, Start, check_floor, make_control
from jgmm.forms import Spherical
from jgmm.framing import to_frame, to_user
from jgmm.kmeans import check_counts
from jgmm.lanes import ProgressCallback
from jgmm.mixture import Mixture, reframe
from jgmm.noise import as_log_volume, at_start
from jgmm.precision import jit
from jgmm.prior import Prior, as_prior
from jgmm.results import FitResult, finish
from jgmm.samples import Frame, Samples, check_key, framed, make_samples, whitened
from jgmm.status import DataError, check, is_traced

# Starts made at once; beyond that they come in waves, so that memory does not grow with R.
WAVE = 4096


def fit(
    key: Key[Array, ""],
    x: Any,
    n_components: int,
    *,
    covariance: str = "full",
    n_restarts: int = 1,
    init: Any = "kmeans",
    sample_weight: Any = None,
    labels: Any = None,
    tol: float | None = None,
    rtol: float | None = None,
    max_steps: int = 1000,
    ridge: Any = 0.0,
    equal_weights: bool = False,
    prior: Any = None,
    floor: Any = None,
    noise: Any = None,
    race: int = 0,
    accelerate: str | None = None,
    progress: ProgressCallback | None = None,
    mesh: Any = None,
) -> FitResult:
    """Fit a mixture of Gaussians by EM from many starts, and keep the best that ended well.

    Args:
      key: typed key; restart r uses ``fold_in(key, r)``, whatever the number of restarts.
      x: samples in rows, (N, D): an array, a list, or a data frame of numbers.
      n_components: K.
      covariance: name of the covariance model, see ``jgmm.covariance``.
      n_restarts: R, run side by side in one program.
      init: a name in ``jgmm.initialize.STARTS``, labels (N,), or a ``Mixture`` in the units of x,
        which with a leading axis of R is R starts.
      sample_weight: how many times each sample counts, (N,); zero equals a missing row.
      labels: the component each sample is known to be of, (N,), whole numbers from 0 to K - 1, and
        -1 where it is not known. The log-likelihood is then that of samples and known labels, Σ log
        p(x) + Σ log p(x, z), and starts have those components where their samples are.
      tol: a fit has converged when the mean log-likelihood per sample changes by less, in nats;
        by default 1e-8 in float64 and 1e-6 in float32.
      rtol: the same relative to the mean log-likelihood, by default four roundings.
      max_steps: M-steps at most, a restart.
      ridge: added to every variance, as a fraction of the data's. Zero, the default, makes EM
        monotone; components that then collapse are reported, not hidden.
      equal_weights: give all components the same weight, which saves K - 1 parameters.
      prior: None, "conjugate", or a ``jgmm.prior.Prior``. With one, EM finds the parameters that
        maximise log-likelihood and log prior together, which are bounded: no component collapses.
        ``log_likelihood`` stays that of the samples alone, ``log_prior`` is beside it. "conjugate"
        says little, in the units of the samples.
      floor: no variance in any direction falls below this fraction of the data's; None for none.
        What ends resting on it is ``DEGENERATE``. For models whose covariances are all alike or
        all free: full, tied, diag, EEI, spherical, EII.
      noise: None, "box", or a volume: a uniform component beside the mixture, over the samples'
        bounding box or over that volume, for samples that belong nowhere (``jgmm.noise``). It is in
        ``result.noise``, and counts one parameter more.
      race: steps after which only the quarter of the starts that promises most goes on, for four
        times as many, and so on until eight run to their ends; the others end as ``OUTRUN``. Zero,
        the default, runs every start to its end. Several times faster with many restarts; may miss
        an optimum that few starts lead to, the less the longer the steps (``jgmm.racing``).
      accelerate: "anderson" or "squarem" extrapolate EM's steps, which saves most of them where
        components overlap (``jgmm.acceleration``); None, the default, is EM as it is. ``n_steps``
        and ``max_steps`` then count passes over the samples.
      progress: called on the host with a ``Progress`` every few steps.
      mesh: of devices that share the samples, and the restarts, see ``jgmm.sharding.fit``; nothing
        is reported on the way then.

    Returns:
      A ``FitResult`` with the best valid restart, and the outcome of each in ``restarts``. Where
      all ended in spikes it holds the best of those, and its status, ``DEGENERATE``, says so.

    Raises:
      DataError: bad samples, weights or arguments, before any work starts.
      FitError: no restart ended in usable parameters. Inside ``jit`` or ``vmap`` nothing is
        raised: read ``status``.

    >>> import jax, jgmm
    >>> x = [[0.0], [0.1], [0.2], [5.0], [5.1], [5.3]]
    >>> result = jgmm.fit(jax.random.key(0), x, 2, covariance="spherical", n_restarts=4)
    >>> jgmm.Status(int(result.status)).name, result.mixture.weights.round(3).tolist()
    ('CONVERGED', [0.5, 0.5])

    Thousands of small data sets are one program: fill them up to one length with rows of weight
    zero, which may hold anything, and ``vmap``. Each ends with a status of its own.

    >>> sets = jax.numpy.asarray([x, [[9.0], [9.2], [1.0], [1.3], [0.0], [0.0]]])
    >>> held = jax.numpy.asarray([[1.0] * 6, [1.0] * 4 + [0.0] * 2])
    >>> def one(key, x, weight):
    ...     return jgmm.fit(key, x, 2, covariance="tied", n_restarts=4, sample_weight=weight)
    >>> results = jax.vmap(one)(jax.random.split(jax.random.key(0), 2), sets, held)
    >>> results.mixture.means.shape, [jgmm.Status(int(code)).name for code in results.status]
    ((2, 2, 1), ['CONVERGED', 'CONVERGED'])
    """
    if mesh is not None:
        alone = {"labels": labels, "prior": prior, "floor": floor, "noise": noise}
        alone["progress"] = progress
        given = [name for name, value in alone.items() if value is not None]
        if given:
            raise DataError(f"{', '.join(given)} cannot be had on a mesh: leave out one of both.")
        from jgmm import sharding  # it stands on this module

        return sharding.fit(
            key,
            x,
            n_components,
            mesh=mesh,
            covariance=covariance,
            n_restarts=n_restarts,
            init=init,
            sample_weight=sample_weight,
            tol=tol,
            rtol=rtol,
            max_steps=max_steps,
            ridge=ridge,
            equal_weights=equal_weights,
            race=race,
            accelerate=accelerate,
        )
    samples = make_samples(x, sample_weight, labels)
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
            equal_weights=equal_weights,
            prior=prior,
            floor=floor,
            noise=noise,
            race=race,
            accelerate=accelerate,
            progress=progress,
        )
    )


class Extra(NamedTuple):
    """Starts in the units of the samples that take the place of the last of the first wave.

    Attributes:
      mixtures: leading axis E, whatever the number that counts, so that one program serves all.
      n_given: how many count, the last ones.
    """

    mixtures: Mixture
    n_given: int


def fit_unchecked(
    key: Key[Array, ""],
    samples: Samples,
    n_components: int,
    *,
    slots: int | None = None,
    covariance: str = "full",
    n_restarts: int = 1,
    init: Any = "kmeans",
    race: int = 0,
    tol: Any = None,
    rtol: Any = None,
    max_steps: int = 1000,
    ridge: Any = 0.0,
    equal_weights: bool = False,
    prior: Any = None,
    floor: Any = None,
    noise: Any = None,
    accelerate: str | None = None,
    extra: Extra | None = None,
    progress: ProgressCallback | None = None,
) -> FitResult:
    """``fit`` of checked samples that leaves a failure in the status instead of raising it.

    Args:
      slots: components the program is made for, K by default. Those beyond K are switched off, so
        that one program serves every K up to it; the mixture returned still has them.
      ridge: one number, or one a column, (D,); all equal unless the model is closed per column.
      extra: starts that take the place of some of those drawn, see ``Extra``.

    The other arguments are those of ``fit``.

    Raises:
      DataError: arguments that cannot be used, before any work starts.
    """
    check_problem(samples, n_components, n_restarts, max_steps)
    racing.check_steps(race)
    believed = as_prior(prior, samples, n_components)
    check_floor(floor, model(covariance))
    control = make_control(samples.x.dtype, tol, rtol, ridge, believed, floor)
    method = accelerated(EM(max_steps, equal_weights), accelerate)
    log_volume = as_log_volume(noise, samples)
    if log_volume is not None and accelerate is not None:
        raise DataError("noise is fitted by EM as it is: leave accelerate out.")

    def wave(mixtures: Mixture, inside: Samples) -> FitResult:
        work = work_of(mixtures, inside)
        starts: Start = mixtures
        if log_volume is not None:
            starts = mixtures, at_start(log_volume, inside.frame, len(mixtures.means))
        if race:
            queue = racing.run(method, starts, inside, control, work, race, progress)
        else:
            queue = lanes.run(method, starts, inside, control, work, progress)
        return _finish(queue, inside, believed)

    active = np.arange(slots or n_components) < n_components
    return in_waves(
        wave, check_key(key), samples, active, covariance, n_restarts, init, ridge, extra
    )


@jit
def _finish(queue: lanes.Queue, samples: Samples, prior: Prior | None) -> FitResult:
    best, table = queue.best, queue.table
    history = queue.best_history
    ended_at = best.log_likelihood
    return finish(best.mixture, ended_at, best, history, table, samples, prior, best.noise)


def work_of(mixtures: Mixture, samples: Samples) -> int:
    """Multiplications one step of one of the starts takes, roughly."""
    n_features = natural.n_features(mixtures.model, mixtures.n_features)
    return 2 * samples.n_samples * mixtures.n_components * n_features


def check_problem(samples: Samples, n_components: int, n_restarts: int, max_steps: int) -> None:
    """Refuse a problem that cannot be fitted, before any work starts.

    Raises:
      DataError: see ``kmeans.check_counts``; or a label beyond the components; or a negative number
        of steps.
    """
    check_counts(samples, n_components, n_restarts)
    if samples.labels is not None and not is_traced(samples.labels):
        highest = int(samples.labels.max())
        if highest >= n_components:
            raise DataError(
                f"labels hold {highest}; with {n_components} components they go from 0 to "
                f"{n_components - 1}, and are -1 where unknown."
            )
    if max_steps < 0:
        raise DataError(f"max_steps must be at least zero; it is {max_steps}.")


def in_waves(
    fit_wave: Callable[[Mixture, Samples], FitResult],
    key: Array,
    samples: Samples,
    active: np.ndarray,
    covariance: str,
    n_restarts: int,
    init: Any,
    ridge: Any,
    extra: Extra | None = None,
) -> FitResult:
    """Make R starts, fit them in waves of a size that memory bears, and keep the best.

    Args:
      fit_wave: ``(starts with a leading axis, samples in the frame) -> FitResult``.
      active: which components take part, (K,).
      init: a name in ``STARTS``, labels, or a ``Mixture``, which with a leading axis is R starts.
      extra: see ``Extra``; no more than fit the first wave, and only where starts are drawn.

    Raises:
      DataError: a start that does not fit, or constant columns where the model cannot bear them.
    """
    entry = model(covariance)
    inside = in_frame(samples, entry.per_column)
    _check_constant_columns(
        samples,
        inside,
        entry.storage is not Spherical and not is_traced(ridge) and not np.all(np.asarray(ridge)),
    )
    if not isinstance(init, str):
        given = given_starts(init, samples, inside, len(active), entry.name, n_restarts, ridge)
        return fit_wave(*_into_whitened(given, inside))
    _check_name(init)
    results = []
    for first in range(0, n_restarts, WAVE):
        size = min(WAVE, n_restarts - first)
        numbers = first + jnp.arange(size)
        mixtures = _starts(key, numbers, inside, active, entry.name, init)
        if inside.labels is not None:
            mixtures = initialize.at_known(mixtures, inside)
        if extra is not None and not first:
            mixtures = _put_last(mixtures, extra.mixtures, extra.n_given, inside.frame)
        results.append(fit_wave(*_into_whitened(mixtures, inside)))
    return results[0] if len(results) == 1 else best_of(results)


def best_of(results: list[FitResult]) -> FitResult:
    """The best of several results of one problem, with the outcomes of all their restarts."""
    tables = [result.restarts for result in results]
    whole = jax.tree.map(lambda *leaves: jnp.concatenate(jnp.atleast_1d(*leaves)), *tables)
    best = lanes.choose(whole)
    ends = [0]
    for table in tables:
        assert table is not None  # fit_wave always reports its restarts
        ends.append(ends[-1] + len(table.status))
    wave = max(i for i, end in enumerate(ends[:-1]) if end <= int(best))
    return replace(results[wave], restarts=replace(whole, best=best))


def given_starts(
    init: Any,
    samples: Samples,
    inside: Samples,
    n_components: int,
    covariance: str,
    n_restarts: int,
    ridge: Any,
) -> Mixture:
    """The starts that labels or mixtures given by the user stand for, in the frame, leading axis R.

    Raises:
      DataError: they do not fit the problem, or another number of restarts is asked for.
    """
    n_given = len(init.means) if isinstance(init, Mixture) and init.means.ndim == 3 else 1
    if n_restarts != n_given:
        raise DataError(
            f"init is {n_given} start(s): n_restarts must be {n_given}; it is {n_restarts}."
        )
    if isinstance(init, Mixture):
        mixture = initialize.from_mixture(init, samples, n_components, covariance)
        if mixture.means.ndim == 3:
            return _all_to_frame(mixture, inside.frame)
        start = to_frame(mixture, inside.frame)
    else:
        start = initialize.from_labels(init, inside, n_components, covariance, ridge)
    return jax.tree.map(lambda leaf: leaf[None], start)


def starts(
    key: Key[Array, ""],
    samples: Samples,
    n_components: int,
    *,
    covariance: str = "full",
    init: str = "kmeans",
    n_restarts: int = 1,
    scaled: bool = True,
) -> Mixture:
    """What ``fit`` starts from, in the units of the samples, with a leading axis of restarts.

    Args:
      scaled: whether distances are taken between columns divided by their standard deviations, as
        ``fit`` does for models that keep their form, or between columns as they are.

    The other arguments are those of ``fit``, the samples checked. Given back as ``init``, changed
    or not, the mixtures start a fit.

    Raises:
      DataError: bad arguments.
    """
    check_problem(samples, n_components, n_restarts, 0)
    _check_name(init)
    entry = model(covariance)
    inside = in_frame(samples, entry.per_column and scaled)
    active, numbers = np.ones(n_components, bool), jnp.arange(n_restarts)
    found = _starts(check_key(key), numbers, inside, active, entry.name, init)
    return _all_to_user(found, inside.frame)


_all_to_user = jit(jax.vmap(to_user, in_axes=(0, None)))
_all_to_frame = jit(jax.vmap(to_frame, in_axes=(0, None)))


def _check_name(init: str) -> None:
    if init not in initialize.STARTS:
        known = ", ".join(initialize.STARTS)
        raise DataError(f"unknown init {init!r}. Known: {known}; or give labels or a Mixture.")


@jit
def _put_last(mixtures: Mixture, extra: Mixture, n_given: Array, frame: Frame) -> Mixture:
    inside = jax.vmap(to_frame, in_axes=(0, None))(extra, frame)
    n_extra = extra.means.shape[0]
    given = jnp.arange(n_extra) >= n_extra - n_given

    def put(own: Array, new: Array) -> Array:
        last = own[-n_extra:]
        kept = jnp.where(given.reshape((n_extra,) + (1,) * (own.ndim - 1)), new, last)
        return own.at[-n_extra:].set(kept)

    return jax.tree.map(put, mixtures, inside)


in_frame = jit(framed, static_argnums=1)


@jit
def _into_whitened(mixtures: Mixture, inside: Samples) -> tuple[Mixture, Samples]:
    """Starts and samples in the frame that suits the covariance model.

    Starts are made where columns are only scaled: in whitened samples, distances would not show
    what separates clusters.
    """
    if not mixtures.model.affine:
        return mixtures, inside
    whole = whitened(inside)
    relative = whole.frame.inverse * inside.frame.scale[None, :]
    origin = jnp.zeros_like(whole.frame.shift)
    return jax.vmap(lambda mixture: reframe(mixture, origin, relative))(mixtures), whole


def _check_constant_columns(samples: Samples, inside: Samples, matters: bool) -> None:
    if not matters or is_traced(samples, inside):
        return
    constant = np.flatnonzero(_constant_columns(samples)).tolist()
    if constant:
        raise DataError(
            f"column(s) {', '.join(map(str, constant))} of x are constant: a covariance with them "
            "is singular. Drop them, or give a ridge such as ridge=1e-6."
        )


@jit
def _constant_columns(samples: Samples) -> Array:
    weights = samples.weights
    first = samples.x[0] if weights is None else samples.x[jnp.argmax(weights > 0)]
    same = samples.x == first[None, :]
    return (same if weights is None else same | (weights == 0)[:, None]).all(axis=0)


def _starts(
    key: Array, numbers: Array, samples: Samples, active: Any, covariance: str, init: str
) -> Mixture:
    return initialize.STARTS[init](_keys(key, numbers), samples, jnp.asarray(active), covariance)


@jit
def _keys(key: Array, numbers: Array) -> Array:
    return jax.vmap(lambda r: jax.random.fold_in(key, r))(numbers)
