"""Pictures of how good results are: confusion, errors, intervals."""

import numpy as np
import pytest
from plot_cases import INTERVALS, legend_texts, texts

from jgmm import plot


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


def test_intervals_stand_in_the_row_of_their_scenario(ax):
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
