"""Fits by several processes, on one machine or many.

Each process holds, or reads, a share of the samples; ``streaming.fit`` and ``fit.fit`` take a
``Processes`` as their ``team``. What travels in a step is one ``Statistics``, by JAX's own
collectives (``jax.distributed``; gloo on CPUs, NCCL on GPUs).
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

# Seconds: to find one another, after which one that is silent is taken for lost, and to part.
FIND, SILENCE, PART = 60, 30, 10
_AXIS = "processes"

Result = TypeVar("Result")


class LostProcess(RuntimeError):
    """Another process of the job has ended or cannot be reached."""


def join(
    coordinator: str | None = None, n_processes: int | None = None, process: int | None = None
) -> ProcessGroup:
    """Join a job; before anything else is done with JAX.

    Args:
      coordinator: HOST:PORT of process 0; None where JAX knows the cluster, such as SLURM's.
      n_processes: of the job.
      process: which of them this is, from 0.

    Raises:
      LostProcess: the others were not found in ``FIND`` seconds.
    """
    try:
        jax.distributed.initialize(
            coordinator,
            n_processes,
            process,
            initialization_timeout=FIND,
            heartbeat_timeout_seconds=SILENCE,
            shutdown_timeout_seconds=PART,
        )
    except (RuntimeError, ValueError) as error:
        raise LostProcess(
            f"process {process} of {n_processes} could not join the job at {coordinator}: {error}"
        ) from error
    return Processes() if jax.process_count() > 1 else SingleProcess()


class Processes:
    """The processes of a job, as a ``reader.ProcessGroup``."""

    def __init__(self) -> None:
        """Use one device of each process; all processes do so at the same time."""
        first = {device.process_index: device for device in reversed(jax.devices())}
        devices = np.asarray([first[i] for i in range(jax.process_count())])
        self._mesh = Mesh(devices, (_AXIS,), axis_types=(AxisType.Auto,))

    @property
    def rank_and_size(self) -> tuple[int, int]:
        """Which of how many processes this is."""
        return jax.process_index(), jax.process_count()

    def add(self, mine: Statistics, lost: Statistics) -> Statistics:
        """The sum over all processes, in double precision, rounded once.

        Raises:
          LostProcess: one of them is gone.
        """
        return sum_processes(self.all_gather((mine, lost)), mine.center)

    def all_gather(self, mine: Any) -> list[Any]:
        """The arrays of every process, to the last bit, whatever precision JAX works in.

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
        """The arrays of all processes, leading axis, on the host."""
        sharding = NamedSharding(self._mesh, PartitionSpec(_AXIS))

        try:
            spread = [jax.make_array_from_process_local_data(sharding, a[None]) for a in mine]
            return [np.asarray(a.addressable_data(0)) for a in _gather(self._mesh, spread)]
        except (jax.errors.JaxRuntimeError, ValueError) as error:  # gloo gives the latter
            rank, size = self.rank_and_size
            raise LostProcess(
                f"process {rank} of {size} has lost another one, which has ended or cannot be "
                f"reached ({str(error).partition(chr(10))[0][:200]}). Run the same command again: "
                "a checkpoint, if there is one, carries on."
            ) from error


def sum_processes(parts: list[tuple[Statistics, Statistics]], center: Array) -> Statistics:
    """The sum of what all processes have added up, in double precision, rounded once.

    Args:
      parts: of each process the statistics and what rounding took from them.
      center: which is theirs all, and no sum.
    """

    def total(*parts: Any) -> Array:
        return jnp.asarray(np.sum(parts, axis=0, dtype=np.float64).astype(parts[0].dtype))

    whole = jax.tree.map(total, *(each for pair in parts for each in pair))
    return replace(whole, center=center)


@partial(jax.jit, static_argnums=0)
def _gather(mesh: Mesh, tree: Any) -> Any:
    def local(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: lax.all_gather(leaf[0], _AXIS), tree)

    one, all_ = PartitionSpec(_AXIS), PartitionSpec()
    run = jax.shard_map(local, mesh=mesh, in_specs=one, out_specs=all_, check_vma=False)
    return run(tree)
