"""Samples and weights for the tests of k-means and of the starts that are drawn by it."""

import numpy as np
import oracle
import pytest

N, K, D = 60, 3, 2


@pytest.fixture(scope="module")
def x(dtype):
    return oracle.draw(0, N, *oracle.parameters(0, k=K, d=D)).astype(dtype)


@pytest.fixture(scope="module")
def weight(dtype):
    return np.resize([1.0, 2.0, 0.0, 0.5, 3.0], N).astype(dtype)
