"""What a run leaves on disk: its record, its folder, and the files in it."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Table:
    """One table of a run.

    rows are dictionaries from column to value; a row may lack columns that others have.
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
    """Everything the report shows of one run, in plain Python values.

    started is an ISO 8601 local time with offset; seconds is wall time; metrics are in the
    order in which the study gave them.
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
