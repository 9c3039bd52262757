"""Plots of a mixture's density in two dimensions: contours and surfaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from mpl_toolkits.mplot3d import Axes3D  # type: ignore[import-untyped]

from jgmm._core import budget
from jgmm.mixture.density import sample
from jgmm.mixture.mixture import HasMixture, Mixture, as_mixture
from jgmm.plot.style import (
    column_labels,
    draw_legend,
    draw_points,
    finite_marginal,
    group_by_label,
    label_axes,
    log_density_at,
    prepare_axes,
    pyplot_figure,
    read_points,
)

LEVEL_SAMPLES = 2 * budget.PLOT_BATCH_POINTS


def density_levels(
    mixture: Mixture | HasMixture, masses: Sequence[float], n_samples: int = LEVEL_SAMPLES
) -> np.ndarray:
    """Compute the log densities that bound the highest-density regions of a mixture.

    The highest-density region of mass m is the smallest set that has probability m. It is
    {x : log p(x) >= c}, where c is the (1 - m)-quantile of log p(X) for X drawn from the mixture.
    The quantile is computed from a random sample, so the probability of a region is m up to a
    standard error of sqrt(m (1 - m) / n_samples), at most 0.2 % by default.

    Args:
      mixture: K components in D dimensions.
      masses: probabilities strictly between 0 and 1.
      n_samples: size of the sample. It is drawn with a fixed key: a plot does not change when it
        is drawn again.

    Returns:
      One log density per mass, in nats.

    Raises:
      ValueError: no masses, or a mass not between 0 and 1.

    Reference: Hyndman (1996), Computing and graphing highest density regions.

    >>> import jgmm
    >>> one = jgmm.make_mixture([1.0], [[0.0]], [1.0], "spherical")
    >>> density_levels(one, [0.95]).round().tolist()  # log p(1.96) = -2.84
    [-3.0]
    """
    if not masses or any(not 0 < m < 1 for m in masses):
        raise ValueError(f"masses must lie strictly between 0 and 1; they are {tuple(masses)}.")
    mixture = as_mixture(mixture)
    drawn, _ = sample(jax.random.key(0), mixture, n_samples)
    log_density = log_density_at(mixture, np.asarray(drawn))
    return np.asarray(np.quantile(log_density, 1 - np.asarray(masses)))


def density_contours(
    mixture: Mixture | HasMixture,
    x: Any = None,
    ax: Axes | None = None,
    masses: Sequence[float] = (0.1, 0.25, 0.5, 0.75, 0.95),
    *,
    labels: npt.ArrayLike | None = None,
    columns: Sequence[str] | None = None,
    dims: tuple[int, int] = (0, 1),
    n_samples: int = LEVEL_SAMPLES,
) -> Axes:
    """Draw the joint density of two columns as nested highest-density regions, over the samples.

    The line labelled 50 % encloses the smallest region that has half of the probability, and so on;
    see ``density_levels``. These levels say more than round values of the density would, whose unit
    depends on that of the data. A region may have several parts; its label is on the largest part,
    or in a legend next to the axes if there is no space for one of the labels. Contours are
    computed from the log density, which is smooth. The grid is finer around components narrower
    than its spacing, so that a component close to collapse is not missed. A component too narrow to
    see has no visible lines.

    Args:
      mixture: K components in D >= 2 dimensions; columns not in ``dims`` are integrated out.
      x: samples to draw under the contours, (N, D). They set the limits of the axes; without
        samples the components do.
      ax: where to draw.
      masses: probabilities of the regions to draw, strictly between 0 and 1.
      labels: component of each sample, (N,), for its colour.
      columns: names of the D columns.
      dims: the two columns to draw.
      n_samples: number of samples drawn to compute the levels, see ``density_levels``.

    >>> import jgmm
    >>> _, (ax,) = jgmm.plot.new_figure()
    >>> one = jgmm.make_mixture([1.0], [[0.0, 0.0]], [1.0], "spherical")
    >>> ax = jgmm.plot.density_contours(one, ax=ax, masses=(0.5, 0.95))
    >>> [text.get_text() for text in ax.texts]
    ['95 %', '50 %']
    """
    flat = finite_marginal(mixture, dims)
    ax = prepare_axes(ax)
    own_names, points = [f"x{d}" for d in dims], None
    if x is not None:
        points, own_names = read_points(x, dims)
        draw_points(ax, points, group_by_label(labels, len(points)))
    grids = [axis_grid(flat, points, d, 160) for d in range(2)]
    mesh = np.stack(np.meshgrid(*grids), axis=-1)
    log_density = log_density_at(flat, mesh.reshape(-1, 2)).reshape(mesh.shape[:2])
    ax.set_xlim(grids[0][0], grids[0][-1])
    ax.set_ylim(grids[1][0], grids[1][-1])
    _draw_regions(ax, grids, log_density, masses, density_levels(flat, masses, n_samples))
    label_axes(ax, column_labels(own_names, columns, dims))
    return ax


def axis_grid(flat: Mixture, points: np.ndarray | None, d: int, n: int) -> np.ndarray:
    """Return about ``n`` coordinates along axis ``d``, from limit to limit."""
    weights, means = np.asarray(flat.weights), np.asarray(flat.means)[:, d]
    deviations = np.sqrt(np.asarray(flat.variances))[:, d]
    used = weights > 0
    span = (
        float((means - 3 * deviations)[used].min()),
        float((means + 3 * deviations)[used].max()),
    )
    low, high = limits(None if points is None else points[:, d], span)
    return _grid(low, high, weights, means, deviations, n)


def limits(values: np.ndarray | None, span: tuple[float, float]) -> tuple[float, float]:
    """Return the limits of one axis: those of the samples, with a margin.

    Without samples, or where all samples have the same value, ``span`` takes their place.
    """
    if values is not None and np.ptp(values) > 0:
        low, high = float(values.min()), float(values.max())
        margin = 0.08 * (high - low)
    else:
        low, high = span
        if values is not None:
            low, high = min(low, float(values[0])), max(high, float(values[0]))
        # For a single point, the margin must be large enough for floating-point numbers to differ.
        margin = max(0.05 * (high - low), 1e-3 * abs(high)) or 1.0
    return low - margin, high + margin


def _grid(
    low: float,
    high: float,
    weights: np.ndarray,
    means: np.ndarray,
    deviations: np.ndarray,
    n: int,
) -> np.ndarray:
    """Return coordinates along one axis: evenly spaced, and finer around narrow components.

    A component is narrow if its standard deviation is less than four times the spacing.
    """
    even = np.linspace(low, high, n)
    narrow = np.flatnonzero((deviations < 4 * (high - low) / n) & (weights > 0))
    heaviest = narrow[np.argsort(-weights[narrow])][:16]  # with more, the grid would be too large
    close = means[heaviest, None] + deviations[heaviest, None] * np.linspace(-4, 4, 25)
    return np.unique(np.concatenate([even, close[(close > low) & (close < high)]]))


def _draw_regions(
    ax: Axes,
    grids: Sequence[np.ndarray],
    log_density: np.ndarray,
    masses: Sequence[float],
    levels: np.ndarray,
) -> None:
    """Draw filled, outlined and labelled regions.

    A region whose level is above all values on the grid is left out.
    """
    texts = {float(levels[i]): f"{100 * masses[i]:g} %" for i in np.argsort(levels)}
    top = float(log_density.max())
    shown = [level for level in texts if log_density.min() < level < top]
    if not shown:
        return
    colors: Any = shades(len(shown))
    ax.contourf(*grids, log_density, [*shown, top], colors=colors, alpha=0.22, zorder=1.5)
    lines = ax.contour(
        *grids, log_density, shown, colors=colors, linewidths=1.2, linestyles="solid", zorder=2.5
    )
    curves = [path.to_polygons(closed_only=False) for path in lines.get_paths()]
    if not _label_on_lines(ax, curves, [texts[level] for level in shown], colors):
        handles = [Line2D([], [], color=color, linewidth=2.5) for color in colors]
        draw_legend(ax, handles, [f"holds {texts[level]}" for level in shown])


def shades(n: int) -> np.ndarray:
    """Return the colours of n nested regions, from the widest to the narrowest, (n, 3)."""
    shades = np.linspace(0.0, 1.0, n + 1)[1:, None]
    return np.asarray(
        (1 - shades) * np.array(to_rgb("#7FB2DA")) + shades * np.array(to_rgb("#08306B"))
    )


def _label_on_lines(ax: Axes, curves: Any, texts: Sequence[str], colors: Any) -> bool:
    """Write each label on the longest part of its line, if there is space for all labels.

    The labels of nested lines are placed in different directions from the centre, so that they do
    not overlap.

    Returns:
      True if all labels are written; False if there is no space for one of them: then none is.
    """
    corner = np.array([ax.get_xlim()[0], ax.get_ylim()[0]])
    extent = np.array([np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())])
    places: list[np.ndarray] = []
    for i, parts in enumerate(curves):
        scaled = [(np.asarray(part) - corner) / extent for part in parts if len(part) > 2]
        place = _free_place(scaled, first=np.pi * (0.5 - 0.8 * i), taken=places)
        if place is None:
            return False
        places.append(place)
    for place, text, color in zip(places, texts, colors, strict=True):
        horizontal, vertical = corner + extent * place
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": "small", "zorder": 3}
        behind = {"facecolor": "white", "alpha": 0.85, "linewidth": 0, "pad": 1}
        ax.text(horizontal, vertical, text, color=color, bbox=behind, **style)
    return True


def _free_place(
    parts: Sequence[np.ndarray], first: float, taken: Sequence[np.ndarray]
) -> np.ndarray | None:
    """Return a vertex of the longest part, away from the border and from other labels, or None.

    Args:
      parts: curves (n, 2), in units of the axes: from 0 to 1.
      first: angle, in radians, of the direction from the centre that is tried first.
      taken: places of other labels.
    """
    if not parts:
        return None
    longest = max(parts, key=lambda part: float(np.ptp(part, axis=0).sum()))
    if np.ptp(longest, axis=0).max() < 0.08:  # smaller than the label itself
        return None
    inner = longest[((longest > 0.05) & (longest < 0.95)).all(axis=1)]
    for angle in first + np.pi * 0.25 * np.arange(8) if len(inner) else ():
        place = inner[np.argmax(inner @ np.array([np.cos(angle), np.sin(angle)]))]
        if all((np.abs(place - other) > (0.11, 0.055)).any() for other in taken):
            return np.asarray(place)
    return None


def density_surface(
    mixture: Mixture | HasMixture,
    ax: Axes | None = None,
    masses: Sequence[float] = (0.5, 0.95),
    *,
    columns: Sequence[str] | None = None,
    dims: tuple[int, int] = (0, 1),
    n_samples: int = LEVEL_SAMPLES,
) -> Axes:
    """Draw the joint density of two columns as a surface in three dimensions.

    The lines under the surface bound the highest-density regions of the given masses, see
    ``density_levels``. Heights are densities; their unit is one over the product of the units of
    the two columns.

    Args:
      mixture: K components in D >= 2 dimensions; columns not in ``dims`` are integrated out.
      ax: where to draw, with ``projection="3d"``; by default those of a new pyplot figure.
      masses: probabilities of the regions to draw, strictly between 0 and 1.
      columns: names of the D columns.
      dims: the two columns to draw.
      n_samples: number of samples drawn to compute the levels.

    Raises:
      ValueError: axes of two dimensions.

    >>> import jgmm
    >>> figure, axes = jgmm.plot.new_figure()
    >>> axes[0].remove()
    >>> one = jgmm.make_mixture([1.0], [[0.0, 0.0]], [1.0], "spherical")
    >>> ax = figure.add_subplot(projection="3d")
    >>> jgmm.plot.density_surface(one, ax, columns=["width", "height"]).get_xlabel()
    'width'
    """
    flat = finite_marginal(mixture, dims)
    if ax is None:
        ax = pyplot_figure((6.5, 5.0)).add_subplot(projection="3d")
    if not isinstance(ax, Axes3D):
        raise ValueError(
            "a surface needs axes of three dimensions: figure.add_subplot(projection='3d')."
        )
    across, up = np.meshgrid(*(axis_grid(flat, None, d, 80) for d in range(2)))
    log_density = log_density_at(flat, np.stack([across, up], -1).reshape(-1, 2))
    density = np.exp(log_density).reshape(across.shape)
    ax.plot_surface(across, up, density, cmap="Blues", linewidth=0, alpha=0.9, rcount=80, ccount=80)
    log_levels = density_levels(flat, masses, n_samples)
    order = np.argsort(log_levels)
    levels = np.exp(log_levels[order])
    colors: Any = shades(len(levels))
    bottom = -0.25 * float(density.max())
    for level, color in zip(levels, colors, strict=True):
        ax.contour(across, up, density, [level], colors=[color], offset=bottom, linewidths=1.6)
    ax.set_zlim(bottom, 1.05 * float(density.max()))
    ax.set_zticks([tick for tick in ax.get_zticks() if 0 <= tick <= density.max()])
    ax.tick_params(labelsize="small")
    label_axes(ax, column_labels([f"x{d}" for d in dims], columns, dims))
    handles = [Line2D([], [], color=color, linewidth=2.5) for color in colors]
    ax.legend(
        handles,
        [f"holds {100 * masses[i]:g} %" for i in order],
        loc="upper left",
        frameon=False,
        fontsize="small",
    )
    return ax
