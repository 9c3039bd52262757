"""Plots of data and mixtures: scatter plots, ellipses, pairs, decision regions, k-means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from jgmm._data.validation import as_numbers, column_names
from jgmm.mixture import gaussian
from jgmm.mixture.mixture import HasMixture, Mixture
from jgmm.plot.density import limits
from jgmm.plot.style import (
    DARK,
    column_labels,
    component_style,
    draw_group_legend,
    draw_legend,
    draw_points,
    finite_marginal,
    group_by_label,
    label_axes,
    legend_marker,
    marker_area,
    prepare_axes,
    pyplot_figure,
    read_points,
    wrap_text,
)
from jgmm.plot.univariate import density_1d, draw_histogram


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
      labels: component or class of each sample, (N,). An integer k gets the style of component k,
        a negative integer is drawn in grey. Other labels are numbered in sorted order.
      ax: where to draw.
      columns: names of the D columns, for the axes; by default those of the data frame.
      names: names of the classes, for the legend; by default the labels.
      dims: the two columns to draw.
      legend: whether to draw a legend with the names of the classes, next to the axes.

    Raises:
      DataError: samples that are not finite numbers.
      ValueError: a column or label that does not fit the samples.

    >>> import jgmm
    >>> _, (ax,) = jgmm.plot.new_figure()
    >>> ax = jgmm.plot.scatter([[0.0, 1.0], [2.0, 3.0]], [0, 1], ax, columns=["width", "height"])
    >>> ax.get_xlabel()
    'width'
    """
    points, own_names = read_points(x, dims)
    classes = group_by_label(labels, len(points), names)
    ax = prepare_axes(ax)
    draw_points(ax, points, classes)
    if legend:
        draw_group_legend(ax, classes)
    label_axes(ax, column_labels(own_names, columns, dims))
    return ax


def ellipses(
    mixture: Mixture | HasMixture,
    ax: Axes | None = None,
    mass: Sequence[float] = (0.5, 0.95),
    dims: tuple[int, int] = (0, 1),
) -> Axes:
    """Draw each component as ellipses that contain the given fractions of its probability.

    A cross marks the mean. The smaller the weight of a component, the fainter its lines; a
    component of weight zero is left out. Of a collapsed component only the cross is visible.

    Args:
      mixture: K components in D >= 2 dimensions.
      ax: where to draw.
      mass: probability inside each ellipse, of that component alone.
      dims: the two columns to draw; the others are integrated out.

    >>> import jgmm
    >>> _, (ax,) = jgmm.plot.new_figure()
    >>> round_one = jgmm.make_mixture([1.0], [[0.0, 0.0]], [1.0], "spherical")
    >>> ax = jgmm.plot.ellipses(round_one, ax, mass=(0.5,))
    >>> round(float(ax.lines[0].get_xdata().max()), 1)  # √(2 log 2)
    1.2
    """
    flat = finite_marginal(mixture, dims)
    ax = prepare_axes(ax)
    weights, means, covariances = map(np.asarray, (flat.weights, flat.means, flat.covariances))
    for k in np.flatnonzero(weights > 0):
        alpha = 0.4 + 0.6 * min(1.0, float(weights[k] / weights.max()))
        for probability in mass:
            curve = np.asarray(gaussian.ellipse(means[k], covariances[k], probability))
            color = component_style(int(k)).color
            ax.plot(curve[:, 0], curve[:, 1], color=color, alpha=alpha, linewidth=1.6)
        _cross(ax, means[k])
    return ax


def _cross(ax: Axes, center: np.ndarray) -> None:
    """Draw a dark cross with a white border, which is visible on points of any colour."""
    for color, size, width in (("white", 10, 4.0), (DARK, 8, 1.8)):
        ax.plot(*center, "+", color=color, markersize=size, markeredgewidth=width, zorder=4)


def pairs(
    x: Any,
    mixture: Mixture | HasMixture | None = None,
    labels: npt.ArrayLike | None = None,
    columns: Sequence[str] | None = None,
    *,
    names: Sequence[str] | None = None,
    dims: Sequence[int] | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Draw a scatter plot of every pair of columns, and a histogram of every column.

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
      ValueError: no columns or more than 10 columns to draw.

    >>> import jgmm
    >>> figure, axes = jgmm.plot.new_figure()
    >>> axes[0].remove()
    >>> figure = jgmm.plot.pairs([[0.0, 1.0], [2.0, 3.0], [4.0, 4.0]], figure=figure)
    >>> len(figure.axes)
    3
    """
    chosen = list(range(len(column_names(x))) if dims is None else dims)
    n = len(chosen)
    if not 1 <= n <= 10:
        raise ValueError(f"{n} columns asked for; choose 1 to 10 of them with dims=[…].")
    points, own_names = read_points(x, chosen)
    classes = group_by_label(labels, len(points), names)
    if figure is None:
        figure = pyplot_figure((min(2 * n + 2, 14), min(2 * n + 2, 14)))
    panels: Any = figure.subplots(n, n, squeeze=False, sharex="col")
    for row, column in np.ndindex(n, n):
        if column > row:
            panels[row, column].remove()
            continue
        ax = prepare_axes(panels[row, column])
        ax.ticklabel_format(useOffset=False)  # there is no space for its text between the panels
        ax.locator_params(nbins=4 if n > 2 else 6)
        if _tick_length(points[:, column]) > 5:
            ax.tick_params(axis="x", labelrotation=30)
        if column == row:
            _diagonal(ax, points[:, [row]], mixture, chosen[row])
        else:
            draw_points(ax, points[:, [column, row]], classes)
            if mixture is not None:
                ellipses(mixture, ax, mass=(0.95,), dims=(chosen[column], chosen[row]))
    _label_edges(panels, column_labels(own_names, columns, chosen))
    if classes:
        handles = [legend_marker(each.number) for each in classes[:16]]
        texts = [wrap_text(each.name, 28, 2) for each in classes[:16]]
        figure.legend(handles, texts, loc="upper right", frameon=False)
    return figure


def _tick_length(values: np.ndarray) -> float:
    """Estimate how many digits the numbers along an axis have."""
    size, step = float(np.abs(values).max()), float(np.ptp(values)) / 4
    integer_digits = np.log10(size) if size > 1 else 1
    return float(integer_digits + (max(-np.log10(step), 0) if step > 0 else 0))


def _diagonal(ax: Axes, values: np.ndarray, mixture: Mixture | HasMixture | None, dim: int) -> None:
    """Draw one column as a histogram, with the marginal density of the mixture if there is one."""
    if mixture is None:
        draw_histogram(ax, values[:, 0])
    else:
        density_1d(finite_marginal(mixture, [dim]), values, ax, legend=False)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_ylabel("")


def _label_edges(panels: Any, titles: Sequence[str]) -> None:
    """Label the columns of panels along the bottom, and the rows along the left."""
    last = len(titles) - 1
    for i, title in enumerate(titles):
        panels[i, 0].set_ylabel(wrap_text(title, 20) if i else "")
        for j in range(i + 1):
            panels[i, j].set_xlabel(wrap_text(titles[j], 20) if i == last else "")
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
    """Draw samples coloured by their most probable component, and mark the uncertain ones.

    A sample whose largest responsibility is below ``threshold`` is uncertain. It gets a dark
    border, and it is the larger, the less certain it is: its area grows linearly from certainty to
    equal probabilities of all components.

    Args:
      x: samples in rows, (N, D).
      responsibilities: p(z = k | x), (N, K), rows summing to one.
      ax: where to draw.
      threshold: a sample counts as uncertain if its largest responsibility is below this value.
      columns: names of the D columns.
      dims: the two columns to draw.

    Raises:
      ValueError: responsibilities of another number of samples, or not finite.

    >>> import jgmm
    >>> _, (ax,) = jgmm.plot.new_figure()
    >>> x, probabilities = [[0.0, 1.0], [2.0, 3.0]], [[1.0, 0.0], [0.4, 0.6]]
    >>> ax = jgmm.plot.uncertainty(x, probabilities, ax)
    >>> ax.get_legend().get_texts()[-1].get_text()
    'below 0.9: 1 of 2'
    """
    points, own_names = read_points(x, dims)
    chances = np.asarray(as_numbers(responsibilities, "responsibilities"), np.float64)
    if chances.ndim != 2 or len(chances) != len(points) or not np.isfinite(chances).all():
        raise ValueError(
            f"responsibilities must be finite, shape ({len(points)}, K); they have shape "
            f"{chances.shape}."
        )
    ax = prepare_axes(ax)
    best = chances.max(axis=1)
    uncertain, degree = best < threshold, (1 - best) / (1 - 1 / max(chances.shape[1], 2))
    area = 0.6 * marker_area(len(points))  # small, so that the uncertain ones stand out
    classes = group_by_label(chances.argmax(axis=1), len(points))
    for index, members, _ in classes:
        color, marker, _line = component_style(index)
        sure, rest = members & ~uncertain, members & uncertain
        style: dict[str, Any] = {"marker": marker, "rasterized": len(points) > 5000}
        across, up = points.T
        ax.scatter(across[sure], up[sure], area, color=color, alpha=0.5, linewidths=0, **style)
        style |= {"s": area * (1.5 + 3 * degree[rest]), "edgecolor": DARK, "linewidths": 0.8}
        ax.scatter(across[rest], up[rest], facecolor=color, **style)
    ring = legend_marker(0)
    ring.set(markersize=7, markerfacecolor="white", markeredgecolor=DARK)
    handles = [*(legend_marker(each.number) for each in classes), ring]
    text = f"below {threshold:g}: {uncertain.sum()} of {len(points)}"
    draw_legend(ax, handles, [*(each.name for each in classes), text])
    label_axes(ax, column_labels(own_names, columns, dims))
    return ax


def kmeans_and_mixture(
    x: Any,
    kmeans_labels: npt.ArrayLike,
    mixture: Mixture | HasMixture,
    mixture_labels: npt.ArrayLike,
    axes: Iterable[Axes] | None = None,
    *,
    columns: Sequence[str] | None = None,
    dims: tuple[int, int] = (0, 1),
) -> list[Axes]:
    """Draw the clusters of k-means and the components of a mixture, in two axes side by side.

    Crosses mark the means of the clusters on the left, and of the components on the right. There
    ellipses contain 50 % and 95 % of each component. The numbers of k-means clusters are arbitrary,
    so each cluster is drawn in the style of the component with which it shares most samples.

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

    >>> import jgmm
    >>> _, axes = jgmm.plot.new_figure(1, 2)
    >>> x = [[0.0, 0.0], [1.0, 0.0], [9.0, 1.0], [9.0, 2.0]]
    >>> two = jgmm.make_mixture([0.5, 0.5], [[0.5, 0.0], [9.0, 1.5]], [1.0, 1.0], "spherical")
    >>> left, right = jgmm.plot.kmeans_and_mixture(x, [1, 1, 0, 0], two, [0, 0, 1, 1], axes)
    >>> left.get_title("left"), right.get_title("left")
    ('k-means', 'mixture')
    """
    if axes is None:
        axes = list(pyplot_figure((10, 4.2)).subplots(1, 2))
    left, right = axes
    matched = _matched(np.asarray(kmeans_labels), np.asarray(mixture_labels))
    scatter(x, matched, left, columns=columns, dims=dims, legend=False)
    points, _ = read_points(x, dims)
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
    """Renumber labels: a cluster gets the number of the reference cluster that overlaps it most.

    The largest overlap is assigned first; every number is assigned once.
    """
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
    """Draw the decision regions of a classifier in the plane, under the samples.

    Args:
      predict: function from points (M, 2) to predicted classes (M,), integers from 0.
      x: samples in rows, (N, 2).
      labels: true class of each sample, (N,), integers from 0.
      names: names of the classes.
      columns: names of the two columns.
      ax: where to draw.

    Raises:
      ValueError: samples with other than two columns, or predictions of the wrong shape.

    >>> import jgmm
    >>> _, (ax,) = jgmm.plot.new_figure()
    >>> x, labels = [[0.0, 1.0], [2.0, 3.0]], [0, 1]
    >>> ax = jgmm.plot.decision_regions(lambda points: points[:, 0] > 1, x, labels, ax=ax)
    >>> ax.images[0].get_array().shape
    (300, 300)
    """
    points, own_names = read_points(x, (0, 1))
    n_columns = len(column_names(x))
    if n_columns != 2:
        raise ValueError(f"regions are drawn in a plane; x has {n_columns} columns, not 2.")
    classes = group_by_label(labels, len(points), names)
    ax = prepare_axes(ax)
    horizontal, vertical = (limits(points[:, d], (points[0, d], points[0, d])) for d in range(2))
    grids = [np.linspace(*horizontal, 300), np.linspace(*vertical, 300)]
    mesh = np.stack(np.meshgrid(*grids), axis=-1).reshape(-1, 2)
    region = np.asarray(predict(mesh))
    if region.shape != (len(mesh),):
        raise ValueError(f"predict must return shape ({len(mesh)},); it returned {region.shape}.")
    region = region.astype(int).reshape(300, 300)
    tint = ListedColormap([component_style(k).color for k in range(int(region.max()) + 1)])
    # One pixel per grid point; its centre, not its corner, is at the grid point.
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
        ax.contour(*grids, region >= k, [0.5], colors=DARK, linewidths=0.8)
    draw_points(ax, points, classes)
    draw_group_legend(ax, classes)
    ax.set_xlim(*horizontal)
    ax.set_ylim(*vertical)
    label_axes(ax, column_labels(own_names, columns, (0, 1)))
    return ax
