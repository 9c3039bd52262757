"""Reader of delimited text, as a table in memory or as a stream of blocks.

pyarrow splits the text, streams it, and knows the number of a row that it refuses; for that it
needs one thread. How a file is written is guessed by ``dialect``; ``text`` decompresses and
decodes; ``numerals`` decides what is a number.
"""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from jgmm.workbench.readers import dialect, text
from jgmm.workbench.readers.dialect import Dialect, Overrides
from jgmm.workbench.readers.ids import id_column
from jgmm.workbench.readers.numerals import Numerals
from jgmm.workbench.readers.partition import File, Piece
from jgmm.workbench.readers.tables import fail, need, reason
from jgmm.workbench.readers.text import TextFile
from jgmm.workbench.readers.text_table import TextTable, trimmed
from jgmm.workbench.runs import memory

CSV_BYTES = 1 << 22
"""Bytes of text that a stream reads at once."""

_TABLE_BYTES = 1 << 24  # a row may not be longer than one block


def open_table(
    where: str, path: pathlib.Path, mapped: bool = True, overrides: Overrides | None = None
) -> TextTable:
    """Read a file of delimited text into memory, as a table of text.

    Args:
      where: the name of the file in messages.
      path: the file, which may be compressed.
      mapped: makes no difference here; text has to be read into memory.
      overrides: how the file is written, as far as that is not to be guessed.

    Raises:
      UserError: the file is not a whole table of text, or is too large for the memory.
    """
    # The text, the offset of each value in it, and its numbers: short values need the most.
    memory.require(4 * path.stat().st_size, where)
    given = overrides or Overrides()
    try:
        return _read_table(text.open_text(where, path, given.part), given)
    except _NotUtf8:
        return _read_table(text.open_text(where, path, given.part, latin=True), given)


def open_stream(path: pathlib.Path, overrides: Overrides | None = None) -> File:
    """Guess how a file of text is written and count its rows; the whole file is one piece."""
    given = overrides or Overrides()
    file = text.open_text(str(path), path, given.part)
    found = dialect.guess(file, given)
    n_rows = _count_rows(file, found)
    names, features, told = found.names, None, found.told
    sample = _sample(file, found)
    if sample is not None:
        unused = id_column(sample)
        features = [name for name in sample.names if name != unused and sample.is_numeric(name)]
        left = [name for name in sample.names if name and name not in (*features, unused)]
        told = [
            *told,
            *([f"{unused or 'the first column'} is an id"] if unused is not None else []),
        ]
        told += [f"left out, as not of numbers: {', '.join(left[:8])}"] if left else []

    def pieces(chosen: list[str]) -> list[Piece]:
        units = ["" if sample is None else sample.unit(name) for name in chosen]

        def read(n_bytes: int, skip: bool) -> Iterator[np.ndarray]:
            return _read_blocks(file, found, chosen, units, skip)

        return [Piece(file.where, n_rows, 0, read)]

    return File(file.where, names, pieces, None, features, told)


class _NotUtf8(Exception):
    """Text behind the sample shows that the encoding was guessed wrongly."""


def _read_table(file: TextFile, given: Overrides) -> TextTable:
    found = dialect.guess(file, given)
    if found.is_empty:
        fail(file.where, "there are no rows of data.", "Write the data again.")
    rows = _Rows(file, found, skip=False)
    with rows.open(_TABLE_BYTES, range(len(found.names)), guard_memory=True) as reader:
        table = reader.read_all()
    return TextTable(
        file.where, found.names, table.columns, found.numerals, found.missing, found.told
    )


def _sample(file: TextFile, found: Dialect) -> TextTable | None:
    """Return the rows at the beginning of a file as a table, or None where there are none."""
    if not found.sample:
        return None
    arrow = need("pyarrow", "workbench", "a text file")
    width = len(found.names)
    rows = [row + [""] * (width - len(row)) for row in found.sample]
    columns = [arrow.chunked_array([[row[i] for row in rows]]) for i in range(width)]
    return TextTable(file.where, found.names, columns, found.numerals, found.missing, found.told)


class _Rows:
    """The rows of a file as Arrow reads them, and those that it refuses.

    Attributes:
      refused: the rows with another number of values than there are columns.
    """

    def __init__(self, file: TextFile, found: Dialect, skip: bool) -> None:
        self._file, self._found, self._skip = file, found, skip
        self.refused: list[Any] = []

    def _refuse(self, row: Any) -> str:
        self.refused.append(row)
        return "skip" if self._skip else "error"

    @contextlib.contextmanager
    def open(self, size: int, places: Any, guard_memory: bool = False) -> Iterator[Any]:
        """Open the file as a reader of record batches; its exceptions become ``UserError``.

        Args:
          size: the bytes of text of a batch.
          places: the numbers of the columns that are read.
          guard_memory: refuse more text than there is memory for.
        """
        arrow = need("pyarrow.csv", "workbench", "a text file")
        found = self._found
        keys = [str(i) for i in range(len(found.names))]  # names may be repeated
        options = (
            arrow.ReadOptions(
                use_threads=False,
                block_size=size,
                column_names=keys,
                skip_rows_after_names=found.n_before,
            ),
            arrow.ParseOptions(
                delimiter=found.delimiter, newlines_in_values=True, invalid_row_handler=self._refuse
            ),
            arrow.ConvertOptions(
                column_types=dict.fromkeys(keys, "string"),
                include_columns=[str(place) for place in places],
            ),
        )
        source = text.readable(self._file, found.cleaning, guard_memory)
        try:
            with arrow.open_csv(source, *options) as reader:
                yield reader
        except ValueError as error:  # ArrowInvalid and UnicodeDecodeError are such
            self._explain(error)

    def _explain(self, error: ValueError) -> None:
        where, message = self._file.where, str(error)
        if self.refused and not self._skip:
            self._explain_refused()
        if "Empty CSV file" in message:
            fail(where, "there are no rows of data.", "Write the data again.")
        is_utf8 = self._file.encoding.startswith("utf-8")
        if is_utf8 and ("UTF8" in message or isinstance(error, UnicodeDecodeError)):
            raise _NotUtf8 from error
        fail(where, f"not a readable text file ({reason(error)}).", "Save it as CSV in UTF-8.")

    def _explain_refused(self) -> None:
        found, row = self._found, self.refused[0]
        width = len(found.names)
        number = 0 if row.number is None else row.number - found.n_before
        what = f"row {number} has {row.actual_columns} values, but the header has {width}."
        if not found.has_header:
            what = f"row {number} has {row.actual_columns} values, but most rows have {width}."
        mark = dialect.SEPARATORS.get(found.separator, repr(found.separator))
        fix = f"Correct the row; a {mark} inside a value needs quotes around the value."
        if number == 1:
            fix = "Begin lines above the header with #, or remove them; or say --separator."
        fail(self._file.where, what, fix)


def _count_rows(file: TextFile, found: Dialect) -> int:
    rows, count = _Rows(file, found, skip=True), 0
    if found.is_empty:
        return 0
    with rows.open(CSV_BYTES, [0]) as reader:
        for batch in reader:
            count += batch.num_rows
    return count + len(rows.refused)


def _read_blocks(
    file: TextFile, found: Dialect, chosen: list[str], units: list[str], skip: bool
) -> Iterator[np.ndarray]:
    """Yield blocks of a file of text as numbers.

    Text that is not a number becomes NaN. A row with another number of values than there are
    columns becomes a row of NaN; such rows come last in their block.
    """
    if found.is_empty:
        return
    rows, row = _Rows(file, found, skip), 0
    places = [found.names.index(name) for name in chosen]
    wanted = list(zip(chosen, units, strict=True))
    try:
        with rows.open(CSV_BYTES, places) as reader:
            for batch in reader:
                columns = [
                    _numbers(batch.column(i), found, unit, skip, f"{file.where}: row", row, name)
                    for i, (name, unit) in enumerate(wanted)
                ]
                lost = np.full((len(rows.refused), len(chosen)), np.nan)
                rows.refused.clear()
                yield np.concatenate([np.stack(columns, axis=1), lost])
                row += len(columns[0]) + len(lost)
    except _NotUtf8:
        what = f"after row {row} there is text that is not UTF-8, unlike before."
        fail(file.where, what, "Save the file in UTF-8.")


def _numbers(
    column: Any, found: Dialect, unit: str, skip: bool, where: str, row: int, name: str
) -> np.ndarray:
    """Convert text to numbers, NaN where it is not a number; an error unless ``skip``."""
    arrow = need("pyarrow", "workbench", "a text file")
    if found.numerals == Numerals() and not unit:
        with contextlib.suppress(arrow.ArrowInvalid):  # the usual case, in one step
            fast: np.ndarray = trimmed(column).cast("float64").to_numpy(zero_copy_only=False)
            return fast
    compute = need("pyarrow.compute", "workbench", "a text file")
    entries = trimmed(column)
    values, good = found.numerals.read(entries, unit)
    if not skip and not compute.all(good).as_py():
        bad = good.index(False).as_py()
        what = f"column {name!r} holds {entries[bad].as_py()!r}, not a number."
        fail(f"{where} {row + bad + 1}", what, "Correct the value, or skip such rows (skip_bad).")
    numbers: np.ndarray = values.to_numpy(zero_copy_only=False)
    return numbers
