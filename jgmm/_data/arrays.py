"""Arrays of every kind become plain ones: the one place through which arrays from users enter.

Lists, NumPy and JAX arrays, data frames and series become arrays in the machine's byte order:

- a masked entry (``numpy.ma``) is a missing one, as is None, NA or null: NaN, which only a row of
  weight zero may hold;
- numbers of another byte order, as FITS files have them, are turned;
- dates and durations are refused, as in a data frame, and so are sparse matrices, rows of different
  lengths, and objects that are no array at all.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jgmm._core.errors import DataError
from jgmm._core.pytree import is_traced
from jgmm._data.dataframes import as_array, as_series, is_table

_MISSING_TYPES = ("NAType", "NaTType", "MaskedConstant")  # pandas.NA, pandas.NaT, numpy.ma.masked


def as_plain(x: Any, name: str = "x") -> np.ndarray | Array:
    """Convert what a user gives to a plain array, with NaN where a value is missing.

    Args:
      x: a list, a NumPy or JAX array, a data frame or a series.
      name: the argument's name in error messages.

    Returns:
      A JAX array, or a tracer, where x is one; otherwise a NumPy array in the machine's byte order,
      of numbers, truth values, text or objects.

    Raises:
      DataError: dates or durations, a sparse matrix, rows of different lengths, or no array.

    >>> as_plain(np.ma.masked_equal([[1, -9], [2, 3]], -9)).tolist()
    [[1.0, nan], [2.0, 3.0]]
    """
    if isinstance(x, jax.Array) or is_traced(x):
        return jnp.asarray(x)
    array = _read(x, name)
    if not isinstance(array, np.ma.MaskedArray):
        return array
    mask = np.ma.getmaskarray(array)
    values = np.array(array.data)
    if not mask.any():
        return values
    if values.dtype.kind not in "fcO":
        values = values.astype(object if values.dtype.kind in "SU" else np.float64)
    values[mask] = np.nan
    return values


def split_missing(labels: Any, name: str = "labels") -> tuple[np.ndarray | Array, np.ndarray]:
    """Split labels into values and a mask of the missing ones.

    Labels of a kind that knows no NaN, whole numbers or text, keep their kind in this way.

    Args:
      labels: labels, (N,), of any kind.
      name: the argument's name in error messages.

    Returns:
      The labels as an array, in which a missing one holds the first that is there; and the mask.

    Raises:
      DataError: see ``as_plain``; or a data frame, which has several columns.

    >>> [each.tolist() for each in split_missing(np.ma.masked_equal([3, 0, 4], 0))]
    [[3, 3, 4], [False, True, False]]
    """
    if isinstance(labels, jax.Array) or is_traced(labels):
        on_device = jnp.asarray(labels)
        return on_device, np.zeros(on_device.shape, bool)
    if is_table(labels):
        raise DataError(f"{name} is a data frame; give one column of it, a series.")
    series = as_series(labels, name)
    if series is not None:
        missing = np.asarray(series.is_null().to_numpy(), bool)
        present = np.asarray(series.drop_nulls().to_numpy())
    else:
        host = _read(labels, name)
        missing = np.asarray(np.ma.getmaskarray(host))
        if host.dtype.kind in "Of":
            missing = missing | np.vectorize(is_missing, otypes=[bool])(np.ma.getdata(host))
        present = np.ma.getdata(host)[~missing]
        if host.dtype == object and {type(each) for each in present} == {int}:
            present = np.asarray(present.tolist())  # whole numbers, now that none is missing
    values = np.empty(missing.shape, present.dtype)
    values[~missing] = present
    if present.size:
        values[missing] = present[0]
    return values, missing


def is_missing(value: Any) -> bool:
    """Return whether an object stands for a missing value: None, NaN, NA or ``numpy.ma.masked``.

    >>> is_missing(None), is_missing(0.0)
    (True, False)
    """
    if value is None or type(value).__name__ in _MISSING_TYPES:
        return True
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def refuse_sparse(x: Any, name: str) -> None:
    """Refuse a sparse matrix, which has no array of its own, without printing it.

    Raises:
      DataError: with the advice to make it dense.
    """
    if hasattr(type(x), "todense"):
        size = 8 * math.prod(getattr(x, "shape", ()))
        raise DataError(
            f"{name} is sparse ({type(x).__name__}), and every entry is needed here. Give "
            f"{name}.{'toarray' if hasattr(type(x), 'toarray') else 'todense'}(), which takes "
            f"{_bytes(size)} in float64."
        )


def _bytes(size: int | float) -> str:
    """Write a number of bytes with a unit.

    >>> _bytes(800), _bytes(3_200_000_000)
    ('800 bytes', '3.2 GB')
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _stack_masked(rows: Any) -> np.ma.MaskedArray:
    """Return rows, of which some have masks, as one masked array."""
    values, masks = ([get(row) for row in rows] for get in (np.ma.getdata, np.ma.getmaskarray))
    return np.ma.masked_array(np.asarray(values), mask=np.asarray(masks))


def _read(x: Any, name: str) -> np.ndarray:
    """Return x as a NumPy array in the machine's byte order; masked entries stay masked."""
    refuse_sparse(x, name)
    found = as_array(x, name)
    is_list = isinstance(found, list | tuple)
    masked_rows = is_list and any(isinstance(row, np.ma.MaskedArray) for row in found)
    try:
        array = _stack_masked(found) if masked_rows else np.asanyarray(found)
    except ValueError as error:
        raise DataError(f"{name} is not rectangular: {error}") from error
    if not isinstance(array, np.ma.MaskedArray):
        array = np.asarray(array)
    if array.dtype.kind in "mM":
        raise DataError(
            f"{name} holds {array.dtype} values; they must be real numbers. Turn dates and "
            "durations into numbers first, such as days since one of them."
        )
    if array.dtype == object and array.ndim == 0:
        raise DataError(
            f"{name} is of type {type(x).__name__}; it must be an array, a list or a data frame."
        )
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
