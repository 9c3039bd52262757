"""Reader of spreadsheets (.xlsx, .xlsm, .xls, .ods), as tables of text, through python-calamine."""

import pathlib
from typing import Any

from jgmm._core.errors import suggest
from jgmm.workbench.readers.dialect import Header, Overrides
from jgmm.workbench.readers.numerals import Numerals
from jgmm.workbench.readers.tables import MISSING, fail, need, reason
from jgmm.workbench.readers.text_table import TextTable


def open_table(
    where: str, path: pathlib.Path, mapped: bool = True, overrides: Overrides | None = None
) -> TextTable:
    """Read a sheet into memory: the first one, or the one that ``overrides.part`` names.

    Args:
      where: the name of the file in messages.
      path: the file.
      mapped: makes no difference here.
      overrides: the name of the sheet, whether it has a header, and texts of missing values.

    Raises:
      UserError: the file is no whole workbook, or has no such sheet.
    """
    calamine = need("python_calamine", "excel", "a spreadsheet")
    given = overrides or Overrides()
    try:
        with calamine.CalamineWorkbook.from_path(str(path)) as book:
            sheets = book.sheet_names
            sheet = given.part or (sheets[0] if sheets else "")
            if sheet not in sheets:
                ask = suggest(sheet, sheets, n=3)
                fail(where, f"there is no sheet {sheet!r}.{ask}", f"It has: {', '.join(sheets)}.")
            entries = book.get_sheet_by_name(sheet).to_python()
    except calamine.CalamineError as error:
        fail(where, f"not a whole spreadsheet ({reason(error)}).", "Write it or copy it again.")
    rows = [[_text(entry) for entry in row] for row in entries]
    rows = [row for row in rows if any(row)]
    if not rows:
        fail(where, f"the sheet {sheet!r} is empty.", "Name another: FILE:SHEET.")
    numerals, missing = Numerals(given.decimal or "."), (*MISSING, *given.na)
    header = Header(rows, numerals, missing, given.header, [])
    body = rows[header.is_there :]
    told = [f"sheet {sheet!r}, the first of {len(sheets)}"] if len(sheets) > 1 else []
    told = told if given.part is None else []
    arrow = need("pyarrow", "workbench", "a spreadsheet")
    columns = [
        arrow.chunked_array([[row[i] for row in body]], "string") for i in range(len(header.names))
    ]
    return TextTable(where, header.names, columns, numerals, missing, [*told, *header.told])


def _text(entry: Any) -> str:
    """Return an entry of a sheet as text; a whole number without a point."""
    if isinstance(entry, float):
        return f"{entry:.0f}" if entry.is_integer() and abs(entry) < 1e15 else repr(entry)
    return str(entry).strip()
