"""Tables and lines that the command line prints.

No text from files or data is interpreted as markup, and no control sequence in it reaches the
terminal. rich is imported when something is printed with it: help does not wait for it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jgmm.workbench.runs.summary import RunSummary

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MOST_ROWS = 10
"""The most fits that a summary shows."""
MOST_PARAMETERS = 60
"""The most lines of means and standard deviations."""

_FITS = ("K", "model", "parameters", "log_likelihood", "bic", "status", "agree", "chosen")


def console() -> "Console":
    """Return a console that prints to standard output."""
    from rich.console import Console

    return Console(highlight=False, emoji=False)


def visible(text: object) -> str:
    r"""Replace characters that a terminal would obey instead of show by escapes.

    >>> print(visible("red: \x1b[31m"))
    red: \x1b[31m
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def escaped(text: object) -> str:
    """Return text for a table or a line, with nothing that rich would interpret as markup."""
    from rich.markup import escape

    return escape(visible(text))


def number(value: object, digits: int = 10) -> str:
    """Format a number with the given significant digits, and anything that is no float as text.

    >>> number(0.123456, 3), number("converged")
    ('0.123', 'converged')
    """
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def table(*heads: str, title: str | None = None, right: Iterable[str] = ()) -> "Table":
    """Return an empty table; the columns named in ``right`` are aligned to the right."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    made.title = None if title is None else escaped(title)
    for head in heads:
        justify: Any = "right" if head in right else "left"
        made.add_column(escaped(head), justify=justify, overflow="fold")
    return made


def say(text: str = "", style: str | None = None) -> None:
    """Print one line, which is not wrapped."""
    console().print(escaped(text), style=style, soft_wrap=True)


def summary(digest: RunSummary, most: int | None = MOST_ROWS) -> None:
    """Print a run in short: data, the best fits, metrics and notes.

    Args:
      digest: the run.
      most: the number of fits to show, best first; None: all.
    """
    seconds = digest.environment.get("seconds", "?")
    source = str(digest.environment.get("data", "data unknown")).partition(", sha256")[0]
    say(f"{digest.folder.name}: {source}; {seconds} s")
    data({**digest.environment, "warnings": []})  # the warnings are among the notes
    fit = digest.config.get("fit")
    criterion = str(fit.get("criterion")) if isinstance(fit, Mapping) else "bic"
    if digest.table and {*_FITS, criterion} <= set(digest.table[0]):
        n_restarts = fit.get("n_restarts", "?") if isinstance(fit, Mapping) else "?"
        fits(digest.table, criterion, n_restarts, most, "in tables/summary.csv")
    metrics(digest.metrics)
    for note in digest.notes:
        say(f"note: {note}", "yellow")


def data(found: Mapping[str, Any]) -> None:
    """Print which samples were read, how, and what may be wrong with them."""
    columns = found.get("columns")
    if isinstance(columns, list):
        say(f"{found.get('n_samples')} samples of {_listed(columns)}")
    if found.get("read_as"):
        say(f"read as: {found['read_as']}")
    for warning in found.get("warnings") or []:
        say(f"warning: {warning}", "yellow")


def _listed(names: Sequence[Any], most: int = 8) -> str:
    shown = ", ".join(map(str, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def metrics(found: Mapping[str, Any]) -> None:
    """Print the headline numbers."""
    made = table("found", "", right=[""])
    for name, value in found.items():
        made.add_row(escaped(name), escaped(number(value)))
    console().print(made)


def fits(
    rows: Sequence[Mapping[str, Any]],
    criterion: str,
    n_restarts: object,
    most: int | None,
    elsewhere: str,
) -> None:
    """Print the best rows of a table of fits, best first, the chosen one marked.

    Args:
      rows: every fit.
      criterion: the criterion that orders them.
      n_restarts: the number of starts drawn for each.
      most: how many to show; None: all.
      elsewhere: where the other fits can be found.
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
        values = ["*" if chosen else "", row["K"], row["model"], row["parameters"], *numbers]
        style = "bold" if chosen else None
        made.add_row(*map(escaped, [*values, row["status"], agree]), style=style)
    console().print(made)
    if len(shown) < len(rows):
        say(f"and {len(rows) - len(shown)} more {elsewhere}; * is the one chosen")
    if any(map(_from_a_special_case, shown)):
        say("agree 0: reached from a special case alone, fewer components or a simpler model")


def _from_a_special_case(row: Mapping[str, Any]) -> bool:
    """Return whether none of the starts drawn for a fit reached its log-likelihood."""
    value = row["log_likelihood"]  # not finite where every start failed
    return row["agree"] == 0 and isinstance(value, float | int) and math.isfinite(value)


def score(row: Mapping[str, Any], criterion: str) -> float:
    """Return the criterion of a fit so that lower is better, infinite where it is unknown.

    >>> score({"held_out": -2.5}, "held_out"), score({"bic": "nan"}, "bic")
    (2.5, inf)
    """
    from jgmm.selection.criteria import CRITERIA

    value = row.get(criterion)
    if not isinstance(value, float | int) or math.isnan(value):
        return math.inf
    return CRITERIA[criterion].loss(value) if criterion in CRITERIA else value


def grid(rows: Sequence[Mapping[str, Any]], criterion: str, chosen: Mapping[str, Any]) -> bool:
    """Print the criterion of every fit: a row for each model, a column for each K.

    Returns:
      Whether the table was printed: false where the terminal is too narrow.
    """
    counts = list(dict.fromkeys(row["K"] for row in rows))
    names = list(dict.fromkeys(row["model"] for row in rows))
    title = f"{_head(criterion)} by model and K; * is the one chosen"
    heads = [str(count) for count in counts]
    made = table("model", *heads, title=title, right=heads)
    of = {(row["model"], row["K"]): row for row in rows}
    widths = [max(map(len, ["model", *names]))]
    for name in names:
        entries = []
        for count in counts:
            row = of[name, count]
            text = _value(row[criterion], criterion, 1)
            known = math.isfinite(score(row, criterion))
            entries.append(f"{text}{'*' if row is chosen else ''}" if known else row["status"])
        widths.append(max(map(len, entries)) * len(entries) + 2 * len(entries))
        made.add_row(escaped(name), *map(escaped, entries))
    is_narrow = widths[0] + max(widths[1:]) + 2 <= console().width
    if is_narrow:
        console().print(made)
    return is_narrow


def _head(key: str) -> str:
    """Return the title of a column: the label of a criterion, or the key in plain words."""
    from jgmm.selection.criteria import CRITERIA

    return CRITERIA[key].label if key in CRITERIA else key.replace("log_", "log-")


def _value(value: Any, key: str, digits: int = 2) -> str:
    """Format a criterion or log-likelihood; a mean per sample gets the decimals of its entry."""
    from jgmm.selection.criteria import CRITERIA

    if isinstance(value, float | int) and not isinstance(value, bool):
        is_mean = key in CRITERIA and CRITERIA[key].higher_is_better
        return f"{value:.{CRITERIA[key].decimals if is_mean else digits}f}"
    return str(value)


def mixture(name: str, found: Mapping[str, Any]) -> None:
    """Print the weights, means and standard deviations of a mixture, by component and column."""
    names, weights = found["columns"], found["weights"]
    title = f"{name}: {found['covariance']}, K={len(weights)}, D={len(names)}"
    heads = ("component", "weight", "column", "mean", "standard deviation")
    made = table(*heads, title=title, right=["weight", "mean", "standard deviation"])
    lines = list(parameter_lines(found))
    for k, d, mean, deviation in lines[:MOST_PARAMETERS]:
        first = (str(k), number(weights[k], 6)) if d == 0 else ("", "")
        made.add_row(*first, escaped(names[d]), number(mean, 6), number(deviation, 6))
    console().print(made)
    if len(lines) > MOST_PARAMETERS:
        say(f"and {len(lines) - MOST_PARAMETERS} more lines; --json shows all, with covariances")


def parameter_lines(found: Mapping[str, Any]) -> Iterable[tuple[int, int, float, float]]:
    """Yield component, column, mean and standard deviation."""
    for k, (mean, covariance) in enumerate(zip(found["means"], found["covariances"], strict=True)):
        for d, value in enumerate(mean):
            yield k, d, value, covariance[d][d] ** 0.5
