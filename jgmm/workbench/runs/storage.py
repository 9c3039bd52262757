"""The files of a run folder, JSON and CSV tables, and the records that its report shows.

Every file is written by ``files.write_bytes``, so a file with its final name is whole. Parameters
are saved by ``jgmm.save``.
"""

import csv
import io
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jgmm._core.files import write_text


@dataclass(frozen=True)
class Table:
    """One table of a run.

    Attributes:
      name: the name of its file, without the suffix.
      caption: its caption in the report.
      rows: dictionaries from column to value; a row may lack columns that others have.
    """

    name: str
    caption: str
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Figure:
    """One figure of a run, as a PNG file's bytes."""

    name: str
    caption: str
    png: bytes


@dataclass(frozen=True)
class MixtureTable:
    """One mixture's parameters as nested lists: (K,), (K, D), (K, D, D), with D column names."""

    name: str
    columns: list[str]
    weights: list[float]
    means: list[list[float]]
    covariances: list[list[list[float]]]


@dataclass(frozen=True)
class RunRecord:
    """Everything that the report shows of one run, in plain Python values.

    Attributes:
      name: the name of the run.
      study: the name of the study.
      status: whether the run is complete.
      started: the start, an ISO 8601 local time with offset.
      seconds: the wall time.
      config_toml: the complete config as TOML.
      environment: versions, machine, seed, precision, command and data.
      metrics: the headline numbers, in the order in which the study gave them.
      notes: paragraphs of the report.
      tables: the tables of the report.
      figures: the figures of the report.
      mixtures: the tables of parameters of the report.
    """

    name: str
    study: str
    status: str
    started: str
    seconds: float
    config_toml: str
    environment: dict[str, Any]
    metrics: dict[str, float | int | str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    mixtures: list[MixtureTable] = field(default_factory=list)


def plain(value: Any) -> Any:
    """Turn arrays, NumPy scalars and containers of them into plain Python values.

    >>> import numpy as np
    >>> plain({"a": np.float32(0.5), "b": (np.arange(2), None)})
    {'a': 0.5, 'b': [[0, 1], None]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if hasattr(value, "tolist"):  # NumPy and JAX, scalars and arrays
        return value.tolist()
    return str(value)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write JSON; NaN and infinities, which JSON cannot write, become "nan", "inf" and "-inf"."""
    write_text(path, json_text(value) + "\n")


def json_text(value: Any) -> str:
    """Return the text that ``write_json`` writes.

    >>> print(json_text({"a": float("inf")}))
    {
      "a": "inf"
    }
    """
    return json.dumps(_finite(plain(value)), indent=2, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def write_csv(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, with numbers in full precision; a missing value or None is left empty.

    The columns are those of all rows, in the order in which they first appear.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: plain(value) for key, value in row.items()} for row in rows)
    write_text(path, text.getvalue())
