"""A table whose values are text, as files of text and spreadsheets hold them."""

import collections
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from jgmm.workbench.readers.numerals import Numerals
from jgmm.workbench.readers.tables import MISSING, Table, need


def trimmed(text: Any) -> Any:
    """Return an Arrow array of text without the blanks around each value."""
    return need("pyarrow.compute", "workbench", "a text file").utf8_trim_whitespace(text)


@dataclass(frozen=True)
class _Kind:
    """What a column holds: "number", "unit", "text" or "nothing"; its unit, and an example."""

    name: str
    unit: str = ""
    example: str = ""


class TextTable(Table):
    """Columns of text: whether one is numeric is decided on all of its values.

    Readers that infer types from the first block fail on later values, or misread them.
    """

    def __init__(
        self,
        where: str,
        names: list[str],
        columns: Sequence[Any],
        numerals: Numerals,
        missing: Sequence[str] = MISSING,
        told: Sequence[str] = (),
    ) -> None:
        """Take one chunked Arrow array of text for each name.

        Columns without a name and without any value are left out: they come from separators at the
        end of each row.
        """
        self._pa = need("pyarrow", "workbench", "a text file")
        self._pc = need("pyarrow.compute", "workbench", "a text file")
        self._numerals, self._missing = numerals, self._pa.array(list(missing), "string")
        n_rows = len(columns[0]) if columns else 0
        used = [
            (name, column)
            for name, column in zip(names, columns, strict=True)
            if name or self._clean(column).null_count < n_rows
        ]
        super().__init__(where, [name for name, _ in used], n_rows, told)
        self._columns = dict(used)
        self._values: dict[str, Any] = {}  # numbers that have been converted, until they are used
        self._kind = functools.cache(self._find_kind)

    def _clean(self, column: Any) -> Any:
        text = trimmed(column)
        is_missing = self._pc.is_in(text, value_set=self._missing)
        return self._pc.if_else(is_missing, None, text)

    def _text(self, name: str) -> Any:
        return self._clean(self._columns[name])

    def _find_kind(self, name: str) -> _Kind:
        text = self._text(name)
        present = len(text) - text.null_count
        if not present:
            return _Kind("nothing")
        values = self._cast(text)
        if values is not None:
            self._values[name] = values
            return _Kind("number")
        # A column with a stray "?" must not vanish from the features: a column that holds mostly
        # numbers is numeric, and `numbers` then points at the value that is not a number.
        _, good = self._numerals.read(text)
        if 2 * (self._pc.sum(good).as_py() or 0) > present:
            return _Kind("number")
        _, units = self._numerals.split_unit(text)
        counted = collections.Counter(units.drop_null().to_pylist())
        unit, n = counted.most_common(1)[0] if counted else ("", 0)
        if 2 * n > present:
            first = self._pc.index(units, unit).as_py()
            return _Kind("unit", unit, text[first].as_py())
        return _Kind("text")

    def _cast(self, text: Any) -> Any:
        if self._numerals.decimal != ".":
            return None
        try:
            return text.cast(self._pa.float64())
        except self._pa.ArrowInvalid:
            return None

    def is_numeric(self, name: str) -> bool:
        """Return whether a column holds mostly numbers, or numbers with a sign of percent."""
        kind = self._kind(name)
        found = kind.name == "number" or kind.unit == "%"
        if found and name == "":
            self.refuse_nameless()
        return found

    def unit(self, name: str) -> str:
        """Return the unit that is written behind the numbers of a column, or nothing."""
        return self._kind(name).unit

    def why_left_out(self, name: str) -> str:
        """Say what a column holds instead of numbers."""
        kind = self._kind(name)
        return {"unit": "numbers with a unit", "nothing": "empty"}.get(kind.name, "text")

    def example(self, name: str) -> str:
        """Return a number with its unit as it is written."""
        return self._kind(name).example

    def numbers(self, name: str) -> Float64[np.ndarray, "N"]:
        """Return a column as numbers, without their unit."""
        unit = self.unit(name)
        values = self._values.pop(name, None)
        if values is None:
            text = self._text(name)
            values, good = self._numerals.read(text, unit)
            row = self._pc.index(good, False).as_py()
            if row >= 0 and unit:
                self.refuse(name, row, text[row].as_py(), f"a number with the unit {unit!r}")
            if row >= 0:
                self.refuse(name, row, text[row].as_py())
        result: np.ndarray = values.to_numpy()
        return result

    def texts(self, name: str) -> list[str | None]:
        """Return a column as it is written."""
        values: list[str | None] = self._text(name).to_pylist()
        return values
