"""The table of file formats: how files of each are opened, whole or block by block.

To add a format, write how its files are read and add one entry to ``FORMATS``, here or, from
outside the package, with ``FORMATS.append``. Data sets, streams, completion in a shell and error
messages all read the table.
"""

import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from jgmm.workbench.readers import arrow, csv, npy
from jgmm.workbench.readers.partition import File
from jgmm.workbench.readers.tables import Table, fail

OpenTable = Callable[[str, pathlib.Path, bool], Table]
"""``(name in messages, path, whether values may stay on disk until they are used) -> table``"""

OpenStream = Callable[[pathlib.Path], File]
"""``path -> opened file``, of which only the header has been read"""

Opener = TypeVar("Opener", OpenTable, OpenStream)


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
      name: the name of the format.
      suffixes: the suffixes of its files, in lower case, with the dot.
      open_table: opens a file as a table, for data sets in memory; None where there is no way to.
      open_stream: opens a file as a stream of blocks of rows; None where there is no way to.
    """

    name: str
    suffixes: tuple[str, ...]
    open_table: OpenTable | None
    open_stream: OpenStream | None


FORMATS = [
    Format("CSV", (".csv",), csv.open_table, csv.open_stream),
    Format("Parquet", (".parquet", ".pq"), arrow.open_parquet_table, arrow.open_parquet_stream),
    Format("NumPy", (".npy",), npy.open_table, npy.open_stream),
    Format("Arrow", (".arrow", ".feather"), None, arrow.open_arrow_stream),
]
"""Every format that can be read."""


def table_openers() -> dict[str, OpenTable]:
    """Return how a file is opened as a table, by suffix.

    >>> list(table_openers())
    ['.csv', '.parquet', '.pq', '.npy']
    """
    return {
        suffix: each.open_table
        for each in FORMATS
        for suffix in each.suffixes
        if each.open_table is not None
    }


def stream_openers() -> dict[str, OpenStream]:
    """Return how a file is opened as a stream of blocks, by suffix.

    >>> list(stream_openers())
    ['.csv', '.parquet', '.pq', '.npy', '.arrow', '.feather']
    """
    return {
        suffix: each.open_stream
        for each in FORMATS
        for suffix in each.suffixes
        if each.open_stream is not None
    }


def opener(openers: Mapping[str, Opener], source: str) -> Opener:
    """Return how a file is opened, by its suffix in upper or lower case.

    Args:
      openers: ``table_openers()`` or ``stream_openers()``.
      source: the path of the file as it was given, for the suffix and for the message.

    Raises:
      UserError: no known format has this suffix; the text lists the known ones.
    """
    suffix = pathlib.PurePath(source).suffix.lower()
    if suffix not in openers:
        fix = f"Convert it to one of {', '.join(openers)}."
        fail(f"data source {source!r}", f"files ending {suffix!r} cannot be read.", fix)
    return openers[suffix]
