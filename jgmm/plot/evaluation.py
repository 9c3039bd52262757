"""Plots of how good results are: confusion of classes, errors by sample size, and intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from jgmm.plot import style
from jgmm.plot.results import field_of


def confusion(
    matrix: npt.ArrayLike, names: Sequence[str] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw a confusion matrix: counts, shaded by their fraction of the true class.

    Args:
      matrix: counts, (C, C), true classes in rows and predicted ones in columns.
      names: names of the C classes.
      ax: where to draw.

    A class without samples has an empty row. With more than 20 classes only the shading is drawn.

    Raises:
      ValueError: a matrix that is not square, or another number of names.

    >>> import jgmm
    >>> _, (ax,) = jgmm.plot.new_figure()
    >>> ax = jgmm.plot.confusion([[9, 1], [0, 5]], ["cat", "dog"], ax)
    >>> [text.get_text() for text in ax.texts]
    ['9\\n90 %', '1\\n10 %', '5\\n100 %']
    """
    counts = np.asarray(matrix)
    n = len(counts)
    texts = (
        [str(k) for k in range(n)]
        if names is None
        else [style.wrap_text(name, 16, 2) for name in names]
    )
    if counts.shape != (n, n) or len(texts) != n:
        raise ValueError(
            f"the matrix must be square with a name per class; it is {counts.shape}, "
            f"with {len(texts)} names."
        )
    ax = style.prepare_axes(ax, (4.8, 4.4))
    totals = counts.sum(axis=1, keepdims=True)
    fraction = np.divide(counts, totals, out=np.zeros((n, n)), where=totals > 0)
    ax.imshow(fraction, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(n, n) if n <= 20 else ():
        if counts[i, j]:
            ax.text(
                j,
                i,
                f"{counts[i, j]:g}" + (f"\n{100 * fraction[i, j]:.0f} %" if n <= 8 else ""),
                ha="center",
                va="center",
                fontsize="medium" if n <= 5 else "x-small",
                color="white" if fraction[i, j] > 0.65 else style.DARK,
            )
    ax.set_xticks(range(n), texts, rotation=0 if n <= 4 else 90)
    ax.set_yticks(range(n), texts)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    return ax


def errors(
    n: Sequence[int] | npt.ArrayLike,
    by_parameter: Mapping[str, npt.ArrayLike],
    ax: Axes | None = None,
    *,
    ylabel: str = "error",
) -> Axes:
    """Draw estimation errors against the sample size, log-log, with a reference line ∝ 1/√N.

    An estimator that is efficient in the usual sense has errors parallel to the reference line.

    Args:
      n: sample sizes, (S,).
      by_parameter: errors by name of the parameter, (S,), or (S, repetitions), drawn as the median
        and the band from the first to the third quartile. Zeros cannot be drawn.
      ax: where to draw.
      ylabel: label of the vertical axis.

    Raises:
      ValueError: another number of errors than of sample sizes.

    >>> import jgmm
    >>> _, (ax,) = jgmm.plot.new_figure()
    >>> jgmm.plot.errors([100, 400], {"means": [0.1, 0.05]}, ax).get_xscale()
    'log'
    """
    sizes = np.asarray(n, np.float64)
    ax = style.prepare_axes(ax)
    ax.set_xlabel("samples N")
    ax.set_ylabel(style.wrap_text(ylabel))
    handles, levels = [], []
    for i, (name, values) in enumerate(by_parameter.items()):
        low, middle, high = _quartiles(np.asarray(values, np.float64), len(sizes), name)
        color, marker, line = style.component_style(i)
        handles += ax.plot(
            sizes, middle, color=color, marker=marker, linestyle=line, markersize=4.5
        )
        ax.fill_between(sizes, low, high, color=color, alpha=0.15, linewidth=0)
        levels.append(np.log(middle * np.sqrt(sizes)))
    finite = np.concatenate(levels)[np.isfinite(np.concatenate(levels))] if levels else np.zeros(0)
    if not finite.size:
        return style.write_note(ax, "no error above zero")
    reference = np.exp(finite.mean()) / np.sqrt(sizes)  # through the middle of all errors
    handles += ax.plot(sizes, reference, ":", color=style.GREY, zorder=1)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.grid(color=style.LIGHT_GREY, alpha=0.3)
    style.draw_legend(ax, handles, [*by_parameter, "∝ 1/√N"])
    return ax


def _quartiles(values: np.ndarray, n_sizes: int, name: str) -> np.ndarray:
    """Return the quartiles of the finite errors at each sample size, (3, S).

    Quartiles that are not above zero are NaN, because a logarithmic axis cannot show them.
    """
    if len(values) != n_sizes:
        raise ValueError(f"{name!r} has {len(values)} errors for {n_sizes} sample sizes.")
    rows = [row[np.isfinite(row)] for row in values.reshape(n_sizes, -1)]
    empty = np.full(3, np.nan)
    quartiles = [np.quantile(row, [0.25, 0.5, 0.75]) if row.size else empty for row in rows]
    return np.where(np.array(quartiles) > 0, quartiles, np.nan).T


def intervals(
    rows: Iterable[Mapping[str, Any]],
    ax: Axes | None = None,
    *,
    xlabel: str = "mean and 95 % interval",
    reference: float | int | None = None,
) -> Axes:
    """Draw means with their intervals, one row of the plot per scenario, one colour per method.

    Args:
      rows: mappings with ``scenario``, ``method``, ``mean``, ``low`` and ``high``, in the order in
        which they are drawn. A mean that is not finite leaves its place empty.
      ax: where to draw.
      xlabel: label of the horizontal axis.
      reference: a value to mark with a dashed line, such as zero difference or the true value.

    Raises:
      ValueError: a row without one of the five values, or an interval that does not contain its
        mean.

    >>> import jgmm
    >>> _, (ax,) = jgmm.plot.new_figure()
    >>> row = {"scenario": "overlap", "method": "EM", "mean": 0.5, "low": 0.4, "high": 0.7}
    >>> ax = jgmm.plot.intervals([row], ax)
    >>> ax.get_yticklabels()[0].get_text()
    'overlap'
    """
    entries = list(rows)
    scenarios = list(dict.fromkeys(str(field_of(row, "scenario")) for row in entries))
    methods = list(dict.fromkeys(str(field_of(row, "method")) for row in entries))
    ax = style.prepare_axes(
        ax, (6.5, 1.2 + 0.35 * max(1, len(scenarios)) * (1 + 0.5 * len(methods)))
    )
    for row in entries:
        mean, low, high = (float(field_of(row, name)) for name in ("mean", "low", "high"))
        if not np.isfinite(mean):
            continue
        if not low <= mean <= high:
            raise ValueError(f"an interval must hold its mean: {dict(row)!r}")
        place = methods.index(str(row["method"]))
        color, marker, _ = style.component_style(place)
        height = scenarios.index(str(field_of(row, "scenario"))) + 0.6 * (
            (place + 0.5) / len(methods) - 0.5
        )
        ax.errorbar(
            mean,
            height,
            xerr=[[mean - low], [high - mean]],
            color=color,
            marker=marker,
            markersize=5,
            capsize=2.5,
            linewidth=1.5,
        )
    if reference is not None:
        ax.axvline(reference, color=style.DARK, linestyle="--", linewidth=1, zorder=1)
    ax.set_yticks(range(len(scenarios)), [style.wrap_text(name, 28, 2) for name in scenarios])
    ax.set_ylim(len(scenarios) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(style.wrap_text(xlabel, 60))
    ax.grid(axis="x", color=style.LIGHT_GREY, alpha=0.3)
    style.draw_legend(ax, [style.legend_marker(i) for i in range(len(methods))], methods)
    return ax
