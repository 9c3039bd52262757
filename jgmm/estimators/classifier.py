"""The Gaussian Bayes classifier as a scikit-learn estimator."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from jgmm._core.errors import DataError
from jgmm._core.pytree import to_host
from jgmm._data.arrays import split_missing
from jgmm._data.dataframes import is_table
from jgmm._data.validation import as_numbers, check_weights_shape
from jgmm.classifier import model
from jgmm.classifier.fit import fit
from jgmm.estimators.base import data_precision, make_key, read_samples


def _labels(y: Any, sample_weight: Any) -> Any:
    """Replace labels that are missing, in rows of weight zero, by another; refuse others."""
    if y is None or is_table(y):  # scikit-learn has its own words for both
        return y
    values, missing = split_missing(y, "y")
    lost = np.flatnonzero(missing & _counted(sample_weight, len(missing)))
    if lost.size:
        raise DataError(f"the label in row {lost[0]} is missing: y contains NaN, None or NA.")
    return values if missing.any() else y


def _counted(sample_weight: Any, n_samples: int) -> np.ndarray:
    """Return the mask of the rows of positive weight, (N,)."""
    if sample_weight is None:
        return np.ones(n_samples, bool)
    weights = np.asarray(as_numbers(sample_weight, "sample_weight"))
    check_weights_shape(weights.shape, n_samples)
    return weights > 0


class GaussianBayesClassifier(ClassifierMixin, BaseEstimator):
    """Gaussian Bayes classifier: a Gaussian, or a mixture, for each class.

    Args:
      covariance_type: name or code of a covariance model. With one Gaussian per class, the model
        describes what the classes have in common: "full" is quadratic discriminant analysis, "tied"
        linear discriminant analysis, "diag" naive Bayes. With several Gaussians per class, it
        describes what the components of one class have in common.
      n_components: number of Gaussians per class: one number, or one for each class in the order
        of ``classes_``.
      shared: use one covariance of the given form, pooled over the classes; only with one Gaussian
        per class.
      priors: P(y = c), in the order of ``classes_``; by default the fractions of the samples.
      ridge: added to every variance, as a fraction of the data's variance.
      n_init, random_state: number of restarts, and seed, of the mixtures.

    Attributes:
      classes_: the labels, (C,), in increasing order.
      priors_: P(y = c), (C,).
      means_: mean of each class, (C, D).
      n_features_in_, feature_names_in_: number and names of the columns in ``fit``.

    >>> x, y = [[0.0], [1.0], [9.0], [10.0]], ["small", "small", "big", "big"]
    >>> GaussianBayesClassifier(shared=True).fit(x, y).predict([[2.0], [8.0]]).tolist()
    ['small', 'big']
    """

    def __init__(
        self,
        covariance_type: Any = "full",
        *,
        n_components: Any = 1,
        shared: Any = False,
        priors: Any = None,
        ridge: Any = 1e-6,
        n_init: Any = 16,
        random_state: Any = None,
    ):
        """Store the arguments unchanged; ``fit`` checks them."""
        self.covariance_type = covariance_type
        self.n_components = n_components
        self.shared = shared
        self.priors = priors
        self.ridge = ridge
        self.n_init = n_init
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> GaussianBayesClassifier:
        """Estimate the prior probability and the density of each class.

        Args:
          X: samples in rows, (N, D).
          y: labels, (N,).
          sample_weight: how many times each sample counts, (N,); zero is the same as
            leaving the row out.

        Raises:
          DataError: a ValueError; data or arguments that cannot be used.
          EstimatorError: a ValueError; a class whose covariance is singular.
        """
        X, y = read_samples(self, X, sample_weight, y=_labels(y, sample_weight))
        check_classification_targets(y)
        # jgmm takes integers, text or booleans as labels; scikit-learn also floating-point numbers.
        labels = np.unique(y, return_inverse=True)[1] if y.dtype.kind == "f" else y
        with data_precision(X.dtype):
            self._trained = to_host(
                fit(
                    X,
                    labels,
                    covariance=self.covariance_type,
                    n_components=self.n_components,
                    shared=self.shared,
                    priors=self.priors,
                    sample_weight=sample_weight,
                    ridge=float(self.ridge),
                    key=make_key(self.random_state),
                    n_restarts=self.n_init,
                )
            )
        counted = _counted(sample_weight, len(y))
        self.classes_ = np.unique(y[counted])
        self.priors_ = np.exp(self._trained.log_priors)
        mixtures = self._trained.mixtures
        self.means_ = np.einsum("ck,ckd->cd", np.exp(mixtures.log_weights), mixtures.means)
        return self

    @property
    def classifier_(self) -> model.Classifier:
        """Priors and densities as jgmm's own ``Classifier``, in JAX's current precision."""
        check_is_fitted(self)
        return jax.tree.map(jnp.asarray, self._trained)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each sample, (N,)."""
        best = self._log_joint(X).argmax(axis=1)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the posterior probability of each class, (N, C), by Bayes' rule."""
        return np.exp(self.predict_log_proba(X))

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Return the logarithm of ``predict_proba``."""
        joint = self._log_joint(X)
        return joint - np.logaddexp.reduce(joint, axis=1, keepdims=True)

    def _log_joint(self, X: Any) -> np.ndarray:
        """Return log P(y = c) + log p(x | y = c), (N, C), on the host."""
        check_is_fitted(self)
        X = read_samples(self, X, reset=False)
        dtype = np.result_type(X, self.means_)
        with data_precision(dtype):
            trained = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), self._trained)
            return np.array(model.log_joint(trained, X))
