"""Fit a mixture on a mesh of devices: samples along one axis of the mesh, restarts along the other.

Every device computes the E-step of its samples for its restarts. In a step, the devices exchange
only the sum of their ``Statistics`` over the axis "samples" (``bytes_per_step``). Everything else
is computed as on one device. The whole loop is one program, inside ``jax.shard_map``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Key

from jgmm._core.arguments import key_first
from jgmm._core.compilation import jit, without_debug_nans
from jgmm._core.errors import DataError
from jgmm._data.dataframes import names_of
from jgmm._data.samples import DataSummary, Samples, Standardization, make_samples
from jgmm._data.validation import as_numbers
from jgmm.distributed.mesh import RESTARTS, SAMPLES, Shard, _checked, _place, _spread
from jgmm.em import exponential_family
from jgmm.em.options import AcceptedOptions, OptionKeywords, Options
from jgmm.em.statistics import Statistics
from jgmm.fitting import racing, restarts, results
from jgmm.fitting.algorithm import AdditiveAlgorithm, Algorithm
from jgmm.fitting.results import FitResult, Restarts, raise_if_failed, to_result
from jgmm.fitting.single_run import algorithm_for
from jgmm.initialization.draw import all_to_standard, check_number, draw
from jgmm.mixture.mixture import Mixture
from jgmm.mixture.prior import Prior
from jgmm.streaming.fit import SUBSAMPLE, check_summary, given_starts, summarize_all
from jgmm.streaming.passes import evaluate_returned
from jgmm.streaming.reader import ProcessGroup, SingleProcess, open_reader
from jgmm.streaming.sources import array_source
from jgmm.streaming.subsample import Subsample


@dataclass(frozen=True)
class Sharded:
    """Algorithm whose statistics are summed over the devices of a mesh axis in every step.

    Attributes:
      algorithm: what to run, such as EM.
      axis: name of the mesh axis along which samples are divided.
    """

    algorithm: AdditiveAlgorithm
    axis: str

    @property
    def max_steps(self) -> int:
        """Largest number of steps, that of ``algorithm``."""
        return self.algorithm.max_steps

    def init(self, start: Any) -> Any:
        """Return the state of the run from one start."""
        return self.algorithm.init(start)

    def approximate(self) -> Algorithm:
        """Return the same with the approximate form of ``algorithm``."""
        return replace(self, algorithm=self.algorithm.approximate())

    def step(self, states: Any, samples: Samples, control: Any) -> Any:
        """Take one step; its result is the same on all devices of the axis."""
        statistics, precision = self.algorithm.e_step(states, samples)
        whole = add_over(self.axis, statistics)
        return self.algorithm.update(states, whole, precision, samples, control)


def add_over(axis: str, statistics: Statistics) -> Statistics:
    """Sum statistics over an axis of devices; all are taken about the same centers."""
    return replace(lax.psum(statistics, axis), center=statistics.center)


ACCEPTED = AcceptedOptions()


@key_first
@without_debug_nans
@ACCEPTED.signature
def fit(
    key: Key[Array, ""],
    x: Any,
    n_components: int,
    *,
    mesh: Mesh,
    sample_weight: Any = None,
    subsample: int = SUBSAMPLE,
    group: ProcessGroup | None = None,
    options: Options | None = None,
    **keywords: Unpack[OptionKeywords],
) -> FitResult:
    """Fit a mixture by EM on the devices of a mesh, with the result of ``jgmm.fit`` up to rounding.

    Args:
      key: typed key; determines the starts.
      x: samples (N, D) in this process's memory; in a job of several processes, its share of them.
        A share may have any size and may be empty.
      n_components: K.
      mesh: mesh with an axis "samples", and an axis "restarts" if restarts are to be spread as
        well; see ``make_mesh``.
      sample_weight: weights of this process's samples, (N,).
      subsample: largest number of rows that starts are made from. If there are more samples, the
        starts are not those of ``jgmm.fit``, but they are the same for every mesh.
      group: all processes of the job, see ``jgmm.distributed.join``.
      options, **keywords: see ``jgmm.Options``. Here ``init`` is a name or a ``Mixture``. A race is
        run separately in each group of devices that runs the same restarts.

    Raises:
      DataError: see ``jgmm.fit``; or a mesh without the axis "samples", or with other axes.
      FitError: no restart ended in usable parameters.
    """
    options = ACCEPTED.read(options, keywords)
    group = group or SingleProcess()
    mesh = _checked(mesh)
    racing.check_steps(options.race)
    source = array_source(np.asarray(as_numbers(x, "x")), sample_weight, names_of(x))
    reader = open_reader(source, None, group)
    algorithm, entry = algorithm_for(options), options.entry
    summary = summarize_all(key, reader, subsample)
    check_summary(summary, n_components, options)
    data_summary = summary.data_summary(entry.per_column, entry.affine, reader.dtype)
    control = options.control(summary.whitening(reader.dtype), n_components)
    starts = _starts(key, summary.subsample, n_components, options, data_summary)
    shares = [int(n) for n in group.all_gather(np.asarray(source.n_rows))]
    samples = _place(mesh, source.x, source.weights, reader.dtype, shares, data_summary)
    rows = samples.x.shape[0] // mesh.shape[SAMPLES]
    cost = exponential_family.cost_per_step(entry, reader.n_features, n_components, rows)
    n_real, race = len(starts.means), options.race
    outcome = _run(mesh, algorithm, cost, race, n_real, _spread(starts, mesh), samples, control)
    # All devices hold the same outcome; continue with one copy of it.
    best, history, outcomes = jax.tree.map(jnp.asarray, jax.device_get(outcome))
    result = _finish(best, history, outcomes, data_summary, control.prior)
    return raise_if_failed(evaluate_returned(result, reader, data_summary))


def _starts(
    key: Array, drawn: Subsample, n_components: int, options: Options, data_summary: DataSummary
) -> Mixture:
    """Return the starts in standardized coordinates, leading axis R.

    They are the mixtures given as ``init``, or are made from the rows drawn.

    Raises:
      DataError: starts that do not fit the problem, or labels as ``init``: only the rows drawn are
        known here, and labels belong to all samples.
    """
    init, n_restarts, name = options.init, options.n_starts, options.entry.name
    if isinstance(init, Mixture):
        check_number(options)
        return given_starts(options, n_components, data_summary)
    if not isinstance(init, str):
        raise DataError("with a mesh, init is a name or a Mixture; labels: fit without a mesh.")
    samples = make_samples(drawn.x, drawn.weights)
    made = draw(key, samples, n_components, covariance=name, init=init, n_restarts=n_restarts)
    return all_to_standard(made, data_summary.frame)


@partial(jit, static_argnums=(0, 1, 2, 3, 4))
def _run(
    mesh: Mesh,
    algorithm: AdditiveAlgorithm,
    cost: int,
    race: int,
    n_restarts: int,
    starts: Mixture,
    samples: Shard,
    control: Any,
) -> tuple[Any, Array, Restarts]:
    """Run all restarts; return the state of the best, its history, and the outcomes of all.

    Args:
      mesh: devices, see ``make_mesh``.
      algorithm: EM, accelerated or not.
      cost: multiplications of a step of one restart on one device.
      race: number of steps before the race is decided; zero for no race.
      n_restarts: R, without the starts added to give every group of devices equally many.
      starts: in standardized coordinates, divided over the axis "restarts".
      samples: divided over the axis "samples".
      control: tolerances, regularization and prior.
    """
    summed = Sharded(algorithm, SAMPLES)

    def body(starts: Mixture, samples: Shard, control: Any) -> tuple[Any, Array, Restarts]:
        run = racing.race if race else restarts.run_restarts
        extra = (race,) if race else ()
        batch = run(summed, starts, samples, control, cost, *extra)
        every = lax.all_gather((batch.best, batch.best_history, batch.outcomes), RESTARTS)
        bests, histories, outcomes = every  # leading axis: groups of devices
        n_each = outcomes.status.shape[1]
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1)[:n_restarts], outcomes)
        best = results.choose(flat)
        group = best // n_each
        state, history = jax.tree.map(lambda leaf: leaf[group], (bests, histories))
        return state, history, replace(flat, best=best)

    divided, replicated = PartitionSpec(SAMPLES), PartitionSpec()
    frame = Standardization(replicated, replicated, replicated)  # type: ignore[arg-type]
    shards = Shard(divided, divided, frame, total=replicated)  # type: ignore[arg-type]
    return jax.shard_map(
        body,
        mesh=mesh,
        in_specs=(PartitionSpec(RESTARTS), shards, replicated),
        out_specs=replicated,
        check_vma=False,
    )(starts, samples, control)


@jit
def _finish(
    best: Any, history: Array, outcomes: Restarts, data_summary: DataSummary, prior: Prior | None
) -> FitResult:
    """Make the ``FitResult`` of the best run, in the user's units."""
    return to_result(
        best.mixture, best.log_likelihood, best, history, outcomes, data_summary, prior
    )
