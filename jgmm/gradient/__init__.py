"""Gradient methods for fitting a mixture, for comparison with EM."""

from jgmm.gradient.fit import PARAMETRIZATIONS, fit
from jgmm.gradient.natural_gradient import NaturalGradient, decaying
from jgmm.gradient.newton_cg import NewtonCG
from jgmm.gradient.optimizer import Optimizer, Update
from jgmm.gradient.warm_start import WarmStart

__all__ = [
    "PARAMETRIZATIONS",
    "NaturalGradient",
    "NewtonCG",
    "Optimizer",
    "Update",
    "WarmStart",
    "decaying",
    "fit",
]
