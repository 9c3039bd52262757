"""The exponential-family form: the product of features and parameters is the log joint density."""

import numpy as np
import oracle
import pytest

import jgmm
from jgmm._data.samples import make_samples
from jgmm.em import exponential_family

K, D = 3, 4


def given(name, dtype, seed=3):
    truth = oracle.parameters(seed, k=K, d=D, model=name)
    return jgmm.make_mixture(*(a.astype(dtype) for a in truth), name)


@pytest.mark.parametrize("name", oracle.FREE)
def test_product_of_features_and_parameters_is_the_log_joint(name, dtype, tolerance):
    mixture = given(name, dtype)
    x = np.random.default_rng(0).normal(size=(5, D)).astype(dtype)
    read = exponential_family.read_for(mixture.model)
    block = exponential_family.features(mixture.model, read(make_samples(x), 0, 5)[0])
    assert 1 + len(block.x) + len(block.quadratic) == exponential_family.n_features(
        mixture.model, D
    )
    eta = exponential_family.natural_parameters(mixture)
    assert (eta.quadratic is None) == mixture.model.shared
    found = exponential_family.scores(eta, block)
    if mixture.model.shared:
        found = found + exponential_family.shared_score(mixture, block.x)[None, :]
    expected = jgmm.e_step(mixture, x)
    # Scores here are of order ten.
    limits = {"rtol": tolerance["rtol"], "atol": 10 * tolerance["atol"]}
    log_joint = expected.log_resp + expected.log_prob[:, None]
    np.testing.assert_allclose(found.T, log_joint, **limits)
