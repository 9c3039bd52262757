"""Plots of data, mixtures and fits, with matplotlib: ``jgmm.plot``.

Every function takes ``ax`` and returns the Axes on which it has drawn. There are three exceptions:
``pairs`` takes and returns a Figure, ``kmeans_and_mixture`` two Axes, ``density_surface`` Axes of
three dimensions. Without ``ax`` a function opens a new pyplot figure, which a notebook shows. A
program that saves figures should make them with ``new_figure``: they are no global state, and need
not be closed.

    figure, (left, right) = plot.new_figure(1, 2)
    plot.density_contours(mixture, x, left)
    plot.uncertainty(x, jgmm.responsibilities(mixture, x), right)
    figure.savefig("mixture.png")

The module ``data`` draws data and mixtures, ``density`` densities in two dimensions, ``univariate``
those of one column, ``results`` fits and their search, ``evaluation`` how good results are, and
``uncertainty`` their uncertainty. All public functions are available here.
"""

from jgmm._core.errors import UserError

try:
    import matplotlib.axes  # noqa: F401
except ImportError as error:
    raise UserError('plots need matplotlib: pip install "jgmm[workbench]"') from error

# The module first: ``jgmm.plot.uncertainty`` is the function of ``data``, which is bound after it.
import jgmm.plot.uncertainty  # noqa: F401
from jgmm.plot.data import (
    decision_regions,
    ellipses,
    kmeans_and_mixture,
    pairs,
    scatter,
    uncertainty,
)
from jgmm.plot.density import density_contours, density_levels, density_surface
from jgmm.plot.evaluation import confusion, errors, intervals
from jgmm.plot.results import convergence, criterion_curves, restarts, steps
from jgmm.plot.style import COLORS, MARKERS, component_style, new_figure, png
from jgmm.plot.uncertainty import (
    MAX_COLUMNS,
    likelihood_ratios,
    parameter_intervals,
    refits,
    responsibilities,
)
from jgmm.plot.univariate import density_1d, density_intervals

__all__ = [
    "COLORS",
    "MARKERS",
    "MAX_COLUMNS",
    "component_style",
    "confusion",
    "convergence",
    "criterion_curves",
    "decision_regions",
    "density_1d",
    "density_contours",
    "density_intervals",
    "density_levels",
    "density_surface",
    "ellipses",
    "errors",
    "intervals",
    "kmeans_and_mixture",
    "likelihood_ratios",
    "new_figure",
    "pairs",
    "parameter_intervals",
    "png",
    "refits",
    "responsibilities",
    "restarts",
    "scatter",
    "steps",
    "uncertainty",
]
