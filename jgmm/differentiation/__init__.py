"""Derivatives of a fit: implicit at the optimum, through unrolled steps, influence of samples."""

from jgmm.differentiation.implicit import fit, optimum, regularity
from jgmm.differentiation.influence import influence, jackknife_standard_errors, leave_one_out
from jgmm.differentiation.unrolled import run_unrolled

__all__ = [
    "fit",
    "influence",
    "jackknife_standard_errors",
    "leave_one_out",
    "optimum",
    "regularity",
    "run_unrolled",
]
