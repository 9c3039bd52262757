"""Files as tables of named columns: CSV, Parquet and NumPy arrays behind one small interface.

`datasets.load` asks a table for numbers and for text and checks what it gets; here each kind of
file is opened, and refused if it is not whole. Rows are counted from 1, without the header.
"""

import collections
import contextlib
import csv
import difflib
import importlib
import math
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Float64

from jgmm._core.errors import UserError
from jgmm.workbench.runs import memory

SUFFIXES = (".csv", ".parquet", ".pq", ".npy")
"""Kinds of file that can be read."""

NUMBER = r"(?i)^[-+]?((\d+\.?\d*|\.\d+)(e[-+]?\d+)?|nan|inf|infinity)$"
"""How a number is written in a CSV file."""

# What other programs write where a value is missing. As a label these are refused too: a class
# that is really called NA has to be renamed, since it cannot be told from a gap.
_MISSING = ("", "NA", "N/A", "n/a", "#N/A", "#NA", "NaN", "nan", "null", "NULL", "None", "<NA>")


def open_table(where: str, path: pathlib.Path, mapped: bool = True) -> "Table":
    """The table in a file whose suffix is one of `SUFFIXES`.

    Args:
      where: its name in messages.
      path: the file.
      mapped: leave an array on disk until it is read.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return _open_npy(where, path, mapped)
    return _open_csv(where, path) if suffix == ".csv" else _ParquetTable(where, path)


def need(module: str, extra: str, what: str) -> Any:
    """Import a module of an optional extra; without it, say what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UserError(f'{what} needs {package}: pip install "jgmm[{extra}]"') from error


def nearest(word: str, options: Sequence[str]) -> list[str]:
    """Up to three of the options that look like the word, upper and lower case alike."""
    folded = {option.lower(): option for option in options}
    return [folded[key] for key in difflib.get_close_matches(word.lower(), folded, cutoff=0.6)]


def fail(where: str, what: str, fix: str) -> NoReturn:
    """Raise a `UserError`: where it happened, what happened, what to do about it."""
    raise UserError(f"{where}: {what} {fix}".rstrip())


def reason(error: Exception) -> str:
    """What a library says of a file, on one line."""
    text = str(error.args[0]) if error.args else type(error).__name__
    return text.partition("\n")[0][:200].rstrip(".")


class Table:
    """Named columns of a source. `where` opens every message about it."""

    def __init__(self, where: str, names: list[str], n_rows: int) -> None:
        """Refuse repeated names and a source without rows."""
        self.where, self.names, self.n_rows = where, names, n_rows
        repeated = sorted(name for name, n in collections.Counter(names).items() if n > 1)
        if repeated:
            fix = "Give each column a name of its own."
            fail(where, f"the column name {repeated[0]!r} occurs more than once.", fix)
        if n_rows == 0 or not names:
            fail(where, "there are no rows of data.", "Write the data again.")

    def is_numeric(self, name: str) -> bool:
        """Whether a column is a feature when none are named."""
        raise NotImplementedError

    def numbers(self, name: str) -> Float64[np.ndarray, "N"]:
        """A column as numbers, NaN where it is missing; text is an error."""
        raise NotImplementedError

    def texts(self, name: str) -> list[str | None]:
        """A column as text, for labels."""
        raise NotImplementedError

    def matrix(self, columns: list[str]) -> Float64[np.ndarray, "N D"]:
        """Several columns side by side."""
        memory.require(8 * self.n_rows * len(columns), self.where)
        first = self.numbers(columns[0])  # before there is room for all: a file may promise much
        x = np.empty((len(first), len(columns)))
        x[:, 0] = first
        for position, name in enumerate(columns[1:], 1):
            x[:, position] = self.numbers(name)
        return x

    def refuse(self, name: str, row: int, value: str) -> NoReturn:
        """Report text where a number should be."""
        what = f"column {name!r}, row {row + 1}: {value!r} is not a number."
        fail(self.where, what, "Correct the value, or leave the column out of `columns`.")


class _CsvTable(Table):
    """A CSV file, held as text: whether a column is numeric is decided on all of it.

    Readers that infer types from the first block fail on, or misread, what comes later.
    """

    def __init__(self, where: str, names: list[str], table: Any) -> None:
        self._pa = need("pyarrow", "workbench", "a .csv file")
        self._pc = need("pyarrow.compute", "workbench", "a .csv file")
        self._cells = table.rename_columns(names)
        super().__init__(where, names, table.num_rows)

    def _text(self, name: str) -> Any:
        text = self._pc.utf8_trim_whitespace(self._cells[name])
        gap = self._pc.is_in(text, value_set=self._pa.array(_MISSING))
        return self._pc.if_else(gap, None, text)

    def _cast(self, text: Any) -> Any:
        try:
            return text.cast(self._pa.float64())
        except self._pa.ArrowInvalid:
            return None

    def _matches(self, text: Any) -> Float64[np.ndarray, "N"]:
        """One where a cell reads as a number, zero where not, NaN where it is missing."""
        matches = self._pc.match_substring_regex(text, NUMBER)
        result: np.ndarray = matches.cast(self._pa.float64()).to_numpy()
        return result

    def is_numeric(self, name: str) -> bool:
        if name == "":
            what = "a column has no name; it may be a saved row index."
            fail(self.where, what, "Name it, delete it, or list the `columns` to use.")
        text = self._text(name)
        # A column with a stray "?" must not vanish from the features: mostly numbers is a
        # column of numbers, and `numbers` then points at what is not.
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
        cells: list[str | None] = self._text(name).to_pylist()
        return cells


class _ParquetTable(Table):
    """A Parquet file; one column at a time is in memory."""

    def __init__(self, where: str, path: pathlib.Path) -> None:
        self._pa = need("pyarrow", "workbench", "a .parquet file")
        parquet = need("pyarrow.parquet", "workbench", "a .parquet file")
        with self._whole(where):
            self._file = parquet.ParquetFile(path, page_checksum_verification=True)
            self._types = {field.name: field.type for field in self._file.schema_arrow}
            names, n_rows = self._file.schema_arrow.names, self._file.metadata.num_rows
        super().__init__(where, names, n_rows)

    @contextlib.contextmanager
    def _whole(self, where: str) -> Iterator[None]:
        """Whatever the reader trips over, the file is not what it should be."""
        try:
            yield
        except MemoryError:
            raise
        except Exception as error:
            fail(
                where, f"not a whole Parquet file ({reason(error)}).", "Write it or copy it again."
            )

    def _read(self, name: str) -> Any:
        with self._whole(self.where):
            column = self._file.read(columns=[name]).column(name)
            if len(column) != self.n_rows:
                raise ValueError(f"{len(column)} of {self.n_rows} rows")
            column.validate(full=True)
        return column

    def is_numeric(self, name: str) -> bool:
        kind, types = self._types[name], self._pa.types
        # A data frame's own row index is stored as a column of this name.
        if re.fullmatch(r"__index_level_\d+__", name):
            return False
        return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))

    def numbers(self, name: str) -> Float64[np.ndarray, "N"]:
        column = self._read(name)
        if not (self.is_numeric(name) or self._pa.types.is_boolean(column.type)):
            first = next((cell for cell in column if cell.is_valid), None)
            what = f"column {name!r} holds {column.type}, not numbers{_example(first)}."
            fail(self.where, what, "Leave it out of `columns`, or convert it to numbers.")
        with self._whole(self.where):
            result: np.ndarray = column.cast(self._pa.float64(), safe=False).to_numpy()
        return result

    def texts(self, name: str) -> list[str | None]:
        column = self._read(name)
        try:
            cells = column.cast(self._pa.string()).to_pylist()
        except (self._pa.ArrowException, UnicodeDecodeError):
            what = f"column {name!r} holds {column.type}, which cannot be a label."
            fail(self.where, what, "A label is text or a whole number.")
        return [None if cell is None or cell.strip() in _MISSING else cell for cell in cells]


def _example(cell: Any) -> str:
    """A cell's value as a person would recognise it; there are dates that Python cannot hold."""
    try:
        return "" if cell is None else f", for example {str(cell.as_py())[:60]!r}"
    except (ValueError, OverflowError):
        return ""


class ArrayTable(Table):
    """A matrix in memory or on disk, with columns of text beside it."""

    def __init__(
        self, where: str, names: list[str], x: np.ndarray, targets: dict[str, list[str]]
    ) -> None:
        """Take a matrix with one name per column, and `targets`: text columns by name."""
        self._x, self._targets = x, targets
        self._place = {name: place for place, name in enumerate(names)}
        super().__init__(where, [*names, *targets], x.shape[0])

    def is_numeric(self, name: str) -> bool:
        """Every column of the matrix is."""
        return name not in self._targets

    def numbers(self, name: str) -> Float64[np.ndarray, "N"]:
        """A column of the matrix in double precision."""
        if name in self._targets:
            self.refuse(name, 0, self._targets[name][0])
        with np.errstate(invalid="ignore", over="ignore"):  # what is no double becomes NaN or inf
            return self._x[:, self._place[name]].astype(np.float64)

    def texts(self, name: str) -> list[str | None]:
        """A text column, or a column of the matrix written out."""
        if name in self._targets:
            return list(self._targets[name])
        return [None if math.isnan(v) else repr(v) for v in self.numbers(name).tolist()]

    def matrix(self, columns: list[str]) -> Float64[np.ndarray, "N D"]:
        """All columns as they lie on disk if they can be used so, otherwise a copy."""
        if columns == self.names and self._x.dtype == np.float64 and self._x.dtype.isnative:
            return self._x
        return super().matrix(columns)


def _open_csv(where: str, path: pathlib.Path) -> Table:
    arrow = need("pyarrow.csv", "workbench", "a .csv file")
    # As text, with where each cell begins, and its numbers: short cells are the worst.
    memory.require(4 * path.stat().st_size, where)
    header = csv_header(where, path)
    short: list[tuple[int | None, int]] = []

    def note_short(row: Any) -> str:
        short.append((row.number, row.actual_columns))
        return "error"

    try:
        table = arrow.read_csv(
            path,
            # One thread: only then does the reader know the number of a row it refuses. A large
            # block, since a row may not be longer than one.
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


def csv_header(where: str, path: pathlib.Path) -> list[str]:
    """The names in the first line, exactly as they are written."""
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


def _open_npy(where: str, path: pathlib.Path, mapped: bool) -> Table:
    with path.open("rb") as file:
        start = file.read(6)
    if start[:2] == b"PK":
        fail(where, "this is an .npz archive.", "Save one array with numpy.save.")
    if start != b"\x93NUMPY":  # numpy.load would now try to read an archive or a pickle
        fail(where, "not a whole .npy file (it begins otherwise).", "Write it or copy it again.")
    if not mapped:
        memory.require(path.stat().st_size, where)
    try:
        # Mapped even if it is read: the reader alone is wrong about types like "4f2".
        x = np.load(path, "r", allow_pickle=False)
        end = x.offset + x.nbytes
        if not mapped:
            x = np.load(path, allow_pickle=False)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever it trips over, the file is not what it should be
        if "Python objects" in str(error) or "Object arrays" in str(error):
            fix = "Save numbers: numpy.save(path, x.astype(float))."
            fail(where, "the array holds Python objects, which are never unpickled.", fix)
        fail(where, f"not a whole .npy file ({reason(error)}).", "Write it or copy it again.")
    if end != path.stat().st_size:
        fail(where, "there is more in the file than one array.", "Save each in a file of its own.")
    if x.dtype.kind not in "fiub":
        fix = "Save a matrix of real numbers; for columns of several kinds use Parquet."
        fail(where, f"the array holds {x.dtype}, not real numbers.", fix)
    if x.ndim != 2:
        fix = "Samples go in rows: (N, D); a single feature is x.reshape(-1, 1)."
        fail(where, f"the array has shape {x.shape}, not two dimensions.", fix)
    names = [f"x{i}" for i in range(x.shape[1])] if x.size else []
    return ArrayTable(where, names, x, {})
