"""Conversion of data frames and series, of any library, to arrays of numbers.

Frames of pandas, polars, Arrow and other libraries are read through narwhals. It is imported with
the first data frame, so that arrays and lists do not need it.

Columns are read as follows:

- integers, floats, decimals and truth values are numbers; false is 0 and true is 1;
- a missing value (null, None, NA) is NaN, which only a row of weight zero may hold;
- text, categories, dates, times and durations are refused, even if the text or the category looks
  like a number: such a column is seldom a measurement. Nested columns are refused, too.
"""

from __future__ import annotations

import decimal
import numbers
from typing import Any

import jax
import numpy as np

from jgmm._core.errors import DataError

# A type with one of these attributes may be a data frame or a series; narwhals decides.
_FRAME_ATTRIBUTES = ("to_numpy", "columns", "__arrow_c_stream__", "__narwhals_dataframe__")
_NUMBERS = (numbers.Real, decimal.Decimal, np.bool_)


def as_array(x: Any, name: str = "x") -> Any:
    """Convert a data frame to a matrix or a series to a vector; return anything else unchanged.

    Args:
      x: the samples or weights given to a public function.
      name: the argument's name in error messages.

    Returns:
      An array, (N, D) or (N,), NaN where a value is missing, of a type that holds all columns; or
      ``x`` itself. A lazy frame is collected.

    Raises:
      DataError: a column does not hold numbers (the text names all such columns), a column name
        occurs twice, or narwhals is not installed.

    >>> as_array([[1.0, 2.0]])
    [[1.0, 2.0]]
    """
    table = _to_narwhals(x, name)
    if table is None:
        return x
    if not hasattr(table, "iter_columns"):
        return _numeric([table], name)[0]
    dtypes = set(table.schema.values())
    if len(dtypes) == 1 and dtypes.pop().is_float():
        array = table.to_numpy()
        if array.dtype != object:
            return array
    columns = _numeric(list(table.iter_columns()), name)
    return np.stack(columns, axis=1) if columns else np.empty(table.shape)


def names_of(x: Any) -> list[str] | None:
    """Return the column names of a data frame or a series; None for anything else.

    >>> names_of([[1.0, 2.0]]) is None
    True
    """
    table = _to_narwhals(x, "x")
    if table is None:
        return None
    return [str(name) for name in getattr(table, "columns", [getattr(table, "name", None) or "x0"])]


def is_table(x: Any) -> bool:
    """Return whether x is a data frame, with named columns."""
    return hasattr(_to_narwhals(x, "x"), "iter_columns")


def as_series(x: Any, name: str = "x") -> Any:
    """Return a series of any library as one of narwhals; None for anything else."""
    table = _to_narwhals(x, name)
    return None if hasattr(table, "iter_columns") else table


def collected(x: Any) -> Any:
    """Return a data frame as its library holds it in memory: a lazy one is collected.

    >>> collected([[1.0, 2.0]])
    [[1.0, 2.0]]
    """
    table = _to_narwhals(x, "x")
    return x if table is None else table.to_native()


def _to_narwhals(x: Any, name: str) -> Any:
    """Return x as a narwhals frame or series, or None if it is neither."""
    if isinstance(x, np.ndarray | jax.Array) or not any(
        hasattr(type(x), each) for each in _FRAME_ATTRIBUTES
    ):
        return None
    try:
        import narwhals
    except ImportError as error:
        raise DataError(
            f"{name} is a {type(x).__module__.partition('.')[0]} {type(x).__name__}, which is read "
            "through narwhals, and that is not installed. Install it (pip install narwhals), or "
            "pass an array, such as to_numpy() gives."
        ) from error
    if isinstance(x, narwhals.DataFrame | narwhals.LazyFrame | narwhals.Series):
        x = x.to_native()
    try:
        frame: Any = narwhals.from_native(x, pass_through=True, allow_series=True)
        if frame is x and hasattr(x, "__arrow_c_stream__"):  # for example an Arrow record batch
            from pyarrow.lib import table

            frame = narwhals.from_native(table(x))
        elif frame is x and hasattr(x, "to_numpy") and hasattr(x, "__len__"):
            frame = _array_as_series(x)
        if isinstance(frame, narwhals.LazyFrame):
            frame = frame.collect()
        if isinstance(frame, narwhals.DataFrame):
            frame.schema  # noqa: B018 - raises DuplicateError if a name occurs twice
    except narwhals.exceptions.DuplicateError as error:
        message = " ".join(str(error).split())
        raise DataError(f"{name}: {message}. Give each column a name of its own.") from error
    return None if frame is x else frame


def _array_as_series(x: Any) -> Any:
    """Return an array of Arrow or pandas as a series; NumPy would not tell what is missing in it.

    An array of any other library is returned unchanged.
    """
    import narwhals

    library = type(x).__module__.partition(".")[0]
    if library == "pyarrow":
        from pyarrow.lib import chunked_array

        return narwhals.from_native(chunked_array([x]), allow_series=True)
    if library == "pandas":
        from pandas import Series

        return narwhals.from_native(Series(x), allow_series=True)
    return x


def _numeric(columns: list[Any], name: str) -> list[np.ndarray]:
    """Return columns as arrays of numbers, or raise an error that names all other columns."""
    found = [_numbers(column) for column in columns]
    wrong = [column for column, array in zip(columns, found, strict=True) if array is None]
    if not wrong:
        return [array for array in found if array is not None]
    row, value = _first_wrong(wrong[0])
    listed = ", ".join(f"{str(column.name)!r} ({column.dtype})" for column in wrong)
    raise DataError(
        f"{name} holds {value!r} in row {row}, column {str(wrong[0].name)!r}, which is not "
        f"taken for a number. Columns without numbers: {listed}. Leave them out, or turn them into "
        "numbers: text by a cast, dates into days since one of them, categories into columns of 0 "
        "and 1."
    )


def _numbers(column: Any) -> np.ndarray | None:
    """Return a column as an array of numbers, or None if it holds anything else."""
    import narwhals as nw

    dtype = column.dtype
    if dtype.is_numeric() or dtype == nw.Boolean:
        # NumPy has no such types, and its integers and truth values cannot be missing.
        unknown = dtype.is_decimal() or dtype in (nw.Int128, nw.UInt128)
        missing = not dtype.is_float() and column.null_count()
        return _values(column.cast(nw.Float64) if unknown or missing else column)
    if dtype not in (nw.Object, nw.Unknown):
        return None
    # Python objects, or a type that only its library knows: the values decide.
    array = np.asarray(column.to_numpy())
    if array.dtype.kind in "biuf" and array.ndim == 1:
        return array
    if array.dtype != object:
        return None
    missing = np.asarray(column.is_null().to_numpy())
    if not all(isinstance(value, _NUMBERS) for value in array[~missing]):
        return None
    values = zip(array, missing, strict=True)
    return np.array([np.nan if is_missing else float(value) for value, is_missing in values])


def _values(column: Any) -> np.ndarray:
    """Return a column of numbers as an array, NaN where a value is missing.

    Where a value is missing, pandas returns Arrow's types as an array of objects.
    """
    import narwhals as nw

    array = np.asarray(column.to_numpy())
    if array.dtype != object:
        return array
    missing = np.asarray(column.is_null().to_numpy(), bool)
    found = np.full(array.shape, np.nan, np.float32 if column.dtype == nw.Float32 else np.float64)
    found[~missing] = array[~missing]
    return found


def _first_wrong(column: Any) -> tuple[int, Any]:
    """Return row and value of the first entry that is no number, or else of the first entry.

    Missing entries do not count.
    """
    values = column.to_list()
    present = [row for row, missing in enumerate(column.is_null().to_list()) if not missing] or [0]
    row = next((row for row in present if not isinstance(values[row], _NUMBERS)), present[0])
    return row, values[row] if values else None
