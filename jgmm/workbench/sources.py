"""Files larger than memory, as sources of blocks for `jgmm.streaming`.

A source is one file, a folder of files, several of them, or an Arrow data set; it is cut into
pieces (ranges of rows, row groups, files), of which each process of a job reads its own. Rows are
counted from 1 in each file, without a header, in messages.
"""

import bisect
import itertools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jgmm.workbench.files import UserError
from jgmm.workbench.tables import NUMBER, csv_header, fail, nearest, need, reason

BLOCK_BYTES = 1 << 23  # read at once; the engine joins such blocks to its own
CSV_BYTES = 1 << 22
SUFFIXES = (".npy", ".parquet", ".pq", ".csv", ".arrow", ".feather")


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


class FileSource:
    """Samples in files, block by block, anew each time it is iterated.

    Attributes:
      columns: names of the D features.
      n_rows: of this process's share.
      n_total: of all.
      first_row: the number of its first row among all.
      n_skipped: rows that were not used in the last pass, where bad rows are skipped.
    """

    def __init__(
        self,
        source: Any,
        columns: Sequence[str] | None = None,
        weight: str | None = None,
        *,
        skip_bad: bool = False,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        """Open the files and look at their headers, not yet at their rows.

        Args:
          source: a path, a folder, a list of them, or a `pyarrow.dataset.Dataset`. Files are read
            in the order of their names.
          columns: the features, in this order; by default all but the weight.
          weight: column of sample weights.
          skip_bad: leave rows out that hold NaN, infinite or overflowing values, text, or a wrong
            number of values, and count them; otherwise they are errors.
          share: which of how many processes this is. Shares are runs of rows, of row groups of a
            Parquet file, or of whole CSV files; one may be empty.

        Raises:
          UserError: a file that cannot be read or has other columns than the first.
        """
        files = _open(source)
        self.columns = _columns(files[0], columns, weight)
        chosen = [*self.columns, *([] if weight is None else [weight])]
        for file in files:
            _check_names(file, chosen)
        self._weighted, self._skip = weight is not None, skip_bad
        pieces = [(file, piece) for file in files for piece in file.pieces(chosen)]
        self.n_total = sum(piece.n_rows for _, piece in pieces)
        self._pieces, self.first_row = _share(pieces, chosen, *share)
        self.n_rows = sum(piece.n_rows for piece in self._pieces)
        self.n_skipped = 0

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        """Blocks of samples and their weights; a block may be overwritten by the next."""
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
        limit = _limit(x.dtype, x.shape[1])
        sound = x.size == 0 or (x.max() < limit and x.min() > -limit)  # both false for NaN
        if weights is not None:
            sound = sound and (weights.size == 0 or (weights.min() >= 0 and weights.max() < limit))
        if sound:
            return x, weights
        return self._repaired(x, weights, limit, where, row)

    def _repaired(
        self, x: np.ndarray, weights: np.ndarray | None, limit: float, where: str, row: int
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Rows that are not usable, named or with weight zero."""
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


def _limit(dtype: np.dtype, n_features: int) -> float:
    """Values whose squares can be added up."""
    if dtype == np.float16:
        return float(np.finfo(np.float16).max)
    kind = dtype if dtype.kind == "f" else np.dtype(np.float64)
    return float(np.sqrt(np.finfo(kind).max)) / n_features


# --- from what a person names to files ---------------------------------------------------------


def _open(source: Any) -> list[File]:
    if hasattr(source, "get_fragments"):  # an Arrow data set
        return [_open_fragment(each) for each in source.get_fragments()]
    given = source if isinstance(source, list | tuple) else [source]
    paths = [path for each in given for path in _paths(pathlib.Path(os.path.expanduser(each)))]
    return [_open_file(path) for path in paths]


def _paths(path: pathlib.Path) -> list[pathlib.Path]:
    if not os.path.exists(path):
        fail(f"data source {str(path)!r}", "there is no such file or folder.", "Check the path.")
    if not path.is_dir():
        return [path]
    found = sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES)
    if not found:
        fail(str(path), f"no file in this folder ends in one of {', '.join(SUFFIXES)}.", "")
    return found


def _open_file(path: pathlib.Path) -> File:
    suffix = path.suffix.lower()
    openers = {
        ".npy": _open_npy,
        ".csv": _open_csv,
        ".parquet": _open_parquet,
        ".pq": _open_parquet,
    }
    openers |= dict.fromkeys((".arrow", ".feather"), _open_arrow)
    if suffix not in openers:
        fix = f"Convert it to one of {', '.join(SUFFIXES)}."
        fail(f"data source {str(path)!r}", f"files ending {suffix!r} cannot be read.", fix)
    try:
        return openers[suffix](path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or reason(error)}") from error


def _columns(file: File, columns: Sequence[str] | None, weight: str | None) -> list[str]:
    chosen = [name for name in file.names if name != weight] if columns is None else list(columns)
    asked = [*chosen, *([] if weight is None else [weight])]
    if not chosen or len(set(asked)) < len(asked):
        fail(file.where, f"columns = {chosen}: name at least one column, and each once.", "")
    return chosen


def _check_names(file: File, chosen: list[str]) -> None:
    for name in chosen:
        if name not in file.names:
            near = nearest(name, file.names)
            ask = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            listed = ", ".join(file.names[:20]) + (", …" if len(file.names) > 20 else "")
            fail(file.where, f"there is no column {name!r}.{ask}", f"The columns are: {listed}.")


def _share(
    pieces: list[tuple[File, Piece]], chosen: list[str], rank: int, size: int
) -> tuple[list[Piece], int]:
    """The pieces of one of several processes, and the number of its first row."""
    ends = list(itertools.accumulate(piece.n_rows for _, piece in pieces))
    total = ends[-1] if ends else 0
    low, high = total * rank // size, total * (rank + 1) // size
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


# --- kinds of file -----------------------------------------------------------------------------


def _open_npy(path: pathlib.Path) -> File:
    where = str(path)
    with path.open("rb") as file:
        shape, dtype, offset = _npy_header(file, where)
    n_rows, width = shape
    names = [f"x{i}" for i in range(width)]

    def piece(chosen: list[str], first: int, last: int) -> Piece:
        index = [names.index(name) for name in chosen]

        def read(n_bytes: int, skip: bool) -> Iterator[np.ndarray]:
            return _read_npy(path, dtype, offset, width, index, first, last, n_bytes)

        return Piece(where, last - first, first, read)

    return File(where, names, lambda chosen: [piece(chosen, 0, n_rows)], piece)


def _npy_header(file: Any, where: str) -> tuple[tuple[int, int], np.dtype, int]:
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): "read_array_header_1_0", (2, 0): "read_array_header_2_0"}[version]
        shape, by_columns, dtype = getattr(np.lib.format, read)(file)
    except (ValueError, KeyError) as error:
        fail(where, f"not a whole .npy file ({reason(error)}).", "Write it or copy it again.")
    if len(shape) != 2 or 0 in shape:
        fail(where, f"the array has shape {shape}.", "Save samples in rows: (N, D).")
    if dtype.kind not in "fiub" or (dtype.kind == "f" and dtype.itemsize > 8):
        fail(where, f"the array holds {dtype}.", "Save float16, float32, float64 or integers.")
    if by_columns:
        fail(where, "the array lies column by column.", "Save numpy.ascontiguousarray(x).")
    offset = file.tell()
    needed = shape[0] * shape[1] * dtype.itemsize
    there = os.fstat(file.fileno()).st_size - offset
    if there < needed:
        what = f"the file was cut short: {there} of {needed} bytes of samples are there."
        fail(where, what, "Write it or copy it again.")
    return shape, dtype, offset


def _read_npy(
    path: pathlib.Path,
    dtype: np.dtype,
    offset: int,
    width: int,
    index: list[int],
    first: int,
    last: int,
    n_bytes: int,
) -> Iterator[np.ndarray]:
    """Rows of the array, read into one piece of memory again and again.

    Of a memory map all pages that were ever touched would count as this process's memory.
    """
    row_bytes = width * dtype.itemsize
    rows = max(1, n_bytes // row_bytes)
    room = np.empty((min(rows, last - first), width), dtype)
    every = index == list(range(width))
    with path.open("rb", buffering=0) as file:
        file.seek(offset + first * row_bytes)
        for start in range(first, last, rows):
            part = room[: min(rows, last - start)]
            _fill(file, part, path)
            native = part if dtype.isnative else part.astype(dtype.newbyteorder("="))
            yield native if every else native[:, index]


def _fill(file: Any, part: np.ndarray, path: pathlib.Path) -> None:
    view = memoryview(part.reshape(-1).view(np.uint8).data)
    while view:
        n = file.readinto(view)
        if not n:
            fail(str(path), "the file became shorter while it was read.", "Leave it as it is.")
        view = view[n:]


def _open_parquet(path: pathlib.Path) -> File:
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


def _open_arrow(path: pathlib.Path) -> File:
    dataset = need("pyarrow.dataset", "workbench", "an Arrow file")
    try:
        (fragment,) = dataset.dataset(path, format="ipc").get_fragments()
        return _open_fragment(fragment)
    except ValueError as error:  # ArrowInvalid is one
        fail(str(path), f"not a whole Arrow file ({reason(error)}).", "Write it or copy it again.")


def _open_fragment(fragment: Any) -> File:
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


def _open_csv(path: pathlib.Path) -> File:
    where = str(path)
    names = csv_header(where, path)
    n_rows = _lines(path) - 1

    def pieces(chosen: list[str]) -> list[Piece]:
        def read(n_bytes: int, skip: bool) -> Iterator[np.ndarray]:
            return _read_csv(path, names, chosen, skip)

        return [Piece(where, n_rows, 0, read)]

    return File(where, [name.strip() for name in names], pieces)


def _lines(path: pathlib.Path) -> int:
    count, last = 0, b""
    with path.open("rb") as file:
        while block := file.read(1 << 22):
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
