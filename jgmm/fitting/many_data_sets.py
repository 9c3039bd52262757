"""Fit many data sets of one size, each from many starts, as one batch of restarts.

A run of EM with one component too many is slow, and only few of the runs are slow. If all runs went
side by side until the last has ended, most of them would wait for those few. So the runs of all
data sets go through ``jgmm.fitting.restarts``: each run knows its own data set, and a finished run
is recorded and its place taken by the next start.
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


@dataclass(frozen=True)
class Search:
    """How every data set is fitted: the options that change the compiled program.

    Attributes:
      covariance: name of the covariance model.
      init: a name in ``jgmm.initialization.STARTS``.
      n_restarts: random starts of each data set.
      algorithm: EM, plain or accelerated.
    """

    covariance: str
    init: str
    n_restarts: int
    algorithm: Algorithm


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DataSetState:
    """The state of one run of EM, and the number of the data set that it is fitted to."""

    run: Any
    number: Leaf

    @property
    def log_likelihood(self) -> Array:
        """Log-likelihood of the run, in the frame of its data set."""
        return self.run.log_likelihood

    @property
    def status(self) -> Array:
        """Status code of the run."""
        return self.run.status

    @property
    def n_steps(self) -> Array:
        """Steps that the run has taken."""
        return self.run.n_steps

    @property
    def collapsed(self) -> Array:
        """The component of the run that collapsed, or -1."""
        return self.run.collapsed


class DataSets(NamedTuple):
    """B data sets, each in its own frame, and when their fits stop.

    Attributes:
      samples: leaves with a leading axis B.
      control: tolerances and ridge, the same for all.
    """

    samples: Samples
    control: Control


@dataclass(frozen=True)
class PerDataSet:
    """An ``Algorithm`` in which every run is fitted to a data set of its own.

    A start is a mixture in the frame of its data set, and the number of that data set. The data
    sets are given as ``control``.

    Attributes:
      algorithm: the algorithm that fits one data set.
    """

    algorithm: Algorithm

    @property
    def max_steps(self) -> int:
        """Maximal number of parameter updates of a run."""
        return self.algorithm.max_steps

    def approximate(self) -> PerDataSet:
        """Return the same with an algorithm that may leave the last digits to a later run."""
        return PerDataSet(self.algorithm.approximate())

    def init(self, start: tuple[Mixture, Array]) -> DataSetState:
        """Return the state before the first step from one start."""
        mixture, number = start
        return DataSetState(self.algorithm.init(mixture), number)

    def step(self, states: DataSetState, samples: Samples, control: DataSets) -> DataSetState:
        """Take one step of every run, each with its own data set; ``samples`` is not read."""
        del samples

        def one(state: DataSetState) -> DataSetState:
            own = jax.tree.map(lambda leaf: leaf[state.number], control.samples)
            batch_of_one = jax.tree.map(lambda leaf: leaf[None], state.run)
            stepped = self.algorithm.step(batch_of_one, own, control.control)
            return DataSetState(jax.tree.map(lambda leaf: leaf[0], stepped), state.number)

        return jax.vmap(one)(states)


def best_log_likelihoods(
    keys: Key[Array, "B"],
    sets: Float[Array, "B N D"],
    given: Mixture,
    search: Search,
    control: Control,
) -> Float[np.ndarray, "B"]:
    """Return the highest log-likelihood that the fits of each data set reach.

    Args:
      keys: one key for the random starts of each data set.
      sets: B data sets of N samples.
      given: one more start, the same for all data sets; it sets the number of components.
      search: how every data set is fitted.
      control: when a run stops.

    Returns:
      In nats, of the data set in its frame (``standardization.standardize``), which depends on the
      data and the model but not on the number of components; NaN where no start ended valid.
    """
    all_starts, standardized = _begin(keys, sets, given, search)
    work = budget.BATCH_WORK // budget.MAX_DATA_SET_RUNS
    batch = restarts.run_restarts(
        PerDataSet(search.algorithm),
        all_starts,
        unweighted(sets[0]),
        DataSets(standardized, control),
        work,
    )
    scores = np.asarray(status.score(batch.outcomes.log_likelihood, batch.outcomes.status))
    best = scores.reshape(len(sets), -1).max(axis=1).astype(np.float64)
    return np.where(np.isfinite(best), best, np.nan)


def draw_starts(
    key: Key[Array, ""], x: Float[Array, "N D"], n_components: int, search: Search
) -> Mixture:
    """Draw the random starts for one data set, with a leading axis, in the units of the data."""
    return draw(
        key,
        unweighted(x),
        n_components,
        covariance=search.covariance,
        init=search.init,
        n_restarts=search.n_restarts,
    )


def append_start(many: Mixture, one: Mixture) -> Mixture:
    """Append one mixture to mixtures with a leading axis."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), many, one)


def unweighted(x: Float[Array, "N D"]) -> Samples:
    """Return samples that each count once, in the identity frame."""
    return Samples(x, None, identity(x.shape[1], x.dtype))


@partial(jit, static_argnums=3)
def _begin(
    keys: Array, sets: Float[Array, "B N D"], given: Mixture, search: Search
) -> tuple[tuple[Mixture, Array], Samples]:
    """Return all starts of all data sets, one after another, and the data sets in their frames."""

    def one(key: Array, x: Array) -> tuple[Mixture, Samples]:
        standardized = standardization.standardize(unweighted(x), given.model)
        starts = append_start(draw_starts(key, x, given.n_components, search), given)
        return jax.vmap(lambda start: to_standard(start, standardized.frame))(starts), standardized

    starts, standardized = jax.vmap(one)(keys, sets)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), starts)
    return (flat, jnp.repeat(jnp.arange(len(sets)), search.n_restarts + 1)), standardized
