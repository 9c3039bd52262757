"""What the command line shows: tables that can be read without opening a file.

Nothing in them is taken for markup, and nothing a terminal would obey is passed on to it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jgmm.workbench.runs.summary import RunSummary

try:
    import rich.box
    import rich.console
    import rich.markup
    import rich.table
except ImportError as error:  # pragma: no cover - the test environment has every extra
    raise ImportError('the workbench needs more packages: pip install "jgmm[workbench]"') from error

MOST_ROWS = 10  # fits that a summary shows
MOST_PARAMETERS = 60  # lines of means and deviations
HIGHER_IS_BETTER = ("held_out",)

_FITS = ("K", "model", "parameters", "log_likelihood", "bic", "status", "agree", "chosen")
_HEADS = {"log_likelihood": "log-likelihood", "held_out": "held out"}


def console() -> rich.console.Console:
    """Standard output."""
    return rich.console.Console(highlight=False, emoji=False)


def visible(text: object) -> str:
    r"""Text with escapes for what a terminal would obey instead of show.

    >>> print(visible("red: \x1b[31m"))
    red: \x1b[31m
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def cell(text: object) -> str:
    """Text for a table, none of which is taken for markup."""
    return rich.markup.escape(visible(text))


def number(value: object, digits: int = 10) -> str:
    """A number with so many significant digits; anything else as it is."""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def table(*heads: str, title: str | None = None, right: Iterable[str] = ()) -> rich.table.Table:
    """An empty table; columns named in ``right`` hold numbers."""
    made = rich.table.Table(box=rich.box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    made.title = None if title is None else cell(title)
    for head in heads:
        justify: Any = "right" if head in right else "left"
        made.add_column(cell(head), justify=justify, overflow="fold")
    return made


def say(text: str = "", style: str | None = None) -> None:
    """One line, as long as it is."""
    console().print(cell(text), style=style, soft_wrap=True)


def summary(digest: RunSummary, most: int | None = MOST_ROWS) -> None:
    """A run in short: the fits it chose among, what it found, what to know, where the report is.

    Args:
      digest: the run.
      most: fits to show, the best ones; None: all.
    """
    seconds = digest.environment.get("seconds", "?")
    source = str(digest.environment.get("data", "data unknown")).partition(", sha256")[0]
    say(f"{digest.folder.name}: {source}; {seconds} s")
    columns, left_out = (digest.environment.get(key) for key in ("columns", "left_out"))
    if isinstance(columns, list):
        say(f"{digest.environment.get('n_samples')} samples of {_listed(columns)}")
    if isinstance(left_out, list) and left_out:
        say(f"left out, as not of numbers: {_listed(left_out)}")
    fit = digest.config.get("fit")
    criterion = str(fit.get("criterion")) if isinstance(fit, Mapping) else "bic"
    if digest.table and {*_FITS, criterion} <= set(digest.table[0]):
        n_restarts = fit.get("n_restarts", "?") if isinstance(fit, Mapping) else "?"
        fits(digest.table, criterion, n_restarts, most, "in tables/summary.csv")
    metrics(digest.metrics)
    for note in digest.notes:
        say(f"note: {note}", "yellow")


def _listed(names: Sequence[Any], most: int = 8) -> str:
    shown = ", ".join(map(str, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def metrics(found: Mapping[str, Any]) -> None:
    """The headline numbers."""
    made = table("found", "", right=[""])
    for name, value in found.items():
        made.add_row(cell(name), cell(number(value)))
    console().print(made)


def fits(
    rows: Sequence[Mapping[str, Any]],
    criterion: str,
    n_restarts: object,
    most: int | None,
    elsewhere: str,
) -> None:
    """The best rows of a table of fits, best first, the chosen one marked.

    Args:
      rows: every fit.
      criterion: what they are ordered by.
      n_restarts: starts drawn for each.
      most: how many to show; None: all.
      elsewhere: where the others are to be seen.
    """
    ordered = sorted(rows, key=lambda row: score(row, criterion))
    shown = ordered if most is None else ordered[:most]
    keys = [*dict.fromkeys(["log_likelihood", "bic", criterion])]
    heads = ["", "K", "model", "p", *map(_head, keys), "status", "agree"]
    made = table(*heads, right=["K", "p", *map(_head, keys), "agree"])
    for row in shown:
        chosen = row["chosen"] == "yes"
        numbers = [_value(row[key], key) for key in keys]
        agree = f"{row['agree']} of {n_restarts}"
        cells = ["*" if chosen else "", row["K"], row["model"], row["parameters"]]
        made.add_row(
            *map(cell, [*cells, *numbers, row["status"], agree]), style="bold" if chosen else None
        )
    console().print(made)
    if len(shown) < len(rows):
        say(f"and {len(rows) - len(shown)} more {elsewhere}; * is the one chosen")
    if any(map(_from_a_special_case, shown)):
        say("agree 0: reached from a special case alone, fewer components or a simpler model")


def _from_a_special_case(row: Mapping[str, Any]) -> bool:
    """Whether none of the starts drawn for a fit came as high as the fit."""
    value = row["log_likelihood"]  # not finite where every start failed
    return row["agree"] == 0 and isinstance(value, float | int) and math.isfinite(value)


def score(row: Mapping[str, Any], criterion: str) -> float:
    """What a row of fits is ordered by: the lower the better, infinite where nothing is known."""
    value = row.get(criterion)
    if not isinstance(value, float | int) or math.isnan(value):
        return math.inf
    return -value if criterion in HIGHER_IS_BETTER else value


def grid(rows: Sequence[Mapping[str, Any]], criterion: str, chosen: Mapping[str, Any]) -> bool:
    """The criterion of every fit, models down and numbers of components across.

    Returns:
      Whether it was shown: false where the terminal has too little room.
    """
    counts = list(dict.fromkeys(row["K"] for row in rows))
    names = list(dict.fromkeys(row["model"] for row in rows))
    title = f"{_head(criterion)} by model and K; * is the one chosen"
    heads = [str(count) for count in counts]
    made = table("model", *heads, title=title, right=heads)
    of = {(row["model"], row["K"]): row for row in rows}
    widths = [max(map(len, ["model", *names]))]
    for name in names:
        cells = []
        for count in counts:
            row = of[name, count]
            text = _value(row[criterion], criterion, 1)
            known = math.isfinite(score(row, criterion))
            cells.append(f"{text}{'*' if row is chosen else ''}" if known else row["status"])
        widths.append(max(map(len, cells)) * len(cells) + 2 * len(cells))
        made.add_row(cell(name), *map(cell, cells))
    fitting = widths[0] + max(widths[1:]) + 2 <= console().width
    if fitting:
        console().print(made)
    return fitting


def _head(key: str) -> str:
    return _HEADS.get(key, key.upper())


def _value(value: Any, key: str, digits: int = 2) -> str:
    if isinstance(value, float | int) and not isinstance(value, bool):
        return f"{value:.{4 if key in HIGHER_IS_BETTER else digits}f}"
    return str(value)


def mixture(name: str, found: Mapping[str, Any]) -> None:
    """Weights, means and standard deviations of a mixture, by component and column."""
    names, weights = found["columns"], found["weights"]
    title = f"{name}: {found['covariance']}, K={len(weights)}, D={len(names)}"
    heads = ("component", "weight", "column", "mean", "standard deviation")
    made = table(*heads, title=title, right=["weight", "mean", "standard deviation"])
    lines = list(parameter_lines(found))
    for k, d, mean, deviation in lines[:MOST_PARAMETERS]:
        first = (str(k), number(weights[k], 6)) if d == 0 else ("", "")
        made.add_row(*first, cell(names[d]), number(mean, 6), number(deviation, 6))
    console().print(made)
    if len(lines) > MOST_PARAMETERS:
        say(f"and {len(lines) - MOST_PARAMETERS} more lines; --json shows all, with covariances")


def parameter_lines(found: Mapping[str, Any]) -> Iterable[tuple[int, int, float, float]]:
    """Component, column, mean and standard deviation."""
    for k, (mean, covariance) in enumerate(zip(found["means"], found["covariances"], strict=True)):
        for d, value in enumerate(mean):
            yield k, d, value, covariance[d][d] ** 0.5
