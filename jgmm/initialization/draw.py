"""R starts of a fit: drawn, given or both, seen in the frame of the samples, in waves."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jgmm._core import pytree
from jgmm._core.compilation import jit
from jgmm._core.errors import DataError
from jgmm._data.samples import Samples, Standardization
from jgmm._data.standardization import center_and_scale, whiten
from jgmm._data.validation import check_key
from jgmm.covariance.models import model
from jgmm.em.options import Options
from jgmm.initialization import methods
from jgmm.initialization.given import from_labels, from_mixture
from jgmm.initialization.problem import check_problem
from jgmm.mixture.mixture import Mixture, change_coordinates, to_original, to_standard


class ExtraStarts(NamedTuple):
    """Starts in the units of the samples that take the place of the last of the first wave.

    Attributes:
      mixtures: leading axis E, whatever the number that counts, so that one program serves all.
      n_given: how many count, the last ones.
    """

    mixtures: Mixture
    n_given: int


def _given(options: Options, samples: Samples, inside: Samples, n_components: int) -> Mixture:
    """The starts that labels or mixtures given by the user stand for, in the frame, leading axis R.

    Raises:
      DataError: they do not fit the problem, or another number of restarts is asked for.
    """
    init, covariance = options.init, options.entry.name
    check_number(options)
    if isinstance(init, Mixture):
        mixture = from_mixture(init, samples.x, n_components, covariance)
        if mixture.means.ndim == 3:
            return all_to_standard(mixture, inside.frame)
        start = to_standard(mixture, inside.frame)
    else:
        start = from_labels(init, inside, n_components, covariance, options.ridge)
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
    inside = center_and_scale_compiled(samples, entry.per_column and scaled)
    active, numbers = np.ones(n_components, bool), jnp.arange(n_restarts)
    found = _draw(check_key(key), numbers, inside, active, entry.name, init)
    return _all_to_original(found, inside.frame)


_all_to_original = jit(jax.vmap(to_original, in_axes=(0, None)))
all_to_standard = jit(jax.vmap(to_standard, in_axes=(0, None)))


@jit
def _put_last(mixtures: Mixture, extra: Mixture, n_given: Array, frame: Standardization) -> Mixture:
    inside = jax.vmap(to_standard, in_axes=(0, None))(extra, frame)
    n_extra = extra.means.shape[0]
    given = jnp.arange(n_extra) >= n_extra - n_given

    last = pytree.where(given, inside, jax.tree.map(lambda leaf: leaf[-n_extra:], mixtures))
    return jax.tree.map(lambda own, new: own.at[-n_extra:].set(new), mixtures, last)


center_and_scale_compiled = jit(center_and_scale, static_argnums=1)


@jit
def _to_whitened(mixtures: Mixture, inside: Samples) -> tuple[Mixture, Samples]:
    """Starts and samples in the frame that suits the covariance model.

    Starts are made where columns are only scaled: in whitened samples, distances would not show
    what separates clusters.
    """
    if not mixtures.model.affine:
        return mixtures, inside
    whole = whiten(inside)
    relative = whole.frame.inverse * inside.frame.scale[None, :]
    origin = jnp.zeros_like(whole.frame.shift)
    return jax.vmap(lambda mixture: change_coordinates(mixture, origin, relative))(mixtures), whole


def _draw(
    key: Array, numbers: Array, samples: Samples, active: Any, covariance: str, init: str
) -> Mixture:
    if init not in methods.STARTS:
        known = ", ".join(methods.STARTS)
        raise DataError(f"unknown init {init!r}. Known: {known}; or give labels or a Mixture.")
    return methods.STARTS[init](_keys(key, numbers), samples, jnp.asarray(active), covariance)


@jit
def _keys(key: Array, numbers: Array) -> Array:
    return jax.vmap(lambda r: jax.random.fold_in(key, r))(numbers)
