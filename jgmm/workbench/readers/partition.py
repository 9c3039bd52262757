"""Division of files among the processes of a job.

A file of any format is cut into pieces, and each process reads its own.
"""

import bisect
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

Read = Callable[[int, bool], Iterator[np.ndarray]]
"""``(bytes, whether bad rows are skipped) -> blocks (b, C)`` of about that many bytes."""


@dataclass(frozen=True)
class Piece:
    """A range of rows of a file that one process reads in one go.

    Attributes:
      where: the file, for messages.
      n_rows: the number of rows.
      first: the number of the first of them in the file, from 0.
      read: reads the chosen columns of those rows, block by block.
    """

    where: str
    n_rows: int
    first: int
    read: Read


@dataclass(frozen=True)
class File:
    """An opened file.

    Attributes:
      where: the file, for messages.
      names: the names of its columns.
      pieces: returns the pieces of the file for a choice of columns, given by name.
      split: returns the piece of the rows from ``first`` to before ``last``, given the columns and
        these two numbers; None where reading cannot begin at any row.
      features: the columns that are used where none are named; None: all of them.
      told: how the file is read, where that was guessed; one phrase each.
    """

    where: str
    names: list[str]
    pieces: Callable[[list[str]], list[Piece]]
    split: Callable[[list[str], int, int], Piece] | None = None
    features: list[str] | None = None
    told: Sequence[str] = ()


def pieces_of_process(
    pieces: list[tuple[File, Piece]], chosen: list[str], rank: int, size: int, unit: int = 1
) -> tuple[list[Piece], int]:
    """Return the pieces that one of several processes reads, and the number of its first row.

    Args:
      pieces: the pieces of all files, in order, each with its file.
      chosen: names of the columns to read.
      rank: the number of the process, from 0.
      size: the number of processes.
      unit: the rows of a process begin at a multiple of this many rows, where a file can be cut
        there. With the rows of a block as unit, all processes together compute with the same
        blocks as one process would.
    """
    ends = list(itertools.accumulate(piece.n_rows for _, piece in pieces))
    total = ends[-1] if ends else 0
    low, high = (min(total, round(total * r / size / unit) * unit) for r in (rank, rank + 1))
    high = total if rank + 1 == size else high
    mine: list[Piece] = []
    first_row = low
    for (file, piece), end in zip(pieces, ends, strict=True):
        start = end - piece.n_rows
        if file.split is not None:
            a, b = max(low, start), min(high, end)
            if a < b:
                first = piece.first - start
                mine.append(file.split(chosen, first + a, first + b))
        elif low <= start < high:  # a piece that cannot be cut goes to whoever has its first row
            first_row = start if not mine else first_row
            mine.append(piece)
    if not mine:
        first_row = ends[bisect.bisect_left(ends, low)] if total else 0
    return mine, first_row
