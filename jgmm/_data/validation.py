"""Validation of input: samples, weights, labels and keys become checked JAX arrays, once.

Public functions take lists, NumPy arrays, data frames or JAX arrays. Values that cannot be used are
refused with an error that names their row and column.
"""

from __future__ import annotations

from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jgmm._core import budget
from jgmm._core.compilation import jit
from jgmm._core.errors import DataError
from jgmm._core.pytree import is_traced
from jgmm._data.arrays import as_plain, is_missing, split_missing
from jgmm._data.dataframes import names_of

_TIMES = (np.datetime64, np.timedelta64)  # as objects they turn into floats


def column_names(x: Any) -> list[str]:
    """Return the column names of a data frame, or ``x0``, ``x1``, … for an array.

    >>> column_names([[1.0, 2.0]])
    ['x0', 'x1']
    """
    named = names_of(x)
    if named is not None:
        return named
    shape = np.shape(x)
    return [f"x{i}" for i in range(shape[1] if len(shape) > 1 else 1)]


def as_samples(x: Any, name: str = "x", weights: Array | None = None) -> Float[Array, "N D"]:
    """Convert samples to a checked two-dimensional floating-point array.

    Args:
      x: samples in rows: a list, a NumPy or JAX array, or a data frame of numbers, of pandas,
        polars, Arrow or another library that narwhals reads (``jgmm._data.dataframes``). float32
        and float64 are kept where JAX allows; integers and booleans become JAX's default float.
      name: the argument's name in error messages.
      weights: weights of the rows, (N,), or None; a row of weight zero counts as missing and may
        hold anything.

    Returns:
      The samples, (N, D). Inside a transformation values are not inspected.

    Raises:
      DataError: wrong rank, no rows or columns, text, NaN or missing, infinite values, or values
        so large that their differences might overflow; the text names row and column.

    >>> as_samples([[1, 2], [3, 4]]).dtype
    dtype('float32')
    """
    array = as_table(x, name)
    check_values(array, x, name, weights)
    return array


def as_table(x: Any, name: str) -> Float[Array, "N D"]:
    """Convert samples to a two-dimensional floating-point array without checking their values."""
    host = as_numbers(x, name)
    _check_shape(host.shape, name)
    return jnp.asarray(host, dtype=float_dtype(host.dtype))


def check_values(array: Array, x: Any, name: str, weights: Array | None, limit: Any = None) -> None:
    """Check that values are finite and that their differences are, too.

    Args:
      array: the samples, (N, D).
      x: the samples as the user gave them, for the names of their columns.
      name: the argument's name in error messages.
      weights: weights of the rows, (N,), or None; rows of weight zero are not checked.
      limit: values as large as this, in each column, (D,), are too large; None where only their
        differences must be finite.

    Raises:
      DataError: a value is NaN, infinite or too large; the text names row and column.
    """
    if is_traced(array):
        return
    weights = None if is_traced(weights) else weights
    usable = (_all_usable_on_host if _is_on_host(array) else all_usable)(array, weights, limit)
    if is_traced(usable):  # inside someone's jit even the values of a concrete array are traced
        return
    if not bool(usable):
        refuse_values(array, weights, name, column_names(x), limit=limit)


def refuse_values(
    array: Float[Array, "N D"],
    weights: Array | None,
    name: str,
    columns: list[str] | None = None,
    first_row: int = 0,
    limit: Any = None,
) -> NoReturn:
    """Raise a ``DataError`` that names the first unusable value.

    Args:
      array: samples with at least one unusable value, (N, D).
      weights: weights of the rows, (N,), or None; rows of weight zero may hold anything.
      name: the argument's name in error messages.
      columns: names of the columns; by default ``x0``, ``x1``, …
      first_row: the number of row 0, where ``array`` is one block of several.
      limit: see ``check_values``.
    """
    usable = np.asarray(_usable(array, weights, limit))
    row, column = (int(i) for i in np.argwhere(~np.asarray(usable))[0])
    n_bad = int((~usable).any(axis=1).sum())
    names = columns or column_names(array)
    affected = [names[i] for i in np.flatnonzero((~usable).any(axis=0))]
    where = f", in the columns {_listed(affected)}" if len(affected) > 1 else ""
    raise DataError(
        f"{name} holds {array[row, column]} in row {first_row + row}, column {names[column]!r}; "
        f"{n_bad} row(s) have missing (NaN), infinite or overflowing values{where}. Drop those "
        "rows (a sample weight of zero drops a row), repair them, or rescale the column."
    )


def _listed(names: list[str], limit: int = 8) -> str:
    shown = ", ".join(map(repr, names[:limit]))
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


@jit
def all_usable(x: Float[Array, "N D"], weights: Array | None, limit: Any = None) -> Array:
    """Return whether no value is NaN, infinite, or so large that differences might overflow.

    Rows of weight zero do not count.
    """
    return _usable(x, weights, limit).all()  # XLA fuses both into one pass that writes no array


def _is_on_host(array: Any) -> bool:
    """Return whether NumPy reads the array as it is, without a copy from another device."""
    if isinstance(array, np.ndarray):
        return True
    return array.is_fully_addressable and {d.platform for d in array.devices()} == {"cpu"}


def _all_usable_on_host(x: Any, weights: Any, limit: Any = None) -> bool:
    """Return what ``all_usable`` returns, without a program for every number of rows."""
    x, highest = np.asarray(x), _highest(x.dtype)
    weighted = None if weights is None else np.asarray(weights) != 0
    # In float64: a limit in the precision of a mixture may be infinite in that of the samples.
    bound = highest if limit is None else np.minimum(float(highest), np.asarray(limit, float))
    for first in range(0, len(x), budget.MOMENT_BLOCK_ROWS):
        rows = slice(first, first + budget.MOMENT_BLOCK_ROWS)
        usable = (np.abs(x[rows]) < bound).all(axis=1)
        if not (usable if weighted is None else usable | ~weighted[rows]).all():
            return False
    return True


def _highest(dtype: Any) -> Any:
    """Return the bound of the samples' values.

    Differences of samples must not overflow, and the reciprocal of a standard deviation must be a
    normal number. Squares may overflow: numbers are scaled before they are squared.
    """
    return jnp.finfo(dtype).max / 16


@jit
def _usable(x: Float[Array, "N D"], weights: Array | None, limit: Any) -> Array:
    usable = jnp.abs(x) < _highest(x.dtype)  # False for NaN
    if limit is not None:
        usable &= jnp.abs(x) < limit[None, :].astype(x.dtype)
    return usable if weights is None else usable | (weights == 0)[:, None]


def _check_shape(shape: tuple[int, ...], name: str) -> None:
    check_two_dimensional(shape, name)
    if 0 in shape:
        raise DataError(f"{name} is empty: its shape is {shape}.")


def check_two_dimensional(shape: tuple[int, ...], name: str) -> None:
    """Check that an array has rows and columns.

    Raises:
      DataError: it has not; the text says how to make them.
    """
    if len(shape) != 2:
        raise DataError(
            f"{name} must be two-dimensional, samples in rows; it has shape {shape}. "
            "One feature: x[:, None]; one sample: x[None, :]."
        )


def as_numbers(x: Any, name: str) -> np.ndarray | Array:
    """Convert x to an array of real numbers, NaN where a value is missing.

    Args:
      x: a list, a NumPy or JAX array, a data frame or a series, see ``jgmm._data.arrays``.
      name: the argument's name in error messages.

    Raises:
      DataError: see ``as_plain``; or a value is no number; the text names row and column.

    >>> as_numbers(["1.5", "2"], "x").tolist()
    [1.5, 2.0]
    """
    array = as_plain(x, name)
    if any(jnp.issubdtype(array.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_)):
        return array
    host = np.asarray(array)
    if host.dtype.kind not in "OUST":
        raise DataError(f"{name} holds {host.dtype} values; they must be real numbers.")
    if host.dtype == object:
        host = host.copy()
        host[np.vectorize(is_missing, otypes=[bool])(host)] = np.nan
    times = host.dtype == object and any(isinstance(value, _TIMES) for value in host.flat)
    try:
        if not times:
            return host.astype(np.float64)
    except (TypeError, ValueError):
        pass  # the value is looked for below
    for index, value in np.ndenumerate(host):
        try:
            is_number = not isinstance(value, _TIMES)
            float(value)
        except (TypeError, ValueError):
            is_number = False
        if not is_number:
            column = f", column {column_names(x)[index[1]]!r}" if len(index) == 2 else ""
            raise DataError(
                f"{name} holds {str(value)!r} in row {index[0] if index else 0}{column}, which is "
                "not a number. Choose numeric columns, or encode this one."
            )
    raise DataError(f"{name} cannot be read as numbers (dtype {host.dtype}).")


def float_dtype(dtype: Any) -> Any:
    """Return the floating-point type in which samples of a given type are fitted.

    float32 and float64 stay as they are where JAX allows it; float16 becomes float32;
    anything else becomes JAX's default float.
    """
    if dtype == np.longdouble:
        return jax.dtypes.canonicalize_dtype(float)
    if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits >= 32:
        return jax.dtypes.canonicalize_dtype(dtype)
    return jnp.float32 if dtype == np.float16 else jax.dtypes.canonicalize_dtype(float)


def as_weights(
    sample_weight: Any, n_samples: int, dtype: Any, may_weigh_nothing: bool = False
) -> Float[Array, "N"] | None:
    """Convert sample weights to a checked array; None stays None.

    Args:
      sample_weight: how many times each sample counts, (N,), nonnegative, not all zero; or None.
      n_samples: N.
      dtype: the samples' dtype.
      may_weigh_nothing: whether all weights may be zero.

    Raises:
      DataError: the weights are no numbers, of wrong length, negative, not finite, or all zero; the
        text names the row.

    >>> as_weights([1, 2], 2, jnp.float32).tolist()
    [1.0, 2.0]
    """
    if sample_weight is None:
        return None
    weights = jnp.asarray(as_numbers(sample_weight, "sample_weight"), dtype)
    check_weights_shape(weights.shape, n_samples)
    if is_traced(weights):
        return weights
    check_weights(np.asarray(weights))
    host = np.asarray(weights)
    tiny = (host > 0) & (host < np.finfo(host.dtype).tiny)
    if tiny.any():  # zero to XLA; so they are zero to all that reads weights on the host, too
        host = np.where(tiny, 0, host)
        weights = jnp.asarray(host)
    if not may_weigh_nothing and not host.any():
        raise DataError("sample_weight is zero for every sample; at least one must count.")
    return weights


def check_weights(weights: np.ndarray, first_row: int = 0) -> None:
    """Check that no weight is negative, NaN or infinite.

    Args:
      weights: weights of rows, (B,).
      first_row: the number of row 0, where they are those of one block of several.

    Raises:
      DataError: the text names the row.
    """
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if bad.size:
        raise DataError(
            f"sample_weight holds {weights[bad[0]]} in row {first_row + bad[0]}; weights must be "
            "finite and at least zero."
        )


def check_weights_shape(shape: tuple[int, ...], n_samples: int) -> None:
    """Check that weights are one a sample.

    Raises:
      DataError: with both shapes.
    """
    if shape != (n_samples,):
        raise DataError(
            f"sample_weight must have one entry a sample, shape ({n_samples},); it has shape "
            f"{shape}."
        )


def as_labels(labels: Any, n_samples: int, weights: Array | None = None) -> Int[Array, "N"] | None:
    """Convert known labels to a checked array; None stays None.

    Args:
      labels: the known component of each sample, (N,), whole numbers, -1 where it is unknown; or
        None.
      n_samples: N.
      weights: weights of the rows, (N,), or None; in a row of weight zero the label may be
        anything, and is -1 in the result.

    Raises:
      DataError: the labels are no whole numbers, of wrong length, missing, or below -1; the text
        names the row.

    >>> as_labels([0, -1, 1], 3).tolist()
    [0, -1, 1]
    """
    if labels is None:
        return None
    known = checked_labels(labels, n_samples, weights)
    if weights is None or not is_traced(known, weights):
        return jnp.asarray(known)
    return jnp.where(weights > 0, known, -1)


def checked_labels(labels: Any, n_samples: int, weights: Array | None = None) -> Any:
    """Check known labels as ``as_labels`` does, but leave them on the host.

    Args:
      labels: the known component of each sample, (N,).
      n_samples: N.
      weights: weights of the rows, (N,), or None. Where they are traced, any row may be missing,
        and values are not inspected.

    Returns:
      A NumPy array, -1 in rows of weight zero; inside a transformation a traced array stays as it
      is.

    Raises:
      DataError: see ``as_labels``.
    """
    host, missing = split_missing(labels)
    if host.dtype == object:
        host = np.asarray(host.tolist())
    if host.shape != (n_samples,) or host.dtype.kind not in "iu":
        raise DataError(
            f"labels must be {n_samples} whole numbers, one a sample; they have shape "
            f"{host.shape} and dtype {host.dtype}."
        )
    if is_traced(host):
        return host
    unknown = missing if is_traced(weights) else missing | ~counted_rows(weights, n_samples)
    host = np.where(unknown, -1, np.asarray(host).astype(np.int64))
    if is_traced(weights):
        return host
    for bad, value in ((missing, "a missing value"), (host < -1, None)):
        wrong = np.flatnonzero(bad & counted_rows(weights, n_samples))
        if wrong.size:
            row = int(wrong[0])
            raise DataError(
                f"labels holds {value or host[row]} in row {row}; an unknown one is -1."
            )
    return host


def counted_rows(weights: Array | None, n_samples: int) -> np.ndarray:
    """Return the mask of rows that are not missing, (N,); all of them where weights are traced."""
    if weights is None or is_traced(weights):
        return np.ones(n_samples, bool)
    return np.asarray(weights) > 0
