"""Standard errors and confidence intervals: from the information matrix or the bootstrap."""

from jgmm.uncertainty.bootstrap import bootstrap
from jgmm.uncertainty.information import standard_errors
from jgmm.uncertainty.intervals import Parameters, parameters_of
from jgmm.uncertainty.label_switching import relabel

__all__ = [
    "Parameters",
    "bootstrap",
    "parameters_of",
    "relabel",
    "standard_errors",
]
