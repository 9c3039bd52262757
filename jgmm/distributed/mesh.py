"""Meshes of devices, and the placement of samples and restarts on them."""

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
    """Samples of one device, with the total weight of the samples of all devices.

    Attributes:
      total: Σ_n w_n over all devices.
    """

    total: Leaf = field(kw_only=True)

    def total_weight(self) -> Array:
        """Return Σ_n w_n over the samples of all devices."""
        return self.total


def bytes_per_step(
    n_components: int, n_features: int, covariance: str = "full", itemsize: int = 4
) -> int:
    """Return the bytes that a device contributes to the sum over "samples" in a step, per restart.

    They are the numbers of a ``Statistics``: K counts and K squares, K D first moments, the second
    moments in the form in which the model stores them, and a log-likelihood. They do not depend on
    the number of samples.

    Args:
      n_components: K.
      n_features: D.
      covariance: name of the covariance model.
      itemsize: bytes of a number, 4 in float32.

    >>> bytes_per_step(16, 8)
    4740
    """
    entry = model(covariance)
    n_second = 1 if entry.shared else n_components
    second = n_second * n_features ** (entry.storage.ndim - 1)
    return (n_components * (2 + n_features) + second + 1) * itemsize


def make_mesh(n_samples: int | None = None, n_restarts: int = 1, devices: Any = None) -> Mesh:
    """Make a mesh of devices for ``jgmm.fit``, with the axes "samples" and "restarts".

    Args:
      n_samples: number of devices along the axis "samples"; by default as many as there are for
        the given ``n_restarts``.
      n_restarts: number of devices along the axis "restarts".
      devices: devices to use; by default all devices of all processes.

    Raises:
      DataError: more devices are asked for than there are.

    >>> make_mesh(1).axis_names
    ('samples', 'restarts')
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
    """Check a mesh, and return it with both axes, in the order (samples, restarts).

    The axes are of type ``Auto``, as the program divides the work itself with ``shard_map``.

    Raises:
      DataError: no axis "samples", or an axis that is neither "samples" nor "restarts".
    """
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
    """Put the samples on their devices, in shards of one size.

    Args:
      mesh: as ``_checked`` returns it.
      x: samples (n, D) of this process.
      sample_weight: their weights, (n,), or None.
      dtype: float32 or float64.
      shares: number of samples of each process.
      data_summary: standardization and total weight of all samples.

    Returns:
      The samples of all devices. Shards are padded with rows of weight zero.

    Raises:
      DataError: the processes of the mesh's samples are not those that hold the samples.
    """
    owners = [device.process_index for device in mesh.devices[:, 0]]
    own = [i for i, owner in enumerate(owners) if owner == jax.process_index()]
    if sorted(set(owners)) != list(range(len(shares))):
        raise DataError(
            f"the mesh spreads samples over processes {sorted(set(owners))}; there are "
            f"{len(shares)}, and each holds a share of its own."
        )
    size = max(1, *(-(-n // owners.count(p)) for p, n in enumerate(shares)))
    n_features = len(data_summary.frame.shift)

    def shard(index: Any, array: Any, trailing: tuple[int, ...]) -> np.ndarray:
        """Return the shard at ``index`` of the whole array, taken from this process's share."""
        first = own.index((index[0].start or 0) // size) * size
        padded = np.zeros((size, *trailing), dtype)
        rows = array[first : first + size]
        padded[: len(rows)] = rows
        return padded

    def spread(array: Any, *trailing: int) -> Array:
        sharding = NamedSharding(mesh, PartitionSpec(SAMPLES))
        shape = (size * len(owners), *trailing)
        return jax.make_array_from_callback(
            shape, sharding, lambda index: shard(index, array, tuple(trailing))
        )

    weights = np.ones(len(x), dtype) if sample_weight is None else np.asarray(sample_weight)
    replicated = NamedSharding(mesh, PartitionSpec())
    frame, total = jax.tree.map(
        lambda leaf: jax.device_put(np.asarray(leaf), replicated),
        (data_summary.frame, data_summary.total),
    )
    return Shard(spread(np.asarray(x), n_features), spread(weights), frame, total=total)


def _spread(starts: Mixture, mesh: Mesh) -> Mixture:
    """Divide the starts over the axis "restarts", equally many to each group of devices.

    The last start is repeated where their number is not a multiple of the number of groups.
    """
    more = -len(starts.means) % mesh.shape[RESTARTS]
    sharding = NamedSharding(mesh, PartitionSpec(RESTARTS))

    def put(leaf: Array) -> Array:
        host = np.asarray(leaf)
        whole = np.concatenate([host, np.repeat(host[-1:], more, axis=0)])
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(put, starts)
