"""Covariance models: the table of all of them, how covariances are stored and estimated."""

from jgmm.covariance.models import MODELS, CovarianceModel, model, register

__all__ = [
    "MODELS",
    "CovarianceModel",
    "model",
    "register",
]
