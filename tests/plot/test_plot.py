"""What is drawn where, in which colour; that nothing is cut off, blank, or different each time."""

import io
import subprocess
import sys

import jax
import jax.numpy as jnp
import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from jgmm import plot
from jgmm._core.errors import DataError
from jgmm._core.status import Status
from jgmm.mixture.conditioning import marginal
from jgmm.mixture.density import log_prob, predict, sample
from jgmm.mixture.mixture import make_mixture
from jgmm.plot import data, density, style
from jgmm.selection.likelihood_ratio import RatioTest
from jgmm.uncertainty.bootstrap import Bootstrap
from jgmm.uncertainty.intervals import Parameters, Uncertainty

TWO = make_mixture([0.4, 0.6], [[2.0, 55.0], [4.3, 80.0]], [np.diag([0.1, 30.0])] * 2)
ONE = make_mixture([1.0], [[0.0, 0.0]], [np.eye(2)])
SWITCHED_OFF = make_mixture(
    [0.5, 0.0, 0.5], [[2.0, 55.0], [9.0, 9.0], [4.0, 80.0]], [np.eye(2)] * 3
)
COLLAPSED = make_mixture([0.3, 0.7], [[2.0, 55.0], [4.0, 80.0]], [np.eye(2) * 1e-12, np.eye(2)])
THREE_D = make_mixture(
    [0.5, 0.5], [[0.0, 5.0, -1.0], [3.0, 9.0, 1.0]], [np.diag([1.0, 2.0, 0.5])] * 2
)
X, LABELS = (np.asarray(part) for part in sample(jax.random.key(1), TWO, 120))
X3 = np.asarray(sample(jax.random.key(2), THREE_D, 80)[0])
ROWS = [
    {"n_components": k, "covariance": c, "bic": 100.0 + 5 * (k - 3) ** 2 + (c == "tied")}
    for c in ("full", "tied")
    for k in range(1, 6)
]
INTERVALS = [
    {"scenario": s, "method": m, "mean": v, "low": v - 0.1, "high": v + 0.3}
    for s in ("overlapping", "elongated")
    for m, v in (("k-means", 0.5), ("mixture", 0.9))
]
HISTORIES = {"EM": [-9.0, -5.0, -4.0, np.nan], "gradient": [-9.0, -8.0, -6.0, -5.5]}
RATIOS = [
    RatioTest(1, 250.0, 0.05, np.linspace(2, 20, 19), ONE, ONE),
    RatioTest(2, 5.0, 0.8, np.array([1.0, 6.0, 7.0, np.nan]), ONE, ONE),
]
# Two plot.refits, one with its means moved by one, and one that failed.
REFITS = Bootstrap(
    TWO,
    jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + 1, leaf * np.nan]), TWO),
    np.array([Status.CONVERGED, Status.CONVERGED, Status.COLLAPSED]),
    "weighted",
)
ENDS = {"random": [-30.0, -10.0, np.nan], "k-means": [-10.05, -10.0, -10.0]}

DRAWINGS = {
    "scatter": lambda ax: plot.scatter(X, LABELS, ax, names=["short", "long"]),
    "scatter_plain": lambda ax: plot.scatter(
        X, None, ax, columns=["a very long name " * 9, "$y$ $"]
    ),
    "ellipses": lambda ax: plot.ellipses(TWO, ax),
    "contours": lambda ax: plot.density_contours(TWO, X, ax, labels=LABELS),
    "contours_one": lambda ax: plot.density_contours(ONE, None, ax),
    "contours_off": lambda ax: plot.density_contours(SWITCHED_OFF, X, ax),
    "contours_collapsed": lambda ax: plot.density_contours(COLLAPSED, X, ax),
    "density_1d": lambda ax: plot.density_1d(TWO, X, ax, dim=1),
    "density_1d_regions": lambda ax: plot.density_1d(TWO, X, ax, dim=1, masses=(0.5, 0.95)),
    "density_1d_off": lambda ax: plot.density_1d(SWITCHED_OFF, None, ax),
    "density_1d_collapsed": lambda ax: plot.density_1d(COLLAPSED, X, ax),
    "responsibilities": lambda ax: plot.responsibilities(plot.responsibilities(TWO, X), ax),
    "uncertainty": lambda ax: plot.uncertainty(X, plot.responsibilities(TWO, X), ax),
    "criterion_curves": lambda ax: plot.criterion_curves(ROWS, "bic", ax),
    "convergence": lambda ax: plot.convergence(HISTORIES, ax),
    "convergence_gap": lambda ax: plot.convergence(HISTORIES, ax, gap=True),
    "restarts": lambda ax: plot.restarts(ENDS, ax),
    "steps": lambda ax: plot.steps({"EM": [3, 90, 100], "gradient": [100, 100]}, ax, max_steps=100),
    "confusion": lambda ax: plot.confusion([[9, 1], [0, 5]], ["America", "Europe"], ax),
    "decision_regions": lambda ax: plot.decision_regions(
        lambda points: predict(TWO, points), X, LABELS, ax=ax
    ),
    "errors": lambda ax: plot.errors([10, 100], {"means": [1.0, 0.3]}, ax),
    "intervals": lambda ax: plot.intervals(INTERVALS, ax, reference=1.0),
    "refits": lambda ax: plot.refits(REFITS, X, ax),
    "likelihood_ratios": lambda ax: plot.likelihood_ratios(RATIOS, ax),
}


@pytest.fixture
def ax():
    _, (axes,) = plot.new_figure()
    return axes


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")


def legend_texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def texts(ax):
    return [text.get_text() for text in ax.texts]


def drawn(name):
    figure, (axes,) = plot.new_figure()
    assert DRAWINGS[name](axes) is axes
    return figure, axes


def pixels(content):
    return matplotlib.image.imread(io.BytesIO(content))[..., :3]


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_is_neither_blank_nor_cut_off(name):
    figure, axes = drawn(name)
    content = plot.png(figure, dpi=100)  # the resolution at which the extents below are measured
    box = axes.get_window_extent()
    image = pixels(content)
    top, bottom = (int(image.shape[0] - y) for y in (box.y1, box.y0))
    inside = image[top + 3 : bottom - 3, int(box.x0) + 3 : int(box.x1) - 3]
    assert (inside.min(axis=-1) < 0.9).mean() > 0.002  # marks cover part of the axes …
    assert (image.min(axis=-1) > 0.98).mean() > 0.1  # … and leave white around
    tight = figure.get_tightbbox()  # in inches; what is outside would be cut off
    width, height = figure.get_size_inches()
    assert tight.x0 >= 0
    assert tight.y0 >= 0
    assert tight.x1 <= width
    assert tight.y1 <= height


@pytest.mark.parametrize("name", ["contours_one", "restarts"])
def test_a_picture_drawn_twice_is_the_same_file(name):
    content = plot.png(drawn(name)[0])
    assert plot.png(drawn(name)[0]) == content
    assert b"matplotlib" not in content.lower()  # no version, so it outlives an upgrade


@pytest.mark.parametrize("name", ["scatter", "contours_one", "restarts", "confusion"])
def test_without_axes_a_pyplot_figure_is_made(name):
    before = plt.get_fignums()
    axes = DRAWINGS[name](None)
    assert len(plt.get_fignums()) == len(before) + 1
    assert plt.gcf() is axes.figure


def test_importing_the_module_leaves_pyplot_alone():
    code = (
        "import sys, jgmm.plot as p; p.scatter([[0., 1.]], ax=p.new_figure()[1][0]); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_module_has_a_short_name_that_costs_nothing_until_it_is_used():
    code = (
        "import sys, jgmm; jgmm.fit; assert 'matplotlib' not in sys.modules; "
        "assert 'jgmm.workbench' not in sys.modules; assert 'plot' in dir(jgmm); "
        "assert jgmm.plot is sys.modules['jgmm.plot']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("ask", ["import jgmm.plot", "import jgmm; jgmm.plot.ellipses"])
def test_without_matplotlib_it_is_said_what_to_install(ask):
    code = f"import sys; sys.modules['matplotlib.axes'] = None; {ask}"
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    assert result.returncode != 0
    assert 'pip install "jgmm[workbench]"' in result.stderr.splitlines()[-1]


# Looks


def test_looks_differ_in_colour_and_marker_and_later_ones_in_their_combination():
    first = [plot.look(k) for k in range(8)]
    assert len({look.color for look in first}) == len({look.marker for look in first}) == 8
    assert len({plot.look(k)[:2] for k in range(64)}) == 64
    assert plot.look(-1).color not in plot.COLORS


def test_every_pair_of_the_first_colours_differs_in_print_or_marker():
    # Markers tell components apart where the lightness of two colours is alike.
    assert len(set(plot.MARKERS)) == len(plot.COLORS)


# Points


def test_scatter_draws_each_class_where_it_is_in_its_own_look(ax):
    plot.scatter(X, LABELS, ax, names=["short", "long"])
    for k, collection in enumerate(ax.collections):
        np.testing.assert_array_equal(collection.get_offsets(), X[k == LABELS])
        color = matplotlib.colors.to_rgb(plot.COLORS[k])
        np.testing.assert_allclose(collection.get_facecolor()[0, :3], color)
    assert legend_texts(ax) == ["short", "long"]


def test_scatter_takes_the_columns_of_a_data_frame_and_other_dims(ax):
    frame = pd.DataFrame(X3, columns=["a", "b", "c"])
    plot.scatter(frame, ax=ax, dims=(2, 0))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("c", "a")
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), X3[:, [2, 0]])
    assert ax.get_legend() is None


def test_labels_may_be_words_and_negative_ones_are_grey(ax):
    plot.scatter(X[:3], ["b", "a", "b"], ax)
    assert legend_texts(ax) == ["a", "b"]
    _, (other,) = plot.new_figure()
    plot.scatter(X[:2], [-1, 4], other)
    assert legend_texts(other) == ["none", "4"]
    np.testing.assert_allclose(
        other.collections[0].get_facecolor()[0, :3], matplotlib.colors.to_rgb(style.GUIDE)
    )


def test_names_are_text_not_formulas(ax):
    plot.scatter(X, LABELS, ax, columns=["$ per $x^", "y"], names=["_hidden", "a $b$"])
    figure = ax.figure
    figure.canvas.draw()  # a broken formula would raise here
    assert ax.get_xlabel() == r"\$ per \$x^"
    assert legend_texts(ax)[0].endswith("_hidden")
    assert len(legend_texts(ax)) == 2


def test_many_classes_do_not_flood_the_legend(ax):
    plot.scatter(np.repeat(X, 1, axis=0), np.arange(len(X)) % 40, ax)
    assert len(legend_texts(ax)) == 17
    assert legend_texts(ax)[-1] == "and 24 more"


def test_wrong_input_is_refused_with_what_is_wrong(ax):
    with pytest.raises(DataError, match="row 0, column 'x1'"):
        plot.scatter([[0.0, np.nan]], ax=ax)
    with pytest.raises(ValueError, match="one per sample"):
        plot.scatter(X, LABELS[:-1], ax)
    with pytest.raises(ValueError, match="density_1d"):
        plot.scatter(X[:, :1], ax=ax)
    with pytest.raises(ValueError, match="name all columns"):
        plot.scatter(X, ax=ax, columns=["only one"])
    with pytest.raises(ValueError, match="NaN or infinite"):
        plot.ellipses(jax.tree.map(lambda leaf: leaf * jnp.nan, TWO), ax)


# Ellipses and densities


def test_ellipses_hold_their_mass(ax):
    plot.ellipses(TWO, ax, mass=(0.5, 0.95))
    curves = [line.get_xydata() for line in ax.lines if len(line.get_xdata()) > 1]
    assert len(curves) == 4
    deviations = np.sqrt([0.1, 30.0])
    for curve, (k, mass) in zip(curves, [(0, 0.5), (0, 0.95), (1, 0.5), (1, 0.95)], strict=True):
        z = (curve - np.asarray(TWO.means[k])) / deviations
        # The squared radius is chi-squared with two degrees of freedom; a few rounding errors.
        np.testing.assert_allclose((z**2).sum(axis=1), -2 * np.log(1 - mass), rtol=1e-10)


def test_a_component_of_weight_zero_has_no_ellipse_and_no_curve(ax):
    plot.ellipses(SWITCHED_OFF, ax)
    colors = {line.get_color() for line in ax.lines}
    assert plot.COLORS[1] not in colors
    assert {plot.COLORS[0], plot.COLORS[2]} <= colors
    _, (other,) = plot.new_figure()
    plot.density_1d(SWITCHED_OFF, None, other)
    assert legend_texts(other) == ["mixture", "0 (50 %)", "2 (50 %)"]


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


def contour_set(ax):
    return next(c for c in ax.collections if isinstance(c, matplotlib.contour.QuadContourSet))


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
        # radius by at most 0.8 %, and straight lines across a cell of 0.04 by 0.02 %.
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


def test_curves_add_up_to_the_density_which_has_area_one(ax):
    plot.density_1d(TWO, None, ax, dim=1)
    *parts, total = [line.get_ydata() for line in ax.lines]
    places = ax.lines[-1].get_xdata()
    np.testing.assert_allclose(sum(parts), total, rtol=1e-9, atol=1e-12)
    # From three deviations and a margin outwards less than 0.2 % is missing.
    assert np.trapezoid(total, places) == pytest.approx(1, abs=2e-3)


def test_a_histogram_has_area_one_and_survives_a_far_sample(ax):
    height = density.draw_histogram(ax, np.append(np.zeros(400), 1e12))
    assert len(ax.patches) == 20
    assert sum(bar.get_width() * bar.get_height() for bar in ax.patches) == pytest.approx(1)
    assert height == max(bar.get_height() for bar in ax.patches)


def test_a_peak_far_above_the_histogram_is_cut_off_and_said_to_be(ax):
    plot.density_1d(COLLAPSED, X, ax)
    tallest = max(bar.get_height() for bar in ax.patches)
    assert ax.get_ylim()[1] == pytest.approx(4 * tallest * 1.06)
    # Weight 0.3 at deviation 1e-6, seen from its own mean.
    assert texts(ax) == [f"peak of {0.3 / (1e-6 * np.sqrt(2 * np.pi)):.4g} cut off"]


def test_one_column_may_be_a_flat_list(ax):
    flat = marginal(TWO, [0])
    plot.density_1d(flat, [1.0, 2.0, 3.0, 4.0], ax, columns=["eruptions"])
    assert ax.get_xlabel() == "eruptions"


def test_pairs_draw_the_lower_triangle(ax):
    figure, _ = plot.new_figure(size=(7, 7))
    figure.clear()
    drawn = plot.pairs(X3, THREE_D, np.arange(len(X3)) % 2, ["a", "b", "c"], figure=figure)
    assert drawn is figure
    assert len(figure.axes) == 6
    assert [axes.get_xlabel() for axes in figure.axes[-3:]] == ["a", "b", "c"]
    assert len(figure.legends) == 1
    below = figure.axes[1]
    assert below.get_ylabel() == "b"
    np.testing.assert_array_equal(below.collections[0].get_offsets(), X3[::2, :2])
    assert sum(len(line.get_xdata()) > 1 for line in below.lines) == 2
    content = plot.png(figure, dpi=50)
    assert (pixels(content).min(axis=-1) < 0.9).mean() > 0.01


def test_pairs_of_one_column_and_of_too_many():
    figure = plot.pairs(X[:, :1])
    assert len(figure.axes) == 1
    with pytest.raises(ValueError, match="dims"):
        plot.pairs(np.zeros((3, 11)))
    assert len(plot.pairs(np.eye(11), dims=[0, 10]).axes) == 3


def test_uncertain_samples_are_ringed_and_the_larger_the_less_certain(ax):
    chances = [[1.0, 0.0], [0.8, 0.2], [0.55, 0.45], [0.0, 1.0]]
    plot.uncertainty(X[:4], chances, ax)
    sure, doubtful = ax.collections[:2]
    np.testing.assert_array_equal(sure.get_offsets(), X[:1])
    np.testing.assert_array_equal(doubtful.get_offsets(), X[1:3])
    sizes = doubtful.get_sizes()
    assert sizes[1] > sizes[0] > sure.get_sizes()[0]
    assert legend_texts(ax) == ["0", "1", "below 0.9: 2 of 4"]
    with pytest.raises(ValueError, match="shape"):
        plot.uncertainty(X[:3], chances, ax)


def test_one_component_is_never_doubted(ax):
    plot.uncertainty(X, plot.responsibilities(ONE, X), ax)
    assert legend_texts(ax) == ["0", f"below 0.9: 0 of {len(X)}"]


def test_columns_of_responsibilities_stand_in_groups_and_fill_the_axes(ax):
    chances = np.array([[0.6, 0.4], [0.0, 1.0], [1.0, 0.0], [0.3, 0.7]])
    plot.responsibilities(chances, ax, names=["short", "long"])
    assert legend_texts(ax) == ["short: 2", "long: 2"]
    lower, upper = (each.get_paths()[0] for each in ax.collections)
    for place, share in enumerate([1.0, 0.6, 0.0, 0.3]):  # the surest of each group first
        assert lower.contains_point((place + 0.5, share - 0.01)) == (share > 0)
        assert not lower.contains_point((place + 0.5, share + 0.01))
        assert upper.contains_point((place + 0.5, share + 0.01)) == (share < 1)
    assert [line.get_xdata()[0] for line in ax.lines] == [2]
    with pytest.raises(ValueError, match="3 names for 2"):
        plot.responsibilities(chances, ax, names=["a", "b", "c"])
    with pytest.raises(ValueError, match="finite"):
        plot.responsibilities(chances[0], ax)


def test_clusters_take_the_look_of_the_component_they_overlap_with():
    figure, axes = plot.new_figure(1, 2)
    both = np.array(axes)  # as ``plt.subplots`` gives them
    left, right = plot.kmeans_beside_mixture(X, 1 - LABELS, TWO, LABELS, both)
    assert [left, right] == axes
    for k in range(2):
        np.testing.assert_array_equal(
            left.collections[k].get_offsets(), right.collections[k].get_offsets()
        )
        np.testing.assert_array_equal(
            left.collections[k].get_facecolor(), right.collections[k].get_facecolor()
        )
    assert left.get_xlim() == right.get_xlim()
    assert left.get_ylim() == right.get_ylim()
    centers = [line.get_xydata()[0] for line in left.lines]
    np.testing.assert_allclose(centers[0], X[LABELS == 0].mean(axis=0))
    plot.png(figure, dpi=50)


@pytest.mark.parametrize("n_clusters", [1, 2, 4])
def test_another_number_of_clusters_than_components(n_clusters):
    labels = np.arange(len(X)) % n_clusters
    matched = data._matched(labels, LABELS)
    pairs = {(a, b) for a, b in zip(labels, matched, strict=True)}
    assert len(pairs) == n_clusters == len({b for _, b in pairs})  # a renumbering, one to one


def test_regions_are_what_the_classifier_says(ax):
    plot.decision_regions(lambda points: (points[:, 0] > 3).astype(int), X, LABELS, ax=ax)
    image = ax.images[0]
    left, right, _, _ = image.get_extent()
    places = np.linspace(left, right, 601)[1::2]  # pixel centres
    np.testing.assert_array_equal(image.get_array()[0], places > 3)
    boundary = contour_set(ax).get_paths()[0].vertices
    np.testing.assert_allclose(boundary[:, 0], 3, atol=(right - left) / 300)


def test_one_region_has_no_boundary_and_wrong_predictions_are_refused(ax):
    plot.decision_regions(lambda points: np.zeros(len(points), int), X, LABELS, ax=ax)
    assert not any(isinstance(c, matplotlib.contour.QuadContourSet) for c in ax.collections)
    with pytest.raises(ValueError, match="predict must return"):
        plot.decision_regions(lambda points: np.zeros(3, int), X, LABELS, ax=ax)
    with pytest.raises(ValueError, match="not 2"):
        plot.decision_regions(lambda points: np.zeros(len(points), int), X3, X3[:, 0] > 0, ax=ax)


def test_highest_density_regions_hold_their_mass_and_are_the_smallest_that_do():
    drawn = np.asarray(sample(jax.random.key(3), TWO, 20_000)[0])[:, 1]
    marginal_ = marginal(TWO, [1])
    for mass, n_parts in ((0.5, 2), (0.95, 2), (0.9999, 1)):
        parts = plot.density_intervals(TWO, mass, dim=1)
        assert parts.shape == (n_parts, 2)
        assert (np.diff(parts.ravel()) > 0).all()
        inside = ((drawn[:, None] > parts[:, 0]) & (drawn[:, None] < parts[:, 1])).any(axis=1)
        assert abs(inside.mean() - mass) < 4 * np.sqrt(mass * (1 - mass) / len(drawn)) + 0.006
        ends = np.asarray(log_prob(marginal_, parts.reshape(-1, 1)))
        np.testing.assert_allclose(ends, ends[0], atol=0.01)  # equal density at all ends
    near = plot.density_intervals(ONE, 0.95)  # of a Gaussian: its central interval
    np.testing.assert_allclose(near, [[-1.96, 1.96]], atol=0.02)


def test_regions_of_one_column_are_bars_below_the_axis(ax):
    plot.density_1d(TWO, X, ax, dim=1, masses=(0.95, 0.5))
    bars = [line for line in ax.lines if line.get_linewidth() == 5]
    assert len(bars) == 4
    heights = [line.get_ydata()[0] for line in bars]
    assert 0 > heights[0] == heights[1] > heights[2] == heights[3] > ax.get_ylim()[0]
    np.testing.assert_array_equal(
        [line.get_xdata() for line in bars[2:]], plot.density_intervals(TWO, 0.95, dim=1)
    )
    assert legend_texts(ax)[-2:] == ["holds 50 %", "holds 95 %"]
    assert min(ax.get_yticks()) == 0


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


# Results


def test_the_best_criterion_is_marked(ax):
    plot.criterion_curves(ROWS, "bic", ax)
    assert ax.lines[-1].get_xydata().tolist() == [[3.0, 100.0]]
    assert legend_texts(ax) == ["full", "tied", "best: full, 3"]
    assert ax.get_ylabel() == "BIC (lower is better)"


@pytest.mark.parametrize("criterion", ["held_out", "log_likelihood"])
def test_rows_may_be_objects_and_higher_may_be_better(ax, criterion):
    class Row:
        covariance = "full"

        def __init__(self, k):
            self.n_components = k
            setattr(self, criterion, float(k))

    plot.criterion_curves([Row(1), Row(2)], criterion, ax)
    assert ax.lines[-1].get_xydata().tolist() == [[2.0, 2.0]]


def test_a_failed_fit_leaves_a_gap(ax):
    rows = [row | {"bic": None} if row["n_components"] == 2 else row for row in ROWS]
    plot.criterion_curves(rows, "bic", ax)
    assert np.isnan(ax.lines[0].get_ydata()).tolist() == [False, True, False, False, False]
    _, (other,) = plot.new_figure()
    plot.criterion_curves([row | {"bic": np.nan} for row in ROWS], "bic", other)
    assert texts(other) == ["no fit gave a finite BIC"]


def test_a_criterion_of_unknown_direction_or_absent_is_refused(ax):
    with pytest.raises(ValueError, match="better='lower'"):
        plot.criterion_curves([row | {"gap": 1.0} for row in ROWS], "gap", ax)
    with pytest.raises(ValueError, match="no 'icl'"):
        plot.criterion_curves(ROWS, "icl", ax)


def test_convergence_counts_steps_or_seconds(ax):
    plot.convergence(HISTORIES, ax)
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [0, 1, 2, 3])
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), HISTORIES["EM"])
    _, (other,) = plot.new_figure()
    plot.convergence(HISTORIES, other, seconds={"EM": [0, 0.5, 1, 2], "gradient": [0, 1, 2, 3]})
    np.testing.assert_array_equal(other.lines[0].get_xdata(), [0, 0.5, 1, 2])
    assert other.get_xlabel() == "seconds"


def test_the_gap_to_the_best_leaves_out_the_best(ax):
    plot.convergence(HISTORIES, ax, gap=True)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [5.0, 1.0, np.nan, np.nan])
    assert ax.get_yscale() == "log"


def test_histories_of_many_restarts_share_a_colour(ax):
    plot.convergence({"EM": np.array([[-3.0, -2.0], [-4.0, -2.0], [np.nan, np.nan]])}, ax)
    assert [line.get_color() for line in ax.lines] == [plot.COLORS[0]] * 3
    assert legend_texts(ax) == ["EM"]


def test_restarts_say_how_many_found_the_best_and_how_many_failed(ax):
    plot.restarts(ENDS, ax)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["random\n1 of 3 best, 1 failed", "k-means\n3 of 3 best"]
    np.testing.assert_array_equal(ax.collections[0].get_offsets()[:, 0], [-30.0, -10.0])
    assert ax.lines[-1].get_xdata()[0] == -10.0


def test_steps_say_the_median_and_how_many_ran_out(ax):
    plot.steps({"EM": [10, 20, 30], "gradient": [100, 1000, 1000]}, ax, max_steps=1000)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["EM\nmedian 20", "gradient\nmedian 1000, 2 ran out"]
    assert ax.get_xscale() == "log"
    _, (other,) = plot.new_figure()
    plot.steps({"EM": [0, 1, 2]}, other)  # no logarithm of zero
    assert other.get_xscale() == "linear"


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda ax: plot.convergence({"EM": [np.nan]}, ax), "no step gave"),
        (lambda ax: plot.restarts({"EM": [np.nan, -np.inf]}, ax), "no restart gave"),
        (lambda ax: plot.restarts({}, ax), "no restart gave"),
        (lambda ax: plot.steps({"EM": np.zeros(0)}, ax), "no restarts"),
        (lambda ax: plot.errors([10, 100], {"means": [0.0, 0.0]}, ax), "no error above zero"),
    ],
)
def test_nothing_to_draw_is_said_in_the_picture(ax, draw, said):
    draw(ax)
    assert texts(ax)[0].startswith(said)


def test_confusion_shows_counts_and_shares_of_the_true_class(ax):
    plot.confusion(np.array([[9, 1], [0, 0]]), ["America", "Europe"], ax)
    assert texts(ax) == ["9\n90 %", "1\n10 %"]
    np.testing.assert_array_equal(ax.images[0].get_array(), [[0.9, 0.1], [0.0, 0.0]])
    with pytest.raises(ValueError, match="square"):
        plot.confusion([[1, 2]], ax=ax)
    with pytest.raises(ValueError, match="3 names"):
        plot.confusion([[1, 2], [3, 4]], ["a", "b", "c"], ax)


def test_a_large_confusion_matrix_is_only_shaded(ax):
    plot.confusion(np.eye(30, dtype=int), ax=ax)
    assert texts(ax) == []


def test_the_guide_falls_with_the_square_root(ax):
    sizes = np.array([10, 100, 1000])
    plot.errors(sizes, {"means": 3 / np.sqrt(sizes), "zero": [0.0, 0.1, 0.01]}, ax)
    guide = ax.lines[-1].get_ydata()
    np.testing.assert_allclose(guide, guide[0] / np.sqrt([1, 10, 100]))
    assert np.isnan(ax.lines[1].get_ydata()[0])
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    with pytest.raises(ValueError, match="2 errors for 3"):
        plot.errors(sizes, {"means": [1.0, 2.0]}, ax)


def test_repeated_errors_are_drawn_as_their_median(ax):
    plot.errors([10, 100], {"means": [[1.0, 2.0, 9.0], [0.1, 0.2, 0.9]]}, ax)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [2.0, 0.2])


def test_intervals_stand_beside_their_scenario(ax):
    plot.intervals(INTERVALS, ax, reference=1.0)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["overlapping", "elongated"]
    assert legend_texts(ax) == ["k-means", "mixture"]
    first = ax.containers[0].lines
    assert first[0].get_xydata().tolist() == [[0.5, -0.15]]
    np.testing.assert_allclose(first[2][0].get_segments()[0], [[0.4, -0.15], [0.8, -0.15]])


def test_an_interval_that_does_not_hold_its_mean_is_refused(ax):
    with pytest.raises(ValueError, match="hold its mean"):
        plot.intervals([INTERVALS[0] | {"low": 0.7}], ax)
    with pytest.raises(ValueError, match="no 'high'"):
        plot.intervals([{"scenario": "a", "method": "b", "mean": 1.0, "low": 0.0}], ax)
    plot.intervals([INTERVALS[0] | {"mean": np.nan}], ax)
    assert len(ax.containers) == 0


# Uncertainty


def uncertainty(mixture, half):
    """Intervals that reach so far to both sides."""
    estimate = Parameters(*(np.asarray(getattr(mixture, name)) for name in Parameters._fields))
    moved = [Parameters(*(part + by for part in estimate)) for by in (-half, half)]
    return Uncertainty(estimate, estimate, *moved, level=0.95, method="by hand")


def test_parameters_have_a_panel_each_and_methods_a_colour_each():
    found = {"narrow": uncertainty(THREE_D, 0.01), "wide": uncertainty(THREE_D, 0.1)}
    figure, _ = plot.new_figure(size=(9, 6))
    figure.clear()
    plot.parameter_intervals(found, ["a", "b", "$c$"], figure=figure)
    titles = [axes.get_xlabel() for axes in figure.axes]
    assert titles == [
        "weight",
        *(f"mean of {name}" for name in ("a", "b", r"\$c\$")),
        *(f"variance of {name}" for name in ("a", "b", r"\$c\$")),
    ]
    mean_of_b = figure.axes[2]
    lines = [np.asarray(each.get_segments())[:, :, 0] for each in mean_of_b.collections]
    np.testing.assert_allclose(lines[0], [[4.99, 5.01], [8.99, 9.01]])
    np.testing.assert_allclose(lines[1], [[4.9, 5.1], [8.9, 9.1]])
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["narrow", "wide"]
    assert legend.get_title().get_text() == "95 % intervals"
    tight, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert min(tight.x0, tight.y0) >= 0
    assert tight.x1 <= width
    assert tight.y1 <= height


def test_intervals_of_one_column_and_of_what_is_not_there():
    one = marginal(TWO, [0])
    before = len(plt.get_fignums())
    figure = plot.parameter_intervals({"one": uncertainty(one, 0.1)})
    assert len(plt.get_fignums()) == before + 1
    assert [axes.get_xlabel() for axes in figure.axes] == ["weight", "mean of x0", "variance of x0"]
    with pytest.raises(ValueError, match="choose 1 to 6 of the 1 columns"):
        plot.parameter_intervals({"one": uncertainty(one, 0.1)}, dims=[1])
    with pytest.raises(ValueError, match="uncertainties of one mixture"):
        plot.parameter_intervals({"a": uncertainty(one, 0.1), "b": uncertainty(TWO, 0.1)})
    with pytest.raises(ValueError, match="uncertainties of one mixture"):
        plot.parameter_intervals({})


def test_refits_that_failed_are_not_drawn(ax):
    plot.refits(REFITS, X, ax)
    per_component = [each for each in ax.collections if hasattr(each, "get_segments")]
    assert [len(each.get_segments()) for each in per_component] == [2, 2]
    first, second = per_component[0].get_segments()
    np.testing.assert_allclose(first.mean(axis=0), TWO.means[0], rtol=0.05)
    np.testing.assert_allclose(second.mean(axis=0), TWO.means[0] + 1, rtol=0.05)
    assert legend_texts(ax) == ["component 0", "component 1", "2 refits"]


def test_the_data_stand_beside_what_was_drawn(ax):
    plot.likelihood_ratios(RATIOS, ax)
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "1 against 2\np = 0.05",
        "2 against 3\np = 0.8, 1 failed",
    ]
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[250.0, 0.0]], [[5.0, 1.0]]]
    assert [len(each.get_offsets()) for each in ax.collections] == [19, 3]
    assert ax.get_xscale() == "function"
    assert ax.get_xticks().tolist() == [0, 3, 10, 30, 100]
    _, (other,) = plot.new_figure()
    plot.likelihood_ratios(RATIOS[1:], other)
    assert other.get_xscale() == "linear"
    with pytest.raises(ValueError, match="no test"):
        plot.likelihood_ratios([])
