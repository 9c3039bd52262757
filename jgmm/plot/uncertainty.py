"""Plots of the uncertainty of a fit: responsibilities, intervals, refits, likelihood ratios."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from jgmm.mixture import gaussian
from jgmm.plot.style import (
    GREY,
    LIGHT_GREY,
    column_labels,
    component_style,
    draw_legend,
    draw_points,
    finite_marginal,
    label_axes,
    legend_marker,
    marker_area,
    prepare_axes,
    pyplot_figure,
    read_points,
    wrap_text,
)
from jgmm.selection.likelihood_ratio import RatioTest
from jgmm.uncertainty.bootstrap import Bootstrap
from jgmm.uncertainty.intervals import Uncertainty

MAX_COLUMNS = 6
MAX_REFITS = 100
ROOT_TICKS = (0, *(digit * 10**power for power in range(9) for digit in (1, 3)))


def responsibilities(
    probabilities: npt.ArrayLike, ax: Axes | None = None, *, names: Sequence[str] | None = None
) -> Axes:
    """Draw the responsibilities of every sample as a stacked column.

    Samples with the same most probable component are next to one another, in the order of
    decreasing probability. Steep edges mean that the components are clearly separated; slopes are
    samples that may belong to two components.

    Args:
      probabilities: responsibilities p(z = k | x), (N, K), rows summing to one.
      ax: where to draw.
      names: names of the K components, for the legend.

    Raises:
      ValueError: not an array (N, K) of finite numbers, or another number of names.

    >>> import jgmm
    >>> _, (ax,) = jgmm.plot.new_figure()
    >>> ax = jgmm.plot.responsibilities([[0.9, 0.1], [0.2, 0.8], [1.0, 0.0]], ax)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['0: 2', '1: 1']
    """
    shares = np.asarray(probabilities, np.float64)
    if shares.ndim != 2 or not shares.size or not np.isfinite(shares).all():
        raise ValueError(f"responsibilities must be finite, (N, K); their shape is {shares.shape}.")
    n, k = shares.shape
    texts = [str(i) for i in range(k)] if names is None else list(names)
    if len(texts) != k:
        raise ValueError(f"{len(texts)} names for {k} components.")
    ax = prepare_axes(ax, (6.5, 3.0))
    labels = shares.argmax(axis=1)
    stacked = np.cumsum(shares[np.lexsort((-shares.max(axis=1), labels))], axis=1)
    stacked = np.concatenate([np.zeros((n, 1)), stacked], axis=1)
    across = np.arange(n + 1)
    for i in range(k):  # each column as wide as one sample
        low, high = (np.append(stacked[:, j], stacked[-1, j]) for j in (i, i + 1))
        ax.fill_between(across, low, high, color=component_style(i).color, step="post", linewidth=0)
    counts = np.bincount(labels, minlength=k)
    for place in np.cumsum(counts)[:-1]:
        ax.axvline(place, color="white", linewidth=1.5)
    ax.set_xlim(0, n)
    ax.set_ylim(0, 1)
    ax.set_xlabel("samples, by most probable component")
    ax.set_ylabel("responsibility")
    handles = [Patch(color=component_style(i).color) for i in range(k)]
    draw_legend(ax, handles, [f"{text}: {counts[i]}" for i, text in enumerate(texts)])
    return ax


def parameter_intervals(
    uncertainties: Mapping[str, Uncertainty],
    columns: Sequence[str] | None = None,
    *,
    dims: Sequence[int] | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw weights, means and variances with their intervals, one colour per method.

    Each column of the data has a panel for its means, and one below for its variances, because
    their units differ. The marker is the estimate; a percentile interval need not contain it.

    Args:
      uncertainties: uncertainties of one mixture by name of the method.
      columns: names of the D columns.
      dims: the columns to draw, at most 6; by default the first six.
      figure: where to draw; by default a new pyplot figure.

    Raises:
      ValueError: no uncertainty, uncertainties of different mixtures, or columns that do not exist.
    """
    if len({each.estimate.means.shape for each in uncertainties.values()}) != 1:
        raise ValueError("give uncertainties of one mixture, by name of the method.")
    n_components, d = next(iter(uncertainties.values())).estimate.means.shape
    chosen = list(range(min(d, MAX_COLUMNS)) if dims is None else dims)
    if not 1 <= len(chosen) <= MAX_COLUMNS or not all(0 <= i < d for i in chosen):
        raise ValueError(
            f"dims={chosen}: choose 1 to {MAX_COLUMNS} of the {d} columns, counted from 0."
        )
    names = column_labels([f"x{i}" for i in chosen], columns, chosen)
    height = 0.5 + 0.22 * n_components * (1 + len(uncertainties) / 2)
    if figure is None:
        figure = pyplot_figure((2.6 * max(len(chosen), 2) + 0.8, 3 * (height + 0.5)))
    panels: Any = figure.subplots(3, len(chosen), squeeze=False)
    for panel in panels[0, 1:]:
        panel.remove()
    _interval_panel(panels[0, 0], uncertainties, "weights", ..., "weight")
    for i, (column, name) in enumerate(zip(chosen, names, strict=True)):
        for row, word in ((1, "mean"), (2, "variance")):
            where = (slice(None), column)
            _interval_panel(panels[row, i], uncertainties, f"{word}s", where, f"{word} of {name}")
    for panel in panels[1:, 1:].ravel():
        panel.tick_params(labelleft=False)
    handles = [legend_marker(i) for i in range(len(uncertainties))]
    level = {each.level for each in uncertainties.values()}
    title = f"{100 * level.pop():g} % intervals" if len(level) == 1 else "intervals"
    texts = [wrap_text(name, 24, 2) for name in uncertainties]
    # To the right of the panel of the weights, where there is no panel; with one column, outside.
    place: Any = "outside right upper" if len(chosen) == 1 else "upper right"
    figure.legend(handles, texts, loc=place, frameon=False, fontsize="small", title=title)
    return figure


def _interval_panel(
    ax: Axes, uncertainties: Mapping[str, Uncertainty], field: str, where: Any, title: str
) -> None:
    """Draw one parameter of every component, from the first component at the top to the last."""
    prepare_axes(ax)
    estimate = np.asarray(getattr(next(iter(uncertainties.values())).estimate, field))[where]
    for i, each in enumerate(uncertainties.values()):
        low, middle, high = (
            np.asarray(getattr(part, field))[where] for part in (each.low, each.estimate, each.high)
        )
        height = np.arange(len(middle)) + 0.6 * ((i + 0.5) / len(uncertainties) - 0.5)
        color, marker, _ = component_style(i)
        ax.hlines(height, low, high, color=color, linewidth=1.6)
        for end in (low, high):
            ax.plot(end, height, "|", color=color, markersize=5, markeredgewidth=1.6)
        ax.plot(middle, height, linestyle="none", color=color, marker=marker, markersize=4)
    ax.set_yticks(range(len(estimate)), [f"component {k}" for k in range(len(estimate))])
    ax.set_ylim(len(estimate) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_locator(MaxNLocator(3))
    ax.ticklabel_format(axis="x", useOffset=False, scilimits=(-3, 5))
    ax.grid(axis="x", color=LIGHT_GREY, alpha=0.3)
    ax.set_xlabel(wrap_text(title, 20, 2))


def refits(
    bootstrap: Bootstrap,
    x: Any = None,
    ax: Axes | None = None,
    *,
    mass: float = 0.5,
    columns: Sequence[str] | None = None,
    dims: tuple[int, int] = (0, 1),
) -> Axes:
    """Draw the ellipses of a mixture over those of its bootstrap refits, to show its uncertainty.

    Args:
      bootstrap: bootstrap of a mixture of K components in D >= 2 dimensions. The first hundred
        valid refits are drawn.
      x: samples to draw under the ellipses, (N, D).
      ax: where to draw.
      mass: probability inside each ellipse, of its component alone.
      columns: names of the D columns.
      dims: the two columns to draw.
    """
    flat = finite_marginal(bootstrap.mixture, dims)
    ax = prepare_axes(ax)
    own_names = [f"x{i}" for i in dims]
    if x is not None:
        points, own_names = read_points(x, dims)
        draw_points(ax, points)
    used = np.flatnonzero(bootstrap.valid)[:MAX_REFITS]
    replicates = jax.tree.map(lambda leaf: leaf[used], bootstrap.replicates)
    means = np.asarray(replicates.means)[:, :, list(dims)]
    covariances = np.asarray(jax.vmap(lambda one: one.covariances)(replicates))
    covariances = covariances[:, :, list(dims)][:, :, :, list(dims)]
    each = jax.vmap(jax.vmap(lambda mean, cov: gaussian.ellipse(mean, cov, mass)))
    curves = np.asarray(each(means, covariances))
    handles = []
    for k in range(flat.n_components):
        color = component_style(k).color
        faint: dict[str, Any] = {"colors": color, "linewidths": 0.7, "alpha": 0.18}
        ax.add_collection(LineCollection(list(curves[:, k]), **faint))
        curve = np.asarray(gaussian.ellipse(flat.means[k], flat.covariances[k], mass))
        for width, ink in (
            (3.6, "white"),
            (1.8, color),
        ):  # a white border separates it from the refits
            handles += ax.plot(*curve.T, color=ink, linewidth=width, linestyle="-", zorder=3)
    ax.autoscale_view()
    handles = [*handles[1::2], Line2D([], [], color=GREY, linewidth=0.7)]
    names = [*(f"component {k}" for k in range(flat.n_components)), f"{len(used)} refits"]
    draw_legend(ax, handles, names)
    label_axes(ax, column_labels(own_names, columns, dims))
    return ax


def likelihood_ratios(tests: Iterable[RatioTest], ax: Axes | None = None) -> Axes:
    """Draw the statistic of each likelihood ratio test, and its distribution under the null.

    The diamond is the statistic of the data. Each dot is the statistic of a data set drawn from the
    smaller mixture (the null hypothesis). A diamond to the right of the dots means that one more
    component explains structure which the smaller mixture would not produce.

    Args:
      tests: tests such as ``jgmm.selection.sequential_test(…).tests``, at least one.
      ax: where to draw. If a statistic is above 100, the horizontal axis is that of square roots.

    Raises:
      ValueError: no test.
    """
    each = list(tests)
    if not each:
        raise ValueError("there is no test to draw.")
    ax = prepare_axes(ax, (6.5, 1.2 + 0.7 * len(each)))
    texts = []
    for row, test in enumerate(each):
        values = np.sort(test.replicates[np.isfinite(test.replicates)])
        # Multiples of the golden ratio, modulo one, are evenly spread and not random.
        spread = 0.5 * ((np.arange(len(values)) * 0.6180339887) % 1 - 0.5)
        area = marker_area(4 * len(values)) + 6
        ax.scatter(values, row + spread, area, color=GREY, alpha=0.6, linewidths=0)
        style: dict[str, Any] = {"markersize": 9, "markeredgecolor": "white", "zorder": 3}
        ax.plot(test.statistic, row, "D", color=component_style(1).color, **style)
        k = test.n_components
        failed = f", {test.n_failed} failed" if test.n_failed else ""
        texts.append(f"{k} against {k + 1}\np = {test.p_value:.3g}{failed}")
    everything = np.concatenate([[t.statistic, *t.replicates] for t in each])
    everything = everything[np.isfinite(everything)]
    highest = float(everything.max())
    if highest > 100:
        ax.set_xscale("function", functions=(_root, _square))
        ax.set_xticks([tick for tick in ROOT_TICKS if highest / 100 < tick <= highest or not tick])
        ax.set_xlim(min(float(everything.min()), 0), 1.15 * highest)
    ax.set_yticks(range(len(texts)), texts, fontsize="small")
    ax.set_ylim(len(texts) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", color=LIGHT_GREY, alpha=0.3)
    ax.set_xlabel("twice the gain in log-likelihood (nats)")
    handles = [legend_marker(1), legend_marker(-1)]
    handles[0].set(marker="D")
    handles[1].set(marker="o", color=GREY)
    draw_legend(ax, handles, ["data", "drawn from the\nsmaller mixture"])
    return ax


def _root(x: np.ndarray) -> np.ndarray:
    """Return √|x|, with the sign of x."""
    return np.asarray(np.sign(x) * np.sqrt(np.abs(x)))


def _square(x: np.ndarray) -> np.ndarray:
    """Return x², with the sign of x: the inverse of ``_root``."""
    return np.asarray(x * np.abs(x))
