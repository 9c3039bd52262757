"""Plots of the density of one column: curves, histograms and highest-density regions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from jgmm.mixture.mixture import HasMixture, Mixture
from jgmm.plot.density import LEVEL_SAMPLES, axis_grid, density_levels, shades
from jgmm.plot.style import (
    DARK,
    column_labels,
    component_style,
    draw_legend,
    finite_marginal,
    log_density_at,
    prepare_axes,
    read_points,
    wrap_text,
)


def density_intervals(
    mixture: Mixture | HasMixture, mass: float, dim: int = 0, n_samples: int = LEVEL_SAMPLES
) -> np.ndarray:
    """Compute the highest-density region of one column, as a union of intervals.

    It is the smallest set that has the given probability. It may consist of several intervals,
    where the density has several peaks. Everywhere outside of it the density is lower than inside.

    Args:
      mixture: K components in D dimensions; other columns are integrated out.
      mass: probability of the region, strictly between 0 and 1.
      dim: the column.
      n_samples: number of samples drawn to compute the level, see ``density_levels``.

    Returns:
      Lower and upper ends of the M intervals, (M, 2), in increasing order.

    >>> import jgmm
    >>> one = jgmm.make_mixture([1.0], [[0.0]], [1.0], "spherical")
    >>> density_intervals(one, 0.95).round(1).tolist()
    [[-2.0, 2.0]]
    """
    flat = finite_marginal(mixture, [dim])
    level = float(density_levels(flat, [mass], n_samples)[0])
    weights, means = np.asarray(flat.weights), np.asarray(flat.means)[:, 0]
    deviations = np.sqrt(np.asarray(flat.variances))[:, 0]
    # Places around every component, so that none is missed, however narrow it is.
    around = means[weights > 0, None] + deviations[weights > 0, None] * np.linspace(-8, 8, 1601)
    places = np.unique(around)
    above = log_density_at(flat, places[:, None]) - level
    crossing = np.flatnonzero((above[:-1] < 0) != (above[1:] < 0))
    fraction = above[crossing] / (above[crossing] - above[crossing + 1])
    ends = places[crossing] + fraction * (places[crossing + 1] - places[crossing])
    return np.asarray(ends.reshape(-1, 2))


def density_1d(
    mixture: Mixture | HasMixture,
    x: Any = None,
    ax: Axes | None = None,
    *,
    masses: Sequence[float] = (),
    columns: Sequence[str] | None = None,
    dim: int = 0,
    bins: int | None = None,
    legend: bool = True,
) -> Axes:
    """Draw the density of one column, its weighted components, and a histogram of the samples.

    The components πₖ N(x | μₖ, σₖ²) add up to the density. The histogram has area one, so both have
    the same vertical axis. Bars below the horizontal axis are highest-density regions: a region is
    the smallest set that has the given probability, and may consist of several intervals. A peak
    more than four times higher than the histogram is cut off, and its height is written in the
    axes: otherwise a nearly collapsed component would flatten everything else.

    Args:
      mixture: K components in D dimensions; other columns are integrated out.
      x: samples, (N, D), or (N,) for one column: arrays, a data frame or a series.
      ax: where to draw.
      masses: probabilities of the highest-density regions to draw, strictly between 0 and 1.
      columns: names of the D columns.
      dim: the column to draw.
      bins: number of bins, by default the square root of N, between 8 and 100.
      legend: whether to draw a legend with the components, next to the axes.

    >>> import jgmm
    >>> _, (ax,) = jgmm.plot.new_figure()
    >>> two = jgmm.make_mixture([0.5, 0.5], [[0.0], [4.0]], [1.0, 1.0], "spherical")
    >>> jgmm.plot.density_1d(two, [0.0, 1.0, 4.0], ax, columns=["width"]).get_xlabel()
    'width'
    """
    flat = finite_marginal(mixture, [dim])
    ax = prepare_axes(ax)
    own_names, points, tallest = [f"x{dim}"], None, np.inf
    if x is not None:
        points, own_names = read_points(x, [dim], one_column=True)
        tallest = draw_histogram(ax, points[:, 0], bins)
    places = axis_grid(flat, points, 0, 400)
    handles = _component_curves(ax, flat, places)
    density = np.exp(log_density_at(flat, places[:, None]))
    handles += ax.plot(places, density, color=DARK, linewidth=1.8)
    peak = float(density.max())
    if peak > 4 * tallest:
        text = f"peak of {peak:.4g} cut off"
        ax.text(0.98, 0.98, text, transform=ax.transAxes, ha="right", va="top", fontsize="small")
    height = peak if np.isinf(tallest) else min(max(peak, tallest), 4 * tallest)
    ax.set_ylim(0, 1.06 * height)
    ax.set_xlim(places[0], places[-1])
    bars = _region_bars(ax, flat, sorted(masses), 1.06 * height)
    ax.set_xlabel(wrap_text(column_labels(own_names, columns, [dim])[0]))
    ax.set_ylabel("density")
    if legend:
        weights = np.asarray(flat.weights)
        texts = [f"{k} ({100 * weights[k]:.3g} %)" for k in np.flatnonzero(weights > 0)]
        texts += [f"holds {100 * mass:g} %" for mass in sorted(masses)]
        draw_legend(ax, [handles[-1], *handles[:-1], *bars], ["mixture", *texts])
    return ax


def _region_bars(ax: Axes, flat: Mixture, masses: Sequence[float], top: float) -> list[Line2D]:
    """Draw each highest-density region as a row of bars below zero, the smallest region on top."""
    if not masses:
        return []
    colors: Any = shades(len(masses))[::-1]
    style: dict[str, Any] = {"linewidth": 5, "solid_capstyle": "butt"}
    for i, (mass, color) in enumerate(zip(masses, colors, strict=True)):
        for interval in density_intervals(flat, mass):
            ax.plot(interval, [-0.05 * (i + 1) * top] * 2, color=color, **style)
    ax.set_ylim(-0.05 * (len(masses) + 1) * top, top)
    ax.set_yticks([tick for tick in ax.get_yticks() if 0 <= tick <= top])
    ax.spines["left"].set_bounds(0, top)
    return [Line2D([], [], color=color, **style) for color in colors]


def draw_histogram(ax: Axes, values: np.ndarray, bins: int | None = None) -> float:
    """Draw a histogram of area one and return the height of its highest bar.

    By default it has √N bins, between 8 and 100. Rules that depend on the spread of the samples
    would need billions of bins when one sample is far away.
    """
    bins = int(np.clip(np.sqrt(len(values)), 8, 100)) if bins is None else bins
    heights, _, _ = ax.hist(values, bins=bins, density=True, color="#D7DBE0", edgecolor="white")
    return float(np.max(np.asarray(heights)))


def _component_curves(ax: Axes, flat: Mixture, places: np.ndarray) -> list[Line2D]:
    """Draw πₖ N(x | μₖ, σₖ²) of each component, and return the lines."""
    curves = []
    weights, means = np.asarray(flat.weights), np.asarray(flat.means)[:, 0]
    deviations = np.sqrt(np.asarray(flat.variances))[:, 0]
    for k in np.flatnonzero(weights > 0):
        z = (places - means[k]) / deviations[k]
        height = weights[k] * np.exp(-0.5 * z**2) / (deviations[k] * np.sqrt(2 * np.pi))
        color, _, line = component_style(int(k))
        curves += ax.plot(places, height, color=color, linestyle=line, linewidth=1.4)
        ax.fill_between(places, height, color=color, alpha=0.12, linewidth=0)
    return curves
