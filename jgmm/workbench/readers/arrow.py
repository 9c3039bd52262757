"""Readers of Parquet files, of Arrow (Feather) files, and of fragments of Arrow data sets.

Parquet files are read as a table, one column at a time, or as a stream of blocks, one row group at
a time; Arrow files as a table in memory, or as a stream. Fragments are read as streams only.
"""

import contextlib
import itertools
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float64

from jgmm._core.errors import UserError
from jgmm.workbench.readers.partition import File, Piece, Read
from jgmm.workbench.readers.tables import MISSING, Table, fail, need, reason
from jgmm.workbench.runs import memory


def open_parquet_table(where: str, path: pathlib.Path, mapped: bool = True) -> Table:
    """Open a Parquet file as a table.

    Args:
      where: the name of the file in messages.
      path: the file.
      mapped: makes no difference here; a column is read when it is asked for.

    Raises:
      UserError: the file is not a whole Parquet file.
    """
    parquet = need("pyarrow.parquet", "workbench", "a .parquet file")
    with _refuse_damaged(where, "Parquet file"):
        file = parquet.ParquetFile(path, page_checksum_verification=True)
        schema, n_rows = file.schema_arrow, file.metadata.num_rows

    def read(name: str) -> Any:
        return file.read(columns=[name]).column(name)

    return TypedTable(where, schema, n_rows, read, "Parquet file")


def open_arrow_table(where: str, path: pathlib.Path, mapped: bool = True) -> Table:
    """Read an Arrow (Feather) file into memory as a table.

    Args:
      where: the name of the file in messages.
      path: the file.
      mapped: makes no difference here.

    Raises:
      UserError: the file is not a whole Arrow file, or is too large for the memory.
    """
    feather = need("pyarrow.feather", "workbench", "an Arrow file")
    memory.require(path.stat().st_size, where)
    with _refuse_damaged(where, "Arrow file"):
        table = feather.read_table(path, memory_map=False, use_threads=False)
    return TypedTable(where, table.schema, table.num_rows, table.column, "Arrow file")


@contextlib.contextmanager
def _refuse_damaged(where: str, kind: str) -> Iterator[None]:
    """Turn any exception of the reader into a ``UserError``: the file is damaged."""
    try:
        yield
    except (MemoryError, UserError):
        raise
    except Exception as error:
        fail(where, f"not a whole {kind} ({reason(error)}).", "Write it or copy it again.")


class TypedTable(Table):
    """Columns of Arrow's types, each of which is read when it is asked for."""

    def __init__(
        self,
        where: str,
        schema: Any,
        n_rows: int,
        read_column: Callable[[str], Any],
        kind: str,
    ) -> None:
        """Take the function that reads a column, and the kind of file for messages."""
        self._pa = need("pyarrow", "workbench", "Arrow data")
        self._types = {field.name: field.type for field in schema}
        self._read_column, self._kind = read_column, kind
        super().__init__(where, schema.names, n_rows)

    def _read(self, name: str) -> Any:
        with _refuse_damaged(self.where, self._kind):
            column = self._read_column(name)
            if len(column) != self.n_rows:
                raise ValueError(f"{len(column)} of {self.n_rows} rows")
            column.validate(full=True)
        return column

    def why_left_out(self, name: str) -> str:
        """Say what a column holds instead of numbers."""
        kind, types = self._types[name], self._pa.types
        return "text" if types.is_string(kind) or types.is_large_string(kind) else str(kind)

    def is_numeric(self, name: str) -> bool:
        """Return whether a column is of a type of numbers, and no index of a data frame."""
        kind, types = self._types[name], self._pa.types
        # A data frame's own row index is stored as a column of this name.
        if re.fullmatch(r"__index_level_\d+__", name):
            return False
        return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))

    def numbers(self, name: str) -> Float64[np.ndarray, "N"]:
        """Return a column of numbers in double precision."""
        column = self._read(name)
        if not (self.is_numeric(name) or self._pa.types.is_boolean(column.type)):
            first = next((value for value in column if value.is_valid), None)
            what = f"column {name!r} holds {column.type}, not numbers{_example(first)}."
            fail(self.where, what, "Leave it out of `columns`, or convert it to numbers.")
        with _refuse_damaged(self.where, self._kind):
            result: np.ndarray = column.cast(self._pa.float64(), safe=False).to_numpy()
        return result

    def texts(self, name: str) -> list[str | None]:
        """Return a column as text, as Arrow writes it."""
        column = self._read(name)
        try:
            values = column.cast(self._pa.string()).to_pylist()
        except (self._pa.ArrowException, UnicodeDecodeError):
            what = f"column {name!r} holds {column.type}, which cannot be a label."
            fail(self.where, what, "A label is text or a whole number.")
        return [None if value is None or value.strip() in MISSING else value for value in values]


def _example(value: Any) -> str:
    """Quote a value for a message, or return nothing for a date that Python cannot hold."""
    try:
        return "" if value is None else f", for example {str(value.as_py())[:60]!r}"
    except (ValueError, OverflowError):
        return ""


def open_parquet_stream(path: pathlib.Path) -> File:
    """Read the schema of a Parquet file; each row group is a piece."""
    parquet = need("pyarrow.parquet", "workbench", "a .parquet file")
    where = str(path)
    try:
        file = parquet.ParquetFile(path)
    except Exception as error:  # whichever it is, the file is damaged or not a Parquet file
        fail(where, f"not a whole Parquet file ({reason(error)}).", "Write it or copy it again.")
    with file:
        schema, metadata = file.schema_arrow, file.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]

    def pieces(chosen: list[str]) -> list[Piece]:
        _check_types(where, schema, chosen)
        starts = [0, *itertools.accumulate(sizes)]
        return [
            Piece(where, n, starts[i], _row_group_reader(path, i, chosen))
            for i, n in enumerate(sizes)
        ]

    return File(where, [str(name) for name in schema.names], pieces)


def _row_group_reader(path: pathlib.Path, group: int, chosen: list[str]) -> Read:
    def read(n_bytes: int, skip: bool) -> Iterator[np.ndarray]:
        parquet = need("pyarrow.parquet", "workbench", "a .parquet file")
        rows = max(1, n_bytes // (8 * len(chosen)))
        try:
            with parquet.ParquetFile(path, page_checksum_verification=True) as file:
                for batch in file.iter_batches(
                    rows, row_groups=[group], columns=chosen, use_threads=False
                ):
                    yield _to_matrix(batch, chosen)
        except (OSError, ValueError) as error:  # what Arrow raises
            fail(str(path), f"row group {group}: {reason(error)}.", "Write it or copy it again.")

    return read


def open_arrow_stream(path: pathlib.Path) -> File:
    """Read the schema of an Arrow (Feather) file; the whole file is one piece."""
    dataset = need("pyarrow.dataset", "workbench", "an Arrow file")
    try:
        (fragment,) = dataset.dataset(path, format="ipc").get_fragments()
        return open_fragment(fragment)
    except ValueError as error:  # ArrowInvalid is one
        fail(str(path), f"not a whole Arrow file ({reason(error)}).", "Write it or copy it again.")


def open_fragment(fragment: Any) -> File:
    """Read the schema of a fragment of an Arrow data set, of any format; it is one piece."""
    where = str(getattr(fragment, "path", "") or "Arrow data in memory")
    schema = fragment.physical_schema

    def pieces(chosen: list[str]) -> list[Piece]:
        _check_types(where, schema, chosen)

        def read(n_bytes: int, skip: bool) -> Iterator[np.ndarray]:
            rows = max(1, n_bytes // (8 * len(chosen)))
            options = {"use_threads": False, "batch_readahead": 1, "fragment_readahead": 1}
            for batch in fragment.to_batches(columns=chosen, batch_size=rows, **options):
                yield _to_matrix(batch, chosen)

        return [Piece(where, fragment.count_rows(), 0, read)]

    return File(where, [str(name) for name in schema.names], pieces)


def _check_types(where: str, schema: Any, chosen: list[str]) -> None:
    """Refuse a chosen column that does not hold numbers."""
    types = need("pyarrow.types", "workbench", "a .parquet file")
    for name in chosen:
        kind = schema.field(name).type
        known = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
        if not any(test(kind) for test in known):
            what = f"column {name!r} holds {kind}, not numbers."
            fail(where, what, "Leave it out of `columns`, or convert it to numbers.")


def _to_matrix(batch: Any, chosen: list[str]) -> np.ndarray:
    """Stack columns into a matrix of the widest of their types, NaN where a value is missing."""
    columns = [batch.column(name) for name in chosen]
    arrays = [_numbers(column) for column in columns]
    matrix = np.empty((batch.num_rows, len(arrays)), np.result_type(*arrays))
    for i, values in enumerate(arrays):
        matrix[:, i] = values
    return matrix


def _numbers(column: Any) -> np.ndarray:
    types, arrow = (need(f"pyarrow{name}", "workbench", "Arrow data") for name in (".types", ""))
    if types.is_decimal(column.type) or types.is_boolean(column.type):
        column = column.cast(arrow.float64(), safe=False)
    found: np.ndarray = column.to_numpy(zero_copy_only=False)
    return found
