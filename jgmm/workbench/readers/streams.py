"""Read files larger than memory block by block, as a source for ``jgmm.streaming``.

A source is one file, a folder of files, several of them, or an Arrow data set; it is cut into
pieces (ranges of rows, row groups, files), and each process of a job reads its own pieces. In
messages rows are counted from 1 in each file, without a header. The formats are those of
``formats.FORMATS`` that open as a stream.
"""

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jgmm._core.errors import UserError
from jgmm.streaming.sources import default_block_rows
from jgmm.workbench.readers import formats
from jgmm.workbench.readers.arrow import open_fragment
from jgmm.workbench.readers.dialect import Overrides
from jgmm.workbench.readers.partition import File, pieces_of_process
from jgmm.workbench.readers.tables import fail, reason, refuse_unknown

BLOCK_BYTES = 1 << 23
"""Bytes that are read at once; the fit joins such blocks to larger ones."""


class FileSource:
    """Samples in files, read block by block, from the beginning at each iteration.

    Attributes:
      columns: names of the D features.
      n_rows: the number of rows that this process reads.
      n_total: the number of rows that all processes read.
      block_rows: the number of rows in a block of the fit.
      first_row: the number of the first row of this process among all rows, from 0.
      n_skipped: rows that were not used in the last pass, where bad rows are skipped.
      read_as: how the first file is read, where that was guessed.
    """

    def __init__(
        self,
        source: Any,
        columns: Sequence[str] | None = None,
        weight: str | None = None,
        *,
        skip_bad: bool = False,
        block_rows: int | None = None,
        rank_and_size: tuple[int, int] = (0, 1),
        overrides: Overrides | None = None,
    ) -> None:
        """Open the files and read their headers, not yet their rows.

        Args:
          source: a path, a folder, a list of them, or a ``pyarrow.dataset.Dataset``. Files of a
            folder are read in the order of their names.
          columns: the features, in this order; by default all but the weight. Of text files: all
            but the weight, an id and columns that do not hold numbers, ``read_as`` says which.
          weight: column of sample weights.
          skip_bad: leave rows out that hold NaN, infinite or overflowing values, text, or a wrong
            number of values, and count them; otherwise they are errors.
          block_rows: rows that the fit computes with at once; by default 16 to 32 MB of them, fewer
            where there are few rows.
          rank_and_size: the number of this process, from 0, and the number of processes. Each
            process reads consecutive blocks, row groups of Parquet files, or whole CSV files; it
            may have none.
          overrides: how files of text are written, as far as that is not to be guessed.

        Raises:
          UserError: a file that cannot be read or has other columns than the first.
        """
        files = _open(source, overrides or Overrides())
        self.read_as = "; ".join(files[0].told)
        self.columns = _columns(files[0], columns, weight)
        chosen = [*self.columns, *([] if weight is None else [weight])]
        for file in files:
            _check_names(file, chosen)
        self._weighted, self._skip = weight is not None, skip_bad
        pieces = [(file, piece) for file in files for piece in file.pieces(chosen)]
        self.n_total = sum(piece.n_rows for _, piece in pieces)
        # Computed for double precision: the type is known only once rows are read.
        width = len(self.columns)
        self.block_rows = block_rows or default_block_rows(
            width, np.dtype(np.float64), self.n_total
        )
        self._pieces, self.first_row = pieces_of_process(
            pieces, chosen, *rank_and_size, self.block_rows
        )
        self.n_rows = sum(piece.n_rows for piece in self._pieces)
        self.n_skipped = 0

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Yield blocks of samples and their weights; a block may be overwritten by the next."""
        self.n_skipped = 0
        for piece in self._pieces:
            row = piece.first
            for values in piece.read(BLOCK_BYTES, self._skip):
                yield self._checked(values, piece.where, row)
                row += len(values)

    def _checked(
        self, values: np.ndarray, where: str, row: int
    ) -> tuple[np.ndarray, np.ndarray | None]:
        x = values[:, :-1] if self._weighted else values
        weights = np.ascontiguousarray(values[:, -1]) if self._weighted else None
        limit = _limit(x.dtype)
        sound = x.size == 0 or (x.max() < limit and x.min() > -limit)  # both false for NaN
        if weights is not None:
            sound = sound and (weights.size == 0 or (weights.min() >= 0 and weights.max() < limit))
        if sound:
            return x, weights
        return self._repaired(x, weights, limit, where, row)

    def _repaired(
        self, x: np.ndarray, weights: np.ndarray | None, limit: float, where: str, row: int
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Give unusable rows weight zero, or refuse the first of them by its number."""
        good = (np.abs(x) < limit).all(axis=1)
        if weights is None:
            weights = np.ones(len(x), x.dtype)
        else:
            good = (good | (weights == 0)) & (weights >= 0) & (weights < limit)
        bad = np.flatnonzero(~good)
        if bad.size and not self._skip:
            first = int(bad[0])
            column = int(np.argmin(np.abs(x[first]) < limit))
            value, name = x[first, column], f"column {self.columns[column]!r}"
            if abs(value) < limit:
                value, name = weights[first], "the weight"
            more = f"; {bad.size} of these {len(x)} rows are bad" if bad.size > 1 else ""
            what = f"row {row + first + 1}: {name} is {value}{more}."
            fail(where, what, "Remove or repair such rows, or skip them (skip_bad).")
        self.n_skipped += bad.size
        return np.where(good[:, None], x, 0), np.where(good, weights, 0)


def _limit(dtype: np.dtype) -> float:
    """Return the largest value that fits accept, see ``jgmm._data.validation``."""
    if dtype == np.float16:
        return float(np.finfo(np.float16).max)
    kind = dtype if dtype.kind == "f" else np.dtype(np.float64)
    return float(np.finfo(kind).max) / 16


def _open(source: Any, overrides: Overrides) -> list[File]:
    if hasattr(source, "get_fragments"):  # an Arrow data set
        return [open_fragment(each) for each in source.get_fragments()]
    given = source if isinstance(source, list | tuple) else [source]
    paths = [path for each in given for path in _paths(pathlib.Path(os.path.expanduser(each)))]
    return [_open_file(path, overrides) for path in paths]


def _paths(path: pathlib.Path) -> list[pathlib.Path]:
    if not os.path.exists(path):
        fail(f"data source {str(path)!r}", "there is no such file or folder.", "Check the path.")
    if not path.is_dir():
        return [path]
    suffixes = formats.stream_openers()
    found = sorted(each for each in path.rglob("*") if formats.suffix_of(each.name) in suffixes)
    if not found:
        fail(str(path), f"no file in this folder ends in one of {', '.join(suffixes)}.", "")
    return found


def _open_file(path: pathlib.Path, overrides: Overrides) -> File:
    open_stream = formats.opener(formats.stream_openers(), str(path), overrides)
    try:
        return open_stream(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or reason(error)}") from error


def _columns(file: File, columns: Sequence[str] | None, weight: str | None) -> list[str]:
    known = file.names if file.features is None else file.features
    chosen = [name for name in known if name != weight] if columns is None else list(columns)
    named = [*chosen, *([] if weight is None else [weight])]
    if not chosen or len(set(named)) < len(named):
        fail(file.where, f"columns = {chosen}: name at least one column, and each once.", "")
    return chosen


def _check_names(file: File, chosen: list[str]) -> None:
    for name in chosen:
        if name not in file.names:
            refuse_unknown(file.where, name, file.names)
