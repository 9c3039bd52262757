"""The Gaussian Bayes classifier against the textbook, scikit-learn, and one fit a fold."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pandas
import pytest
from marks import in_double
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.naive_bayes import GaussianNB

import jgmm
from jgmm.classifier import evaluation
from jgmm.classifier.fit import fit
from jgmm.classifier.labels import class_indices
from jgmm.classifier.model import (
    class_mixture,
    log_joint,
    n_parameters,
    predict,
    predict_names,
)
from jgmm.classifier.model import (
    log_prob as model_log_prob,
)
from jgmm.classifier.model import (
    posterior as model_posterior,
)

KEY = jax.random.key(0)
N, NAMES = 45, ("ant", "bee", "cat")
LABELS = np.arange(N) % 3
X = oracle.parameters(seed=2)[1][LABELS] + np.random.default_rng(8).normal(size=(N, 3))
TEXT = np.array(NAMES)[LABELS]
WEIGHTS = np.array([1.0, 2.0, 0.0, 1.0, 0.5] * (N // 5))
# What the arguments say, and the model of the textbook with the classes for components.
MODELS = [
    ({}, "full"),
    ({"shared": True}, "tied"),
    ({"covariance": "aligned"}, "diag"),
    ({"covariance": "spherical", "shared": True}, "EII"),
]


def bayes(x, weights, means, covariances):
    """Posterior (N, C) and log density (N,) by Bayes' rule."""
    log_prob, posterior = oracle.e_step(x, weights, means, covariances)
    return posterior, log_prob


@pytest.mark.parametrize(("arguments", "model"), MODELS)
def test_matches_the_textbook(arguments, model, dtype, tolerance):
    trained = fit(X.astype(dtype), TEXT, sample_weight=WEIGHTS, **arguments)
    expected = oracle.m_step(X, np.eye(3)[LABELS], model, WEIGHTS)
    posterior, log_prob = bayes(X, *expected)
    found = model_posterior(trained, X.astype(dtype))
    assert trained.class_names == NAMES
    assert found.dtype == dtype
    np.testing.assert_allclose(trained.priors, expected[0], **tolerance)
    np.testing.assert_allclose(found, posterior, **tolerance)
    np.testing.assert_allclose(model_log_prob(trained, X.astype(dtype)), log_prob, **tolerance)
    np.testing.assert_array_equal(predict(trained, X), posterior.argmax(axis=1))
    names = predict_names(trained, X)
    np.testing.assert_array_equal(names, np.array(NAMES)[posterior.argmax(axis=1)])
    # The priors are a mixture's weights, so the parameters are those of a mixture.
    assert n_parameters(trained) == jgmm.covariance.model(model).n_parameters(3, 3)
    one = class_mixture(trained, 1)
    np.testing.assert_allclose(one.means, expected[1][1:2], **tolerance)
    np.testing.assert_allclose(one.covariances, expected[2][1:2], **tolerance)


# scikit-learn does the same in another order; classes lie a few standard deviations apart.
THEIRS = {"rtol": 1e-9, "atol": 1e-12}


def test_shared_covariance_is_linear_discriminant_analysis():
    """Its solver "lsqr" divides by the number of samples, as maximum likelihood does."""
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(X, TEXT)
    found = model_posterior(fit(X, TEXT, shared=True), X)
    np.testing.assert_allclose(found, theirs.predict_proba(X), **THEIRS)


def test_general_covariance_is_quadratic_discriminant_analysis():
    """Some versions divide by the samples of a class less one; here the variances are made ours."""
    theirs = QuadraticDiscriminantAnalysis().fit(X, TEXT)
    totals = [X[name == TEXT].var(axis=0).sum() for name in NAMES]
    theirs.scalings_ = [s * t / s.sum() for s, t in zip(theirs.scalings_, totals, strict=True)]
    found = model_posterior(fit(X, TEXT), X)
    np.testing.assert_allclose(found, theirs.predict_proba(X), **THEIRS)


def test_aligned_covariance_is_naive_bayes():
    priors = [0.2, 0.3, 0.5]
    theirs = GaussianNB(var_smoothing=0, priors=priors).fit(X, TEXT, sample_weight=WEIGHTS)
    trained = fit(X, TEXT, covariance="aligned", priors=priors, sample_weight=WEIGHTS)
    np.testing.assert_allclose(trained.priors, priors, rtol=1e-15)
    np.testing.assert_allclose(model_posterior(trained, X), theirs.predict_proba(X), **THEIRS)


def test_weight_zero_is_a_missing_row_and_two_is_a_row_twice(dtype, tolerance):
    """The class "dog" occurs in the missing row only, which may hold anything."""
    x, text, weights = X.astype(dtype), TEXT.astype(object), np.ones(N)
    x[0], text[0], weights[0], weights[4] = np.nan, "dog", 0, 2
    weighted = fit(x, text, sample_weight=weights)
    repeated = fit(np.append(x[1:], x[4:5], axis=0), np.append(TEXT[1:], TEXT[4]))
    assert weighted.class_names == NAMES
    for a, b in zip(jax.tree.leaves(weighted), jax.tree.leaves(repeated), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def test_names_do_not_matter_but_for_their_order(dtype):
    """Renamed in the opposite order, the classes come out in the opposite order."""
    x = X.astype(dtype)
    forwards, backwards = fit(x, LABELS), fit(x, -LABELS)
    assert backwards.class_names == (-2, -1, 0)
    a, b = model_posterior(forwards, x), model_posterior(backwards, x)
    # The same sums over the same classes, taken in another order.
    tolerance = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(a, b[:, ::-1], rtol=tolerance, atol=tolerance)


def test_a_class_of_prior_zero_is_never_predicted():
    trained = fit(X, TEXT, priors=[0.5, 0.5, 0.0])
    found = model_posterior(trained, X)
    assert (found[:, 2] == 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-14)


def test_far_from_every_class_the_posterior_is_still_one():
    found = model_posterior(fit(X, TEXT), np.full((1, 3), 1e6))
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-14)


def test_units_do_not_matter(dtype):
    """A column in other units, and an offset of a thousand standard deviations."""
    scale, shift = np.array([1.0, 1e3, 1e-3]), np.array([1e3, 0.0, 1.0])
    moved = (X * scale + shift).astype(dtype)
    a = predict(fit(X.astype(dtype), TEXT), X.astype(dtype))
    b = predict(fit(moved, TEXT), moved)
    np.testing.assert_array_equal(a, b)


# --- mixtures ----------------------------------------------------------------------------------

# Four clusters ten standard deviations apart: class "a" has the first and the last.
PLACES = np.repeat([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]], 10, axis=0)
CHECKER = PLACES + np.random.default_rng(3).normal(size=(40, 2))
CORNERS = np.repeat(["a", "b", "b", "a"], 10)
FITTING = {"covariance": "spherical", "n_restarts": 4, "tol": 1e-12}


@pytest.fixture(scope="module")
def checkered():
    return fit(CHECKER, CORNERS, n_components=2, key=KEY, **FITTING)


def test_mixtures_tell_what_single_gaussians_cannot(checkered):
    single = fit(CHECKER, CORNERS, covariance="spherical")
    assert (predict_names(single, CHECKER) == CORNERS).mean() < 0.9
    assert (predict_names(checkered, CHECKER) == CORNERS).all()
    assert n_parameters(checkered) == 1 + 2 * (1 + 4 + 2)


def test_the_mixture_of_a_class_is_fitted_to_its_rows(checkered):
    """Two clusters ten standard deviations apart have one optimum, whatever the start."""
    ell = 0.0
    for c, name in enumerate("ab"):
        own_rows = name == CORNERS
        alone = jgmm.fit(KEY, CHECKER, 2, sample_weight=own_rows, **FITTING)
        x = CHECKER[own_rows]
        own = class_mixture(checkered, c)
        # The steps stop at 1e-12 nats a sample, so the parameters are off by about its root.
        np.testing.assert_allclose(
            jgmm.log_prob(own, x), jgmm.log_prob(alone.mixture, x), rtol=1e-5
        )
        ell += float(alone.log_likelihood) + len(x) * math.log(0.5)
    # At an optimum the log-likelihood is off by the square of that.
    labels = class_indices(CORNERS, checkered.class_names)
    found = log_joint(checkered, CHECKER)[jnp.arange(40), labels].sum()
    np.testing.assert_allclose(found, ell, rtol=1e-9)


def test_classes_may_differ_in_components(checkered):
    mixed = fit(CHECKER, CORNERS, n_components=[2, 1], key=KEY, **FITTING)
    assert mixed.n_components == (2, 1)
    assert n_parameters(mixed) == 1 + (1 + 4 + 2) + (2 + 1)
    first, second = (class_mixture(mixed, c) for c in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, class_mixture(checkered, 0))
    b = CHECKER[CORNERS == "b"]
    np.testing.assert_allclose(second.means, b.mean(axis=0)[None], rtol=1e-12)
    np.testing.assert_allclose(second.variances, np.full((1, 2), b.var(axis=0).mean()), rtol=1e-12)
    # Padding has no weight: the density of the class is that of its one Gaussian.
    padded = log_joint(mixed, CHECKER)[:, 1] - mixed.log_priors[1]
    np.testing.assert_allclose(padded, jgmm.log_prob(second, CHECKER), rtol=1e-12)


# --- what cannot be learned --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": TEXT[:9]}, r"labels must be one a sample, shape \(45,\)"),
        ({"labels": ["ant"] * N}, "labels hold one class only, 'ant'"),
        (
            {"labels": [*["dog"] * 3, *TEXT.tolist()[3:]]},
            "class 'dog' has 3 .*'full'.* need at least 4",
        ),
        (
            {"labels": ["dog", *TEXT.tolist()[1:]], "covariance": "diag"},
            "class 'dog' has 1 .*'diag'.* need at least 2",
        ),
        ({"priors": [0.5, 0.5]}, r"priors must have shape \(3,\)"),
        ({"priors": [0.5, 0.5, 0.5]}, "nonnegative and sum to one"),
        ({"n_components": 0}, "n_components must be a whole number of at least 1, or 3 of them"),
        ({"n_components": [1, 2]}, "or 3 of them, one a class"),
        ({"n_components": 2, "shared": True, "key": KEY}, "shared=True is for one Gaussian"),
        ({"n_components": 16, "key": KEY}, "class 'ant' has 15 .* need at least 16"),
        ({"n_components": 2, "key": KEY, "n_restarts": 0}, "class 'ant': n_restarts must be"),
        ({"ridge": -1.0}, "ridge must be at least zero"),
        ({"covariance": "ful"}, "unknown covariance model 'ful'"),
        ({"x": X * np.nan}, "x holds nan in row 0"),
    ],
)
def test_refuses(change, said):
    arguments = {"x": X, "labels": TEXT, **change}
    with pytest.raises(ValueError, match=said):
        fit(arguments.pop("x"), arguments.pop("labels"), **arguments)


def test_one_covariance_needs_as_many_samples_as_columns():
    with pytest.raises(jgmm.DataError, match=r"there are 3 samples; .* needs at least 5"):
        fit(X[[0, 1, 3]], TEXT[[0, 1, 3]], shared=True)


def test_a_mixture_needs_a_key():
    with pytest.raises(TypeError, match="key must be a typed key"):
        fit(X, TEXT, n_components=2)


FLAT = X.copy()
FLAT[LABELS == 1, 2] = 0.25


def test_a_singular_class_is_named_and_a_ridge_repairs_it():
    with pytest.raises(jgmm.FitError, match="Class 'bee': Its covariance is singular"):
        fit(FLAT, TEXT)
    repaired = fit(FLAT, TEXT, ridge=1e-6)
    one = class_mixture(repaired, 1)
    np.testing.assert_allclose(one.variances[0, 2], 1e-6 * FLAT[:, 2].var(), rtol=1e-9)


def test_refuses_other_columns():
    with pytest.raises(jgmm.DataError, match="x has 2 columns; the classifier was made for 3"):
        predict(fit(X, TEXT), X[:, :2])


# --- transformations ---------------------------------------------------------------------------


def test_under_jit_and_vmap():
    """Traced weights decide what is missing; a class that fails alone is NaN alone."""
    weights = jnp.stack([jnp.ones(N), jnp.asarray(WEIGHTS)])

    def posterior(x, weight):
        return model_posterior(fit(x, TEXT, sample_weight=weight), x)

    found = jax.jit(jax.vmap(posterior, in_axes=(None, 0)))(jnp.asarray(X), weights)
    for i in range(2):
        expected = model_posterior(fit(X, TEXT, sample_weight=weights[i]), X)
        np.testing.assert_allclose(found[i], expected, rtol=1e-9, atol=1e-12)
    trained = jax.jit(lambda x: fit(x, TEXT))(jnp.asarray(FLAT))
    broken = jnp.isnan(log_joint(trained, X)).any(axis=0)
    assert broken.tolist() == [False, True, False]


def test_gradient_of_the_log_density():
    """At its mean one Gaussian is flat; a spread of classes is flat where their pulls cancel."""
    trained = fit(X, TEXT, priors=[1.0, 0.0, 0.0])
    slope = jax.grad(lambda x: model_log_prob(trained, x[None])[0])
    np.testing.assert_allclose(slope(trained.mixtures.means[0, 0]), 0, atol=1e-12)
    assert jnp.abs(slope(trained.mixtures.means[1, 0])).max() > 1


# --- cross-validation --------------------------------------------------------------------------


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


# --- the old lecture's example -----------------------------------------------------------------


def test_origin_of_cars_from_consumption_and_year():
    """Where a car was made, from miles per gallon and model year.

    Always to guess America, the commonest, is right for 245 of 392, 62.5 %.
    """
    folder = Path(jgmm.__file__).parent / "workbench" / "data"
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
