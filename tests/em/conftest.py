"""Samples, weights and starts for the tests of EM."""

import numpy as np
import oracle
import pytest
from em_cases import SEED, D, K, N, beginning

import jgmm


@pytest.fixture(scope="module")
def x(dtype):
    return oracle.draw(0, N, *oracle.parameters(SEED, k=K, d=D)).astype(dtype)


@pytest.fixture(scope="module")
def weight(dtype):
    return np.resize([1.0, 2.0, 0.0, 0.5, 3.0, 1.0, 0.0], N).astype(dtype)


@pytest.fixture(scope="module")
def ones(dtype):
    """What keeps the program the same as with weights."""
    return np.ones(N, dtype)


@pytest.fixture(scope="module")
def name(request):
    return request.param


@pytest.fixture(scope="module")
def start(name, dtype):
    return jgmm.make_mixture(*(a.astype(dtype) for a in beginning(name)), name)


@pytest.fixture(scope="module")
def full(dtype):
    return jgmm.make_mixture(*(a.astype(dtype) for a in beginning()))
