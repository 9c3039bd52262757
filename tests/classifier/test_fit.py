"""Fits of the classifier, against the textbook and scikit-learn's discriminant analyses."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from classifier_cases import (
    CHECKER,
    CORNERS,
    FITTING,
    FLAT,
    KEY,
    LABELS,
    NAMES,
    TEXT,
    WEIGHTS,
    N,
    X,
)
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.naive_bayes import GaussianNB

import jgmm
from jgmm import classifier
from jgmm.classifier.fit import fit
from jgmm.classifier.labels import class_indices
from jgmm.classifier.model import class_mixture, log_joint, n_parameters, predict, predict_names

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
    found = classifier.posterior(trained, X.astype(dtype))
    assert trained.class_names == NAMES
    assert found.dtype == dtype
    np.testing.assert_allclose(trained.priors, expected[0], **tolerance)
    np.testing.assert_allclose(found, posterior, **tolerance)
    np.testing.assert_allclose(classifier.log_prob(trained, X.astype(dtype)), log_prob, **tolerance)
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
    found = classifier.posterior(fit(X, TEXT, shared=True), X)
    np.testing.assert_allclose(found, theirs.predict_proba(X), **THEIRS)


def test_general_covariance_is_quadratic_discriminant_analysis():
    """Some versions divide by the samples of a class less one; here the variances are made ours."""
    theirs = QuadraticDiscriminantAnalysis().fit(X, TEXT)
    totals = [X[name == TEXT].var(axis=0).sum() for name in NAMES]
    theirs.scalings_ = [s * t / s.sum() for s, t in zip(theirs.scalings_, totals, strict=True)]
    found = classifier.posterior(fit(X, TEXT), X)
    np.testing.assert_allclose(found, theirs.predict_proba(X), **THEIRS)


def test_aligned_covariance_is_naive_bayes():
    priors = [0.2, 0.3, 0.5]
    theirs = GaussianNB(var_smoothing=0, priors=priors).fit(X, TEXT, sample_weight=WEIGHTS)
    trained = fit(X, TEXT, covariance="aligned", priors=priors, sample_weight=WEIGHTS)
    np.testing.assert_allclose(trained.priors, priors, rtol=1e-15)
    np.testing.assert_allclose(classifier.posterior(trained, X), theirs.predict_proba(X), **THEIRS)


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
    a, b = classifier.posterior(forwards, x), classifier.posterior(backwards, x)
    # The same sums over the same classes, taken in another order.
    tolerance = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(a, b[:, ::-1], rtol=tolerance, atol=tolerance)


def test_units_do_not_matter(dtype):
    """A column in other units, and an offset of a thousand standard deviations."""
    scale, shift = np.array([1.0, 1e3, 1e-3]), np.array([1e3, 0.0, 1.0])
    moved = (X * scale + shift).astype(dtype)
    a = predict(fit(X.astype(dtype), TEXT), X.astype(dtype))
    b = predict(fit(moved, TEXT), moved)
    np.testing.assert_array_equal(a, b)


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


def test_a_singular_class_is_named_and_a_ridge_repairs_it():
    with pytest.raises(jgmm.FitError, match="Class 'bee': Its covariance is singular"):
        fit(FLAT, TEXT)
    repaired = fit(FLAT, TEXT, ridge=1e-6)
    one = class_mixture(repaired, 1)
    np.testing.assert_allclose(one.variances[0, 2], 1e-6 * FLAT[:, 2].var(), rtol=1e-9)


# --- transformations ---------------------------------------------------------------------------


def test_under_jit_and_vmap():
    """Traced weights decide what is missing; a class that fails alone is NaN alone."""
    weights = jnp.stack([jnp.ones(N), jnp.asarray(WEIGHTS)])

    def posterior(x, weight):
        return classifier.posterior(fit(x, TEXT, sample_weight=weight), x)

    found = jax.jit(jax.vmap(posterior, in_axes=(None, 0)))(jnp.asarray(X), weights)
    for i in range(2):
        expected = classifier.posterior(fit(X, TEXT, sample_weight=weights[i]), X)
        np.testing.assert_allclose(found[i], expected, rtol=1e-9, atol=1e-12)
    trained = jax.jit(lambda x: fit(x, TEXT))(jnp.asarray(FLAT))
    broken = jnp.isnan(log_joint(trained, X)).any(axis=0)
    assert broken.tolist() == [False, True, False]
