"""Write the report of a run as one self-contained HTML page, without scripts.

The page loads nothing from other files or the network. Every text from data or config is escaped
by ``escaped``. The style sheet is ``report.css`` in the same folder, copied into the page.
"""

from __future__ import annotations

import base64
import datetime
import html
import importlib.resources
import math
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jgmm.workbench.runs.storage import Figure, MixtureTable, RunRecord, Table

MAX_ROWS = 200
"""The most rows that a table shows; it says where the others are."""

# The browser loads nothing from elsewhere, even if a text was not escaped by mistake.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_PNG = b"\x89PNG\r\n\x1a\n"
_PIXELS_PER_CSS_PIXEL = 150 / 96  # plot.png draws 150 dots an inch, a browser 96
_THIN = "\N{NARROW NO-BREAK SPACE}"
_MINUS = "\N{MINUS SIGN}"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def render(record: RunRecord) -> str:
    """Write a run as one self-contained HTML page.

    The page needs no other file and no network, fits screens from 400 pixels up (wide tables
    scroll inside their own box), follows the reader's choice of light or dark colours, and can be
    printed.

    Args:
      record: the settings and results of the run, in plain Python values.

    Returns:
      The page, to be stored as UTF-8.

    Raises:
      ValueError: a figure that is not a PNG file.
    """
    sections = [
        _section("Figures", _pictures(record.figures)),
        _section("Tables", "\n".join(_titled_table(table) for table in record.tables)),
        _section("Parameters", "\n".join(_parameters(each) for each in record.mixtures)),
        _section("Config", _box("pre", escaped(record.config_toml), "config")),
        _section("Environment", _facts(record.environment)),
    ]
    style = (
        importlib.resources.files("jgmm.workbench.runs").joinpath("report.css").read_text("utf-8")
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escaped(_POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escaped(record.name)}</title>
<style>
{style}</style>
</head>
<body>
{_header(record)}
<main>
{_notes(record.notes)}{"".join(sections)}</main>
</body>
</html>
"""


def escaped(value: object) -> str:
    """Escape text so that it is safe between tags and in attributes, and can be stored as UTF-8.

    >>> escaped('<a href="x">')
    '&lt;a href=&quot;x&quot;&gt;'
    """
    # Half surrogates come from file names that are not UTF-8. HTML has no control characters.
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    visible = "".join(c if c >= " " or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return html.escape(visible, quote=True)


def format_value(value: Any, decimals: int | None = None) -> str:
    """Format a value for reading; the text is not yet escaped.

    Args:
      value: a number, text, truth value or None.
      decimals: digits after the point of a float; by default six significant digits.

    Very large and very small numbers are written with a power of ten. The digits of whole numbers
    are grouped from five digits on, so that years are not.

    >>> format_value(-1130.2639), format_value(273280), format_value(1982), format_value(None)
    ('−1130.26', '273\u202f280', '1982', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return _grouped(f"{value:d}")
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else (_MINUS if value < 0 else "") + "∞"
    if decimals is not None:
        return _grouped(f"{value:.{decimals}f}")
    if value and not 1e-4 <= abs(value) < 1e7:
        digits, power = f"{value:.4e}".split("e")
        digits = digits.rstrip("0").rstrip(".")
        return f"{_grouped(digits)} × 10{str(int(power)).translate(_SUPERSCRIPT)}"
    text = f"{value:.{max(0, 5 - _magnitude(value))}f}"
    return _grouped(text.rstrip("0").rstrip(".") if "." in text else text)


def _grouped(digits: str) -> str:
    """Group digits by three if the whole part has five or more, and use a proper minus sign."""
    sign, digits = (_MINUS, digits[1:]) if digits.startswith("-") else ("", digits)
    whole, point, rest = digits.partition(".")
    if len(whole) >= 5:
        whole = f"{int(whole):_d}".replace("_", _THIN)
    return sign + whole + point + rest


def _magnitude(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 0


def format_seconds(seconds: float | int) -> str:
    """Format a duration in seconds, minutes or hours.

    >>> format_seconds(0.25), format_seconds(83.2), format_seconds(7500)
    ('0.25 s', '1 min 23 s', '2 h 5 min')
    """
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _column_format(values: Iterable[Any]) -> Callable[[Any], str]:
    """Return a format with one number of decimals for a column, so that decimal points align.

    The largest number gets six significant digits, without those that are zero in all numbers of
    the column. If the sizes of the numbers differ too much, each is formatted by itself.
    """
    floats = [v for v in values if isinstance(v, float) and math.isfinite(v) and v]
    if not floats:
        return format_value
    largest = max(map(abs, floats))
    decimals = 5 - _magnitude(largest)
    smallest = min(map(abs, floats))
    if not 0 <= decimals <= 8 or smallest < 10.0 ** (1 - decimals):
        return format_value
    while decimals > 0 and all(round(v, decimals) == round(v, decimals - 1) for v in floats):
        decimals -= 1
    return lambda value: format_value(value, decimals)


def _header(record: RunRecord) -> str:
    about = [escaped(record.status), _time(record.started), format_seconds(record.seconds)]
    return f"""<header>
<p class="study">{escaped(record.study)}</p>
<h1>{escaped(record.name)}</h1>
<p class="about">{"".join(f"<span>{part}</span>" for part in about)}</p>
{_tiles(record.metrics)}</header>"""


def _time(started: str) -> str:
    try:
        moment = datetime.datetime.fromisoformat(started)
    except ValueError:
        return escaped(started)
    shown = f"{moment.day} {moment:%B %Y, %H:%M:%S %Z}".strip()
    return f'<time datetime="{escaped(started)}">{escaped(shown)}</time>'


def _tiles(metrics: dict[str, float | int | str]) -> str:
    if not metrics:
        return ""
    tiles = []
    for name, value in metrics.items():
        kind = "words" if isinstance(value, str) else "figures"
        term, text = escaped(name.replace("_", " ")), escaped(format_value(value))
        tiles.append(f'<div class="tile"><dt>{term}</dt><dd class="{kind}">{text}</dd></div>\n')
    return f'<dl class="tiles">\n{"".join(tiles)}</dl>\n'


def _notes(notes: Sequence[str]) -> str:
    return "".join(f'<p class="note">{escaped(note)}</p>\n' for note in notes)


def _section(title: str, content: str) -> str:
    if not content:
        return ""
    return f'<section id="{title.lower()}">\n<h2>{title}</h2>\n{content}\n</section>\n'


def _box(tag: str, content: str, label: str) -> str:
    """Put content into a box that scrolls by itself, with a label for screen readers."""
    attributes = f'class="scroll" tabindex="0" role="region" aria-label="{escaped(label)}"'
    return f"<{tag} {attributes}>{content}</{tag}>"


def _title(name: str, caption: str) -> str:
    return f"<figcaption><b>{escaped(name)}</b> {escaped(caption)}</figcaption>"


def _pictures(figures: Sequence[Figure]) -> str:
    if not figures:
        return ""
    pictures = (_picture(figure) for figure in figures)
    return f'<div class="pictures">\n{"".join(pictures)}</div>'


def _picture(figure: Figure) -> str:
    if figure.png[:8] != _PNG or len(figure.png) < 24:
        raise ValueError(f"the figure {figure.name!r} is not a PNG file.")
    pixels = struct.unpack(">II", figure.png[16:24])
    width, height = (max(1, round(side / _PIXELS_PER_CSS_PIXEL)) for side in pixels)
    data = base64.b64encode(figure.png).decode("ascii")
    kind = ' class="wide"' if width > 720 else ""
    return (
        f'<figure{kind}><img src="data:image/png;base64,{data}" width="{width}" '
        f'height="{height}" alt="{escaped(figure.caption or figure.name)}">\n'
        f"{_title(figure.name, figure.caption)}</figure>\n"
    )


def _titled_table(table: Table) -> str:
    if not table.rows:
        return f"<figure>{_title(table.name, table.caption)}<p>No rows.</p></figure>"
    left_out = len(table.rows) - MAX_ROWS
    more = f"<p>{left_out} more rows are in tables/{escaped(table.name)}.csv.</p>"
    return (
        f"<figure>{_title(table.name, table.caption)}\n"
        f"{_box('div', _rows(table.rows[:MAX_ROWS]), table.name)}"
        f"{more if left_out > 0 else ''}</figure>"
    )


def _rows(rows: Sequence[dict[str, Any]]) -> str:
    """Write a table with the columns of all rows, in the order in which they first appear."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    numeric = {c: all(_is_number(row.get(c)) for row in rows) for c in columns}
    formats = {c: _column_format(row.get(c) for row in rows) for c in columns}
    head = "".join(
        f'<th scope="col"{_class(numeric[c])}>{escaped(c.replace("_", " "))}</th>' for c in columns
    )
    body = [
        "".join(f"<td{_class(numeric[c])}>{escaped(formats[c](row.get(c)))}</td>" for c in columns)
        for row in rows
    ]
    return _table_tag(f"<tr>{head}</tr>", body)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _class(numeric: bool) -> str:
    return ' class="number"' if numeric else ""


def _table_tag(head: str, body: Iterable[str], kind: str = "single") -> str:
    rows = "\n".join(f"<tr>{row}</tr>" for row in body)
    return f'<table>\n<thead class="{kind}">{head}</thead>\n<tbody>\n{rows}\n</tbody>\n</table>'


def _parameters(mixture: MixtureTable) -> str:
    """Show weights, means and standard deviations; the covariances are folded away below.

    The rows of the table are the components or the features, whichever are more.
    """
    weights = [f"{100 * weight:.2f} %" for weight in mixture.weights]
    components = [f"component {k}" for k in range(len(weights))]
    means = mixture.means
    deviations = [
        [math.sqrt(row[d]) if row[d] >= 0 else math.nan for d, row in enumerate(covariance)]
        for covariance in mixture.covariances
    ]
    if len(components) >= len(mixture.columns):
        rows, groups, lead = components, mixture.columns, weights
    else:
        rows, lead = mixture.columns, None
        groups = [f"{each} ({share})" for each, share in zip(components, weights, strict=True)]
        means, deviations = _transposed(means), _transposed(deviations)
    table = _grouped_table(rows, lead, groups, means, deviations)
    title = _title(mixture.name, "Weights, means and standard deviations.")
    covariances = _covariances(mixture, components)
    return f"<figure>{title}\n{_box('div', table, mixture.name)}{covariances}</figure>"


def _transposed(matrix: list[list[float]]) -> list[list[float]]:
    return [list(column) for column in zip(*matrix, strict=True)]


def _grouped_table(
    rows: Sequence[str],
    lead: Sequence[str] | None,
    groups: Sequence[str],
    means: list[list[float]],
    deviations: list[list[float]],
) -> str:
    """Write named rows, and for each group a column of means and one of standard deviations."""
    corner = '<th rowspan="2"></th>' + ('<th rowspan="2">weight</th>' if lead else "")
    top = "".join(
        f'<th colspan="2" scope="colgroup" class="group">{escaped(g)}</th>' for g in groups
    )
    under = '<th class="number">mean</th><th class="number">sd</th>' * len(groups)
    formats = [
        (_column_format(m), _column_format(s))
        for m, s in zip(_transposed(means), _transposed(deviations), strict=True)
    ]
    body = []
    for i, name in enumerate(rows):
        entries = [f'<th scope="row">{escaped(name)}</th>']
        if lead:
            entries.append(f'<td class="number">{lead[i]}</td>')
        for (of_mean, of_deviation), m, s in zip(formats, means[i], deviations[i], strict=True):
            entries.append(f'<td class="number">{of_mean(m)}</td>')
            entries.append(f'<td class="number">{of_deviation(s)}</td>')
        body.append("".join(entries))
    return _table_tag(f"<tr>{corner}{top}</tr><tr>{under}</tr>", body, "double")


def _covariances(mixture: MixtureTable, components: Sequence[str]) -> str:
    """Show the covariance matrices, or nothing if they are diagonal: deviations are shown above."""
    diagonal = all(
        value == 0
        for covariance in mixture.covariances
        for i, row in enumerate(covariance)
        for j, value in enumerate(row)
        if i != j
    )
    if diagonal:
        return ""
    names = mixture.columns
    matrices = []
    for component, covariance in zip(components, mixture.covariances, strict=True):
        head = "<th></th>" + "".join(f'<th class="number">{escaped(name)}</th>' for name in names)
        body = [
            f'<th scope="row">{escaped(name)}</th>'
            + "".join(f'<td class="number">{escaped(format_value(value))}</td>' for value in row)
            for name, row in zip(names, covariance, strict=True)
        ]
        box = _box("div", _table_tag(f"<tr>{head}</tr>", body), f"covariance of {component}")
        matrices.append(f"<figure>{_title(component, '')}{box}</figure>\n")
    inner = "".join(matrices)
    return f'<details><summary>Covariances</summary><div class="matrices">{inner}</div></details>'


def _facts(environment: dict[str, Any]) -> str:
    if not environment:
        return ""
    body = [
        f'<th scope="row">{escaped(name.replace("_", " "))}</th><td>{escaped(value)}</td>'
        for name, value in environment.items()
    ]
    rows = "\n".join(f"<tr>{row}</tr>" for row in body)
    table = f'<table class="facts">\n<tbody>\n{rows}\n</tbody>\n</table>'
    return _box("div", table, "environment")
