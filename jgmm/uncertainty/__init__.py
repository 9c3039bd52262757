"""Standard errors and confidence intervals: from the information matrix or the bootstrap."""

from jgmm.uncertainty.bootstrap import Bootstrap, bootstrap
from jgmm.uncertainty.information import Curvature, curvature, standard_errors
from jgmm.uncertainty.intervals import Parameters, Uncertainty, parameters_of
from jgmm.uncertainty.label_switching import relabel

__all__ = [
    "Bootstrap",
    "Curvature",
    "Parameters",
    "Uncertainty",
    "bootstrap",
    "curvature",
    "parameters_of",
    "relabel",
    "standard_errors",
]
