"""R starts of a fit: drawn, given or both, seen in the frame of the samples, in waves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jgmm import initialize, lanes, pytree
from jgmm.control import Options
from jgmm.covariance import model
from jgmm.forms import Spherical
from jgmm.frame import Frame
from jgmm.framing import framed, to_frame, to_user, whitened
from jgmm.inputs import check_key
from jgmm.kmeans import check_counts
from jgmm.mixture import Mixture, reframe
from jgmm.precision import jit
from jgmm.results import FitResult
from jgmm.samples import Samples
from jgmm.status import DataError, is_traced

# Starts made at once; beyond that they come in waves, so that memory does not grow with R.
WAVE = 4096


class Extra(NamedTuple):
    """Starts in the units of the samples that take the place of the last of the first wave.

    Attributes:
      mixtures: leading axis E, whatever the number that counts, so that one program serves all.
      n_given: how many count, the last ones.
    """

    mixtures: Mixture
    n_given: int


def check_problem(samples: Samples, n_components: int, options: Options) -> None:
    """Refuse a problem that cannot be fitted, before any work starts.

    Raises:
      DataError: see ``kmeans.check_counts``; or a label beyond the components; or a negative number
        of steps.
    """
    check_counts(samples, n_components, options.n_restarts)
    if samples.labels is not None and not is_traced(samples.labels):
        highest = int(samples.labels.max())
        if highest >= n_components:
            raise DataError(
                f"labels hold {highest}; with {n_components} components they go from 0 to "
                f"{n_components - 1}, and are -1 where unknown."
            )
    if options.max_steps < 0:
        raise DataError(f"max_steps must be at least zero; it is {options.max_steps}.")


def in_waves(
    fit_wave: Callable[[Mixture, Samples], FitResult],
    key: Array,
    samples: Samples,
    active: np.ndarray,
    options: Options,
    extra: Extra | None = None,
) -> FitResult:
    """Make R starts, fit them in waves of a size that memory bears, and keep the best.

    Args:
      fit_wave: ``(starts with a leading axis, samples in the frame) -> FitResult``.
      active: which components take part, (K,).
      options: of these the model, the ridge, R and the start are read: a name in ``STARTS``,
        labels, or a ``Mixture``, which with a leading axis is R starts.
      extra: see ``Extra``; no more than fit the first wave, and only where starts are drawn.

    Raises:
      DataError: a start that does not fit, or constant columns where the model cannot bear them.
    """
    entry, n_restarts = options.entry, options.n_restarts
    inside = in_frame(samples, entry.per_column)
    bare = not is_traced(options.ridge) and not np.all(np.asarray(options.ridge))
    _check_constant_columns(samples, inside, bare and entry.storage is not Spherical)
    if not isinstance(options.init, str):
        given = _given(options, samples, inside, len(active))
        return fit_wave(*_into_whitened(given, inside))
    results = []
    for first in range(0, n_restarts, WAVE):
        size = min(WAVE, n_restarts - first)
        numbers = first + jnp.arange(size)
        mixtures = _draw(key, numbers, inside, active, entry.name, options.init)
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


def _given(options: Options, samples: Samples, inside: Samples, n_components: int) -> Mixture:
    """The starts that labels or mixtures given by the user stand for, in the frame, leading axis R.

    Raises:
      DataError: they do not fit the problem, or another number of restarts is asked for.
    """
    init, covariance = options.init, options.entry.name
    check_number(options)
    if isinstance(init, Mixture):
        mixture = initialize.from_mixture(init, samples.x, n_components, covariance)
        if mixture.means.ndim == 3:
            return all_to_frame(mixture, inside.frame)
        start = to_frame(mixture, inside.frame)
    else:
        start = initialize.from_labels(init, inside, n_components, covariance, options.ridge)
    return jax.tree.map(lambda leaf: leaf[None], start)


def check_number(options: Options) -> None:
    """Refuse another number of restarts than starts are given.

    Raises:
      DataError: with both numbers.
    """
    init, asked = options.init, options.n_restarts
    n_given = len(init.means) if isinstance(init, Mixture) and init.means.ndim == 3 else 1
    if asked != n_given:
        raise DataError(f"init is {n_given} start(s): n_restarts must be {n_given}; it is {asked}.")


def draw(
    key: Key[Array, ""],
    samples: Samples,
    n_components: int,
    *,
    covariance: str = "full",
    init: str = "kmeans",
    n_restarts: int = 1,
    scaled: bool = True,
) -> Mixture:
    """Draw what ``fit`` starts from, in the units of the samples, leading axis of restarts.

    Args:
      scaled: whether distances are taken between columns divided by their standard deviations, as
        ``fit`` does for models that keep their form, or between columns as they are.

    The other arguments are those of ``fit``, the samples checked. Given back as ``init``, changed
    or not, the mixtures start a fit.

    Raises:
      DataError: bad arguments.
    """
    check_problem(samples, n_components, Options(n_restarts=n_restarts))
    entry = model(covariance)
    inside = in_frame(samples, entry.per_column and scaled)
    active, numbers = np.ones(n_components, bool), jnp.arange(n_restarts)
    found = _draw(check_key(key), numbers, inside, active, entry.name, init)
    return _all_to_user(found, inside.frame)


_all_to_user = jit(jax.vmap(to_user, in_axes=(0, None)))
all_to_frame = jit(jax.vmap(to_frame, in_axes=(0, None)))


@jit
def _put_last(mixtures: Mixture, extra: Mixture, n_given: Array, frame: Frame) -> Mixture:
    inside = jax.vmap(to_frame, in_axes=(0, None))(extra, frame)
    n_extra = extra.means.shape[0]
    given = jnp.arange(n_extra) >= n_extra - n_given

    last = pytree.where(given, inside, jax.tree.map(lambda leaf: leaf[-n_extra:], mixtures))
    return jax.tree.map(lambda own, new: own.at[-n_extra:].set(new), mixtures, last)


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


def _draw(
    key: Array, numbers: Array, samples: Samples, active: Any, covariance: str, init: str
) -> Mixture:
    if init not in initialize.STARTS:
        known = ", ".join(initialize.STARTS)
        raise DataError(f"unknown init {init!r}. Known: {known}; or give labels or a Mixture.")
    return initialize.STARTS[init](_keys(key, numbers), samples, jnp.asarray(active), covariance)


@jit
def _keys(key: Array, numbers: Array) -> Array:
    return jax.vmap(lambda r: jax.random.fold_in(key, r))(numbers)
