"""Choose the number of components and the covariance model."""

from jgmm.selection.agreement import adjusted_rand_index
from jgmm.selection.criteria import CRITERIA, aic, aicc, bic, criteria, entropy, icl, icl_map
from jgmm.selection.cross_validation import held_out
from jgmm.selection.likelihood_ratio import bootstrap_test, sequential_test
from jgmm.selection.selection import Selection

__all__ = [
    "CRITERIA",
    "Selection",
    "adjusted_rand_index",
    "aic",
    "aicc",
    "bic",
    "bootstrap_test",
    "criteria",
    "entropy",
    "held_out",
    "icl",
    "icl_map",
    "sequential_test",
]
