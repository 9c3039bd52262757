"""Confusion matrices and cross-validation of a classifier."""

import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas
import pytest
from classifier_cases import CHECKER, CORNERS, FITTING, FLAT, KEY, LABELS, TEXT, WEIGHTS, N, X
from marks import in_double
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.metrics import confusion_matrix as theirs

import jgmm
from jgmm._core.errors import DataError
from jgmm.classifier import evaluation
from jgmm.classifier.evaluation import confusion_matrix
from jgmm.classifier.fit import fit
from jgmm.classifier.labels import class_indices
from jgmm.classifier.model import predict, predict_names


def test_confusion_matches_scikit_learn():
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(4, size=(2, 50))
    weights = rng.integers(3, size=50) / 2
    np.testing.assert_array_equal(confusion_matrix(truth, guess, 4), theirs(truth, guess))
    np.testing.assert_array_equal(
        confusion_matrix(truth, guess, 4, weights), theirs(truth, guess, sample_weight=weights)
    )


def test_confusion_of_classes_that_never_occur_and_rows_that_are_missing():
    found = confusion_matrix([0, 2, 0], [2, 2, -1], 4, [1, 1, 0])
    assert found.sum() == 2
    assert found[0, 2] == found[2, 2] == 1


@pytest.mark.parametrize(
    ("truth", "guess", "said"),
    [
        ([0, 1], [0], "one entry a sample"),
        ([0, 2], [0, 1], "labels must be whole numbers from 0 to 1"),
        ([0, 1], [0, -1], "predictions must be whole numbers from 0 to 1"),
        ([0, 1], [0.0, 1.0], "predictions must be whole numbers"),
    ],
)
def test_confusion_refuses(truth, guess, said):
    with pytest.raises(DataError, match=said):
        confusion_matrix(truth, guess, 2)


@in_double
def test_cross_validation_is_a_fit_without_each_fold(dtype):
    x = X.astype(dtype)
    found = evaluation.cross_validate(KEY, x, TEXT, 5, sample_weight=WEIGHTS)
    folds, present = np.asarray(found.folds), WEIGHTS > 0
    accuracy = np.zeros(5)
    for f in range(5):
        test = folds == f
        trained = fit(x, TEXT, sample_weight=np.where(test, 0, WEIGHTS))
        guess = np.asarray(predict(trained, x))
        np.testing.assert_array_equal(found.predicted[test & present], guess[test & present])
        accuracy[f] = np.average((guess == LABELS)[test], weights=WEIGHTS[test])
    assert (np.asarray(found.predicted)[~present] == -1).all()
    tolerance = {"rtol": 20 * np.finfo(dtype).eps}
    np.testing.assert_allclose(found.per_fold, accuracy, **tolerance)
    np.testing.assert_allclose(found.accuracy, accuracy.mean(), **tolerance)
    # The deviations from the mean cancel a digit.
    error = accuracy.std(ddof=1) / math.sqrt(5)
    np.testing.assert_allclose(found.standard_error, error, rtol=200 * np.finfo(dtype).eps)
    for c in range(3):
        sizes = np.bincount(folds[present & (c == LABELS)], minlength=5)
        assert sizes.max() - sizes.min() <= 1


def test_cross_validation_of_mixtures():
    found = evaluation.cross_validate(KEY, CHECKER, CORNERS, 4, n_components=2, **FITTING)
    assert found.accuracy == 1
    assert found.standard_error == 0
    np.testing.assert_array_equal(np.array(found.class_names)[found.predicted], CORNERS)


def test_cross_validation_refuses_classes_too_small_for_its_folds():
    labels = np.where(np.arange(N) < 4, "dog", TEXT)
    fit(X, labels)
    with pytest.raises(jgmm.DataError, match=r"class 'dog' has 3 .* without one of 5 folds"):
        evaluation.cross_validate(KEY, X, labels, 5)


def test_cross_validation_names_the_fold_that_failed():
    """Class "bee" has a variance in its last column by one sample only."""
    x = FLAT.copy()
    x[1, 2] = 0.5
    with pytest.raises(jgmm.FitError, match=r"Class 'bee', without fold \d of 5: Its covariance"):
        evaluation.cross_validate(KEY, x, TEXT, 5)


def test_origin_of_cars_from_consumption_and_year():
    """Where a car was made, from miles per gallon and model year.

    Always to guess America, the commonest, is right for 245 of 392, 62.5 %.
    """
    folder = Path(jgmm.__file__).parent / "workbench" / "readers" / "data"
    cars = pandas.read_csv(folder / "autompg.csv")
    x, origin = cars[["mpg", "model_year"]], cars["origin"]
    trained = fit(x, origin)
    assert trained.class_names == ("America", "Asia", "Europe")
    labels = class_indices(origin, trained.class_names)
    matrix = evaluation.confusion_matrix(labels, predict(trained, x), 3)
    assert matrix.tolist() == [[220, 20, 5], [29, 38, 12], [34, 19, 15]]
    theirs = QuadraticDiscriminantAnalysis().fit(x, origin)
    agree = predict_names(trained, x) == theirs.predict(x)
    assert agree.mean() > 0.99  # dividing by one less moves the boundary by a hair
    found = evaluation.cross_validate(KEY, x, origin)
    # Samples not seen are not easier, and four standard errors are not by chance.
    assert 0.625 + 2 * found.standard_error < found.accuracy
    resubstituted = float(jnp.trace(matrix)) / 392
    assert abs(found.accuracy - resubstituted) < 4 * found.standard_error
