"""The starts of a fit: drawn by name, taken from labels or mixtures, and put where the fit runs.

Starts are drawn where every column is only centred and scaled: in whitened samples, distances would
not show what separates clusters. The fit itself runs where the samples are whitened, if the
covariance model keeps its form there. ``batches_of_starts`` does both, batch by batch, so that
memory does not grow with the number of restarts.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jgmm._core import budget, pytree
from jgmm._core.arguments import key_first
from jgmm._core.compilation import jit
from jgmm._core.errors import DataError, shown
from jgmm._data.samples import Samples, Standardization, make_samples
from jgmm._data.standardization import center_and_scale, whiten
from jgmm.covariance.models import model
from jgmm.em.options import Options, number_given
from jgmm.initialization import methods
from jgmm.initialization.given import from_labels, from_mixture, place_labelled
from jgmm.initialization.problem import check_constant_columns, check_problem, constants_matter
from jgmm.mixture.mixture import Mixture, change_coordinates, to_original, to_standard


class ExtraStarts(NamedTuple):
    """Starts that replace the last ones of the first batch, in the units of the samples.

    Attributes:
      mixtures: leading axis E. E does not depend on how many of them count, so that one compiled
        program serves all.
      n_given: number of mixtures that count, the last ones.
    """

    mixtures: Mixture
    n_given: int


class BatchOfStarts(NamedTuple):
    """Starts with a leading axis, and the samples, both in the frame in which the fit runs.

    Attributes:
      mixtures: R' of the R starts.
      samples: the samples.
      numbers: the numbers of these starts among all of the fit, from 0 to R - 1, (R',).
      n_starts: how many of them are run, the first ones; None if all are.
    """

    mixtures: Mixture
    samples: Samples
    numbers: Array
    n_starts: int | None = None


def batches_of_starts(
    key: Array,
    samples: Samples,
    active: np.ndarray,
    options: Options,
    extra: ExtraStarts | None = None,
    room: int | None = None,
) -> Iterator[BatchOfStarts]:
    """Yield the R starts of a fit in batches that fit in memory.

    Args:
      key: restart r is drawn with ``fold_in(key, r)``.
      samples: in the identity frame.
      active: which components take part, (K,).
      options: the covariance model, the ridge, ``n_restarts`` and ``init`` are read: a name in
        ``STARTS``, labels, or a ``Mixture``, which with a leading axis is R starts. Starts that are
        given are one batch.
      extra: see ``ExtraStarts``; no more than the first batch holds, and only where starts are
        drawn.
      room: the number of starts that a batch has room for, if programs are to serve every number up
        to it; only where starts are drawn.

    Raises:
      DataError: a start that does not fit, or constant columns that make covariances singular.
    """
    entry, n_restarts = options.entry, options.n_starts
    scaled = compiled_center_and_scale(samples, entry.per_column)
    check_constant_columns(samples, scaled, constants_matter(options))
    if not isinstance(options.init, str):
        given = _given(options, samples, scaled, len(active))
        inside, whitened = _to_whitened(given, scaled)
        yield BatchOfStarts(inside, whitened, jnp.arange(len(given.means)))
        return
    at_once = room or budget.MAX_STARTS_AT_ONCE
    for first in range(0, n_restarts, at_once):
        size = min(at_once, n_restarts - first)
        numbers = np.arange(first, first + (room or size))
        if room is None:
            mixtures = draw_numbered(key, numbers, scaled, active, entry.name, options.init)
        else:
            mixtures = _draw_in_groups(key, numbers, size, scaled, active, options)
        if scaled.labels is not None:
            mixtures = place_labelled(mixtures, scaled)
        if extra is not None and first == 0:
            mixtures = _replace_last(mixtures, extra.mixtures, extra.n_given, size, scaled.frame)
        inside, whitened = _to_whitened(mixtures, scaled)
        number = jax.device_put(numbers)
        yield BatchOfStarts(inside, whitened, number, size if room else None)


def _draw_in_groups(
    key: Array,
    numbers: np.ndarray,
    n_starts: int,
    samples: Samples,
    active: np.ndarray,
    options: Options,
) -> Mixture:
    """Draw starts group by group, with programs for one group, and put them in arrays with room.

    Args:
      numbers: of the starts that there is room for; those after ``n_starts`` are never run.
      n_starts: how many to draw.
    """
    size = budget.MIN_BATCH if jax.default_backend() == "cpu" else len(numbers)
    names = methods.method_names(options.init)
    groups, places = [], []
    for i, name in enumerate(names):
        own = np.flatnonzero(numbers[:n_starts] % len(names) == i)
        for first in range(0, len(own), size):
            place = np.resize(own[first : first + size], size)  # repeated where the group is short
            drawn = numbers[place]
            groups.append(draw_numbered(key, drawn, samples, active, options.entry.name, name))
            places.append(place)
    if len(groups) == 1 and size == len(numbers) and (places[0] == np.arange(size)).all():
        return groups[0]
    # Put together on the host, so that nothing is compiled for the number of groups. Places of
    # starts that are never run hold those of the last group.
    index = np.zeros(len(numbers), int)
    place = np.concatenate(places)
    index[place] = np.arange(len(place))
    host = jax.device_get(groups)
    whole = jax.tree.map(lambda *leaves: np.concatenate(leaves)[index], *host)
    return jax.device_put(whole)


@key_first
def draw(
    key: Key[Array, ""],
    x: Any,
    n_components: int,
    *,
    covariance: str = "full",
    init: str = "portfolio",
    n_restarts: int = 1,
    sample_weight: Any = None,
    scaled: bool = True,
) -> Mixture:
    """Draw the starts of a fit, in the units of the samples, with a leading axis of restarts.

    Args:
      key: typed key; restart r is drawn with ``fold_in(key, r)``, as in ``jgmm.fit``.
      x: samples in rows, (N, D), or ``Samples``.
      n_components: K.
      covariance: name of the covariance model.
      init: a name in ``jgmm.initialization.STARTS``, or "portfolio".
      n_restarts: R.
      sample_weight: how many times each sample counts, (N,).
      scaled: whether distances are taken between columns divided by their standard deviations, as
        ``jgmm.fit`` does for models that keep their form, or between columns as they are.

    Returns:
      Mixtures, leading axis R. Given back as ``init=``, changed or not, they start a fit.

    Raises:
      DataError: bad samples or arguments.

    >>> import jax, jgmm
    >>> x = [[0.0], [0.1], [0.2], [5.0], [5.1], [5.3]]
    >>> starts = jgmm.initialization.draw(jax.random.key(0), x, 2, init="points", n_restarts=3)
    >>> starts.means.shape
    (3, 2, 1)
    """
    samples = x if isinstance(x, Samples) else make_samples(x, sample_weight)
    check_problem(samples, n_components, Options(n_restarts=n_restarts))
    entry = model(covariance)
    inside = compiled_center_and_scale(samples, entry.per_column and scaled)
    active, numbers = np.ones(n_components, bool), np.arange(n_restarts)
    mixtures = draw_numbered(key, numbers, inside, active, entry.name, init)
    return _all_to_original(mixtures, inside.frame)


def draw_numbered(
    key: Array, numbers: Any, samples: Samples, active: Any, covariance: str, init: str
) -> Mixture:
    """Draw the restarts of given numbers, (R,), in the standardized frame of the samples.

    Raises:
      DataError: ``init`` is not one of ``init_names``.
    """
    if init not in methods.init_names():
        known = ", ".join(methods.init_names())
        raise DataError(f"unknown init {shown(init)}. Known: {known}; or give labels or a Mixture.")
    names, active = methods.method_names(init), jnp.asarray(active)
    if len(names) == 1:
        return methods.STARTS[init](_keys(key, jnp.asarray(numbers)), samples, active, covariance)
    numbers = np.asarray(numbers)
    own = [np.flatnonzero(numbers % len(names) == i) for i in range(len(names))]
    parts = [
        draw_numbered(key, numbers[where], samples, active, covariance, name)
        for name, where in zip(names, own, strict=True)
        if len(where)
    ]
    order = np.argsort(np.concatenate(own))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[order], *parts)


@partial(jit, quick=True)
def _keys(key: Array, numbers: Array) -> Array:
    return jax.vmap(lambda r: jax.random.fold_in(key, r))(numbers)


def _given(options: Options, samples: Samples, scaled: Samples, n_components: int) -> Mixture:
    """Turn labels or mixtures given by the user into starts, in the frame, with leading axis R.

    Raises:
      DataError: they do not fit the problem, or another number of restarts is asked for.
    """
    init, covariance = options.init, options.entry.name
    check_number(options)
    if isinstance(init, Mixture):
        mixture = from_mixture(init, samples.x, n_components, covariance)
        if mixture.means.ndim == 3:
            return all_to_standard(mixture, scaled.frame)
        start = to_standard(mixture, scaled.frame)
    else:
        control = options.control(samples, n_components)
        start = from_labels(init, scaled, n_components, covariance, control)
    return jax.tree.map(lambda leaf: leaf[None], start)


def check_number(options: Options) -> None:
    """Refuse a number of restarts that is not the number of starts given.

    Raises:
      DataError: with both numbers.
    """
    n_given, asked = number_given(options.init), options.n_starts
    if asked != n_given:
        raise DataError(f"init is {n_given} start(s): n_restarts must be {n_given}; it is {asked}.")


compiled_center_and_scale = jit(center_and_scale, static_argnums=1, quick=True)
_all_to_original = jit(jax.vmap(to_original, in_axes=(0, None)), quick=True)
all_to_standard = jit(jax.vmap(to_standard, in_axes=(0, None)), quick=True)


@partial(jit, quick=True)
def _replace_last(
    mixtures: Mixture, extra: Mixture, n_given: Array, n_starts: Array, frame: Standardization
) -> Mixture:
    """Put the last ``n_given`` extra starts in the place of the last of ``n_starts`` starts."""
    inside = jax.vmap(to_standard, in_axes=(0, None))(extra, frame)
    number, n_extra = jnp.arange(len(mixtures.means)), extra.means.shape[0]
    given = (number >= n_starts - n_given) & (number < n_starts)
    index = jnp.clip(number - n_starts + n_extra, 0, n_extra - 1)
    return pytree.where(given, jax.tree.map(lambda leaf: leaf[index], inside), mixtures)


@partial(jit, quick=True)
def _to_whitened(mixtures: Mixture, scaled: Samples) -> tuple[Mixture, Samples]:
    """Whiten samples and starts if the covariance model keeps its form; else leave them."""
    if not mixtures.model.affine:
        return mixtures, scaled
    whole = whiten(scaled)
    relative = whole.frame.inverse * scaled.frame.scale[None, :]
    origin = jnp.zeros_like(whole.frame.shift)
    return jax.vmap(lambda mixture: change_coordinates(mixture, origin, relative))(mixtures), whole
