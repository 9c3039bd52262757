"""Two runs side by side: settings, criteria, parameters, and who belongs where."""

import numpy as np
from collections.abc import Mapping, Sequence
from jgmm.workbench.cli import terminal
from jgmm.workbench.runs import summary
from jgmm.workbench.runs.summary import RunSummary
from typing import Any

def compare(first: RunSummary, second: RunSummary) -> dict[str, Any]:
    """What differs between two runs, and every number of both, as plain values.

    Returns:
      ``runs``, the two folders; ``config`` and ``environment``, pairs of values by dotted key where
      they differ; ``metrics``, pairs of all; ``mixture``, see ``match``, or None;
      ``adjusted_rand_index`` of the assignments, or None where there are none of the same samples.
    """
    settings, surroundings, metrics = (
        _pairs(*(summary.flat(getattr(run, part)) for run in (first, second)))
        for part in ("config", "environment", "metrics")
    )
    return {
        "runs": [str(first.folder), str(second.folder)],
        "config": {key: pair for key, pair in settings.items() if pair[0] != pair[1]},
        "environment": {key: pair for key, pair in surroundings.items() if pair[0] != pair[1]},
        "metrics": metrics,
        "mixture": _mixtures(first, second),
        "adjusted_rand_index": _agreement(first, second),
    }


def _pairs(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {key: [left.get(key), right.get(key)] for key in dict.fromkeys([*left, *right])}


def _mixtures(first: RunSummary, second: RunSummary) -> dict[str, Any] | None:
    files = [run.folder / "mixture.safetensors" for run in (first, second)]
    if not all(file.is_file() for file in files):
        return None
    a, b = map(summary.parameters, files)
    return match(a, b) if a["columns"] == b["columns"] else None


def match(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Pair the components of two mixtures of the same columns so that means are close.

    The sum over pairs of Σ_d (μ_id - μ_jd)² / (σ²_id + σ²_jd) is the smallest there is.

    Returns:
      ``columns``; ``components``, a list of pairs of numbers, None where one side has no more; and
      for each pair ``weights``, ``means`` and ``deviations``, one of each side.
    """
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    sides = [_Side(side) for side in (a, b)]
    difference = sides[0].means[:, None] - sides[1].means[None]
    spread = sides[0].variances[:, None] + sides[1].variances[None]
    left, right = linear_sum_assignment((difference**2 / spread).sum(axis=2))
    pairs: list[tuple[int | None, int | None]] = list(
        zip(left.tolist(), right.tolist(), strict=True)
    )
    pairs += [(k, None) for k in range(len(sides[0].means)) if k not in left]
    pairs += [(None, k) for k in range(len(sides[1].means)) if k not in right]
    found: dict[str, Any] = {"columns": a["columns"], "components": pairs}
    for name in ("weights", "means", "deviations"):
        values = [getattr(side, name) for side in sides]
        found[name] = [
            [_entry(value, k) for value, k in zip(values, pair, strict=True)] for pair in pairs
        ]
    return found


def _entry(value: np.ndarray, k: int | None) -> Any:
    return None if k is None else value[k].tolist()


class _Side:
    """One mixture as arrays."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        self.weights, self.means = np.asarray(found["weights"]), np.asarray(found["means"])
        self.variances = np.diagonal(np.asarray(found["covariances"]), axis1=1, axis2=2)
        self.deviations = np.sqrt(self.variances)


def _agreement(first: RunSummary, second: RunSummary) -> float | None:
    """The adjusted Rand index of the assignments, if both have them, of the same samples."""
    from jgmm.selection.agreement import adjusted_rand_index

    origins = [str(run.environment.get("data")) for run in (first, second)]
    # A file is the same wherever it lies.
    if len({origin.rpartition("sha256 ")[2] for origin in origins}) > 1:
        return None
    labels = [
        [row.get("component") for row in summary.rows(run.folder, "assignments")]
        for run in (first, second)
    ]
    if not labels[0] or len(labels[0]) != len(labels[1]):
        return None
    return adjusted_rand_index(*labels)


def show(found: Mapping[str, Any], heads: Sequence[str]) -> None:
    """Print a comparison; ``heads`` name the two runs."""
    for title, everything in (("config", False), ("environment", False), ("metrics", True)):
        if not found[title]:
            terminal.say(f"{title}: the same")
            continue
        made = terminal.table("", *heads, title=title, right=heads)
        for key, (a, b) in found[title].items():
            style = "bold" if everything and a != b else None
            texts = ("–" if value is None else terminal.number(value) for value in (a, b))
            made.add_row(*map(terminal.cell, (key, *texts)), style=style)
        terminal.console().print(made)
    if found["mixture"] is not None:
        _show_mixtures(found["mixture"], heads)
    ari = found["adjusted_rand_index"]
    if ari is not None:
        terminal.say(f"assignments: adjusted Rand index {ari:.4f} between the two")


def _show_mixtures(found: Mapping[str, Any], heads: Sequence[str]) -> None:
    made = terminal.table("components", "", *heads, title="parameters", right=heads)
    lines = 0
    for i, pair in enumerate(found["components"]):
        rows = [("weight", found["weights"][i])]
        for d, name in enumerate(found["columns"]):
            for what in ("means", "deviations"):
                values = [None if side is None else side[d] for side in found[what][i]]
                rows.append((f"{'mean' if what == 'means' else 'deviation'} of {name}", values))
        label = " ~ ".join("–" if k is None else str(k) for k in pair)
        for name, values in rows[: max(terminal.MOST_PARAMETERS - lines, 0)]:
            texts = ("–" if value is None else terminal.number(value, 6) for value in values)
            made.add_row(*map(terminal.cell, (label, name, *texts)))
            label = ""
        lines += len(rows)
    terminal.console().print(made)
    if lines > terminal.MOST_PARAMETERS:
        terminal.say(f"and {lines - terminal.MOST_PARAMETERS} more lines; --json shows all")
