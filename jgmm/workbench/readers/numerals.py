"""How numbers are written in text: decimal marks, thousands separators, percent signs and units.

The package's only description of a written number: the readers of text decide by it which columns
hold numbers, and convert them. It is written by hand because no cast of Arrow leaves a text that is
no number missing instead of failing, and none knows thousands separators or units.
"""

import collections
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jgmm.workbench.readers.tables import need

NUMBER = r"(?i)^[-+]?((\d+\.?\d*|\.\d+)(e[-+]?\d+)?|nan|inf|infinity)$"
"""How a number is written with a decimal point and without thousands separators."""

_BLANKS = " \u00a0\u2009\u202f"
_GROUPS = {",": ",", ".": r"\.", " ": f"[{_BLANKS}]", "'": "['’]"}
_EXPONENT = r"(?:e[-+]?\d+)?"
_UNIT = r"[^\d\s.,;|+\-'\"()]\S{0,11}"  # begins with a letter, a sign of percent or of a currency


@dataclass(frozen=True)
class Numerals:
    """How the numbers of a file are written.

    Attributes:
      decimal: the decimal mark, "." or ",".
      thousands: what separates groups of three digits: ",", ".", " ", "'", or "" for nothing.
    """

    decimal: str = "."
    thousands: str = ""

    @property
    def digits(self) -> str:
        """The regular expression of a number without a sign, as Python and Arrow understand it."""
        mark = re.escape(self.decimal)
        whole = r"\d+"
        if self.thousands:
            whole = rf"(?:[1-9]\d{{0,2}}(?:{_GROUPS[self.thousands]}\d{{3}})+|\d+)"
        return rf"(?:(?:{whole}(?:{mark}\d*)?|{mark}\d+){_EXPONENT}|nan|inf|infinity)"

    def is_number(self, entry: str) -> bool:
        """Return whether a text is a number.

        >>> Numerals(",", ".").is_number("1.234,5"), Numerals().is_number("1,5")
        (True, False)
        """
        return _pattern(self).fullmatch(entry) is not None

    def read(self, text: Any, unit: str = "") -> tuple[Any, Any]:
        """Convert text to numbers.

        Args:
          text: an Arrow array of text without blanks around it.
          unit: the unit that must stand at every number.

        Returns:
          Arrow arrays: the numbers, missing where the text is none or missing; and whether each
          text is a number.
        """
        compute = need("pyarrow.compute", "workbench", "a text file")
        if unit:
            number, units = self.split_unit(text)
            fits = compute.fill_null(compute.equal(units, unit), False)
            text = compute.if_else(compute.or_(fits, compute.is_null(text)), number, "none")
        good = compute.match_substring_regex(text, f"(?i)^[-+−]?{self.digits}$")
        text = compute.replace_substring(text, "−", "-")
        if self.thousands:
            text = compute.replace_substring_regex(text, _GROUPS[self.thousands], "")
        if self.decimal != ".":
            text = compute.replace_substring(text, self.decimal, ".")
        return compute.if_else(good, text, None).cast("float64"), good

    def split_unit(self, text: Any) -> tuple[Any, Any]:
        """Split texts such as "12.5 %", "3750 g" or "$ 12" into numbers and units.

        Args:
          text: an Arrow array of text without blanks around it.

        Returns:
          Arrow arrays of text: numbers and units, missing where a text is no number with a unit.
        """
        compute = need("pyarrow.compute", "workbench", "a text file")
        pattern = (
            rf"(?i)^(?P<before>[$€£¥]?)\s*(?P<number>[-+−]?{self.digits})\s*(?P<after>{_UNIT}|)$"
        )
        found = compute.extract_regex(text, pattern)
        before, number, after = (compute.struct_field(found, index) for index in range(3))
        unit = compute.binary_join_element_wise(before, after, "")
        has_unit = compute.and_(
            compute.not_equal(unit, ""),
            compute.or_(compute.equal(before, ""), compute.equal(after, "")),
        )
        return compute.if_else(has_unit, number, None), compute.if_else(has_unit, unit, None)

    def told(self) -> list[str]:
        """Say what is not as in most files."""
        found = ["decimal commas"] if self.decimal == "," else []
        name = {",": "commas", ".": "points", " ": "blanks", "'": "apostrophes"}.get(self.thousands)
        return [*found, f"{name} between thousands"] if name else found


def looks_like_number(entry: str) -> bool:
    """Return whether a text is a number in any of the ways that numbers are written.

    >>> [looks_like_number(entry) for entry in ("1,5", "1.234.567,8", "1 234", "1,5 2,5")]
    [True, True, True, False]
    """
    return _ANY.fullmatch(entry) is not None


@functools.cache
def _pattern(numerals: Numerals) -> re.Pattern[str]:
    return re.compile(rf"(?i)[-+−]?{numerals.digits}")


_EVERY = [
    Numerals(),
    Numerals(","),
    *(Numerals(mark, group) for mark in ".," for group in ".,' " if mark != group),
]
_ANY = re.compile(rf"(?i)[-+−]?(?:{'|'.join(each.digits for each in _EVERY)})")


def unit_of(entry: str) -> str | None:
    """Return the unit of a number with one, or None.

    >>> unit_of("3750 g"), unit_of("12,5%"), unit_of("abc")
    ('g', '%', None)
    """
    found = re.fullmatch(rf"(.*\d[.,]?)\s*({_UNIT})", entry)
    if found and looks_like_number(found[1]):
        return found[2]
    found = re.fullmatch(r"([$€£¥])\s*(.*)", entry)
    return found[1] if found and looks_like_number(found[2]) else None


def without_unit(entry: str) -> str:
    """Return the number of a text that is a number with a unit, and any other text unchanged."""
    unit = unit_of(entry)
    return entry if unit is None else entry.removesuffix(unit).removeprefix(unit).strip()


class Ambiguous(Exception):
    """Numbers may be meant in two ways; the argument is an example."""


def guess(entries: Iterable[str], decimal: str | None = None) -> Numerals:
    """Guess how numbers are written from examples of them.

    Args:
      entries: texts that are numbers in one way of writing or another.
      decimal: the decimal mark, where it is known.

    Raises:
      Ambiguous: every example is like "1,234", which may be a number above one thousand or between
        one and two.

    >>> guess(["1,5", "2.000,25"])
    Numerals(decimal=',', thousands='.')
    """
    entries = list(entries)
    if decimal is None:
        decimal = _guess_decimal(entries)
    groups = [group for group in ",.' " if group != decimal]
    used = collections.Counter(
        group
        for entry in entries
        for group in groups
        if Numerals(decimal, group).is_number(entry) and not Numerals(decimal).is_number(entry)
    )
    return Numerals(decimal, used.most_common(1)[0][0] if used else "")


def _guess_decimal(entries: list[str]) -> str:
    # A text that is a number under one mark alone is evidence for it.
    readings = {
        mark: [Numerals(mark), *(Numerals(mark, group) for group in ",.' " if group != mark)]
        for mark in ".,"
    }
    evidence = dict.fromkeys(readings, 0)
    doubtful = []
    for entry in entries:
        marks = [mark for mark, ways in readings.items() if any(w.is_number(entry) for w in ways)]
        if len(marks) == 1:
            evidence[marks[0]] += 1
        elif "," in entry:
            doubtful.append(entry)
    if doubtful and not any(evidence.values()):
        raise Ambiguous(doubtful[0])
    return "," if evidence[","] > evidence["."] else "."
