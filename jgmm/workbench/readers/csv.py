"""Text, read in one thread, so that a row that is refused can be named."""

import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from jgmm.workbench.readers.partition import File, Piece
from jgmm.workbench.readers.tables import NUMBER, csv_header, fail, need, reason

CSV_BYTES = 1 << 22  # of text read at once


def open_csv(path: pathlib.Path) -> File:
    """Look at the header of a CSV file, and count its lines."""
    where = str(path)
    names = csv_header(where, path)
    n_rows = _n_lines(path) - 1

    def pieces(chosen: list[str]) -> list[Piece]:
        def read(n_bytes: int, skip: bool) -> Iterator[np.ndarray]:
            return _read_csv(path, names, chosen, skip)

        return [Piece(where, n_rows, 0, read)]

    return File(where, [name.strip() for name in names], pieces)


def _n_lines(path: pathlib.Path) -> int:
    count, last = 0, b""
    with path.open("rb") as file:
        while block := file.read(CSV_BYTES):
            count, last = count + block.count(b"\n"), block
    return count + (not last.endswith(b"\n"))


def _read_csv(
    path: pathlib.Path, header: list[str], chosen: list[str], skip: bool
) -> Iterator[np.ndarray]:
    """Blocks of a CSV file. What is no number becomes NaN, and a row of another width all NaN."""
    arrow = need("pyarrow.csv", "workbench", "a .csv file")
    where, row = str(path), 0
    short: list[Any] = []
    names = [name.strip() for name in header]

    def note(bad: Any) -> str:
        short.append(bad)
        return "skip" if skip else "error"

    options = (
        # One thread: only then does the reader know the number of a row it refuses.
        arrow.ReadOptions(use_threads=False, block_size=CSV_BYTES, column_names=names, skip_rows=1),
        arrow.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
        arrow.ConvertOptions(column_types=dict.fromkeys(names, "string"), include_columns=chosen),
    )
    try:
        with arrow.open_csv(path, *options) as reader:
            for batch in reader:
                columns = [_cells(batch.column(name), where, name, row, skip) for name in chosen]
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


def _cells(column: Any, where: str, name: str, row: int, skip: bool) -> np.ndarray:
    """Text as numbers, NaN where it is none."""
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
