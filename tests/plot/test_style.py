"""What all pictures share: colours, markers, names and legends."""

import numpy as np
from plot_cases import LABELS, X, legend_texts

from jgmm import plot


def test_looks_differ_in_colour_and_marker_and_later_ones_in_their_combination():
    first = [plot.component_style(k) for k in range(8)]
    assert len({look.color for look in first}) == len({look.marker for look in first}) == 8
    assert len({plot.component_style(k)[:2] for k in range(64)}) == 64
    assert plot.component_style(-1).color not in plot.COLORS


def test_every_pair_of_the_first_colours_differs_in_print_or_marker():
    # Markers tell components apart where the lightness of two colours is alike.
    assert len(set(plot.MARKERS)) == len(plot.COLORS)


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
