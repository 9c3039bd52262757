"""The interface of a table of named columns, and the tables that are arrays.

``datasets.load`` asks a table for numbers and for text, and checks what it gets. The modules of the
file formats (``csv``, ``npy``, ``arrow``, …) open a file as such a table, or refuse it if it is not
whole. In messages rows are counted from 1, without the header.
"""

import collections
import importlib
import math
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from jaxtyping import Float64

from jgmm._core.errors import UserError, suggest
from jgmm.workbench.runs import memory

MISSING = ("", "NA", "N/A", "n/a", "#N/A", "#NA", "NaN", "nan", "null", "NULL", "None", "<NA>")
"""What other programs write where a value is missing. As a label these are refused too: a class
that is really called NA has to be renamed, since it cannot be told from a missing value."""

BLOCK_ROWS = 65_536
"""Rows that are checked at once, so that a memory map is never in memory as a whole."""


def need(module: str, extra: str, what: str) -> Any:
    """Import a module of an optional extra, or say what to install.

    Args:
      module: the dotted name of the module.
      extra: the extra of jgmm that installs it.
      what: what the module is needed for; it opens the message.

    Raises:
      UserError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UserError(f'{what} needs {package}: pip install "jgmm[{extra}]"') from error


def fail(where: str, what: str, fix: str) -> NoReturn:
    """Raise a ``UserError``: where it happened, what happened, what to do about it."""
    raise UserError(f"{where}: {what} {fix}".rstrip())


def reason(error: Exception) -> str:
    """Return the first line of the message of a library's exception, at most 200 characters."""
    text = str(error.args[0]) if error.args else type(error).__name__
    return text.partition("\n")[0][:200].rstrip(".")


def refuse_unknown(where: str, name: str, names: list[str]) -> NoReturn:
    """Report that there is no column of a name, with the nearest names."""
    ask = suggest(name, names, n=3)
    listed = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    fail(where, f"there is no column {name!r}.{ask}", f"The columns are: {listed}.")


class Table:
    """Named columns of a source of samples.

    Attributes:
      where: the name of the source, with which every message about it begins.
      names: the names of the columns, in order.
      n_rows: the number of rows.
      told: how the source was read, where that was guessed; one phrase each.
    """

    def __init__(self, where: str, names: list[str], n_rows: int, told: Sequence[str] = ()) -> None:
        """Refuse repeated names and a source without rows."""
        self.where, self.names, self.n_rows, self.told = where, names, n_rows, list(told)
        repeated = sorted(name for name, n in collections.Counter(names).items() if n > 1)
        if repeated:
            fix = "Give each column a name of its own."
            fail(where, f"the column name {repeated[0]!r} occurs more than once.", fix)
        if n_rows == 0 or not names:
            fail(where, "there are no rows of data.", "Write the data again.")

    def is_numeric(self, name: str) -> bool:
        """Return whether a column is a feature when no features are named."""
        raise NotImplementedError

    def numbers(self, name: str) -> Float64[np.ndarray, "N"]:
        """Return a column as numbers, NaN where a value is missing; text is an error."""
        raise NotImplementedError

    def texts(self, name: str) -> list[str | None]:
        """Return a column as text, for labels; None where a value is missing."""
        raise NotImplementedError

    def unit(self, name: str) -> str:
        """Return the unit that is written behind the numbers of a column, or nothing."""
        return ""

    def example(self, name: str) -> str:
        """Return a number of a column with its unit as it is written, or nothing."""
        return ""

    def why_left_out(self, name: str) -> str:
        """Say what a column holds instead of numbers, in one or a few words."""
        return "text"

    def matrix(self, columns: list[str]) -> Float64[np.ndarray, "N D"]:
        """Return several columns as the columns of a matrix, in the order given."""
        memory.require(8 * self.n_rows * len(columns), self.where)
        # Read before the matrix is allocated: a damaged file may claim more rows than it has.
        first = self.numbers(columns[0])
        x = np.empty((len(first), len(columns)))
        x[:, 0] = first
        for position, name in enumerate(columns[1:], 1):
            x[:, position] = self.numbers(name)
        return x

    def refuse(self, name: str, row: int, value: str, wanted: str = "a number") -> NoReturn:
        """Report text where a number should be; ``row`` counts from 0."""
        what = f"column {name!r}, row {row + 1}: {value!r} is not {wanted}."
        fail(self.where, what, "Correct the value, or leave the column out of `columns`.")

    def refuse_nameless(self) -> NoReturn:
        """Report numbers in a column without a name that is no index of the rows."""
        what = "a column of numbers has no name, and is no index of the rows."
        fail(self.where, what, "Name it, delete it, or list the `columns` to use.")

    def refuse_unknown(self, name: str) -> NoReturn:
        """Report a column that is not there, with the nearest names."""
        refuse_unknown(self.where, name, self.names)


class ArrayTable(Table):
    """A matrix in memory or on disk, and columns of text in addition to it."""

    def __init__(
        self,
        where: str,
        names: list[str],
        x: np.ndarray,
        targets: dict[str, list[str]],
        told: Sequence[str] = (),
    ) -> None:
        """Take a matrix with one name per column, and `targets`: text columns by name."""
        self._x, self._targets = x, targets
        self._place = {name: place for place, name in enumerate(names)}
        super().__init__(where, [*names, *targets], x.shape[0], told)

    def is_numeric(self, name: str) -> bool:
        """Return whether a column belongs to the matrix."""
        return name not in self._targets

    def numbers(self, name: str) -> Float64[np.ndarray, "N"]:
        """Return a column of the matrix in double precision."""
        if name in self._targets:
            self.refuse(name, 0, self._targets[name][0])
        # A value that double precision cannot hold becomes NaN or infinite.
        with np.errstate(invalid="ignore", over="ignore"):
            return self._x[:, self._place[name]].astype(np.float64)

    def texts(self, name: str) -> list[str | None]:
        """Return a text column, or a column of the matrix with its numbers written out."""
        if name in self._targets:
            return list(self._targets[name])
        return [None if math.isnan(v) else repr(v) for v in self.numbers(name).tolist()]

    def matrix(self, columns: list[str]) -> Float64[np.ndarray, "N D"]:
        """Return the matrix itself where all of it is wanted as it is stored, otherwise a copy."""
        if columns == self.names and self._x.dtype == np.float64 and self._x.dtype.isnative:
            return self._x
        return super().matrix(columns)
