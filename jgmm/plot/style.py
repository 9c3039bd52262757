"""What every picture shares: colours, figures, legends, and reading samples for drawing.

Component k has the same colour, marker and line in every picture. The colours are those of Okabe
and Ito (2008), which stay distinct under the common colour-vision deficiencies; the markers differ
as well, for print in grey.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.text import Text

from jgmm._data.dataframes import as_array
from jgmm._data.validation import as_samples, column_names
from jgmm.mixture.conditioning import marginal
from jgmm.mixture.density import log_prob
from jgmm.mixture.mixture import Mixture

COLORS = (
    "#0072B2",  # blue
    "#D55E00",  # vermilion
    "#009E73",  # green
    "#CC79A7",  # purple
    "#E69F00",  # orange
    "#56B4E9",  # sky blue
    "#000000",
    "#F0E442",  # yellow: last, being faint on white
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES = ("-", "--", "-.", ":")
BATCH = 1 << 15  # points whose density is computed at once
INK, POINTS, GUIDE = "#222222", "#6B7280", "#9CA3AF"


class Style(NamedTuple):
    """How one component, class or method is drawn wherever it appears."""

    color: str
    marker: str
    line: Any  # matplotlib's type for line styles is a list of literals


class Class(NamedTuple):
    """Samples that share a label: the number of their look, which they are (N,), their name."""

    look: int
    members: np.ndarray
    name: str


def look(index: int) -> Style:
    """Colour, marker and line of component ``index``; negative means "none of them", in grey.

    The first eight differ in colour and marker; later ones reuse colours with other markers.

    >>> look(0)
    Look(color='#0072B2', marker='o', line='-')
    """
    if index < 0:
        return Style(GUIDE, ".", ":")
    turn, place = divmod(index, len(COLORS))
    return Style(COLORS[place], MARKERS[(place + turn) % len(MARKERS)], LINES[index % len(LINES)])


def new_figure(
    rows: int = 1, columns: int = 1, *, size: tuple[float | int, float | int] | None = None
) -> tuple[Figure, list[Axes]]:
    """Make a figure that pyplot does not know about, and its axes in reading order.

    Args:
      rows: rows of axes.
      columns: columns of axes.
      size: width and height in inches; the default gives each axes 5 by 3.8.

    >>> figure, (left, right) = new_figure(1, 2)
    """
    figure = Figure(figsize=size or (5 * columns, 3.8 * rows), layout=_layout())
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def png(figure: Figure, dpi: int = 150) -> bytes:
    """Render a figure as PNG. The same figure gives the same bytes: no date, no version inside.

    Names come from data, so no text is ever LaTeX, which could read files; a `matplotlibrc` in the
    current folder may have asked for it.
    """
    buffer = io.BytesIO()
    for text in figure.findobj(Text):
        text.set_usetex(False)
    with rc_context({"text.usetex": False}):  # for the text that drawing makes
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def _layout() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)  # inches around each axes


def pyplot_figure(size: tuple[float | int, float | int]) -> Figure:
    """Open a figure that pyplot manages, so that a notebook shows it."""
    import matplotlib.pyplot as plt  # here, because importing it chooses a screen

    return plt.figure(figsize=size, layout=_layout())


def prepare(ax: Axes | None, size: tuple[float | int, float | int] = (6.0, 4.2)) -> Axes:
    """The given axes, or those of a new pyplot figure, without the clutter."""
    if ax is None:
        ax = pyplot_figure(size).subplots()
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)
    return ax


def plain(text: object, width: int = 40, lines: int = 3) -> str:
    """Text as it is, not as matplotlib's formulas, and no longer than fits."""
    wrapped = textwrap.wrap(str(text), width, max_lines=lines, placeholder=" …")
    return "\n".join(wrapped).replace("$", r"\$") or " "


def legend(ax: Axes, handles: Sequence[Any], names: Iterable[object], limit: int = 16) -> None:
    """Draw a legend outside the axes on the right, where it covers no data."""
    texts = [plain(name, width=28, lines=2) for name in names]
    # matplotlib drops names that begin with an underscore; a thin space in front keeps them.
    texts = [f"\N{THIN SPACE}{text}" if text.startswith("_") else text for text in texts]
    shown = list(handles)[:limit]
    if len(texts) > limit:
        shown.append(Line2D([], [], linestyle="none"))
        texts = [*texts[:limit], f"and {len(texts) - limit} more"]
    if shown:
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)}
        ax.legend(shown, texts, borderaxespad=0.0, frameon=False, fontsize="small", **place)


def say(ax: Axes, text: str) -> Axes:
    """Write in the middle of the axes why there is nothing to see."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=POINTS)
    return ax


def points_of(
    x: Any, dims: Sequence[int], one_column: bool = False
) -> tuple[np.ndarray, list[str]]:
    """The chosen columns of the samples in double precision, and their names.

    With ``one_column`` a vector or a series, (N,), stands for its one column.
    """
    names, array = column_names(x), as_array(x)
    if one_column and np.ndim(array) == 1:
        x = array = np.asarray(array)[:, None]
    as_samples(x)  # complains about NaN, text and wrong shapes, naming row and column
    points = np.asarray(array, dtype=np.float64)
    _check_dims(dims, points.shape[1])
    return points[:, list(dims)], [names[d] for d in dims]


def marginal_of(mixture: Mixture, dims: Sequence[int]) -> Mixture:
    """The mixture of the chosen columns, known to be finite."""
    _check_dims(dims, mixture.n_features)
    parts = (mixture.weights, mixture.means, mixture.variances)
    if not all(np.isfinite(np.asarray(part)).all() for part in parts):
        raise ValueError("the mixture has parameters that are NaN or infinite; see result.status.")
    return mixture if list(dims) == list(range(mixture.n_features)) else marginal(mixture, dims)


def _check_dims(dims: Sequence[int], n_features: int) -> None:
    if any(not 0 <= d < n_features for d in dims):
        raise ValueError(
            f"dims={tuple(dims)} asks for a column that is not there: there are {n_features}, "
            "counted from 0. One column alone is drawn by density_1d."
        )


def log_density_at(mixture: Mixture, points: np.ndarray) -> np.ndarray:
    """log p at points (M, D), in double precision whatever the mixture's.

    In batches of one size, the last filled up, so that one compiled program serves every picture.
    """
    n_batches = -(-len(points) // BATCH)
    filled = np.resize(points, (n_batches * BATCH, points.shape[1])).astype(mixture.means.dtype)
    found = [log_prob(mixture, batch) for batch in np.split(filled, n_batches)]
    return np.concatenate(found).astype(np.float64)[: len(points)]


def named(found: Sequence[str], columns: Sequence[str] | None, dims: Sequence[int]) -> list[str]:
    """Names of the chosen columns: those given for all columns, or those found in the samples."""
    if columns is None:
        return list(found)
    if len(columns) <= max(dims):
        raise ValueError(f"{len(columns)} column names for dims={tuple(dims)}; name all columns.")
    return [columns[d] for d in dims]


def name_axes(ax: Axes, names: Sequence[str]) -> None:
    """Label the horizontal and the vertical axis."""
    ax.set_xlabel(plain(names[0]))
    ax.set_ylabel(plain(names[1]))


def classes_of(labels: Any, n: int, names: Sequence[str] | None = None) -> list[Class]:
    """Sort samples into classes, in the order of their labels; None means no classes.

    An integer label is the index of the look, so that labels and components match; other labels
    are numbered in sorted order. ``names[index]`` names a class, or the label does.
    """
    if labels is None:
        return []
    values = np.asarray(labels)
    if values.shape != (n,):
        raise ValueError(f"labels must be one per sample, shape ({n},); they are {values.shape}.")
    integers = np.issubdtype(values.dtype, np.integer) or values.dtype == bool
    classes = []
    for place, value in enumerate(np.unique(values)):
        index = int(value) if integers else place
        name = "none" if index < 0 else str(value)
        if names is not None and 0 <= index < len(names):
            name = str(names[index])
        classes.append(Class(index, values == value, name))
    return classes


def draw_points(ax: Axes, points: np.ndarray, classes: Sequence[Class] = ()) -> None:
    """Draw samples (N, 2), in grey or with the look of their classes."""
    style: dict[str, Any] = {
        "s": marker_area(len(points)),
        "alpha": 0.8 if len(points) < 3000 else 0.4,
        "linewidths": 0,
        "rasterized": len(points) > 5000,  # a PDF of a million circles is no use
    }
    if not classes:
        ax.scatter(points[:, 0], points[:, 1], color=POINTS, **style)
    for number, members, _ in classes:
        color, marker, _line = look(number)
        ax.scatter(points[members, 0], points[members, 1], color=color, marker=marker, **style)


def class_legend(ax: Axes, classes: Sequence[Class]) -> None:
    """Name the classes beside the axes."""
    legend(ax, [dot(each.look) for each in classes], [each.name for each in classes])


def dot(index: int) -> Line2D:
    """A legend's marker for component ``index``."""
    color, marker, _ = look(index)
    return Line2D([], [], color=color, marker=marker, linestyle="none", markersize=5)


def marker_area(n: int) -> float:
    """Area in points² of one marker among n: readable for few, not a blot for many."""
    return float(np.clip(9000 / max(n, 1), 2.0, 28.0))
