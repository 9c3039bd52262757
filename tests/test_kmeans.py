"""k-means against plain loops; clusters that run empty."""

import chex
import jax
import jax.numpy as jnp
import kmeans_cases
import numpy as np
import oracle
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from kmeans_cases import D, K, N
from marks import in_double

import jgmm
from jgmm import kmeans
from jgmm._core.status import Status
from jgmm._data.samples import check_counts, make_samples
from jgmm.kmeans import KMeansResult, lloyd, nearest, seed

x, weight = kmeans_cases.x, kmeans_cases.weight  # fixtures
few = settings(max_examples=10, phases=[Phase.explicit, Phase.generate])


@pytest.fixture(scope="module")
def found(x):
    return kmeans.fit(jax.random.key(0), x, K, n_restarts=8)


@jax.jit
def descend(centers, x, weight):
    every = jnp.ones(len(centers), bool)
    ended = lloyd(centers[None], make_samples(x, weight), every, 100)
    return jax.tree.map(lambda leaf: leaf[0], ended)


def test_result_is_consistent(found, x, dtype, tolerance):
    assert isinstance(found, KMeansResult)
    assert found.centers.shape == (K, D)
    assert found.centers.dtype == found.inertia.dtype == dtype
    assert Status(int(found.status)) is Status.CONVERGED
    exact, centers = x.astype(np.float64), np.asarray(found.centers, np.float64)
    np.testing.assert_allclose(found.inertia, oracle.inertia(exact, centers), **tolerance)
    labels = np.asarray(found.labels)
    assert set(labels) == set(range(K))
    for k in range(K):  # every center is the mean of its own
        np.testing.assert_allclose(centers[k], exact[labels == k].mean(axis=0), **tolerance)
    np.testing.assert_array_equal(kmeans.predict(found.centers, x), labels)
    distance = ((exact[:, None] - centers) ** 2).sum(axis=2)
    np.testing.assert_array_equal(labels, distance.argmin(axis=1))


def test_lloyd_is_the_loop(x, weight, dtype, tolerance):
    exact = x.astype(np.float64)
    for w in (np.ones(N, dtype), weight):
        counts = w > 0
        start = exact[:K] + 0.5
        ended = descend(jnp.asarray(start, dtype), x, w)
        expected, _ = oracle.lloyd(exact[counts], start, w[counts])
        np.testing.assert_allclose(ended.centers, expected, **tolerance)


@few
@given(start=st.integers(0, 99))
def test_inertia_never_rises(start, x, weight):
    rows = np.random.default_rng(start).choice(N, K, replace=False)
    centers = jnp.asarray(x[rows])
    ended = descend(centers, x, weight)
    exact = x.astype(np.float64)
    before = oracle.inertia(exact, x[rows].astype(np.float64), weight)
    assert float(ended.inertia) <= before * (1 + 1e-5)
    assert Status(int(ended.status)) is Status.CONVERGED


@in_double
def test_more_restarts_are_never_worse(x, found):
    """Restart r does not depend on how many there are, but for the order of sums."""
    one = kmeans.fit(jax.random.key(0), x, K, n_restarts=1)
    assert float(found.inertia) <= float(one.inertia) * (1 + N * np.finfo(x.dtype).eps)


@in_double
def test_the_best_of_many_restarts_is_the_best_partition(dtype):
    """Against all partitions of eight samples into two."""
    x = np.random.default_rng(0).normal(size=(8, 2)).astype(dtype)
    best = min(
        oracle.inertia(x, [x[mask].mean(axis=0), x[~mask].mean(axis=0)])
        for mask in (((code >> np.arange(8)) & 1).astype(bool) for code in range(1, 2**7))
    )
    found = kmeans.fit(jax.random.key(0), x, 2, n_restarts=32)
    np.testing.assert_allclose(found.inertia, best, rtol=100 * np.finfo(dtype).eps)


def test_a_weight_of_two_is_a_doubled_row(x, dtype, tolerance):
    half = N // 2
    twice = np.concatenate([x[:half], x[:half]])
    doubled = np.concatenate([np.full(half, 2, dtype), np.zeros(half, dtype)])
    once = descend(jnp.asarray(x[:K]), twice, np.ones(N, dtype))
    counted = descend(jnp.asarray(x[:K]), twice, doubled)
    np.testing.assert_allclose(counted.centers, once.centers, **tolerance)
    np.testing.assert_allclose(counted.inertia, once.inertia, **tolerance)


@in_double
def test_the_inertia_of_a_fit_counts_weights(x, weight, tolerance):
    found = kmeans.fit(jax.random.key(1), x, K, sample_weight=weight)
    expected = oracle.inertia(
        x.astype(np.float64), np.asarray(found.centers, np.float64), weight.astype(np.float64)
    )
    np.testing.assert_allclose(found.inertia, expected, **tolerance)


@in_double
def test_a_missing_row_may_hold_anything(x, dtype):
    weight = np.ones(N, dtype)
    weight[[0, 7]] = 0
    spoiled = x.copy()
    spoiled[0], spoiled[7] = np.nan, np.inf
    found = [kmeans.fit(jax.random.key(1), rows, K, sample_weight=weight) for rows in (x, spoiled)]
    for field in ("centers", "inertia", "n_steps", "status"):
        chex.assert_trees_all_equal(getattr(found[0], field), getattr(found[1], field))
    assert np.isfinite(found[0].centers).all()


def test_an_empty_cluster_finds_samples(x, dtype):
    """Two of three centers start where no sample is nearest to them."""
    centers = jnp.asarray(np.stack([x.mean(axis=0), [1e3, 1e3], [-1e3, 1e3]]), dtype)
    ended = descend(centers, x, np.ones(N, dtype))
    assert Status(int(ended.status)) is Status.CONVERGED
    one = ((x - x.mean(axis=0)) ** 2).sum()
    assert float(ended.inertia) < one
    assert len(set(np.asarray(nearest(ended.centers, make_samples(x))[1]))) == K


def test_an_empty_cluster_never_takes_a_missing_row(x, dtype):
    spoiled, weight = x.copy(), np.ones(N, dtype)
    spoiled[3], weight[3] = [500, 500], 0
    centers = jnp.asarray(np.stack([x.mean(axis=0), [1e3, -1e3], [-1e3, 1e3]]), dtype)
    ended = descend(centers, spoiled, weight)
    assert np.abs(np.asarray(ended.centers)).max() < 100


@in_double
@pytest.mark.parametrize("distinct", [1, 2, 3])
def test_duplicates_leave_no_inertia(distinct, x, dtype):
    """No more distinct samples than clusters: each has its own, and nothing is NaN."""
    rows = np.resize(x[:distinct], (N, D))
    found = kmeans.fit(jax.random.key(0), rows, K, n_restarts=2)
    assert np.isfinite(found.centers).all()
    np.testing.assert_allclose(found.inertia, 0, atol=1e3 * np.finfo(dtype).eps ** 2)
    assert len(set(np.asarray(found.labels))) == distinct


def test_seeds_are_distinct_samples(x, dtype):
    draw = jax.jit(lambda keys, x, weight: seed(keys, make_samples(x, weight), 5))
    for centers in np.asarray(draw(jax.random.split(jax.random.key(0), 5), x, np.ones(N, dtype))):
        assert len({tuple(row) for row in centers}) == 5
        assert {tuple(row) for row in centers} <= {tuple(row) for row in x}


def test_seeds_follow_weight_and_squared_distance(dtype):
    """Samples at 0, 1 and 3 with weights 1, 2, 1: the law of the pair, within five errors."""
    x = np.array([[0.0], [1.0], [3.0]], dtype)
    weight = np.array([1.0, 2.0, 1.0])
    expected = np.zeros((3, 3))
    for i in range(3):
        mass = weight * (x[:, 0].astype(np.float64) - float(x[i, 0])) ** 2
        expected[i] = weight[i] / weight.sum() * mass / mass.sum()
    n = 4000
    samples = make_samples(x, weight)
    draws = jax.jit(lambda keys: seed(keys, samples, 2))(jax.random.split(jax.random.key(0), n))
    index = np.searchsorted(x[:, 0], np.asarray(draws)[:, :, 0])
    share = np.zeros((3, 3))
    np.add.at(share, (index[:, 0], index[:, 1]), 1 / n)
    assert (np.abs(share - expected) <= 5 * np.sqrt(expected * (1 - expected) / n)).all()


@pytest.mark.parametrize("name", ["VII", "VVV", "EEI"])
def test_products_assign_as_differences_do(name, x, weight, dtype, tolerance):
    """Also where a center is switched off, though another sample is nearest to it."""
    samples, active = make_samples(x, weight), jnp.asarray([True, False, True, True])
    centers = jnp.stack([jnp.asarray(x[rows]) for rows in ([3, 1, 2, 4], [5, 6, 8, 9])])
    assign = jax.jit(
        lambda safe: kmeans.assign(centers, samples, active, jgmm.covariance.model(name), safe)
    )
    fast, exact = assign(True), assign(jnp.asarray([True, False]))
    by = [kmeans.by_difference(c, samples, active, jgmm.covariance.model(name)) for c in centers]
    np.testing.assert_allclose(fast.counts, [one.counts for one in by], **tolerance)
    np.testing.assert_allclose(fast.log_likelihood, [s.log_likelihood for s in by], **tolerance)
    assert (fast.counts[:, 1] == 0).all()
    assert (fast.center == 0).all()
    # The second restart went by differences, about its own centers, and means agree.
    np.testing.assert_array_equal(exact.center[1], centers[1])
    chex.assert_trees_all_close(jax.tree.map(lambda leaf: leaf[1], exact), by[1], **tolerance)
    used = fast.counts[1] > 0
    means = [
        s.center + s.first / s.counts[..., None]
        for s in (by[1], jax.tree.map(lambda l: l[1], fast))
    ]
    np.testing.assert_allclose(means[1][used], means[0][used], **tolerance)


def test_clusters_too_tight_for_products_are_told_apart(dtype):
    """Pairs of clouds so close together that rounding a squared distance mixes them."""
    apart, rng = np.sqrt(np.finfo(dtype).eps) / 4, np.random.default_rng(0)
    centers = np.repeat([[-1.0, -0.7, 0.9], [1.0, 0.7, -0.9]], 2, axis=0)
    centers[1::2] += apart
    x = np.repeat(centers, 50, axis=0) + apart / 50 * rng.uniform(-1, 1, size=(200, 3))
    samples = make_samples(x.astype(dtype))
    # With this guard off, the counts are 68, 32, 75, 25 in float32.
    found = jax.jit(lambda c: kmeans.assign(c, samples, jnp.ones(4, bool)))(
        jnp.asarray(centers[None], dtype)
    )
    np.testing.assert_array_equal(found.counts, [[50, 50, 50, 50]])


def test_units_do_not_matter(x, dtype):
    """The same labels for data in other units and far from the origin."""
    grid = np.round(x * 64) / 64  # what an offset of 1e4 leaves exact in float32
    plain = kmeans.fit(jax.random.key(0), grid, K)
    moved = kmeans.fit(jax.random.key(0), 4 * grid + 4096, K)
    np.testing.assert_array_equal(moved.labels, plain.labels)
    np.testing.assert_allclose(moved.inertia, 16 * plain.inertia, rtol=1000 * np.finfo(dtype).eps)


@in_double
def test_steps_ran_out(x):
    ended = kmeans.fit(jax.random.key(0), x, K, max_steps=0)
    assert Status(int(ended.status)) is Status.STEPS_RAN_OUT
    assert int(ended.n_steps) == 0


@in_double
def test_inside_jit_bad_data_are_a_status(x):
    spoiled = x.copy()
    spoiled[5, 0] = np.nan
    fit = jax.jit(lambda x: kmeans.fit(jax.random.key(0), x, K).status)
    assert Status(int(fit(spoiled))) is Status.NON_FINITE_DATA
    assert Status(int(fit(x))) is Status.CONVERGED


@in_double
@pytest.mark.parametrize("count", [0, -1, True])
def test_counts_must_be_whole_numbers(count, x):
    with pytest.raises(jgmm.DataError, match="n_components must be a whole number"):
        check_counts(make_samples(x), count, 1)
    with pytest.raises(jgmm.DataError, match="n_restarts must be a whole number"):
        check_counts(make_samples(x), 1, count)


@in_double
def test_a_number_of_steps_that_makes_no_sense_is_refused(x):
    with pytest.raises(jgmm.DataError, match="max_steps must be a whole number of at least 0"):
        kmeans.fit(jax.random.key(0), x, K, max_steps=-1)


@in_double
def test_more_clusters_than_samples_are_refused(x, dtype):
    with pytest.raises(jgmm.DataError, match=r"61 components.*there are 60"):
        kmeans.fit(jax.random.key(0), x, N + 1)
    weight = np.zeros(N, dtype)
    weight[:2] = 1
    with pytest.raises(jgmm.DataError, match=r"3 components.*there are 2 \(of positive weight\)"):
        kmeans.fit(jax.random.key(0), x, 3, sample_weight=weight)


@in_double
def test_predict_needs_the_same_columns(found):
    with pytest.raises(jgmm.DataError, match="x has 3 columns; the centers have 2"):
        kmeans.predict(found.centers, np.zeros((4, 3)))
