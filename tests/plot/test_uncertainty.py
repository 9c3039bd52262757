"""Pictures of uncertainty: responsibilities, intervals, refits, likelihood ratios."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from plot_cases import RATIOS, REFITS, THREE_D, TWO, X, legend_texts

from jgmm import plot
from jgmm.mixture.conditioning import marginal
from jgmm.uncertainty.intervals import Parameters, Uncertainty


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


# Uncertainty


def uncertainty(mixture, half):
    """Intervals that reach so far to both sides."""
    estimate = Parameters(*(np.asarray(getattr(mixture, name)) for name in Parameters._fields))
    moved = [Parameters(*(part + by for part in estimate)) for by in (-half, half)]
    return Uncertainty(estimate, estimate, *moved, 0.95, "by hand", estimate)


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


def test_the_statistic_of_the_data_stands_among_its_replicates(ax):
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
