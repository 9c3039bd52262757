"""Reader of NumPy's files: ``.npy``, as a memory-mapped table or as a stream, and ``.npz``.

The file holds samples in rows, (N, D); its columns are called x0, x1, … A stream can begin at any
row, so a file can be cut between processes anywhere.
"""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from jgmm._core.errors import UserError, suggest
from jgmm.workbench.readers.dialect import Overrides
from jgmm.workbench.readers.partition import File, Piece
from jgmm.workbench.readers.tables import ArrayTable, Table, fail, reason
from jgmm.workbench.runs import memory


def open_table(where: str, path: pathlib.Path, mapped: bool = True) -> Table:
    """Open a ``.npy`` file as a table.

    Args:
      where: the name of the file in messages.
      path: the file.
      mapped: leave the array on disk until its values are used; false reads it now.

    Raises:
      UserError: the file is not one whole matrix of real numbers, or is too large for the memory.
    """
    with path.open("rb") as file:
        start = file.read(6)
    if start[:2] == b"PK":
        fail(where, "this is an .npz archive.", "Give it the suffix .npz.")
    if start != b"\x93NUMPY":  # numpy.load would now try to read an archive or a pickle
        fail(where, "not a whole .npy file (it begins otherwise).", "Write it or copy it again.")
    if not mapped:
        memory.require(path.stat().st_size, where)
    try:
        # Mapped even if it is read afterwards: numpy.load without a map misreads types like "4f2".
        x = np.load(path, "r", allow_pickle=False)
        end = x.offset + x.nbytes
        if not mapped:
            x = np.load(path, allow_pickle=False)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whichever it is, the file is damaged or not an array
        if "Python objects" in str(error) or "Object arrays" in str(error):
            fix = "Save numbers: numpy.save(path, x.astype(float))."
            fail(where, "the array holds Python objects, which are never unpickled.", fix)
        fail(where, f"not a whole .npy file ({reason(error)}).", "Write it or copy it again.")
    if end != path.stat().st_size:
        fail(where, "there is more in the file than one array.", "Save each in a file of its own.")
    x = _checked(where, x)
    return ArrayTable(where, _names(x.shape[1]) if x.size else [], x, {})


def open_archive(
    where: str, path: pathlib.Path, mapped: bool = True, overrides: Overrides | None = None
) -> Table:
    """Open a ``.npz`` file as a table.

    The table is the array that ``overrides.part`` names, the only matrix of the file, or its
    vectors: if all arrays are vectors of one length, each is a column of that name.

    Args:
      where: the name of the file in messages.
      path: the file.
      mapped: makes no difference here; an archive has to be read into memory.
      overrides: the name of the array.

    Raises:
      UserError: it is not said which array is meant, or the file is damaged.
    """
    memory.require(path.stat().st_size, where)
    part = None if overrides is None else overrides.part
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive.files)
            if part is not None and part not in names:
                ask = suggest(part, names, n=3)
                fail(where, f"there is no array {part!r}.{ask}", f"It has: {', '.join(names)}.")
            arrays = {name: archive[name] for name in (names if part is None else [part])}
    except (OSError, MemoryError, UserError):
        raise
    except Exception as error:  # whichever it is, the file is damaged or holds objects
        fail(where, f"not a whole .npz file ({reason(error)}).", "Write it or copy it again.")
    matrices = [name for name, x in arrays.items() if x.ndim == 2]
    lengths = {len(x) for x in arrays.values() if x.ndim == 1}
    if not matrices and len(lengths) == 1 and all(x.ndim == 1 for x in arrays.values()):
        return _vectors(where, arrays)
    if len(matrices) != 1:
        listed = ", ".join(f"{name} {x.shape}" for name, x in arrays.items()) or "none"
        fix = f"Name one matrix: {path.name}:{matrices[0] if matrices else 'NAME'}."
        fail(where, f"the file does not hold one matrix; its arrays are: {listed}.", fix)
    x = _checked(where, arrays[matrices[0]])
    others = [name for name in arrays if name != matrices[0]]
    told = [f"array {matrices[0]}, not {', '.join(others)}"] if others else []
    return ArrayTable(where, _names(x.shape[1]) if x.size else [], x, {}, told)


def _vectors(where: str, arrays: dict[str, np.ndarray]) -> Table:
    """Return arrays (N,) as columns; those of text are columns of text."""
    numbers = {name: x for name, x in arrays.items() if x.dtype.kind in "fiub"}
    texts = {name: [str(v) for v in x] for name, x in arrays.items() if name not in numbers}
    if not numbers:
        fail(where, "no array holds real numbers.", "Save a matrix of real numbers.")
    x = np.stack([vector.astype(np.float64) for vector in numbers.values()], axis=1)
    return ArrayTable(where, list(numbers), x, texts)


def _checked(where: str, x: np.ndarray) -> np.ndarray:
    """Return an array that is a matrix of real numbers."""
    if x.dtype.kind not in "fiub":
        fix = "Save a matrix of real numbers; for columns of several kinds use Parquet."
        fail(where, f"the array holds {x.dtype}, not real numbers.", fix)
    if x.ndim != 2:
        fix = "Samples go in rows: (N, D); a single feature is x.reshape(-1, 1)."
        fail(where, f"the array has shape {x.shape}, not two dimensions.", fix)
    return x


def open_stream(path: pathlib.Path) -> File:
    """Read the header of a ``.npy`` file; the file can be split at any row."""
    where = str(path)
    with path.open("rb") as file:
        shape, dtype, offset = _read_header(file, where)
    n_rows, width = shape
    names = _names(width)

    def piece(chosen: list[str], first: int, last: int) -> Piece:
        index = [names.index(name) for name in chosen]

        def read(n_bytes: int, skip: bool) -> Iterator[np.ndarray]:
            return _read_blocks(path, dtype, offset, width, index, first, last, n_bytes)

        return Piece(where, last - first, first, read)

    return File(where, names, lambda chosen: [piece(chosen, 0, n_rows)], piece)


def _names(width: int) -> list[str]:
    return [f"x{i}" for i in range(width)]


def _read_header(file: Any, where: str) -> tuple[tuple[int, int], np.dtype, int]:
    """Return the shape and type of the array, and the position of its first byte."""
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


def _read_blocks(
    path: pathlib.Path,
    dtype: np.dtype,
    offset: int,
    width: int,
    index: list[int],
    first: int,
    last: int,
    n_bytes: int,
) -> Iterator[np.ndarray]:
    """Yield blocks of rows, each read into the same memory as the one before.

    A memory map is not used: every page that was ever read through it counts as memory of this
    process.
    """
    row_bytes = width * dtype.itemsize
    rows = max(1, n_bytes // row_bytes)
    buffer = np.empty((min(rows, last - first), width), dtype)
    all_columns = index == list(range(width))
    with path.open("rb", buffering=0) as file:
        file.seek(offset + first * row_bytes)
        for start in range(first, last, rows):
            part = buffer[: min(rows, last - start)]
            _fill(file, part, path)
            native = part if dtype.isnative else part.astype(dtype.newbyteorder("="))
            yield native if all_columns else native[:, index]


def _fill(file: Any, part: np.ndarray, path: pathlib.Path) -> None:
    """Read from a file until an array is full."""
    view = memoryview(part.reshape(-1).view(np.uint8).data)
    while view:
        n = file.readinto(view)
        if not n:
            fail(str(path), "the file became shorter while it was read.", "Leave it as it is.")
        view = view[n:]
