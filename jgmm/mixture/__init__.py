"""Gaussian mixtures: parameters, density, marginals and conditionals, prior and noise."""

from jgmm.mixture import gaussian, noise, prior, unconstrained
from jgmm.mixture.conditioning import cov, mean
from jgmm.mixture.conversion import from_sklearn, to_sklearn
from jgmm.mixture.mixture import change_coordinates, n_parameters
from jgmm.mixture.noise import Noise
from jgmm.mixture.prior import Prior, conjugate

__all__ = [
    "Noise",
    "Prior",
    "change_coordinates",
    "conjugate",
    "cov",
    "from_sklearn",
    "gaussian",
    "mean",
    "n_parameters",
    "noise",
    "prior",
    "to_sklearn",
    "unconstrained",
]
