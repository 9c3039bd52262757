"""The files of a run folder: JSON, CSV tables, and parameters in the safetensors format.

Every file is written by ``files.write_bytes``, so a file with its final name is whole.
"""

import csv
import io
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from jgmm._core.errors import UserError
from jgmm.workbench.system.files import read_file, write_bytes, write_text

if TYPE_CHECKING:
    from jgmm.mixture.mixture import Mixture

FORMAT = "jgmm.mixture"
FORMAT_VERSION = 1
MAX_BYTES = 1 << 34
"""The most bytes of a file of parameters."""


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


def save_mixture(
    path: str | pathlib.Path, mixture: "Mixture", columns: Iterable[str] | None = None
) -> None:
    """Save a mixture's parameters as a safetensors file, exactly and in its own storage.

    Args:
      path: file to write, replaced in one step if it exists.
      mixture: any ``Mixture`` without a leading restart axis.
      columns: names of the D features, saved with the parameters.

    Raises:
      UserError: the place cannot be written.
      ValueError: the number of column names is not D.
    """
    import safetensors.numpy

    path = pathlib.Path(path)
    arrays = {name: np.asarray(getattr(mixture, name)) for name in _ARRAYS}
    names = list(columns) if columns is not None else None
    if names is not None and len(names) != arrays["means"].shape[-1]:
        raise ValueError(f"{len(names)} column names for {arrays['means'].shape[-1]} features")
    description = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "covariance": mixture.covariance,
        "columns": names,
    }
    content = safetensors.numpy.save(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        {_METADATA: json.dumps(description)},  # several entries would be in no fixed order
    )
    write_bytes(path, content)


_METADATA = "jgmm"
_ARRAYS = ("log_weights", "means", "scale")


def load_mixture(path: str | pathlib.Path, dtype: str | None = None) -> "Mixture":
    """Load a mixture saved by ``save_mixture``.

    Args:
      path: the file.
      dtype: "float32" or "float64" to convert; default: as stored.

    Returns:
      The mixture, bit for bit as it was saved, unless it is converted.

    Raises:
      UserError: the file is missing, cut short, not a mixture, or inconsistent; or it holds
        float64 while JAX works in float32, and ``dtype`` is not given.
    """
    import jax
    import jax.numpy as jnp

    from jgmm.mixture.mixture import Mixture

    path = pathlib.Path(path)
    arrays, metadata = _read(path)
    wanted = np.dtype(dtype or arrays["means"].dtype)
    if wanted == np.float64 and jax.dtypes.canonicalize_dtype(wanted) != wanted:
        raise UserError(
            f'{path}: holds float64, and JAX is set to float32; call jax.config.update("jax_'
            f'enable_x64", True) before using JAX, or convert: load_mixture(path, "float32")'
        )
    largest = max(float(np.abs(arrays[name]).max()) for name in ("means", "scale"))
    if largest > float(np.finfo(wanted).max):
        raise UserError(f"{path}: holds {largest:g}, which is too large for {wanted}")
    leaves = {name: jnp.asarray(array.astype(wanted)) for name, array in arrays.items()}
    return Mixture(**leaves, covariance=metadata["covariance"])


def _check(path: pathlib.Path, arrays: Mapping[str, np.ndarray], metadata: Any) -> None:
    """Refuse parameters that are not those of a mixture, which a whole file may hold as well."""
    import jax

    from jgmm.covariance.models import model

    try:
        entry = model(str(metadata["covariance"]))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    means = arrays["means"]
    if means.ndim != 2 or 0 in means.shape:
        raise UserError(f"{path}: damaged: the means have shape {means.shape}, not (K, D)")
    k, d = means.shape
    # Only the shape is computed: with a damaged D the array could be larger than the memory.
    own = jax.eval_shape(lambda: entry.storage.identity(d, np.float32)).shape[1:]
    expected = {"log_weights": (k,), "scale": (1 if entry.shared else k, *own)}
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise UserError(
                f"{path}: damaged: {name} has shape {arrays[name].shape}; {entry.name} with "
                f"K={k}, D={d} needs {shape}"
            )
    dtypes = {array.dtype for array in arrays.values()}
    if len(dtypes) > 1 or not dtypes <= {np.dtype(np.float32), np.dtype(np.float64)}:
        raise UserError(f"{path}: damaged: the arrays have types {sorted(map(str, dtypes))}")
    log_weights, scale = arrays["log_weights"], arrays["scale"]
    # float32 weights add up to one within 1e-6 K. A comparison with NaN is false.
    if not ((log_weights <= 1e-4).all() and abs(np.exp(log_weights).sum() - 1) < 1e-4):
        raise UserError(f"{path}: damaged: weights that do not sum to one")
    if not (np.isfinite(means).all() and np.isfinite(scale).all()):
        raise UserError(f"{path}: damaged: means or covariances that are not finite")
    factors = scale if scale.ndim < 3 else np.diagonal(scale, axis1=1, axis2=2)
    if not (factors > 0).all() or (scale.ndim == 3 and np.triu(scale, 1).any()):
        raise UserError(f"{path}: damaged: factors of covariances that are not positive")
    names = metadata.get("columns")
    if names is not None and not _are_names(names, d):
        raise UserError(f"{path}: damaged: the names of its columns are not {d} texts")


def _are_names(names: Any, n: int) -> bool:
    return isinstance(names, list) and len(names) == n and all(isinstance(x, str) for x in names)


def mixture_columns(path: str | pathlib.Path) -> list[str] | None:
    """Return the feature names saved with a mixture, or None if it was saved without."""
    path = pathlib.Path(path)
    _, metadata = _read(path)
    names: list[str] | None = metadata.get("columns")
    return names


def _read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read arrays and metadata, and refuse a file that ``save_mixture`` did not write."""
    import safetensors
    import safetensors.numpy

    try:
        content = read_file(path, MAX_BYTES)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        arrays = safetensors.numpy.load(content)
    except Exception as error:  # whichever it is, the file is damaged or of another format
        raise UserError(
            f"{path}: not a whole safetensors file ({error}); it was cut short, or is something "
            f"else ({len(content)} bytes)"
        ) from error
    # The header has been checked already: 8 bytes with its length, then JSON of that length.
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size]).get("__metadata__") or {}
    try:
        metadata: Any = json.loads(header.get(_METADATA, "null"))
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise UserError(f"{path}: not a mixture saved by jgmm")
    if metadata.get("version") != FORMAT_VERSION:
        raise UserError(
            f"{path}: mixture format {metadata.get('version')}, this jgmm reads {FORMAT_VERSION}; "
            "use the jgmm that wrote it"
        )
    missing = [name for name in (*_ARRAYS, "covariance") if name not in {*arrays, *metadata}]
    if missing:
        raise UserError(f"{path}: damaged: {', '.join(missing)} missing")
    parameters = {name: arrays[name] for name in _ARRAYS}
    _check(path, parameters, metadata)
    return parameters, metadata
