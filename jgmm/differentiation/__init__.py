"""Differentiate a fit: implicitly at the optimum, by unrolled steps, by sample weight."""

from jgmm.differentiation.implicit import fit, optimum, regularity
from jgmm.differentiation.influence import (
    influence,
    jackknife_standard_errors,
    leave_one_out,
    parameters,
)
from jgmm.differentiation.unrolled import run_unrolled

__all__ = [
    "fit",
    "influence",
    "jackknife_standard_errors",
    "leave_one_out",
    "optimum",
    "parameters",
    "regularity",
    "run_unrolled",
]
