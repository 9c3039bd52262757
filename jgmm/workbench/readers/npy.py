"""NumPy arrays on disk, read row by row from anywhere."""

import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from jgmm.workbench.readers.partition import File, Piece
from jgmm.workbench.readers.tables import fail, reason


def open_npy(path: pathlib.Path) -> File:
    """Look at the header of a .npy file of samples in rows."""
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
