"""Pictures of fits: criteria, convergence, restarts, steps."""

import numpy as np
import pytest
from plot_cases import ENDS, HISTORIES, ROWS, legend_texts, texts

from jgmm import plot


def test_the_best_criterion_is_marked(ax):
    plot.criterion_curves(ROWS, "bic", ax)
    assert ax.lines[-1].get_xydata().tolist() == [[3.0, 100.0]]
    assert legend_texts(ax) == ["full", "tied", "best: full, 3"]
    assert ax.get_ylabel() == "BIC (lower is better)"


def test_the_row_chosen_is_marked_among_equals(ax):
    rows = [{"n_components": 2, "covariance": name, "bic": 1.0} for name in ("VEI", "spherical")]
    plot.criterion_curves(rows, "bic", ax, chosen=rows[1])
    assert legend_texts(ax)[-1] == "best: spherical, 2"


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
