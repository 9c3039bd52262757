"""The Gaussian Bayes classifier: posteriors, predictions and their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifier_cases import TEXT, X

import jgmm
from jgmm import classifier
from jgmm.classifier.fit import fit
from jgmm.classifier.model import predict


def test_a_class_of_prior_zero_is_never_predicted():
    trained = fit(X, TEXT, priors=[0.5, 0.5, 0.0])
    found = classifier.posterior(trained, X)
    assert (found[:, 2] == 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-14)


def test_far_from_every_class_the_posterior_is_still_one():
    found = classifier.posterior(fit(X, TEXT), np.full((1, 3), 1e6))
    np.testing.assert_allclose(found.sum(), 1, rtol=1e-14)


def test_refuses_other_columns():
    with pytest.raises(jgmm.DataError, match="x has 2 columns; the classifier was made for 3"):
        predict(fit(X, TEXT), X[:, :2])


def test_gradient_of_the_log_density():
    """At its mean one Gaussian is flat; a spread of classes is flat where their pulls cancel."""
    trained = fit(X, TEXT, priors=[1.0, 0.0, 0.0])
    slope = jax.grad(lambda x: classifier.log_prob(trained, x[None])[0])
    np.testing.assert_allclose(slope(trained.mixtures.means[0, 0]), 0, atol=1e-12)
    assert jnp.abs(slope(trained.mixtures.means[1, 0])).max() > 1
