"""Axes to draw on; and no figure is left open after a test."""

import matplotlib.pyplot as plt
import pytest

from jgmm import plot


@pytest.fixture
def ax():
    _, (axes,) = plot.new_figure()
    return axes


@pytest.fixture(autouse=True)
def _no_figures_left():
    yield
    plt.close("all")
