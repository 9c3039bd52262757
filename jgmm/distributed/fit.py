"""A fit on several devices: samples along one axis of a mesh, restarts along the other.

Every device takes the E-step of its samples for its restarts; the sum of their ``Statistics`` over
the axis "samples" is all that travels in a step (``bytes_per_step``). The rest is the engine of one
device: the whole loop is one program, inside ``jax.shard_map``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Key

from jgmm._core.compilation import jit
from jgmm._core.errors import DataError
from jgmm._data.samples import DataSummary, Samples, Standardization, make_samples
from jgmm._data.validation import check_key
from jgmm.distributed.mesh import RESTARTS, SAMPLES, Shard, _checked, _place, _spread
from jgmm.em import exponential_family
from jgmm.em.options import Options
from jgmm.em.statistics import Statistics
from jgmm.fitting import racing, restarts, results
from jgmm.fitting.algorithm import AdditiveAlgorithm, Algorithm
from jgmm.fitting.results import FitResult, Restarts, raise_if_failed, to_result
from jgmm.fitting.single_run import algorithm_for
from jgmm.initialization.draw import all_to_standard, check_number, draw
from jgmm.mixture.mixture import Mixture
from jgmm.mixture.prior import Prior
from jgmm.streaming.fit import SUBSAMPLE, given, summarize_all
from jgmm.streaming.reader import ProcessGroup, SingleProcess, open_source
from jgmm.streaming.sources import as_source
from jgmm.streaming.subsample import Subsample


@dataclass(frozen=True)
class Sharded:
    """A method whose statistics are summed over the devices of a mesh axis, as a method."""

    method: AdditiveAlgorithm
    axis: str

    @property
    def max_steps(self) -> int:
        """That of the method."""
        return self.method.max_steps

    def init(self, start: Any) -> Any:
        """The lane of one start."""
        return self.method.init(start)

    def approximate(self) -> Algorithm:
        """The same around the method's scout."""
        return replace(self, method=self.method.approximate())

    def step(self, states: Any, samples: Samples, control: Any) -> Any:
        """One step, the same on all devices of the axis."""
        statistics, precision = self.method.e_step(states, samples)
        whole = add_over(self.axis, statistics)
        return self.method.advance(states, whole, precision, samples, control)


def add_over(axis: str, statistics: Statistics) -> Statistics:
    """The sum of statistics taken about the same centers over an axis of devices."""
    return replace(lax.psum(statistics, axis), center=statistics.center)


def fit(
    key: Key[Array, ""],
    x: Any,
    n_components: int,
    *,
    mesh: Mesh,
    covariance: str = "full",
    n_restarts: int = 1,
    init: Any = "kmeans",
    sample_weight: Any = None,
    subsample: int = SUBSAMPLE,
    tol: float | None = None,
    rtol: float | None = None,
    max_steps: int = 1000,
    ridge: Any = 0.0,
    equal_weights: bool = False,
    prior: Any = None,
    floor: Any = None,
    race: int = 0,
    accelerate: str | None = None,
    group: ProcessGroup | None = None,
) -> FitResult:
    """``jgmm.fit`` on the devices of a mesh; the same result, but for rounding.

    Args:
      x: samples (N, D) in this process's memory; in a job of several, its share of them.
      mesh: with an axis "samples", and one "restarts" if restarts are to be spread, too; see
        ``make_mesh``.
      sample_weight: of this process's samples.
      init: a name or a ``Mixture``, as for ``jgmm.fit``.
      subsample: starts are made of at most so many rows; with more, they are not those of
        ``jgmm.fit``, but the same for every mesh.
      team: the other processes of a job, see ``jgmm.distributed.processes``.

    The other arguments are those of ``jgmm.fit``. Shares and shards may be of any size, also empty.
    A race is run within each group of devices that share restarts.

    Raises:
      DataError: see ``jgmm.fit``; or a mesh without the axes.
      FitError: no restart ended in usable parameters.
    """
    options = Options(
        covariance=covariance,
        n_restarts=n_restarts,
        init=init,
        race=race,
        tol=tol,
        rtol=rtol,
        max_steps=max_steps,
        ridge=ridge,
        equal_weights=equal_weights,
        prior=prior,
        floor=floor,
        accelerate=accelerate,
    )
    return fit_on(key, x, n_components, options, mesh, sample_weight, subsample, group)


def fit_on(
    key: Array,
    x: Any,
    n_components: int,
    options: Options,
    mesh: Mesh,
    sample_weight: Any = None,
    subsample: int = SUBSAMPLE,
    group: ProcessGroup | None = None,
) -> FitResult:
    """``fit`` with its options in one."""
    group = group or SingleProcess()
    mesh = _checked(mesh)
    racing.check_steps(options.race)
    reader = open_source(as_source(x, sample_weight), None, group)
    method, entry = algorithm_for(options), options.entry
    found = summarize_all(check_key(key), reader, subsample)
    data_summary = found.data_summary(entry.per_column, entry.affine, reader.dtype)
    control = options.control(found.whitening(reader.dtype), n_components)
    starts = _starts(key, found.drawn, n_components, options, data_summary)
    shares = [int(n) for n in group.all_gather(np.asarray(len(x)))]
    samples = _place(mesh, x, sample_weight, reader.dtype, shares, data_summary)
    rows = samples.x.shape[0] // mesh.shape[SAMPLES]
    work = exponential_family.cost_per_step(entry, reader.n_features, n_components, rows)
    n_real, race = len(starts.means), options.race
    outcome = _run(mesh, method, work, race, n_real, _spread(starts, mesh), samples, control)
    # Every device has the same; go on with one.
    best, history, table = jax.tree.map(jnp.asarray, jax.device_get(outcome))
    return raise_if_failed(_finish(best, history, table, data_summary, control.prior))


def _starts(
    key: Array, drawn: Subsample, n_components: int, options: Options, data_summary: DataSummary
) -> Mixture:
    """Starts in the frame, leading axis R: mixtures given, or made of the rows drawn.

    Raises:
      DataError: starts that do not fit the problem, or labels, which all samples would need.
    """
    init, n_restarts, name = options.init, options.n_restarts, options.entry.name
    if isinstance(init, Mixture):
        check_number(options)
        return given(options, n_components, data_summary)
    if not isinstance(init, str):
        raise DataError("with a mesh, init is a name or a Mixture; labels: fit without a mesh.")
    samples = make_samples(drawn.x, drawn.weights)
    made = draw(key, samples, n_components, covariance=name, init=init, n_restarts=n_restarts)
    return all_to_standard(made, data_summary.frame)


@partial(jit, static_argnums=(0, 1, 2, 3, 4))
def _run(
    mesh: Mesh,
    method: AdditiveAlgorithm,
    work: int,
    race: int,
    n_restarts: int,
    starts: Mixture,
    samples: Shard,
    control: Any,
) -> tuple[Any, Array, Restarts]:
    """The best lane, its history, and the outcomes of all restarts."""
    summed = Sharded(method, SAMPLES)

    def body(starts: Mixture, samples: Shard, control: Any) -> tuple[Any, Array, Restarts]:
        run = racing.race if race else restarts.run_restarts
        extra = (race,) if race else ()
        batch = run(summed, starts, samples, control, work, *extra)
        every = lax.all_gather((batch.best, batch.best_history, batch.outcomes), RESTARTS)
        bests, histories, tables = every
        n_each = tables.status.shape[1]
        columns = jax.tree.map(lambda leaf: leaf.reshape(-1)[:n_restarts], tables)
        best = results.choose(columns)
        group = best // n_each
        state, history = jax.tree.map(lambda leaf: leaf[group], (bests, histories))
        return state, history, replace(columns, best=best)

    one = PartitionSpec(SAMPLES)
    everywhere = PartitionSpec()
    frame = Standardization(everywhere, everywhere, everywhere)  # type: ignore[arg-type]
    shards = Shard(one, one, frame, total=everywhere)  # type: ignore[arg-type]
    return jax.shard_map(
        body,
        mesh=mesh,
        in_specs=(PartitionSpec(RESTARTS), shards, everywhere),
        out_specs=everywhere,
        check_vma=False,
    )(starts, samples, control)


@jit
def _finish(
    best: Any, history: Array, table: Restarts, data_summary: DataSummary, prior: Prior | None
) -> FitResult:
    return to_result(best.mixture, best.log_likelihood, best, history, table, data_summary, prior)
