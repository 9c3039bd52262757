"""Every way to draw starts: valid mixtures, whatever the model, the weights and the units."""

import functools

import chex
import jax
import kmeans_cases
import numpy as np
import oracle
import pytest
from kmeans_cases import D, K, N
from marks import in_double

import jgmm
from jgmm._data.samples import make_samples
from jgmm._data.standardization import center_and_scale
from jgmm.initialization import methods
from jgmm.initialization.methods import STARTS
from jgmm.mixture.mixture import to_original

x, weight = kmeans_cases.x, kmeans_cases.weight  # fixtures
EVERY = np.ones(K, bool)


def inside(x, weight=None, per_column=True):
    return center_and_scale(make_samples(x, weight), per_column)


@functools.cache
def begin(name, covariance):
    """The start as one program of key, samples and weights, in the user's units."""

    @jax.jit
    def one(key, x, weight, active):
        samples = inside(x, weight, jgmm.covariance.model(covariance).per_column)
        starts = STARTS[name](key[None], samples, active, covariance)
        return to_original(jax.tree.map(lambda leaf: leaf[0], starts), samples.frame)

    return lambda key, x, weight, active=EVERY: one(key, x, weight, active)


@pytest.fixture(scope="module", params=list(STARTS))
def start(request):
    return request.param


@pytest.fixture(scope="module")
def program(start):
    return begin(start, "full")


# The M-step of the models is tried in both precisions in tests/em/test_m_step.py.
@pytest.mark.parametrize(
    ("start", "covariance", "dtype"),
    [
        *((start, "full", dtype) for start in STARTS for dtype in ("float32", "float64")),
        ("points", "tied", "float64"),
        ("kmeans++", "diag", "float64"),
        ("kmeans", "EII", "float64"),
        ("points", "EEV", "float64"),
        ("kmeans++", "EVE", "float64"),
        ("kmeans", "VEV", "float64"),
        ("short_em", "VVE", "float64"),
    ],
    indirect=["dtype"],
)
def test_every_start_gives_a_valid_mixture(start, covariance, x, weight, dtype):
    mixture = begin(start, covariance)(jax.random.key(0), x, weight)
    assert {leaf.dtype for leaf in jax.tree.leaves(mixture)} == {dtype}
    assert mixture.covariance == covariance
    jgmm.make_mixture(mixture.weights, mixture.means, mixture.covariances, covariance)
    assert np.isfinite(jgmm.log_prob(mixture, x)).all()
    assert len({tuple(row) for row in np.asarray(mixture.means)}) == K


def test_a_start_follows_its_key(program, x, weight):
    one, same, other = (program(jax.random.key(seed), x, weight) for seed in (0, 0, 1))
    chex.assert_trees_all_equal(one, same)
    assert not np.array_equal(one.means, other.means)


def test_a_start_ignores_missing_rows(program, x, weight):
    spoiled = np.where((weight > 0)[:, None], x, np.asarray(np.nan, x.dtype))
    for seed in range(3):
        key = jax.random.key(seed)
        chex.assert_trees_all_equal(program(key, x, weight), program(key, spoiled, weight))


def test_a_start_does_not_depend_on_units(program, x, dtype):
    """Powers of two and whole numbers are exact, so the same samples are drawn."""
    x, ones = np.round(x * 64) / 64, np.ones(N, dtype)
    unit, origin = np.array([4, 8], dtype), np.array([256, -32], dtype)
    # With key 0 two runs of short EM tie but for rounding in single precision, on some CPUs.
    plain = program(jax.random.key(1), x, ones)
    moved = program(jax.random.key(1), unit * x + origin, ones)
    rtol = 1e4 * np.finfo(dtype).eps
    np.testing.assert_allclose(moved.weights, plain.weights, rtol=rtol)
    np.testing.assert_allclose(
        (np.asarray(moved.means) - origin) / unit, plain.means, rtol=rtol, atol=rtol
    )


@in_double
@pytest.mark.parametrize("name", ["kmeans++", "kmeans"])
def test_clusters_do_not_depend_on_units_that_the_model_depends_on(name, x, weight):
    """VVE has no form of its own in other units of a column; what is near what has."""
    unit, program = np.array([1, 1024], x.dtype), begin(name, "VVE")
    plain, moved = (program(jax.random.key(0), each, weight) for each in (x, unit * x))
    np.testing.assert_allclose(moved.weights, plain.weights, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(moved.means) / unit, plain.means, rtol=1e-3, atol=1e-4)
    round_one = begin(name, "spherical")  # its distances are those of the samples as they are
    plain, moved = (round_one(jax.random.key(0), each, weight) for each in (x, unit * x))
    assert np.abs(np.asarray(moved.means) / unit - plain.means).max() > 0.1


@in_double
@pytest.mark.parametrize("name", oracle.NAMES)
def test_restricted_to_its_own_model_a_mixture_is_the_same(name, dtype, tolerance):
    truth = oracle.parameters(3, k=K, d=3, model=name)
    mixture = jgmm.make_mixture(*(a.astype(dtype) for a in truth), name)
    found = methods.project(mixture, name)
    assert found.covariance == name
    if name in oracle.ITERATED:
        tolerance = {"rtol": 1e-3, "atol": 1e-3} if dtype == np.float32 else {"atol": 1e-6}
    np.testing.assert_allclose(found.covariances, truth[2], **tolerance)


@pytest.mark.parametrize("name", oracle.NAMES)
def test_restricted_to_another_model_a_mixture_stays_near(name):
    """As the textbook fits it to samples whose components are known."""
    weights, means, covariances = oracle.parameters(3, k=K, d=3)
    found = methods.project(jgmm.make_mixture(weights, means, covariances), name)
    expected = oracle.fit_covariances(weights, weights[:, None, None] * covariances, name)
    np.testing.assert_allclose(found.covariances, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.means, means)
    np.testing.assert_allclose(found.weights, weights)


@pytest.mark.parametrize("name", list(STARTS))
def test_components_switched_off_change_nothing(name):
    """A program made for three components gives the start of two that one made for two gives."""
    x = oracle.draw(0, N, *oracle.parameters(0, k=K, d=D))
    weight, program = np.resize([1.0, 2.0, 0.0, 0.5, 3.0], N), begin(name, "full")
    padded = program(jax.random.key(0), x, weight, np.arange(K) < 2)
    assert padded.weights[2] == 0
    alone = program(jax.random.key(0), x, weight, np.ones(2, bool))
    leading = jax.tree.map(lambda leaf: leaf[:2], padded)
    # Ten steps of short EM enlarge the rounding by which two programs differ.
    tolerance = 1e-7 if name == "short_em" else 1e-10
    chex.assert_trees_all_close(leading, alone, rtol=tolerance, atol=tolerance)


def test_random_starts_near_the_mean_of_the_data(x, weight):
    mixture = begin("random", "full")(jax.random.key(0), x, weight)
    mean = np.average(x, axis=0, weights=weight)
    assert (
        np.abs(np.asarray(mixture.means) - mean)
        < 4 * x.std(axis=0) * np.sqrt(K / (weight > 0).sum())
    ).all()


def test_points_are_distinct_samples_that_count(x, weight):
    program = begin("points", "full")
    rows = {tuple(row) for row in np.round(x[weight > 0], 3)}
    for seed in range(5):
        mixture = program(jax.random.key(seed), x, weight)
        means = {tuple(row) for row in np.round(np.asarray(mixture.means), 3)}
        assert len(means) == K
        assert means <= rows
        np.testing.assert_allclose(mixture.weights, 1 / K, rtol=1e-6)
        expected = np.cov(x.T, aweights=weight, ddof=0)
        expected += methods.START_RIDGE * np.diag(np.diagonal(expected))
        np.testing.assert_allclose(
            mixture.covariances, np.broadcast_to(expected, (K, D, D)), rtol=1e-4
        )


def test_kmeans_starts_from_the_clusters(x, dtype, tolerance):
    """Weights and means are the shares and means of the clusters."""
    ones = np.ones(N, dtype)
    mixture = begin("kmeans", "full")(jax.random.key(0), x, ones)
    labels = np.asarray(
        jgmm.kmeans.predict(np.asarray(mixture.means) / x.std(axis=0), x / x.std(axis=0))
    )
    np.testing.assert_allclose(mixture.weights, np.bincount(labels) / N, **tolerance)
    for k in range(K):
        np.testing.assert_allclose(mixture.means[k], x[labels == k].mean(axis=0), **tolerance)


def test_better_starts_start_higher(x, dtype):
    """On average over keys; k-means clusters beat their seeds, short runs beat both."""
    ones = np.ones(N, dtype)
    keys = jax.random.split(jax.random.key(0), 8)
    mean = {}
    for name in ("random", "kmeans++", "kmeans", "short_em"):
        one = begin(name, "full")
        mean[name] = np.mean([float(jgmm.log_prob(one(key, x, ones), x).sum()) for key in keys])
    assert mean["random"] < mean["kmeans++"] < mean["short_em"]
    assert mean["random"] < mean["kmeans"] < mean["short_em"]


def test_an_unknown_start_is_refused(x):
    with pytest.raises(jgmm.DataError, match=r"unknown init 'kmean'.*kmeans\+\+"):
        jgmm.fit(jax.random.key(0), x, K, init="kmean")
