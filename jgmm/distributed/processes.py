"""Fits in several processes, on one machine or on many.

Each process holds, or reads, a share of the samples. ``jgmm.streaming.fit`` and
``jgmm.distributed.fit`` take a ``Processes`` as ``group``. In a step the processes exchange one
``Statistics``, by JAX's own collectives (``jax.distributed``; gloo on CPUs, NCCL on GPUs).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from jgmm.em.statistics import Statistics
from jgmm.streaming.reader import ProcessGroup, SingleProcess

# Seconds within which the processes of a job must find one another, without a heartbeat after which
# a process counts as lost, and that leaving the job may take.
JOIN_SECONDS, HEARTBEAT_SECONDS, LEAVE_SECONDS = 60, 30, 10
_AXIS = "processes"

Result = TypeVar("Result")


class LostProcess(RuntimeError):
    """Another process of the job has ended or cannot be reached."""


def join(
    coordinator: str | None = None, n_processes: int | None = None, process: int | None = None
) -> ProcessGroup:
    """Join a job of several processes; call it before anything else is done with JAX.

    Args:
      coordinator: HOST:PORT of process 0; None where JAX knows the cluster, such as SLURM's.
      n_processes: number of processes of the job.
      process: number of this process, from 0.

    Returns:
      The group to pass to a fit as ``group``.

    Raises:
      LostProcess: the others were not found within ``JOIN_SECONDS``.
    """
    try:
        jax.distributed.initialize(
            coordinator,
            n_processes,
            process,
            initialization_timeout=JOIN_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=LEAVE_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise LostProcess(
            f"process {process} of {n_processes} could not join the job at {coordinator}: {error}"
        ) from error
    return Processes() if jax.process_count() > 1 else SingleProcess()


class Processes:
    """The processes of a job, a ``ProcessGroup`` (``jgmm.streaming.reader``)."""

    def __init__(self) -> None:
        """Use one device of each process. All processes must call this at the same time."""
        first = {device.process_index: device for device in reversed(jax.devices())}
        devices = np.asarray([first[i] for i in range(jax.process_count())])
        self._mesh = Mesh(devices, (_AXIS,), axis_types=(AxisType.Auto,))

    @property
    def rank_and_size(self) -> tuple[int, int]:
        """Number of this process, from 0, and number of all processes."""
        return jax.process_index(), jax.process_count()

    def add(self, mine: Statistics, lost: Statistics) -> Statistics:
        """Sum statistics over all processes, in double precision, and round once.

        Args:
          mine: statistics of this process.
          lost: the rounding error of ``mine``, to be added to it.

        Raises:
          LostProcess: one of them is gone.
        """
        return sum_processes(self.all_gather((mine, lost)), mine.center)

    def all_gather(self, mine: Any) -> list[Any]:
        """Collect a pytree of host arrays from every process, in the order of their ranks.

        The bits are unchanged, in whatever precision JAX works.

        Raises:
          LostProcess: one of them is gone.
        """
        leaves, structure = jax.tree.flatten(mine)
        arrays = [np.asarray(leaf) for leaf in leaves]
        raw = [np.frombuffer(np.ascontiguousarray(a).tobytes(), np.uint8) for a in arrays]
        every = self._gathered(raw)
        return [
            jax.tree.unflatten(
                structure,
                [
                    np.frombuffer(rows[i].tobytes(), a.dtype).reshape(a.shape)
                    for rows, a in zip(every, arrays, strict=True)
                ],
            )
            for i in range(jax.process_count())
        ]

    def _gathered(self, mine: list[np.ndarray]) -> list[np.ndarray]:
        """Return the arrays of all processes on the host, with the processes as leading axis."""
        sharding = NamedSharding(self._mesh, PartitionSpec(_AXIS))

        try:
            spread = [jax.make_array_from_process_local_data(sharding, a[None]) for a in mine]
            return [np.asarray(a.addressable_data(0)) for a in _gather(self._mesh, spread)]
        except (jax.errors.JaxRuntimeError, ValueError) as error:  # gloo raises the latter
            rank, size = self.rank_and_size
            raise LostProcess(
                f"process {rank} of {size} has lost another one, which has ended or cannot be "
                f"reached ({str(error).partition(chr(10))[0][:200]}). Run the same command again: "
                "a checkpoint, if there is one, carries on."
            ) from error


def sum_processes(parts: list[tuple[Statistics, Statistics]], center: Array) -> Statistics:
    """Sum the statistics of all processes in double precision, and round once.

    Args:
      parts: for each process its statistics and their rounding error.
      center: the centers that all statistics are taken about; they are not summed.
    """

    def total(*parts: Any) -> Array:
        return jnp.asarray(np.sum(parts, axis=0, dtype=np.float64).astype(parts[0].dtype))

    whole = jax.tree.map(total, *(each for pair in parts for each in pair))
    return replace(whole, center=center)


@partial(jax.jit, static_argnums=0)
def _gather(mesh: Mesh, tree: Any) -> Any:
    def local(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: lax.all_gather(leaf[0], _AXIS), tree)

    divided, replicated = PartitionSpec(_AXIS), PartitionSpec()
    run = jax.shard_map(local, mesh=mesh, in_specs=divided, out_specs=replicated, check_vma=False)
    return run(tree)
