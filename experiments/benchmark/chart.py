"""The benchmark's tables as text, and its chart."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence
from typing import Any

from jgmm import plot
from jgmm.plot.style import DARK, component_style
from jgmm.workbench.runs import storage


def as_table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as text; columns in the order in which they first appear."""
    heads = list(dict.fromkeys(name for row in rows for name in row))
    lines = [heads, *([_entry(row.get(name)) for name in heads] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    return "\n".join(
        "  ".join(entry.ljust(width) for entry, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def show(rows: Sequence[dict[str, Any]], output: pathlib.Path) -> None:
    """Print rows as a table, and write them to a JSON file."""
    print(as_table(rows))
    output.parent.mkdir(parents=True, exist_ok=True)
    storage.write_json(output, rows)
    print(output)


def _entry(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value)


def draw(found: dict[str, Any]) -> bytes:
    """Speeds relative to jgmm, and how time grows, as a PNG."""
    steps = [row for row in found.get("steps", []) if "seconds" in row]
    growth = found.get("growth", [])
    figure, (left, right) = plot.new_figure(1, 2, size=(13, 0.32 * max(len(steps), 12) + 1.2))
    _draw_steps(steps, left)
    _draw_growth(growth, right)
    return plot.png(figure)


def _draw_steps(rows: Sequence[dict[str, Any]], ax: Any) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    libraries = list(dict.fromkeys(row["library"] for row in rows))
    for place, row in enumerate(rows):
        ratio, color = row["times jgmm"], component_style(libraries.index(row["library"])).color
        ax.barh(-place, math.log10(ratio), color=color, alpha=0.8)
        ax.text(math.log10(ratio), -place, f" {ratio:.3g}", va="center", fontsize="x-small")
        if row.get("target"):
            ax.plot([math.log10(row["target"])] * 2, [-place - 0.4, -place + 0.4], color=DARK)
    ax.set_yticks([-place for place in range(len(rows))])
    ax.set_yticklabels([f"{row['case']}: {row['library']}" for row in rows], fontsize="x-small")
    ax.set_xticks([-1, 0, 1, 2])
    ax.set_xticklabels(["0.1", "1", "10", "100"])
    ax.set_xlabel("time of an EM step, in those of jgmm (line: target)")


def _draw_growth(rows: Sequence[dict[str, Any]], ax: Any) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    for index, axis in enumerate(dict.fromkeys(row["axis"] for row in rows)):
        own = [row for row in rows if row["axis"] == axis]
        color, marker, line = component_style(index)
        label = f"{axis}: exponent {own[0]['exponent']:.2f}"
        sizes, times = [row["size"] for row in own], [row["seconds"] for row in own]
        ax.loglog(sizes, times, color=color, marker=marker, linestyle=line, label=label)
    ax.set_xlabel("size")
    ax.set_ylabel("seconds")
    if rows:
        ax.legend(frameon=False)
