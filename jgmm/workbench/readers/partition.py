"""What files of every kind are cut into: pieces, of which each process of a job reads its own."""

import bisect
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

Read = Callable[[int, bool], Iterator[np.ndarray]]
"""`(bytes, whether bad rows are skipped) -> blocks (b, C)` of about so many bytes."""


@dataclass(frozen=True)
class Piece:
    """What is read in one go, by one process.

    Attributes:
      where: the file, for messages.
      n_rows: how many it has.
      first: number of the first of them in the file, from 0.
      read: the chosen columns of those rows, block by block.
    """

    where: str
    n_rows: int
    first: int
    read: Read


@dataclass(frozen=True)
class File:
    """An opened file: the names of its columns, and its pieces for a choice of them.

    `split` may be asked to cut a piece, `(first, last)` rows, where `read` can begin anywhere.
    """

    where: str
    names: list[str]
    pieces: Callable[[list[str]], list[Piece]]
    split: Callable[[list[str], int, int], Piece] | None = None


def share_of(
    pieces: list[tuple[File, Piece]], chosen: list[str], rank: int, size: int, unit: int = 1
) -> tuple[list[Piece], int]:
    """The pieces of one of several processes, and the number of its first row.

    Args:
      pieces: all there are, in order, each with its file.
      chosen: names of the columns to read.
      rank: which of the processes it is.
      size: how many they are.
      unit: a share begins at a multiple of so many rows, where a file can be cut there: with the
        rows of a block, the blocks of all processes are those that one would see.
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
        elif low <= start < high:  # a piece that cannot be cut is whose share it begins in
            first_row = start if not mine else first_row
            mine.append(piece)
    if not mine:
        first_row = ends[bisect.bisect_left(ends, low)] if total else 0
    return mine, first_row
