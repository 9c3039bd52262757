"""All pictures: none is cut off, blank, or different each time; and the import of ``jgmm.plot``."""

import subprocess
import sys

import matplotlib.pyplot as plt
import pytest
from plot_cases import (
    COLLAPSED,
    ENDS,
    HISTORIES,
    INTERVALS,
    LABELS,
    ONE,
    RATIOS,
    REFITS,
    ROWS,
    SWITCHED_OFF,
    TWO,
    X,
    pixels,
)

from jgmm import plot
from jgmm.mixture.density import predict, responsibilities

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
    "responsibilities": lambda ax: plot.responsibilities(responsibilities(TWO, X), ax),
    "uncertainty": lambda ax: plot.uncertainty(X, responsibilities(TWO, X), ax),
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


def drawn(name):
    figure, (axes,) = plot.new_figure()
    assert DRAWINGS[name](axes) is axes
    return figure, axes


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
