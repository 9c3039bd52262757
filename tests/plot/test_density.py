"""Pictures of a density in two columns: contours and surfaces."""

import jax
import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
from plot_cases import (
    COLLAPSED,
    ONE,
    THREE_D,
    TWO,
    X3,
    X,
    contour_set,
    legend_texts,
    pixels,
    texts,
)

from jgmm import plot
from jgmm.mixture.conditioning import marginal
from jgmm.mixture.density import log_prob, sample
from jgmm.plot import density


def test_density_levels_of_a_gaussian_are_known():
    masses = np.array([0.1, 0.5, 0.95])
    n = 100_000
    found = plot.density_levels(ONE, list(masses), n)
    # p(X) / p(0) is uniform in two dimensions, so the level of mass m is log p(0) + log(1 - m);
    # five standard errors of that quantile.
    error = 5 * np.sqrt(masses * (1 - masses) / n) / (1 - masses)
    assert (np.abs(found - (np.log(1 - masses) - np.log(2 * np.pi))) < error).all()


@pytest.mark.parametrize("masses", [[0.0], [0.5, 1.0], []])
def test_a_mass_outside_zero_and_one_is_refused(masses):
    with pytest.raises(ValueError, match="between 0 and 1"):
        plot.density_levels(ONE, masses)


def test_contours_of_a_gaussian_are_the_circles_that_hold_the_mass(ax):
    plot.density_contours(ONE, None, ax, masses=(0.5, 0.95))
    lines = next(
        c
        for c in ax.collections
        if isinstance(c, matplotlib.contour.QuadContourSet) and not c.filled
    )
    for path, mass in zip(lines.get_paths(), (0.95, 0.5), strict=True):
        radius = np.linalg.norm(path.vertices, axis=1)
        # One percent: the sampling error of the level, five times 0.16 % of mass, moves the
        # radius by at most 0.8 %, and straight lines across a grid square of 0.04 by 0.02 %.
        np.testing.assert_allclose(radius, np.sqrt(-2 * np.log(1 - mass)), rtol=0.01)
    assert sorted(texts(ax)) == ["50 %", "95 %"]


def test_contours_hold_the_mass_of_a_mixture(ax):
    plot.density_contours(TWO, X, ax, masses=(0.75,))
    level = contour_set(ax).levels[0]
    fresh = np.asarray(sample(jax.random.key(9), TWO, 20_000)[0])
    inside = float((np.asarray(log_prob(TWO, fresh)) >= level).mean())
    assert abs(inside - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 20_000)


def test_contours_of_other_columns_are_those_of_the_marginal(ax):
    _, (other,) = plot.new_figure()
    plot.density_contours(THREE_D, X3, ax, dims=(2, 0))
    plot.density_contours(marginal(THREE_D, [2, 0]), X3[:, [2, 0]], other)
    np.testing.assert_allclose(contour_set(ax).levels, contour_set(other).levels)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x2", "x0")


def test_a_nearly_collapsed_component_is_found_between_the_grid_points(ax):
    plot.density_contours(COLLAPSED, X, ax, masses=(0.2,))
    vertices = np.concatenate([path.vertices for path in contour_set(ax).get_paths()])
    assert np.abs(vertices - [2.0, 55.0]).max() < 1e-5  # ten standard deviations
    assert legend_texts(ax) == ["holds 20 %"]  # no room for a label on the line


def test_data_without_extent_still_get_axes(ax):
    plot.density_contours(ONE, np.zeros((5, 2)), ax)
    assert np.ptp(ax.get_xlim()) > 4  # the component decides
    _, (other,) = plot.new_figure()
    plot.density_1d(ONE, np.full(5, 1e6), other)
    assert other.get_xlim()[0] < 0 < 1e6 < other.get_xlim()[1]


def test_a_surface_stands_on_the_lines_of_its_regions():
    figure, (flat,) = plot.new_figure()
    with pytest.raises(ValueError, match="projection='3d'"):
        plot.density_surface(TWO, flat)
    flat.remove()
    axes = figure.add_subplot(projection="3d")
    assert plot.density_surface(TWO, axes, columns=["eruption", "waiting"]) is axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("eruption", "waiting")
    assert legend_texts(axes) == ["holds 95 %", "holds 50 %"]
    lines = [each for each in axes.collections if hasattr(each, "get_paths")][1:]
    assert len(lines) == 2
    image = pixels(plot.png(figure, dpi=60))
    assert (image.min(axis=-1) < 0.9).mean() > 0.02
    tight, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(tight.x0, tight.y0) >= 0
    assert tight.x1 <= width
    assert tight.y1 <= height
    assert plot.density_surface(TWO).figure is plt.gcf()


def test_a_surface_draws_samples_for_its_levels_once(monkeypatch):
    calls = []

    def counted(*args):
        calls.append(args)
        return levels(*args)

    levels = density.density_levels
    monkeypatch.setattr(density, "density_levels", counted)
    plot.density_surface(TWO)
    assert len(calls) == 1
