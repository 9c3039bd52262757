"""Many data sets of one size, each fitted from many starts: one queue of runs for all of them.

A run of EM with one component too many is slow, and few runs are slow together; so they do not go
side by side until the last has ended, but through ``jgmm.fitting.restarts``, each with its own data
set.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jgmm._core import budget, status
from jgmm._core.compilation import jit
from jgmm._core.pytree import Leaf
from jgmm._data import standardization
from jgmm._data.samples import Samples, identity
from jgmm.em.options import Control
from jgmm.fitting import restarts
from jgmm.fitting.algorithm import Algorithm
from jgmm.initialization.draw import draw
from jgmm.mixture.mixture import Mixture, to_standard

# Runs side by side: few enough that they do not wait for each other, and for the few slow ones.
N_SIDE_BY_SIDE = 64
WORK = budget.BATCH_WORK // N_SIDE_BY_SIDE


@dataclass(frozen=True)
class Search:
    """How a data set is fitted; what of it changes the program."""

    covariance: str
    init: str
    n_restarts: int
    algorithm: Algorithm


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DataSetState:
    """A run of EM, and the number of the data set it is fitted to."""

    run: Any
    number: Leaf

    @property
    def log_likelihood(self) -> Array:
        """Of the run, in the frame of its data set."""
        return self.run.log_likelihood

    @property
    def status(self) -> Array:
        """Of the run."""
        return self.run.status

    @property
    def n_steps(self) -> Array:
        """Of the run."""
        return self.run.n_steps

    @property
    def collapsed(self) -> Array:
        """Of the run."""
        return self.run.collapsed


class DataSets(NamedTuple):
    """B data sets in frames of their own, leaves with a leading axis, and when to stop."""

    samples: Samples
    control: Control


@dataclass(frozen=True)
class AlgorithmOfSets:
    """EM as a ``algorithm.Algorithm`` where every lane has a data set of its own.

    A start is a mixture in the frame of its data set, and the number of that.
    """

    algorithm: Algorithm

    @property
    def max_steps(self) -> int:
        """Updates at most, a run."""
        return self.algorithm.max_steps

    def approximate(self) -> AlgorithmOfSets:
        """EM that may leave the last digits for later."""
        return AlgorithmOfSets(self.algorithm.approximate())

    def init(self, start: tuple[Mixture, Array]) -> DataSetState:
        """The lane of one start."""
        mixture, number = start
        return DataSetState(self.algorithm.init(mixture), number)

    def step(self, states: DataSetState, samples: Samples, control: DataSets) -> DataSetState:
        """One step of every lane."""
        del samples

        def one(state: DataSetState) -> DataSetState:
            own = jax.tree.map(lambda leaf: leaf[state.number], control.samples)
            alone = jax.tree.map(lambda leaf: leaf[None], state.run)
            stepped = self.algorithm.step(alone, own, control.control)
            return DataSetState(jax.tree.map(lambda leaf: leaf[0], stepped), state.number)

        return jax.vmap(one)(states)


def best_log_likelihoods(
    keys: Key[Array, "B"],
    sets: Float[Array, "B N D"],
    given: Mixture,
    search: Search,
    control: Control,
) -> Float[np.ndarray, "B"]:
    """The highest log-likelihood that the fits of each data set end at.

    Args:
      keys: of the random starts of each.
      sets: B data sets.
      given: one more start for all, which says how many components are fitted.
      search: how.
      control: when to stop.

    Returns:
      In nats, of the data set in its frame (``standardization.standardize``), which depends on the
      data and the model but not on the number of components; NaN where no start ended valid.
    """
    begun, inside = _begin(keys, sets, given, search)
    method = AlgorithmOfSets(search.algorithm)
    batch = restarts.run_restarts(
        method, begun, unweighted(sets[0]), DataSets(inside, control), WORK
    )
    reached = np.asarray(status.score(batch.outcomes.log_likelihood, batch.outcomes.status))
    best = reached.reshape(len(sets), -1).max(axis=1).astype(np.float64)
    return np.where(np.isfinite(best), best, np.nan)


def starts(
    key: Key[Array, ""], x: Float[Array, "N D"], n_components: int, search: Search
) -> Mixture:
    """Random starts for one data set, leading axis, in its units."""
    return draw(
        key,
        unweighted(x),
        n_components,
        covariance=search.covariance,
        init=search.init,
        n_restarts=search.n_restarts,
    )


def append_start(many: Mixture, one: Mixture) -> Mixture:
    """Mixtures with a leading axis, and one more."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), many, one)


def unweighted(x: Float[Array, "N D"]) -> Samples:
    """Samples that each count once, in the identity frame."""
    return Samples(x, None, identity(x.shape[1], x.dtype))


@partial(jit, static_argnums=3)
def _begin(
    keys: Array, sets: Float[Array, "B N D"], given: Mixture, search: Search
) -> tuple[tuple[Mixture, Array], Samples]:
    """All starts of all data sets, one after another, and the data sets in their frames."""

    def one(key: Array, x: Array) -> tuple[Mixture, Samples]:
        inside = standardization.standardize(unweighted(x), given.model)
        begun = append_start(starts(key, x, given.n_components, search), given)
        return jax.vmap(lambda start: to_standard(start, inside.frame))(begun), inside

    begun, inside = jax.vmap(one)(keys, sets)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), begun)
    return (flat, jnp.repeat(jnp.arange(len(sets)), search.n_restarts + 1)), inside
