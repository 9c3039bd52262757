"""scikit-learn estimators: mixtures, model selection, the Bayes classifier, k-means."""

from jgmm.estimators.base import EstimatorError
from jgmm.estimators.classifier import GaussianBayesClassifier
from jgmm.estimators.kmeans import KMeans
from jgmm.estimators.mixture import GaussianMixture, MixtureSelector

__all__ = [
    "EstimatorError",
    "GaussianBayesClassifier",
    "GaussianMixture",
    "KMeans",
    "MixtureSelector",
]
