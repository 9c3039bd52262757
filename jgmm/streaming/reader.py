"""Read samples block by block, in one process or in a group of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from jgmm._core.compilation import jit
from jgmm._core.errors import DataError
from jgmm._data.validation import check_whole
from jgmm.em.statistics import Statistics
from jgmm.streaming.prefetch import Timings, prefetch
from jgmm.streaming.sources import Block, default_block_rows, peek, rebatch


class PassProgress(NamedTuple):
    """Progress of a fit after each block.

    Attributes:
      step: number of completed EM steps; -1 in the passes before the first step, which compute the
        moments of the samples and draw a subsample.
      max_steps: largest number of EM steps.
      n_rows: rows read in this pass.
      log_likelihood: after the previous pass, in nats.
      timings: seconds of this pass so far.
    """

    step: int
    max_steps: int
    n_rows: int
    log_likelihood: float
    timings: Timings


@runtime_checkable
class ProcessGroup(Protocol):
    """Communication between processes each of which reads a share of the samples."""

    @property
    def rank_and_size(self) -> tuple[int, int]:
        """Number of this process, from 0, and number of all processes."""

    def all_gather(self, mine: Any) -> list[Any]:
        """Collect a pytree of host arrays from every process, in the order of their ranks."""

    def add(self, mine: Statistics, lost: Statistics) -> Statistics:
        """Sum the statistics of all processes.

        All processes get the same sum. Up to rounding it does not depend on their number.

        Args:
          mine: statistics of this process.
          lost: the rounding error of ``mine``, to be added to it.
        """


class SingleProcess:
    """The process group of a fit in one process."""

    rank_and_size = (0, 1)

    def all_gather(self, mine: Any) -> list[Any]:
        """Return the arrays of this process in a list of length one."""
        return [mine]

    def add(self, mine: Statistics, lost: Statistics) -> Statistics:
        """Return the statistics of this process with their rounding error added."""
        return _add(mine, lost)


@jit
def _add(mine: Statistics, lost: Statistics) -> Statistics:
    return replace(jax.tree.map(jnp.add, mine, lost), center=mine.center)


@dataclass(frozen=True)
class Reader:
    """Reads a source in blocks of one shape.

    Attributes:
      source: yields blocks, from the beginning each time it is iterated.
      rows: number of rows of the blocks that ``blocks`` returns.
      n_features, dtype: of the samples.
      group: the processes that read the other shares of the samples.
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
        """Number of the source's first row among the rows of all processes."""
        return int(getattr(self.source, "first_row", 0))

    def blocks(self, timings: Timings) -> Iterable[Block]:
        """Return the blocks of one pass, read ahead in a background thread."""
        return prefetch(rebatch(self.source, self.rows, self.n_features, self.dtype), timings)


def open_reader(
    source: Iterable[Any],
    block_rows: int | None,
    group: ProcessGroup,
    progress: Callable[[PassProgress], None] | None = None,
) -> Reader:
    """Make the ``Reader`` of a source: find its number of columns, dtype and block size.

    Processes whose share is empty learn columns and dtype from the others. A source may have two
    attributes: ``block_rows``, the number of rows that a block should have, and ``first_row``, the
    number of its first row among the rows of all processes.

    Args:
      source: yields blocks, from the beginning each time it is iterated.
      block_rows: rows of a block; None takes the source's ``block_rows`` or a default.
      group: the processes that read the samples.
      progress: called after each block.

    Raises:
      DataError: no samples, shares with different numbers of columns, or a bad ``block_rows``.
    """
    first = peek(source)
    mine = np.asarray([0, 0] if first is None else [first[0], first[1].itemsize])
    every = np.stack(group.all_gather(mine))
    n_features, itemsize = (int(n) for n in every.max(axis=0))
    if not n_features:
        raise DataError("the source yields no samples.")
    if not np.isin(every[:, 0], (0, n_features)).all():
        raise DataError(f"shares of the samples have {every[:, 0].tolist()} columns.")
    dtype = np.dtype(f"f{itemsize}")
    rows = block_rows or getattr(source, "block_rows", 0) or default_block_rows(n_features, dtype)
    check_whole("block_rows", rows, 1)
    return Reader(source, rows, n_features, dtype, group, progress)


def blocks_with_progress(
    reader: Reader, timings: Timings, step: int, max_steps: int, log_likelihood: float
) -> Iterable[Block]:
    """Yield the blocks of a pass; report progress, and count the caller's time as computing."""
    n_rows = 0
    for block in reader.blocks(timings):
        with timings.busy():
            yield block
        n_rows += block.n_rows
        if reader.progress is not None:
            reader.progress(PassProgress(step, max_steps, n_rows, log_likelihood, timings))
