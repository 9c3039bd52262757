"""Read a run folder back as plain values, for the terminal, for ``--json`` and for comparisons.

Only the small files are read: the headline numbers, the table of all fits, the notes and the
parameters. A file that the study did not write is left empty in the summary.
"""

import csv
import io
import json
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jgmm._core.errors import UserError
from jgmm._core.files import read_file
from jgmm.workbench.config import toml

MAX_BYTES = 1 << 26
"""The most bytes of a file of metrics, environment, notes or of a table that is read back."""

NOTES = "notes.txt"


@dataclass(frozen=True)
class RunSummary:
    """The main results of a run.

    Attributes:
      folder: the run folder.
      config: the complete config, as a table of tables.
      environment: versions, machine, seconds, data.
      metrics: the headline numbers, in the study's order.
      table: every fit, one row each, if the study chose among fits.
      notes: remarks for the reader of the numbers.
    """

    folder: pathlib.Path
    config: dict[str, Any]
    environment: dict[str, Any]
    metrics: dict[str, Any]
    table: list[dict[str, Any]]
    notes: list[str]

    def plain(self) -> dict[str, Any]:
        """Return everything for JSON, with the parameters of the mixture."""
        mixture = self.folder / "mixture.safetensors"
        return {
            "folder": str(self.folder),
            "report": str(self.folder / "report.html"),
            "metrics": self.metrics,
            "table": self.table,
            "notes": self.notes,
            "mixture": parameters(mixture) if mixture.is_file() else None,
            "config": self.config,
            "environment": self.environment,
        }


def read(folder: pathlib.Path) -> RunSummary:
    """Read a run folder.

    Raises:
      UserError: it is not the folder of a run, or it is damaged.
    """
    metrics = _json(folder, "metrics.json")
    environment = _json(folder, "environment.json")
    notes = folder / NOTES
    return RunSummary(
        folder,
        toml.read_toml(folder / "config.toml"),
        environment,
        metrics,
        rows(folder, "summary"),
        _text(notes).splitlines() if notes.is_file() else [],
    )


def rows(folder: pathlib.Path, name: str) -> list[dict[str, Any]]:
    """Read a table of a run, with numbers as numbers; it is empty if no table has that name."""
    path = folder / "tables" / f"{name}.csv"
    if not path.is_file():
        return []
    try:
        text = io.StringIO(_text(path), newline="")
        lines = list(csv.DictReader(text, strict=True, restval=""))
    except csv.Error as error:
        raise UserError(f"{path}: damaged: {error}") from error
    if any(None in line for line in lines):
        raise UserError(f"{path}: damaged: a row is longer than the header")
    return [{key: _value(text) for key, text in line.items()} for line in lines]


def parameters(path: pathlib.Path) -> dict[str, Any]:
    """Read a saved mixture, or that of a saved result, as plain values in their own precision.

    Raises:
      UserError: see ``jgmm.load``; or the file holds a classifier, which is no single mixture.
    """
    import jax

    from jgmm._saving.save import read_mixture
    from jgmm.workbench.runs import storage

    with jax.enable_x64(True):
        mixture, names = read_mixture(path)
        leaves = (mixture.weights, mixture.means, mixture.covariances)
        weights, means, covariances = map(storage.plain, leaves)
    return {
        "covariance": mixture.covariance,
        "columns": names,
        "weights": weights,
        "means": means,
        "covariances": covariances,
    }


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _json(folder: pathlib.Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(read_file(folder / name, MAX_BYTES))
    except OSError as error:
        raise UserError(f"{folder}: not the folder of a run: {name}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{folder / name}: damaged: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{folder / name}: damaged: not a table")
    return content


def _text(path: pathlib.Path) -> str:
    try:
        return read_file(path, MAX_BYTES).decode("utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: damaged: {error}") from error


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a table of tables, with dotted names.

    >>> flat({"a": 1, "b": {"c": 2}})
    {'a': 1, 'b.c': 2}
    """
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
