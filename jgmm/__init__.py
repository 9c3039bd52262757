"""Gaussian mixtures in JAX.

Pure functions for the density, the E-step and the M-step; thousands of restarts as one program;
results that say how they came about. Start with ``jgmm.fit``.
"""

from jgmm import (
    covariance,
    em,
    gaussian,
    initialize,
    kmeans,
    mixture,
    restarts,
    samples,
    statistics,
    status,
)
from jgmm.em import FitResult, em_step, m_step
from jgmm.mixture import (
    Mixture,
    condition,
    e_step,
    log_prob,
    make_mixture,
    marginal,
    predict,
    responsibilities,
    sample,
)
from jgmm.restarts import fit
from jgmm.statistics import Statistics, accumulate
from jgmm.status import DataError, FitError, Status

__version__ = "0.1.0"

__all__ = [
    "DataError",
    "FitError",
    "FitResult",
    "Mixture",
    "Statistics",
    "Status",
    "accumulate",
    "condition",
    "covariance",
    "e_step",
    "em",
    "em_step",
    "fit",
    "gaussian",
    "initialize",
    "kmeans",
    "log_prob",
    "m_step",
    "make_mixture",
    "marginal",
    "mixture",
    "predict",
    "responsibilities",
    "restarts",
    "sample",
    "samples",
    "statistics",
    "status",
]
