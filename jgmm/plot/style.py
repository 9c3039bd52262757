"""Common parts of all plots: colours, figures, legends, labels, and reading samples.

Component k has the same colour, marker and line style in every plot. The colours are those of Okabe
and Ito (2008), which stay distinct under the common colour-vision deficiencies. The markers differ
as well, for prints in grey.
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

from jgmm._core import budget
from jgmm._data.arrays import split_missing
from jgmm._data.validation import as_numbers, as_samples, column_names
from jgmm.mixture.conditioning import marginal
from jgmm.mixture.density import log_prob
from jgmm.mixture.mixture import HasMixture, Mixture, as_mixture

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
DARK, GREY, LIGHT_GREY = "#222222", "#6B7280", "#9CA3AF"


class Style(NamedTuple):
    """Colour, marker and line style of one component, class or method, in all plots."""

    color: str
    marker: str
    line: Any  # matplotlib's type for line styles is a list of literals


class LabelGroup(NamedTuple):
    """Samples with the same label.

    Attributes:
      number: index of their ``component_style``; negative is grey.
      members: whether each sample belongs to the group, (N,).
      name: for the legend.
    """

    number: int
    members: np.ndarray
    name: str


def component_style(index: int) -> Style:
    """Return colour, marker and line style of component ``index``.

    The first eight differ in colour and marker; later ones repeat colours with other markers. A
    negative index stands for samples of no component, in grey.

    >>> component_style(0)
    Style(color='#0072B2', marker='o', line='-')
    """
    if index < 0:
        return Style(LIGHT_GREY, ".", ":")
    turn, place = divmod(index, len(COLORS))
    return Style(COLORS[place], MARKERS[(place + turn) % len(MARKERS)], LINES[index % len(LINES)])


def new_figure(
    rows: int = 1, columns: int = 1, *, size: tuple[float | int, float | int] | None = None
) -> tuple[Figure, list[Axes]]:
    """Make a figure that pyplot does not manage, and its axes in reading order.

    Args:
      rows: number of rows of axes.
      columns: number of columns of axes.
      size: width and height in inches; by default 5 by 3.8 for each axes.

    >>> figure, (left, right) = new_figure(1, 2)
    """
    figure = Figure(figsize=size or (5 * columns, 3.8 * rows), layout=_layout())
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def png(figure: Figure, dpi: int = 150) -> bytes:
    """Render a figure as PNG; the same figure gives the same bytes, without date and version.

    Text is never rendered by LaTeX, even if a `matplotlibrc` in the current folder asks for it:
    names come from data, and LaTeX could read files.

    Args:
      figure: the figure; the setting ``usetex`` of its texts is switched off.
      dpi: dots per inch.

    >>> figure, _ = new_figure()
    >>> png(figure)[1:4]
    b'PNG'
    """
    buffer = io.BytesIO()
    for text in figure.findobj(Text):
        text.set_usetex(False)
    with rc_context({"text.usetex": False}):  # for the text that is made while drawing
        figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def _layout() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)  # inches around each axes


def pyplot_figure(size: tuple[float | int, float | int]) -> Figure:
    """Open a figure that pyplot manages, so that a notebook shows it."""
    import matplotlib.pyplot as plt  # not at the top: importing it chooses a display

    return plt.figure(figsize=size, layout=_layout())


def prepare_axes(ax: Axes | None, size: tuple[float | int, float | int] = (6.0, 4.2)) -> Axes:
    """Return the given axes, or those of a new pyplot figure, without upper and right border."""
    if ax is None:
        ax = pyplot_figure(size).subplots()
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)
    return ax


def wrap_text(text: object, width: int = 40, lines: int = 3) -> str:
    """Wrap text to ``lines`` of ``width`` characters, shorten it to fit, and escape "$" in it.

    Without the escape, matplotlib would read text between two "$" as a formula.

    >>> print(wrap_text("price in $ per kilogram", width=12))
    price in \\$
    per kilogram
    """
    wrapped = textwrap.wrap(str(text), width, max_lines=lines, placeholder=" …")
    return "\n".join(wrapped).replace("$", r"\$") or " "


def draw_legend(ax: Axes, handles: Sequence[Any], names: Iterable[object], limit: int = 16) -> None:
    """Draw a legend outside the axes on the right, where it covers no data."""
    texts = [wrap_text(name, width=28, lines=2) for name in names]
    # matplotlib drops names that begin with an underscore; a thin space in front keeps them.
    texts = [f"\N{THIN SPACE}{text}" if text.startswith("_") else text for text in texts]
    shown = list(handles)[:limit]
    if len(texts) > limit:
        shown.append(Line2D([], [], linestyle="none"))
        texts = [*texts[:limit], f"and {len(texts) - limit} more"]
    if shown:
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)}
        ax.legend(shown, texts, borderaxespad=0.0, frameon=False, fontsize="small", **place)


def write_note(ax: Axes, text: str) -> Axes:
    """Write a note in the middle of empty axes, such as the reason why nothing is drawn."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=GREY)
    return ax


def read_points(
    x: Any, dims: Sequence[int], one_column: bool = False
) -> tuple[np.ndarray, list[str]]:
    """Return the chosen columns of checked samples in double precision, and their names.

    Args:
      x: samples in rows, (N, D), an array or a data frame.
      dims: the columns.
      one_column: also accept a vector or a series, (N,), as samples with one column.

    Raises:
      DataError: samples that are not finite numbers; the text names row and column.
      ValueError: a column that does not exist.
    """
    names, array = column_names(x), as_numbers(x, "x")
    if one_column and np.ndim(array) == 1:
        x = array = np.asarray(array)[:, None]
    as_samples(x)  # raises for NaN, text and wrong shapes
    points = np.asarray(array, dtype=np.float64)
    _check_dims(dims, points.shape[1])
    return points[:, list(dims)], [names[d] for d in dims]


def finite_marginal(mixture: Mixture | HasMixture, dims: Sequence[int]) -> Mixture:
    """Return the marginal mixture of the chosen columns, after checking that it is finite."""
    mixture = as_mixture(mixture)
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
    """Compute log p at points (M, D), (M,); the result is in double precision.

    Points are processed in batches of one size, the last padded, so that one compiled program
    serves every plot.
    """
    size = budget.PLOT_BATCH_POINTS
    n_batches = -(-len(points) // size)
    padded = np.resize(points, (n_batches * size, points.shape[1])).astype(mixture.means.dtype)
    parts = [log_prob(mixture, batch) for batch in np.split(padded, n_batches)]
    return np.concatenate(parts).astype(np.float64)[: len(points)]


def column_labels(
    own: Sequence[str], columns: Sequence[str] | None, dims: Sequence[int]
) -> list[str]:
    """Return the names of the chosen columns.

    Args:
      own: names of the chosen columns in the samples.
      columns: names that the user gives for all D columns, or None for those of the samples.
      dims: the chosen columns.
    """
    if columns is None:
        return list(own)
    if len(columns) <= max(dims):
        raise ValueError(f"{len(columns)} column names for dims={tuple(dims)}; name all columns.")
    return [columns[d] for d in dims]


def label_axes(ax: Axes, names: Sequence[str]) -> None:
    """Label the horizontal and the vertical axis."""
    ax.set_xlabel(wrap_text(names[0]))
    ax.set_ylabel(wrap_text(names[1]))


def group_by_label(labels: Any, n: int, names: Sequence[str] | None = None) -> list[LabelGroup]:
    """Group samples by their labels, in sorted order; without labels there are no groups.

    An integer label is the index of the style, so that labels and components match. Other labels
    are numbered in sorted order. The name of a group is ``names[index]``, or else its label.
    """
    if labels is None:
        return []
    values, missing = split_missing(labels)
    values = np.asarray(values)
    if missing.any():
        raise ValueError(f"the label in row {int(np.argmax(missing.ravel()))} is missing.")
    if values.shape != (n,):
        raise ValueError(f"labels must be one per sample, shape ({n},); they are {values.shape}.")
    integers = np.issubdtype(values.dtype, np.integer) or values.dtype == bool
    groups = []
    for place, value in enumerate(np.unique(values)):
        index = int(value) if integers else place
        name = "none" if index < 0 else str(value)
        if names is not None and 0 <= index < len(names):
            name = str(names[index])
        groups.append(LabelGroup(index, values == value, name))
    return groups


def draw_points(ax: Axes, points: np.ndarray, groups: Sequence[LabelGroup] = ()) -> None:
    """Draw samples (N, 2), in grey or in the styles of their groups."""
    style: dict[str, Any] = {
        "s": marker_area(len(points)),
        "alpha": 0.8 if len(points) < 3000 else 0.4,
        "linewidths": 0,
        "rasterized": len(points) > 5000,  # a PDF of a million circles is too large
    }
    if not groups:
        ax.scatter(points[:, 0], points[:, 1], color=GREY, **style)
    for number, members, _ in groups:
        color, marker, _line = component_style(number)
        ax.scatter(points[members, 0], points[members, 1], color=color, marker=marker, **style)


def draw_group_legend(ax: Axes, groups: Sequence[LabelGroup]) -> None:
    """Draw a legend with the names of the groups, to the right of the axes."""
    draw_legend(ax, [legend_marker(each.number) for each in groups], [each.name for each in groups])


def legend_marker(index: int) -> Line2D:
    """Return the marker of component ``index`` for a legend."""
    color, marker, _ = component_style(index)
    return Line2D([], [], color=color, marker=marker, linestyle="none", markersize=5)


def marker_area(n: int) -> float:
    """Return the area of one marker among n, in points²; it decreases with n."""
    return float(np.clip(9000 / max(n, 1), 2.0, 28.0))
