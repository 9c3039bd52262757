"""A problem for the tests of EM, from which no covariance model collapses, and its fixtures."""

import numpy as np
import oracle
import pytest

import jgmm
from jgmm._core.status import Status
from jgmm.fitting import single_run

N, K, D = 150, 3, 3
STEPS, LONG = 60, 1000  # two only, because the length of the history makes the program
SEED = 8  # components that overlap, and from which no model collapses
# An iteration within the M-step stops when it has no more than a rounding of the log-likelihood to
# gain. That leaves covariances uncertain by the root of it over the curvature; axes in common, in a
# plane where components are round, by the more.
COMMON_AXES = ("EVE", "VVE")
ITERATED = {
    np.dtype(t): {"rtol": limit, "atol": limit}
    for t, limit in (("float32", 3e-2), ("float64", 1e-4))
}
# In double precision every model, in single one of each way to estimate: in closed form, with the
# inner iterations over shapes, and along axes; between them are all three ways of storage.
CASES = [(name, "float64") for name in oracle.NAMES]
CASES += [(name, "float32") for name in ("full", "tied", "spherical", "VEI", "EVE", "VVE")]


def beginning(name="full"):
    """Weights, means and covariances near the truth, and too wide."""
    weights, means, covariances = oracle.parameters(SEED, k=K, d=D, model=name)
    return weights, 0.7 * means + 0.3, 1.5 * covariances


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


@pytest.fixture(scope="module")
def converged(full, x):
    result = single_run.run_em(full, x, max_steps=LONG)
    assert Status(int(result.status)) is Status.CONVERGED
    return result


def run_all(start, x, weight):
    """Sixty steps, or until nothing changes at all."""
    return single_run.run_em(start, x, weight, tol=0.0, rtol=0.0, max_steps=STEPS)


def same(found, expected, tolerance):
    """A mixture against weights, means and covariances as matrices."""
    np.testing.assert_allclose(found.weights, expected[0], **tolerance)
    np.testing.assert_allclose(found.means, expected[1], **tolerance)
    if found.covariance in oracle.ITERATED:
        tolerance = ITERATED[found.means.dtype]
    np.testing.assert_allclose(found.covariances, expected[2], **tolerance)


def never_falls(result, dtype):
    """By no more than the rounding of a sum of N terms."""
    history = np.asarray(result.history, np.float64)[: int(result.n_steps) + 1]
    assert np.isfinite(history).all()
    slack = N * np.finfo(dtype).eps * np.abs(history).max()
    assert (np.diff(history) > -slack).all()
    assert history[-1] > history[0] + 1  # it did go somewhere
