"""A mesh of devices, and samples laid out on it: the rows each device holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from jgmm._core.errors import DataError
from jgmm._core.pytree import Leaf
from jgmm._data.samples import DataSummary, Samples
from jgmm.covariance.models import model
from jgmm.mixture.mixture import Mixture

SAMPLES, RESTARTS = "samples", "restarts"


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Shard(Samples):
    """The samples of one device; ``total`` is the weight of all."""

    total: Leaf = field(kw_only=True)

    def total_weight(self) -> Array:
        """Σ_n w_n over the samples of all devices."""
        return self.total


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
    data_summary: DataSummary,
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
    n_features = len(data_summary.frame.shift)

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
        lambda leaf: jax.device_put(np.asarray(leaf), whole),
        (data_summary.frame, data_summary.total),
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
