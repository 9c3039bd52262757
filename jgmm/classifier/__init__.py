"""Gaussian Bayes classifier: a Gaussian, or a mixture of Gaussians, for each class."""

from jgmm.classifier.evaluation import confusion_matrix, cross_validate
from jgmm.classifier.fit import fit
from jgmm.classifier.model import (
    Classifier,
    class_mixture,
    log_joint,
    log_prob,
    n_parameters,
    posterior,
    predict,
    predict_names,
)

__all__ = [
    "Classifier",
    "class_mixture",
    "confusion_matrix",
    "cross_validate",
    "fit",
    "log_joint",
    "log_prob",
    "n_parameters",
    "posterior",
    "predict",
    "predict_names",
]
