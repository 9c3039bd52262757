"""Pictures of data and mixtures: what is drawn where, in which colour."""

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from plot_cases import (
    LABELS,
    ONE,
    SWITCHED_OFF,
    THREE_D,
    TWO,
    X3,
    X,
    contour_set,
    legend_texts,
    pixels,
)

from jgmm import plot
from jgmm._core.errors import DataError
from jgmm.mixture.density import responsibilities
from jgmm.plot import data, style


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
        other.collections[0].get_facecolor()[0, :3], matplotlib.colors.to_rgb(style.LIGHT_GREY)
    )


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
    plot.uncertainty(X, responsibilities(ONE, X), ax)
    assert legend_texts(ax) == ["0", f"below 0.9: 0 of {len(X)}"]


def test_clusters_take_the_look_of_the_component_they_overlap_with():
    figure, axes = plot.new_figure(1, 2)
    both = np.array(axes)  # as ``plt.subplots`` gives them
    left, right = plot.kmeans_and_mixture(X, 1 - LABELS, TWO, LABELS, both)
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
