"""Read samples block by block, in one process or in a group of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from jgmm._core.arguments import check_whole
from jgmm._core.compilation import jit
from jgmm._core.errors import DataError
from jgmm.em.statistics import Statistics
from jgmm.streaming.content import Content, content_of, difference
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


@dataclass
class FirstPass:
    """What the first whole pass has read, in all processes; None before it has ended."""

    content: Content | None = None


@dataclass(frozen=True)
class Reader:
    """Reads a source in blocks of one shape, and the same rows in every pass.

    Attributes:
      source: yields blocks, from the beginning each time it is iterated.
      rows: number of rows of the blocks that ``blocks`` returns.
      n_features, dtype: of the samples.
      group: the processes that read the other shares of the samples.
      progress: called after each block.
      first: with what every later pass is compared.
    """

    source: Iterable[Any]
    rows: int
    n_features: int
    dtype: np.dtype
    group: ProcessGroup = field(default_factory=SingleProcess)
    progress: Callable[[PassProgress], None] | None = None
    first: FirstPass = field(default_factory=FirstPass)

    @property
    def content(self) -> Content:
        """What the first whole pass has read, in all processes; nothing before it has ended."""
        return self.first.content or Content()

    @property
    def first_row(self) -> int:
        """Number of the source's first row among the rows of all processes."""
        return int(getattr(self.source, "first_row", 0))

    def blocks(self, timings: Timings) -> Iterator[Block]:
        """Yield the blocks of one pass; see ``blocks_and_contents``."""
        return (block for block, _ in self.blocks_and_contents(timings))

    def blocks_and_contents(self, timings: Timings) -> Iterator[tuple[Block, Content]]:
        """Yield the blocks of one pass, each with the content of the blocks so far.

        A background thread reads ahead. After the last block, all processes compare their pass with
        the first one; so all of them must read it to its end, or none.

        Raises:
          DataError: bad blocks, or the pass has not read the rows of the first pass.
        """
        blocks = rebatch(self.source, self.rows, self.n_features, self.dtype)
        read = Content()
        for block, content in prefetch(((each, content_of(each)) for each in blocks), timings):
            read = read + content
            yield block, read
        self._compare(read)

    def _compare(self, mine: Content) -> None:
        """Compare a pass with the first one, or remember it as the first."""
        parts = self.group.all_gather(mine.to_words())
        whole = sum(map(Content.from_words, parts), Content())
        first = self.first.content
        if first is None and not whole.n_rows:
            raise DataError(f"the first pass over the source found no rows. {_ANEW}")
        if first is None:
            self.first.content = whole
        elif not whole.same_rows(first):
            what = difference(first, whole)
            raise DataError(f"the source yielded other rows in a later pass: {what}. {_ANEW}")


_ANEW = (
    "A fit takes many passes, and each must read the same rows, in any order. Give a function that "
    "makes a new iterator, or an object whose __iter__ begins anew, and leave files and arrays as "
    "they are during the fit."
)


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
    rows = block_rows or suggested_rows(source, n_features, dtype)
    check_whole("block_rows", rows, 1)
    return Reader(source, rows, n_features, dtype, group, progress)


def suggested_rows(source: Iterable[Any], n_features: int, dtype: np.dtype) -> int:
    """Return the number of rows that a block should have by the source, or by default."""
    return int(getattr(source, "block_rows", 0) or default_block_rows(n_features, dtype))


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
