"""Reader of CSV files, as a table in memory or as a stream of blocks.

Both read in one thread: only then does pyarrow's reader know the number of a row that it refuses,
so that the message can name the row.
"""

import csv
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float64

from jgmm.workbench.readers.partition import File, Piece
from jgmm.workbench.readers.tables import MISSING, Table, fail, need, reason
from jgmm.workbench.runs import memory

CSV_BYTES = 1 << 22
"""Bytes of text that a stream reads at once."""

NUMBER = r"(?i)^[-+]?((\d+\.?\d*|\.\d+)(e[-+]?\d+)?|nan|inf|infinity)$"
"""How a number is written in a CSV file."""


def open_table(where: str, path: pathlib.Path, mapped: bool = True) -> Table:
    """Read a CSV file into memory, as a table of text.

    Args:
      where: the name of the file in messages.
      path: the file.
      mapped: makes no difference here; text has to be read into memory.

    Raises:
      UserError: the file is not a whole CSV file with a header, or is too large for the memory.
    """
    arrow = need("pyarrow.csv", "workbench", "a .csv file")
    # The text, the offset of each value in it, and its numbers: short values need the most.
    memory.require(4 * path.stat().st_size, where)
    header = read_header(where, path)
    short: list[tuple[int | None, int]] = []

    def note_short(row: Any) -> str:
        short.append((row.number, row.actual_columns))
        return "error"

    try:
        table = arrow.read_csv(
            path,
            # A large block, since a row may not be longer than one.
            arrow.ReadOptions(use_threads=False, block_size=1 << 24),
            arrow.ParseOptions(newlines_in_values=True, invalid_row_handler=note_short),
            arrow.ConvertOptions(column_types=dict.fromkeys(header, "string")),
        )
    except ValueError as error:  # ArrowInvalid is one
        if "Empty CSV file" in str(error):
            fail(where, "there are no rows of data.", "Write the data again.")
        if not short:
            fail(where, f"not a readable CSV file ({reason(error)}).", "Save it as CSV in UTF-8.")
        number, actual = short[0]
        what = f"row {(number or 0) - 1} has {actual} values, but the header has {len(header)}."
        fail(where, what, "Correct the row; a comma inside a value needs quotes around the value.")
    return _CsvTable(where, [name.strip() for name in header], table)


def open_stream(path: pathlib.Path) -> File:
    """Read the header of a CSV file and count its lines; the whole file is one piece."""
    where = str(path)
    names = read_header(where, path)
    n_rows = _n_lines(path) - 1

    def pieces(chosen: list[str]) -> list[Piece]:
        def read(n_bytes: int, skip: bool) -> Iterator[np.ndarray]:
            return _read_blocks(path, names, chosen, skip)

        return [Piece(where, n_rows, 0, read)]

    return File(where, [name.strip() for name in names], pieces)


def read_header(where: str, path: pathlib.Path) -> list[str]:
    """Return the names in the first line, exactly as they are written.

    Raises:
      UserError: the file is not text in UTF-8, is not separated by commas, or has no header.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next((row for row in csv.reader(file) if row), [])
    except (UnicodeDecodeError, csv.Error) as error:
        fail(where, f"not a readable CSV file ({error}).", "Save it as CSV in UTF-8.")
    if len(header) == 1 and (found := re.search(r"[;\t|]", header[0])):
        fix = "Save it with commas."
        fail(where, f"the columns are separated by {found.group()!r}, not by commas.", fix)
    if header and all(re.fullmatch(NUMBER, name.strip()) for name in header):
        fix = "Add a first line with the names of the columns."
        fail(where, f"the first line holds numbers ({header[0]}, …), not column names.", fix)
    return header


class _CsvTable(Table):
    """A CSV file, held as text: whether a column is numeric is decided on all of its values.

    Readers that infer types from the first block fail on later values, or misread them.
    """

    def __init__(self, where: str, names: list[str], table: Any) -> None:
        self._pa = need("pyarrow", "workbench", "a .csv file")
        self._pc = need("pyarrow.compute", "workbench", "a .csv file")
        self._columns = table.rename_columns(names)
        super().__init__(where, names, table.num_rows)

    def _text(self, name: str) -> Any:
        text = self._pc.utf8_trim_whitespace(self._columns[name])
        is_missing = self._pc.is_in(text, value_set=self._pa.array(MISSING))
        return self._pc.if_else(is_missing, None, text)

    def _cast(self, text: Any) -> Any:
        try:
            return text.cast(self._pa.float64())
        except self._pa.ArrowInvalid:
            return None

    def _matches(self, text: Any) -> Float64[np.ndarray, "N"]:
        """Return 1 where a value reads as a number, 0 where not, NaN where it is missing."""
        matches = self._pc.match_substring_regex(text, NUMBER)
        result: np.ndarray = matches.cast(self._pa.float64()).to_numpy()
        return result

    def is_numeric(self, name: str) -> bool:
        if name == "":
            what = "a column has no name; it may be a saved row index."
            fail(self.where, what, "Name it, delete it, or list the `columns` to use.")
        text = self._text(name)
        # A column with a stray "?" must not vanish from the features: a column that holds mostly
        # numbers is numeric, and `numbers` then points at the value that is not a number.
        present = len(text) - text.null_count
        return self._cast(text) is not None or bool(np.nansum(self._matches(text)) > present / 2)

    def numbers(self, name: str) -> Float64[np.ndarray, "N"]:
        text = self._text(name)
        values = self._cast(text)
        if values is None:
            row = int(np.argmin(np.nan_to_num(self._matches(text), nan=1.0)))
            self.refuse(name, row, text[row].as_py())
        result: np.ndarray = values.to_numpy()
        return result

    def texts(self, name: str) -> list[str | None]:
        values: list[str | None] = self._text(name).to_pylist()
        return values


def _n_lines(path: pathlib.Path) -> int:
    count, last = 0, b""
    with path.open("rb") as file:
        while block := file.read(CSV_BYTES):
            count, last = count + block.count(b"\n"), block
    return count + (not last.endswith(b"\n"))


def _read_blocks(
    path: pathlib.Path, header: list[str], chosen: list[str], skip: bool
) -> Iterator[np.ndarray]:
    """Yield blocks of a CSV file as numbers.

    Text that is not a number becomes NaN. A row with another number of values than the header
    becomes a row of NaN; such rows come last in their block.
    """
    arrow = need("pyarrow.csv", "workbench", "a .csv file")
    where, row = str(path), 0
    short: list[Any] = []
    names = [name.strip() for name in header]

    def note(bad: Any) -> str:
        short.append(bad)
        return "skip" if skip else "error"

    options = (
        arrow.ReadOptions(use_threads=False, block_size=CSV_BYTES, column_names=names, skip_rows=1),
        arrow.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
        arrow.ConvertOptions(column_types=dict.fromkeys(names, "string"), include_columns=chosen),
    )
    try:
        with arrow.open_csv(path, *options) as reader:
            for batch in reader:
                columns = [_numbers(batch.column(name), where, name, row, skip) for name in chosen]
                lost = np.full((len(short), len(chosen)), np.nan)
                short.clear()
                yield np.concatenate([np.stack(columns, axis=1), lost])
                row += len(columns[0]) + len(lost)
    except ValueError as error:  # ArrowInvalid is one
        if not short:
            fail(where, f"after row {row}: {reason(error)}.", "Save it as CSV in UTF-8.")
        number, actual = short[0].number, short[0].actual_columns
        place = f"after row {row}" if number is None else f"row {number - 1}"
        what = f"{place}: {actual} values, but the header has {len(header)}."
        fail(where, what, "Correct the row, or skip such rows (skip_bad).")


def _numbers(column: Any, where: str, name: str, row: int, skip: bool) -> np.ndarray:
    """Convert text to numbers, NaN where it is not a number; an error unless ``skip``."""
    arrow, compute = (need(f"pyarrow{m}", "workbench", "a .csv file") for m in ("", ".compute"))
    text = compute.utf8_trim_whitespace(column)
    good = compute.match_substring_regex(text, NUMBER)
    if not skip and not compute.all(good).as_py():
        bad = good.index(False).as_py()
        what = f"row {row + bad + 1}: column {name!r} holds {text[bad].as_py()!r}, not a number."
        fail(where, what, "Correct the value, or skip such rows (skip_bad).")
    numbers = compute.if_else(good, text, None).cast(arrow.float64())
    found: np.ndarray = numbers.to_numpy(zero_copy_only=False)
    return found
