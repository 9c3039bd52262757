"""k-means as a scikit-learn estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
)
from sklearn.utils.validation import check_is_fitted

from jgmm import kmeans
from jgmm._data.validation import as_weights
from jgmm.estimators.base import data_precision, make_key, read_samples, warn_unless_converged


class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):
    """k-means: k-means++ seeding and Lloyd's algorithm, all restarts as one program.

    Args:
      n_clusters: K.
      n_init: number of restarts, of which the one with the smallest inertia is kept.
      max_iter: largest number of Lloyd steps of a restart. It stops earlier once the inertia no
        longer decreases.
      random_state: seed, ``RandomState``, or None.

    Attributes:
      cluster_centers_: (K, D).
      labels_: cluster of each sample of ``fit``, (N,).
      inertia_: Σₙ wₙ |xₙ - center|².
      n_iter_: number of steps taken.
      n_features_in_, feature_names_in_: number and names of the columns in ``fit``.

    >>> fitted = KMeans(2, random_state=0).fit([[0.0], [1.0], [9.0]])
    >>> sorted(fitted.cluster_centers_.ravel().tolist())
    [0.5, 9.0]
    """

    def __init__(
        self,
        n_clusters: Any = 8,
        *,
        n_init: Any = 10,
        max_iter: Any = 300,
        random_state: Any = None,
    ):
        """Store the arguments unchanged; ``fit`` checks them."""
        self.n_clusters = n_clusters
        self.n_init = n_init
        self.max_iter = max_iter
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        """Declare that ``transform`` returns distances in the precision of the samples."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> KMeans:
        """Find the cluster centers, and the cluster of each sample.

        Args:
          X: samples in rows, (N, D).
          y: ignored.
          sample_weight: how many times each sample counts, (N,).

        Raises:
          DataError: a ValueError; data or arguments that cannot be used.
        """
        X = read_samples(self, X, sample_weight)
        with data_precision(X.dtype):
            result = kmeans.fit(
                make_key(self.random_state),
                X,
                self.n_clusters,
                n_restarts=self.n_init,
                sample_weight=sample_weight,
                max_steps=self.max_iter,
            )
            self.cluster_centers_ = np.array(result.centers)
            self.labels_ = np.array(result.labels).astype(int)
        self.inertia_, self.n_iter_ = float(result.inertia), int(result.n_steps)
        self._n_features_out = self.n_clusters
        warn_unless_converged(self, result.status)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the index of the nearest center of each sample, (N,)."""
        X = self._check(X)
        with data_precision(X.dtype):
            return np.array(kmeans.predict(self.cluster_centers_, X)).astype(int)

    def transform(self, X: Any) -> np.ndarray:
        """Return the distance of each sample to each center, (N, K)."""
        X = self._check(X)
        centers = self.cluster_centers_.astype(X.dtype, copy=False)
        return np.stack([_lengths(X - center) for center in centers], axis=1)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return minus the inertia of the samples."""
        squares = self.transform(X).min(axis=1).astype(np.float64) ** 2
        with data_precision(squares.dtype):
            weights = as_weights(sample_weight, len(squares), squares.dtype)
        return -float(squares.sum() if weights is None else np.asarray(weights) @ squares)

    def _check(self, X: Any) -> np.ndarray:
        """Check samples for prediction, and convert them to the precision of the result."""
        check_is_fitted(self)
        X = read_samples(self, X, reset=False)
        return X.astype(np.result_type(X, self.cluster_centers_), copy=False)


def _lengths(rows: np.ndarray) -> np.ndarray:
    """Return the lengths of rows, (N,), also where their squares would vanish or overflow."""
    unit = np.ldexp(rows.dtype.type(1), np.frexp(np.abs(rows).max())[1] - 1)
    return np.linalg.norm(rows / unit, axis=1) * unit
