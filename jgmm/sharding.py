"""A fit on several devices: samples along one axis of a mesh, restarts along the other.

Every device takes the E-step of its samples for its restarts; the sum of their ``Statistics`` over
the axis "samples" is all that travels in a step (``bytes_per_step``). The rest is the engine of one
device: the whole loop is one program, inside ``jax.shard_map``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Key

from jgmm import lanes, natural, racing, streaming
from jgmm.blocks import as_source
from jgmm.control import Options
from jgmm.covariance import model
from jgmm.em import method_of
from jgmm.frame import Census, Frame
from jgmm.inputs import check_key
from jgmm.lanes import Additive, Method, Restarts
from jgmm.mixture import Mixture
from jgmm.precision import jit
from jgmm.prior import Prior
from jgmm.pytree import Leaf
from jgmm.reading import Alone, Team, open_source
from jgmm.results import FitResult, finish
from jgmm.samples import Samples, make_samples
from jgmm.starts import all_to_frame, check_number, draw
from jgmm.statistics import Statistics
from jgmm.status import DataError, check
from jgmm.survey import Drawn

SAMPLES, RESTARTS = "samples", "restarts"


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Shard(Samples):
    """The samples of one device; ``total`` is the weight of all."""

    total: Leaf = field(kw_only=True)

    def total_weight(self) -> Array:
        """Σ_n w_n over the samples of all devices."""
        return self.total


@dataclass(frozen=True)
class Summed:
    """A method whose statistics are summed over the devices of a mesh axis, as a method."""

    method: Additive
    axis: str

    @property
    def max_steps(self) -> int:
        """That of the method."""
        return self.method.max_steps

    def begin(self, start: Any) -> Any:
        """The lane of one start."""
        return self.method.begin(start)

    def scout(self) -> Method:
        """The same around the method's scout."""
        return replace(self, method=self.method.scout())

    def step(self, lanes: Any, samples: Samples, control: Any) -> Any:
        """One step, the same on all devices of the axis."""
        statistics, digits = self.method.expect(lanes, samples)
        whole = add_over(self.axis, statistics)
        return self.method.advance(lanes, whole, digits, samples, control)


def add_over(axis: str, statistics: Statistics) -> Statistics:
    """The sum of statistics taken about the same centers over an axis of devices."""
    return replace(lax.psum(statistics, axis), center=statistics.center)


def bytes_per_step(
    n_components: int, n_features: int, covariance: str = "full", itemsize: int = 4
) -> int:
    """Bytes that the devices of the axis "samples" sum up in a step, for one restart.

    They are the numbers of a ``Statistics``: K counts, K D first moments, second moments as the
    model stores them, and a log-likelihood; however many samples there are.

    >>> bytes_per_step(16, 8)
    4676
    """
    entry = model(covariance)
    n_second = 1 if entry.shared else n_components
    second = n_second * n_features ** (entry.storage.ndim - 1)
    return (n_components * (1 + n_features) + second + 1) * itemsize


def make_mesh(n_samples: int | None = None, n_restarts: int = 1, devices: Any = None) -> Mesh:
    """A mesh for ``fit``.

    Args:
      n_samples: devices along the axis of samples; by default all there are.
      n_restarts: devices along the axis of restarts.
      devices: to use, by default all of all processes.

    Raises:
      DataError: more devices are asked for than there are.
    """
    devices = list(jax.devices() if devices is None else devices)
    n_samples = len(devices) // n_restarts if n_samples is None else n_samples
    wanted = n_samples * n_restarts
    if not 0 < wanted <= len(devices):
        raise DataError(
            f"a mesh of {n_samples} × {n_restarts} devices is asked for; there are {len(devices)}."
        )
    grid = np.asarray(devices[:wanted]).reshape(n_samples, n_restarts)
    return Mesh(grid, (SAMPLES, RESTARTS))


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
    subsample: int = streaming.SUBSAMPLE,
    tol: float | None = None,
    rtol: float | None = None,
    max_steps: int = 1000,
    ridge: Any = 0.0,
    equal_weights: bool = False,
    prior: Any = None,
    floor: Any = None,
    race: int = 0,
    accelerate: str | None = None,
    team: Team | None = None,
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
      team: the other processes of a job, see ``jgmm.processes``.

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
    return fit_on(key, x, n_components, options, mesh, sample_weight, subsample, team)


def fit_on(
    key: Array,
    x: Any,
    n_components: int,
    options: Options,
    mesh: Mesh,
    sample_weight: Any = None,
    subsample: int = streaming.SUBSAMPLE,
    team: Team | None = None,
) -> FitResult:
    """``fit`` with its options in one."""
    team = team or Alone()
    mesh = _checked(mesh)
    racing.check_steps(options.race)
    reading = open_source(as_source(x, sample_weight), None, team)
    method, entry = method_of(options), options.entry
    found = streaming.survey_all(check_key(key), reading, subsample)
    census = found.census(entry.per_column, entry.affine, reading.dtype)
    control = options.control(found.whitening(reading.dtype), n_components)
    starts = _starts(key, found.drawn, n_components, options, census)
    shares = [int(n) for n in team.gather(np.asarray(len(x)))]
    samples = _place(mesh, x, sample_weight, reading.dtype, shares, census)
    rows = samples.x.shape[0] // mesh.shape[SAMPLES]
    work = natural.work(entry, reading.n_features, n_components, rows)
    n_real, race = len(starts.means), options.race
    outcome = _run(mesh, method, work, race, n_real, _spread(starts, mesh), samples, control)
    # Every device has the same; go on with one.
    best, history, table = jax.tree.map(jnp.asarray, jax.device_get(outcome))
    return check(_finish(best, history, table, census, control.prior))


def _starts(
    key: Array, drawn: Drawn, n_components: int, options: Options, census: Census
) -> Mixture:
    """Starts in the frame, leading axis R: mixtures given, or made of the rows drawn.

    Raises:
      DataError: starts that do not fit the problem, or labels, which all samples would need.
    """
    init, n_restarts, name = options.init, options.n_restarts, options.entry.name
    if isinstance(init, Mixture):
        check_number(options)
        return streaming.given(options, n_components, census)
    if not isinstance(init, str):
        raise DataError("with a mesh, init is a name or a Mixture; labels: fit without a mesh.")
    samples = make_samples(drawn.x, drawn.weights)
    made = draw(key, samples, n_components, covariance=name, init=init, n_restarts=n_restarts)
    return all_to_frame(made, census.frame)


def _checked(mesh: Mesh) -> Mesh:
    """The mesh with both axes, left to ``shard_map``."""
    if SAMPLES not in mesh.axis_names or not {SAMPLES, RESTARTS}.issuperset(mesh.axis_names):
        raise DataError(
            f"the mesh has axes {mesh.axis_names}; it needs {SAMPLES!r}, and may have {RESTARTS!r}."
        )
    devices = mesh.devices
    if mesh.axis_names[0] == RESTARTS:
        devices = devices.T
    devices = devices.reshape(mesh.shape[SAMPLES], -1)
    return Mesh(devices, (SAMPLES, RESTARTS), axis_types=(AxisType.Auto, AxisType.Auto))


def _place(
    mesh: Mesh,
    x: Any,
    sample_weight: Any,
    dtype: np.dtype,
    shares: list[int],
    census: Census,
) -> Shard:
    """The samples on their devices; shards are filled up with rows of weight zero."""
    here = jax.process_index()
    owners = [device.process_index for device in mesh.devices[:, 0]]
    own = [i for i, owner in enumerate(owners) if owner == here]
    if sorted(set(owners)) != list(range(len(shares))):
        raise DataError(
            f"the mesh spreads samples over processes {sorted(set(owners))}; there are "
            f"{len(shares)}, and each holds a share of its own."
        )
    size = max(1, *(-(-n // owners.count(p)) for p, n in enumerate(shares)))
    n_features = len(census.frame.shift)

    def part(index: Any, array: Any, rest: tuple[int, ...]) -> np.ndarray:
        first = own.index((index[0].start or 0) // size) * size
        held = np.zeros((size, *rest), dtype)
        rows = array[first : first + size]
        held[: len(rows)] = rows
        return held

    def spread(array: Any, *rest: int) -> Array:
        sharding = NamedSharding(mesh, PartitionSpec(SAMPLES))
        shape = (size * len(owners), *rest)
        return jax.make_array_from_callback(
            shape, sharding, lambda index: part(index, array, tuple(rest))
        )

    weights = np.ones(len(x), dtype) if sample_weight is None else np.asarray(sample_weight)
    whole = NamedSharding(mesh, PartitionSpec())
    frame, total = jax.tree.map(
        lambda leaf: jax.device_put(np.asarray(leaf), whole), (census.frame, census.total)
    )
    return Shard(spread(np.asarray(x), n_features), spread(weights), frame, total=total)


def _spread(starts: Mixture, mesh: Mesh) -> Mixture:
    """As many starts for each group of devices: the last is repeated."""
    more = -len(starts.means) % mesh.shape[RESTARTS]
    sharding = NamedSharding(mesh, PartitionSpec(RESTARTS))

    def put(leaf: Array) -> Array:
        host = np.asarray(leaf)
        whole = np.concatenate([host, np.repeat(host[-1:], more, axis=0)])
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(put, starts)


@partial(jit, static_argnums=(0, 1, 2, 3, 4))
def _run(
    mesh: Mesh,
    method: Additive,
    work: int,
    race: int,
    n_restarts: int,
    starts: Mixture,
    samples: Shard,
    control: Any,
) -> tuple[Any, Array, Restarts]:
    """The best lane, its history, and the outcomes of all restarts."""
    summed = Summed(method, SAMPLES)

    def body(starts: Mixture, samples: Shard, control: Any) -> tuple[Any, Array, Restarts]:
        run = racing.run if race else lanes.run
        extra = (race,) if race else ()
        queue = run(summed, starts, samples, control, work, *extra)
        every = lax.all_gather((queue.best, queue.best_history, queue.table), RESTARTS)
        bests, histories, tables = every
        n_each = tables.status.shape[1]
        columns = jax.tree.map(lambda leaf: leaf.reshape(-1)[:n_restarts], tables)
        best = lanes.choose(columns)
        group = best // n_each
        lane, history = jax.tree.map(lambda leaf: leaf[group], (bests, histories))
        return lane, history, replace(columns, best=best)

    one = PartitionSpec(SAMPLES)
    everywhere = PartitionSpec()
    frame = Frame(everywhere, everywhere, everywhere)  # type: ignore[arg-type]
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
    best: Any, history: Array, table: Restarts, census: Census, prior: Prior | None
) -> FitResult:
    return finish(best.mixture, best.log_likelihood, best, history, table, census, prior)
