"""The M-step of every covariance model, against the textbook."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from em_cases import CASES, ITERATED, SEED, D, K, N, same
from marks import in_double

import jgmm
from jgmm._data import standardization
from jgmm._data.samples import make_samples
from jgmm.em import m_step
from jgmm.em.statistics import Statistics, expected_log_likelihood
from jgmm.mixture.mixture import to_original

of_every_model = pytest.mark.parametrize(("name", "dtype"), CASES, indirect=True)


# The M-step and one EM step.


@of_every_model
def test_m_step_is_the_textbook(name, x, weight, dtype, tolerance):
    resp = np.random.default_rng(1).dirichlet(np.ones(K), size=N)
    found = jgmm.m_step(x, resp.astype(dtype), name, weight)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {dtype}
    same(found, oracle.m_step(x.astype(np.float64), resp, name, weight), tolerance)


maximize = jax.jit(m_step.maximize, static_argnums=1)


@in_double
@pytest.mark.parametrize("name", oracle.FREE)
def test_moments_may_be_about_any_point(name, x, weight, dtype, tolerance):
    """Their mean is subtracted: of each component, and of all where a covariance is shared."""
    resp = np.random.default_rng(1).dirichlet(np.ones(K), size=N)
    center, entry = x[:K].astype(dtype), jgmm.covariance.model(name)
    counts, first, second = oracle.statistics(x, resp, center, weight)
    stored = entry.pool(entry.storage.from_dense(jnp.asarray(second)))
    given = Statistics(
        *map(jnp.asarray, (center, counts, first)), stored, jnp.zeros(()), jnp.zeros(K)
    )
    same(maximize(given, name), oracle.m_step(x, resp, name, weight), tolerance)


@in_double
def test_ridge_is_a_fraction_of_the_variance_of_the_data(x, dtype, tolerance):
    resp = np.ones((N, 1), dtype)
    plain = jgmm.m_step(x, resp, "diag").variances
    ridged = jgmm.m_step(x, resp, "diag", ridge=0.25).variances
    np.testing.assert_allclose(ridged, 1.25 * plain, **tolerance)


@in_double
@pytest.mark.parametrize("name", ["full", "tied", "diag", "EEI"])
def test_a_ridge_may_be_given_column_by_column(name, x, dtype, tolerance):
    """In every frame a fraction of the data's own variance in the column."""
    ridge = np.linspace(0.5, 1.5, D).astype(dtype)

    @jax.jit
    def covariance(ridge):
        inside = standardization.standardize(make_samples(x), jgmm.covariance.model(name))
        found = m_step.from_responsibilities(
            inside, lambda rows: jnp.ones((len(rows), 1), dtype), 1, name
        )
        fitted = m_step.maximize(found, name, m_step.ridge_in(inside.frame, ridge))
        return to_original(fitted, inside.frame).covariances[0]

    plain = covariance(0 * ridge)
    expected = plain + np.diag(ridge * np.diagonal(plain))
    np.testing.assert_allclose(covariance(ridge), expected, **tolerance)


@of_every_model
def test_a_component_without_samples_has_weight_zero_and_no_nan(name, x, ones, dtype):
    resp = np.zeros((N, K), dtype)
    resp[:, 0] = 1
    found = jgmm.m_step(x, resp, name, ones)
    np.testing.assert_array_equal(found.weights, [1, 0, 0])
    chex.assert_tree_all_finite((found.means, found.scale))
    np.testing.assert_array_equal(jgmm.responsibilities(found, x)[:, 1:], 0)


@pytest.mark.parametrize(
    ("resp", "message"),
    [
        (np.ones((N - 1, 2)), "149 rows; x has 150"),
        (np.ones(N), "responsibilities must be two-dimensional"),
        (np.full((N, 2), np.nan), "responsibilities holds nan in row 0"),
        (np.tile([1.5, -0.5], (N, 1)), "at least zero; row 0"),
    ],
)
def test_responsibilities_must_make_sense(resp, message, x):
    with pytest.raises(jgmm.DataError, match=message):
        jgmm.m_step(x, resp)


@functools.cache
def step_and_score(name):
    """A step from any statistics and any scale before, and what both score."""

    @jax.jit
    def ask(statistics, before):
        after = m_step.maximize(statistics, name, 0.0, before.scale)
        return jnp.stack([expected_log_likelihood(m, statistics) for m in (before, after)])

    return ask


@functools.cache
def gather(name):
    """Statistics of given responsibilities; compiled once for all draws."""

    @jax.jit
    def ask(samples, resp):
        return m_step.from_responsibilities(samples, lambda rows: resp[rows], K, name)

    return ask


@of_every_model
def test_every_m_step_raises_the_expected_log_likelihood(name, x, weight, dtype):
    """From random parameters of the model, about samples sorted at random or by themselves."""
    rng, samples = np.random.default_rng(0), make_samples(x, weight)
    for seed in range(6):
        truth = oracle.parameters(100 + seed, k=K, d=D, model=name)
        before = jgmm.make_mixture(*(a.astype(dtype) for a in truth), name)
        resp = jnp.asarray(rng.dirichlet(np.full(K, 0.3), size=N), dtype)
        for statistics in (gather(name)(samples, resp), jgmm.accumulate(before, x, weight)):
            was, now = np.asarray(step_and_score(name)(statistics, before), np.float64)
            assert now > was - 50 * np.finfo(dtype).eps * abs(was)
            assert now > was + 1  # they are not near an optimum


@in_double
@pytest.mark.parametrize("name", ["full", "tied", "diag", "spherical"])
def test_a_ridge_is_a_share_of_the_variance_of_each_column(name, dtype):
    """Whatever the frame: the M-step with a ridge is the one without, and a diagonal matrix."""
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(80, 2)) @ [[1.0, 0.9], [0.0, 0.5]] * [10.0, 0.1]).astype(dtype)
    resp = rng.dirichlet(np.ones(2), size=80).astype(dtype)
    plain, ridged = (
        np.asarray(jgmm.m_step(x, resp, name, ridge=ridge).covariances, np.float64)
        for ridge in (0.0, 0.25)
    )
    variances = x.astype(np.float64).var(axis=0)
    if name == "spherical":  # whose frame has one scale for all columns
        variances = np.full(2, variances.mean())
    unit = np.sqrt(np.outer(variances, variances))
    expected = np.broadcast_to(0.25 * np.eye(2), (2, 2, 2))
    np.testing.assert_allclose((ridged - plain) / unit, expected, atol=1e3 * np.finfo(dtype).eps)


@of_every_model
def test_an_offset_does_not_change_the_covariances(name, ones, dtype):
    """1e6 standard deviations in float32, 1e8 in float64, against an oracle that subtracts it."""
    offset = {4: 1e6, 8: 1e8}[dtype.itemsize]
    x = oracle.draw(0, N, *oracle.parameters(SEED, k=K, d=D))
    x = (10 * x + offset).astype(dtype)  # what rounding to the grid at the offset leaves
    exact = x.astype(np.float64) - offset
    resp = np.random.default_rng(1).dirichlet(np.ones(K), size=N)
    found = jgmm.m_step(x, resp.astype(dtype), name, ones)
    expected = oracle.m_step(exact, resp, name)
    rtol = ITERATED[dtype]["rtol"] if name in oracle.ITERATED else 500 * np.finfo(dtype).eps
    np.testing.assert_allclose(found.covariances, expected[2], rtol=rtol, atol=rtol * 100)
    grid = offset * np.finfo(dtype).eps
    np.testing.assert_allclose(found.means - np.asarray(offset, dtype), expected[1], atol=2 * grid)
