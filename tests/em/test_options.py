"""What stops EM, and what it is given beside the samples."""

import numpy as np
import pytest

import jgmm
from jgmm._data import standardization
from jgmm._data.samples import identity, make_samples
from jgmm.em.options import Options, make_control

X = np.random.default_rng(0).normal(size=(20, 2)) * [1, 3] + [5, 0]


@pytest.mark.parametrize("value", [-1e-3, np.nan])
@pytest.mark.parametrize("which", ["tol", "rtol", "ridge"])
def test_controls_below_zero_are_refused(which, value):
    with pytest.raises(jgmm.DataError, match=f"{which} must be at least zero"):
        Options(**{which: value}).control(make_samples(X), 2)


def test_default_tolerances_follow_the_dtype():
    assert float(make_control(np.float64, None, None, 0.0).tol) == 1e-8
    np.testing.assert_allclose(float(make_control(np.float32, None, None, 0.0).tol), 1e-6)


def test_a_conjugate_prior_is_the_same_from_samples_and_from_their_frame(dtype, tolerance):
    samples = make_samples(X.astype(dtype))
    frame = standardization.standardize(samples, jgmm.covariance.model("full")).frame
    options = Options(prior="conjugate")
    one, other = (options.control(whole, 3).prior for whole in (samples, frame))
    for a, b in zip(vars(one).values(), vars(other).values(), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)
    covariance = np.cov(X.T, bias=True) / 3
    np.testing.assert_allclose(one.root @ one.root.T, covariance, **tolerance)


def test_what_the_model_cannot_bear_is_refused():
    with pytest.raises(jgmm.DataError, match="VVE takes no floor"):
        Options("VVE", floor=0.1).control(make_samples(X), 2)
    prior = jgmm.mixture.conjugate(X, 2)
    with pytest.raises(jgmm.DataError, match="the prior is for 2 columns; x has 3"):
        Options(prior=prior).control(identity(3, np.float64), 2)
