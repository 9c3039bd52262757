"""What a user is told of the samples that were read: how they were read, and what may be wrong."""

from collections.abc import Sequence

import numpy as np

from jgmm.workbench.readers.tables import BLOCK_ROWS, Table


def read_as(
    table: Table, chosen: Sequence[str], left_out: Sequence[str], id_name: str | None
) -> str:
    """Say in one line how a table was read, where that was guessed."""
    told = list(table.told)
    told += [f"{name} in {table.unit(name)}" for name in chosen if table.unit(name)]
    if id_name is not None:
        told.append(f"{id_name or 'the first column'} is an id")
    reasons: dict[str, list[str]] = {}
    for name in left_out:
        reasons.setdefault(table.why_left_out(name), []).append(name or "(no name)")
    for reason, group in reasons.items():
        what = "1 column" if len(group) == 1 else f"{len(group)} columns"
        listed = ", ".join(group[:8]) + (", …" if len(group) > 8 else "")
        told.append(f"{what} left out as {reason}: {listed}")
    return "; ".join(told)


def unit_warnings(table: Table, left_out: Sequence[str]) -> list[str]:
    """Name columns of numbers with a unit that are left out, with the way to read them."""
    return [
        f"The column {name!r} holds numbers with a unit ({table.example(name)!r}) and is left out; "
        "name it in --columns (`columns`) to read its numbers without the unit."
        for name in left_out
        if table.unit(name)
    ]


def code_warnings(x: np.ndarray, columns: Sequence[str]) -> list[str]:
    """Name numbers that look like codes of missing values: -999, far from all other values."""
    found = []
    blocks = [x[start : start + BLOCK_ROWS] for start in range(0, len(x), BLOCK_ROWS)]
    low_high = [[block.min(axis=0) for block in blocks], [block.max(axis=0) for block in blocks]]
    extremes = np.min(low_high[0], axis=0), np.max(low_high[1], axis=0)
    for column, name in enumerate(columns):
        for value in {float(extreme[column]) for extreme in extremes}:
            if not _looks_like_code(value):
                continue
            others = x[x[:, column] != value, column]
            if len(others) == 0:
                continue
            low, high = float(others.min()), float(others.max())
            gap = low - value if value < low else value - high
            if high > low and gap > high - low:
                n = len(x) - len(others)
                times = "1 value is" if n == 1 else f"{n} values are"
                found.append(
                    f"Column {name!r}: {times} {value:g}, far from all others ({low:g} to "
                    f"{high:g}). If that is a code of missing values, say so (--na={value:g}) "
                    "or remove such rows."
                )
    return found


def _looks_like_code(value: float) -> bool:
    """Return whether a number is like -9, 99, -999.9 or a limit of a type."""
    digits = f"{abs(value):.12g}".removesuffix(".0").replace(".", "")
    nines = set(digits) == {"9"} and (len(digits) > 1 or value < 0)
    return nines or value in (-32768, -2147483648, 1e20, -1e20, 1e30, -1e30, -1e34)
