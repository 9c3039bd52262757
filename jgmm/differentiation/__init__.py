"""Derivatives of a fit: implicit at the optimum, through unrolled steps, influence of samples."""

from jgmm.differentiation.implicit import fit, optimum, regularity
from jgmm.differentiation.influence import (
    influence,
    jackknife_standard_errors,
    leave_one_out,
)
from jgmm.differentiation.unrolled import run_unrolled
from jgmm.uncertainty.intervals import DenseParameters, dense_parameters_of

__all__ = [
    "DenseParameters",
    "dense_parameters_of",
    "fit",
    "influence",
    "jackknife_standard_errors",
    "leave_one_out",
    "optimum",
    "regularity",
    "run_unrolled",
]
