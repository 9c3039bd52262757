"""Masks, byte orders, times, sparse matrices, missing labels: the same at every entry point."""

import jax
import jax.experimental.sparse
import jax.numpy as jnp
import numpy as np
import pandas
import polars
import pyarrow
import pytest
import scipy.sparse

import jgmm
from jgmm._core.errors import DataError
from jgmm._data.arrays import as_plain, split_missing
from jgmm._data.validation import as_labels, as_numbers, as_samples, as_weights
from jgmm.distributed.mesh import make_mesh
from jgmm.estimators.classifier import GaussianBayesClassifier
from jgmm.estimators.kmeans import KMeans
from jgmm.estimators.mixture import GaussianMixture

KEY = jax.random.key(0)
N, BAD = 24, 3  # samples, and the row that is missing
X = np.random.default_rng(0).normal(size=(N, 2)) + np.repeat([[9.0], [15.0]], N // 2, axis=0)
Y = np.repeat([0, 1], N // 2)
W = np.where(np.arange(N) == BAD, 0.0, 1.0)
NAN = float("nan")


# One array.


MASKED = {
    "numbers": ([[1.5, -9.0], [2.0, 3.0]], [[1.5, NAN], [2.0, 3.0]]),
    "whole numbers": ([[2, -9], [3, 4]], [[2.0, NAN], [3.0, 4.0]]),
    "truth values": ([[False, True], [True, True]], [[0.0, NAN], [1.0, 1.0]]),
    "text": ([["1", "-9"], ["2", "3"]], [[1.0, NAN], [2.0, 3.0]]),
    "objects": (np.array([[1, -9], [2, 3]], object), [[1.0, NAN], [2.0, 3.0]]),
}


@pytest.mark.parametrize("kind", MASKED)
def test_a_masked_entry_is_a_missing_one(kind):
    values, expected = MASKED[kind]
    masked = np.ma.masked_array(values, mask=[[False, True], [False, False]])
    for given in (masked, list(masked)):  # a list of masked rows as well
        np.testing.assert_array_equal(as_numbers(given, "x"), expected)
    np.testing.assert_array_equal(as_numbers([masked[0], values[1]], "x"), expected)
    np.testing.assert_array_equal(as_plain(np.ma.masked_array(values)), values)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i2", "i8", "u4"])
def test_the_byte_order_does_not_matter(kind):
    x = np.asarray([[1, 2], [3, 5]], f"<{kind}")
    found = as_samples(x.astype(f">{kind}"))
    np.testing.assert_array_equal(found, x)
    assert found.dtype == as_samples(x).dtype
    np.testing.assert_array_equal(as_weights(x[0].astype(f">{kind}"), 2, np.float32), x[0])
    if kind[0] != "f":
        np.testing.assert_array_equal(as_labels(x[0].astype(f">{kind}"), 2), x[0])


TIMES = {
    "durations": np.ones((2, 2), "m8[s]"),
    "dates": np.full((2, 2), "2020-01-01", "M8[D]"),
    "masked": np.ma.masked_array(np.ones((2, 2), "m8[s]"), mask=np.eye(2)),
    "list": [[np.timedelta64(1, "s")] * 2],
    "objects": np.array([[1.0, np.timedelta64(1, "s")]], object),
    "object dates": np.array([[1.0, np.datetime64("2020-01-01")]], object),
    "pandas": np.array([[1.0, pandas.Timedelta(1, "s")]], object),
}


@pytest.mark.parametrize("kind", TIMES)
def test_times_are_no_numbers(kind):
    with pytest.raises(DataError, match=r"they must be real numbers|which is not a number"):
        as_samples(TIMES[kind])
    with pytest.raises(DataError, match=r"they must be real numbers|which is not a number"):
        as_weights(np.ravel(TIMES[kind]), np.size(TIMES[kind]), np.float64)


SPARSE = {
    "matrix": scipy.sparse.csr_matrix,
    "array": scipy.sparse.csc_array,
    "coordinates": scipy.sparse.coo_matrix,
    "jax": lambda x: jax.experimental.sparse.BCOO.fromdense(x),
}


@pytest.mark.parametrize("kind", SPARSE)
def test_a_sparse_matrix_is_refused_and_not_printed(kind):
    for ask in (as_samples, split_missing, lambda x: as_weights(x, N, np.float64)):
        with pytest.raises(DataError, match=r"is sparse \(\w+\)") as raised:
            ask(SPARSE[kind](X))
        assert len(str(raised.value)) < 200


@pytest.mark.parametrize("x", [None, object(), {"a": 1}])
def test_what_is_no_array_is_named_by_its_type(x):
    with pytest.raises(DataError, match=f"x is of type {type(x).__name__}; it must be an array"):
        as_samples(x)


def test_missing_objects_are_nan():
    x = np.array([[1, pandas.NA], [None, 2.5], [np.nan, np.float32(3)]], object)
    np.testing.assert_array_equal(as_numbers(x, "x"), [[1, NAN], [NAN, 2.5], [NAN, 3]])
    assert x[0, 1] is pandas.NA  # the user's own array is as it was


LABELS = {
    "masked": np.ma.masked_equal([0, 1, 0, 1, 7, 0], 7),
    "list": [0, 1, 0, 1, None, 0],
    "objects": np.array([0, 1, 0, 1, pandas.NA, 0], object),
    "pandas": pandas.Series([0, 1, 0, 1, None, 0], dtype="Int64"),
    "pandas array": pandas.array([0, 1, 0, 1, None, 0], dtype="Int64"),
    "pandas arrow": pandas.Series([0, 1, 0, 1, None, 0], dtype="int64[pyarrow]"),
    "polars": polars.Series([0, 1, 0, 1, None, 0]),
    "arrow": pyarrow.array([0, 1, 0, 1, None, 0]),
    "chunks": pyarrow.chunked_array([[0, 1, 0], [1, None, 0]]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_a_missing_label_is_named_unless_its_row_counts_nothing(kind):
    x, labels = X[:6], LABELS[kind]
    weight = jnp.where(jnp.arange(6) == 4, 0.0, 1.0)
    known = as_labels(labels, 6, weight)
    assert known.dtype.kind == "i"
    np.testing.assert_array_equal(known, [0, 1, 0, 1, -1, 0])
    with pytest.raises(DataError, match="labels holds a missing value in row 4"):
        as_labels(labels, 6)
    found = jgmm.classifier.fit(x, labels, covariance="spherical", sample_weight=weight)
    assert found.class_names == (0, 1)
    with pytest.raises(DataError, match="the label in row 4 is missing"):
        jgmm.classifier.fit(x, labels, covariance="spherical")
    with pytest.raises(DataError, match="b has no label in row 4"):
        jgmm.selection.adjusted_rand_index([0] * 6, labels)
    with pytest.raises(DataError, match="in row 4 is missing"):
        jgmm.classifier.confusion_matrix(labels, [0] * 6, 2)
    matrix = jgmm.classifier.confusion_matrix(labels, [0] * 6, 2, sample_weight=weight)
    assert matrix.tolist() == [[3, 0], [2, 0]]


@pytest.mark.parametrize(
    "labels",
    [
        np.ma.masked_array(["a", "b", "c"], mask=[0, 0, 1]),
        pandas.Series(["a", "b", None], dtype="category"),
        polars.Series(["a", "b", None], dtype=polars.Categorical),
        polars.Series([True, False, None]),
    ],
)
def test_labels_keep_their_kind(labels):
    values, missing = split_missing(labels)
    assert missing.tolist() == [False, False, True]
    assert [type(value) for value in values.tolist()] == [type(values.tolist()[0])] * 3


def test_labels_are_one_column():
    with pytest.raises(DataError, match="labels is a data frame; give one column"):
        split_missing(polars.DataFrame({"a": [0, 1]}))


# Every entry point.


START = jgmm.make_mixture([0.5, 0.5], X[[0, 20]], np.ones(2), "spherical")
FEW = {"covariance": "spherical", "n_restarts": 1, "init": "points", "max_steps": 2}
ASK = {
    "log_prob": lambda x, w, y: jgmm.log_prob(START, x[np.asarray(w) > 0]),
    "fit": lambda x, w, y: jgmm.fit(KEY, x, 2, sample_weight=w, labels=y, **FEW),
    "init": lambda x, w, y: jgmm.fit(KEY, x, 2, sample_weight=w, **{**FEW, "init": y}),
    "select": lambda x, w, y: (
        jgmm.select(KEY, x, [2], "EII", n_restarts=1, sample_weight=w, labels=y).result
    ),
    "mesh": lambda x, w, y: jgmm.fit(KEY, x, 2, sample_weight=w, mesh=make_mesh(1), **FEW),
    "streaming": lambda x, w, y: jgmm.streaming.fit(KEY, x, 2, sample_weight=w, **FEW),
    "blocks": lambda x, w, y: jgmm.streaming.fit(KEY, [(x[:9], w[:9]), (x[9:], w[9:])], 2, **FEW),
    "run_em": lambda x, w, y: jgmm.fitting.run_em(START, x, w, max_steps=2),
    "accumulate": lambda x, w, y: jgmm.accumulate(START, x, w),
    "m_step": lambda x, w, y: jgmm.m_step(x, np.eye(2)[Y], "spherical", w),
    "responsibilities": lambda x, w, y: jgmm.m_step(X, x, "spherical", w),
    "bic": lambda x, w, y: jgmm.selection.bic(START, x, w),
    "held_out": lambda x, w, y: (
        jgmm.selection.held_out(KEY, x, 1, "EII", n_folds=2, n_restarts=1, sample_weight=w)
    ),
    "kmeans": lambda x, w, y: jgmm.kmeans.fit(KEY, x, 2, n_restarts=1, sample_weight=w).centers,
    "centers": lambda x, w, y: jgmm.kmeans.predict(x[np.asarray(w) > 0], X),
    "classifier": lambda x, w, y: jgmm.classifier.fit(x, y, covariance="tied", sample_weight=w),
    "cross_validate": lambda x, w, y: (
        jgmm.classifier.cross_validate(
            KEY, x, y, n_folds=2, covariance="spherical", sample_weight=w
        ).per_fold
    ),
    "make_mixture": lambda x, w, y: (
        jgmm.make_mixture(np.full(2, 0.5, w.dtype), x[4:6], x[20:22], "diag")
    ),
    "conjugate": lambda x, w, y: jgmm.mixture.conjugate(x, 2, sample_weight=w, mean=x[0]),
    "GaussianMixture": lambda x, w, y: (
        GaussianMixture(2, covariance_type="spherical", random_state=0, max_iter=0)
        .fit(x, sample_weight=w)
        .means_
    ),
    "GaussianBayesClassifier": lambda x, w, y: (
        GaussianBayesClassifier("tied").fit(x, y, sample_weight=w).means_
    ),
    "KMeans": lambda x, w, y: (
        KMeans(2, n_init=1, random_state=0).fit(x, sample_weight=w).cluster_centers_
    ),
}


def same(found, expected):
    leaves = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in leaves)


@pytest.mark.parametrize("name", ASK)
def test_every_entry_point_takes_masks_and_any_byte_order(name):
    ask = ASK[name]
    expected = ask(X, W, Y)
    assert same(ask(X.astype(">f8"), W.astype(">f8"), Y.astype(">i4")), expected)
    bad = np.arange(N) == BAD
    values, labels = np.where(bad[:, None], -9999.0, X), np.where(bad, 7, Y)
    x = np.ma.masked_array(values, mask=np.stack([bad, bad], axis=1))
    assert same(ask(x, W, np.ma.masked_array(labels, mask=bad)), expected)
    if name != "make_mixture":  # which does not read that row
        with pytest.raises(DataError, match="row 3"):
            ask(x, np.ones(N), Y)


@pytest.mark.parametrize("name", ASK)
def test_every_entry_point_refuses_times_and_sparse_matrices(name):
    for x, said in ((X.astype("m8[s]"), "real numbers"), (scipy.sparse.csr_array(X), "is sparse")):
        with pytest.raises(DataError, match=said) as raised:
            ASK[name](x, np.ones(N), Y)
        assert len(str(raised.value)) < 250
