"""Data frames and series as arrays of numbers, whatever library they come from.

pandas, polars, Arrow and whatever else narwhals understands are read through it; it is imported
when the first of them is seen, so that arrays and lists need no narwhals.

What a column counts as:

- integers, floats, decimals and truth values are numbers; false is 0 and true is 1;
- what is missing (null, None, NA) is NaN, which only a row of weight zero may hold;
- text, categories, dates, times and durations are refused, also where the text or the category
  looks like a number: a column that holds one is seldom a measurement. So are nested columns.
"""

from __future__ import annotations

import decimal
import numbers
from typing import Any

import jax
import numpy as np

from jgmm._core.errors import DataError

# A type with one of these may be a data frame or a series; narwhals says whether it is.
_MARKS = ("to_numpy", "columns", "__arrow_c_stream__", "__narwhals_dataframe__")
_NUMBERS = (numbers.Real, decimal.Decimal, np.bool_)


def as_array(x: Any, name: str = "x") -> Any:
    """Turn a data frame into a matrix and a series into a vector; leave anything else as it is.

    Args:
      x: whatever a public function was given for samples or weights.
      name: what error messages call it.

    Returns:
      An array, (N, D) or (N,), NaN where a value is missing, of the type that holds all columns; or
      ``x`` itself. What is lazy is collected.

    Raises:
      DataError: a column that does not hold numbers (the text names all of them), a column name
        that occurs twice, or no narwhals to read it with.
    """
    table = _opened(x, name)
    if table is None:
        return x
    if not hasattr(table, "iter_columns"):
        return _numeric([table], name)[0]
    dtypes = set(table.schema.values())
    if len(dtypes) == 1 and dtypes.pop().is_float():
        return table.to_numpy()
    columns = _numeric(list(table.iter_columns()), name)
    return np.stack(columns, axis=1) if columns else np.empty(table.shape)


def names_of(x: Any) -> list[str] | None:
    """Names of the columns of a data frame, or of a series; None for anything else.

    >>> names_of([[1.0, 2.0]]) is None
    True
    """
    table = _opened(x, "x")
    if table is None:
        return None
    return [str(name) for name in getattr(table, "columns", [getattr(table, "name", None) or "x0"])]


def is_table(x: Any) -> bool:
    """Whether something has named columns."""
    return hasattr(_opened(x, "x"), "iter_columns")


def _opened(x: Any, name: str) -> Any:
    """The narwhals frame or series for x, or None if it is neither."""
    if isinstance(x, np.ndarray | jax.Array) or not any(hasattr(type(x), m) for m in _MARKS):
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
        opened: Any = narwhals.from_native(x, pass_through=True, allow_series=True)
        if opened is x and hasattr(x, "__arrow_c_stream__"):  # a record batch, say
            from pyarrow.lib import table

            opened = narwhals.from_native(table(x))
        if isinstance(opened, narwhals.LazyFrame):
            opened = opened.collect()
        if isinstance(opened, narwhals.DataFrame):
            opened.schema  # noqa: B018 - where names that occur twice are found
    except narwhals.exceptions.DuplicateError as error:
        said = " ".join(str(error).split())
        raise DataError(f"{name}: {said}. Give each column a name of its own.") from error
    return None if opened is x else opened


def _numeric(columns: list[Any], name: str) -> list[np.ndarray]:
    """Columns as arrays of numbers, or an error that names all that are something else."""
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
    """A column as an array of numbers, or None if it holds anything else."""
    import narwhals as nw

    dtype = column.dtype
    if dtype.is_numeric() or dtype == nw.Boolean:
        exact = dtype.is_decimal() or dtype in (nw.Int128, nw.UInt128)  # what NumPy has no type for
        missing = not dtype.is_float() and column.null_count()
        return np.asarray((column.cast(nw.Float64) if exact or missing else column).to_numpy())
    if dtype not in (nw.Object, nw.Unknown):
        return None
    # Python's objects, or a type only its library knows: the values decide.
    array = np.asarray(column.to_numpy())
    if array.dtype.kind in "biuf" and array.ndim == 1:
        return array
    if array.dtype != object:
        return None
    missing = np.asarray(column.is_null().to_numpy())
    if not all(isinstance(value, _NUMBERS) for value in array[~missing]):
        return None
    return np.array([np.nan if gone else float(v) for v, gone in zip(array, missing, strict=True)])


def _first_wrong(column: Any) -> tuple[int, Any]:
    """Row and value of the first entry that is there and no number, or else the first there."""
    values = column.to_list()
    there = [row for row, gone in enumerate(column.is_null().to_list()) if not gone] or [0]
    row = next((row for row in there if not isinstance(values[row], _NUMBERS)), there[0])
    return row, values[row] if values else None
