"""How samples that are elsewhere are read: block by block, by one process or by a team of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from jgmm._core.compilation import jit
from jgmm._core.errors import DataError
from jgmm.em.statistics import Statistics
from jgmm.streaming.prefetch import Timings, prefetch
from jgmm.streaming.sources import Block, peek, rebatch, rows_for


class PassProgress(NamedTuple):
    """What a fit tells its caller after each block.

    Attributes:
      step: passes completed; -1 while the samples are surveyed.
      max_steps: passes at most.
      n_rows: rows seen in this pass.
      log_likelihood: after the last pass.
      pace: seconds of this pass so far.
    """

    step: int
    max_steps: int
    n_rows: int
    log_likelihood: float
    timings: Timings


@runtime_checkable
class ProcessGroup(Protocol):
    """Processes that each read a share of the samples."""

    @property
    def rank_and_size(self) -> tuple[int, int]:
        """Which of how many processes this is."""

    def all_gather(self, mine: Any) -> list[Any]:
        """A pytree of arrays on the host, from every process in their order."""

    def add(self, mine: Statistics, lost: Statistics) -> Statistics:
        """The sum of the statistics of all processes and of what rounding took from each.

        All get the same, and as good as none of it depends on how many they are.
        """


class SingleProcess:
    """A team of one."""

    rank_and_size = (0, 1)

    def all_gather(self, mine: Any) -> list[Any]:
        """Its own."""
        return [mine]

    def add(self, mine: Statistics, lost: Statistics) -> Statistics:
        """Its own."""
        return _add(mine, lost)


@jit
def _add(mine: Statistics, lost: Statistics) -> Statistics:
    return replace(jax.tree.map(jnp.add, mine, lost), center=mine.center)


@dataclass(frozen=True)
class Reader:
    """How a source is read: in which shape, and who else reads.

    Attributes:
      source: yields blocks, anew each time it is iterated.
      rows: in a block of the engine.
      n_features, dtype: of the samples.
      team: who reads the rest.
      progress: called after each block.
    """

    source: Iterable[Any]
    rows: int
    n_features: int
    dtype: np.dtype
    group: ProcessGroup = field(default_factory=SingleProcess)
    progress: Callable[[PassProgress], None] | None = None

    @property
    def first_row(self) -> int:
        """Number of the source's first row among those of all processes."""
        return int(getattr(self.source, "first_row", 0))

    def blocks(self, timings: Timings) -> Iterable[Block]:
        """One pass, read ahead."""
        return prefetch(rebatch(self.source, self.rows, self.n_features, self.dtype), timings)


def open_source(
    source: Iterable[Any],
    block_rows: int | None,
    group: ProcessGroup,
    progress: Callable[[PassProgress], None] | None = None,
) -> Reader:
    """How the source is to be read; processes whose share is empty learn it from the others.

    A source may say how many rows a block should have, ``block_rows``, and the number of its first
    row among those of all processes, ``first_row``.
    """
    here = peek(source)
    mine = np.asarray([0, 0] if here is None else [here[0], here[1].itemsize])
    every = np.stack(group.all_gather(mine))
    n_features, itemsize = (int(n) for n in every.max(axis=0))
    if not n_features:
        raise DataError("the source yields no samples.")
    if not np.isin(every[:, 0], (0, n_features)).all():
        raise DataError(f"shares of the samples have {every[:, 0].tolist()} columns.")
    dtype = np.dtype(f"f{itemsize}")
    rows = block_rows or getattr(source, "block_rows", 0) or rows_for(n_features, dtype)
    if rows < 1:
        raise DataError(f"block_rows must be at least one; it is {rows}.")
    return Reader(source, rows, n_features, dtype, group, progress)


def reported(
    reader: Reader, timings: Timings, step: int, max_steps: int, log_likelihood: float
) -> Iterable[Block]:
    """The blocks of a pass that has no sums; what is done between them counts as computing."""
    n_rows = 0
    for block in reader.blocks(timings):
        with timings.busy():
            yield block
        n_rows += block.n_rows
        if reader.progress is not None:
            reader.progress(PassProgress(step, max_steps, n_rows, log_likelihood, timings))
