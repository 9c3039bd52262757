"""Covariance models: their table, and how their covariances are stored and estimated."""

from jgmm.covariance.models import MODELS, CovarianceModel, model, register

__all__ = [
    "MODELS",
    "CovarianceModel",
    "model",
    "register",
]
