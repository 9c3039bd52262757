"""Degenerate data: too few samples, too many equal ones, or too far out; each has its message."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
from marks import in_double, in_single

import jgmm
from jgmm._core.errors import DataError, FitError
from jgmm._core.status import SENTENCES, Status, describe

N, D = 30, 3
KEY = jax.random.key(0)
GOOD = oracle.draw(0, N, *oracle.parameters(0, k=2, d=D))


def fit(x, n_components=2, **options):
    """From samples, which takes the least to compile, unless another start is asked for."""
    return jgmm.fit(KEY, x, n_components, **({"init": "points"} | options))


def ends(status, x, n_components=2, **options):
    """Fit, and check the status a result carries, or the sentence of the error raised for it."""
    if not status.is_usable:
        with pytest.raises(FitError, match=re.escape(SENTENCES[status])) as raised:
            fit(x, n_components, **options)
        return str(raised.value)
    result = fit(x, n_components, **options)
    assert Status(int(result.status)) is status
    assert describe(result.status) == SENTENCES[status]
    for leaf in jax.tree.leaves(result.mixture):
        assert np.isfinite(leaf).all()
    return result


def refused(message, x, n_components=2, **options):
    with pytest.raises(DataError, match=message):
        fit(x, n_components, **options)


# Few samples.


def test_fewer_samples_than_components(dtype):
    refused(r"3 components.*there are 2", GOOD[:2].astype(dtype), 3)


@in_single
def test_as_many_components_as_samples(dtype):
    x = GOOD[:4].astype(dtype)
    ends(Status.COLLAPSED, x, 4)
    # With a ridge there is a fit, and it says that its components are spikes.
    result = ends(Status.DEGENERATE, x, 4, ridge=1e-3)
    np.testing.assert_allclose(result.mixture.weights, 0.25, rtol=1e-5)


@in_single
def test_one_sample(dtype):
    x = GOOD[:1].astype(dtype)
    refused(r"column\(s\) 0, 1, 2 of x are constant", x, 1)
    # One variance is allowed to be of columns that are constant, and then is zero.
    assert "Component 0 collapsed after 0 steps" in ends(
        Status.COLLAPSED, x, 1, covariance="spherical"
    )


@in_double
def test_one_column(dtype):
    x = np.concatenate([GOOD[:15, :1], GOOD[:15, :1] + 20]).astype(dtype)
    result = ends(Status.CONVERGED, x)
    means = np.sort(np.asarray(result.mixture.means[:, 0]))
    np.testing.assert_allclose(means, [x[:15].mean(), x[15:].mean()], rtol=1e-5)


# Equal samples.


@in_single
def test_all_rows_equal(dtype):
    x = np.repeat(GOOD[:1].astype(dtype), N, axis=0)
    refused(r"column\(s\) 0, 1, 2 of x are constant.*ridge=1e-6", x)
    ends(Status.COLLAPSED, x, covariance="spherical")


@in_single
def test_two_distinct_rows(dtype):
    x = np.repeat(GOOD[:2].astype(dtype), N // 2, axis=0)
    ends(Status.COLLAPSED, x, init="kmeans")
    ends(Status.COLLAPSED, x, init="kmeans", covariance="spherical")
    # A ridge is all there is of their variances: a hundredth of that of the data.
    result = ends(Status.DEGENERATE, x, init="kmeans", covariance="spherical", ridge=1e-2)
    expected = 1e-2 * x.astype(np.float64).var(axis=0).mean()
    np.testing.assert_allclose(result.mixture.variances, expected, rtol=1e-4)


@pytest.mark.parametrize("init", ["kmeans", "labels"])
def test_two_samples_and_a_small_ridge(init, dtype):
    """0.1 is 4e-9 of the variance of 9999 and 0, and what is added to it comes out as 0.1.

    From k-means the first step is by products, which in float32 blur a variance as small.
    """
    x = np.asarray([[9999], [0]], dtype)
    init = [0, 1] if init == "labels" else init
    result = ends(
        Status.DEGENERATE, x, covariance="spherical", ridge=0.1 / (9999 / 2) ** 2, init=init
    )
    eps = np.finfo(dtype).eps
    np.testing.assert_array_equal(np.sort(result.mixture.means[:, 0]), [0, 9999])
    np.testing.assert_allclose(result.mixture.variances, 0.1, rtol=10 * eps)
    np.testing.assert_allclose(result.mixture.weights, 0.5, rtol=10 * eps)


@in_double
@pytest.mark.parametrize("init", ["points", "kmeans"])
def test_fewer_distinct_samples_than_components(init, dtype):
    x = np.repeat(GOOD[:4].astype(dtype), 6, axis=0)
    text = ends(Status.COLLAPSED, x, 3, init=init, n_restarts=2)
    assert "Outcomes of the restarts: 2 collapsed." in text


# Columns that say nothing new.


@pytest.mark.parametrize("covariance", ["full", "diag", "VVE", "EEV"])
def test_a_constant_column_is_named(covariance, dtype):
    x = GOOD.astype(dtype)
    x[:, 1] = 7
    refused(r"column\(s\) 1 of x are constant.*ridge=1e-6", x, covariance=covariance)
    x[:, 2] = -1
    refused(r"column\(s\) 1, 2 of x are constant", x)


def test_a_column_constant_where_it_counts_is_named(dtype):
    x, weight = GOOD.astype(dtype), np.ones(N, dtype)
    x[:, 1] = 7
    x[3, 1], weight[3] = np.nan, 0
    refused(r"column\(s\) 1 of x are constant", x, sample_weight=weight)


@in_single
@pytest.mark.parametrize(
    "options",
    [{"ridge": 1e-6}, {"covariance": "spherical"}, {"ridge": 1e-6, "covariance": "EVV"}],
    ids=str,
)
def test_a_constant_column_can_be_borne(options, dtype):
    x = GOOD.astype(dtype)
    x[:, 1] = 7
    result = ends(Status.CONVERGED, x, init="kmeans++", n_restarts=4, **options)
    np.testing.assert_allclose(result.mixture.means[:, 1], 7, rtol=1e-5)


@pytest.mark.parametrize("init", ["points", "kmeans"])
@pytest.mark.parametrize("slope", [1.0, 2.0], ids=["a duplicate", "a line"])
def test_columns_that_determine_each_other(slope, init, dtype):
    """Without a ridge that is a collapse, and with one it is none."""
    x = GOOD.astype(dtype)
    x[:, 2] = slope * x[:, 0] + (slope - 1)
    text = ends(Status.COLLAPSED, x, init=init)
    assert "columns that determine each other" in text
    ends(Status.CONVERGED, x, init=init, ridge=1e-3)


@in_double
def test_columns_that_determine_a_third(dtype):
    x = GOOD.astype(dtype)
    x[:, 2] = x[:, 0] - 0.5 * x[:, 1] + 3
    ends(Status.COLLAPSED, x)


# Other numbers.


@pytest.mark.parametrize("kind", [np.int32, np.int8, bool])
def test_whole_numbers_and_truths(kind):
    """Fitted as what they are in the default float."""
    x = (4 * GOOD).astype(np.int32) if kind is not bool else GOOD > 0
    as_floats = x.astype(np.float64)
    # Each component of truths has a column in which all its rows are equal: it rests on the ridge.
    status = Status.DEGENERATE if kind is bool else Status.CONVERGED
    result = ends(status, x.astype(kind), ridge=1e-2)
    assert result.mixture.means.dtype == np.float64
    expected = ends(status, as_floats, ridge=1e-2)
    np.testing.assert_array_equal(result.mixture.means, expected.mixture.means)


def test_one_outlier_at_1e30(dtype):
    """Its square is no number in float32; all others are one point next to it."""
    x = GOOD.astype(dtype)
    x[9, 0] = 1e30
    ends(Status.COLLAPSED, x)


def test_weights_too_small_to_be_normal(dtype):
    """Among weights of one they count nothing; alone they are refused or fitted, and never NaN."""
    tiny = float(np.finfo(dtype).tiny) / 8
    x, weight = GOOD.astype(dtype), np.ones(N, dtype)
    weight[:3] = tiny
    result = ends(Status.CONVERGED, x, sample_weight=weight)
    weight[:3] = 0
    without = ends(Status.CONVERGED, x, sample_weight=weight)
    np.testing.assert_allclose(result.log_likelihood, without.log_likelihood, rtol=1e-5)
    refused("sample_weight", x, sample_weight=np.full(N, tiny, dtype))


@in_double
def test_a_component_that_starts_with_no_samples(dtype):
    """It is named; whether by labels or by a mixture that has it far from all."""
    x = GOOD.astype(dtype)
    means = np.stack([x.mean(axis=0), x.mean(axis=0) + 1e3])
    far = jgmm.make_mixture(
        np.full(2, 0.5, dtype), means, np.stack([np.cov(x.T).astype(dtype)] * 2)
    )
    text = ends(Status.COLLAPSED, x, init=far)
    assert text.startswith("Component 1 collapsed")
    refused(r"labels must take every value from 0 to 1; they take \[0\]", x, init=np.zeros(N, int))


@in_double
def test_a_component_switched_off_is_no_collapse(dtype):
    x = GOOD.astype(dtype)
    on = fit(x, 1).mixture
    off = jgmm.Mixture(
        jnp.asarray([0, -np.inf], dtype),
        jnp.concatenate([on.means, on.means]),
        jnp.concatenate([on.scale, on.scale]),
        "full",
    )
    result = fit(x, init=off)
    assert Status(int(result.status)) is Status.CONVERGED
    np.testing.assert_array_equal(result.mixture.weights, [1, 0])
