"""The E-step over all samples: expected statistics against loops over samples."""

from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import statistics_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from statistics_cases import D, K, N, accumulate, close, mixture

import jgmm
from jgmm._data.samples import make_samples
from jgmm.covariance.models import model
from jgmm.em.e_step import accumulate_with, block_rows
from jgmm.em.statistics import Statistics
from jgmm.mixture.mixture import Mixture

x, weight, full = statistics_cases.x, statistics_cases.weight, statistics_cases.full  # fixtures


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("form", ["difference", "product"])
@pytest.mark.parametrize("name", oracle.FREE)
def test_statistics_are_the_loops(name, form, weighted, x, weight, dtype, tolerance):
    w = weight if weighted else None
    given = mixture(name, dtype)
    found = accumulate(given, x, w, None, form)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {dtype}
    truth = oracle.parameters(1, k=K, d=D, model=name)
    log_prob, resp = oracle.e_step(x.astype(np.float64), *truth)
    # By differences moments are about the means, by products about the origin.
    center = truth[1] if form == "difference" else np.zeros_like(truth[1])
    counts, first, second = oracle.statistics(x.astype(np.float64), resp, center, w)
    second = given.model.pool(given.model.storage.from_dense(jnp.asarray(second)))
    each = np.ones(N) if w is None else w
    expected = Statistics(center, counts, first, second, log_prob @ each, each**2 @ resp)
    close(found, expected, tolerance)


@pytest.mark.parametrize("block_size", [1, 7, 30, 59, 60, 1000])
def test_the_block_size_does_not_matter(block_size, full, x, weight, tolerance):
    close(accumulate(full, x, weight, block_size), accumulate(full, x, weight), tolerance)


@settings(max_examples=10)
@given(seed=st.integers(0, 99))
def test_samples_have_no_order(seed, full, x, weight, tolerance):
    index = np.random.default_rng(seed).permutation(N)
    close(accumulate(full, x[index], weight[index]), accumulate(full, x, weight), tolerance)


@settings(max_examples=10)
@given(seed=st.integers(0, 99))
def test_a_weight_counts_how_often_a_sample_is_there(seed, full, x, dtype, tolerance):
    counts = np.random.default_rng(seed).integers(0, 4, size=N)
    rows = np.resize(np.repeat(np.arange(N), counts), 3 * N)  # padded, for one program only
    present = (np.arange(3 * N) < sum(counts)).astype(dtype)
    repeated = accumulate(full, x[rows], present)
    # Only ``with_distinct_rows`` finds out that rows are equal.
    weighted = accumulate(full, x, counts.astype(dtype))
    close(replace(weighted, squares=repeated.squares), repeated, tolerance)


def test_a_row_of_weight_zero_is_missing_whatever_it_holds(full, x, dtype):
    weight = np.ones(N, dtype)
    weight[4] = 0
    spoiled = x.copy()
    spoiled[4] = [np.nan, np.inf, 1e30]
    chex.assert_trees_all_equal(accumulate(full, spoiled, weight), accumulate(full, x, weight))


def test_a_component_of_weight_zero_counts_exactly_nothing(full, x):
    switched = Mixture(full.log_weights.at[1].set(-jnp.inf), full.means, full.scale, "full")
    found = accumulate(switched, x)
    for leaf in (found.counts, found.first, found.second):
        np.testing.assert_array_equal(leaf[1], 0)
        assert np.isfinite(leaf).all()


def test_far_samples_count_once(full, x, dtype, tolerance):
    """Where log Σ exp rounds away next to the score, responsibilities still sum to one."""
    far = x + np.array([1e12, 0, 0], dtype)
    found = accumulate(full, far)
    np.testing.assert_allclose(found.counts.sum(), N, **tolerance)
    assert np.isfinite(found.log_likelihood)


def test_moments_about_a_near_center_do_not_lose_digits(dtype):
    """Offset by 1e6 standard deviations in float32, 1e8 in float64: what is there is kept."""
    offset = {4: 1e6, 8: 1e8}[dtype.itemsize]
    x = (np.random.default_rng(0).normal(size=(N, 1)) * 10 + offset).astype(dtype)
    center = np.full((1, 1), offset, dtype)
    near = jgmm.make_mixture([1.0], center, np.full((1, 1, 1), 100, dtype))
    exact = x.astype(np.float64) - offset
    found = accumulate(near, x)
    rtol = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(found.first[0, 0], exact.sum(), rtol=rtol, atol=rtol * 10 * N)
    np.testing.assert_allclose(found.second[0, 0, 0], (exact**2).sum(), rtol=rtol)


def test_responsibilities_may_come_from_anywhere(x, weight, dtype, tolerance):
    resp = np.random.default_rng(3).dirichlet(np.ones(K), size=N)
    given = jnp.asarray(resp, dtype)

    def infer(difference, rows):
        return jnp.zeros(difference.shape[2], dtype), given[rows].T

    center = x[:K]
    found = jax.jit(
        lambda samples: accumulate_with(
            infer, samples, jnp.asarray(center), model("full"), block_size=7
        )
    )(make_samples(x, weight))
    counts, first, second = oracle.statistics(
        x.astype(np.float64), resp, center.astype(np.float64), weight
    )
    squares = weight**2 @ resp
    close(found, Statistics(center, counts, first, second, np.zeros(()), squares), tolerance)


def test_blocks_are_bounded():
    samples = make_samples(np.zeros((10_000, 2)))
    assert block_rows(samples, 64) * 64 <= 1 << 22
    assert block_rows(samples, 1 << 30) >= 1
    assert block_rows(make_samples(np.zeros((50, 2))), 1) == 50  # never more than there are
    assert block_rows(samples, 64, block_size=7) == 7


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_columns_must_match(columns, full):
    with pytest.raises(jgmm.DataError, match=f"x has {columns} columns.*for 3"):
        jgmm.accumulate(full, np.ones((5, columns)))
