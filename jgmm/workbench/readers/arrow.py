"""What pyarrow reads by columns: Parquet files, Arrow files, and fragments of data sets."""

import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from jgmm.workbench.readers.partition import File, Piece, Read
from jgmm.workbench.readers.tables import fail, need, reason


def open_parquet(path: pathlib.Path) -> File:
    """Look at the schema of a Parquet file; each row group is a piece."""
    parquet = need("pyarrow.parquet", "workbench", "a .parquet file")
    where = str(path)
    try:
        file = parquet.ParquetFile(path)
    except Exception as error:  # whatever the reader trips over, the file is not what it should be
        fail(where, f"not a whole Parquet file ({reason(error)}).", "Write it or copy it again.")
    with file:
        schema, metadata = file.schema_arrow, file.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]

    def pieces(chosen: list[str]) -> list[Piece]:
        _check_types(where, schema, chosen)
        starts = [0, *itertools.accumulate(sizes)]
        return [
            Piece(where, n, starts[i], _parquet_reader(path, i, chosen))
            for i, n in enumerate(sizes)
        ]

    return File(where, [str(name) for name in schema.names], pieces)


def _parquet_reader(path: pathlib.Path, group: int, chosen: list[str]) -> Read:
    def read(n_bytes: int, skip: bool) -> Iterator[np.ndarray]:
        parquet = need("pyarrow.parquet", "workbench", "a .parquet file")
        rows = max(1, n_bytes // (8 * len(chosen)))
        try:
            with parquet.ParquetFile(path, page_checksum_verification=True) as file:
                for batch in file.iter_batches(
                    rows, row_groups=[group], columns=chosen, use_threads=False
                ):
                    yield _side_by_side(batch, chosen)
        except (OSError, ValueError) as error:  # what Arrow raises
            fail(str(path), f"row group {group}: {reason(error)}.", "Write it or copy it again.")

    return read


def open_arrow(path: pathlib.Path) -> File:
    """Look at the schema of an Arrow (Feather) file."""
    dataset = need("pyarrow.dataset", "workbench", "an Arrow file")
    try:
        (fragment,) = dataset.dataset(path, format="ipc").get_fragments()
        return open_fragment(fragment)
    except ValueError as error:  # ArrowInvalid is one
        fail(str(path), f"not a whole Arrow file ({reason(error)}).", "Write it or copy it again.")


def open_fragment(fragment: Any) -> File:
    """A fragment of an Arrow data set, of whatever format."""
    where = str(getattr(fragment, "path", "") or "Arrow data in memory")
    schema = fragment.physical_schema

    def pieces(chosen: list[str]) -> list[Piece]:
        _check_types(where, schema, chosen)

        def read(n_bytes: int, skip: bool) -> Iterator[np.ndarray]:
            rows = max(1, n_bytes // (8 * len(chosen)))
            options = {"use_threads": False, "batch_readahead": 1, "fragment_readahead": 1}
            for batch in fragment.to_batches(columns=chosen, batch_size=rows, **options):
                yield _side_by_side(batch, chosen)

        return [Piece(where, fragment.count_rows(), 0, read)]

    return File(where, [str(name) for name in schema.names], pieces)


def _check_types(where: str, schema: Any, chosen: list[str]) -> None:
    types = need("pyarrow.types", "workbench", "a .parquet file")
    for name in chosen:
        kind = schema.field(name).type
        known = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
        if not any(test(kind) for test in known):
            what = f"column {name!r} holds {kind}, not numbers."
            fail(where, what, "Leave it out of `columns`, or convert it to numbers.")


def _side_by_side(batch: Any, chosen: list[str]) -> np.ndarray:
    """Columns of a batch as a matrix of the widest of their types; NaN where a value is missing."""
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
