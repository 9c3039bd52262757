"""Subsamples and coresets from one pass over blocks."""

import jax
import numpy as np
import pytest
from summary_cases import KEY, data, look

from jgmm._core.errors import DataError
from jgmm._data import standardization
from jgmm._data.samples import make_samples
from jgmm.covariance.models import model
from jgmm.streaming import subsample
from jgmm.streaming.sources import rebatch
from jgmm.streaming.subsample import draw_coreset, merge, row_hashes, salt_of


@pytest.mark.parametrize("name", ["full", "diag", "spherical"])
def test_samples_are_standardized_as_those_in_memory(name, dtype, tolerance):
    x, weights = data(dtype)
    entry = model(name)
    data_summary = look(x, weights).data_summary(entry.per_column, entry.affine, dtype)
    inside = standardization.standardize(make_samples(x, weights), entry)
    for field in ("shift", "scale", "inverse"):
        ours, theirs = getattr(data_summary.frame, field), getattr(inside.frame, field)
        np.testing.assert_allclose(ours, theirs, **tolerance)
    assert float(data_summary.total) == weights.sum()


def test_rows_are_drawn_by_their_numbers_alone():
    x, _ = data(np.float32)
    whole = look(x).subsample
    assert len(whole.rows) == 50
    np.testing.assert_array_equal(look(x, size=33).subsample.rows, whole.rows)
    np.testing.assert_array_equal(x[whole.rows.astype(int)], whole.x)
    shares = [look(x[:123]), look(x[123:], first_row=123)]
    joined = merge([subsample.to_arrays(part, 50) for part in shares], 3, x.dtype)
    assert joined.n_rows == 700
    for found, expected in zip(joined.subsample, whole, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_few_rows_are_all_drawn_and_missing_ones_are_not():
    x, weights = data(np.float32, n=40)
    np.testing.assert_array_equal(look(x).subsample.x, x)
    np.testing.assert_array_equal(look(x, weights).subsample.x, x[weights > 0])


def test_every_row_has_the_same_chance():
    rows = np.arange(200_000, dtype=np.uint64)
    u = row_hashes(rows, salt_of(KEY)) / 2.0**64
    counts, _ = np.histogram(u, 100, (0, 1))
    assert abs(counts - 2000).max() < 5 * 2000**0.5
    assert abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 5 / 200_000**0.5
    other = row_hashes(rows, salt_of(jax.random.key(4))) / 2.0**64
    assert abs(np.corrcoef(u, other)[0, 1]) < 5 / 200_000**0.5


def test_a_coreset_sees_what_is_far_out_and_weighs_right():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20_000, 2)).astype(np.float32)
    x[:20] += 60
    whole = look(x, size=5000, most=500)
    frame = whole.data_summary(True, False, x.dtype).frame
    blocks = rebatch([x], 3000, 2, x.dtype)
    found = draw_coreset(KEY, blocks, 0, 500, frame, float(whole.moments.total))
    far = found.x[:, 0] > 30
    assert far.sum() >= 5  # of a uniform sample half a row would be
    share = found.weights.sum() / 20_000
    assert abs(share - 1) < 0.2
    assert abs(found.weights[far].sum() / 20 - 1) < 0.8


@pytest.mark.parametrize(
    ("row", "value", "weight", "text"),
    [
        (350, np.nan, 1.0, "nan in row 1350, column 'x1'"),
        (2, 3e37, 1.0, "row 1002, column 'x1'"),
        (699, 0.0, -1.0, r"sample_weight holds -1.0 in row 1699"),
        (0, 0.0, np.inf, "sample_weight holds inf in row 1000"),
    ],
)
def test_bad_values_are_named_by_their_row(row, value, weight, text):
    x, weights = data(np.float32)
    x[row, 1], weights[row] = value, weight
    with pytest.raises(DataError, match=text):
        look(x, weights, first_row=1000)
