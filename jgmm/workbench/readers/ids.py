"""Ids: the column that says which row is which, such as the row names of R; it is not modelled."""

import itertools
import re

from jgmm.workbench.readers.tables import Table, fail

_FRACTION = r"[-+]?\d*[.,]\d*[1-9]\d*(e[-+]?\d+)?"
_ROW_NAMES = re.compile(r"(?i)unnamed: 0|row[ ._]?names?|__index_level_\d+__|")
_NUMBERED = re.compile(r"(?i)id|index|no|nr")


def id_column(table: Table) -> str | None:
    """Return the first column if it says which row is which, or None.

    That is: a column without a name, or with one that R or pandas give to the names of rows, whose
    values are distinct and text or whole numbers; or a column called id or index, of whole numbers
    that increase by one. A column that a data frame stored as its index is one in any place.
    """
    for name in table.names[1:]:
        if re.fullmatch(r"__index_level_\d+__", name):
            return name
    name = table.names[0]
    if _ROW_NAMES.fullmatch(name):
        texts = table.texts(name)
        is_whole = all(text is not None and not re.fullmatch(_FRACTION, text) for text in texts)
        return name if is_whole and len(set(texts)) == len(texts) else None
    if _NUMBERED.fullmatch(name):
        texts = table.texts(name)
        if all(text is not None and re.fullmatch(r"\d{1,15}(\.0)?", text) for text in texts):
            numbers = [float(text) for text in texts if text is not None]
            counts = all(b - a == 1 for a, b in itertools.pairwise(numbers))
            return name if len(numbers) > 1 and counts else None
    return None


def choose_id(table: Table, named: str | None, used: set[str | None]) -> str | None:
    """Return the column that says which row is which, named or recognised.

    Args:
      table: the columns.
      named: the name that the user gives, or None.
      used: columns that have another use.

    Raises:
      UserError: there is no column of that name, or it has another use.
    """
    if named is None:
        found = id_column(table)
        return None if found in used or len(table.names) == 1 else found
    if named not in table.names:
        table.refuse_unknown(named)
    if named in used:
        what = f"the id column {named!r} is also asked for as feature, label or weight."
        fail(table.where, what, "Use each column once.")
    return named


def ids_in(table: Table, name: str) -> list[str]:
    """Return the values of a column of ids as they are written; whole numbers without a point."""
    texts = ["" if text is None else text for text in table.texts(name)]
    if all(re.fullmatch(r"\d+\.0", text) for text in texts):
        return [text.removesuffix(".0") for text in texts]
    return texts
