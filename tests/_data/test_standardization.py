"""Standardization: samples centred and scaled, or whitened, and back."""

import numpy as np

from jgmm._data.samples import make_samples
from jgmm._data.standardization import center_and_scale, whiten

X = np.array([[1.0, 2.0], [3.0, 5.0], [-2.0, 0.5], [0.0, 7.0], [4.0, -1.0]])


def test_frame_has_mean_zero_and_variance_one(dtype, tolerance):
    samples = center_and_scale(make_samples(X.astype(dtype)), per_column=True)
    x, _ = samples.rows(0, 5)
    np.testing.assert_allclose(x.mean(axis=0), 0, **tolerance)
    np.testing.assert_allclose(x.std(axis=0), 1, **tolerance)
    np.testing.assert_allclose(samples.frame.log_volume(), np.log(X.std(axis=0)).sum(), **tolerance)


def test_one_scale_for_all_columns(dtype, tolerance):
    samples = center_and_scale(make_samples(X.astype(dtype)), per_column=False)
    expected = np.sqrt(X.var(axis=0).mean())
    np.testing.assert_allclose(samples.frame.scale, [expected, expected], **tolerance)


def test_frame_of_weighted_samples_is_that_of_repeated_ones(dtype, tolerance):
    weights = np.array([2, 0, 1, 3, 1])
    x = X.astype(dtype)
    weighted = center_and_scale(make_samples(x, weights), per_column=True).frame
    repeated = center_and_scale(make_samples(np.repeat(x, weights, axis=0)), per_column=True).frame
    np.testing.assert_allclose(weighted.shift, repeated.shift, **tolerance)
    np.testing.assert_allclose(weighted.scale, repeated.scale, **tolerance)


def test_a_constant_column_is_scaled_by_one():
    samples = center_and_scale(make_samples([[3.0, 1.0], [3.0, 2.0]]), per_column=True)
    np.testing.assert_array_equal(samples.frame.scale, [1, 0.5])
    assert np.isfinite(samples.rows(0, 2)[0]).all()


def test_an_offset_does_not_change_the_scale(dtype, tolerance):
    """A million standard deviations in float32, a hundred million in float64."""
    offset = {4: 1e6, 8: 1e8}[dtype.itemsize]
    x = (np.random.default_rng(0).normal(size=(300, 2)) + offset).astype(dtype)
    inside, _ = center_and_scale(make_samples(x), per_column=True).rows(0, 300)
    exact = x.astype(np.float64) - offset  # exact: the offset is a whole number nearby
    exact -= exact.mean(axis=0)
    # The shift itself is rounded to the grid of numbers of the size of the offset.
    grid = offset * np.finfo(dtype).eps
    np.testing.assert_allclose(inside, exact / exact.std(axis=0), rtol=tolerance["rtol"], atol=grid)


def correlated(dtype, n=200):
    """Three columns of very different units that nearly determine each other, far from zero."""
    rng = np.random.default_rng(3)
    z = rng.normal(size=(n, 3))
    z[:, 2] = z[:, 0] - z[:, 1] + 0.1 * z[:, 2]
    return (z * [1e-3, 1.0, 1e3] + [0.1, 100.0, -1e5]).astype(dtype)


def seen_whole(x):
    return whiten(center_and_scale(make_samples(x), per_column=True))


# The least eigenvalue of the correlations is about 2e-3, and what makes them invertible, 24
# roundings, is added to it; offsets of a hundred deviations cost a factor of 100 in the data.
LOST = 1e5


def test_whitened_samples_have_the_unit_covariance(dtype):
    x = correlated(dtype)
    samples, atol = seen_whole(x), LOST * np.finfo(dtype).eps
    rows, _ = samples.rows(0, 200)
    np.testing.assert_allclose(np.cov(rows.T, bias=True), np.eye(3), atol=atol)
    log_det = np.linalg.slogdet(np.cov(x.astype(np.float64).T, bias=True))[1]
    np.testing.assert_allclose(samples.frame.log_volume(), 0.5 * log_det, atol=atol)


def test_whitening_is_undone(dtype):
    x = correlated(dtype)
    frame, unit = seen_whole(x).frame, x.astype(np.float64).std(axis=0)
    assert frame.rotates
    np.testing.assert_array_equal(np.triu(frame.scale, 1), np.zeros((3, 3)))
    back = np.asarray(frame.scale, np.float64) @ np.asarray(frame.inverse, np.float64)
    atol = LOST * np.finfo(dtype).eps
    np.testing.assert_allclose(back * unit / unit[:, None], np.eye(3), atol=atol)


def test_unit_variances_are_what_a_ridge_is_a_multiple_of(dtype):
    """Seen in the frame, the diagonal matrix of the columns' variances."""
    x = correlated(dtype)
    frame, unit = seen_whole(x).frame, x.astype(np.float64).std(axis=0)
    scale, inner = (np.asarray(a, np.float64) for a in (frame.scale, frame.unit_variances()))
    back = scale @ inner @ scale.T / unit / unit[:, None]
    np.testing.assert_allclose(back, np.eye(3), atol=LOST * np.finfo(dtype).eps)
    scaling = center_and_scale(make_samples(x), per_column=True).frame
    np.testing.assert_array_equal(scaling.unit_variances(), np.eye(3))


def test_columns_that_determine_each_other_are_whitened_without_harm(dtype):
    """A copy, a constant, few samples: the frame is finite, and what has no extent keeps none."""
    x = np.random.default_rng(0).normal(size=(40, 2))
    copied = np.column_stack([x, x[:, 0], np.full(40, 7.0)]).astype(dtype)
    for few in (copied, copied[:3]):
        rows, _ = seen_whole(few).rows(0, len(few))
        assert np.isfinite(rows).all()
        np.testing.assert_array_equal(rows[:, 3], 0)
        assert np.abs(rows[:, 2]).max() < 0.1
