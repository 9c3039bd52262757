"""``jgmm.save`` and ``jgmm.load``: a result becomes one file, and a result again."""

from __future__ import annotations

import os
import pathlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jgmm._core.errors import DataError, PrecisionWarning, UserError, shown
from jgmm._core.pytree import is_traced
from jgmm._saving import container
from jgmm._saving.contents import Contents, Damaged, are_texts, check
from jgmm._saving.kinds import KINDS, Result
from jgmm.classifier.model import Classifier
from jgmm.mixture.mixture import Mixture

FORMAT = "jgmm"
FORMAT_VERSION = 2
# The files that runs wrote before: a mixture alone, with the same arrays.
_FIRST_FORMAT = "jgmm.mixture"


@dataclass(frozen=True)
class Saved:
    """The content of a file.

    Attributes:
      result: what was saved.
      columns: the names of the D columns, or None if it was saved without.
    """

    result: Result
    columns: list[str] | None


def save(path: str | os.PathLike[str], result: Any, columns: Iterable[str] | None = None) -> None:
    """Save a mixture, the result of a fit, a selection or a classifier as one file.

    The file is a safetensors file: arrays, and one JSON text with the kind of the result, the
    version of the format, the covariance model and the names of the columns. Whatever happens, it
    is whole afterwards, or as it was before.

    Args:
      path: file to write, replaced in one step if it exists.
      result: a ``Mixture``, ``FitResult``, ``Selection`` or ``Classifier``; no batch of them.
      columns: names of the D columns, saved with the result.

    Raises:
      DataError: the result is something else, a batch, or traced; or columns are not D texts.
      UserError: the place cannot be written.
      ImportError: safetensors is not installed (``pip install "jgmm[workbench]"``).

    >>> import pathlib, tempfile, jgmm
    >>> one = jgmm.make_mixture([1.0], [[2.0]], [1.0], "spherical")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "one.safetensors"
    ...     jgmm.save(path, one, columns=["height"])
    ...     jgmm.load(path).means.tolist()
    [[2.0]]
    """
    name = next((name for name, each in KINDS.items() if isinstance(result, each.type)), None)
    if name is None:
        raise DataError(
            "what is saved is a Mixture, a FitResult, a Selection or a Classifier; it is "
            f"{shown(result)}."
        )
    if is_traced(result):
        raise DataError("the result is traced: save it outside jit and vmap.")
    kind = KINDS[name]
    names = None if columns is None else list(columns)
    arrays, structure = kind.split(result)
    d = kind.n_features(result)
    if names is not None and not are_texts(names, d):
        raise DataError(f"columns must be {d} texts, one a column; they are {shown(names)}.")
    description = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "kind": name,
        "columns": names,
        "structure": structure,
    }
    container.write(pathlib.Path(path), arrays, description)


def load(path: str | os.PathLike[str]) -> Result:
    """Load what ``jgmm.save`` has saved, or the parameters that a run has left.

    Args:
      path: the file.

    Returns:
      A ``Mixture``, ``FitResult``, ``Selection`` or ``Classifier``: bit for bit what was saved, in
      the precision it was saved in. Only where the file holds float64 and JAX is set to float32,
      numbers are rounded, with a ``PrecisionWarning``; to prevent this, call
      ``jax.config.update("jax_enable_x64", True)`` before using JAX.

    Raises:
      UserError: the file is missing, cut short, of another format or version, or inconsistent; or
        its numbers are too large or too small for float32.
      ImportError: safetensors is not installed (``pip install "jgmm[workbench]"``).

    Nothing in the file is executed. Every shape and every rule, such as weights that sum to one, is
    checked.

    >>> import pathlib, tempfile, jgmm
    >>> trained = jgmm.classifier.fit([[0.0], [1.0], [3.0], [4.0]], ["a", "a", "b", "b"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "classes.safetensors"
    ...     jgmm.save(path, trained)
    ...     jgmm.load(path).class_names
    ('a', 'b')
    """
    return read(path).result


def read(path: str | os.PathLike[str]) -> Saved:
    """Load what was saved, with the names of its columns; see ``load``."""
    path = pathlib.Path(path)
    arrays, description = container.read(path)
    kind, columns, structure = _described(path, description)
    in_session = _in_session_precision(path, arrays)
    try:
        check(isinstance(structure, dict), "structure is no table")
        result = kind.build(Contents(in_session, structure))
        known = kind.split(result)[0]
        unknown = sorted(set(arrays) - set(known))
        check(not unknown, f"arrays that are none of its own: {', '.join(unknown[:8])}")
        d = kind.n_features(result)
        named = columns is None or are_texts(columns, d)
        check(named, f"the names of its columns are not {d} texts")
    except Damaged as error:
        raise UserError(f"{path}: damaged: {error}") from None
    return Saved(result, columns)


def read_mixture(path: str | os.PathLike[str]) -> tuple[Mixture, list[str]]:
    """Load a mixture, or that of a saved result, and the names of its columns: x0, x1, … if none.

    Raises:
      UserError: see ``load``; or a classifier, which is several mixtures.
    """
    saved = read(path)
    if isinstance(saved.result, Classifier):
        raise UserError(f"{path}: a classifier, and a mixture is needed here")
    mixture = saved.result if isinstance(saved.result, Mixture) else saved.result.mixture
    return mixture, saved.columns or [f"x{i}" for i in range(mixture.n_features)]


def _described(path: pathlib.Path, description: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return the kind, the columns and the structure that a description names."""
    given, version = description.get("format"), description.get("version")
    columns = description.get("columns")
    if given == _FIRST_FORMAT and version == 1:
        covariance = {key: description[key] for key in ("covariance",) if key in description}
        return KINDS["mixture"], columns, covariance
    if given not in (FORMAT, _FIRST_FORMAT):
        raise UserError(f"{path}: not saved by jgmm")
    if version != FORMAT_VERSION or given != FORMAT:
        raise UserError(
            f"{path}: version {shown(version)} of the format, this jgmm reads 1 and "
            f"{FORMAT_VERSION}; use the jgmm that wrote it"
        )
    kind = description.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise UserError(f"{path}: damaged: it holds {shown(kind)}, none of {', '.join(KINDS)}")
    return KINDS[kind], columns, description.get("structure")


def _in_session_precision(
    path: pathlib.Path, arrays: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return arrays as JAX can hold them now: float64 is rounded, with a warning, to float32."""
    wanted = jax.dtypes.canonicalize_dtype(np.float64)
    double = {name for name, array in arrays.items() if array.dtype == np.float64}
    if wanted == np.float64 or not double:
        return arrays
    rounded = dict(arrays)
    for name in double:
        with np.errstate(over="ignore"):
            rounded[name] = arrays[name].astype(wanted)
        _check_rounded(path, name, arrays[name], rounded[name])
    warnings.warn(
        f"{path} holds float64, and JAX is set to float32: the numbers are rounded. To keep them, "
        'call jax.config.update("jax_enable_x64", True) before using JAX.',
        PrecisionWarning,
        stacklevel=4,
    )
    return rounded


def _check_rounded(path: pathlib.Path, name: str, array: np.ndarray, rounded: np.ndarray) -> None:
    lost = np.isfinite(array) & ~np.isfinite(rounded)
    if name.endswith("scale"):  # a factor of zero would be no covariance
        lost |= (array != 0) & (rounded == 0)
    if lost.any():
        value = float(array[lost].flat[0])
        size = "large" if abs(value) > 1 else "small"
        raise UserError(f"{path}: {name} holds {value:g}, which is too {size} for float32")
