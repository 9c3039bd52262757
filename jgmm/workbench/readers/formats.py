"""The table of file formats: how files of each are opened, whole or block by block.

To add a format, write how its files are read and add one entry to ``FORMATS``, here or, from
outside the package, with ``FORMATS.append``. Data sets, streams, completion in a shell and error
messages all read the table.
"""

import functools
import pathlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from jgmm.workbench.readers import arrow, csv, excel, json_lines, npy
from jgmm.workbench.readers.dialect import Overrides
from jgmm.workbench.readers.partition import File
from jgmm.workbench.readers.tables import Table, fail
from jgmm.workbench.readers.text import COMPRESSED_SUFFIXES, TEXT_SUFFIXES

OpenTable = Callable[..., Table]
"""``(name in messages, path, whether values may stay on disk until they are used) -> table``; the
opener of a format with ``takes`` also has the keyword argument ``overrides``."""

OpenStream = Callable[..., File]
"""``path -> opened file``, of which only the header has been read; ``overrides`` as above"""

Opener = TypeVar("Opener", OpenTable, OpenStream)


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
      name: the name of the format.
      suffixes: the suffixes of its files, in lower case, with the dot.
      open_table: opens a file as a table, for data sets in memory; None where there is no way to.
      open_stream: opens a file as a stream of blocks of rows; None where there is no way to.
      takes: the fields of ``Overrides`` that the openers take; none for most formats.
      compressed: whether files may be compressed, with the suffix of that behind their own.
    """

    name: str
    suffixes: tuple[str, ...]
    open_table: OpenTable | None
    open_stream: OpenStream | None
    takes: tuple[str, ...] = ()
    compressed: bool = False


_TEXT = ("separator", "decimal", "na", "header", "part")

FORMATS = [
    Format("CSV", (".csv",), csv.open_table, csv.open_stream, _TEXT, compressed=True),
    Format("Parquet", (".parquet", ".pq"), arrow.open_parquet_table, arrow.open_parquet_stream),
    Format("NumPy", (".npy",), npy.open_table, npy.open_stream),
    Format("text", TEXT_SUFFIXES, csv.open_table, csv.open_stream, _TEXT, compressed=True),
    Format("Arrow", (".arrow", ".feather"), arrow.open_arrow_table, arrow.open_arrow_stream),
    Format("NumPy archive", (".npz",), npy.open_archive, None, ("part",)),
    Format(
        "Excel",
        (".xlsx", ".xlsm", ".xls", ".ods"),
        excel.open_table,
        None,
        ("na", "header", "part"),
    ),
    Format("JSON lines", (".jsonl", ".ndjson"), json_lines.open_table, None, compressed=True),
]
"""Every format that can be read."""


def table_openers() -> dict[str, OpenTable]:
    """Return how a file is opened as a table, by suffix.

    >>> list(table_openers())[:4]
    ['.csv', '.parquet', '.pq', '.npy']
    """
    return _openers("open_table")


def stream_openers() -> dict[str, OpenStream]:
    """Return how a file is opened as a stream of blocks, by suffix.

    >>> list(stream_openers())[:4]
    ['.csv', '.parquet', '.pq', '.npy']
    """
    return _openers("open_stream")


def _openers(which: str) -> dict[str, Any]:
    return {
        suffix: getattr(each, which)
        for each in FORMATS
        for suffix in each.suffixes
        if getattr(each, which) is not None
    }


def suffix_of(name: str) -> str:
    """Return the suffix that tells the format, in lower case; that of compression does not count.

    >>> suffix_of("a.CSV"), suffix_of("a.csv.gz"), suffix_of("a.zip")
    ('.csv', '.csv', '.csv')
    """
    path = pathlib.PurePath(name)
    suffix = path.suffix.lower()
    if suffix not in COMPRESSED_SUFFIXES:
        return suffix
    inner = pathlib.PurePath(path.stem).suffix.lower()
    return inner if inner in _openers("open_table") or inner in _openers("open_stream") else ".csv"


def opener(
    openers: Mapping[str, Opener], source: str, overrides: Overrides | None = None
) -> Opener:
    """Return how a file is opened, by its suffix in upper or lower case.

    Args:
      openers: ``table_openers()`` or ``stream_openers()``.
      source: the path of the file as it was given, for the suffix and for the message.
      overrides: what the user says about the file; the opener that is returned has it.

    Raises:
      UserError: no known format has this suffix (the text lists the known ones), or files of this
        format are not written in the ways that the user says.
    """
    suffix = suffix_of(source)
    if suffix not in openers:
        fix = f"Convert it to one of {', '.join(openers)}."
        fail(f"data source {source!r}", f"files ending {suffix!r} cannot be read.", fix)
    found = openers[suffix]
    entry = next(each for each in FORMATS if suffix in each.suffixes)
    if pathlib.PurePath(source).suffix.lower() in COMPRESSED_SUFFIXES and not entry.compressed:
        fail(
            f"data source {source!r}", f"compressed files of {entry.name} cannot be read.", _UNPACK
        )
    wrong = [name for name in (overrides or Overrides()).given() if name not in entry.takes]
    # A number that stands for missing values can be found in files of any format.
    wrong = [name for name in wrong if name != "na"]
    if wrong:
        what = f"a file of the format {entry.name} does not take: {', '.join(wrong)}."
        fail(f"data source {source!r}", what, "Leave that out.")
    if overrides is None or not entry.takes:
        return found
    return cast(Opener, functools.partial(found, overrides=overrides))


_UNPACK = "Decompress it first."
