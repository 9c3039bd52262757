"""Compare two runs: settings, criteria, parameters and assignments."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jgmm.workbench.cli import terminal
from jgmm.workbench.runs import summary
from jgmm.workbench.runs.summary import RunSummary


def compare(first: RunSummary, second: RunSummary) -> dict[str, Any]:
    """Return the differences between two runs, and all metrics of both, as plain values.

    Returns:
      ``runs``, the two folders; ``config`` and ``environment``, pairs of values by dotted key where
      they differ; ``metrics``, pairs of all values; ``mixture``, as from ``match``, or None where
      there are no mixtures of the same columns; ``adjusted_rand_index`` of the assignments, or None
      where there are no assignments of the same samples.
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
    """Pair the components of two mixtures of the same columns by linear assignment.

    The pairs (i, j) minimise the sum of Σ_d (μ_id - μ_jd)² / (σ²_id + σ²_jd) over the pairs.

    Args:
      a, b: the parameters of the mixtures, as ``summary.parameters`` returns them.

    Returns:
      ``columns``; ``components``, a list of pairs of component numbers, with None where one mixture
      has fewer components; and for each pair ``weights``, ``means`` and ``deviations`` (standard
      deviations), one value for each mixture.
    """
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    sides = [_Arrays(side) for side in (a, b)]
    difference = sides[0].means[:, None] - sides[1].means[None]
    variance = sides[0].variances[:, None] + sides[1].variances[None]
    left, right = linear_sum_assignment((difference**2 / variance).sum(axis=2))
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


class _Arrays:
    """The parameters of one mixture as arrays."""

    def __init__(self, plain: Mapping[str, Any]) -> None:
        self.weights, self.means = np.asarray(plain["weights"]), np.asarray(plain["means"])
        self.variances = np.diagonal(np.asarray(plain["covariances"]), axis1=1, axis2=2)
        self.deviations = np.sqrt(self.variances)


def _agreement(first: RunSummary, second: RunSummary) -> float | None:
    """Return the adjusted Rand index of the assignments, if both runs have the same samples."""
    from jgmm.selection.agreement import adjusted_rand_index

    origins = [str(run.environment.get("data")) for run in (first, second)]
    # The checksum identifies a file, not its path.
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
    """Print a comparison.

    Args:
      found: the comparison, as from ``compare``.
      heads: the names of the two runs.
    """
    for title, shows_all in (("config", False), ("environment", False), ("metrics", True)):
        if not found[title]:
            terminal.say(f"{title}: the same")
            continue
        made = terminal.table("", *heads, title=title, right=heads)
        for key, (a, b) in found[title].items():
            style = "bold" if shows_all and a != b else None
            texts = ("–" if value is None else terminal.number(value) for value in (a, b))
            made.add_row(*map(terminal.escaped, (key, *texts)), style=style)
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
            made.add_row(*map(terminal.escaped, (label, name, *texts)))
            label = ""
        lines += len(rows)
    terminal.console().print(made)
    if lines > terminal.MOST_PARAMETERS:
        terminal.say(f"and {lines - terminal.MOST_PARAMETERS} more lines; --json shows all")
