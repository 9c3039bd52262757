"""Evaluation of classifiers: confusion matrix and stratified cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jgmm._core.arguments import key_first
from jgmm._core.compilation import without_debug_nans
from jgmm._core.errors import DataError
from jgmm._core.pytree import Leaf
from jgmm._data.arrays import split_missing
from jgmm._data.validation import as_numbers
from jgmm.classifier.fit import _train
from jgmm.classifier.labels import Name
from jgmm.classifier.model import _log_joint
from jgmm.classifier.problem import ACCEPTED, check_arguments, check_sizes, check_status, weights_of
from jgmm.em.options import OptionKeywords, Options
from jgmm.selection.cross_validation import assign_folds, check_folds


def confusion_matrix(
    labels: Any, predicted: Any, n_classes: int, sample_weight: Any = None
) -> Array:
    """Count how often samples of each true class were predicted as each class.

    Args:
      labels: true classes, (N,), whole numbers from 0 to C - 1, as ``class_indices`` returns them.
      predicted: predicted classes, (N,), in the same form, as ``predict`` returns them.
      n_classes: C.
      sample_weight: how many times each sample counts, (N,); samples of weight zero are left out.

    Returns:
      The confusion matrix of counts, (C, C): true classes in rows, predicted classes in columns.
      Its trace counts the correct predictions.

    Raises:
      DataError: labels, predictions and weights differ in shape, or a label is out of range.

    >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    (truth, lost), (predictions, none) = (split_missing(each) for each in (labels, predicted))
    truth, predictions = np.asarray(truth), np.asarray(predictions)
    weights = np.ones(truth.shape, int)
    if sample_weight is not None:
        weights = np.asarray(as_numbers(sample_weight, "sample_weight"))
    if truth.ndim != 1 or not truth.shape == predictions.shape == weights.shape:
        raise DataError(
            "labels, predictions and weights must have one entry a sample; their shapes are "
            f"{truth.shape}, {predictions.shape} and {weights.shape}."
        )
    counted = weights != 0
    for name, values in (("labels", truth[counted]), ("predictions", predictions[counted])):
        if values.dtype.kind not in "iub" or not ((values >= 0) & (values < n_classes)).all():
            raise DataError(f"{name} must be whole numbers from 0 to {n_classes - 1}.")
    if (counted & (lost | none)).any():
        row = int(np.argmax(counted & (lost | none)))
        raise DataError(f"the label or the prediction in row {row} is missing.")
    matrix = np.zeros((n_classes, n_classes), weights.dtype)
    index = (truth[counted].astype(int), predictions[counted].astype(int))
    np.add.at(matrix, index, weights[counted])
    return jnp.asarray(matrix)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CrossValidation:
    """Cross-validated accuracy of a classifier, and its predictions of held-out samples.

    Attributes:
      accuracy: mean over folds of the fraction of samples predicted correctly, ().
      standard_error: standard error of that mean, from the spread of the folds, ().
      per_fold: fraction of samples predicted correctly in each fold, (F,).
      predicted: for each sample the class predicted by the fit without its fold, (N,); -1 where the
        sample is missing.
      folds: number of the fold of each sample, (N,).
      class_names: names of the classes (static).
    """

    accuracy: Leaf
    standard_error: Leaf
    per_fold: Leaf
    predicted: Leaf
    folds: Leaf
    class_names: tuple[Name, ...] = field(metadata={"static": True})


@key_first
@without_debug_nans
@ACCEPTED.signature
def cross_validate(
    key: Key[Array, ""],
    x: Any,
    labels: Any,
    n_folds: int = 10,
    *,
    n_components: int | Sequence[Any] = 1,
    shared: bool = False,
    priors: Any = None,
    sample_weight: Any = None,
    options: Options | None = None,
    **keywords: Unpack[OptionKeywords],
) -> CrossValidation:
    """Cross-validate a classifier: predict every sample by a fit without the sample's fold.

    The folds are stratified: each class is spread evenly over them. All folds are fitted at the
    same time in one program; in each fit the samples of one fold have weight zero.

    Args:
      key: typed key; the same key assigns the same folds whatever the model.
      x: samples in rows, (N, D).
      labels: class of each sample, (N,).
      n_folds: F.
      n_components, shared, priors, options, **keywords: as for ``fit``.
      sample_weight: how many times each sample counts, in fitting and in the
        accuracy, (N,).

    Returns:
      A ``CrossValidation``.

    Raises:
      DataError: as for ``fit``; or a class has too few samples when a fold is left out.
      FitError: as for ``fit``; the text names the fold.

    Reference: Kohavi (1995).

    >>> import jax
    >>> x, labels = [[0.0], [1.0], [2.0], [7.0], [8.0], [9.0]], [0, 0, 0, 1, 1, 1]
    >>> result = cross_validate(jax.random.key(0), x, labels, n_folds=3, covariance="tied")
    >>> float(result.accuracy)
    1.0
    """
    fold_key, fit_key = jax.random.split(key)
    options = ACCEPTED.read(options, keywords)
    problem = check_arguments(
        x, labels, n_components, shared, priors, sample_weight, fit_key, options
    )
    samples, truth = problem.samples, jnp.asarray(problem.labels)
    weights = weights_of(samples)
    check_folds(samples, n_folds)
    check_sizes(problem, n_folds)
    folds = assign_folds(fold_key, samples.n_samples, n_folds, sample_weight=weights, labels=truth)

    def predict_without(f: Array) -> tuple[Array, Array]:
        train = jnp.where(folds == f, 0, weights)
        trained, status = _train(problem, jax.random.fold_in(fit_key, f), train)
        return jnp.argmax(_log_joint(trained, samples.x), axis=1), status

    predictions, status = jax.vmap(predict_without)(jnp.arange(n_folds))
    for f in range(n_folds):
        check_status(problem, status[f], f", without fold {f} of {n_folds}")
    predicted = predictions[folds, jnp.arange(samples.n_samples)]
    zeros = jnp.zeros(n_folds, weights.dtype)
    correct = zeros.at[folds].add(jnp.where(predicted == truth, weights, 0))
    per_fold = correct / zeros.at[folds].add(weights)
    return CrossValidation(
        per_fold.mean(),
        per_fold.std(ddof=1) / jnp.sqrt(jnp.asarray(n_folds, per_fold.dtype)),
        per_fold,
        jnp.where(weights > 0, predicted, -1),
        folds,
        problem.class_names,
    )
