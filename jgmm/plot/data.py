"""Pictures of data and mixtures: scatter plots, ellipses, pairs, decision regions, k-means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from jgmm._data.validation import column_names
from jgmm.mixture import gaussian
from jgmm.mixture.mixture import Mixture
from jgmm.plot.density import density_1d, draw_histogram, limits
from jgmm.plot.style import (
    INK,
    class_legend,
    classes_of,
    dot,
    draw_points,
    look,
    marginal_of,
    marker_area,
    name_axes,
    named,
    plain,
    points_of,
    prepare,
    pyplot_figure,
)
from jgmm.plot.style import (
    legend as style_legend,
)


def scatter(
    x: Any,
    labels: npt.ArrayLike | None = None,
    ax: Axes | None = None,
    *,
    columns: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    dims: tuple[int, int] = (0, 1),
    legend: bool = True,
) -> Axes:
    """Draw samples as points, coloured and marked by label.

    Args:
      x: samples in rows, (N, D), an array or a data frame.
      labels: component or class of each sample, (N,). An integer k gets the look of component k,
        a negative one is grey; anything else is numbered in sorted order.
      ax: where to draw.
      columns: names of the D columns, for the axes; by default those of the data frame.
      names: names of the classes, for the legend; by default the labels.
      dims: the two columns to draw.
      legend: whether to name the classes beside the axes.

    Raises:
      DataError: samples that are not finite numbers.
      ValueError: a column or label that does not fit the samples.
    """
    points, found = points_of(x, dims)
    classes = classes_of(labels, len(points), names)
    ax = prepare(ax)
    draw_points(ax, points, classes)
    if legend:
        class_legend(ax, classes)
    name_axes(ax, named(found, columns, dims))
    return ax


def ellipses(
    mixture: Mixture,
    ax: Axes | None = None,
    mass: Sequence[float] = (0.5, 0.95),
    dims: tuple[int, int] = (0, 1),
) -> Axes:
    """Draw each component as the ellipses that hold the given shares of its probability.

    A cross marks the mean; the lines of a light component are fainter than those of a heavy one,
    and a component of weight zero is left out. Of a collapsed component only the cross is visible.

    Args:
      mixture: K components in D >= 2 dimensions.
      ax: where to draw.
      mass: probability inside each ellipse, of that component alone.
      dims: the two columns to draw; the others are integrated out.
    """
    flat = marginal_of(mixture, dims)
    ax = prepare(ax)
    weights, means, covariances = map(np.asarray, (flat.weights, flat.means, flat.covariances))
    for k in np.flatnonzero(weights > 0):
        alpha = 0.4 + 0.6 * min(1.0, float(weights[k] / weights.max()))
        for share in mass:
            curve = np.asarray(gaussian.ellipse(means[k], covariances[k], share))
            color = look(int(k)).color
            ax.plot(curve[:, 0], curve[:, 1], color=color, alpha=alpha, linewidth=1.6)
        _cross(ax, means[k])
    return ax


def _cross(ax: Axes, center: np.ndarray) -> None:
    """A dark cross with a white rim, which shows on points of any colour."""
    for color, size, width in (("white", 10, 4.0), (INK, 8, 1.8)):
        ax.plot(*center, "+", color=color, markersize=size, markeredgewidth=width, zorder=4)


def pairs(
    x: Any,
    mixture: Mixture | None = None,
    labels: npt.ArrayLike | None = None,
    columns: Sequence[str] | None = None,
    *,
    names: Sequence[str] | None = None,
    dims: Sequence[int] | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw every pair of columns as points and every column as a histogram.

    With a mixture the panels also show its ellipses of 95 % and its densities.

    Args:
      x: samples in rows, (N, D).
      mixture: K components in D dimensions.
      labels: component or class of each sample, (N,).
      columns: names of the D columns; by default those of the data frame.
      names: names of the classes, for the legend.
      dims: the columns to draw, at most 10; by default all.
      figure: where to draw; by default a new pyplot figure.

    Raises:
      ValueError: more than 10 columns asked for.
    """
    chosen = list(range(len(column_names(x))) if dims is None else dims)
    n = len(chosen)
    if not 1 <= n <= 10:
        raise ValueError(f"{n} columns asked for; choose 1 to 10 of them with dims=[…].")
    points, found = points_of(x, chosen)
    classes = classes_of(labels, len(points), names)
    if figure is None:
        figure = pyplot_figure((min(2 * n + 2, 14), min(2 * n + 2, 14)))
    panels: Any = figure.subplots(n, n, squeeze=False, sharex="col")
    for row, column in np.ndindex(n, n):
        if column > row:
            panels[row, column].remove()
            continue
        ax = prepare(panels[row, column])
        ax.ticklabel_format(useOffset=False)  # an offset's text has no room between panels
        ax.locator_params(nbins=4 if n > 2 else 6)
        if _tick_length(points[:, column]) > 5:
            ax.tick_params(axis="x", labelrotation=30)
        if column == row:
            _diagonal(ax, points[:, [row]], mixture, chosen[row])
        else:
            draw_points(ax, points[:, [column, row]], classes)
            if mixture is not None:
                ellipses(mixture, ax, mass=(0.95,), dims=(chosen[column], chosen[row]))
    _label_edges(panels, named(found, columns, chosen))
    if classes:
        handles = [dot(each.look) for each in classes[:16]]
        texts = [plain(each.name, 28, 2) for each in classes[:16]]
        figure.legend(handles, texts, loc="upper right", frameon=False)
    return figure


def _tick_length(values: np.ndarray) -> float:
    """About how many digits the numbers along an axis have."""
    size, step = float(np.abs(values).max()), float(np.ptp(values)) / 4
    before = np.log10(size) if size > 1 else 1
    return float(before + (max(-np.log10(step), 0) if step > 0 else 0))


def _diagonal(ax: Axes, values: np.ndarray, mixture: Mixture | None, dim: int) -> None:
    if mixture is None:
        draw_histogram(ax, values[:, 0])
    else:
        density_1d(marginal_of(mixture, [dim]), values, ax, legend=False)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_ylabel("")


def _label_edges(panels: Any, titles: Sequence[str]) -> None:
    """Name columns along the bottom and rows along the left, once each."""
    last = len(titles) - 1
    for i, title in enumerate(titles):
        panels[i, 0].set_ylabel(plain(title, 20) if i else "")
        for j in range(i + 1):
            panels[i, j].set_xlabel(plain(titles[j], 20) if i == last else "")
            panels[i, j].tick_params(labelbottom=i == last, labelleft=j == 0)


def uncertainty(
    x: Any,
    responsibilities: npt.ArrayLike,
    ax: Axes | None = None,
    *,
    threshold: float | int = 0.9,
    columns: Sequence[str] | None = None,
    dims: tuple[int, int] = (0, 1),
) -> Axes:
    """Draw samples coloured by their most probable component, the doubtful ones marked.

    A sample whose largest responsibility is below ``threshold`` is ringed, and the less certain it
    is the larger: the area grows linearly from certainty to all components being equally probable.

    Args:
      x: samples in rows, (N, D).
      responsibilities: p(z = k | x), (N, K), rows summing to one.
      ax: where to draw.
      threshold: below which largest responsibility a sample counts as doubtful.
      columns: names of the D columns.
      dims: the two columns to draw.

    Raises:
      ValueError: responsibilities of another number of samples, or not finite.
    """
    points, found = points_of(x, dims)
    chances = np.asarray(responsibilities, np.float64)
    if chances.ndim != 2 or len(chances) != len(points) or not np.isfinite(chances).all():
        raise ValueError(
            f"responsibilities must be finite, shape ({len(points)}, K); they have shape "
            f"{chances.shape}."
        )
    ax = prepare(ax)
    best = chances.max(axis=1)
    doubtful, doubt = best < threshold, (1 - best) / (1 - 1 / max(chances.shape[1], 2))
    area = 0.6 * marker_area(len(points))  # the eye should go to the doubtful ones
    classes = classes_of(chances.argmax(axis=1), len(points))
    for index, members, _ in classes:
        color, marker, _line = look(index)
        sure, rest = members & ~doubtful, members & doubtful
        style: dict[str, Any] = {"marker": marker, "rasterized": len(points) > 5000}
        across, up = points.T
        ax.scatter(across[sure], up[sure], area, color=color, alpha=0.5, linewidths=0, **style)
        style |= {"s": area * (1.5 + 3 * doubt[rest]), "edgecolor": INK, "linewidths": 0.8}
        ax.scatter(across[rest], up[rest], facecolor=color, **style)
    ring = dot(0)
    ring.set(markersize=7, markerfacecolor="white", markeredgecolor=INK)
    handles = [*(dot(each.look) for each in classes), ring]
    doubts = f"below {threshold:g}: {doubtful.sum()} of {len(points)}"
    style_legend(ax, handles, [*(each.name for each in classes), doubts])
    name_axes(ax, named(found, columns, dims))
    return ax


def kmeans_beside_mixture(
    x: Any,
    kmeans_labels: npt.ArrayLike,
    mixture: Mixture,
    mixture_labels: npt.ArrayLike,
    axes: Iterable[Axes] | None = None,
    *,
    columns: Sequence[str] | None = None,
    dims: tuple[int, int] = (0, 1),
) -> list[Axes]:
    """Draw the same samples as k-means and as a mixture divide them, side by side.

    Crosses mark the means of the clusters on the left and of the components on the right, where
    ellipses hold 50 % and 95 % of each. The numbering of k-means is arbitrary, so each cluster
    takes the look of the component with which it shares most samples.

    Args:
      x: samples in rows, (N, D).
      kmeans_labels: cluster of each sample, (N,), integers from 0.
      mixture: the fitted mixture.
      mixture_labels: most probable component of each sample, (N,), integers from 0.
      axes: two axes; by default those of a new pyplot figure.
      columns: names of the D columns.
      dims: the two columns to draw.

    Returns:
      The two axes, with equal limits.
    """
    if axes is None:
        axes = list(pyplot_figure((10, 4.2)).subplots(1, 2))
    left, right = axes
    matched = _matched(np.asarray(kmeans_labels), np.asarray(mixture_labels))
    scatter(x, matched, left, columns=columns, dims=dims, legend=False)
    points, _ = points_of(x, dims)
    for cluster in np.unique(matched):
        _cross(left, points[matched == cluster].mean(axis=0))
    scatter(x, mixture_labels, right, columns=columns, dims=dims, legend=False)
    ellipses(mixture, right, dims=dims)
    left.set_xlim(right.get_xlim())
    left.set_ylim(right.get_ylim())
    left.set_title("k-means", loc="left")
    right.set_title("mixture", loc="left")
    return [left, right]


def _matched(labels: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Labels renumbered so that the largest overlaps with the reference get equal numbers."""
    n = int(max(labels.max(), reference.max())) + 1
    overlap = np.zeros((n, n), int)
    np.add.at(overlap, (labels, reference), 1)
    renumbered = np.empty(n, int)
    for _ in range(n):
        cluster, component = np.unravel_index(overlap.argmax(), overlap.shape)
        renumbered[cluster] = component
        overlap[cluster], overlap[:, component] = -1, -1
    return np.asarray(renumbered[labels])


def decision_regions(
    predict: Callable[[np.ndarray], Any],
    x: Any,
    labels: npt.ArrayLike,
    names: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw which class a classifier gives each place in the plane, under the samples.

    Args:
      predict: turns points (M, 2) into classes (M,), integers from 0.
      x: samples in rows, (N, 2).
      labels: true class of each sample, (N,), integers from 0.
      names: names of the classes.
      columns: names of the two columns.
      ax: where to draw.

    Raises:
      ValueError: samples with other than two columns, or predictions of the wrong shape.
    """
    points, found = points_of(x, (0, 1))
    n_columns = len(column_names(x))
    if n_columns != 2:
        raise ValueError(f"regions are drawn in a plane; x has {n_columns} columns, not 2.")
    classes = classes_of(labels, len(points), names)
    ax = prepare(ax)
    horizontal, vertical = (limits(points[:, d], (points[0, d], points[0, d])) for d in range(2))
    grids = [np.linspace(*horizontal, 300), np.linspace(*vertical, 300)]
    mesh = np.stack(np.meshgrid(*grids), axis=-1).reshape(-1, 2)
    region = np.asarray(predict(mesh))
    if region.shape != (len(mesh),):
        raise ValueError(f"predict must return shape ({len(mesh)},); it returned {region.shape}.")
    region = region.astype(int).reshape(300, 300)
    tint = ListedColormap([look(k).color for k in range(int(region.max()) + 1)])
    # One pixel a point: its centre, not its corner, lies on the grid.
    half = [0.5 * (places[1] - places[0]) for places in grids]
    edges = [(p[0] - h, p[-1] + h) for p, h in zip(grids, half, strict=True)]
    image: dict[str, Any] = {"origin": "lower", "aspect": "auto", "interpolation": "nearest"}
    ax.imshow(
        region,
        extent=(*edges[0], *edges[1]),
        cmap=tint,
        vmin=-0.5,
        vmax=int(region.max()) + 0.5,
        alpha=0.2,
        **image,
    )
    for k in np.unique(region)[1:]:
        ax.contour(*grids, region >= k, [0.5], colors=INK, linewidths=0.8)
    draw_points(ax, points, classes)
    class_legend(ax, classes)
    ax.set_xlim(*horizontal)
    ax.set_ylim(*vertical)
    name_axes(ax, named(found, columns, (0, 1)))
    return ax
