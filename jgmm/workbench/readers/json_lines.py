"""Reader of JSON lines: one object a line, whose keys are the columns."""

import pathlib

from jgmm.workbench.readers import text
from jgmm.workbench.readers.arrow import TypedTable
from jgmm.workbench.readers.tables import fail, need, reason
from jgmm.workbench.readers.text import Cleaning
from jgmm.workbench.runs import memory


def open_table(where: str, path: pathlib.Path, mapped: bool = True) -> TypedTable:
    """Read a file of JSON lines into memory; it may be compressed.

    Args:
      where: the name of the file in messages.
      path: the file.
      mapped: makes no difference here.

    Raises:
      UserError: the file does not hold one object a line, or is too large for the memory.
    """
    arrow = need("pyarrow.json", "workbench", "a file of JSON lines")
    memory.require(4 * path.stat().st_size, where)
    file = text.open_text(where, path, None)
    try:
        source = text.readable(file, Cleaning(), guard_memory=True)
        options = arrow.ReadOptions(use_threads=False, block_size=1 << 24)
        table = arrow.read_json(source, read_options=options)
    except ValueError as error:  # ArrowInvalid is one
        fail(where, f"not a file of JSON lines ({reason(error)}).", "Write one object a line.")
    return TypedTable(where, table.schema, table.num_rows, table.column, "file of JSON lines")
