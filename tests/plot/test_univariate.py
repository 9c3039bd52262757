"""Pictures of the density of one column: curves, histograms and regions."""

import jax
import numpy as np
import pytest
from plot_cases import (
    COLLAPSED,
    ONE,
    TWO,
    X,
    legend_texts,
    texts,
)

from jgmm import plot
from jgmm.mixture.conditioning import marginal
from jgmm.mixture.density import log_prob, sample
from jgmm.plot import univariate


def test_curves_add_up_to_the_density_which_has_area_one(ax):
    plot.density_1d(TWO, None, ax, dim=1)
    *parts, total = [line.get_ydata() for line in ax.lines]
    places = ax.lines[-1].get_xdata()
    np.testing.assert_allclose(sum(parts), total, rtol=1e-9, atol=1e-12)
    # From three deviations and a margin outwards less than 0.2 % is missing.
    assert np.trapezoid(total, places) == pytest.approx(1, abs=2e-3)


def test_a_histogram_has_area_one_and_survives_a_far_sample(ax):
    height = univariate.draw_histogram(ax, np.append(np.zeros(400), 1e12))
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
