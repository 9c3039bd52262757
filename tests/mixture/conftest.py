"""Mixtures of every model and samples of them, for the tests of mixtures."""

import oracle
import pytest

import jgmm

K, D, N = 3, 3, 50


@pytest.fixture(scope="module", params=oracle.FREE)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def truth(name):
    """Weights, means and covariances as matrices, in float64."""
    return oracle.parameters(1, k=K, d=D, model=name)


@pytest.fixture(scope="module")
def mixture(truth, name, dtype):
    return jgmm.make_mixture(*(a.astype(dtype) for a in truth), name)


@pytest.fixture(scope="module")
def x(dtype):
    return oracle.draw(0, N, *oracle.parameters(1, k=K, d=D)).astype(dtype)


@pytest.fixture(scope="module")
def full(dtype):
    """What tests use that hold for one model as for any other."""
    return jgmm.make_mixture(*(a.astype(dtype) for a in oracle.parameters(1, k=K, d=D)))
